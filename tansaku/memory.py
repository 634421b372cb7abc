"""How many candidates fit into a memory budget, found by running one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Written(TorchDispatchMode):
    """Adds up the bytes of all storages that operators make."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        known = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        for x in tree_leaves(out):
            if isinstance(x, Tensor) and x.untyped_storage()._cdata not in known:
                known.add(x.untyped_storage()._cdata)
                self.bytes += x.untyped_storage().nbytes()
        return out


def chunk_within(budget: int, one: Callable[[], Any], candidate: int) -> int:
    """The number of candidates that may be evaluated at once.

    What one evaluation writes is counted as if it freed nothing, so that the budget is kept with room to spare.

    Args:
        budget: in bytes.
        one: evaluates a single candidate.
        candidate: bytes of one candidate's genes.

    Raises:
        ValueError: not even one candidate fits.
    """
    with torch.no_grad(), _Written() as written:
        one()
    need = written.bytes + candidate
    if need > budget:
        raise ValueError(
            f"expected memory >= {need} bytes, what one candidate takes, got {budget}; "
            "allow more or use smaller batches"
        )
    return max(1, budget // max(1, need))
