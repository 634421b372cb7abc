"""Functions of several objectives to try a search on: genes [..., n] in [0, 1] to costs [..., m].

ZDT: E. Zitzler, K. Deb and L. Thiele, Comparison of Multiobjective Evolutionary Algorithms: Empirical Results, 2000.
DTLZ: K. Deb, L. Thiele, M. Laumanns and E. Zitzler, Scalable Test Problems for Evolutionary Multiobjective
Optimization, 2005. The trigonometric ones compute in float64, see `tansaku.testing.functions`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tansaku.testing.functions import in_float64


def zdt1(x: Tensor) -> Tensor:
    """A convex front, f2 = 1 - sqrt(f1), where all genes but the first are 0; n = 30 in the paper.

    Example:
        >>> zdt1(torch.tensor([0.25, 0.0, 0.0]))
        tensor([0.2500, 0.5000])
    """
    f, g = _zdt(x)
    return torch.stack([f, g * (1 - (f / g).sqrt())], -1)


def zdt2(x: Tensor) -> Tensor:
    """A concave front, f2 = 1 - f1^2, where all genes but the first are 0; n = 30 in the paper.

    Example:
        >>> zdt2(torch.tensor([0.5, 0.0, 0.0]))
        tensor([0.5000, 0.7500])
    """
    f, g = _zdt(x)
    return torch.stack([f, g * (1 - (f / g).square())], -1)


@in_float64
def zdt3(x: Tensor) -> Tensor:
    """A front in five pieces, where all genes but the first are 0; n = 30 in the paper.

    Example:
        >>> zdt3(torch.tensor([0.0, 0.0, 0.0]))
        tensor([0., 1.])
    """
    f, g = _zdt(x)
    return torch.stack([f, g * (1 - (f / g).sqrt() - f / g * torch.sin(10 * math.pi * f))], -1)


@in_float64
def zdt4(x: Tensor) -> Tensor:
    """21^(n - 1) local fronts; the best is that of `zdt1`. The first gene is in [0, 1], the others in [-5, 5]; n = 10.

    Example:
        >>> zdt4(torch.tensor([0.25, 0.0, 0.0]))
        tensor([0.2500, 0.5000])
    """
    f, others = x[..., 0], x[..., 1:]
    g = 1 + (others.square() - 10 * torch.cos(4 * math.pi * others) + 10).sum(-1)
    return torch.stack([f, g * (1 - (f / g).sqrt())], -1)


@in_float64
def zdt6(x: Tensor) -> Tensor:
    """A concave front, f2 = 1 - f1^2, thin near f1 = 0.28, where all genes but the first are 0; n = 10 in the paper.

    Example:
        >>> zdt6(torch.tensor([0.0, 0.0, 0.0]))
        tensor([1., 0.])
    """
    first = x[..., 0]
    f = 1 - torch.exp(-4 * first) * torch.sin(6 * math.pi * first) ** 6
    g = 1 + 9 * x[..., 1:].mean(-1) ** 0.25
    return torch.stack([f, g * (1 - (f / g).square())], -1)


def _zdt(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 0], 1 + 9 * x[..., 1:].mean(-1)


@in_float64
def dtlz2(x: Tensor, m: int = 3) -> Tensor:
    """A front on the unit sphere's positive part, where the genes from the m-th on are 0.5; n = m + 9 in the paper.

    Args:
        x: [..., n >= m].
        m: objectives.

    Example:
        >>> dtlz2(torch.tensor([0.0, 0.0, 0.5]))
        tensor([1., 0., 0.])
    """
    radius = 1 + (x[..., m - 1 :] - 0.5).square().sum(-1)
    angle = x[..., : m - 1] * (math.pi / 2)
    across = torch.cat([torch.ones_like(radius)[..., None], angle.cos().cumprod(-1)], -1)  # [..., m]
    along = torch.cat([angle.sin(), torch.ones_like(radius)[..., None]], -1)
    return radius[..., None] * across.flip(-1) * torch.cat([along[..., -1:], along[..., :-1].flip(-1)], -1)
