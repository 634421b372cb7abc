"""Simulated annealing: k chains that also take worse steps, the more rarely the worse they are and the colder it is.

S. Kirkpatrick, C. D. Gelatt and M. P. Vecchi, Optimization by Simulated Annealing, Science 220, 1983; steps are
accepted as in N. Metropolis et al., Equation of State Calculations by Fast Computing Machines, 1953. The first
temperature is measured (W. Ben-Ameur, Computing the Initial Temperature of Simulated Annealing, 2004, its first
estimate, but with falls counted as rises, of which a bad start has too few). The length of real steps follows the share
accepted: A. Corana, M. Marchesi, C. Martini and S. Ridella, Minimizing Multimodal Functions of Continuous Variables
with the "Simulated Annealing" Algorithm, 1987, with one length for all genes; where the paper adapts after 20 steps of
one chain, a generation of k chains counts for k of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tansaku import checks, draws
from tansaku.algorithms.base import (
    Algorithm,
    Assessor,
    Needs,
    better,
    budget_spent,
    check_budget,
    check_operators,
    check_std,
    discrete_mutation,
    step_size,
)
from tansaku.draws import Noise
from tansaku.functional import align, jitter
from tansaku.operators.bounds import Bounds
from tansaku.operators.mutation import Mutation, shapes
from tansaku.population import Population
from tansaku.states import state


@state
class AnnealingState:
    """Where the chains are and the best candidate ever (k = 1), both assessed; and numbers of each search.

    ``hottest`` [*batch_shape] is the first temperature, 0 before it is known; ``scale`` [*batch_shape] multiplies the
    steps; ``evaluations`` and ``generations`` are those told so far.
    """

    chains: Population
    best: Population
    hottest: Tensor
    scale: Tensor
    evaluations: int
    generations: int


@dataclass(frozen=True)
class Annealing(Algorithm[AnnealingState]):
    """Each chain tries a step and takes it with probability min(1, exp(-rise / temperature)).

    Args:
        k: chains, independent but for the temperature and the length of their steps.
        cooling: of the first temperature T: ``"geometric"``, down to ``coldest * T`` by equal factors over
            ``max_evaluations``; ``"linear"``, to the same in equal steps; ``"fast"``, T / (1 + generation) (Szu and
            Hartley, 1987); ``"logarithmic"``, T log 2 / log(2 + generation) (Geman and Geman, 1984), slow enough to
            find every optimum in the end and too slow for most budgets.
        max_evaluations: evaluations of each search over which the temperature falls. If not given, a `Search` (and so
            `minimize`) fills in the budget of its first run; 10,000 if there is none.
        coldest: last temperature as a share of the first.
        temperature: the first one, in units of the cost; if not given, one at which a rise by the average change
            among the first steps is accepted with probability ``first_acceptance``.
        first_acceptance: see ``temperature``, which makes it needless.
        std: standard deviation of the first steps, in units of the genes; a fifth of the bounds' span if not given,
            else 1.
        mutate: another way to make a step; then ``std`` and ``adapt`` have no effect. By default real genes take
            Gaussian steps, boolean genes flip and integer genes are drawn anew, one per candidate on average.
        adapt: whether steps grow while most are accepted and shrink while few are.
        bounds: `Bounds` or (lower, upper).

    Example:
        >>> from tansaku import minimize
        >>> minimize(lambda x: x.square().sum(-1), shape=3, bounds=(-5.0, 5.0), algorithm="annealing").value < 1e-2
        True
    """

    k: int = 10
    cooling: Literal["geometric", "linear", "fast", "logarithmic"] = "geometric"
    max_evaluations: int | None = None
    coldest: float = 1e-6
    temperature: float | None = None
    first_acceptance: float = 0.8
    std: float | Tensor | Mapping[str, float | Tensor] | None = None
    mutate: Mutation | None = None
    adapt: bool = True
    bounds: Bounds | None = None
    needs = Needs(dtypes=frozenset({"real", "integer", "boolean"}), rank_based=False, plans=True)

    def __post_init__(self) -> None:
        self.check_settings()
        check_std(self.std)
        check_operators(mutate=self.mutate)
        check_budget(self)
        for name, value in (("coldest", self.coldest), ("first_acceptance", self.first_acceptance)):
            if not 0 < checks.probability(name, value) < 1:
                raise ValueError(f"expected {name} between 0 and 1, got {value}; choose a value inside")
        if self.temperature is not None and checks.number("temperature", self.temperature, 0.0) == 0:
            raise ValueError("expected temperature > 0, got 0; use HillClimb to take no step that is worse")
        if self.cooling not in ("geometric", "linear", "fast", "logarithmic"):
            raise ValueError(
                f"expected cooling 'geometric', 'linear', 'fast' or 'logarithmic', got {self.cooling!r}; choose one"
            )

    def init(self, start: Population) -> AnnealingState:
        """The best k of the start are where the chains begin; of fewer, each has its turn."""
        self.check_start(start)
        order = start.cost.argsort(dim=0, stable=True)
        turns = torch.arange(self.k, device=start.device) % start.k
        chains = start.without_traits().take(order[turns])
        wide = torch.promote_types(start.cost.dtype, torch.float32)  # half precision is too narrow for temperatures
        ones = torch.ones_like(start.cost[0], dtype=wide)
        hottest = ones * (0.0 if self.temperature is None else self.temperature)
        return AnnealingState(chains, chains.best(), hottest, ones, start.k, 0)

    def ask(self, state: AnnealingState, noise: Noise) -> Population:
        """A step of every chain, and the coin that decides on it, as the trait ``coin``."""
        chains = state.chains
        if self.mutate is not None:
            steps = self.mutate(chains, noise)
        else:
            steps = chains.with_genes({name: self._step(name, chains, state, noise) for name in chains.genes})
        steps = steps if self.bounds is None else self.bounds(steps)
        return steps.with_traits(coin=draws.uniform((self.k,), tuple(chains.batch_shape), (), state.scale, noise))

    def _step(self, name: str, chains: Population, state: AnnealingState, noise: Noise) -> Tensor:
        x, n = chains[name], chains.batch_ndim
        if not x.is_floating_point():
            return discrete_mutation(name, x, n, self.bounds).mutate(name, x, n, noise)
        std = step_size(self.std, self.bounds, name, x)
        return jitter(x, draws.normal(*shapes(x, n), x, noise), align(state.scale.to(x.dtype), x[0]) * std)

    def tell(self, state: AnnealingState, asked: Population) -> AnnealingState:
        """Metropolis: a chain takes its step if that is no worse, or if the coin falls below exp(-rise / T)."""
        chains, steps = state.chains, asked.without_traits()
        before, after = (x.feasible_cost.to(state.scale.dtype) for x in (chains, asked))
        rise = after - before  # inf - inf, of two infeasible or failed candidates, is a rise without limit
        rise = torch.where(asked.cost <= chains.cost, 0.0, torch.where(torch.isnan(rise), float("inf"), rise))
        change = (after - before).abs()
        counted = (change > 0) & torch.isfinite(change)
        mean = torch.where(counted, change, 0.0).sum(0) / counted.sum(0).clamp(min=1)
        measured = mean / -math.log(self.first_acceptance)
        hottest = torch.where(state.hottest > 0, state.hottest, measured)
        temperature = hottest * self._cooled(state.evaluations, state.generations)
        chance = torch.exp(-rise / torch.where(temperature > 0, temperature, 1.0))
        chance = torch.where((rise > 0) & (temperature <= 0), 0.0, chance)
        taken = asked.traits["coin"] < chance
        return AnnealingState(
            steps.where(taken, chains),
            better(asked, state.best),
            hottest,
            self._scale(state.scale, taken) if self.adapt else state.scale,
            state.evaluations + asked.k,
            state.generations + 1,
        )

    def _cooled(self, evaluations: int, generation: int) -> float:
        """The temperature as a share of the first."""
        done = budget_spent(self.max_evaluations, evaluations)
        if self.cooling == "geometric":
            return float(self.coldest**done)
        if self.cooling == "linear":
            return 1 + (self.coldest - 1) * done
        return 1 / (1 + generation) if self.cooling == "fast" else math.log(2) / math.log(2 + generation)

    def _scale(self, scale: Tensor, taken: Tensor) -> Tensor:
        """Corana et al., equation 6 of the adaptation, with c = 2: longer above 60 % accepted, shorter below 40 %."""
        share = taken.to(scale.dtype).mean(0)
        longer, shorter = 1 + 2 * (share - 0.6).clamp(min=0) / 0.4, 1 + 2 * (0.4 - share).clamp(min=0) / 0.4
        return (scale * (longer / shorter).pow(min(1.0, self.k / 20))).clamp(1e-12, 5.0)

    def best(self, state: AnnealingState) -> Population:
        """The best candidate ever assessed."""
        return state.best

    def refresh(self, state: AnnealingState, assess: Assessor) -> AnnealingState:
        """Chains and best assessed again; under another objective a chain may be the best."""
        fresh = super().refresh(state, assess)
        best = better(fresh.chains, fresh.best)
        return AnnealingState(fresh.chains, best, fresh.hottest, fresh.scale, fresh.evaluations, fresh.generations)
