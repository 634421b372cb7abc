"""NSGA-II: several objectives at once, by Pareto rank and crowding distance.

K. Deb, A. Pratap, S. Agarwal and T. Meyarivan, A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II, IEEE
Transactions on Evolutionary Computation 6(2), 2002, section III. Its parameters (section V): binary tournament,
crossover probability 0.9, mutation probability 1 / genes, both distribution indices 20, 100 candidates. As in the
authors' program, each gene of a pair that is crossed takes part with probability 0.5, and which child gets which value
is a fair coin. Genes that are not real are crossed uniformly and mutated one per candidate on average.

Deviations, where genes are not all real: children that are equal to a parent or to one another are replaced before they
are assessed, and of equal candidates that are assessed all but one are ranked behind all others, for a front of
discrete genes fills up with copies otherwise. A tournament is won by dominance and then by crowding, as in the authors'
program: discrete genes make many small fronts, and preferring each to the next narrows the search.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tansaku import checks, draws
from tansaku.algorithms.base import Algorithm, Assessor, Needs, check_std, discrete_mutation, step_size
from tansaku.draws import Noise
from tansaku.functional import (
    align,
    crowding_distances,
    dominates,
    pareto_ranks,
    polynomial,
    repeats,
    sbx,
    select,
    take_rows,
)
from tansaku.operators.bounds import Bounds
from tansaku.operators.distinct import distinct_children, one_gene_changed
from tansaku.population import Population
from tansaku.states import state


@state
class NSGA2State:
    """The parents, assessed, with the ``rank`` of their fronts and their ``crowding`` in them, [k, *batch_shape]."""

    parents: Population
    rank: Tensor
    crowding: Tensor


@dataclass(frozen=True)
class NSGA2(Algorithm[NSGA2State]):
    """A genetic algorithm for several objectives, whose best is a Pareto front of at most ``k`` candidates.

    Args:
        k: children per generation, and parents; more than twice the objectives, so that the ends of the front stay.
        crossover: probability that a pair of parents is crossed.
        crossover_index: distribution index of simulated binary crossover.
        mutation: probability that a gene mutates; 1 / genes if not given.
        mutation_index: distribution index of polynomial mutation.
        std: of genes without finite bounds, which mutate by at most 2.5 times this; 1 if not given.
        bounds: `Bounds` or (lower, upper).

    Example:
        >>> from tansaku import minimize
        >>> schaffer = lambda x: torch.cat([x**2, (x - 2) ** 2], -1)
        >>> result = minimize(schaffer, shape=1, bounds=(-10.0, 10.0), algorithm="nsga2", max_generations=30)
        >>> result.best["x"].min() > -0.1, result.best["x"].max() < 2.1
        (tensor(True), tensor(True))
    """

    k: int = 100
    crossover: float = 0.9
    crossover_index: float = 20.0
    mutation: float | None = None
    mutation_index: float = 20.0
    std: float | Tensor | Mapping[str, float | Tensor] | None = None
    bounds: Bounds | None = None
    needs = Needs(
        min_k=4, dtypes=frozenset({"real", "integer", "boolean"}), rank_based=False, objectives="many"
    )  # crowding distances are differences of costs

    def __post_init__(self) -> None:
        self.check_settings()
        check_std(self.std)
        checks.probability("crossover", self.crossover)
        if self.mutation is not None:
            checks.probability("mutation", self.mutation)
        for name in ("crossover_index", "mutation_index"):
            checks.number(name, getattr(self, name), 0.0)

    def init(self, start: Population) -> NSGA2State:
        """The start, whatever its number, is the first generation of parents."""
        self.check_start(start)
        return _ranked(start)

    def ask(self, state: NSGA2State, noise: Noise) -> Population:
        """K children of winners of binary tournaments, by the crowded comparison (section III-C)."""
        children = self._children(state, noise)
        replacements = (
            lambda x: self._children(state, noise),
            lambda x: one_gene_changed(x, self.bounds, noise),
            lambda x: one_gene_changed(x, self.bounds, noise),
        )
        return distinct_children(children, state.parents, replacements)

    def _children(self, state: NSGA2State, noise: Noise) -> Population:
        pairs = -(-self.k // 2)
        chosen = self._tournament(state, 2 * pairs, noise)
        mothers, fathers = state.parents.take(chosen[:pairs]), state.parents.take(chosen[pairs:])
        batch_shape, n = tuple(state.parents.batch_shape), state.parents.batch_ndim
        crossed = draws.coins(self.crossover, (pairs,), batch_shape, (), state.crowding, noise)
        size = sum(math.prod(mothers.event_shape(name)) for name in mothers.genes)
        rate = 1 / size if self.mutation is None else self.mutation
        genes = {}
        for name, a in mothers.genes.items():
            made = self._crossed(name, a, fathers[name], crossed, noise)[: self.k]
            genes[name] = self._mutated(name, made, n, rate, noise)
        children = Population(genes, n)
        return children if self.bounds is None else self.bounds(children)

    def tell(self, state: NSGA2State, asked: Population) -> NSGA2State:
        """The best k of parents and children (section III-C): whole fronts, then the least crowded of the next one."""
        both = _ranked(state.parents.without_traits().cat(asked.without_traits()))
        order = _order(both.rank, both.crowding)[: self.k]
        return NSGA2State(both.parents.take(order), both.rank.gather(0, order), both.crowding.gather(0, order))

    def best(self, state: NSGA2State) -> Population:
        """The Pareto front of the parents; see `Population.front` for several searches."""
        return state.parents.front()

    def refresh(self, state: NSGA2State, assess: Assessor) -> NSGA2State:
        """The parents assessed and ranked again."""
        return _ranked(assess(state.parents))

    def _tournament(self, state: NSGA2State, count: int, noise: Noise) -> Tensor:
        drawn = draws.integers(state.parents.k, (2, count), tuple(state.parents.batch_shape), (), state.rank, noise)
        rank, crowding = (x.gather(0, drawn.flatten(0, 1)).view_as(drawn) for x in (state.rank, state.crowding))
        if _all_real(state.parents):
            before, after = rank[1] < rank[0], rank[1] > rank[0]
        else:
            first, second = (take_rows(state.parents.cost, index) for index in drawn)
            before, after = dominates(second, first), dominates(first, second)
        wins = before | (~after & (crowding[1] > crowding[0]))
        return torch.where(wins, drawn[1], drawn[0])

    def _crossed(self, name: str, a: Tensor, b: Tensor, crossed: Tensor, noise: Noise) -> Tensor:
        """Both children of every pair, [2 * pairs, ...]: all first ones, then all second ones."""
        lead, batch_shape = tuple(crossed.shape[:1]), tuple(crossed.shape[1:])
        event = tuple(a.shape[crossed.ndim :])
        swapped = draws.coins(0.5, lead, batch_shape, event, a, noise)
        first, second = a, b
        exchanged = swapped & align(crossed, a)
        if a.is_floating_point():
            low, high = self._ends(name, a)
            u = draws.uniform(lead, batch_shape, event, a, noise)
            near, far = sbx(a, b, u, self.crossover_index, low, high)
            taking_part = draws.coins(0.5, lead, batch_shape, event, a, noise)
            first, second = select(taking_part, near, a), select(taking_part, far, b)
            exchanged = exchanged & taking_part
        made = torch.cat([select(exchanged, second, first), select(exchanged, first, second)])
        return select(torch.cat([crossed, crossed]), made, torch.cat([a, b]))

    def _mutated(self, name: str, x: Tensor, batch_ndim: int, rate: float, noise: Noise) -> Tensor:
        if not x.is_floating_point():
            return discrete_mutation(name, x, batch_ndim, self.bounds).mutate(name, x, batch_ndim, noise)
        lead, batch_shape, event = x.shape[:1], x.shape[1 : 1 + batch_ndim], x.shape[1 + batch_ndim :]
        changes = draws.coins(rate, tuple(lead), tuple(batch_shape), tuple(event), x, noise)
        u = draws.uniform(tuple(lead), tuple(batch_shape), tuple(event), x, noise)
        low, high = self._ends(name, x)
        half = 2.5 * step_size(self.std, None, name, x)  # a gene without a box has one of its own around it
        endless = ~(torch.isfinite(low) & torch.isfinite(high))
        low, high = torch.where(endless, x - half, low), torch.where(endless, x + half, high)
        return select(changes, polynomial(x, u, self.mutation_index, low, high), x)

    def _ends(self, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
        ends = None if self.bounds is None else self.bounds.ends(name, x)
        return (x.new_tensor(-float("inf")), x.new_tensor(float("inf"))) if ends is None else ends


def _ranked(population: Population) -> NSGA2State:
    """Duplicates with discrete genes get a rank behind all others and count in no other front's crowding distances."""
    cost = population.cost
    rank = pareto_ranks(cost)
    if not _all_real(population):
        order = rank.argsort(dim=0, stable=True)  # of equal candidates that of the first front counts
        repeated = repeats(population.keys(cost).gather(0, order))
        rank = torch.where(torch.empty_like(repeated).scatter_(0, order, repeated), population.k, rank)
    return NSGA2State(population, rank, crowding_distances(cost, rank))


def _all_real(population: Population) -> bool:
    return all(x.is_floating_point() for x in population.genes.values())


def _order(rank: Tensor, crowding: Tensor) -> Tensor:
    """Indices by rank, then by crowding, the least crowded first; ties keep the lower index."""
    order = crowding.argsort(dim=0, descending=True, stable=True)
    return order.gather(0, rank.gather(0, order).argsort(dim=0, stable=True))
