"""Descriptions of settings: what a checkpoint stores of an algorithm and an objective, and how two are compared.

A description is made of dictionaries, lists, numbers, strings and tensors, so that a checkpoint can hold it. A function
is described by its module and qualified name. A lambda has no name of its own; it is recorded as not comparable.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import partial
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tansaku import checks
from tansaku.operators.crossover import Crossover
from tansaku.operators.mutation import Mutation
from tansaku.states import stable_name

_SPEED = frozenset({"compile", "device"})  # settings that never change a run
_ASSESSOR_SPEED = _SPEED | {"chunk", "chunk_size", "memory", "cache", "workers"}
_PLAN = "max_evaluations"
_LARGEST = 4096  # elements of a tensor that is stored whole; of a larger one, its digest
_MAIN = ("__main__", "__mp_main__")


def describe(value: Any) -> Any:
    """A description of a setting: a value, an operator, an algorithm, a schedule, or a mapping of these."""
    return _described(value, _SPEED)


def describe_assessor(assess: Any) -> Any:
    """A description of an assessor such as `Objective`, without its chunk sizes, cache and workers; None for None."""
    return _described(assess, _ASSESSOR_SPEED)


def _described(value: Any, left_out: frozenset[str]) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Enum):
        return str(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, Tensor):
        return _tensor(value)
    if isinstance(value, np.ndarray | np.bool_):
        return _tensor(torch.as_tensor(value)) if value.dtype.kind in "biuf" else repr(value)
    if isinstance(value, torch.dtype | torch.device):
        return str(value)
    if isinstance(value, Mapping):
        return {"mapping": {str(key): describe(item) for key, item in value.items()}}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if isinstance(value, set | frozenset):
        return [describe(item) for item in sorted(value, key=repr)]
    if isinstance(value, partial):
        parts = {"func": value.func, "args": value.args, "keywords": value.keywords}
        return {"type": "functools.partial", "fields": {name: describe(part) for name, part in parts.items()}}
    if isinstance(value, type) or hasattr(value, "__qualname__"):
        return _callable(value)
    return {"type": stable_name(type(value)), "fields": {n: describe(x) for n, x in _settings(value, left_out)}}


def _settings(value: Any, left_out: frozenset[str]) -> Iterator[tuple[str, Any]]:
    """Names and values of an object's settings; those that never change a run are left out."""
    if is_dataclass(value):
        for field in fields(value):
            if field.init and field.name not in left_out:
                yield field.name, getattr(value, field.name)
    elif not isinstance(value, nn.Module) and (not callable(value) or isinstance(value, Mutation | Crossover)):
        for name, item in sorted(getattr(value, "__dict__", {}).items()):
            if not name.startswith("_") and name not in left_out:
                yield name, item


def _callable(fn: Any) -> dict[str, str]:
    name = getattr(fn, "__qualname__", type(fn).__qualname__)
    module = getattr(fn, "__module__", None) or type(getattr(fn, "__self__", fn)).__module__
    if isinstance(fn, type):
        return {"callable": stable_name(fn) if module not in _MAIN else f"__main__.{name}"}
    if name.endswith("<lambda>"):
        return {"unnamed": f"{module}.{name}"}
    return {"callable": f"{'__main__' if module in _MAIN else module}.{name}"}


def _tensor(x: Tensor) -> Any:
    x = x.detach().cpu()
    if x.numel() <= _LARGEST:
        return x.clone()
    octets = x.contiguous().flatten().view(torch.uint8).numpy()
    text = f"{x.dtype} {checks.shape_text(x.shape)}"
    return {"digest": hashlib.sha256(octets.data).hexdigest(), "tensor_of": text}


def not_comparable(description: Any) -> list[str]:
    """Names of the functions in a description that have no name to compare them by."""
    if isinstance(description, Mapping):
        if isinstance(description.get("unnamed"), str):
            return [description["unnamed"]]
        return [name for item in description.values() for name in not_comparable(item)]
    if isinstance(description, list):
        return [name for item in description for name in not_comparable(item)]
    return []


def warn_of_unnamed(description: Any, stacklevel: int = 3) -> bool:
    """Warns once if the description holds functions that cannot be compared; True if it does."""
    unnamed = not_comparable(description)
    if unnamed:
        warnings.warn(
            f"expected functions with names, got {' and '.join(sorted(set(unnamed)))}; a checkpoint records it as not "
            "comparable, and loading cannot tell whether it is the same function: define it with def",
            UserWarning,
            stacklevel=stacklevel,
        )
    return bool(unnamed)


