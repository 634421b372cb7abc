"""Separable CMA-ES: the covariance is diagonal, which costs linear time and memory and learns faster.

R. Ros and N. Hansen, A Simple Modification in CMA-ES Achieving Linear Time and Space Complexity, 2008: the diagonal of
CMA-ES, its learning rates times (n + 2) / 3 (section 3), no negative weights. The paths, the step size and the other
constants are those of the tutorial, arXiv 1604.00772.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tansaku.algorithms.base import Needs
from tansaku.algorithms.cma_base import CovarianceAdaptation
from tansaku.algorithms.strategy import Strategy, strategy
from tansaku.operators.bounds import Bounds


@dataclass(frozen=True)
class SepCMAES(CovarianceAdaptation):
    """CMA-ES with a diagonal covariance: for genes that hardly depend on each other, or for very many of them.

    Args:
        k: candidates per generation, at least 2; 4 + floor(3 ln n) for n genes if not given.
        std: first standard deviation, in units of the genes: a number, a tensor that broadcasts against
            [*event_shape], or a mapping from names to either; a fifth of the bounds' span if not given, else 1.
        bounds: `Bounds` or (lower, upper), as for `CMAES`.

    Example:
        >>> from tansaku import Individual, Objective, Search
        >>> from tansaku.testing import ellipsoid
        >>> start = Individual({"x": torch.ones(20, dtype=torch.float64)})
        >>> Search(SepCMAES(), Objective(ellipsoid), start).run(max_evaluations=8000).value < 1e-8
        True
    """

    k: int | None = None
    std: float | Tensor | Mapping[str, float | Tensor] | None = None
    bounds: Bounds | None = None
    needs = Needs(min_k=2)

    def _strategy(self, n: int, k: int, like: Tensor) -> Strategy:
        return strategy(n, k, like, active=False, rate=(n + 2) / 3)

    def _diagonal(self, variance: Tensor) -> Tensor:
        return variance

    def _variance(self, cov: Tensor) -> Tensor:
        return cov

    def _times(self, root: Tensor, z: Tensor) -> Tensor:
        return root * z

    def _moment(self, w: Tensor, y: Tensor) -> Tensor:
        return (w * y.square()).sum(0)

    def _gap(self, s: Strategy, n: int) -> int:
        return 1

    def _per_gene(self, x: Tensor) -> Tensor:
        return x[..., None]

    def _decomposed(self, cov: Tensor) -> tuple[Tensor, Tensor]:
        cov = torch.maximum(cov, cov.amax(-1, keepdim=True) * torch.finfo(cov.dtype).eps)
        return cov, cov.sqrt()
