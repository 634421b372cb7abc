"""CMA-ES: a normal distribution that learns its full covariance, with negative weights for the worst candidates.

N. Hansen, The CMA Evolution Strategy: A Tutorial, arXiv 1604.00772, figure 6; numbers in brackets are its equations.

Deviations: samples are mean + sigma C^1/2 z with the symmetric root B D B', which is the same distribution as B D z but
does not jump when eigenvectors change sign or order; the condition of C is limited, to what its dtype can tell apart,
by adding to its diagonal; the signal that holds up the path and the damping for large populations are pycma's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tansaku.algorithms.base import Needs
from tansaku.algorithms.cma_base import CMAState, CovarianceAdaptation
from tansaku.algorithms.strategy import Strategy, strategy
from tansaku.operators.bounds import Bounds


@dataclass(frozen=True)
class CMAES(CovarianceAdaptation):
    """Covariance matrix adaptation: the choice for up to a few hundred real genes that depend on each other.

    A start of one candidate is the mean; of a larger one, the best is. Memory grows with genes squared, time with
    genes squared per candidate and genes cubed per decomposition, of which there are fewer the more genes there are.

    Args:
        k: candidates per generation, at least 2; 4 + floor(3 ln n) for n genes if not given.
        std: first standard deviation, in units of the genes: a number, a tensor that broadcasts against
            [*event_shape], or a mapping from names to either; a fifth of the bounds' span if not given, else 1. The
            optimum should lie within a few of it.
        active: whether the covariance also learns from the worst candidates, by negative weights.
        bounds: `Bounds` or (lower, upper); candidates are repaired, the distribution learns from the raw samples and
            pays ranks for their distance to the box.

    Example:
        >>> from tansaku import Individual, Objective, Search
        >>> rosenbrock = Objective(lambda x: (100 * (x[:, 1] - x[:, 0] ** 2) ** 2 + (1 - x[:, 0]) ** 2))
        >>> start = Individual({"x": torch.zeros(2, dtype=torch.float64)})
        >>> Search(CMAES(std=0.5), rosenbrock, start).run(max_evaluations=2000).value < 1e-10
        True
    """

    k: int | None = None
    std: float | Tensor | Mapping[str, float | Tensor] | None = None
    active: bool = True
    bounds: Bounds | None = None
    needs = Needs(min_k=2)

    def _strategy(self, n: int, k: int, like: Tensor) -> Strategy:
        return strategy(n, k, like, self.active)

    def _diagonal(self, variance: Tensor) -> Tensor:
        return torch.diag_embed(variance)

    def _variance(self, cov: Tensor) -> Tensor:
        return cov.diagonal(dim1=-2, dim2=-1)

    def _times(self, root: Tensor, z: Tensor) -> Tensor:
        return (z.movedim(0, -2) @ root).movedim(-2, 0)  # the root is symmetric

    def _moment(self, w: Tensor, y: Tensor) -> Tensor:
        return (w * y).movedim(0, -1) @ y.movedim(0, -2)  # [n, k] @ [k, n], never [k, n, n]

    def _gap(self, s: Strategy, n: int) -> int:
        return max(1, int(1 / (10 * n * (s.c_1 + s.c_mu))))  # appendix B.2

    def _per_gene(self, x: Tensor) -> Tensor:
        return x[..., None, None]

    def _decomposed(self, cov: Tensor) -> tuple[Tensor, Tensor]:
        cov = (cov + cov.mT) / 2
        size = self._variance(cov).amax(-1).clamp(min=torch.finfo(cov.dtype).tiny ** 0.5)[..., None]
        eigenvalues, vectors = torch.linalg.eigh(cov / size[..., None])
        limit = 1 / (8 * torch.finfo(cov.dtype).eps)
        lift = ((eigenvalues[..., -1:] - limit * eigenvalues[..., :1]) / (limit - 1)).clamp(min=0)
        cov = cov + torch.diag_embed((size * lift).expand(cov.shape[:-1]))
        d = (size * (eigenvalues + lift)).clamp(min=0).sqrt()
        return cov, (vectors * d[..., None, :]) @ vectors.mT

    def exhausted(self, state: CMAState) -> bool:
        """Every tenth generation also ConditionCov and NoEffectAxis, which take a decomposition of their own."""
        over = super().exhausted(state)
        if over or int(state.generation.max()) % 10:
            return over
        eigenvalues, axes = torch.linalg.eigh((state.cov + state.cov.mT) / 2)
        limit = min(1e14, 1 / (8 * torch.finfo(state.cov.dtype).eps))
        scale = (state.sigma[..., None] * state.unit)[..., None]
        steps = 0.1 * scale * eigenvalues.clamp(min=0).sqrt()[..., None, :] * axes
        mean = state.mean[..., None]
        no_effect = ((mean == mean + steps).all(-2) & (eigenvalues > 0)).any()
        return bool((eigenvalues[..., -1] >= 0.9 * limit * eigenvalues[..., 0]).any() | no_effect)
