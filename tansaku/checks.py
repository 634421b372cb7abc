"""The messages for wrong input: what was expected, what came, and the remedy, in one sentence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor


def limit(value: Any) -> Any:
    """A list, a tuple or an array of numpy as a tensor, also inside a mapping; anything else as `plain` gives it.

    Python's floats take torch's default dtype; an array keeps its own.
    """
    if isinstance(value, Mapping):
        return {name: limit(item) for name, item in value.items()}
    if isinstance(value, list | tuple) and value and not any(isinstance(item, Mapping | str) for item in value):
        if any(isinstance(item, Tensor) for item in value):
            return torch.stack([torch.as_tensor(item) for item in value])
        kept = any(isinstance(item, np.ndarray | np.generic) for item in value)
        return torch.as_tensor(np.asarray(value)) if kept else torch.tensor(value)
    if isinstance(value, np.ndarray):
        return torch.as_tensor(value.copy())
    return plain(value)


def shape_text(shape: Iterable[int]) -> str:
    """``(3, 4)`` as ``[3, 4]``, the way shapes are written in every docstring here."""
    return "[" + ", ".join(str(int(size)) for size in shape) + "]"


def count(name: str, value: Any, minimum: int = 1) -> int:
    """An integer of at least ``minimum``, or an error that says so.

    Raises:
        TypeError: ``value`` is no integer.
        ValueError: ``value`` is below ``minimum``.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"expected {name} to be an integer, got {value!r} of type {type(value).__name__}; pass an int")
    if value < minimum:
        raise ValueError(f"expected {name} >= {minimum}, got {value}; pass {minimum} or more")
    return int(value)


def plain(value: Any) -> Any:
    """A number of numpy as Python's own, also in a dictionary; every other value as it is."""
    if isinstance(value, np.generic) and isinstance(value.item(), bool | int | float):
        return value.item()
    if isinstance(value, dict) and any(isinstance(item, np.generic) for item in value.values()):
        return {name: plain(item) for name, item in value.items()}
    return value


def seed(value: Any) -> int:
    """A seed that torch's generators take.

    Raises:
        TypeError: ``value`` is no integer.
        ValueError: ``value`` is below 0, or has more than 64 bits.
    """
    if count("seed", value, 0) >= 2**64:
        raise ValueError(f"expected seed < 2**64, got {value}; take a smaller one")
    return int(value)


def start(genes: Mapping[str, Tensor]) -> None:
    """Genes that a search can begin with.

    Raises:
        ValueError: a name without a gene, or real genes that are NaN or infinite.
    """
    for name, x in genes.items():
        if x.numel() == 0:
            raise ValueError(f"expected a start with genes, got {name!r} of shape {shape_text(x.shape)}; give it some")
        if x.is_floating_point() and not bool(torch.isfinite(x).all()):
            wrong = int((~torch.isfinite(x)).sum())
            raise ValueError(
                f"expected finite genes to start from, got {wrong} of {name!r} that are NaN or infinite; replace them"
            )


