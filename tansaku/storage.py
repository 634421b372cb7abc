"""Warm memory for large populations: storages are handed out again once nothing refers to them.

A fresh tensor of 40 MB costs more in page faults than the arithmetic that fills it, so a `Search` keeps the memory of
the generations that nobody holds any more. Users see immutable populations all the same: a storage is used again only
when its reference count says that no tensor, view or array looks at it. Kernels ask for memory with `buffer` and
pass the answer on as ``out=``; outside a search, for small tensors, on a GPU (whose allocator does this itself) and
under `torch.compile`, the answer is None, which means "allocate as usual".
"""

from __future__ import annotations

import ctypes
import math
import mmap
import sys
from collections.abc import Iterable
from contextvars import ContextVar, Token
from typing import Any

import torch
from torch import Tensor

_SMALLEST = 1 << 20  # bytes; below it an allocation costs less than the look-up
_MOST = 16  # storages of one size that a pool remembers: more than a generation needs
_HUGE_PAGE = 1 << 21
_MADV_HUGEPAGE = 14

_use_count: Any = getattr(torch._C, "_storage_Use_Count", None)
_active: ContextVar[Storages | None] = ContextVar("tansaku_storages", default=None)


class Storages:
    """A pool of large CPU storages; ``with storages:`` makes it the one that `buffer` draws from."""

    def __init__(self) -> None:
        self._pool: dict[int, list[tuple[Tensor, int, int]]] = {}
        self._token: Token[Storages | None] | None = None

    def __enter__(self) -> Storages:
        self._token = _active.set(self)
        return self

    def __exit__(self, *error: object) -> None:
        if self._token is not None:
            _active.reset(self._token)
            self._token = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Storages:
        return Storages()

    def __reduce__(self) -> tuple[type[Storages], tuple[()]]:
        return Storages, ()

    def empty(self, shape: Iterable[int], dtype: torch.dtype) -> Tensor:
        """An uninitialised contiguous CPU tensor, in memory that nothing else refers to."""
        shape = tuple(shape)
        size = math.prod(shape) * dtype.itemsize
        pool = self._pool.setdefault(size, [])
        for base, start, idle in pool:
            if _count(base) == idle and not base.untyped_storage().is_shared():  # other processes are not counted
                return base[start : start + size].view(dtype).view(shape)
        base, start = _allocate(size)
        pool.append((base, start, _count(base)))
        if len(pool) > _MOST:
            del pool[0]  # whoever holds it keeps it; it is no longer ours to hand out
        return base[start : start + size].view(dtype).view(shape)


def buffer(shape: Iterable[int], dtype: torch.dtype, device: torch.device) -> Tensor | None:
    """Warm memory for a result, or None where a plain allocation serves as well."""
    shape = tuple(shape)
    if math.prod(shape) * dtype.itemsize < _SMALLEST or torch.compiler.is_dynamo_compiling():
        return None
    storages = _active.get()
    if storages is None or _use_count is None or device.type != "cpu":
        return None
    return storages.empty(shape, dtype)


def buffer_like(x: Tensor) -> Tensor | None:
    """`buffer` for a result of the shape, dtype and device of ``x``."""
    if x.nbytes < _SMALLEST or torch.compiler.is_dynamo_compiling():
        return None
    return buffer(x.shape, x.dtype, x.device)


def _count(base: Tensor) -> int:
    storage = base.untyped_storage()  # one Python object stands for the storage: who holds it is counted apart
    return int(_use_count(storage._cdata)) + sys.getrefcount(storage)


def _allocate(size: int) -> tuple[Tensor, int]:
    """``size`` bytes that start on a huge page, which the kernel is asked to back with huge pages."""
    base = torch.empty(size + _HUGE_PAGE, dtype=torch.uint8)
    start = -base.data_ptr() % _HUGE_PAGE
    if sys.platform == "linux":
        whole = size // mmap.PAGESIZE * mmap.PAGESIZE
        libc = ctypes.CDLL(None)
        libc.madvise(ctypes.c_void_p(base.data_ptr() + start), ctypes.c_size_t(whole), _MADV_HUGEPAGE)  # advice only
    return base, start
