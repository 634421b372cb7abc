"""L-SHADE: SHADE with a population that shrinks linearly, wide at first, narrow at the end of the budget.

R. Tanabe and A. S. Fukunaga, Improving the Search Performance of SHADE Using Linear Population Size Reduction, IEEE
CEC 2014; equation numbers are its own. Two deviations: bounds are kept by their own repair, not by the point between
the bound and the target; the first population does not depend on the number of genes (the paper: 18 per gene).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tansaku import checks
from tansaku.algorithms.base import Algorithm, Needs, budget_spent, check_budget, check_std
from tansaku.algorithms.differential import around, at_most
from tansaku.algorithms.success_history import SuccessHistory, forgetful, learned, towards_the_best
from tansaku.draws import Noise
from tansaku.operators.bounds import Bounds
from tansaku.operators.survival import Greedy, Plus
from tansaku.population import Population
from tansaku.states import state


@state
class LSHADEState:
    """The targets, assessed, what their trials have taught, and the ``evaluations`` so far, of each search."""

    population: Population
    history: SuccessHistory
    evaluations: int


@dataclass(frozen=True)
class LSHADE(Algorithm[LSHADEState]):
    """SHADE whose population shrinks from ``k`` to ``least_k`` candidates while ``max_evaluations`` are made.

    Afterwards it goes on with ``least_k``. A start of fewer than ``k`` candidates is filled up with the best of a first
    generation around it.

    Args:
        k: candidates at first.
        max_evaluations: evaluations of each search over which the population shrinks. If not given, a `Search` (and so
            `minimize`) fills in the budget of its first run; 10,000 if there is none.
        least_k: candidates at last.
        memory: H, entries of the memory of rates.
        share: p, each target goes towards one of this share of the best, of two at least.
        archive: how many replaced candidates are kept, as a multiple of the population.
        std: distance at which the first generation lies around a start of fewer than ``k`` candidates, in units of the
            genes; a fifth of the bounds' span if not given, else 1.
        bounds: `Bounds` or (lower, upper).

    Example:
        >>> from tansaku import minimize
        >>> minimize(lambda x: x.square().sum(-1), shape=3, bounds=(-5.0, 5.0), algorithm="lshade").value < 1e-8
        True
    """

    k: int = 100
    max_evaluations: int | None = None
    least_k: int = 4
    memory: int = 6
    share: float = 0.11
    archive: float = 2.6
    std: float | Tensor | Mapping[str, float | Tensor] | None = None
    bounds: Bounds | None = None
    needs = Needs(min_k=4, rank_based=False, plans=True)

    def __post_init__(self) -> None:
        self.check_settings()
        check_std(self.std)
        check_budget(self)
        checks.count("least_k", self.least_k, 4)
        checks.count("memory", self.memory)
        checks.probability("share", self.share)
        checks.number("archive", self.archive, 0.0)
        if self.least_k > self.k:
            raise ValueError(f"expected least_k <= k, got {self.least_k} and {self.k}; shrink from more candidates")

    def init(self, start: Population) -> LSHADEState:
        """The start (its best k, if there are more) is the population."""
        self.check_start(start)
        population = at_most(start, self.k)
        history = forgetful(population, self.memory, round(self.archive * self.k))
        return LSHADEState(population, history, start.k)

    def next_k(self, state: LSHADEState) -> int:
        """As many as there are targets; k for the generation that fills up a small start."""
        return state.population.k if self._full(state) else self.k

    def evaluations_in(self, generations: int, start_k: int) -> int:
        """The integral of the population, which shrinks linearly in the evaluations: shorter than k * generations."""
        mean = self.k if self.least_k == self.k else (self.k - self.least_k) / math.log(self.k / self.least_k)
        return start_k + round(mean * generations)

    def _full(self, state: LSHADEState) -> bool:
        return state.population.k >= self._planned(state.evaluations)

    def _planned(self, evaluations: int) -> int:
        """How many targets there are after so many evaluations (equation 10)."""
        passed = budget_spent(self.max_evaluations, evaluations)
        return round((self.least_k - self.k) * passed + self.k)

    def ask(self, state: LSHADEState, noise: Noise) -> Population:
        """One trial for every target; before that, what fills the population up."""
        targets = state.population
        if not self._full(state):
            return around(targets, self.k, self.std, self.bounds, noise)
        top = torch.full_like(targets.cost, max(2, round(self.share * targets.k)), dtype=torch.float64)
        return towards_the_best(state.history, targets, top, self.bounds, noise)

    def tell(self, state: LSHADEState, asked: Population) -> LSHADEState:
        """Every trial against its own target; the rates of those that were better are remembered; the worst go."""
        targets, history, children = state.population, state.history, asked.without_traits()
        evaluations = state.evaluations + asked.k
        k = self._planned(evaluations)
        if not self._full(state):
            return LSHADEState(Plus(k)(targets, children), history, evaluations)
        population, history = Greedy()(targets, children), learned(history, targets, asked, lehmer=True)
        if k < population.k:
            capacity = round(self.archive * k)
            archive, archived = history.archive[:capacity].clone(), history.archived.clamp(max=capacity)
            population = at_most(population, k)
            history = replace(history, archive=archive, archived=archived)
        return LSHADEState(population, history, evaluations)

    def best(self, state: LSHADEState) -> Population:
        """The best of the targets: none was ever replaced by a worse one."""
        return state.population.best()