def number(name: str, value: Any, low: float = -float("inf"), high: float = float("inf")) -> float:
    """A real number in ``[low, high]``, or an error that says so.

    Raises:
        TypeError: ``value`` is no real number.
        ValueError: ``value`` is NaN or outside the range.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"expected {name} to be a number, got {value!r} of type {type(value).__name__}; pass a float")
    value = float(value)
    if not low <= value <= high:
        raise ValueError(f"expected {name} in [{low:g}, {high:g}], got {value}; choose a value in that range")
    return value


def probability(name: str, value: Any) -> float:
    """A number in [0, 1]; see `number`."""
    return number(name, value, 0.0, 1.0)


def std(name: str, value: Any) -> None:
    """A standard deviation: a number of at least 0, or a tensor of them.

    Raises:
        TypeError: neither.
        ValueError: negative or NaN anywhere.
    """
    if not isinstance(value, Tensor):
        number(name, value, 0.0)
    elif not bool((value >= 0).all()):
        raise ValueError(f"expected {name} >= 0 everywhere, got a negative or NaN entry; take its absolute value")


def fits_event(name: str, value: Any, event_shape: Iterable[int]) -> None:
    """A number, or a tensor that broadcasts against [*event_shape].

    Raises:
        ValueError: a tensor of another shape.
    """
    if not isinstance(value, Tensor) or value.ndim == 0:
        return
    event = tuple(event_shape)
    if value.ndim > len(event) or any(
        own not in (1, size) for own, size in zip(value.shape[::-1], event[::-1], strict=False)
    ):
        raise ValueError(
            f"expected {name} to broadcast against event_shape {shape_text(event)}, got {shape_text(value.shape)}; "
            "give one number, or one per gene"
        )


def names(what: str, given: Any, genes: Iterable[str]) -> None:
    """A mapping, if it is one, names nothing but genes.

    Raises:
        ValueError: it names others.
    """
    unknown = sorted(set(given) - set(genes)) if isinstance(given, Mapping) else []
    if unknown:
        raise ValueError(f"expected {what} for names among {sorted(genes)}, got {unknown}; drop these")


def instance(name: str, value: Any, kind: type, remedy: str) -> None:
    """A value of the class ``kind``, or a TypeError that names its own."""
    if not isinstance(value, kind):
        raise TypeError(f"expected {name} of type {kind.__name__}, got {type(value).__name__}; {remedy}")


def alike(name: str, x: Tensor, y: Tensor, free: int = 0) -> None:
    """Two populations' tensors of one dtype and shape, but for the first ``free`` dimensions.

    Raises:
        ValueError: they differ.
    """
    if x.dtype != y.dtype or x.shape[free:] != y.shape[free:]:
        raise ValueError(
            f"expected {name!r} of two populations alike{' but for k' * free}, got {x.dtype} {shape_text(x.shape)} "
            f"and {y.dtype} {shape_text(y.shape)}; cast or reshape one"
        )


def tensors(what: str, named: Any, lead: int) -> dict[str, Tensor]:
    """A non-empty mapping name -> tensor whose first ``lead`` dimensions agree, as a plain dict.

    Raises:
        TypeError: no mapping, a value that is no tensor, or a complex dtype.
        ValueError: empty, too few dimensions, or leading dimensions that differ.
    """
    if type(named) is not dict and not isinstance(named, Mapping):
        raise TypeError(
            f"expected {what} as a mapping of names to tensors, got {type(named).__name__}; pass {{'x': tensor}}"
        )
    if not named:
        raise ValueError(f"expected at least one tensor in {what}, got an empty mapping; pass {{'x': tensor}}")
    first: Tensor | None = None
    for name, value in named.items():
        if not isinstance(name, str):
            raise TypeError(f"expected names in {what} to be strings, got {name!r}; use {str(name)!r}")
        if not isinstance(value, Tensor):
            raise TypeError(
                f"expected {what}[{name!r}] to be a tensor, got {type(value).__name__}; use torch.as_tensor"
            )
        if value.is_complex():
            raise TypeError(
                f"expected {what}[{name!r}] real, integer or boolean, got {value.dtype}; "
                "search over torch.view_as_real(x) instead"
            )
        if value.ndim < lead:
            raise ValueError(
                f"expected {what}[{name!r}] with at least {lead} leading dimensions, "
                f"got shape {shape_text(value.shape)}; see the shape rule in Population"
            )
        if first is None:
            first = value
        elif value.shape[:lead] != first.shape[:lead]:
            raise ValueError(
                f"expected {what}[{name!r}] with leading dimensions {shape_text(first.shape[:lead])} like the others, "
                f"got shape {shape_text(value.shape)}; expand it first"
            )
    return dict(named)


def real(operator: str, name: str, x: Tensor, remedy: str) -> None:
    """``x`` holds real numbers, or a TypeError that names the alternative."""
    if not x.is_floating_point():
        raise TypeError(f"expected real genes for {operator}, got {name!r} of {x.dtype}; {remedy}")


def whole(operator: str, name: str, x: Tensor, remedy: str) -> None:
    """``x`` holds integers, or a TypeError that names the alternative."""
    if x.is_floating_point() or x.dtype == torch.bool:
        raise TypeError(f"expected integer genes for {operator}, got {name!r} of {x.dtype}; {remedy}")


def generator(noise: Any, device: torch.device) -> None:
    """``noise`` is a generator on ``device``, or an error that says how to make one."""
    if isinstance(noise, torch.Generator) and noise.device == device:
        return
    if not isinstance(noise, torch.Generator):
        raise TypeError(
            f"expected noise as a torch.Generator, got {type(noise).__name__}; "
            f"pass torch.Generator({str(device)!r}).manual_seed(0)"
        )
    if noise.device.type != device.type:
        raise ValueError(
            f"expected a generator on {device}, got one on {noise.device}; "
            f"make it with torch.Generator({str(device)!r})"
        )
