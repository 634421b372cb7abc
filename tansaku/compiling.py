"""Kernels compiled by TorchInductor: one pass over memory in place of one for every operation.

`torch.compile` checks its guards at every call, which takes as long as a dozen small operations. A kernel here is a
function without branches, traced once for the layout of its arguments, and afterwards called without a question.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

_made: dict[Hashable, Callable[..., Any]] = {}


def run_compiled(name: Hashable, make: Callable[[], Callable[..., None]], *tensors: Tensor) -> None:
    """Calls the compiled kernel; the first call with arguments of a layout compiles it, which takes seconds.

    Args:
        name: of the kernel, with the constants in it; two kernels of one name must be the same.
        make: the kernel, a function of tensors that writes its results into some of them and branches nowhere.
        tensors: its arguments, of one dtype and on one device but for single numbers; none requires a gradient.

    Raises:
        RuntimeError: nothing here can compile.
    """
    shapes = [x.shape if x.is_contiguous() else (x.shape, x.stride()) for x in tensors]
    layout = (name, tensors[0].dtype, tensors[0].device, *shapes)
    kernel = _made.get(layout)
    if kernel is None:
        kernel = _made[layout] = _compiled(make(), tensors)
    kernel(*tensors)


def _compiled(kernel: Callable[..., None], tensors: tuple[Tensor, ...]) -> Callable[..., Any]:
    import torch._inductor as inductor  # heavy, and wanted by few

    try:
        with torch.no_grad():
            return inductor.compile(torch.fx.symbolic_trace(kernel), list(tensors))
    except Exception as error:  # whatever a compiler may raise
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise RuntimeError(
            f"expected a compiler for compile=True, got none that works ({reason[0]}); "
            "install g++ (on a GPU Triton), or leave compile out"
        ) from error
