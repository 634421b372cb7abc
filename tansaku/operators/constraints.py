"""Constraints: what a candidate must satisfy, and how violations change the ranking of candidates.

K. Deb, An efficient constraint handling method for genetic algorithms, 2000 (the feasibility rules);
J. T. Richardson et al., Some Guidelines for Genetic Algorithms with Penalty Functions, 1989 (penalties).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Size, Tensor

from tansaku import checks, shapes
from tansaku.assessment import debs_order, positive_part
from tansaku.guard import Guard
from tansaku.population import Population
from tansaku.randomness import restored

Quantity = str | Callable[[Any], Any]
_REMEDY = "let the function of the constraint take all candidates, such as lambda x: x[..., 0]"


@dataclass(frozen=True)
class Constraint(ABC):
    """A quantity and the limit that it must keep; subclasses say on which side.

    Args:
        quantity: a name, for all genes of that name; or a function of the genes of all candidates (a tensor where
            there is one name, else a dictionary), which returns [k, *batch_shape], or [k, *batch_shape, v] for v
            quantities with the same limit, as a tensor or a numpy array. It receives copies of the genes and must not
            write into them; see `Objective`.
        limit: a number, or a tensor that broadcasts against the quantity.

    Raises:
        TypeError: a quantity that is neither.
    """

    quantity: Quantity
    limit: float | Tensor
    _guard: Guard = field(default_factory=Guard, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.quantity, str) and not callable(self.quantity):
            raise TypeError(
                f"expected quantity as a name or a function of the genes, got {type(self.quantity).__name__}; "
                "pass e.g. lambda x: x.sum(-1)"
            )
        if not isinstance(self.limit, Tensor):
            checks.number("limit", self.limit)

    @abstractmethod
    def _excess(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """How far ``value`` is beyond the limit, and whether it violates it."""

    def violation(self, population: Population) -> Tensor:
        """[k, *batch_shape, v] how far beyond the limit, 0 where it is kept; NaN violates by +inf.

        Raises:
            TypeError, ValueError: a quantity that is no tensor, or of a wrong shape, or a function that seems to take
                one candidate.
            RuntimeError: a function that changed its argument.
        """
        value = self._value(population)
        amount, violated = self._excess(value)
        least = torch.finfo(amount.dtype).tiny  # at the limit itself a strict inequality is violated by nothing
        amount = torch.where(violated, amount.clamp(min=least), torch.zeros_like(amount))
        return torch.where(torch.isnan(value), torch.full_like(amount, float("inf")), amount)

    def violated(self, population: Population) -> Tensor:
        """[k, *batch_shape] True where the constraint is *violated*."""
        return (self.violation(population) > 0).any(-1)

    def _value(self, population: Population) -> Tensor:
        lead = (population.k, *population.batch_shape)
        if isinstance(self.quantity, str):
            if self.quantity not in population.genes:
                raise ValueError(
                    f"expected a quantity among {sorted(population.genes)}, got {self.quantity!r}; name genes"
                )
            value: Any = population[self.quantity].reshape(*lead, -1)
        else:
            value = self._called(population.genes)
            self._check_takes_all(population, value)
        if value.shape[: len(lead)] != lead or value.ndim > len(lead) + 1:
            raise ValueError(
                f"expected a quantity of shape [k, *batch_shape] = {checks.shape_text(lead)}, or one dimension more, "
                f"got {checks.shape_text(value.shape)}; return one per candidate and search"
            )
        value = value if value.ndim > len(lead) else value.unsqueeze(-1)
        return value if value.is_floating_point() else value.to(torch.get_default_dtype())

    def _check_takes_all(self, population: Population, value: Tensor) -> None:
        """Makes sure that the answer has one entry per candidate, as `Objective` does for its function.

        Raises:
            ValueError: the function seems to take one candidate.
        """
        if "_takes_all" in self.__dict__ or population.k == 1 or value.shape[:1] != (population.k,):
            return
        if shapes.ambiguous(population.genes, population.batch_ndim, value.shape):
            with restored():
                alone = self._called({name: x[:1].clone() for name, x in population.genes.items()})
            expected = Size((1, *value.shape[1:]))
            if alone.shape != expected:
                raise ValueError(
                    f"expected a quantity of shape {checks.shape_text(expected)} for one candidate alone, "
                    f"got {checks.shape_text(alone.shape)}; {_REMEDY}"
                )
        self.__dict__["_takes_all"] = True

    def _called(self, genes: Mapping[str, Tensor]) -> Tensor:
        """What the function returns for copies of the genes.

        Raises:
            TypeError: no tensor and no array of numbers.
            ShapeError: the function raised an error about shapes.
            RuntimeError: the function changed its argument.
        """
        copies = self._guard.copies(genes)
        given: Any = dict(copies) if len(copies) > 1 else next(iter(copies.values()))
        quantity: Any = self.quantity
        try:
            value = quantity(given)
        except Exception as error:
            if shapes.is_about_shapes(error):
                raise shapes.shape_error(error, genes, _REMEDY) from error
            raise
        del given  # the guard looks for references to the copies
        if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biuf":
            value = torch.from_numpy(np.array(value, order="C")).to(next(iter(genes.values())).device)
        if not isinstance(value, Tensor):
            raise TypeError(
                f"expected the quantity as a tensor or a numpy array, got {type(value).__name__}; return a tensor"
            )
        value = value.clone() if value._is_view() else value
        if self._guard.changed(copies, genes):
            raise RuntimeError(
                "expected the function of a constraint to leave its argument as it is, got it changed in place; "
                "work on a copy, x.clone()"
            )
        return value


@dataclass(frozen=True)
class LT(Constraint):
    """The quantity must be less than the limit.

    >>> LT("x", 2.0).violated(Population({"x": torch.tensor([1.0, 2.0, 3.0])}))
    tensor([False,  True,  True])
    """

    def _excess(self, value: Tensor) -> tuple[Tensor, Tensor]:
        return value - self.limit, value >= self.limit


@dataclass(frozen=True)
class LTE(Constraint):
    """The quantity must be at most the limit."""

    def _excess(self, value: Tensor) -> tuple[Tensor, Tensor]:
        return value - self.limit, value > self.limit


@dataclass(frozen=True)
class GT(Constraint):
    """The quantity must be greater than the limit."""

    def _excess(self, value: Tensor) -> tuple[Tensor, Tensor]:
        return self.limit - value, value <= self.limit


@dataclass(frozen=True)
class GTE(Constraint):
    """The quantity must be at least the limit."""

    def _excess(self, value: Tensor) -> tuple[Tensor, Tensor]:
        return self.limit - value, value < self.limit


@dataclass(frozen=True)
class EQ(Constraint):
    """The quantity must equal the limit to within ``tolerance``.

    Args:
        tolerance: how far off still counts as equal; the convention of the CEC 2006 benchmark if not given.
    """

    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("tolerance", self.tolerance, 0.0)

    def _excess(self, value: Tensor) -> tuple[Tensor, Tensor]:
        beyond = (value - self.limit).abs() - self.tolerance
        return beyond, beyond > 0


class Rule(Protocol):
    """How costs and violations become one cost."""

    def __call__(self, cost: Tensor, violation: Tensor) -> Tensor:
        """The cost, lower is better, from the cost and its total violation (0: feasible), of one shape."""


@dataclass(frozen=True)
class Penalty:
    """cost + weight * violation ** power, for all candidates alike. A small weight lets violations pay.

    Args:
        weight: in units of cost.
        power: of the total violation; 2 is gentle near the limit.
    """

    weight: float = 1000.0
    power: float = 1.0

    def __post_init__(self) -> None:
        checks.number("weight", self.weight, 0.0)
        checks.number("power", self.power, 0.0)

    def __call__(self, cost: Tensor, violation: Tensor) -> Tensor:
        """See `Rule`."""
        paid = self.weight * violation.to(cost.dtype) ** self.power
        return torch.where(violation > 0, cost + paid, cost)


@dataclass(frozen=True)
class Feasibility:
    """Deb's rules: feasible before infeasible; of two feasible the lower cost; of two infeasible the lower violation.

    This is how violations are ranked unless another rule is given. Deb adds the violation to the worst feasible cost
    of the population. `debs_order` gives numbers of the same order that do not depend on the population, so that the
    best so far can be kept. Algorithms that average costs use `Assessment.scaled_cost`, in the objective's unit.
    """

    def __call__(self, cost: Tensor, violation: Tensor) -> Tensor:
        """See `Rule`."""
        return debs_order(cost, violation.to(cost.dtype))


@dataclass(frozen=True)
class Constrained:
    """An assessor that adds the violations of constraints to an assessment, for every algorithm.

    The total violation of a candidate is the sum over its constraints, each in its own unit (bring them to one scale),
    and over what the objective itself returns as ``"violation"``. ``value`` stays the objective's own, and so do
    ``cases``; ``rule`` changes the cost by which candidates are ranked. An infeasible candidate's objective may be NaN
    under `Feasibility`, which does not read it.

    Args:
        assess: population -> assessed population, such as `Objective`.
        constraints: all of which must hold.
        rule: `Feasibility`, `Penalty`, or a function of the same arguments.

    Raises:
        TypeError: a constraint or a rule of another kind.

    Example:
        >>> from tansaku import Individual, Objective, PSO, Search
        >>> nearest = Constrained(Objective(lambda x: x.square().sum(-1)), [GTE(lambda x: x.sum(-1), 2.0)])
        >>> result = Search(PSO(k=20), nearest, Individual({"x": torch.zeros(2)})).run(max_generations=200)
        >>> result.best["x"].round(decimals=2)
        tensor([1., 1.])
    """

    assess: Callable[[Population], Population]
    constraints: Sequence[Constraint] = ()
    rule: Rule = field(default_factory=Feasibility)

    def __post_init__(self) -> None:
        given = [self.constraints] if isinstance(self.constraints, Constraint) else list(self.constraints)
        for constraint in given:
            if not isinstance(constraint, Constraint):
                raise TypeError(
                    f"expected constraints such as LT or EQ, got {type(constraint).__name__}; see Constraint"
                )
        object.__setattr__(self, "constraints", tuple(given))
        if isinstance(self.rule, type) or not callable(self.rule):
            got = f"the class {self.rule.__name__}" if isinstance(self.rule, type) else repr(self.rule)
            raise TypeError(f"expected rule such as Feasibility() or Penalty(100.0), got {got}; pass an instance")

    def __call__(self, population: Population) -> Population:
        """The same candidates with their assessment."""
        assessed = self.assess(population)
        own = assessed.assessment
        if own is None:
            raise ValueError("expected an assessor, got a population without an assessment; see Objective")
        with torch.no_grad():
            parts = [constraint.violation(population).to(own.value.dtype) for constraint in self.constraints]
        if own.violation is not None:
            given = own.violation.reshape(*own.violation.shape[: 1 + population.batch_ndim], -1).to(own.value.dtype)
            parts.append(positive_part(given, own.value.dtype))
        if not parts:
            return assessed
        violation = torch.cat(parts, -1)
        if isinstance(self.rule, Feasibility):
            return assessed.assessed(replace(own, violation=violation))
        total = violation.sum(-1)
        total = total if own.value.ndim == total.ndim else total.unsqueeze(-1)
        cost = own.objective_cost
        ranking = self.rule(cost, total.expand_as(cost))
        return assessed.assessed(replace(own, violation=violation, ranking=ranking))

    def violated(self, population: Population) -> Tensor:
        """[k, *batch_shape] True where any of the constraints is violated."""
        violated = torch.zeros((population.k, *population.batch_shape), dtype=torch.bool, device=population.device)
        for constraint in self.constraints:
            violated = violated | constraint.violated(population)
        return violated
