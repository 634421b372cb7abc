"""Dropout whose mask can be held, so that several passes see the same thinned network."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FreezableDropout(nn.Module):
    """Zeroes each value with probability p in training and divides the others by 1 - p; the identity in evaluation.

    The mean over masks is therefore the value that evaluation gives. After `freeze` the first mask drawn in training is
    used in every pass, until `unfreeze`; without it every pass draws its own, from torch's global generator, as
    `nn.Dropout` does.

    Args:
        p: the probability of a zero, in [0, 1).

    Attributes:
        frozen: whether the mask is held.

    Raises:
        ValueError: p outside [0, 1); a held mask for other rows (at the call).

    >>> layer = FreezableDropout(0.5).freeze()
    >>> x = torch.ones(4, 8)
    >>> torch.equal(layer(x), layer(x)), sorted(set(layer(x).flatten().tolist())) == [0.0, 2.0]
    (True, True)

    Reference: Srivastava et al. (2014), Dropout: a simple way to prevent neural networks from overfitting.
    """

    stochastic = True  # as `Stochastic` asks
    mask: Tensor | None

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"FreezableDropout expected p in [0, 1), got {p}: it is the share of zeros")
        self.p = p
        self.frozen = False
        self.register_buffer("mask", None, persistent=False)

    def freeze(self) -> FreezableDropout:
        """Holds the mask of the next pass in training; itself."""
        self.frozen = True
        return self

    def unfreeze(self) -> FreezableDropout:
        """Drops the mask; every pass draws again; itself."""
        self.frozen, self.mask = False, None
        return self

    def forward(self, x: Tensor) -> Tensor:
        """The values `[n, ...]`, thinned in training. k copies of the held mask's rows get it k times."""
        if not self.training or self.p == 0:
            return x
        if not self.frozen:
            return x * self._drawn(x)
        if self.mask is None:
            self.mask = self._drawn(x)
        rows = self.mask.shape[0]
        if x.shape[1:] != self.mask.shape[1:] or x.shape[0] % rows:
            raise ValueError(
                f"FreezableDropout expected rows {list(self.mask.shape)}, or whole copies of them, for a frozen mask, "
                f"got {list(x.shape)}: unfreeze() draws another"
            )
        return x * self.mask.repeat(x.shape[0] // rows, *(1 for _ in x.shape[1:])).to(x.dtype)

    def _drawn(self, x: Tensor) -> Tensor:
        """0 with probability p, else 1 / (1 - p)."""
        return torch.empty_like(x).bernoulli_(1 - self.p) / (1 - self.p)  # rand_like is coarse in short dtypes

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"p={self.p}, frozen={self.frozen}"
