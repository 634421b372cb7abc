"""Changes every setting of an algorithm that is measured in units of the genes: bounds and standard deviations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from torch import Tensor

from tansaku.operators.bounds import Bounds

T = TypeVar("T")
_STEPS = ("std", "scale")
_NO_GENES = ("cells", "optimizer")  # settings that see descriptors or gradients, never genes


def is_plain(value: Any) -> bool:
    """Whether a setting is a number, a text or None, which has no shape."""
    return value is None or isinstance(value, bool | int | float | str | bytes)


class Change:
    """What `changed` does with each setting; a subclass overrides what it changes. Here nothing changes.

    ``name`` is the name of the genes that the setting is for; None for the genes of all names.
    """

    def keeps(self, name: str) -> bool:
        """Whether a mapping keeps the entry for the genes ``name``."""
        return True

    def bounds(self, bounds: Bounds) -> Bounds:
        """The bounds to use instead."""
        return bounds

    def step(self, std: Any, name: str | None) -> Any:
        """The standard deviations to use instead: a number or a tensor, or None where none was given."""
        return std

    def steps(self, std: Any) -> Any:
        """The standard deviations of an algorithm, which may also be a mapping from names."""
        if isinstance(std, Mapping):
            return {name: self.step(value, name) for name, value in std.items() if self.keeps(name)}
        return self.step(std, None)

    def features(self, only: Mapping[str, Any]) -> Mapping[str, Any]:
        """The features that a `Limit` lets change."""
        return only

    def operator(self, operator: Any, name: str | None) -> Any:
        """An operator, selector, emitter or algorithm, with its own settings changed."""
        return changed_fields(operator, self, name)

    def other(self, value: Any, name: str | None) -> Any:
        """Anything else: a function, a tensor, an object of a class that is no dataclass."""
        return value


def changed_fields(setting: T, change: Change, name: str | None = None) -> T:
    """A copy of a dataclass, such as an algorithm or an operator, with every setting changed.

    Args:
        setting: the dataclass; it is returned itself where nothing changes.
        change: what to do with each setting.
        name: of the genes that it is for; None for all.
    """
    given = {field.name: getattr(setting, field.name) for field in fields(setting) if field.init}  # type: ignore[arg-type]
    made = {field: _changed(value, field, change, name) for field, value in given.items()}
    if all(made[field] is value for field, value in given.items()):
        return setting
    return replace(setting, **made)  # type: ignore[type-var]


def _changed(value: Any, field: str, change: Change, name: str | None) -> Any:
    if field in _NO_GENES:
        return value
    if isinstance(value, Bounds):
        return change.bounds(value)
    if field in _STEPS and (isinstance(value, int | float | Tensor | Mapping) or value is None):
        return change.step(value, name) if name is not None else change.steps(value)
    if is_plain(value):
        return value
    if field == "only" and isinstance(value, Mapping):
        return change.features(value)
    if isinstance(value, Mapping):
        return {key: _changed(item, field, change, str(key)) for key, item in value.items() if change.keeps(str(key))}
    if isinstance(value, tuple | list):
        return type(value)(_changed(item, field, change, name) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return change.operator(value, name)
    return change.other(value, name)
