"""Watches what a piece of code does: which values it waits for, how large the tensors are that it builds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "unique_dim", "unique_consecutive")
_READS = {
    "item": Tensor.item,
    "tolist": Tensor.tolist,
    "numpy": Tensor.numpy,
    "cpu": Tensor.cpu,
    "__array__": Tensor.__array__,
}


class Dispatched(TorchDispatchMode):
    """Notes operations whose result the host must have before it can go on, and the size of the largest result."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masks = [i for i in (args[1] if name in ("index", "index_put", "index_put_") else []) if i is not None]
        if name in _WAITS or any(mask.dtype in (torch.bool, torch.uint8) for mask in masks):
            self.waits.append(f"aten::{name}")
        result = func(*args, **(kwargs or {}))
        for x in result if isinstance(result, tuple | list) else [result]:
            if isinstance(x, Tensor) and not func.is_view:
                self.largest = max(self.largest, x.numel())
        return result


class Called(TorchFunctionMode):
    """Notes calls that read a tensor's values where its memory is the host's and no operation runs."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.waits += [f"Tensor.{name}" for name, read in _READS.items() if func is read]
        return func(*args, **(kwargs or {}))
