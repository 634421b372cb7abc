"""The bridge to autograd: a whole machine is one node of torch's graph, and its backward is the machine's own.

The backward receives dL/dy, turns it into a target, lets the machine accumulate by its own rule, and returns x - t_x as
the gradient of its inputs. Only callables pass through here, so nothing is known of machines.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from zenkai_core.values import IO

Run = Callable[[IO], tuple[IO, Any]]
"""inputs -> (outputs, memory of the pass)."""
Pull = Callable[[Any, tuple[Tensor, ...]], tuple[Tensor | None, ...]]
"""(memory, dL/dy per output) -> dL/dx per input."""

_ANCHOR = torch.zeros(
    (), requires_grad=True
)  # the first machine's input needs no gradient, and yet its backward must run


class _Bridge(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: Run, pull: Pull, anchor: Tensor, *x: Tensor) -> tuple[Tensor, ...]:
        with torch.enable_grad():  # a Function's forward runs without: the pass keeps a graph of its own
            y, ctx.memory = run(IO(*x))
        for i, value in enumerate(y):
            if not value.is_floating_point():
                raise TypeError(
                    f"a machine in autograd expected floating outputs, got {value.dtype} at output {i}: "
                    "integer outputs cut the graph; return votes or scores, or call it under no_grad"
                )
        ctx.pull = pull
        out = tuple(v.detach() for v in y)
        ctx.save_for_backward(*out)  # torch then raises when an output was changed in place: its target is made from it
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        _ = ctx.saved_tensors  # raises after the graph was freed or an output was changed in place
        memory, ctx.memory = ctx.memory, None
        if memory is None:
            raise RuntimeError(
                "a machine expected one backward for each forward pass, got a second: a target is "
                "accumulated once; run the forward pass again"
            )
        with torch.enable_grad():  # a Function's backward runs without
            return None, None, None, *ctx.pull(memory, grads)


def bridge(run: Run, pull: Pull, x: IO) -> tuple[Tensor, ...]:
    """Runs a pass as one node of autograd's graph.

    Args:
        run: makes the pass, under grad mode; its memory is kept for the backward.
        pull: called at most once, with the memory and dL/dy (zeros for an unused output); returns dL/dx or None.
        x: the inputs; the caller's tensors stay as they are.

    Returns:
        The outputs, joined to autograd's graph even where no input needs a gradient.

    Raises:
        TypeError: an output is not floating.
    """
    return _Bridge.apply(run, pull, _ANCHOR, *x)
