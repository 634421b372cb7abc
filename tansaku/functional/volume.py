"""Hypervolume: how much of the space between a reference point and the ideal a set of candidates dominates, exactly.

E. Zitzler and L. Thiele, Multiobjective Optimization Using Evolutionary Algorithms, 1998. Three objectives are swept
along the last one, each slice being a problem of two.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tansaku import checks

_PAIRS = 1 << 22  # pairs of slice and candidate held at once, all searches together


def hypervolume(cost: Tensor, reference: Tensor) -> Tensor:
    """The volume dominated by candidates and bounded by the reference point, for one, two or three objectives.

    Dominated candidates and those beyond the reference add nothing; NaN is +inf.

    Args:
        cost: [k, *batch_shape, m], lower is better.
        reference: [m], or broadcasts against [*batch_shape, m].

    Returns:
        [*batch_shape].

    Raises:
        ValueError: more than three objectives, or a reference of another length.

    Example:
        >>> hypervolume(torch.tensor([[1.0, 3.0], [2.0, 1.0], [3.0, 3.0]]), torch.tensor([4.0, 4.0]))
        tensor(7.)
    """
    m = cost.shape[-1]
    if not 1 <= m <= 3:
        raise ValueError(
            f"expected one to three objectives for the exact hypervolume, got {m}; leave the reference out"
        )
    if reference.shape[-1:] != (m,):
        raise ValueError(
            f"expected a reference point with one number per objective, [{m}], got "
            f"{checks.shape_text(reference.shape)}; give one number for each"
        )
    reference = reference.to(cost.device, cost.dtype)
    inside = torch.minimum(torch.where(torch.isnan(cost), float("inf"), cost), reference)
    # one candidate beyond the reference in any objective dominates no volume
    inside = torch.where((inside < reference).all(-1, keepdim=True), inside, reference)
    gains = (reference - inside).unbind(-1)  # [k, *batch_shape] each, 0 at the reference: higher is better
    if m == 1:
        return gains[0].amax(0)
    order = gains[0].argsort(dim=0, descending=True, stable=True)
    first, *others = (gain.gather(0, order) for gain in gains)
    width = first - torch.cat([first[1:], torch.zeros_like(first[:1])])
    if m == 2:
        return _area(width, others[0].cummax(0).values, 0)
    second, third = others
    level = third.sort(dim=0, descending=True).values
    depth = level - torch.cat([level[1:], torch.zeros_like(level[:1])])
    chunk = max(1, _PAIRS // max(1, first.numel()))
    volume = torch.zeros_like(first[0])
    for levels, depths in zip(level.split(chunk), depth.split(chunk), strict=True):
        reached = torch.where(third >= levels[:, None], second, 0)  # [levels, k, *batch_shape]
        volume = volume + _product(depths, _area(width, reached.cummax(1).values, 1)).sum(0)
    return volume


def _area(width: Tensor, height: Tensor, dim: int) -> Tensor:
    """The area of bars, whose heights grow as the first objective gets worse."""
    return _product(width, height).sum(dim)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """``a * b`` with 0 times infinity = 0 and the gap between two infinities = 0."""
    return torch.where((a > 0) & (b > 0), a * b, 0)
