"""Selection: who becomes a parent. Each operator is ``(population, count, noise) -> index [count, *batch_shape]``.

``population.take(index)`` gives the parents. Costs decide, so one operator serves both directions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from tansaku import checks, draws
from tansaku.draws import Noise
from tansaku.functional import finite_costs, take_rows
from tansaku.population import Population

_COMPARISONS = 1 << 24  # held in memory at once


@dataclass(frozen=True)
class Tournament:
    """The best of ``size`` candidates drawn with replacement; a tie goes to the one drawn first.

    Candidate of rank r (0 the best of k, no ties) wins with probability ((k - r)^size - (k - r - 1)^size) / k^size.

    Args:
        size: how many compete; 1 selects at random.

    Reference: D. E. Goldberg and K. Deb, A Comparative Analysis of Selection Schemes, 1991.
    """

    size: int = 2

    def __post_init__(self) -> None:
        checks.count("size", self.size)

    def __call__(self, population: Population, count: int, noise: Noise) -> Tensor:
        """[count, *batch_shape] indices of the winners."""
        cost = population.scalar_cost
        lead = (self.size, checks.count("count", count))
        drawn = draws.integers(population.k, lead, tuple(population.batch_shape), (), cost, noise)
        met = take_rows(cost, drawn.flatten(0, 1)).view_as(drawn)
        while drawn.shape[0] > 1:  # neighbours compete, and winners stay in the order in which they were drawn
            pairs = drawn.shape[0] // 2 * 2
            (first, second), (mine, theirs) = ((x[0:pairs:2], x[1:pairs:2]) for x in (drawn, met))
            winners, lowest = torch.where(theirs < mine, second, first), torch.minimum(mine, theirs)
            odd = drawn.shape[0] > pairs
            drawn = torch.cat([winners, drawn[pairs:]]) if odd else winners
            met = torch.cat([lowest, met[pairs:]]) if odd else lowest
        return drawn[0]


@dataclass(frozen=True)
class Truncation:
    """The ``count`` best, best first; ties keep the lower index. Draws nothing."""

    def __call__(self, population: Population, count: int, noise: Noise | None = None) -> Tensor:
        """[count, *batch_shape] indices of the best.

        Raises:
            ValueError: ``count`` is more than there are candidates.
        """
        if checks.count("count", count) > population.k:
            raise ValueError(f"expected count <= k = {population.k}, got {count}; select fewer")
        return population.scalar_cost.argsort(dim=0, stable=True)[:count]


@dataclass(frozen=True)
class LinearRank:
    """Selection probability linear in the rank: the best ``pressure`` / k, the worst (2 - ``pressure``) / k.

    Args:
        pressure: in [1, 2]; expected number of copies of the best in k selections. 1 selects at random.

    Reference: J. E. Baker, Adaptive Selection Methods for Genetic Algorithms, 1985.
    """

    pressure: float = 2.0

    def __post_init__(self) -> None:
        checks.number("pressure", self.pressure, 1.0, 2.0)

    def __call__(self, population: Population, count: int, noise: Noise) -> Tensor:
        """[count, *batch_shape] indices, drawn with replacement."""
        order = population.scalar_cost.argsort(dim=0, stable=True)
        return order.gather(0, _spin(self._of_ranks(population), population, count, noise))

    def probability(self, population: Population) -> Tensor:
        """[k, *batch_shape] float64 chance of each candidate at one draw; ties keep the lower index ahead."""
        rank = population.scalar_cost.argsort(dim=0, stable=True).argsort(dim=0)
        return self._of_ranks(population)[rank]

    def _of_ranks(self, population: Population) -> Tensor:
        k = population.k
        place = torch.arange(k, dtype=torch.float64, device=population.device)
        if k == 1:
            return torch.ones_like(place)
        return self.pressure / k - (2 * self.pressure - 2) / (k * (k - 1)) * place


@dataclass(frozen=True)
class Roulette:
    """Fitness-proportional selection: probability proportional to how far a cost lies below the worst one.

    Costs may have any sign and direction: fitness is (worst finite cost - cost). Failed candidates (infinite or NaN)
    count as the worst; when all are equal, all have the same chance.

    Reference: D. E. Goldberg, Genetic Algorithms in Search, Optimization and Machine Learning, 1989 (windowing).
    """

    def __call__(self, population: Population, count: int, noise: Noise) -> Tensor:
        """[count, *batch_shape] indices, drawn with replacement."""
        return _spin(self.probability(population), population, count, noise)

    def probability(self, population: Population) -> Tensor:
        """[k, *batch_shape] float64 chance of each candidate at one draw."""
        cost = finite_costs(population.scaled_cost).to(torch.float64)
        fitness = cost.amax(0, keepdim=True) - cost
        total = fitness.sum(0, keepdim=True)
        even = torch.full_like(fitness, 1 / population.k)
        usable = (total > 0) & torch.isfinite(total)
        return torch.where(usable, fitness / total, even)


@dataclass(frozen=True)
class ExponentialRank:
    """Selection probability falls by the same factor from rank to rank: proportional to ``base`` ** rank, best 0.

    Args:
        base: in (0, 1); the smaller, the more the best are preferred.

    Reference: T. Blickle and L. Thiele, A Comparison of Selection Schemes Used in Evolutionary Algorithms, 1996.
    """

    base: float = 0.95

    def __post_init__(self) -> None:
        if not 0.0 < checks.number("base", self.base, 0.0, 1.0) < 1.0:
            raise ValueError(f"expected base between 0 and 1, got {self.base}; use Tournament(1) to select at random")

    def __call__(self, population: Population, count: int, noise: Noise) -> Tensor:
        """[count, *batch_shape] indices, drawn with replacement."""
        order = population.scalar_cost.argsort(dim=0, stable=True)
        return order.gather(0, _spin(self._of_ranks(population), population, count, noise))

    def probability(self, population: Population) -> Tensor:
        """[k, *batch_shape] float64 chance of each candidate at one draw; ties keep the lower index ahead."""
        rank = population.scalar_cost.argsort(dim=0, stable=True).argsort(dim=0)
        return self._of_ranks(population)[rank]

    def _of_ranks(self, population: Population) -> Tensor:
        weight = self.base ** torch.arange(population.k, dtype=torch.float64, device=population.device)
        return weight / weight.sum()


@dataclass(frozen=True)
class Boltzmann:
    """Selection probability proportional to exp(-cost / temperature).

    Failed candidates (infinite or NaN) count as the worst finite one.

    Args:
        temperature: in units of cost, > 0; a low one prefers the best. Often lowered during a search: see `Scheduled`.

    Reference: M. de la Maza and B. Tidor, An Analysis of Selection Procedures with Particular Attention Paid to
    Proportional and Boltzmann Selection, 1993.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if checks.number("temperature", self.temperature, 0.0) == 0.0:
            raise ValueError("expected temperature > 0, got 0; use Truncation to select only the best")

    def __call__(self, population: Population, count: int, noise: Noise) -> Tensor:
        """[count, *batch_shape] indices, drawn with replacement."""
        return _spin(self.probability(population), population, count, noise)

    def probability(self, population: Population) -> Tensor:
        """[k, *batch_shape] float64 chance of each candidate at one draw."""
        cost = finite_costs(population.scaled_cost).to(torch.float64)
        return torch.softmax((cost.amin(0, keepdim=True) - cost) / self.temperature, 0)


