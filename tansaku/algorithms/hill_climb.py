"""Hill climbing: k steps from the incumbent are tried at once, and the best of them replaces it if it is better.

With ``adapt`` the length of the steps follows the success rule of the (1 + lambda)-ES:
C. Igel, N. Hansen and S. Roth, Covariance Matrix Adaptation for Multi-objective Optimization, 2007, procedure
updateStepSize (its smoothing left out: a generation of k candidates is the average); the original one-fifth rule is
I. Rechenberg, Evolutionsstrategie, 1973.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tansaku import draws
from tansaku.algorithms.base import Algorithm, Needs, better, check_operators, check_std, discrete_mutation, step_size
from tansaku.draws import Noise
from tansaku.functional import align, jitter
from tansaku.operators.bounds import Bounds
from tansaku.operators.mutation import Mutation, mutation_of, shapes
from tansaku.population import Population
from tansaku.states import state


@state
class HillClimbState:
    """The incumbent (k = 1, assessed) and ``scale`` [*batch_shape], which multiplies the steps."""

    incumbent: Population
    scale: Tensor


@dataclass(frozen=True)
class HillClimb(Algorithm[HillClimbState]):
    """Stochastic hill climbing, every search its own incumbent and step length.

    Args:
        k: steps tried per generation.
        std: standard deviation of the first steps, in units of the genes: a number, a tensor that broadcasts against
            [*event_shape], or a mapping from names to either; a fifth of the bounds' span if not given, else 1.
        mutate: another way to make a step, or a dictionary that gives each name its own; then ``std`` and ``adapt``
            have no effect. By default real genes take Gaussian steps, boolean genes flip and integer genes are drawn
            anew, one per candidate on average.
        adapt: whether the steps grow after many successes and shrink after few.
        antithetic: whether the steps of real genes come in pairs x + e, x - e; then k is even.
        orthogonal: whether these pairs are of the same length in every gene, x + std * s and x - std * s with signs s,
            and no two genes move together on balance (`draws.sign_pairs`). So from 2 n candidates on, n the next power
            of two of the genes, a mean of them weighted by their costs tells the genes' effects apart: of a linear
            cost it takes the exact slope, where as many normal steps leave noise as large as the slope itself.
        bounds: `Bounds` or (lower, upper).
    """

    k: int = 16
    std: float | Tensor | Mapping[str, float | Tensor] | None = None
    mutate: Mutation | Mapping[str, Mutation] | None = None
    adapt: bool = True
    antithetic: bool = False
    orthogonal: bool = False
    bounds: Bounds | None = None
    needs = Needs(dtypes=frozenset({"real", "integer", "boolean"}))

    def __post_init__(self) -> None:
        if self.antithetic or self.orthogonal:
            object.__setattr__(self, "needs", replace(self.needs, min_k=2, k_multiple=2))
        self.check_settings()
        check_std(self.std)
        check_operators(mutate=self.mutate)

    def init(self, start: Population) -> HillClimbState:
        """The best of the start is the incumbent."""
        self.check_start(start)
        cost = start.cost[0]  # half precision is too narrow for a scale
        return HillClimbState(start.best(), torch.ones_like(cost, dtype=torch.promote_types(cost.dtype, torch.float32)))

    def ask(self, state: HillClimbState, noise: Noise) -> Population:
        """K steps from the incumbent."""
        incumbent = state.incumbent
        genes, traits = (
            {name: x.expand(self.k, *x.shape[1:]) for name, x in named.items()}
            for named in (incumbent.genes, incumbent.traits)
        )
        parents = Population(genes, incumbent.batch_ndim, traits)
        if self.mutate is not None:
            children = mutation_of(self.mutate)(parents, noise)
        else:
            children = parents.with_genes({name: self._step(name, parents, state, noise) for name in parents.genes})
        return children if self.bounds is None else self.bounds(children)

    def _step(self, name: str, parents: Population, state: HillClimbState, noise: Noise) -> Tensor:
        x = parents[name]
        if not x.is_floating_point():
            return discrete_mutation(name, x, parents.batch_ndim, self.bounds).mutate(
                name, x, parents.batch_ndim, noise
            )
        paired = draws.normal_pairs if self.antithetic else draws.normal
        step = (draws.sign_pairs if self.orthogonal else paired)(*shapes(x, parents.batch_ndim), x, noise)
        std = step_size(self.std, self.bounds, name, x)
        return jitter(x, step, align(state.scale.to(x.dtype), x[0]) * std)

    def tell(self, state: HillClimbState, asked: Population) -> HillClimbState:
        """The best child replaces the incumbent if it is better."""
        return HillClimbState(better(asked, state.incumbent), self._scale(state, asked) if self.adapt else state.scale)

    def _scale(self, state: HillClimbState, asked: Population) -> Tensor:
        genes = sum(math.prod(asked.event_shape(name)) for name in asked.genes)
        damping = 1 + genes / (2 * self.k)
        goal = 1 / (5 + math.sqrt(self.k) / 2)
        success = (asked.cost < state.incumbent.cost).to(state.scale.dtype).mean(0)
        grown = state.scale * torch.exp((success - goal) / ((1 - goal) * damping))
        return grown.clamp(1e-12, 1e12)

    def best(self, state: HillClimbState) -> Population:
        """The incumbent."""
        return state.incumbent
