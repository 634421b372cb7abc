"""Exponential natural evolution strategy: a Gaussian with a full covariance matrix follows the natural gradient.

T. Glasmachers, T. Schaul, S. Yi, D. Wierstra and J. Schmidhuber, Exponential Natural Evolution Strategies, 2010,
Algorithm 1; D. Wierstra et al., Natural Evolution Strategies, 2014, Algorithm 5 and Table 1. The two learning rates of
the covariance, sigma's and B's, are one, as in the paper's defaults, so that A = sigma * B is moved as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tansaku import checks
from tansaku.algorithms.base import Needs, better, check_std
from tansaku.algorithms.gaussian import (
    LARGEST,
    SMALLEST,
    GaussianSearch,
    draw,
    finite_mean,
    first_std,
    hand_out_with,
    noise_of,
    penalised_order,
)
from tansaku.algorithms.snes import utilities
from tansaku.draws import Noise
from tansaku.functional import ranked_weights, weighted_sum
from tansaku.operators.bounds import Bounds
from tansaku.population import Population
from tansaku.states import state


@state
class XNESState:
    """``mean`` [*batch_shape, n], ``root`` A [*batch_shape, n, n] of the covariance A A^T, and the best (k = 1).

    ``unit`` [*batch_shape, n] are the first standard deviations.
    """

    mean: Tensor
    root: Tensor
    unit: Tensor
    best: Population


@dataclass(frozen=True)
class XNES(GaussianSearch[XNESState]):
    """Natural evolution strategy for few genes that depend on each other: n^2 numbers, n^3 operations a generation.

    Args:
        k: samples per generation; the paper's choice for n genes is 4 + floor(3 ln n).
        std: standard deviation to begin with, in units of the genes: a number, a tensor that broadcasts against
            [*event_shape], or a mapping from names to either; a fifth of the bounds' span if not given, else 1.
        lr_mean: learning rate of the mean.
        lr_cov: learning rate of the covariance; 3 (3 + ln n) / (5 n sqrt(n)) if not given.
        bounds: `Bounds` or (lower, upper).

    Example:
        >>> from tansaku import minimize
        >>> result = minimize(lambda x: x.square().sum(-1), shape=5, algorithm="xnes", max_evaluations=6000)
        >>> result.value < 1e-8
        True
    """

    k: int = 20
    std: float | Tensor | Mapping[str, float | Tensor] | None = None
    lr_mean: float = 1.0
    lr_cov: float | None = None
    bounds: Bounds | None = None
    needs = Needs(min_k=2)

    def __post_init__(self) -> None:
        self.check_settings()
        check_std(self.std)
        checks.number("lr_mean", self.lr_mean, 0.0)
        if self.lr_cov is not None:
            checks.number("lr_cov", self.lr_cov, 0.0)

    def init(self, start: Population) -> XNESState:
        """The mean is the best of the start, the covariance diagonal."""
        mean, best = self._begin(start)
        std = first_std(self.std, self.bounds, best, mean)
        return XNESState(mean, torch.diag_embed(std), std, best)

    def ask(self, state: XNESState, noise: Noise) -> Population:
        """Samples mean + A s."""
        s = draw(self.k, state.mean, noise)
        raw = state.mean + torch.einsum("...ij,k...j->k...i", state.root, s)
        return hand_out_with(s, raw, state.best, self.bounds)

    def tell(self, state: XNESState, asked: Population) -> XNESState:
        """One step along the natural gradient, in the coordinates in which the samples are standard normal."""
        s = noise_of(asked)
        n = s.shape[-1]
        std = torch.maximum(torch.linalg.vector_norm(state.root, dim=-1), SMALLEST * state.unit)
        utility = ranked_weights(penalised_order(asked, std), utilities(self.k, s))
        to_mean = weighted_sum(utility, s)
        # the sum of u (s s^T - I) as one product: no [k, n, n]; the utilities sum to 0, so no identity either
        to_root = torch.einsum("k...i,k...j->...ij", utility[..., None] * s, s)
        lr_cov = 0.6 * (3 + math.log(n)) / (n * math.sqrt(n)) if self.lr_cov is None else self.lr_cov
        moved = state.mean + self.lr_mean * torch.einsum("...ij,...j->...i", state.root, to_mean)
        root = state.root @ torch.linalg.matrix_exp(lr_cov / 2 * to_root)
        size = torch.linalg.matrix_norm(root / state.unit[..., None], keepdim=True)
        root = root * (size.clamp(SMALLEST, LARGEST) / size.clamp(min=SMALLEST / LARGEST))
        return XNESState(finite_mean(moved), root, state.unit, better(asked, state.best))
