"""Natural gradient by antithetic Gaussian smoothing, with a fixed width and an ordinary optimiser for the step.

T. Salimans, J. Ho, X. Chen, S. Sidor and I. Sutskever, Evolution Strategies as a Scalable Alternative to
Reinforcement Learning, 2017: Algorithm 1 with mirrored samples, rank shaping, weight decay and Adam, as in the
authors' code.

Deviation: the step is taken in units of the standard deviation. So ``lr=0.5`` is the authors' Adam of 0.01 at a
standard deviation of 0.02, and stays right when the genes have another unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

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
    penalised_order,
)
from tansaku.algorithms.steps import Memory, StepRule, check_optimizer, step_rule
from tansaku.draws import Noise
from tansaku.functional import centred_ranks, jitter, weighted_sum
from tansaku.operators.bounds import Bounds
from tansaku.population import Population
from tansaku.states import state


@state
class OpenAIESState:
    """The distribution, the optimiser's ``memory`` and the best candidate (k = 1, assessed).

    ``mean`` and ``std`` are [*batch_shape, n], and ``unit`` the first ``std``.
    """

    mean: Tensor
    std: Tensor
    unit: Tensor
    memory: Memory
    best: Population


@dataclass(frozen=True)
class OpenAIES(GaussianSearch[OpenAIESState]):
    """OpenAI-ES: mirrored samples, centred ranks, one optimiser step per generation.

    Args:
        k: samples per generation, an even number.
        std: standard deviation of the samples, in units of the genes: a number, a tensor that broadcasts against
            [*event_shape], or a mapping from names to either; a fiftieth of the bounds' span if not given, else 0.1.
        lr: learning rate of an optimiser given by name, in standard deviations.
        optimizer: ``"adam"``, ``"sgd"``, ``"momentum"``, ``"clipup"``, or a `StepRule`, such as `TorchStep`.
        weight_decay: coefficient of the squared length of the genes in the objective that is followed. Above 0 the
            search pulls towards 0, by a force in units of the genes, and so neither translates nor scales.
        std_decay: what the standard deviation is multiplied with every generation; the paper has 1. With a
            fixed width, a search comes no nearer to an optimum than that width; 0.99 lets it converge.
        orthogonal: whether the samples are mean + std * s and mean - std * s with signs s that do not move two genes
            together (`draws.sign_pairs`) in place of the paper's normal numbers. It costs a random bit per gene and
            generation, not a random number per gene and sample, and with pairs for all genes the slope is exact.
        bounds: `Bounds` or (lower, upper).

    Example:
        >>> from tansaku import minimize
        >>> result = minimize(lambda x: x.square().sum(-1), shape=5, algorithm="openai_es", max_evaluations=6000)
        >>> result.value < 0.05
        True
    """

    k: int = 40
    std: float | Tensor | Mapping[str, float | Tensor] | None = None
    lr: float = 0.5
    optimizer: str | StepRule = "adam"
    weight_decay: float = 0.0
    std_decay: float = 1.0
    orthogonal: bool = False
    bounds: Bounds | None = None
    needs = Needs(min_k=2, k_multiple=2)

    def __post_init__(self) -> None:
        self.check_settings()
        check_std(self.std)
        check_optimizer(self.optimizer)
        checks.number("lr", self.lr, 0.0)
        checks.probability("std_decay", self.std_decay)
        if checks.number("weight_decay", self.weight_decay, 0.0):
            object.__setattr__(self, "needs", replace(self.needs, translates=False, scales=False))

    def init(self, start: Population) -> OpenAIESState:
        """The mean is the best of the start."""
        mean, best = self._begin(start)
        std = first_std(self.std, self.bounds, best, mean) * (0.1 if self.std is None else 1.0)
        return OpenAIESState(mean, std, std, self._rule().init(mean), best)

    def ask(self, state: OpenAIESState, noise: Noise) -> Population:
        """Pairs mean + std * e, mean - std * e (Algorithm 1, line 3)."""
        steps = draw(self.k, state.mean, noise, draws.sign_pairs if self.orthogonal else draws.normal_pairs)
        return hand_out_with(steps, jitter(state.mean, steps, state.std), state.best, self.bounds)

    def tell(self, state: OpenAIESState, asked: Population) -> OpenAIESState:
        """One step of the optimiser along the estimated gradient (Algorithm 1, line 5)."""
        shaped = centred_ranks(penalised_order(asked, state.std)).to(state.std.dtype)
        gradient = weighted_sum(shaped, noise_of(asked)) / -self.k  # of the cost, in units of std
        if self.weight_decay:
            gradient = gradient + self.weight_decay * state.mean * state.std
        change, memory = self._rule().step(gradient, state.memory)
        mean = finite_mean(torch.addcmul(state.mean, state.std, change))
        std = state.std if self.std_decay == 1 else limited(state.std * self.std_decay, state.unit)
        return OpenAIESState(mean, std, state.unit, memory, better(asked, state.best))

    def _rule(self) -> StepRule:
        return step_rule(self.optimizer, self.lr)
