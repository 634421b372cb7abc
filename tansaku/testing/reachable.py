"""What an object keeps alive: the bytes of its tensors' storages and the number of objects, however deep they lie."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from torch import Tensor

_SHARED = (ModuleType, FunctionType, BuiltinFunctionType, type)  # they lead to everything that is imported


def reachable(root: Any, without: Iterable[Any] = ()) -> tuple[int, int]:
    """The storages and objects that ``root`` refers to, directly or through others.

    Args:
        root: where to begin.
        without: objects that are not followed.

    Returns:
        Bytes of all tensors' storages, each storage once and as a whole, and the number of objects.

    Example:
        >>> import torch
        >>> reachable({"x": [torch.zeros(8)[:2]]})[0]
        32
    """
    seen = {id(item) for item in without}
    storages: dict[int, int] = {}
    waiting, count = [root], 0
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, _SHARED):
            continue
        seen.add(id(item))
        count += 1
        if isinstance(item, Tensor):
            storage = item.untyped_storage()
            storages[storage._cdata] = storage.nbytes()
        waiting += gc.get_referents(item)
    return sum(storages.values()), count
