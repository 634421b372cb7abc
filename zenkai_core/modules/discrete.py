"""Steps and choices: outputs that are 0 or 1, with no gradient or with a straight-through one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zenkai_core.modules.sign import StraightThrough


class Step(nn.Module):
    """1 where x >= 0, else 0; NaN stays NaN. No gradient exists; rules that need one refuse the module.

    >>> Step()(torch.tensor([-2.0, 0.0, 3.0])).tolist()
    [0.0, 1.0, 1.0]
    """

    differentiable = False

    def forward(self, x: Tensor) -> Tensor:
        """The steps, in the dtype of x."""
        return _step(x.detach())


class StepSTE(nn.Module):
    """`Step` whose backward passes the gradient straight through where |x| <= width, and stops it elsewhere.

    Args:
        width: the half width of the window; `inf` passes everything.

    Raises:
        ValueError: the width is not positive.

    Reference: Bengio, Leonard, Courville (2013), Estimating or propagating gradients through stochastic neurons.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        if not width > 0:
            raise ValueError(f"StepSTE expected a positive width, got {width}: 1.0 is usual, inf passes everything")
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        """The steps, in the dtype of x."""
        return _StepThrough.apply(x, self.width)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"width={self.width}"


class Argmax(nn.Module):
    """The one-hot of the largest value along dimension 1, `[n, classes, ...]`; ties by the lower index. No gradient.

    >>> Argmax()(torch.tensor([[0.1, 0.7, 0.2]])).tolist()
    [[0.0, 1.0, 0.0]]
    """

    differentiable = False

    def forward(self, x: Tensor) -> Tensor:
        """One-hots `[n, classes, ...]`, in the dtype of x."""
        return _one_hot(x.detach())


class ArgmaxSTE(nn.Module):
    """`Argmax` whose backward is that of a softmax of the same values: straight through the choice.

    Args:
        temperature: divides the values in the backward's softmax.

    Raises:
        ValueError: the temperature is not positive.

    Reference: the straight-through estimator of Jang, Gu, Poole (2017), Categorical reparameterization with
    Gumbel-softmax, section 2.2, without its noise.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"ArgmaxSTE expected a positive temperature, got {temperature}: 1.0 is usual")
        self.temperature = temperature

    def forward(self, x: Tensor) -> Tensor:
        """One-hots `[n, classes, ...]`, in the dtype of x."""
        return _ChoiceThrough.apply(x, self.temperature)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"temperature={self.temperature}"


def _one_hot(x: Tensor) -> Tensor:
    return torch.zeros_like(x).scatter(1, x.argmax(1, keepdim=True), 1.0)


def _step(x: Tensor) -> Tensor:
    return torch.where(x == x, (x >= 0).to(x.dtype), x)  # NaN passes through


class _StepThrough(StraightThrough):
    @staticmethod
    def forward(x: Tensor, width: float) -> Tensor:
        return _step(x)


class _ChoiceThrough(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, temperature: float) -> Tensor:
        return _one_hot(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.temperature = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        p = (x / ctx.temperature).softmax(1)
        return p * (grad - (p * grad).sum(1, keepdim=True)) / ctx.temperature, None
