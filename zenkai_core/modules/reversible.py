"""Modules with an exact `inverse(y)`, which leads from a layer's output, or a target for it, back to its input.

They are torch's modules of these names with the inverse added. A target that no input reaches (1.2, for a sigmoid) is
taken as the nearest that one does. In a machine, `Machine.inverse` inverts its pass: BatchNorm as the affine map that
it was there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn


class Sequential(nn.Sequential):
    """`nn.Sequential` of invertible modules; its inverse is theirs, from the last to the first.

    Raises:
        TypeError: a module has no inverse.

    >>> layer = Sequential(InvertibleLinear(3), BatchNorm1d(3), LeakyReLU(0.1)).eval()
    >>> x = torch.tensor([[1.0, -2.0, 3.0]])
    >>> torch.allclose(layer.inverse(layer(x)), x, atol=1e-5)
    True
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        for i, m in enumerate(self):
            if not callable(getattr(m, "inverse", None)):
                raise TypeError(
                    f"modules.Sequential expected modules with an inverse(y), got {type(m).__name__} at position {i}: "
                    "take the one of zenkai_core.modules, or give it an inverse; nn.Sequential takes any module"
                )

    def inverse(self, y: Tensor) -> Tensor:
        """The x whose output is y."""
        for m in reversed(self):
            y = cast(Callable[[Tensor], Tensor], m.inverse)(y)
        return y


class InvertibleLinear(nn.Linear):
    """A square `nn.Linear`, begun at a random rotation; its inverse solves for x.

    Args:
        features: of the input and of the output.
        bias, device, dtype: as for `nn.Linear`.

    >>> layer = InvertibleLinear(2, bias=False)
    >>> x = torch.tensor([[1.0, 2.0]])
    >>> torch.allclose(layer.inverse(x @ layer.weight.T), x)
    True
    """

    def __init__(self, features: int, bias: bool = True, **kwargs: Any) -> None:
        super().__init__(features, features, bias, **kwargs)

    def reset_parameters(self) -> None:
        """A rotation, which no direction's inverse enlarges, and the bias of `nn.Linear`."""
        super().reset_parameters()
        nn.init.orthogonal_(self.weight)

    def inverse(self, y: Tensor) -> Tensor:
        """The x `[..., features]` of x W' + b = y.

        Raises:
            RuntimeError: the weight has become singular.
        """
        y = y.to(self.weight.dtype)
        if self.bias is not None:
            y = y - self.bias
        weight = self.weight.to(torch.promote_types(y.dtype, torch.float32))  # LAPACK has no shorter dtypes
        try:
            x = torch.linalg.solve(weight.mT, y.reshape(-1, self.out_features).to(weight.dtype), left=False).to(y.dtype)
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            raise RuntimeError(
                f"InvertibleLinear.inverse expected a regular weight, got a singular one of {list(self.weight.shape)}: "
                "weight decay or a smaller learning rate keeps it regular; a learned inverse does without"
            ) from error
        return x.reshape(y.shape)


class _InvertibleNorm:
    """The inverse of a `_BatchNorm` in evaluation mode, as a mixin."""

    def inverse(self, y: Tensor) -> Tensor:
        """The x of (x - mean) / sqrt(var + eps) * weight + bias = y, shaped as y.

        Raises:
            RuntimeError: it is in training, where the map depends on a batch; or it keeps no statistics.
        """
        norm = cast(nn.BatchNorm1d, self)
        if norm.training or norm.running_mean is None or norm.running_var is None:
            raise RuntimeError(
                f"{type(self).__name__}.inverse expected running statistics and evaluation mode, got training, where "
                "the map is that of one batch: call eval(), or Machine.inverse(y, state) for the pass of that batch"
            )
        shape = (1, -1) + (1,) * (y.ndim - 2)
        if norm.affine:
            y = (y - norm.bias.view(shape)) / norm.weight.view(shape)
        return y * (norm.running_var + norm.eps).sqrt().view(shape) + norm.running_mean.view(shape)


