"""Noise as a layer: it makes the layer above bear what a search, or the world, will do to its inputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GaussianNoise(nn.Module):
    """Adds normal noise in training and nothing in evaluation, from torch's global generator, as dropout does.

    Args:
        std: standard deviation of the noise, in units of the values.
        relative: whether ``std`` is in units of each feature's own standard deviation over the rows instead.

    Raises:
        ValueError: a negative std.

    >>> GaussianNoise(0.5).eval()(torch.ones(2)).tolist()
    [1.0, 1.0]
    """

    def __init__(self, std: float = 0.1, *, relative: bool = False) -> None:
        super().__init__()
        if not std >= 0:
            raise ValueError(f"GaussianNoise expected std >= 0, got {std}: 0 adds nothing")
        self.std = std
        self.relative = relative

    def forward(self, x: Tensor) -> Tensor:
        """The values [n, ...], disturbed while in training."""
        if not self.training or self.std == 0:
            return x
        unit = x.detach().std(0, correction=0) if self.relative else 1.0
        return x + self.std * unit * torch.randn_like(x)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"std={self.std}, relative={self.relative}"
