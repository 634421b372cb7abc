"""`Assessment`: how good every candidate is, with its direction, and the one policy for NaN."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from tansaku import checks
from tansaku.showing import shown


@dataclass(frozen=True)
class Assessment:
    """What a user's function said of a population, in the user's own sign.

    Algorithms read `cost`, which is always lower-is-better and never NaN. Everything else is kept for those who
    need it: `cases` for rules that look at single samples, `violation` for constraints, `descriptor` for
    quality-diversity.

    Args:
        value: [k, *batch_shape], or [k, *batch_shape, m] for m objectives; integers and booleans become floats.
        maximize: whether higher values are better.
        cases: [k, *batch_shape, c] one cost per case or sample; `value` is their explicit reduction.
        violation: [k, *batch_shape, v] where > 0 is violated.
        descriptor: [k, *batch_shape, d] behaviour.

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
        """`value` as lower-is-better, with NaN as the worst possible: +inf. The same shape."""
        if torch.compiler.is_dynamo_compiling():
            return cost_of(self.value, self.maximize)
        known: Tensor | None = self.__dict__.get("_cost")  # asked for several times a generation
        if known is None:
            known = self.__dict__["_cost"] = cost_of(self.value, self.maximize)
        return known

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
        return self.cases is None and self.violation is None and self.descriptor is None

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


def check_assessment(assessment: Assessment, k: int, batch_shape: torch.Size, device: torch.device) -> None:
    """The assessment belongs to a population of ``k`` candidates and ``batch_shape`` on ``device``.

    Raises:
        ValueError: a field of another shape or on another device.
    """
    lead = (k, *batch_shape)
    if assessment._plain and assessment.value.shape == lead and assessment.value.device.type == device.type:
        return  # what nearly every generation brings
    for name, tensor in assessment._present():
        extra = 0 if name == "value" else 1
        fits = tensor.shape[: len(lead)] == lead and len(lead) + extra <= tensor.ndim <= len(lead) + 1
        if not fits:
            trailing = "" if name == "value" else f", {name[0]}"
            raise ValueError(
                f"expected {name} with shape [k, *batch_shape{trailing}] = {checks.shape_text(lead)[:-1]}{trailing}], "
                f"got {checks.shape_text(tensor.shape)}; return one {name} per candidate and search"
            )
        if tensor.device.type != device.type:
            raise ValueError(
                f"expected {name} on {device} like the genes, got {tensor.device}; return it with .to(genes.device)"
            )
