"""Keeps the genes out of reach of a user's function, and notices if it writes into what it is given."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from tansaku import host
from tansaku.functional import lazy_copy, shares_memory

_LARGE = 1 << 20  # bytes; from here on a copy costs more than the rest of a small generation
_use_count: Callable[[int], int] = getattr(torch._C, "_storage_Use_Count", lambda storage: 0)


class Guard:
    """Hands out copies of the genes, and says afterwards whether they were changed.

    A function that reads memory itself (`torch.Tensor.numpy`) makes a copy-on-write copy allocate its memory. From one
    mebibyte on, this memory is kept for the copies of the next calls, because fresh memory costs several times as much
    as the copy; and those copies are not compared with the genes any more.
    """

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def __reduce__(self) -> tuple[type[Guard], tuple[()]]:
        return Guard, ()  # the memory is no part of a copied or pickled assessor

    def copies(self, genes: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies of the genes, for one call of a function."""
        if not self._kept:
            return {name: lazy_copy(x) for name, x in genes.items()}
        return {name: self._copy(name, x) for name, x in genes.items()}

    def _copy(self, name: str, x: Tensor) -> Tensor:
        kept = self._kept.get(name)
        if kept is None or kept.shape != x.shape or kept.dtype != x.dtype or kept.stride() != x.stride():
            return lazy_copy(x)
        del kept
        if references(self._kept, name) > _UNUSED:  # the function still holds the copy of an earlier call
            return lazy_copy(x)
        self._kept[name].data.copy_(x)  # .data: the version of the copy stays 0
        return self._kept[name]

    def changed(self, copies: dict[str, Tensor], genes: Mapping[str, Tensor]) -> bool:
        """Whether the function changed one of its copies, as far as this can be known.

        Writes by torch are always noticed. Other writes, such as those to a numpy array, are found by comparing the
        values if these are in the host's memory; see the class for the exception. No write reaches the genes.
        """
        for name in copies:
            if not copies[name].is_inference() and copies[name]._version:
                return True
        for name in copies:  # without a variable for the copy, which would be a reference to it
            if shares_memory(copies[name]):
                if references(copies, name) > _UNUSED:
                    copies[name].data_ptr()  # the function keeps its copy: the genes shall not move when it writes
            elif copies[name] is not self._kept.get(name) and host.readable(genes[name]):
                if not _same(copies[name], genes[name]):
                    return True
                if copies[name].nbytes >= _LARGE:
                    self._kept[name] = copies[name]
        return False


def _same(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:  # resized, or set to other data
        return False
    return torch.equal(a, b) or bool(((a == b) | ((a != a) & (b != b))).all())  # NaN equals NaN here


def references(tensors: Mapping[str, Tensor], name: str) -> int:
    """References to a tensor and to its storage, by Python objects and by other tensors."""
    storage: Any = tensors[name].untyped_storage()
    return sys.getrefcount(tensors[name]) + sys.getrefcount(storage) + int(_use_count(storage._cdata))


_UNUSED = references({"x": torch.empty(1)}, "x")
"""What `references` gives for a tensor that only the mapping holds."""
