"""A stochastic module asked several times: the mean of its passes, in training and in evaluation."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Stochastic(nn.Module):
    """The mean of k passes of a module that draws at random, dropout or noise, in evaluation too.

    Normalisation follows the mode of this module; everything else inside stays in training, and so stochastic. All
    passes are the rows of one.

    Args:
        module: from a tensor `[n, ...]` to one.
        k: passes.

    Raises:
        ValueError: k < 1.

    >>> import torch
    >>> layer = Stochastic(nn.Dropout(0.5), k=100).eval()
    >>> layer(torch.ones(2, 3)).sub(1).abs().max() < 0.5, layer.passes(torch.ones(2, 3)).shape
    (tensor(True), torch.Size([100, 2, 3]))

    Reference: Gal, Ghahramani (2016), Dropout as a Bayesian approximation.
    """

    def __init__(self, module: nn.Module, k: int = 8) -> None:
        super().__init__()
        if k < 1:
            raise ValueError(f"Stochastic expected k >= 1, got {k}: pass the module at least once")
        self.module = module
        self.k = k
        self.train(self.training)

    def train(self, mode: bool = True) -> Stochastic:
        """The mode, which of the modules inside only normalisation follows."""
        super().train(mode)
        for m in self.module.modules():
            m.training = mode if isinstance(m, _BatchNorm) else True
        return self

    def passes(self, x: Tensor) -> Tensor:
        """x: `[n, ...]` -> `[k, n, ...]`, the passes one by one."""
        rows = x.expand(self.k, *x.shape).flatten(0, 1)
        return cast(Tensor, self.module(rows)).unflatten(0, (self.k, x.shape[0]))

    def forward(self, x: Tensor) -> Tensor:
        """x: `[n, ...]` -> `[n, ...]`, the mean of the passes."""
        return self.passes(x).mean(0)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"k={self.k}"
