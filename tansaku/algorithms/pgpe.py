"""Policy gradients with parameter-based exploration: mirrored samples move a mean and a standard deviation per gene.

F. Sehnke et al., Parameter-exploring Policy Gradients, 2010, with its symmetric sampling; the step is ClipUp,
N. E. Toklu, P. Liskowski and R. K. Srivastava, ClipUp: A Simple and Powerful Optimizer for Distribution-based Policy
Evolution, 2020, with its rules for the step size: max_speed = radius / 15, lr = max_speed / 2, where the radius is the
length of the vector of first standard deviations.

Deviations: costs count by their centred ranks (as in the second paper); a standard deviation changes by a fifth of
itself at most in a generation (as in the second paper); the step is taken in units of the first standard deviations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

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
    penalised_order,
)
from tansaku.algorithms.steps import Memory, StepRule, check_optimizer, step_rule
from tansaku.draws import Noise
from tansaku.functional import centred_ranks, jitter, weighted_sum
from tansaku.operators.bounds import Bounds
from tansaku.population import Population
from tansaku.states import state


@state
class PGPEState:
    """The distribution, the optimiser's ``memory`` and the best candidate (k = 1, assessed).

    ``mean`` and ``std`` are [*batch_shape, n], and ``unit`` the first ``std``.
    """

    mean: Tensor
    std: Tensor
    unit: Tensor
    memory: Memory
    best: Population


@dataclass(frozen=True)
class PGPE(GaussianSearch[PGPEState]):
    """PGPE with ClipUp.

    Args:
        k: samples per generation, an even number.
        std: standard deviation to begin with, in units of the genes: a number, a tensor that broadcasts against
            [*event_shape], or a mapping from names to either; a fifth of the bounds' span if not given, else 1.
        lr: learning rate of an optimiser given by name, in units of ``std``; sqrt(n) / 30 if not given.
        lr_std: learning rate of the standard deviations.
        max_change: largest share of itself by which a standard deviation changes in a generation.
        optimizer: ``"clipup"``, ``"adam"``, ``"sgd"``, ``"momentum"``, or a `StepRule`, such as `TorchStep`.
        bounds: `Bounds` or (lower, upper).

    Example:
        >>> from tansaku import minimize
        >>> result = minimize(lambda x: x.square().sum(-1), shape=5, algorithm="pgpe", max_evaluations=6000)
        >>> result.value < 0.05
        True
    """

    k: int = 40
    std: float | Tensor | Mapping[str, float | Tensor] | None = None
    lr: float | None = None
    lr_std: float = 0.1
    max_change: float = 0.2
    optimizer: str | StepRule = "clipup"
    bounds: Bounds | None = None
    needs = Needs(min_k=2, k_multiple=2)

    def __post_init__(self) -> None:
        self.check_settings()
        check_std(self.std)
        check_optimizer(self.optimizer)
        if self.lr is not None:
            checks.number("lr", self.lr, 0.0)
        checks.number("lr_std", self.lr_std, 0.0)
        checks.probability("max_change", self.max_change)

    def init(self, start: Population) -> PGPEState:
        """The mean is the best of the start."""
        mean, best = self._begin(start)
        std = first_std(self.std, self.bounds, best, mean)
        return PGPEState(mean, std, std, self._rule(mean).init(mean), best)

    def ask(self, state: PGPEState, noise: Noise) -> Population:
        """Pairs mean + std * e, mean - std * e."""
        normal = draw(self.k, state.mean, noise, draws.normal_pairs)
        return hand_out_with(normal, jitter(state.mean, normal, state.std), state.best, self.bounds)

    def tell(self, state: PGPEState, asked: Population) -> PGPEState:
        """One step of the optimiser for the mean, one plain step for the standard deviations."""
        pairs = self.k // 2
        e = noise_of(asked)[:pairs]
        plus, minus = centred_ranks(penalised_order(asked, state.std)).to(state.std.dtype).split(pairs)
        gradient = -weighted_sum((plus - minus) / 2, e) / pairs * (state.std / state.unit)  # epsilon * (r+ - r-) / 2
        change, memory = self._rule(state.mean).step(gradient, state.memory)
        mean = finite_mean(state.mean + state.unit * change)
        # (epsilon^2 - std^2) / std * ((r+ + r-) / 2 - b), where the baseline b is the ranks' mean of 0
        growth = self.lr_std * weighted_sum((plus + minus) / 2, e.square() - 1) / pairs
        std = state.std * (1 + growth.clamp(-self.max_change, self.max_change))
        return PGPEState(mean, limited(std, state.unit), state.unit, memory, better(asked, state.best))

    def _rule(self, mean: Tensor) -> StepRule:
        return step_rule(self.optimizer, math.sqrt(mean.shape[-1]) / 30 if self.lr is None else self.lr)
