"""Private copies of tensors for a user's function, and the check whether the function wrote into them.

On a CPU a copy shares the memory of its original until something writes into it (copy-on-write). `torch.Tensor.numpy`,
``data_ptr()`` and DLPack count as writes, because torch does not see what happens there. A function that only calls
torch operations therefore costs no copy, and no function can reach the original.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from tansaku import host

_lazy_clone: Callable[[Tensor], Tensor] | None = getattr(torch, "_lazy_clone", None)
_shares: Callable[[Tensor], bool] | None = getattr(torch._C, "_is_cow_tensor", None)
_use_count: Callable[[int], int] | None = getattr(torch._C, "_storage_Use_Count", None)
_LAZY = _lazy_clone is not None and _shares is not None and _use_count is not None


def lazy_copy(x: Tensor) -> Tensor:
    """A copy of ``x`` without a graph, whose memory is allocated at the first write; on a GPU it is allocated now.

    Example:
        >>> x = torch.zeros(3)
        >>> y = lazy_copy(x)
        >>> y.numpy()[0] = 1.0
        >>> x, y
        (tensor([0., 0., 0.]), tensor([1., 0., 0.]))
    """
    if x.requires_grad:
        x = x.detach()
    if _lazy_clone is None or not _LAZY or not host.readable(x):
        return x.clone()
    try:
        return _lazy_clone(x)
    except RuntimeError:  # memory that torch did not allocate, such as a numpy array's
        return x.clone()


def lazy_copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`lazy_copy` of each tensor, under its name."""
    return {name: lazy_copy(x) for name, x in tensors.items()}


def versions(tensors: Mapping[str, Tensor]) -> list[int]:
    """How often torch has written into each tensor; 0 for a tensor of inference mode, which does not count."""
    return [0 if x.is_inference() else x._version for x in tensors.values()]


def written(copies: dict[str, Tensor], originals: Mapping[str, Tensor], before: list[int]) -> bool:
    """Whether a function changed one of the copies that it was given.

    Writes by torch operations are counted by torch. Other writes are found by comparing the values, which is needed
    only if a copy no longer shares its memory. Values on a GPU are not compared, because that would synchronise.

    Args:
        copies: from `lazy_copies`. A copy that the function still holds gets memory of its own here.
        originals: what they were made of.
        before: `versions` of the copies before the call.
    """
    if versions(copies) != before:
        return True
    for name in copies:
        original = originals[name]
        if not host.readable(original):
            continue
        if _shares is not None and _LAZY and _shares(copies[name]):
            if _references(copies, name) > _FREE:
                copies[name].data_ptr()  # the original keeps its address, whatever the function does with its copy
        elif not _same(copies[name], original):
            return True
    return False


def _same(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:  # resized, or given other data
        return False
    return torch.equal(a, b) or bool(((a == b) | ((a != a) & (b != b))).all())  # NaN equals NaN here


def _references(copies: dict[str, Tensor], name: str) -> int:
    """References to a copy and to its storage, by Python objects and by tensors."""
    storage: Any = copies[name].untyped_storage()
    uses = 0 if _use_count is None else int(_use_count(storage._cdata))
    return sys.getrefcount(copies[name]) + uses + sys.getrefcount(storage)


_FREE = _references({"x": torch.empty(1)}, "x")
"""What `_references` gives for a copy that only the dictionary holds."""
