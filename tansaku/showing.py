"""`shown`: one line of text for a value, with shapes and settings in place of tensors' values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor


def shown(value: Any) -> str:
    """One line: a tensor as dtype and shape, a dataclass with its fields, anything else by its own ``repr``.

    Example:
        >>> import torch
        >>> shown({"x": torch.zeros(2, 3), "n": 4})
        '{x: torch.float32 [2, 3], n: 4}'
    """
    if isinstance(value, Tensor):
        return f"{value.dtype} [{', '.join(str(int(size)) for size in value.shape)}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {shown(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        inner = ", ".join(shown(item) for item in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    if is_dataclass(value) and not isinstance(value, type) and any(mark in repr(value) for mark in ("\n", "tensor(")):
        inner = ", ".join(f"{f.name}={shown(getattr(value, f.name))}" for f in fields(value) if f.repr)
        return f"{type(value).__name__}({inner})"
    return " ".join(repr(value).split())
