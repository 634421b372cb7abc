"""Crossover at one, two or n points.

J. H. Holland, Adaptation in Natural and Artificial Systems, 1975 (one point); K. A. De Jong, An Analysis of the
Behavior of a Class of Genetic Adaptive Systems, 1975 (n points).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tansaku import checks, draws
from tansaku.draws import Noise
from tansaku.functional import exchange
from tansaku.operators.crossover import Crossover
from tansaku.operators.mutation import shapes


def segments(cuts: Tensor, n: int) -> Tensor:
    """Which of ``n`` genes come from the second parent, if parents take turns at every cut.

    Args:
        cuts: [..., points] each in 1 .. n - 1: the gene before which the cut falls.
        n: the number of genes.

    Returns:
        [..., n] booleans; the first gene is always False.
    """
    place = torch.arange(n, device=cuts.device)
    second = torch.zeros(*cuts.shape[:-1], n, dtype=torch.bool, device=cuts.device)
    for cut in cuts.unbind(-1):
        second ^= place >= cut[..., None]
    return second


@dataclass(frozen=True)
class NPointCrossover(Crossover):
    """The genes of one name, as one row, are cut at ``points`` places; pieces come from the parents in turn.

    The cuts are different, every set of them equally likely: a cut may fall before any gene but the first, the last
    included. Where there are fewer places than ``points``, all of them are cut. The first piece is the first
    parent's, and every name is cut apart from the others. Genes of any dtype.

    Args:
        points: the number of cuts, >= 1.

    Example:
        >>> from tansaku import Population
        >>> a, b = Population({"x": torch.zeros(1, 6)}), Population({"x": torch.ones(1, 6)})
        >>> NPointCrossover(2)(a, b, torch.Generator().manual_seed(1))["x"]
        tensor([[0., 1., 1., 1., 0., 0.]])
    """

    points: int

    def __post_init__(self) -> None:
        checks.count("points", self.points)

    def cross(self, name: str, a: Tensor, b: Tensor, batch_ndim: int, noise: Noise) -> Tensor:
        """See `Crossover.cross`."""
        lead, batch_shape, event_shape = shapes(a, batch_ndim)
        n = math.prod(event_shape)
        if n < 2:
            return a
        if self.points == 1:
            cuts = draws.integers(n - 1, lead, batch_shape, (1,), a, noise) + 1
        else:
            unit = torch.zeros((), device=a.device)
            keys = draws.uniform(lead, batch_shape, (n - 1,), unit, noise)
            cuts = keys.topk(min(self.points, n - 1), -1).indices + 1
        return exchange(a, b, segments(cuts, n).view(a.shape))


@dataclass(frozen=True)
class OnePointCrossover(NPointCrossover):
    """`NPointCrossover` with one cut: the head from the first parent, the tail from the second."""

    points: int = field(default=1, init=False)


@dataclass(frozen=True)
class TwoPointCrossover(NPointCrossover):
    """`NPointCrossover` with two cuts: a piece from the second parent, what surrounds it from the first."""

    points: int = field(default=2, init=False)
