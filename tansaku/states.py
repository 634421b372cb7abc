"""States and how they travel: frozen dataclasses of tensors, numbers and populations, as plain nested dictionaries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar, dataclass_transform

import torch
from torch import Tensor

from tansaku.assessment import Assessment
from tansaku.population import Individual, Population

C = TypeVar("C")

_kinds: dict[str, type] = {}


@dataclass_transform(frozen_default=True)
def state(cls: type[C]) -> type[C]:
    """Class decorator: a frozen dataclass that `Search.state_dict` can save and load.

    Example:
        >>> @state
        ... class Walk:
        ...     incumbent: Population
        ...     step: int
    """
    made = dataclass(frozen=True)(cls)
    _kinds[_kind(made)] = made
    return made


def _kind(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


for _known in (Individual, Population, Assessment):
    _kinds[_kind(_known)] = _known


def pack(value: Any) -> Any:
    """``value`` as dictionaries, lists, tensors and plain numbers.

    Raises:
        TypeError: something else inside, named.
    """
    if value is None or isinstance(value, bool | int | float | str | Tensor):
        return value
    if isinstance(value, Mapping):
        return {"mapping": {str(key): pack(item) for key, item in value.items()}}
    if isinstance(value, list | tuple):
        return [pack(item) for item in value]
    kind = _kind(type(value))
    if kind in _kinds:
        return {"kind": kind, "fields": {field.name: pack(getattr(value, field.name)) for field in fields(value)}}
    raise TypeError(
        f"expected tensors, numbers, populations and states, got {type(value).__name__}; "
        "decorate it with @tansaku.state"
    )


def unpack(packed: Any, device: torch.device | None = None) -> Any:
    """What `pack` was given (lists for tuples), its tensors on ``device`` if one is named.

    Raises:
        ValueError: a kind of state that is not known here.
    """
    if isinstance(packed, Mapping):
        if "mapping" in packed:
            return {key: unpack(item, device) for key, item in packed["mapping"].items()}
        kind = packed.get("kind")
        if kind not in _kinds:
            raise ValueError(f"expected a known state, got {kind!r}; import the module that defines it before loading")
        return _kinds[kind](**{key: unpack(item, device) for key, item in packed["fields"].items()})
    if isinstance(packed, list):
        return [unpack(item, device) for item in packed]
    return packed.to(device) if isinstance(packed, Tensor) else packed
