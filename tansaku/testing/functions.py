"""Functions to try a search on: genes [..., n] to cost [...], lowest (0) where each says.

Trigonometric functions compute in float64 and return the dtype of the genes. In float32 the last bit of a cosine may
depend on its place in the tensor, so a batch and separate searches would differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec

import torch
from torch import Tensor

P = ParamSpec("P")


def in_float64(function: Callable[Concatenate[Tensor, P], Tensor]) -> Callable[Concatenate[Tensor, P], Tensor]:
    """Decorator: the function computes in float64 and returns the dtype of its genes (of others, torch's default)."""

    @wraps(function)
    def rounded(x: Tensor, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
        return function(x.to(torch.float64), *args, **kwargs).to(dtype)

    return rounded


def sphere(x: Tensor) -> Tensor:
    """Sum of squares: smooth, separable, round. Lowest at 0.

    Example:
        >>> sphere(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        tensor([25.,  0.])
    """
    return x.square().sum(-1)


def ellipsoid(x: Tensor, condition: float = 1e6) -> Tensor:
    """Sum of squares whose weights go from 1 to ``condition``: badly scaled. Lowest at 0.

    Example:
        >>> ellipsoid(torch.tensor([1.0, 1.0]), condition=100.0)
        tensor(101.)
    """
    n = x.shape[-1]
    power = torch.arange(n, dtype=x.dtype, device=x.device) / max(1, n - 1)
    return (condition**power * x.square()).sum(-1)


def rosenbrock(x: Tensor) -> Tensor:
    """A long bent valley; needs n >= 2. Lowest at 1.

    Reference: H. H. Rosenbrock, An Automatic Method for Finding the Greatest or Least Value of a Function, 1960.

    Example:
        >>> rosenbrock(torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]))
        tensor([0., 2.])
    """
    here, after = x[..., :-1], x[..., 1:]
    return (100 * (after - here.square()).square() + (1 - here).square()).sum(-1)


@in_float64
def rastrigin(x: Tensor) -> Tensor:
    """About 11^n local optima on a regular grid in [-5.12, 5.12]^n. Lowest at 0.

    Reference: L. A. Rastrigin, Systems of Extremal Control, 1974.

    Example:
        >>> rastrigin(torch.zeros(2, 3))
        tensor([0., 0.])
    """
    return (x.square() - 10 * torch.cos(2 * math.pi * x) + 10).sum(-1)


@in_float64
def ackley(x: Tensor) -> Tensor:
    """Nearly flat far out, with a deep hole in the middle. Lowest at 0.

    Reference: D. H. Ackley, A Connectionist Machine for Genetic Hillclimbing, 1987.

    Example:
        >>> bool(ackley(torch.zeros(3, dtype=torch.float64)) < 1e-12)
        True
    """
    near = -20 * torch.exp(-0.2 * x.square().mean(-1).sqrt())
    return near - torch.exp(torch.cos(2 * math.pi * x).mean(-1)) + 20 + math.e


def zeros(x: Tensor) -> Tensor:
    """The number of genes that are False (or 0): OneMax as a cost. Lowest where all are True.

    Example:
        >>> zeros(torch.tensor([[True, False, False], [True, True, True]]))
        tensor([2., 0.])
    """
    return (x == 0).sum(-1).to(torch.get_default_dtype())