class Scheme(Protocol):
    """A selection that says each candidate's chance."""

    def probability(self, population: Population) -> Tensor:
        """[k, *batch_shape] chance of each candidate at one draw."""


@dataclass(frozen=True)
class StochasticUniversal:
    """Stochastic universal sampling: one spin of a wheel with ``count`` equally spaced pointers.

    A candidate of probability p is selected count * p times, rounded down or up, and no other number of times. The
    selected come in random order, so that the first half may be paired with the second.

    Args:
        scheme: whose probabilities: `Roulette`, `LinearRank`, `ExponentialRank`, `Boltzmann`.

    Raises:
        TypeError: a scheme without probabilities, such as `Tournament`.

    Reference: J. E. Baker, Reducing Bias and Inefficiency in the Selection Algorithm, 1987.
    """

    scheme: Scheme = field(default_factory=Roulette)

    def __post_init__(self) -> None:
        if isinstance(self.scheme, type) or not hasattr(self.scheme, "probability"):
            raise TypeError(
                f"expected a scheme with probabilities, got {self.scheme!r}; use Roulette(), LinearRank(), "
                "ExponentialRank() or Boltzmann()"
            )

    def __call__(self, population: Population, count: int, noise: Noise) -> Tensor:
        """[count, *batch_shape] indices."""
        probability = self.scheme.probability(population)
        batch_shape = tuple(population.batch_shape)
        turn = draws.uniform((), batch_shape, (), probability, noise)
        mixed = draws.uniform((checks.count("count", count),), batch_shape, (), probability, noise).argsort(0)
        return _read((mixed + turn) / count, probability)


