"""Two parents, one child."""

from __future__ import annotations

import torch
from torch import Tensor

from tansaku.functional.rows import select
from tansaku.storage import buffer_like


def exchange(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """The genes of ``b`` where ``mask`` (boolean, the same shape), of ``a`` elsewhere."""
    return select(mask, b, a)


def blend(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """``a + weight * (b - a)``: on the line between the parents, beyond them for a weight outside [0, 1].

    Reference: L. J. Eshelman and J. D. Schaffer, Real-coded genetic algorithms and interval-schemata, 1993.
    """
    return torch.lerp(a, b, weight, out=buffer_like(a))
