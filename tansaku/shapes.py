"""Finds functions of one candidate that were given as functions of all candidates, by the shapes of their answers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Size, Tensor

from tansaku import checks

REMEDY = "set vectorized='vmap' (or False) if fn takes one candidate"
_MESSAGES = re.compile(
    r"out of (bounds|range)|size of tensor|sizes? .*(match|compatible)|must match|shapes?\b|dimension|broadcast|mat1|"
    r"values to unpack|ambiguous|one element|single element|length-1|0-dim|Scalar|size-1|selected index|view size|"
    r"too many indices|inconsistent tensor|1D tensors|elements cannot be converted",
    re.IGNORECASE,
)
_KINDS = (RuntimeError, ValueError, TypeError)


class ShapeError(ValueError, IndexError, RuntimeError, TypeError):
    """A function raised an error about indices or shapes, which is the cause of this one.

    It belongs to all kinds of errors that it replaces, for callers that handle what their own function raises.
    """


def is_about_shapes(error: Exception) -> bool:
    """Whether an error may come from a tensor with other dimensions than a function expects."""
    return isinstance(error, IndexError) or (type(error) in _KINDS and _MESSAGES.search(str(error)) is not None)


def shape_error(error: Exception, genes: Mapping[str, Tensor], remedy: str = REMEDY) -> ShapeError:
    """An error that names the shapes that were passed and how to pass single candidates."""
    shapes = ", ".join(f"{name}: {checks.shape_text(x.shape)}" for name, x in genes.items())
    return ShapeError(
        f"expected fn to take all candidates at once, {shapes}, got {type(error).__name__}: {error}; {remedy}",
    )


def ambiguous(genes: Mapping[str, Tensor], batch_ndim: int, value: Size) -> bool:
    """Whether a function of one candidate could have returned the shape ``value`` for all of them.

    Such a function takes the first dimension, of size k, for one of its own. It then returns other dimensions of the
    genes than a function of all candidates. The shapes do not show this where one of them has size k, or where the
    last dimension of several objectives has the size of a dimension of the genes.

    Args:
        genes: name -> [k, *batch_shape, *event_shape], what the function was given.
        batch_ndim: the number of batch dimensions.
        value: [k, *batch_shape] or [k, *batch_shape, m].
    """
    sizes = _sizes(genes.values())
    return value[0] in sizes or (len(value) > 1 + batch_ndim and value[-1] in sizes)


def _sizes(genes: Iterable[Tensor]) -> set[int]:
    return {size for x in genes for size in x.shape[1:]}


def check_lead(value: Tensor, lead: Size) -> None:
    """The value starts with the dimensions [k, *batch_shape] of the candidates.

    Raises:
        ValueError: it does not; the function may take one candidate.
    """
    if value.shape[: len(lead)] != lead:
        raise ValueError(
            f"expected value with shape [k, *batch_shape] = {checks.shape_text(lead)}, "
            f"got {checks.shape_text(value.shape)}; return one value per candidate and search, or {REMEDY}"
        )


def check_single(name: str, field: Tensor | None, of_all: Tensor) -> None:
    """A field of one candidate's answer has the shape of the field of all candidates, but for k = 1.

    Args:
        name: of the field, such as ``"value"`` or ``"violation"``.
        field: for one candidate; None where the answer lacks it.
        of_all: for all candidates.

    Raises:
        ValueError: it does not; the function takes one candidate.
    """
    expected = Size((1, *of_all.shape[1:]))
    if field is None or field.shape != expected:
        got = "none" if field is None else checks.shape_text(field.shape)
        raise ValueError(
            f"expected {name} with shape {checks.shape_text(expected)} for one candidate alone, "
            f"got {got}; return one {name} per candidate and search, or {REMEDY}"
        )
