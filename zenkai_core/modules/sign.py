"""Sign units: outputs in {-1, 1}, with no gradient or with a straight-through one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Sign(nn.Module):
    """1 where x >= 0, else -1; NaN stays NaN. No gradient exists; rules that need one refuse the module.

    >>> Sign()(torch.tensor([-2.0, 0.0, 3.0])).tolist()
    [-1.0, 1.0, 1.0]
    """

    differentiable = False

    def forward(self, x: Tensor) -> Tensor:
        """The signs, in the dtype of x."""
        return _sign(x.detach())


class SignSTE(nn.Module):
    """`Sign` whose backward passes the gradient straight through where |x| <= width, and stops it elsewhere.

    Args:
        width: the half width of the window; `inf` passes everything.

    Raises:
        ValueError: the width is not positive.

    Reference: Bengio, Leonard, Courville (2013), Estimating or propagating gradients through stochastic neurons;
    the window is that of Hubara et al. (2016), Binarized neural networks.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        if not width > 0:
            raise ValueError(f"SignSTE expected a positive width, got {width}: 1.0 is usual, inf passes everything")
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        """The signs, in the dtype of x."""
        return StraightThrough.apply(x, self.width)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"width={self.width}"


def _sign(x: Tensor) -> Tensor:
    signs = torch.where(x >= 0, 1.0, -1.0).to(x.dtype)
    return torch.where(x == x, signs, x)  # NaN passes through


class StraightThrough(torch.autograd.Function):
    """The sign, whose backward passes the gradient where |x| <= width; a subclass has another `forward`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, width: float) -> Tensor:
        """The signs."""
        return _sign(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        """Keeps the input and the width."""
        ctx.save_for_backward(inputs[0])
        ctx.width = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """The gradient within the window."""
        (x,) = ctx.saved_tensors
        return grad * (x.abs() <= ctx.width), None
