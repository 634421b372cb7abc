"""One-line descriptions of modules, optimisers, algorithms and reducers, for `repr`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

_LONGEST = 200  # characters of a module's description


def module_text(module: nn.Module) -> str:
    """The module on one line: its kind and settings, or the modules in it.

    >>> module_text(nn.Sequential(nn.Linear(4, 8), nn.Tanh()))
    'Sequential(Linear(in_features=4, out_features=8, bias=True), Tanh())'
    """
    children = ", ".join(module_text(child) for child in module.children())
    own = " ".join(module.extra_repr().split())
    text = f"{type(module).__name__}({', '.join(part for part in (own, children) if part)})"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]}...)"


def value_text(value: Any) -> str:
    """A setting on one line: the shape of a tensor, the name of a function, an algorithm or operator by its settings.

    >>> import tansaku
    >>> value_text(tansaku.HillClimb(k=4, std=torch.ones(3)))
    'HillClimb(k=4, std=tensor[3])'
    """
    if isinstance(value, Tensor):
        return f"tensor{list(value.shape)}"
    if isinstance(value, nn.Module):
        return module_text(value)
    if is_dataclass(value) and not isinstance(value, type):
        changed = [
            f"{field.name}={value_text(getattr(value, field.name))}"
            for field in fields(value)
            if field.init and not _is_default(field, getattr(value, field.name))
        ]
        return f"{type(value).__name__}({', '.join(changed)})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {value_text(item)}" for key, item in value.items()) + "}"
    if callable(value) and hasattr(value, "__name__"):
        return str(value.__name__)
    settings = getattr(value, "settings", None)
    if hasattr(value, "make") and isinstance(settings, Mapping):  # a tansaku.Scheduled
        named = [f"{name}={value_text(item)}" for name, item in settings.items()]
        return f"Scheduled({', '.join([value_text(value.make), *named])})"
    text = " ".join(repr(value).split())
    return type(value).__name__ if " at 0x" in text else text


def optimizer_text(optimizer: torch.optim.Optimizer | None, factory: Any, options: Mapping[str, Any]) -> str:
    """The kind of an optimiser and its learning rates as they are now, or as they will be once it is made.

    >>> optimizer_text(None, torch.optim.SGD, {"lr": 0.1})
    'SGD, lr=0.1'
    """
    name = value_text(factory) if optimizer is None else type(optimizer).__name__
    shown = {key: value for key, value in options.items() if key != "lr"}
    rates = [options["lr"]] if "lr" in options else []
    if optimizer is not None:
        rates = list(dict.fromkeys(float(group["lr"]) for group in optimizer.param_groups if "lr" in group))
    if rates:
        shown = {"lr": rates[0] if len(rates) == 1 else tuple(rates), **shown}
    return ", ".join([name, *(f"{key}={value_text(value)}" for key, value in shown.items())])


def _is_default(field: Any, value: Any) -> bool:
    if isinstance(value, Tensor):
        return False
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    return (
        default is not MISSING
        and not isinstance(default, Tensor)
        and type(default) is type(value)
        and bool(default == value)
    )
