"""`Assessment`: how good every candidate is, with its direction, the policy for NaN, and the order of infeasible ones.

K. Deb, An efficient constraint handling method for genetic algorithms, 2000.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from tansaku import checks
from tansaku.showing import shown


@dataclass(frozen=True)
class Assessment:
    """The objective's values for a population, in the user's sign, and what else the objective returned.

    Algorithms rank candidates by `cost`, which is always lower-is-better and never NaN, and which takes the violations
    into account. `value` stays what the objective returned, for infeasible candidates too.

    Args:
        value: [k, *batch_shape], or [k, *batch_shape, m] for m objectives; integers and booleans become floats.
        maximize: whether higher values are better.
        cases: [k, *batch_shape, c] one cost per case or sample; `value` is their explicit reduction.
        violation: [k, *batch_shape, v], one amount per constraint, or [k, *batch_shape]. A candidate is infeasible if
            any amount is above 0 or NaN; 0 and below is satisfied. The amounts of a candidate are added, so bring
            them to one scale. A population that is assessed stores [k, *batch_shape, v].
        descriptor: [k, *batch_shape, d] behaviour.
        ranking: [k, *batch_shape], or [k, *batch_shape, m]: the costs by which to rank, in place of Deb's order; see
            `Penalty`.

    Raises:
        TypeError: a field is no tensor, or complex.

    Example:
        >>> utility = Assessment(torch.tensor([1.0, float("nan"), 3.0]), maximize=True)
        >>> utility.cost
        tensor([-1., inf, -3.])
    """

    value: Tensor
    maximize: bool = False
    cases: Tensor | None = None
    violation: Tensor | None = None
    descriptor: Tensor | None = None
    ranking: Tensor | None = None

    def __post_init__(self) -> None:
        for name in _TENSORS:
            tensor = getattr(self, name)
            if tensor is None and name != "value":
                continue
            if not isinstance(tensor, Tensor):
                raise TypeError(f"expected {name} to be a tensor, got {type(tensor).__name__}; use torch.as_tensor")
            if tensor.is_complex():
                raise TypeError(f"expected {name} to be real, got {tensor.dtype}; return its real part or modulus")
        if not self.value.is_floating_point():
            object.__setattr__(self, "value", self.value.to(torch.get_default_dtype()))

    def __repr__(self) -> str:
        tensors = ", ".join(f"{name}={shown(x)}" for name, x in self._present())
        return f"Assessment({tensors}, maximize={self.maximize})"

    @property
    def k(self) -> int:
        """The number of candidates."""
        return self.value.shape[0]

    @property
    def cost(self) -> Tensor:
        """The cost by which candidates are ranked: lower is better, NaN is +inf. The shape of `value`.

        Without violations it is `value` in the sign of a cost. With violations it follows Deb's order, in float64 (see
        `debs_order`), or is `ranking` where there is one.
        """
        if torch.compiler.is_dynamo_compiling():
            return self._ranked()
        known: Tensor | None = self.__dict__.get("_cost")  # asked for several times a generation
        if known is None:
            known = self.__dict__["_cost"] = self._ranked()
        return known

    def _ranked(self) -> Tensor:
        if self.ranking is not None:
            return cost_of(self.ranking, False)
        if self.violation is None:
            return cost_of(self.value, self.maximize)
        total = self._total_like_value()
        return debs_order(cost_of(self.value, self.maximize).double(), total.double())

    @property
    def objective_cost(self) -> Tensor:
        """`value` as lower-is-better with NaN as +inf, whatever the violations. The shape of `value`."""
        return self.cost if self._plain else cost_of(self.value, self.maximize)

    @property
    def feasible_cost(self) -> Tensor:
        """`objective_cost` of feasible candidates and +inf of infeasible ones; `cost` where there is a `ranking`.

        For algorithms that subtract costs of two generations. The differences have the objective's unit.
        """
        if self.violation is None or self.ranking is not None:
            return self.cost
        return torch.where(self._total_like_value() > 0, float("inf"), self.objective_cost)

    @property
    def scaled_cost(self) -> Tensor:
        """`cost` in the order of `cost` but in the objective's unit, for algorithms that average costs.

        An infeasible candidate costs its total violation more than the worst feasible candidate of its search (Deb
        2000, equation 4). The numbers of two populations cannot be compared.
        """
        if self.violation is None or self.ranking is not None:
            return self.cost
        own, total = self.objective_cost, self._total_like_value()
        counted = torch.isfinite(own) & (total <= 0)
        worst = torch.where(counted, own, -float("inf")).amax(0, keepdim=True)
        worst = torch.where(counted.any(0, keepdim=True), worst, 0.0)
        return torch.where(total > 0, worst + total, own)

    @property
    def total_violation(self) -> Tensor | None:
        """[k, *batch_shape] the sum of the amounts above 0, +inf for NaN; 0 is feasible. None without violations.

        The violation must be [k, *batch_shape, v], as a population stores it.
        """
        return None if self.violation is None else positive_part(self.violation, self.value.dtype).sum(-1)

    def _total_like_value(self) -> Tensor:
        """The total violation in the number of dimensions of `value`.

        Several objectives have [k, *batch_shape, m] values, so that their violation [k, *batch_shape, v] has as many
        dimensions.
        """
        if self.violation is None:
            return torch.zeros_like(self.value)
        amount = positive_part(self.violation, self.value.dtype)
        if amount.ndim < self.value.ndim:
            return amount.unsqueeze(-1).expand_as(self.value)
        if amount.ndim > self.value.ndim:
            return amount.sum(-1)
        return amount if amount.ndim == 1 else amount.sum(-1, keepdim=True).expand_as(self.value)

    def per_constraint(self, lead: int) -> Assessment:
        """The same with the violation as [k, *batch_shape, v]; ``lead`` is the number of dimensions before v."""
        if self.violation is None or self.violation.ndim != lead:
            return self
        return replace(self, violation=self.violation.unsqueeze(-1))

    def copied(self, dtype: torch.dtype | None = None) -> Assessment:
        """The same in memory of its own and without a graph; the value as ``dtype`` if one is named."""
        value = (self.value.detach() if self.value.requires_grad else self.value).clone()
        copies = {"value": value if dtype is None or value.dtype == dtype else value.to(dtype)}
        if not self._plain:
            rest = ((name, x.detach() if x.requires_grad else x) for name, x in self._present() if name != "value")
            copies.update({name: x.clone() for name, x in rest})
        return Assessment._made(self.maximize, copies)

    @property
    def _plain(self) -> bool:
        """Whether there is a value and nothing else."""
        return self.cases is None and self.violation is None and self.descriptor is None and self.ranking is None

    def take(self, index: Tensor, rows: Callable[[Tensor, Tensor], Tensor]) -> Assessment:
        """The assessment of the candidates at ``index``, gathered by ``rows(tensor, index)``."""
        return self._map(lambda x: rows(x, index))

    def _map(self, change: Callable[[Tensor], Tensor]) -> Assessment:
        return Assessment._made(self.maximize, {name: change(x) for name, x in self._present()})

    @classmethod
    def _made(cls, maximize: bool, tensors: dict[str, Tensor]) -> Assessment:
        """An assessment of tensors that came out of another one: nothing to check."""
        if torch.compiler.is_dynamo_compiling():
            return cls(maximize=maximize, **tensors)
        made = object.__new__(cls)
        made.__dict__.update(tensors, maximize=maximize)  # what is not there is None, the class's default
        return made

    def zip(self, other: Assessment, join: Callable[[Tensor, Tensor], Tensor]) -> Assessment:
        """Both assessments joined field by field, by ``join(mine, theirs)``.

        Raises:
            ValueError: the two differ in direction, in the fields they hold, or in the number of objectives.
        """
        if self.maximize != other.maximize:
            raise ValueError(
                f"expected two assessments of one direction, got maximize={self.maximize} and {other.maximize}; "
                "negate the values of one"
            )
        mine, theirs = self.value.shape, other.value.shape
        if mine != theirs and mine[1:] != theirs[1:]:
            raise ValueError(
                f"expected two assessments of as many searches and objectives, got values of shape "
                f"{checks.shape_text(mine)} and {checks.shape_text(theirs)}; assess both alike"
            )
        if self._plain and other._plain:
            both = Assessment._made(self.maximize, {"value": join(self.value, other.value)})
            if not torch.compiler.is_dynamo_compiling() and "_cost" in self.__dict__ and "_cost" in other.__dict__:
                both.__dict__["_cost"] = join(self.cost, other.cost)  # in place of looking for NaN again
            return both
        own, others = ([name for name, _ in assessment._present()] for assessment in (self, other))
        if own != others:
            raise ValueError(
                f"expected two assessments with the same fields, got {own} and {others}; assess both alike"
            )
        return Assessment._made(self.maximize, {name: join(x, getattr(other, name)) for name, x in self._present()})

    def _present(self) -> list[tuple[str, Tensor]]:
        return [(name, x) for name in _TENSORS if (x := getattr(self, name)) is not None]


_TENSORS = tuple(field.name for field in fields(Assessment) if field.name != "maximize")


_WORST = torch.tensor(float("inf"))


def cost_of(value: Tensor, maximize: bool) -> Tensor:
    """``value`` as a cost: lower is better, NaN is +inf, infinities keep their meaning. The same shape."""
    return torch.fmin(-value if maximize else value, _WORST)  # of NaN and a number, the number


def positive_part(violation: Tensor, dtype: torch.dtype) -> Tensor:
    """Amounts of violation as ``dtype``: 0 where satisfied, +inf for NaN. The same shape."""
    amount = violation.to(torch.promote_types(dtype, violation.dtype))
    return torch.where(torch.isnan(amount), float("inf"), amount.clamp(min=0))


def debs_order(cost: Tensor, violation: Tensor) -> Tensor:
    """One number per candidate whose order is Deb's: by cost if feasible, then the infeasible ones by violation.

    With max the largest number of the dtype, an infeasible candidate gets max ** 0.89 * violation ** 0.1. That is more
    than any feasible one gets, as finite costs are clamped to max ** 0.78. The number does not depend on the other
    candidates, so that candidates of two generations can be compared. A feasible candidate whose cost is +inf (a
    failed evaluation) comes last.

    Args:
        cost: without NaN.
        violation: the total violation, >= 0, of the same shape.
    """
    finfo = torch.finfo(cost.dtype)
    amount = violation.nan_to_num(posinf=finfo.max).clamp(1 / finfo.max, finfo.max)
    feasible = torch.where(torch.isfinite(cost), cost.clamp(max=finfo.max**0.78), cost)
    return torch.where(violation > 0, finfo.max**0.89 * amount**0.1, feasible)


def check_assessment(assessment: Assessment, k: int, batch_shape: torch.Size, device: torch.device) -> None:
    """The assessment belongs to a population of ``k`` candidates and ``batch_shape`` on ``device``.

    Raises:
        ValueError: a field of another shape or on another device.
    """
    lead = (k, *batch_shape)
    if assessment._plain and assessment.value.shape == lead and assessment.value.device.type == device.type:
        return  # what nearly every generation brings
    for name, tensor in assessment._present():
        extra = 0 if name in ("value", "violation", "ranking") else 1
        fits = tensor.shape[: len(lead)] == lead and len(lead) + extra <= tensor.ndim <= len(lead) + 1
        if not fits:
            trailing = "" if name in ("value", "ranking") else f", {name[0]}"
            raise ValueError(
                f"expected {name} with shape [k, *batch_shape{trailing}] = {checks.shape_text(lead)[:-1]}{trailing}], "
                f"got {checks.shape_text(tensor.shape)}; return one {name} per candidate and search"
            )
        if tensor.device.type != device.type:
            raise ValueError(
                f"expected {name} on {device} like the genes, got {tensor.device}; return it with .to(genes.device)"
            )
