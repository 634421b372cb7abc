"""Checks of targets: labels, probabilities, weights, and targets that must be shaped as the output."""

from __future__ import annotations

import numbers
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor


def check_same_shape(name: str, y: Tensor, t: Tensor) -> None:
    """The target is shaped as the output.

    Raises:
        ValueError: it is not; nothing is broadcast.
    """
    if y.shape != t.shape:
        raise ValueError(
            f"{name} expected a target shaped as the output {list(y.shape)}, got {list(t.shape)}: "
            f"{_rows_differ(y, t) or 'reshape the target; nothing is broadcast'}"
        )


def labels_of(name: str, y: Tensor, t: Tensor) -> Tensor:
    """The labels `[n, ...]` for scores y `[n, classes, ...]`, as int64.

    Raises:
        ValueError: t has no integers, or another shape.
    """
    if t.is_floating_point() or t.is_complex() or not as_labels(y, t):
        raise ValueError(
            f"{name} expected outputs [n, classes, ...] and integer labels [n, ...], got {list(y.shape)} "
            f"and {t.dtype} {list(t.shape)}: {_remedy(y, t)}"
        )
    return t.long()


def as_labels(y: Tensor, t: Tensor) -> bool:
    """Whether t has the shape of labels for y."""
    return y.ndim > 1 and t.shape == (y.shape[0], *y.shape[2:])


def as_probabilities(y: Tensor, t: Tensor) -> bool:
    """Whether t is meant as probabilities: floats that are no labels, nor a column of them."""
    column = t.ndim == y.ndim > 1 and t.shape[1] == 1 != y.shape[1]
    return t.is_floating_point() and not column and not as_labels(y, t)


def check_weight(name: str, argument: str, weight: Tensor | None, *, per_class: bool = True) -> Tensor | None:
    """A weight as a detached copy; None stays.

    Raises:
        TypeError: it is no floating tensor.
        ValueError: it has not one dimension where there is one weight per class.
    """
    if weight is None:
        return None
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        got = weight.dtype if isinstance(weight, Tensor) else type(weight).__name__
        raise TypeError(f"{name} expected {argument} as a floating tensor, got {got}: torch.tensor([1.0, 2.0])")
    if per_class and weight.ndim != 1:
        raise ValueError(f"{name} expected {argument} [classes], got {list(weight.shape)}: one weight for each class")
    return weight.detach().clone()


def check_number(name: str, argument: str, value: object, *, whole: bool = False) -> None:
    """The argument is a number.

    Raises:
        TypeError: it is none, or not a whole one where it must be.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral if whole else numbers.Real):
        kind, example = ("whole number", "-100") if whole else ("number", "0.1")
        raise TypeError(f"{name} expected {argument} as a {kind}, got {value!r}: give for example {example}")


@contextmanager
def index_errors(name: str, y: Tensor, t: Tensor, ignore_index: int) -> Iterator[None]:
    """Turns torch's index error into one that names the label; only on the CPU can the label be read."""
    try:
        yield
    except (IndexError, RuntimeError) as error:
        wrong = t[((t < 0) & (t != ignore_index)) | (t >= y.shape[1])] if t.device.type == "cpu" else t[:0]
        wrong = wrong[wrong != ignore_index]
        if not len(wrong):
            raise
        raise ValueError(
            f"{name} expected labels in [0, {y.shape[1]}), or {ignore_index} for a row that costs nothing, got "
            f"{int(wrong[0])}: number the classes from 0"
        ) from error


def _remedy(y: Tensor, t: Tensor) -> str:
    """How to make labels for y of t."""
    if as_labels(y, t):
        return "make them integers, t.long()"
    if y.ndim < 2:
        return "let the layer put out a score for each class"
    if differ := _rows_differ(y, t):
        return differ
    if t.ndim == y.ndim and t.shape[1] == 1 and t.shape[2:] == y.shape[2:]:
        return "drop the dimension of one, t.squeeze(1)" + (".long()" if t.is_floating_point() else "")
    if t.shape == y.shape:
        return "give class indices, t.argmax(1) for scores or one-hots"
    return f"give class indices {[y.shape[0], *y.shape[2:]]}, one for each row and place"


def _rows_differ(y: Tensor, t: Tensor) -> str | None:
    """The remedy where there are not as many targets as rows."""
    if t.ndim and t.shape[0] == y.shape[0]:
        return None
    return f"give a target for each of the {y.shape[0]} rows"
