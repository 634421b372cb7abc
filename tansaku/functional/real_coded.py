"""Simulated binary crossover and polynomial mutation within a box.

K. Deb and R. B. Agrawal, Simulated Binary Crossover for Continuous Search Space, 1995; K. Deb and M. Goyal, A Combined
Genetic Adaptive Search (GeneAS) for Engineering Design, 1996; the distributions that stay within bounds are those of
K. Deb, An Efficient Constraint Handling Method for Genetic Algorithms, 2000. An infinite end gives the original,
unbounded distribution.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sbx(a: Tensor, b: Tensor, u: Tensor, eta: float, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Two children per pair of parents, spread around them as by one-point crossover of binary genes.

    Without bounds the children's mean is the parents', and their distance is the parents' times a factor around 1.

    Args:
        a: parents within the box.
        b: their partners, the same shape.
        u: uniform in [0, 1), the same shape.
        eta: distribution index >= 0; large keeps children near their parents.
        lower: end of the box, broadcasts against the parents; may be infinite.
        upper: the other end.

    Returns:
        The child on the side of the lower parent, and the other one, gene by gene.
    """
    low, high = torch.minimum(a, b), torch.maximum(a, b)
    distance = high - low
    apart = distance > 0
    gap = torch.where(apart, distance, 1)
    middle = (a + b) / 2
    below = middle - _spread(u, eta, 1 + 2 * (low - lower) / gap) * gap / 2
    above = middle + _spread(u, eta, 1 + 2 * (upper - high) / gap) * gap / 2
    return torch.where(apart, below, a), torch.where(apart, above, b)


def _spread(u: Tensor, eta: float, furthest: Tensor) -> Tensor:
    """The spread factor beta_q, whose density is cut off at ``furthest`` >= 1, where a child would meet the bound."""
    alpha = 2 - furthest.clamp(min=1) ** -(eta + 1)
    share = u * alpha
    return torch.where(share <= 1, share, 1 / (2 - share).clamp(min=torch.finfo(u.dtype).tiny)) ** (1 / (eta + 1))


def polynomial(x: Tensor, u: Tensor, eta: float, lower: Tensor, upper: Tensor) -> Tensor:
    """A child near ``x``, never outside the box; its distance is at most the box's span and mostly span / ``eta``.

    Args:
        x: genes within the box.
        u: uniform in [0, 1), the same shape; below 0.5 moves down.
        eta: distribution index >= 0; large stays near.
        lower: finite end of the box, broadcasts against ``x``.
        upper: the other end.
    """
    span = upper - lower
    width = torch.where(span > 0, span, 1)
    down = u < 0.5
    side = torch.where(down, u, 1 - u)  # symmetric: the share of the way to the bound that is nearer to u
    room = (torch.where(down, x - lower, upper - x) / width).clamp(0, 1)
    value = 2 * side + (1 - 2 * side) * (1 - room) ** (eta + 1)
    step = (1 - value ** (1 / (eta + 1))) * span
    return torch.where(down, x - step, x + step)
