"""Survival: who lives on. Each operator is ``(parents, children) -> survivors``, deterministic, search by search."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tansaku import checks
from tansaku.functional import put_rows
from tansaku.population import Population


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
        return both.take(both.cost.argsort(dim=0, stable=True)[: self.keep or parents.k])


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
        best = parents.take(_first(parents.cost, elites, largest=False))
        place = _first(children.cost, elites, largest=True)
        worst = children.take(place)
        kept = best.where(best.cost <= worst.cost, worst)
        assessment = children.assessment
        if kept.assessment is None or assessment is None:
            raise RuntimeError("expected assessed parents and children, got one without an assessment; assess it first")
        return Population(
            {name: put_rows(x, place, kept[name]) for name, x in children.genes.items()},
            children.batch_ndim,
            {name: put_rows(x, place, kept.traits[name]) for name, x in children.traits.items()},
            assessment.zip(kept.assessment, lambda x, rows: put_rows(x, place, rows)),
        )


def _first(cost: torch.Tensor, count: int, largest: bool) -> torch.Tensor:
    """[count, *batch_shape] indices of the lowest (or largest) costs, ties by the lower index."""
    if count == 1:
        return (cost.argmax(0, keepdim=True)) if largest else cost.argmin(0, keepdim=True)
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
        better = children.cost < parents.cost if self.strict else children.cost <= parents.cost
        return children.where(better, parents)
