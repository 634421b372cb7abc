"""Reduction: a population becomes one individual. Each operator is ``(population) -> individual``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tansaku import checks
from tansaku.functional import align, centred_costs, centred_ranks, softmax_weights, standardised_weights
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
        best = cases.argmin(0, keepdim=True)
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
        cost = population.cost
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
