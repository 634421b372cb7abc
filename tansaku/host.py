"""Values in the host's own memory: where reading one waits for nobody, a short cut may look before it goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Parameter

_apart: ContextVar[bool] = ContextVar("tansaku_apart", default=False)
_PLAIN = (Tensor, Parameter)
_wrapped = getattr(torch._C._functorch, "is_functorch_wrapped_tensor", lambda x: False)  # by vmap: without memory


def readable(x: Tensor) -> bool:
    """Whether the values of ``x`` can be read at no cost."""
    if torch.compiler.is_dynamo_compiling() or x.device.type != "cpu" or _apart.get():
        return False
    return type(x) in _PLAIN and not _wrapped(x)


def numeric(x: Tensor) -> bool:
    """Whether `array` gives the very numbers of ``x``, to compute with: readable, and of a dtype that numpy has."""
    return x.dtype != torch.bfloat16 and readable(x)


@contextmanager
def all_apart() -> Iterator[None]:
    """Within this, no tensor is `readable`: the host's memory is treated as a device's is."""
    token = _apart.set(True)
    try:
        yield
    finally:
        _apart.reset(token)


def array(x: Tensor) -> NDArray[np.generic]:
    """The same memory as numpy sees it; the bits of bfloat16, which numpy lacks, as whole numbers."""
    if x.requires_grad:
        x = x.detach()
    return (x.view(torch.int16) if x.dtype == torch.bfloat16 else x).numpy()
