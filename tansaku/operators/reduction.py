"""Reduction: a population becomes one individual. Each operator is ``(population) -> individual``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from tansaku import checks
from tansaku.functional import align, centred_costs, centred_ranks, lowest, softmax_weights, standardised_weights
from tansaku.population import Individual, Population


@dataclass(frozen=True)
class Best:
    """The candidate of lowest cost of each search; with ``batch_shape = (n,)`` every row its own."""

    def __call__(self, population: Population) -> Individual:
        """The best candidate, ties by the lower index."""
        return population.best().individual()


@dataclass(frozen=True)
class BestPerSample:
    """For candidates that are whole batches of rows: each row from the candidate that costs that row least.

    Reads ``assessment.cases`` [k, *batch_shape, c]: genes whose first event dimension is c are rows, put together from
    several candidates. (Where the rows are searches of their own, ``batch_shape = (n,)``, `Best` does this.)

    Raises:
        RuntimeError: no cases in the assessment.
        ValueError: genes whose first event dimension is not c.
    """

    def __call__(self, population: Population) -> Individual:
        """An individual [*batch_shape, c, ...] whose row j costs least on case j; ties by the lower index."""
        assessment = population.assessment
        if assessment is None or assessment.cases is None:
            raise RuntimeError(
                "expected cost per case, got none; assess with Assessment(value, cases=[k, *batch_shape, c])"
            )
        cases = torch.where(torch.isnan(assessment.cases), float("inf"), assessment.cases)
        best = lowest(cases)
        genes = {}
        for name, x in population.genes.items():
            if x.shape[: cases.ndim] != cases.shape:
                raise ValueError(
                    f"expected {name!r} with leading dimensions {checks.shape_text(cases.shape)}, as the cases have, "
                    f"got {checks.shape_text(x.shape)}; give one row of genes per case"
                )
            genes[name] = x.gather(0, align(best, x).expand(1, *x.shape[1:]))[0]
        return Individual(genes, population.batch_ndim)


@dataclass(frozen=True)
class Mean:
    """The plain mean of the candidates, whatever they cost."""

    def __call__(self, population: Population) -> Individual:
        """[*batch_shape, *event_shape] means.

        Raises:
            TypeError: genes that are not real.
        """
        for name, x in population.genes.items():
            checks.real("the mean", name, x, "use Best")
        return Individual({name: x.mean(0) for name, x in population.genes.items()}, population.batch_ndim)


_WEIGHTS = {
    "softmax": softmax_weights,
    "centred": centred_costs,
    "standardised": standardised_weights,
    "ranks": centred_ranks,
}


@dataclass(frozen=True)
class WeightedMean:
    """The mean of the candidates weighted by how good they are.

    With ``"softmax"`` the weights are positive and sum to 1: a soft version of `Best`. The others say how far and
    where to go from the middle of the population, as evolution strategies do: mean + step * mean(w_i (x_i - mean)),
    where the w_i sum to 0, so that the answer may lie outside the population.

    Args:
        weights: ``"softmax"`` of -cost / temperature; ``"centred"``, mean - cost; ``"standardised"``, the same
            divided by the standard deviation; ``"ranks"``, centred ranks in [-0.5, 0.5], which do not change under
            any rising function of the cost. With ``"centred"`` and normal candidates of standard deviation s, a
            ``step`` of 1 / s^2 moves by minus the gradient of the cost as that noise smooths it: the step vanishes
            where all candidates cost the same, while the other two always move by about as much.
        temperature: of the softmax, in units of cost.
        step: the length of the step for the weights that sum to 0.

    Raises:
        TypeError: genes that are not real (at the call).

    Reference: T. Salimans et al., Evolution Strategies as a Scalable Alternative to Reinforcement Learning, 2017.
    """

    weights: Literal["softmax", "centred", "standardised", "ranks"] = "softmax"
    temperature: float = 1.0
    step: float = 1.0

    def __post_init__(self) -> None:
        if self.weights not in _WEIGHTS:
            raise ValueError(f"expected weights among {sorted(_WEIGHTS)}, got {self.weights!r}; choose one")
        checks.number("temperature", self.temperature, torch.finfo(torch.float32).tiny)
        checks.number("step", self.step)

    def __call__(self, population: Population) -> Individual:
        """[*batch_shape, *event_shape] weighted means."""
        cost = population.scaled_cost
        if self.weights == "softmax":
            weights = softmax_weights(cost, self.temperature)
        else:
            weights = _WEIGHTS[self.weights](cost) / population.k
        return Individual(
            {name: self._mean(name, x, weights) for name, x in population.genes.items()}, population.batch_ndim
        )

    def _mean(self, name: str, x: Tensor, weights: Tensor) -> Tensor:
        checks.real("the weighted mean", name, x, "use Best")
        weighted = (align(weights.to(x.dtype), x) * x).sum(0)
        return weighted if self.weights == "softmax" else x.mean(0) + self.step * weighted


@dataclass(frozen=True)
class Slope:
    """One step down the slope of the cost, measured gene by gene: mean - step * slope.

    The slope of a gene is the coefficient of the least-squares line of cost on that gene's values,
    covariance / variance; 0 for a gene whose values are all equal. Candidates that failed (infinite cost) are left
    out. Where genes vary independently of each other this is the gradient of the plane that fits the costs best.

    Args:
        step: how far to go; 1 / curvature takes a parabola to its bottom.

    Raises:
        TypeError: genes that are not real (at the call).
    """

    step: float = 1.0

    def __post_init__(self) -> None:
        checks.number("step", self.step)

    def __call__(self, population: Population) -> Individual:
        """[*batch_shape, *event_shape] the mean of the candidates, one step on."""
        slopes, used = self.slopes(population), torch.isfinite(population.scaled_cost)
        return Individual(
            {name: (_mean_of(x, used) - self.step * slopes[name]).to(x.dtype) for name, x in population.genes.items()},
            population.batch_ndim,
        )

    def slopes(self, population: Population) -> dict[str, Tensor]:
        """Name -> [*batch_shape, *event_shape] the change of cost per unit of each gene."""
        cost = population.scaled_cost
        used = torch.isfinite(cost)
        cost = torch.where(used, cost, 0.0)
        slopes = {}
        for name, x in population.genes.items():
            checks.real("the slope", name, x, "use BinaryProbability for booleans or Best")
            apart = torch.where(align(used, x), x - _mean_of(x, used), 0.0)
            above = align(cost - _mean_of(cost, used), x).to(x.dtype)
            variance = apart.square().sum(0)
            slope = (apart * above).sum(0) / torch.where(variance > 0, variance, torch.ones_like(variance))
            slopes[name] = torch.where(torch.isfinite(slope), slope, torch.zeros_like(slope))
        return slopes


def _mean_of(x: Tensor, used: Tensor) -> Tensor:
    """The mean over the candidates in use [k, *batch_shape]; over all of them where none is."""
    weight = torch.where(used.any(0, keepdim=True), used, torch.ones_like(used)).to(x.dtype)
    return (align(weight, x) * x).sum(0) / align(weight.sum(0), x[0])


@dataclass(frozen=True)
class BinaryProbability:
    """Each boolean gene takes the value whose candidates cost less on average.

    `probability` says how sure that is: the chance that True costs less, from the difference of the two means in
    units of its standard error, under a normal distribution. Where only one value was tried, or both cost the same,
    the share of True among the candidates decides. Candidates that failed (infinite cost) are left out.

    Raises:
        TypeError: genes that are not boolean (at the call).
    """

    def __call__(self, population: Population) -> Individual:
        """[*batch_shape, *event_shape] booleans."""
        return Individual(
            {name: p > 0.5 for name, p in self.probability(population).items()},
            population.batch_ndim,
        )

    def probability(self, population: Population) -> dict[str, Tensor]:
        """Name -> [*batch_shape, *event_shape] the chance that True is the better value."""
        cost = population.scaled_cost
        used = torch.isfinite(cost)
        cost = torch.where(used, cost, 0.0).to(torch.promote_types(cost.dtype, torch.float32))
        answer = {}
        for name, x in population.genes.items():
            if x.dtype != torch.bool:
                raise TypeError(
                    f"expected boolean genes for BinaryProbability, got {name!r} of {x.dtype}; "
                    "use Slope for real genes or Best"
                )
            kept, paid = align(used, x), align(cost, x)
            count, mean, error = [], [], []
            for chosen in (x & kept, ~x & kept):
                n = chosen.sum(0).to(cost.dtype)
                centre = torch.where(chosen, paid, 0.0).sum(0) / n.clamp(min=1)
                spread = torch.where(chosen, paid - centre, 0.0).square().sum(0)
                count.append(n)
                mean.append(centre)
                error.append(spread / (n * (n - 1)).clamp(min=1))  # variance of the mean; 0 for one candidate
            ahead = mean[1] - mean[0]
            score = ahead / (error[0] + error[1]).sqrt().clamp(min=torch.finfo(cost.dtype).tiny)
            compared = (count[0] > 0) & (count[1] > 0) & (ahead != 0) & torch.isfinite(ahead)
            answer[name] = torch.where(compared, torch.special.ndtr(score), x.to(cost.dtype).mean(0))
        return answer


@dataclass(frozen=True)
class MomentumMemory:
    """What `Momentum` remembers from step to step: where it is and how fast it moves."""

    current: Individual
    velocity: Individual


@dataclass(frozen=True)
class Momentum:
    """Another reducer's answers followed with inertia: v = (answer - current) + momentum * v, current = current + v.

    The memory is the caller's, since operators have none: `after` takes it and gives the next one.

    Args:
        reduce: the reducer to follow.
        momentum: the share of the velocity that stays, in [0, 1); 0 is the reducer itself.

    Raises:
        TypeError: genes that are not real (at the call).

    Example:
        >>> from tansaku import Assessment
        >>> follow, memory = Momentum(Mean(), 0.5), None
        >>> for x in (0.0, 1.0, 1.0):
        ...     population = Population({"x": torch.full((2, 1), x)}, assessment=Assessment(torch.zeros(2)))
        ...     memory = follow.after(memory, population)
        >>> memory.current["x"]
        tensor([1.5000])

    Reference: B. T. Polyak, Some methods of speeding up the convergence of iteration methods, 1964.
    """

    reduce: Callable[[Population], Individual] = field(default_factory=Best)
    momentum: float = 0.9

    def __post_init__(self) -> None:
        if checks.number("momentum", self.momentum, 0.0, 1.0) == 1.0:
            raise ValueError("expected momentum < 1, got 1; velocities would never fade")

    def __call__(self, population: Population) -> Individual:
        """The first step, without a memory: the reducer's own answer."""
        return self.after(None, population).current

    def after(self, memory: MomentumMemory | None, population: Population) -> MomentumMemory:
        """The memory after one more population; its ``current`` is the answer."""
        for name, x in population.genes.items():
            checks.real("Momentum", name, x, "use Best")
        answer = self.reduce(population)
        if memory is None:
            rest = Individual({name: torch.zeros_like(x) for name, x in answer.genes.items()}, answer.batch_ndim)
            return MomentumMemory(answer, rest)
        velocity = {
            name: x - memory.current[name] + self.momentum * memory.velocity[name] for name, x in answer.genes.items()
        }
        current = {name: memory.current[name] + v for name, v in velocity.items()}
        return MomentumMemory(Individual(current, answer.batch_ndim), Individual(velocity, answer.batch_ndim))
