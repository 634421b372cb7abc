"""What a user's function returned, as the tensors of an `Assessment`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tansaku.assessment import Assessment
from tansaku.assessors.failures import Fields

NAMES = tuple(field.name for field in fields(Assessment) if field.name not in ("maximize", "ranking"))


def by_name(answer: Any) -> dict[str, Any]:
    """The answer as a dictionary of fields; anything that is no dictionary is the value.

    Raises:
        ValueError: a dictionary with unknown keys or without ``"value"``.
    """
    if not isinstance(answer, Mapping):
        return {"value": answer}
    unknown = sorted(set(answer) - set(NAMES), key=str)
    if unknown or "value" not in answer:
        raise ValueError(
            f"expected a dictionary with 'value' and any of {list(NAMES[1:])}, got {sorted(answer, key=str)}; "
            "rename its keys"
        )
    return dict(answer)


def of_all(answer: Any, device: torch.device) -> Fields:
    """The fields [k, *batch_shape, ...] that a function of all candidates returned as tensors or numpy arrays.

    Raises:
        TypeError: another type, or complex numbers.
        ValueError: see `by_name`.
    """
    if isinstance(answer, Tensor) and answer.is_floating_point():
        return {"value": _own(answer)}
    given: Fields = {}
    for name, x in by_name(answer).items():
        if isinstance(x, np.ndarray | np.generic):
            x = from_numpy(name, x, device)
        if isinstance(x, Tensor):
            given[name] = _own(x)
        elif x is not None or name == "value":
            raise TypeError(
                f"expected fn to return a tensor as {name}, got {type(x).__name__}; "
                "return a tensor or a numpy array, or set vectorized=False for plain numbers"
            )
    return given


def _own(x: Tensor) -> Tensor:
    """Without a graph, and no view, which could keep all that the function was given in memory."""
    if x.requires_grad:
        x = x.detach()
    return x.clone() if x._is_view() else x


def from_numpy(name: str, x: np.ndarray[Any, Any] | np.generic, device: torch.device) -> Tensor:
    """The array as a tensor in memory of its own, so that a function may reuse its array.

    Raises:
        TypeError: an array whose entries are no numbers.
    """
    try:
        return torch.from_numpy(np.array(x, order="C")).to(device)
    except TypeError as error:
        raise TypeError(
            f"expected fn to return numbers as {name}, got an array of {x.dtype}; convert it with .astype(float)"
        ) from error


def of_one(answer: Any, like: Tensor) -> Tensor:
    """One field of one candidate. A plain float is as exact as the genes, and at least float32.

    Raises:
        TypeError: it is no number and no array of numbers.
    """
    exact = torch.promote_types(like.dtype, torch.float32)
    try:
        if isinstance(answer, np.ndarray):
            return from_numpy("value", answer, like.device)
        return torch.as_tensor(answer, dtype=exact if isinstance(answer, float) else None, device=like.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"expected fn to return a number for each candidate, got {answer!r}; return its cost as a float"
        ) from error


def assessment(fields: Fields, maximize: bool) -> Assessment:
    """The fields as an assessment; integers and booleans become floats."""
    if len(fields) == 1 and fields["value"].is_floating_point():
        return Assessment._made(maximize, fields)
    if fields["value"].is_floating_point() and not any(x.is_complex() for x in fields.values()):
        return Assessment._made(maximize, fields)
    return Assessment(maximize=maximize, **fields)
