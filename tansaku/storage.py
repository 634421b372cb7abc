"""`Storages`: a pool of large CPU storages that a search uses again from generation to generation.

A new tensor of 40 MB costs more in page faults than the arithmetic that fills it, so a `Search` keeps the memory of
generations that are over. A storage is used again only if its reference count shows that no tensor, view or array
refers to it, so populations stay immutable for users. Kernels call `buffer` and pass the result as ``out=``. Outside a
search, for small tensors, on a GPU (whose allocator has a pool of its own) and under `torch.compile` the result is
None, which means "allocate as usual".

The pool is bounded. A tensor may take a storage that is up to a quarter larger than needed, so that a population that
shrinks goes on in the same memory. A storage that was not handed out for a few generations is dropped, so that the
sizes of earlier generations do not add up.
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
_MOST = 16  # blocks of one size that a pool remembers: more than a generation needs
_SLACK = 4  # a storage serves a tensor that leaves at most 1 / _SLACK of the tensor's own size unused
_LIFETIME = 8  # uses of the pool, two per generation: a storage that was not handed out for longer is dropped
_HUGE_PAGE = 1 << 21
_MADV_HUGEPAGE = 14

_use_count: Any = getattr(torch._C, "_storage_Use_Count", None)
_active: ContextVar[Storages | None] = ContextVar("tansaku_storages", default=None)


class Storages:
    """A pool of large CPU storages; ``with storages:`` makes it the one that `buffer` draws from.

    Args:
        smallest: size in bytes of the smallest tensor that gets its memory here; 1 MiB if not given.
    """

    def __init__(self, smallest: int | None = None) -> None:
        self.smallest = _SMALLEST if smallest is None else smallest
        self._pool: dict[int, list[_Block]] = {}  # by capacity, the oldest first
        self._uses = 0
        self._token: Token[Storages | None] | None = None

    def __enter__(self) -> Storages:
        self._token = _active.set(self)
        self._uses += 1
        if not self._pool:
            return self
        oldest = self._uses - _LIFETIME
        if any(block.handed_out < oldest for blocks in self._pool.values() for block in blocks):
            kept = {
                size: [block for block in blocks if block.handed_out >= oldest] for size, blocks in self._pool.items()
            }
            self._pool = {size: blocks for size, blocks in kept.items() if blocks}
        return self

    def __exit__(self, *error: object) -> None:
        if self._token is not None:
            _active.reset(self._token)
            self._token = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Storages:
        return Storages(self.smallest)

    def __reduce__(self) -> tuple[type[Storages], tuple[int]]:
        return Storages, (self.smallest,)

    @property
    def nbytes(self) -> int:
        """Bytes of all storages in the pool, in use or not."""
        return sum(size * len(blocks) for size, blocks in self._pool.items())

    def empty(self, shape: Iterable[int], dtype: torch.dtype) -> Tensor:
        """An uninitialised contiguous CPU tensor, in memory that nothing else refers to."""
        shape = tuple(shape)
        size = math.prod(shape) * dtype.itemsize
        block = self._free(size)
        if block is None:
            block = _Block(size)
            blocks = self._pool.setdefault(size, [])
            blocks.append(block)
            if len(blocks) > _MOST:
                del blocks[0]  # it is still in use elsewhere, and freed after that
        block.handed_out = self._uses
        return block.base[block.start : block.start + size].view(dtype).view(shape)

    def _free(self, size: int) -> _Block | None:
        """The smallest free block of at least ``size`` bytes, unless it is too large."""
        most = size + size // _SLACK
        for capacity in sorted(capacity for capacity in self._pool if size <= capacity <= most):
            for block in self._pool[capacity]:
                if block.free:
                    return block
        return None


class _Block:
    """One storage of a pool: its bytes, where the part to use begins, and when it was last handed out."""

    __slots__ = ("base", "handed_out", "idle", "start")

    def __init__(self, size: int) -> None:
        self.base, self.start = _allocate(size)
        self.idle = _count(self.base)
        self.handed_out = 0

    @property
    def free(self) -> bool:
        """Whether nothing outside the pool refers to the storage."""
        if _count(self.base) != self.idle:
            return False
        return not self.base.untyped_storage().is_shared()  # references of other processes are not counted


def buffer(shape: Iterable[int], dtype: torch.dtype, device: torch.device) -> Tensor | None:
    """Memory of the active pool for a result, or None where a plain allocation serves as well."""
    if torch.compiler.is_dynamo_compiling():
        return None
    storages = _active.get()
    if storages is None:
        return None
    shape = tuple(shape)
    if math.prod(shape) * dtype.itemsize < storages.smallest or _use_count is None or device.type != "cpu":
        return None
    return storages.empty(shape, dtype)


def buffer_like(x: Tensor) -> Tensor | None:
    """`buffer` for a result of the shape, dtype and device of ``x``."""
    return buffer(x.shape, x.dtype, x.device)


def _count(base: Tensor) -> int:
    storage = base.untyped_storage()  # one Python object per storage: references to it have a count of their own
    return int(_use_count(storage._cdata)) + sys.getrefcount(storage)


def _allocate(size: int) -> tuple[Tensor, int]:
    """Bytes, and where ``size`` of them begin: on a huge page if they fill one, which the kernel is advised to use."""
    if size < _HUGE_PAGE:
        return torch.empty(size, dtype=torch.uint8), 0
    base = torch.empty(size + _HUGE_PAGE, dtype=torch.uint8)
    start = -base.data_ptr() % _HUGE_PAGE
    if sys.platform == "linux":
        whole = size // mmap.PAGESIZE * mmap.PAGESIZE
        libc = ctypes.CDLL(None)
        libc.madvise(ctypes.c_void_p(base.data_ptr() + start), ctypes.c_size_t(whole), _MADV_HUGEPAGE)  # advice only
    return base, start
