"""Survival: who lives on. Each operator is ``(parents, children) -> survivors``, deterministic, search by search."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from tansaku import checks
from tansaku.functional import lowest, put_rows
from tansaku.population import Population

_DISTANCES = 1 << 24  # held in memory at once


@dataclass(frozen=True)
class Plus:
    """(mu + lambda): the best of parents and children together, as many as there were parents.

    Args:
        keep: how many survive; as many as parents if not given.

    Reference: H.-G. Beyer and H.-P. Schwefel, Evolution strategies: a comprehensive introduction, 2002.
    """

    keep: int | None = None

    def __post_init__(self) -> None:
        if self.keep is not None:
            checks.count("keep", self.keep)

    def __call__(self, parents: Population, children: Population) -> Population:
        """The survivors, best first; at equal cost parents before children."""
        both = parents.cat(children)
        return both.take(both.scalar_cost.argsort(dim=0, stable=True)[: self.keep or parents.k])


@dataclass(frozen=True)
class Comma:
    """(mu, lambda) with elitism: the children, the worst of which give way to the best parents.

    Args:
        elites: how many of the best parents may stay; each replaces a child only if it is not worse than that child.

    Reference: K. A. De Jong, An Analysis of the Behavior of a Class of Genetic Adaptive Systems, 1975 (elitism).
    """

    elites: int = 1

    def __post_init__(self) -> None:
        checks.count("elites", self.elites, 0)

    def __call__(self, parents: Population, children: Population) -> Population:
        """As many survivors as children, in the children's places."""
        elites = min(self.elites, parents.k, children.k)
        if elites == 0:
            return children
        best = parents.take(_first(parents.scalar_cost, elites, largest=False))
        place = _first(children.scalar_cost, elites, largest=True)
        worst = children.take(place)
        kept = best.where(best.scalar_cost <= worst.scalar_cost, worst)
        assessment = children.assessment
        if kept.assessment is None or assessment is None:
            raise RuntimeError("expected assessed parents and children, got one without an assessment; assess it first")
        return Population._made(
            {name: put_rows(x, place, kept[name]) for name, x in children.genes.items()},
            children.batch_ndim,
            {name: put_rows(x, place, kept.traits[name]) for name, x in children.traits.items()},
            assessment.zip(kept.assessment, lambda x, rows: put_rows(x, place, rows)),
        )


def _first(cost: torch.Tensor, count: int, largest: bool) -> torch.Tensor:
    """[count, *batch_shape] indices of the lowest (or largest) costs, ties by the lower index."""
    if count == 1:
        return lowest(-cost if largest else cost)
    return cost.argsort(dim=0, descending=largest, stable=True)[:count]


@dataclass(frozen=True)
class Greedy:
    """One to one: a child takes its own parent's place if it is not worse (or, ``strict``, only if it is better).

    Args:
        strict: whether a tie keeps the parent.
    """

    strict: bool = False

    def __call__(self, parents: Population, children: Population) -> Population:
        """As many survivors as parents, in the same places.

        Raises:
            ValueError: children of another number than parents.
        """
        if parents.k != children.k:
            raise ValueError(f"expected as many children as parents, {parents.k}, got {children.k}; pair them")
        before, after = parents.scalar_cost, children.scalar_cost
        better = after < before if self.strict else after <= before
        return children.where(better, parents)


@dataclass(frozen=True)
class Age:
    """(mu, kappa, lambda): nobody lives for more than ``max_age`` generations, however good; the best of the rest live.

    A trait ``lived`` counts the generations that a candidate has survived; children begin at 0. Where too few are
    young enough, the best of the old fill the places that are left.

    Args:
        max_age: kappa >= 1; 1 is the comma strategy (without elites), infinity the plus strategy.
        keep: how many survive; as many as parents if not given.

    Reference: H.-P. Schwefel and G. Rudolph, Contemporary Evolution Strategies, 1995.
    """

    max_age: int = 5
    keep: int | None = None

    def __post_init__(self) -> None:
        checks.count("max_age", self.max_age)
        if self.keep is not None:
            checks.count("keep", self.keep)

    def __call__(self, parents: Population, children: Population) -> Population:
        """The survivors, best first among the young; at equal cost parents before children."""
        none = torch.zeros((parents.k, *parents.batch_shape), dtype=torch.int64, device=parents.device)
        born = torch.zeros((children.k, *none.shape[1:]), dtype=torch.int64, device=parents.device)
        lived = parents.traits.get("lived", none) + 1
        both = parents.with_traits(lived=lived).cat(children.with_traits(lived=born))
        order = both.scalar_cost.argsort(dim=0, stable=True)
        old = (both.traits["lived"] >= self.max_age).to(torch.uint8).gather(0, order)
        return both.take(order.gather(0, old.argsort(dim=0, stable=True))[: self.keep or parents.k])


@dataclass(frozen=True)
class Crowding:
    """Each child competes with the parent most like it and takes its place only if it is better.

    So a population keeps several optima. Of the children that fall to one parent, the best competes. Likeness is the
    Euclidean distance over the genes of all names, booleans as 0 and 1, every gene in units of its range among the
    parents. This is restricted tournament replacement with the whole population for a window, which draws nothing;
    deterministic crowding, where a child meets the parent that it comes from, is `Greedy`.

    Reference: G. Harik, Finding Multimodal Solutions Using Restricted Tournament Selection, 1995; S. W. Mahfoud,
    Niching Methods for Genetic Algorithms, 1995 (deterministic crowding).
    """

    def __call__(self, parents: Population, children: Population) -> Population:
        """As many survivors as parents, in the parents' places."""
        nearest = self._nearest(parents, children)
        before, cost = parents.scalar_cost, children.scalar_cost
        lowest = torch.full_like(before, float("inf")).scatter_reduce(0, nearest, cost, "amin")
        number = torch.arange(children.k, device=cost.device).view(-1, *(1,) * (cost.ndim - 1)).expand_as(cost)
        is_best = cost == lowest.gather(0, nearest)
        number = torch.where(is_best, number, children.k)  # a tie goes to the lower index
        rival = torch.full_like(before, children.k, dtype=torch.int64).scatter_reduce(0, nearest, number, "amin")
        rivals = children.take(rival.clamp(max=children.k - 1))
        return rivals.where((rival < children.k) & (rivals.scalar_cost < before), parents)

    def _nearest(self, parents: Population, children: Population) -> torch.Tensor:
        """[children, *batch_shape] indices of the nearest parents; ties by the lower index."""
        searches = max(1, math.prod(parents.batch_shape))
        block = max(1, _DISTANCES // (parents.k * searches))
        there = _as_rows(parents)
        span = there.amax(-2, keepdim=True) - there.amin(-2, keepdim=True)
        unit = torch.where(span > 0, span, torch.ones_like(span))  # a gene that all parents share tells none apart
        rows, there = _as_rows(children) / unit, there / unit
        return torch.cat(
            [
                torch.cdist(here, there, compute_mode="donot_use_mm_for_euclid_dist").argmin(-1).movedim(-1, 0)
                for here in rows.split(block, -2)
            ]
        )


def _as_rows(population: Population) -> torch.Tensor:
    """[*batch_shape, k, n] all genes as real numbers."""
    rows = []
    for name in sorted(population.genes):
        x = population[name].flatten(1 + population.batch_ndim) if population.event_shape(name) else population[name]
        x = x if population.event_shape(name) else x.unsqueeze(-1)
        rows.append(x.to(torch.promote_types(x.dtype, torch.float32)))
    return torch.cat(rows, -1).movedim(0, -2)
