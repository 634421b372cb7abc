"""The constrained problem of the conformance suite, and Deb's order of all candidates that were seen.

K. Deb, An efficient constraint handling method for genetic algorithms, 2000, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tansaku.algorithms import Algorithm
from tansaku.assessment import Assessment, cost_of
from tansaku.population import Population
from tansaku.testing.claims import require
from tansaku.testing.problems import Problem
from tansaku.testing.subject import Subject, run


@dataclass(frozen=True)
class AtLeast:
    """A problem whose candidates of a cost below ``limit`` are infeasible, so that the objective leads out of bounds.

    Args:
        problem: which has the genes and the values.
        limit: of the cost, of the first objective.
        flat: whether the violation has no last dimension.
    """

    problem: Problem
    limit: float
    flat: bool = False

    def assess(self, population: Population) -> Population:
        """The same candidates with their values and violations."""
        assessed = self.problem.assess(population)
        own = _assessment(assessed)
        violation = self.limit - _first_cost(own, population.batch_ndim)
        return assessed.assessed(replace(own, violation=violation if self.flat else violation.unsqueeze(-1)))


@dataclass(frozen=True)
class OnlyViolations:
    """A problem whose cost is returned as a violation above 0, beside a value that says nothing.

    Args:
        problem: which has the genes and the cost.
    """

    problem: Problem

    def assess(self, population: Population) -> Population:
        """The same candidates with equal values and different violations."""
        assessed = self.problem.assess(population)
        own = _assessment(assessed)
        violation = 1 + _first_cost(own, population.batch_ndim).unsqueeze(-1)
        return assessed.assessed(replace(own, value=torch.zeros_like(own.value), violation=violation))


def obeys_debs_order(subject: Subject, algorithm: Algorithm[Any], posed: AtLeast, start: Population, what: str) -> None:
    """In every generation the best is the first in Deb's order of all candidates so far.

    Raises:
        AssertionError: it is not.
    """
    total = cost = None
    lead = start.batch_ndim
    for generation, (state, asked) in enumerate(run(algorithm, posed.assess, start, subject.noise(), 15)):
        seen = first_in_order(asked)
        total, cost = seen if total is None or cost is None else _earlier((total, cost), seen)
        best = algorithm.best(state)
        found, _ = first_in_order(best)
        where = f"{what}, generation {generation}"
        violation = total_violation(best)
        worst = violation.amax(0)
        require(
            torch.equal(worst, total) and torch.equal(found, total),
            f"{where}: best() violates by {worst.tolist()}, the least violated so far by {total.tolist()}",
        )
        if posed.problem.objectives == 1:
            value = _first_cost(_assessment(best), lead)[0]
            same = (value == cost) | (total > 0)  # of two that violate equally, either is first
            require(same.all(), f"{where}: best() costs {value.tolist()}, the first in order {cost.tolist()}")


def first_in_order(population: Population) -> tuple[Tensor, Tensor]:
    """[*batch_shape] the least total violation, and the lowest first cost of the candidates that have it."""
    total = total_violation(population)
    cost = _first_cost(_assessment(population), population.batch_ndim)
    least = total.amin(0)
    return least, torch.where(total == least, cost, float("inf")).amin(0)


def total_violation(population: Population) -> Tensor:
    """[k, *batch_shape] computed from the violations alone."""
    violation = _assessment(population).violation
    if violation is None:
        raise AssertionError("expected best() to keep its violation, got none")
    return torch.where(torch.isnan(violation), float("inf"), violation.clamp(min=0)).sum(-1)


def _earlier(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    first = (b[0] < a[0]) | ((b[0] == a[0]) & (b[1] < a[1]))
    return torch.where(first, b[0], a[0]), torch.where(first, b[1], a[1])


def _first_cost(assessment: Assessment, batch_ndim: int) -> Tensor:
    cost = cost_of(assessment.value, assessment.maximize)
    return cost if cost.ndim == 1 + batch_ndim else cost[..., 0]


def _assessment(population: Population) -> Assessment:
    if population.assessment is None:
        raise AssertionError("expected an assessed population, got one without an assessment")
    return population.assessment
