"""Simulated binary crossover and polynomial mutation within a box.

K. Deb and R. B. Agrawal, Simulated Binary Crossover for Continuous Search Space, 1995; K. Deb and M. Goyal, A Combined
Genetic Adaptive Search (GeneAS) for Engineering Design, 1996; the distributions that stay within bounds are those of
K. Deb, An Efficient Constraint Handling Method for Genetic Algorithms, 2000. An infinite end gives the original,
unbounded distribution.

A gene beside a bound needs steps as small as its distance to that bound. So each kernel computes the step from its
parent by logarithms (log1p, expm1), which keeps the relative precision of small steps, and never as a difference of
two positions.
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
    room = (torch.stack([low - lower, upper - high]) / gap * 2).clamp(min=0)
    excess, rest = _spread(u, eta, room)
    by_rest = rest < excess  # the child is nearer to the bound than to its parent
    down, up = (torch.where(by_rest, -rest, excess) * (gap / 2)).unbind()
    below = torch.where(by_rest[0], lower, low) - down
    above = torch.where(by_rest[1], upper, high) + up
    return torch.where(apart, below.clamp(lower, upper), a), torch.where(apart, above.clamp(lower, upper), b)


def _spread(u: Tensor, eta: float, room: Tensor) -> tuple[Tensor, Tensor]:
    """The spread factor beta_q less 1, and what is left of ``room`` >= 0, at which a child would meet the bound.

    With alpha = 2 - (1 + room)^-(eta + 1), the cut of Deb's density, ``u * alpha`` is the factor's probability.
    """
    power = (eta + 1) * torch.log1p(room)
    cut, beyond = torch.exp(-power), -torch.expm1(-power)  # 2 - alpha, alpha - 1
    past = u * beyond - (1 - u)  # u * alpha - 1, without its rounding
    near = past.abs() < 0.5
    contracting = torch.where(near, torch.log1p(past), torch.log(u + u * beyond))
    left = (2 * (1 - u) + u * cut).clamp(min=torch.finfo(u.dtype).tiny)  # 2 - u * alpha
    expanding = torch.where(near, torch.log1p(-past), torch.log(left))
    excess = torch.expm1(torch.where(past <= 0, contracting, -expanding) / (eta + 1))
    rest = -(1 + room) * torch.expm1(-torch.log1p((1 - u) * (2 / cut - 1)) / (eta + 1))
    return excess, torch.where(past > 0, rest, float("inf"))


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
    below, above = ((x - lower) / width).clamp(0, 1), ((upper - x) / width).clamp(0, 1)
    ahead, behind = torch.where(down, below, above), torch.where(down, above, below)  # room in units of the span
    power = (eta + 1) * torch.where(ahead < 0.5, torch.log1p(-ahead), torch.log(behind))  # of (1 - ahead)^(eta + 1)
    inner = 1 - 2 * side
    lost = -inner * torch.expm1(power)  # 1 - value, for values near 1
    value = 2 * side + inner * torch.exp(power)
    log = torch.where(lost < 0.5, torch.log1p(-lost), torch.log(value))
    log = log / (eta + 1)
    step = -torch.expm1(log)
    little = torch.expm1(torch.log1p(2 * side * torch.expm1(-power)) / (eta + 1))
    rest = torch.where(behind > 0.1, behind * little, torch.exp(log) - behind)  # ahead - step
    by_rest = rest < step  # the child is nearer to the bound than to x
    end = torch.where(down, lower, upper)
    change = torch.where(by_rest, rest, -step) * span
    child = torch.where(by_rest, end, x) + torch.where(down, change, -change)
    return torch.clamp(child, lower, upper)
