"""A generational genetic algorithm with elitism, put together from operators.

J. H. Holland, Adaptation in Natural and Artificial Systems, 1975; real-coded with BLX-alpha crossover after
L. J. Eshelman and J. D. Schaffer, Real-coded genetic algorithms and interval-schemata, 1993, and
F. Herrera, M. Lozano and J. L. Verdegay, Tackling Real-Coded Genetic Algorithms, 1998.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from tansaku import draws
from tansaku.algorithms.base import (
    Algorithm,
    Assessor,
    Needs,
    better,
    check_operators,
    check_std,
    discrete_mutation,
    step_size,
)
from tansaku.draws import Noise
from tansaku.functional import jitter
from tansaku.operators.bounds import Bounds
from tansaku.operators.crossover import Blend, Crossover, UniformCrossover, crossover_of
from tansaku.operators.distinct import distinct_children, one_gene_changed
from tansaku.operators.mutation import Mutation, mutation_of, shapes
from tansaku.operators.selection import Tournament
from tansaku.operators.survival import Comma
from tansaku.population import Population
from tansaku.states import state


@state
class GAState:
    """The parents of the next generation and the best candidate ever (k = 1), both assessed."""

    parents: Population
    best: Population


@dataclass(frozen=True)
class GA(Algorithm[GAState]):
    """Select, cross, mutate, survive; the operators are yours to choose.

    Children with boolean, integer or permutation genes that are equal to a parent or to one another are mutated again,
    up to three times: by ``mutate`` if it is given, else one of their genes gets another value.

    Args:
        k: children per generation.
        select: (population, count, noise) -> index.
        crossover: (a, b, noise) -> children; by default `Blend` for real genes, `UniformCrossover` for all others. A
            dictionary gives each name its own, such as ``{"w": SBX(), "tour": OrderCrossover()}``.
        mutate: (population, noise) -> population; by default none for real genes (BLX-0.6 widens what selection
            narrows), one changed gene per child on average for boolean and bounded integer genes. A
            dictionary gives each name its own, such as ``{"w": Gaussian(0.1), "mask": BitFlip(0.01)}``.
        survive: (parents, children) -> the next parents.
        bounds: `Bounds` or (lower, upper).
        std: how far the first children lie from a start of one candidate, which no crossover of real genes would
            leave: a number, a tensor that broadcasts against [*event_shape], or a mapping from names to either; a
            fifth of the bounds' span if not given, else 1. With ``mutate`` it has no effect.
    """

    k: int = 100
    select: Callable[[Population, int, Noise], Tensor] = field(default_factory=lambda: Tournament(4))
    crossover: Crossover | Mapping[str, Crossover] | None = None
    mutate: Mutation | Mapping[str, Mutation] | None = None
    survive: Callable[[Population, Population], Population] = field(default_factory=lambda: Comma(1))
    bounds: Bounds | None = None
    std: float | Tensor | Mapping[str, float | Tensor] | None = None
    needs = Needs(dtypes=frozenset({"real", "integer", "boolean"}))

    def __post_init__(self) -> None:
        self.check_settings()
        check_std(self.std)
        check_operators(select=self.select, crossover=self.crossover, mutate=self.mutate, survive=self.survive)

    def init(self, start: Population) -> GAState:
        """The start, whatever its number, is the first generation of parents."""
        self.check_start(start)
        return GAState(start, start.best())

    def ask(self, state: GAState, noise: Noise) -> Population:
        """K children."""
        children = self._children(state.parents, noise)
        return distinct_children(children, state.parents, [lambda x: self._changed(x, noise)] * 3)

    def _children(self, parents: Population, noise: Noise) -> Population:
        chosen = self.select(parents, 2 * self.k, noise)
        if self.crossover is None:
            parents = parents.unassessed()  # our own crossovers do not ask what a parent costs
        mothers, fathers = parents.take(chosen[: self.k]), parents.take(chosen[self.k :])
        children = self._mutated(self._crossed(mothers, fathers, noise), noise, alone=parents.k == 1)
        if self.bounds is None:
            return children
        if self.crossover is not None or self.mutate is not None or type(self.bounds) is not Bounds:
            return self.bounds(children)
        inside = {name: self.bounds.repaired(name, x, overwrite=True) for name, x in children.genes.items()}
        return Population._made(inside, children.batch_ndim, children.traits)  # of our own making, seen by nobody yet

    def tell(self, state: GAState, asked: Population) -> GAState:
        """Survivors of parents and children; the best so far is kept apart."""
        return GAState(self.survive(state.parents, asked), better(asked, state.best))

    def best(self, state: GAState) -> Population:
        """The best candidate ever assessed."""
        return state.best

    def refresh(self, state: GAState, assess: Assessor) -> GAState:
        """Parents and best assessed again; under another objective a parent may be the best."""
        fresh = super().refresh(state, assess)
        return GAState(fresh.parents, better(fresh.parents, fresh.best))

    def _crossed(self, a: Population, b: Population, noise: Noise) -> Population:
        if self.crossover is not None:
            return crossover_of(self.crossover)(a, b, noise)
        real, discrete = Blend(0.6), UniformCrossover(0.5)
        genes = {
            name: (real if x.is_floating_point() else discrete).cross(name, x, b[name], a.batch_ndim, noise)
            for name, x in a.genes.items()
        }
        return Population._made(genes, a.batch_ndim, a.traits)

    def _changed(self, children: Population, noise: Noise) -> Population:
        """Children, some of them duplicates, mutated once more."""
        if self.mutate is None:
            return one_gene_changed(children, self.bounds, noise)
        mutated = mutation_of(self.mutate)(children, noise)
        return mutated if self.bounds is None else self.bounds(mutated)

    def _mutated(self, children: Population, noise: Noise, alone: bool) -> Population:
        """``alone``: whether they are children of a single parent."""
        if self.mutate is not None:
            return mutation_of(self.mutate)(children, noise)
        if not alone and all(x.is_floating_point() for x in children.genes.values()):
            return children
        n = children.batch_ndim
        genes = {}
        for name, x in children.genes.items():
            if not x.is_floating_point():
                genes[name] = discrete_mutation(name, x, n, self.bounds).mutate(name, x, n, noise)
            elif alone:
                genes[name] = jitter(
                    x, draws.normal(*shapes(x, n), x, noise), step_size(self.std, self.bounds, name, x)
                )
            else:
                genes[name] = x
        return children.with_genes(genes)
