"""The cross-entropy method: fit a Gaussian to the best samples, and go a part of the way there.

R. Y. Rubinstein, The Cross-Entropy Method for Combinatorial and Continuous Optimization, 1999; P.-T. de Boer,
D. P. Kroese, S. Mannor and R. Y. Rubinstein, A Tutorial on the Cross-Entropy Method, 2005, continuous
optimisation with its smoothed updating, of standard deviations too.

Deviation: the variance of the elite divides by its number less one, which keeps a small elite from shrinking too fast.
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
    GaussianSearch,
    draw,
    finite_mean,
    first_std,
    hand_out_with,
    limited,
    noise_of,
    shares,
)
from tansaku.draws import Noise
from tansaku.functional import jitter, weighted_sum
from tansaku.operators.bounds import Bounds
from tansaku.population import Population
from tansaku.states import state


@state
class CEMState:
    """The distribution and the best candidate (k = 1, assessed).

    ``mean`` and ``std`` are [*batch_shape, n], and ``unit`` the first ``std``.
    """

    mean: Tensor
    std: Tensor
    unit: Tensor
    best: Population


@dataclass(frozen=True)
class CEM(GaussianSearch[CEMState]):
    """Cross-entropy method with a standard deviation per gene.

    Args:
        k: samples per generation.
        elite: share of the samples that the distribution is fitted to, rounded down, but two at least.
        smoothing: share of the way that the mean goes to the elite's (the paper has 0.4 to 0.9).
        smoothing_std: the same for the standard deviations; a smaller one keeps them from shrinking before the mean has
            arrived.
        std: standard deviation to begin with, in units of the genes: a number, a tensor that broadcasts against
            [*event_shape], or a mapping from names to either; a fifth of the bounds' span if not given, else 1.
        bounds: `Bounds` or (lower, upper).

    Example:
        >>> from tansaku import minimize
        >>> result = minimize(lambda x: x.square().sum(-1), shape=5, algorithm="cem", max_evaluations=6000)
        >>> result.value < 1e-8
        True
    """

    k: int = 100
    elite: float = 0.2
    smoothing: float = 0.9
    smoothing_std: float = 0.4
    std: float | Tensor | Mapping[str, float | Tensor] | None = None
    bounds: Bounds | None = None
    needs = Needs(min_k=3)

    def __post_init__(self) -> None:
        self.check_settings()
        check_std(self.std)
        for name in ("elite", "smoothing", "smoothing_std"):
            checks.probability(name, getattr(self, name))

    def init(self, start: Population) -> CEMState:
        """The mean is the best of the start."""
        mean, best = self._begin(start)
        std = first_std(self.std, self.bounds, best, mean)
        return CEMState(mean, std, std, best)

    def ask(self, state: CEMState, noise: Noise) -> Population:
        """Samples of the distribution."""
        normal = draw(self.k, state.mean, noise)
        return hand_out_with(normal, jitter(state.mean, normal, state.std), state.best, self.bounds)

    def tell(self, state: CEMState, asked: Population) -> CEMState:
        """The distribution moves towards the elite's mean and standard deviation."""
        z = noise_of(asked)
        weights = shares(asked, state.std, max(2, math.floor(self.elite * self.k)))
        centre = weighted_sum(weights, z)  # in units of std, from the mean
        spare = (1 - weights.square().sum(0))[..., None]  # 1 - 1/m for an elite of m
        variance = weighted_sum(weights, (z - centre).square()) / spare.clamp(min=0.5)
        # one sample says nothing of a width, and none (all have failed) nothing at all
        known = (spare > 0.4) & (weights.sum(0)[..., None] > 0)
        width = torch.where(known, variance.sqrt(), torch.ones_like(variance))
        mean = finite_mean(state.mean + self.smoothing * state.std * centre)
        std = state.std * (1 + self.smoothing_std * (width - 1))
        return CEMState(mean, limited(std, state.unit), state.unit, better(asked, state.best))
