"""Small changes of one candidate."""

from __future__ import annotations

import torch
from torch import Tensor

from tansaku.storage import buffer_like


def jitter(x: Tensor, noise: Tensor, std: float | Tensor) -> Tensor:
    """``x + std * noise``; ``std`` is a number or broadcasts against ``x``."""
    if isinstance(std, Tensor):
        return torch.addcmul(x, noise, std.to(x.dtype), out=buffer_like(x) if x.shape == noise.shape else None)
    return torch.add(x, noise, alpha=std, out=buffer_like(noise))


def flip(x: Tensor, mask: Tensor) -> Tensor:
    """Boolean genes, inverted where ``mask``."""
    return torch.logical_xor(x, mask)