@dataclass(frozen=True)
class Lexicase:
    """Each parent is the best on a first random case, among its equals on a second one, and so on.

    Reads ``assessment.cases`` [k, *batch_shape, c], lower is better, NaN is the worst. Candidates that are equal on
    all cases have the same chance. Costs play no part.

    Args:
        epsilon: how much worse than the best a candidate may be on a case and still go on; > 0 for cases that are
            real numbers, of which hardly two are equal.

    Raises:
        RuntimeError: no cases in the assessment (at the call).

    Reference: T. Helmuth, L. Spector and J. Matheson, Solving Uncompromising Problems with Lexicase Selection, 2015;
    W. La Cava, L. Spector and K. Danai, Epsilon-Lexicase Selection for Regression, 2016 (with a given epsilon).
    """

    epsilon: float = 0.0

    def __post_init__(self) -> None:
        checks.number("epsilon", self.epsilon, 0.0)

    def __call__(self, population: Population, count: int, noise: Noise) -> Tensor:
        """[count, *batch_shape] indices."""
        assessment = population.assessment
        if assessment is None or assessment.cases is None:
            raise RuntimeError(
                "expected cost per case, got none; assess with Assessment(value, cases=[k, *batch_shape, c])"
            )
        inf = float("inf")
        cases = torch.where(torch.isnan(assessment.cases), inf, assessment.cases)
        cases = cases.to(torch.promote_types(cases.dtype, torch.float32))
        lead, batch_shape = (checks.count("count", count),), tuple(population.batch_shape)
        order = draws.permutations(lead, batch_shape, (cases.shape[-1],), cases, noise)
        drawn = draws.uniform(lead, batch_shape, (), torch.zeros((), dtype=torch.float64, device=cases.device), noise)
        block = max(1, _COMPARISONS // max(1, cases[..., 0].numel()))
        pairs = zip(order.split(block), drawn.split(block), strict=True)
        return torch.cat([self._chosen(cases, *pair) for pair in pairs])

    def _chosen(self, cases: Tensor, order: Tensor, drawn: Tensor) -> Tensor:
        """Indices [count, *batch_shape] of the winners.

        Args:
            cases: [k, *batch_shape, c] costs without NaN.
            order: [count, *batch_shape, c] the cases in the order in which they are looked at.
            drawn: [count, *batch_shape] in [0, 1): who of those that are equal.
        """
        rows = cases.expand(order.shape[0], *cases.shape)  # [count, k, *batch_shape, c], a view
        alive = torch.ones(rows.shape[:-1], dtype=torch.bool, device=cases.device)
        for case in order.unbind(-1):
            index = case.unsqueeze(1).unsqueeze(-1).expand(*rows.shape[:-1], 1)
            cost = torch.where(alive, rows.gather(-1, index)[..., 0], float("inf"))
            alive &= cost <= cost.amin(1, keepdim=True) + self.epsilon
        number = alive.cumsum(1)  # of the living, from 1 on
        wanted = (drawn * number[:, -1]).floor().clamp(max=number[:, -1] - 1) + 1
        return (alive & (number == wanted.unsqueeze(1))).to(torch.uint8).argmax(1)


def _spin(probability: Tensor, population: Population, count: int, noise: Noise) -> Tensor:
    """Indices [count, *batch_shape] drawn by their probability, [k] or [k, *batch_shape]."""
    batch_shape = tuple(population.batch_shape)
    return _read(draws.uniform((checks.count("count", count),), batch_shape, (), probability, noise), probability)


def _read(spun: Tensor, probability: Tensor) -> Tensor:
    """Who stands at ``spun`` [count, *batch_shape] on a wheel with these shares, [k] or [k, *batch_shape]."""
    wheel = probability.cumsum(0)
    wheel = wheel / wheel[-1:]  # rounding must not leave a gap at the end
    if wheel.ndim == 1:
        index = torch.searchsorted(wheel, spun, right=True)
    else:
        columns = wheel.movedim(0, -1).contiguous()
        index = torch.searchsorted(columns, spun.movedim(0, -1).contiguous(), right=True).movedim(-1, 0)
    return index.clamp_(max=probability.shape[0] - 1)
