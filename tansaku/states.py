"""States and how they travel: frozen dataclasses of tensors, numbers and populations, as plain nested dictionaries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any, TypeVar, dataclass_transform, overload

import torch
from torch import Tensor

from tansaku.assessment import Assessment
from tansaku.population import Individual, Population

C = TypeVar("C")

_kinds: dict[str, type] = {}
_names: dict[type, str] = {}


@overload
def state(cls: type[C], /) -> type[C]: ...


@overload
def state(*, name: str | None = None) -> Callable[[type[C]], type[C]]: ...


@dataclass_transform(frozen_default=True)
def state(cls: type[C] | None = None, /, *, name: str | None = None) -> type[C] | Callable[[type[C]], type[C]]:
    """Class decorator: a frozen dataclass that `Search.state_dict` can save and load.

    Args:
        cls: the class.
        name: the name under which files store it. By default `stable_name`: the module and the class's name. With a
            name of its own, a class can move to another module and old files still load.

    Raises:
        ValueError: another class has the same name.

    Example:
        >>> @state
        ... class Walk:
        ...     incumbent: Population
        ...     step: int
    """

    def register(cls: type[C]) -> type[C]:
        made = dataclass(frozen=True)(cls)
        _register(made, stable_name(made) if name is None else name)
        return made

    return register if cls is None else register(cls)


def _register(cls: type, name: str) -> None:
    other = _kinds.get(name)
    if other is not None and _place(other) != _place(cls):  # the same place: the class was defined again
        raise ValueError(
            f"expected one state with the name {name!r}, got {_place(other)} and {_place(cls)}; "
            "give one of them another name with @state(name=...)"
        )
    _kinds[name], _names[cls] = cls, name


def _place(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def stable_name(cls: type) -> str:
    """The name of a class in files: package and class for a class of this distribution, else module and class."""
    package = cls.__module__.partition(".")[0]
    return f"{package}.{cls.__qualname__}" if package in ("tansaku", "zenkai_core") else _place(cls)


for _known in (Individual, Population, Assessment):
    _register(_known, stable_name(_known))


def pack(value: Any) -> Any:
    """``value`` as dictionaries, lists, tensors and plain numbers.

    Raises:
        TypeError: something else inside, named.
    """
    if value is None or isinstance(value, bool | int | float | str | Tensor):
        return value
    if isinstance(value, Integral):
        return int(value)  # of numpy
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, Mapping):
        return {"mapping": {str(key): pack(item) for key, item in value.items()}}
    if isinstance(value, list | tuple):
        return [pack(item) for item in value]
    kind = _names.get(type(value))
    if kind is not None:
        return {"kind": kind, "fields": {field.name: pack(getattr(value, field.name)) for field in fields(value)}}
    raise TypeError(
        f"expected tensors, numbers, populations and states, got {type(value).__name__}; "
        "decorate it with @tansaku.state"
    )


def unpack(packed: Any, device: torch.device | None = None) -> Any:
    """What `pack` was given (lists for tuples), its tensors on ``device`` if one is named.

    Raises:
        ValueError: an unknown state, or a tree that `pack` does not make: other keys, or fields that a state lacks.
    """
    if isinstance(packed, Mapping):
        if isinstance(packed.get("mapping"), Mapping):
            return {key: unpack(item, device) for key, item in packed["mapping"].items()}
        kind, values = packed.get("kind"), packed.get("fields")
        if not isinstance(kind, str) or not isinstance(values, Mapping):
            raise ValueError(f"expected a packed state, got a dictionary with {sorted(packed)}; use an undamaged one")
        cls = _kinds.get(kind, _kinds.get(_without_module(kind)))
        if cls is None:
            raise ValueError(f"expected a known state, got {kind!r}; import the module that defines it before loading")
        names = [field.name for field in fields(cls)]
        if set(names) != set(values):
            raise ValueError(
                f"expected {kind} with the fields {sorted(names)}, got {sorted(values)}; "
                "load it with the version of the package that wrote it"
            )
        given = {name: unpack(item, device) for name, item in values.items()}
        try:
            return cls(**given)
        except Exception as error:
            raise ValueError(f"expected the fields of {kind}, got others ({error}); use an undamaged state") from error
    if isinstance(packed, list | tuple):
        return [unpack(item, device) for item in packed]
    if packed is not None and not isinstance(packed, bool | int | float | str | Tensor):
        raise ValueError(f"expected what pack() gives, got {type(packed).__name__}; use an undamaged state")
    return packed.to(device) if isinstance(packed, Tensor) else packed


def _without_module(kind: str) -> str:
    """The stable name for a name that format 1 stored with its module, such as "tansaku.algorithms.pso.PSOState"."""
    package, _, rest = kind.partition(".")
    return f"{package}.{rest.rpartition('.')[2]}" if package == "tansaku" else kind
