"""The bridge to autograd: a whole machine is one node of torch's graph, and its backward is the machine's own.

The backward receives dL/dy, turns it into a target, lets the machine accumulate by its own rule, and returns x - t_x as
the gradient of its inputs. The gradients that the rules compute are returned as those of the parameters, so that torch
stores them and runs the hooks. Only callables pass through here, so nothing is known of machines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from zenkai_core.gradients import skip_hooks_without_gradient
from zenkai_core.requested import Requested, requested
from zenkai_core.values import IO

Run = Callable[[IO], tuple[IO, Any]]
"""inputs -> (outputs, memory of the pass)."""
Pull = Callable[
    [Any, tuple[Tensor | None, ...], Requested], tuple[tuple[Tensor | None, ...], Mapping[Tensor, Tensor] | None]
]
"""(memory, dL/dy per output, what is requested) -> (dL/dx per input, parameter -> its gradient; None: none learned)."""

_ANCHOR = torch.zeros(
    (), requires_grad=True
)  # the first machine's input needs no gradient, and yet its backward must run


class _Bridge(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: Run, pull: Pull, inputs: int, anchor: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)  # an output that the loss does not use has no gradient, which is not zero
        with torch.enable_grad():  # a Function's forward runs without: the pass keeps a graph of its own
            y, ctx.memory = run(IO(*given[:inputs]))
        for i, value in enumerate(y):
            if not value.is_floating_point():
                raise TypeError(
                    f"a machine in autograd expected floating outputs, got {value.dtype} at output {i}: "
                    "integer outputs cut the graph; return votes or scores, or call it under no_grad"
                )
        ctx.pull, ctx.inputs, ctx.parameters = pull, inputs, given[inputs:]
        out = tuple(v.detach() for v in y)
        ctx.save_for_backward(*out)  # torch then raises when an output was changed in place: its target is made from it
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        _ = ctx.saved_tensors  # raises after the graph was freed or an output was changed in place
        if ctx.memory is None:
            raise RuntimeError(
                "a machine expected one backward for each forward pass, got a second: a target is "
                "accumulated once; run the forward pass again"
            )
        if all(g is None for g in grads):
            return (None,) * (4 + ctx.inputs + len(ctx.parameters))
        wanted = requested(_ANCHOR, ctx.parameters)
        memory = ctx.memory
        if wanted.learns(ctx.parameters):  # after `autograd.grad(loss, x, retain_graph=True)` a backward may follow
            ctx.memory = None
        with torch.enable_grad():  # a Function's backward runs without
            of_x, found = ctx.pull(memory, grads, wanted)
        found = found or {}
        skip_hooks_without_gradient(p for p in ctx.parameters if p not in found)
        return None, None, None, None, *of_x, *(found.get(p) for p in ctx.parameters)


def bridge(run: Run, pull: Pull, x: IO, parameters: Iterable[Tensor] = ()) -> tuple[Tensor, ...]:
    """Runs a pass as one node of autograd's graph.

    Args:
        run: makes the pass, under grad mode; its memory is kept for the backward.
        pull: called with the memory, dL/dy (None for an output that the loss does not use) and what the backward pass
            requests. It returns dL/dx or None for each input, and the gradients of the parameters.
        x: the inputs; the caller's tensors stay as they are.
        parameters: leaves that ask for a gradient, whose gradients `pull` may return.

    Returns:
        The outputs, joined to autograd's graph even where no input needs a gradient.

    Raises:
        TypeError: an output is not floating.
    """
    return _Bridge.apply(run, pull, len(x), _ANCHOR, *x, *parameters)
