"""Private copies of tensors for a user's function.

On a CPU a copy shares the memory of its original until something writes into it (copy-on-write). `torch.Tensor.numpy`,
``data_ptr()`` and DLPack count as writes, because torch does not see what happens there. A function that only calls
torch operations therefore costs no copy, and no function can reach the original.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tansaku import host

_lazy_clone: Callable[[Tensor], Tensor] | None = getattr(torch, "_lazy_clone", None)
_is_lazy: Callable[[Tensor], bool] = getattr(torch._C, "_is_cow_tensor", lambda x: False)


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
    if _lazy_clone is None or not host.readable(x):
        return x.clone()
    try:
        return _lazy_clone(x)
    except RuntimeError:  # memory that torch did not allocate, such as a numpy array's
        return x.clone()


def shares_memory(copy: Tensor) -> bool:
    """Whether nothing has written into a `lazy_copy` so far, or asked for its address."""
    return _is_lazy(copy)
