"""Selection: who becomes a parent. Each operator is ``(population, count, noise) -> index [count, *batch_shape]``.

``population.take(index)`` gives the parents. Costs decide, so one operator serves both directions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tansaku import checks, draws
from tansaku.draws import Noise
from tansaku.functional import finite_costs
from tansaku.population import Population


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
        cost = population.cost
        lead = (self.size, checks.count("count", count))
        drawn = draws.integers(population.k, lead, tuple(population.batch_shape), (), cost, noise)
        met = cost.gather(0, drawn.flatten(0, 1)).view_as(drawn)
        winner, lowest = drawn[0], met[0]
        for i in range(1, self.size):
            better = met[i] < lowest
            winner, lowest = torch.where(better, drawn[i], winner), torch.where(better, met[i], lowest)
        return winner


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
        return population.cost.argsort(dim=0, stable=True)[:count]


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
        cost = population.cost
        k = population.k
        order = cost.argsort(dim=0, stable=True)
        place = torch.arange(k, dtype=torch.float64, device=cost.device)
        slope = (2 * self.pressure - 2) / (k * (k - 1)) if k > 1 else 0.0
        probability = self.pressure / k - slope * place if k > 1 else torch.ones_like(place)
        rank = _spin(probability, population, count, noise)
        return order.gather(0, rank)


@dataclass(frozen=True)
class Roulette:
    """Fitness-proportional selection: probability proportional to how far a cost lies below the worst one.

    Costs may have any sign and direction: fitness is (worst finite cost - cost). Failed candidates (infinite or NaN)
    count as the worst; when all are equal, all have the same chance.

    Reference: D. E. Goldberg, Genetic Algorithms in Search, Optimization and Machine Learning, 1989 (windowing).
    """

    def __call__(self, population: Population, count: int, noise: Noise) -> Tensor:
        """[count, *batch_shape] indices, drawn with replacement."""
        cost = finite_costs(population.cost).to(torch.float64)
        fitness = cost.amax(0, keepdim=True) - cost
        total = fitness.sum(0, keepdim=True)
        even = torch.full_like(fitness, 1 / population.k)
        usable = (total > 0) & torch.isfinite(total)
        return _spin(torch.where(usable, fitness / total, even), population, count, noise)


def _spin(probability: Tensor, population: Population, count: int, noise: Noise) -> Tensor:
    """Indices [count, *batch_shape] drawn by their probability, [k] or [k, *batch_shape]."""
    batch_shape = tuple(population.batch_shape)
    spun = draws.uniform((checks.count("count", count),), batch_shape, (), probability, noise)
    wheel = probability.cumsum(0)
    wheel = wheel / wheel[-1:]  # rounding must not leave a gap at the end
    if wheel.ndim == 1:
        index = torch.searchsorted(wheel, spun, right=True)
    else:
        columns = wheel.movedim(0, -1).contiguous()
        index = torch.searchsorted(columns, spun.movedim(0, -1).contiguous(), right=True).movedim(-1, 0)
    return index.clamp_(max=population.k - 1)