class BatchNorm1d(_InvertibleNorm, nn.BatchNorm1d):
    """`nn.BatchNorm1d` with an inverse, of the statistics in force: the running ones, or those of a machine's pass.

    >>> norm = BatchNorm1d(2).eval()
    >>> norm.running_mean.fill_(3.0).tolist(), norm.inverse(torch.zeros(1, 2)).tolist()
    ([3.0, 3.0], [[3.0, 3.0]])
    """


class BatchNorm2d(_InvertibleNorm, nn.BatchNorm2d):
    """`nn.BatchNorm2d` with an inverse; see `BatchNorm1d`."""


class LeakyReLU(nn.LeakyReLU):
    """`nn.LeakyReLU` with an inverse.

    Raises:
        ValueError: the slope is not positive.

    >>> LeakyReLU(0.5).inverse(torch.tensor([-1.0, 2.0])).tolist()
    [-2.0, 2.0]
    """

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__(negative_slope, inplace)
        if not negative_slope > 0:
            raise ValueError(f"LeakyReLU expected a slope > 0, got {negative_slope}: at 0 there is no inverse")

    def inverse(self, y: Tensor) -> Tensor:
        """The x, shaped as y."""
        return torch.where(y >= 0, y, y / self.negative_slope)


class _Clamped(nn.Module):
    """A module whose outputs lie in an open interval.

    Args:
        eps: how near to its ends targets are taken seriously; at least the dtype's own.

    Raises:
        ValueError: eps lies outside (0, 0.5).
    """

    def __init__(self, eps: float = 1e-6) -> None:
        super().__init__()
        if not 0 < eps < 0.5:
            raise ValueError(f"{type(self).__name__} expected 0 < eps < 0.5, got {eps}: 1e-6 is usual")
        self.eps = eps

    def _inside(self, y: Tensor, low: float, high: float = math.inf) -> Tensor:
        eps = max(self.eps, torch.finfo(y.dtype).eps)
        return y.clamp(low + eps, high - eps)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"eps={self.eps}"


class Sigmoid(_Clamped):
    """The logistic function; its inverse takes y as at least eps and at most 1 - eps.

    >>> Sigmoid(eps=0.01).inverse(torch.tensor([0.5, 7.0]))
    tensor([0.0000, 4.5951])
    """

    def forward(self, x: Tensor) -> Tensor:
        """1 / (1 + exp(-x))."""
        return torch.sigmoid(x)

    def inverse(self, y: Tensor) -> Tensor:
        """log(y / (1 - y)), shaped as y."""
        return torch.logit(self._inside(y, 0.0, 1.0))


class Tanh(_Clamped):
    """The hyperbolic tangent; its inverse takes y as at least -1 + eps and at most 1 - eps.

    >>> Tanh(eps=0.01).inverse(torch.tensor([0.0, -7.0]))
    tensor([ 0.0000, -2.6467])
    """

    def forward(self, x: Tensor) -> Tensor:
        """tanh(x)."""
        return torch.tanh(x)

    def inverse(self, y: Tensor) -> Tensor:
        """artanh(y), shaped as y."""
        return torch.atanh(self._inside(y, -1.0, 1.0))


class Softmax(_Clamped):
    """The softmax over a dimension of the event; x comes back but for a constant, which the softmax does not keep.

    Args:
        dim: whose values sum to 1; the rows (0) have no softmax.
        eps: the least probability that the inverse takes seriously.

    Raises:
        ValueError: dim is 0, or eps lies outside (0, 0.5).

    >>> x = Softmax().inverse(torch.tensor([[0.2, 0.8]]))
    >>> Softmax()(x)
    tensor([[0.2000, 0.8000]])
    """

    def __init__(self, dim: int = -1, eps: float = 1e-6) -> None:
        super().__init__(eps)
        if dim == 0:
            raise ValueError("Softmax expected a dimension of the event, got 0, which is the row: -1 is usual")
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """exp(x) / sum(exp(x))."""
        return torch.softmax(x, self.dim)

    def inverse(self, y: Tensor) -> Tensor:
        """log(y), shaped as y: of all x that lead to y, the one with sum(exp(x)) = 1."""
        return torch.log(self._inside(y, 0.0))
