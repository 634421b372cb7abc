"""The (mu/mu, lambda) evolution strategy with self-adaptation: step sizes mutate and are selected with their genes.

H.-G. Beyer and H.-P. Schwefel, Evolution Strategies: A Comprehensive Introduction, 2002: log-normal mutation of one
step size per gene with intermediate recombination of genes and step sizes over all mu parents.

Deviation: step sizes recombine by their geometric mean, since the arithmetic one grows where nothing is selected.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tansaku import checks, draws
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
class ESState:
    """The recombined parents and the best candidate (k = 1, assessed).

    ``mean`` and ``std`` are [*batch_shape, n], and ``unit`` the first ``std``.
    """

    mean: Tensor
    std: Tensor
    unit: Tensor
    best: Population


@dataclass(frozen=True)
class ES(GaussianSearch[ESState]):
    """(mu/mu, lambda)-ES with self-adapted step sizes, which are the trait ``"std"`` [k, *batch_shape, n].

    Args:
        k: children per generation, the paper's lambda.
        parents: the best children, which are recombined, the paper's mu; a quarter of k if not given.
        std: step sizes to begin with, in units of the genes: a number, a tensor that broadcasts against
            [*event_shape], or a mapping from names to either; a fifth of the bounds' span if not given, else 1.
        bounds: `Bounds` or (lower, upper).

    Example:
        >>> from tansaku import minimize
        >>> result = minimize(lambda x: x.square().sum(-1), shape=5, algorithm="es", max_evaluations=8000)
        >>> result.value < 1e-8
        True
    """

    k: int = 40
    parents: int | None = None
    std: float | Tensor | Mapping[str, float | Tensor] | None = None
    bounds: Bounds | None = None
    needs = Needs(min_k=2)

    def __post_init__(self) -> None:
        self.check_settings()
        check_std(self.std)
        if self.parents is not None and checks.count("parents", self.parents) > self.k:
            raise ValueError(
                f"expected parents <= k = {self.k}, got {self.parents}; the parents are the best of the k children"
            )

    def init(self, start: Population) -> ESState:
        """The best of the start is the first parent."""
        mean, best = self._begin(start)
        std = first_std(self.std, self.bounds, best, mean)
        return ESState(mean, std, std, best)

    def ask(self, state: ESState, noise: Noise) -> Population:
        """Children: first the step sizes mutate, then with them the genes."""
        mean = state.mean
        n = mean.shape[-1]
        common = draws.normal((self.k,), tuple(mean.shape[:-1]), (1,), mean, noise)
        own, normal = draw(self.k, mean, noise), draw(self.k, mean, noise)
        # tau_0 and tau: learning rates of all step sizes together and of each
        change = common / math.sqrt(2 * n) + own / math.sqrt(2 * math.sqrt(n))
        std = limited(state.std * change.exp(), state.unit)
        return hand_out_with(normal, jitter(mean, normal, std), state.best, self.bounds, std=std)

    def tell(self, state: ESState, asked: Population) -> ESState:
        """The best children are recombined; the others, and the old parents, are forgotten."""
        std = asked.traits["std"]
        weights = shares(asked, std, self.parents or max(1, self.k // 4))
        some = weights.sum(0)[..., None] > 0
        mean = finite_mean(state.mean + weighted_sum(weights, std * noise_of(asked)))
        width = torch.where(some, weighted_sum(weights, std.log()).exp(), state.std)
        return ESState(mean, limited(width, state.unit), state.unit, better(asked, state.best))