def differences(saved: Any, own: Any, path: str, budgets: bool = False) -> list[str]:
    """Every difference between two descriptions as "path: saved ..., here ...".

    Args:
        saved: from a checkpoint.
        own: of the object that loads it.
        path: what the descriptions are of, such as ``"algorithm"``.
        budgets: True compares only the settings ``max_evaluations``; False compares all others.
    """
    if not budgets and (_unnamed(saved) or _unnamed(own)):
        return []
    pairs = _pairs(saved, own)
    if pairs is None:
        return [] if budgets or _equal(saved, own) else [f"{path}: saved {shown(saved)}, here {shown(own)}"]
    found = []
    for name, one, other in pairs:
        inside = f"{path}[{name}]" if name.isdigit() else f"{path}.{name}"
        if name == _PLAN:
            if budgets and not _equal(one, other):
                found.append(f"{inside}: saved {shown(one)}, here {shown(other)}")
        else:
            found += differences(one, other, inside, budgets)
    return found


def _unnamed(description: Any) -> bool:
    return isinstance(description, Mapping) and "unnamed" in description


def _pairs(saved: Any, own: Any) -> list[tuple[str, Any, Any]] | None:
    """The parts of two descriptions side by side; None where they have no parts in common."""
    if isinstance(saved, list) and isinstance(own, list) and len(saved) == len(own):
        return [(str(i), one, other) for i, (one, other) in enumerate(zip(saved, own, strict=True))]
    if isinstance(saved, Mapping) and isinstance(own, Mapping) and saved.get("type") == own.get("type"):
        for key in ("fields", "mapping"):
            one, other = saved.get(key), own.get(key)
            if isinstance(one, Mapping) and isinstance(other, Mapping) and set(one) == set(other):
                return [(name, one[name], other[name]) for name in one]
            if key == "fields" and isinstance(one, Mapping) and isinstance(other, Mapping):
                names = sorted({*one, *other})  # a version of the package may have more settings than another
                return [(name, one.get(name), other.get(name)) for name in names if name in one and name in other]
    return None


def _equal(saved: Any, own: Any) -> bool:
    if isinstance(saved, Tensor) or isinstance(own, Tensor):
        one, other = torch.as_tensor(_number(saved)), torch.as_tensor(_number(own))
        both = isinstance(saved, Tensor) and isinstance(own, Tensor)
        if both and (one.shape != other.shape or one.dtype != other.dtype):
            return False  # a number equals a tensor that holds this number alone
        return bool(((one == other) | ((one != one) & (other != other))).all())  # NaN equals NaN
    if isinstance(saved, float) and isinstance(own, float) and saved != saved and own != own:
        return True
    if isinstance(saved, Mapping) and isinstance(own, Mapping) and "callable" in saved and "callable" in own:
        first, second = str(saved["callable"]), str(own["callable"])
        if "__main__" in (first.split(".")[0], second.split(".")[0]):  # a script and its import have one set of names
            return first.endswith(second.removeprefix("__main__")) or second.endswith(first.removeprefix("__main__"))
        return first == second
    if isinstance(saved, bool) is not isinstance(own, bool):
        return False
    return bool(saved == own)


def _number(value: Any) -> Any:
    return value if isinstance(value, Tensor | bool | int | float) else []


def shown(description: Any) -> str:
    """A description in one line, as Python would write it."""
    if isinstance(description, Tensor):
        return f"tensor({description.tolist()})" if description.numel() <= 8 else repr(description.flatten()[:4])
    if isinstance(description, list):
        return "[" + ", ".join(shown(item) for item in description) + "]"
    if not isinstance(description, Mapping):
        return repr(description)
    if "mapping" in description:
        return "{" + ", ".join(f"{name!r}: {shown(item)}" for name, item in description["mapping"].items()) + "}"
    if "fields" in description:
        inner = ", ".join(f"{name}={shown(item)}" for name, item in description["fields"].items())
        return f"{str(description['type']).rpartition('.')[2]}({inner})"
    if "digest" in description:
        return f"{description['tensor_of']} with digest {str(description['digest'])[:8]}"
    return str(description.get("callable", description.get("unnamed", description)))


def check_same(saved: Any, own: Any, plans: bool, replan: bool) -> None:
    """The settings of a checkpoint and of the object that loads it agree.

    Args:
        saved: name -> description, from the checkpoint.
        own: name -> description, of the object.
        plans: whether the algorithm plans its course over ``max_evaluations``.
        replan: whether another ``max_evaluations`` is accepted.

    Raises:
        ValueError: they differ; the message shows both.
    """
    if not isinstance(saved, Mapping):
        raise ValueError(f"expected settings as a dictionary, got {type(saved).__name__}; use an undamaged checkpoint")
    found: list[str] = []
    for name, description in own.items():
        if name in saved and (name != "assess" or (saved[name] is not None and description is not None)):
            found += differences(saved[name], description, name)
    if found:
        raise ValueError(
            f"expected the settings that the checkpoint was saved with, got others ({'; '.join(found)}); "
            "use the saved settings, or start anew"
        )
    if not plans or replan:
        return
    for name, description in own.items():
        found += differences(saved.get(name), description, name, budgets=True)
    if found:
        raise ValueError(
            f"expected the budget that the algorithm was planned over, got another ({'; '.join(found)}); "
            "pass replan=True to plan the rest of the run over the new one"
        )
