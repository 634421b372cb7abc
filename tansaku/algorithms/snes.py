"""Separable natural evolution strategy: a Gaussian with a standard deviation per gene follows the natural gradient.

T. Schaul, T. Glasmachers and J. Schmidhuber, High Dimensions and Heavy Tails for Natural Evolution Strategies, 2011,
Algorithm 1; D. Wierstra et al., Natural Evolution Strategies, 2014, Algorithm 6 and Table 1.
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
    penalised_order,
)
from tansaku.caching import cached
from tansaku.draws import Noise
from tansaku.functional import jitter, ranked_weights, weighted_sum
from tansaku.operators.bounds import Bounds
from tansaku.population import Population
from tansaku.states import state


@state
class SNESState:
    """The distribution and the best candidate (k = 1, assessed).

    ``mean`` and ``std`` are [*batch_shape, n], and ``unit`` the first ``std``.
    """

    mean: Tensor
    std: Tensor
    unit: Tensor
    best: Population


@dataclass(frozen=True)
class SNES(GaussianSearch[SNESState]):
    """Natural evolution strategy for many genes that depend little on each other.

    Args:
        k: samples per generation; the paper's choice for n genes is 4 + floor(3 ln n).
        std: standard deviation to begin with, in units of the genes: a number, a tensor that broadcasts against
            [*event_shape], or a mapping from names to either; a fifth of the bounds' span if not given, else 1.
        lr_mean: learning rate of the mean.
        lr_std: learning rate of the standard deviations; (3 + ln n) / (5 sqrt(n)) if not given.
        bounds: `Bounds` or (lower, upper).

    Example:
        >>> from tansaku import minimize
        >>> result = minimize(lambda x: x.square().sum(-1), shape=5, algorithm="snes", max_evaluations=4000)
        >>> result.value < 1e-8
        True
    """

    k: int = 20
    std: float | Tensor | Mapping[str, float | Tensor] | None = None
    lr_mean: float = 1.0
    lr_std: float | None = None
    bounds: Bounds | None = None
    needs = Needs(min_k=2)

    def __post_init__(self) -> None:
        self.check_settings()
        check_std(self.std)
        checks.number("lr_mean", self.lr_mean, 0.0)
        if self.lr_std is not None:
            checks.number("lr_std", self.lr_std, 0.0)

    def init(self, start: Population) -> SNESState:
        """The mean is the best of the start."""
        mean, best = self._begin(start)
        std = first_std(self.std, self.bounds, best, mean)
        return SNESState(mean, std, std, best)

    def ask(self, state: SNESState, noise: Noise) -> Population:
        """Samples of the distribution."""
        normal = draw(self.k, state.mean, noise)
        return hand_out_with(normal, jitter(state.mean, normal, state.std), state.best, self.bounds)

    def tell(self, state: SNESState, asked: Population) -> SNESState:
        """One step along the natural gradient (Wierstra et al., Algorithm 6)."""
        s = noise_of(asked)
        n = s.shape[-1]
        utility = ranked_weights(penalised_order(asked, state.std), utilities(self.k, s))
        to_mean, to_std = weighted_sum(utility, s), weighted_sum(utility, s.square() - 1)
        lr_std = (3 + math.log(n)) / (5 * math.sqrt(n)) if self.lr_std is None else self.lr_std
        mean = finite_mean(state.mean + self.lr_mean * state.std * to_mean)
        std = limited(state.std * torch.exp(lr_std / 2 * to_std), state.unit)
        return SNESState(mean, std, state.unit, better(asked, state.best))


def utilities(k: int, like: Tensor) -> Tensor:
    """[k] fitness shaping of natural evolution strategies, best first: they sum to 0 (Wierstra et al., section 3.1).

    Args:
        k: candidates.
        like: gives dtype and device.

    Example:
        >>> utilities(4, torch.zeros(()))
        tensor([ 0.4804,  0.0196, -0.2500, -0.2500])
    """
    return _utilities(k, like.dtype, like.device)


@cached(16)
def _utilities(k: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    place = torch.arange(1, k + 1, dtype=dtype, device=device)
    raw = (math.log(k / 2 + 1) - place.log()).clamp(min=0)
    return raw / raw.sum() - 1 / k
