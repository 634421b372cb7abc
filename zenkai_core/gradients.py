"""Parameter gradients of learning rules, stored as torch stores them: accumulated, and with the parameters' hooks.

A rule writes to `.grad` by itself, so that torch's engine would not know of it. `captured` collects what rules write
during a call. `deliver` hands gradients to torch's engine, which runs the hooks of the parameters and accumulates.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

Pairs = Iterable[tuple[Tensor, Tensor | None]]


class _Captures(threading.local):
    depth = 0  # how many `captured` blocks the thread is in


_captures = _Captures()


def capturing() -> bool:
    """Whether a `captured` block of this thread is open."""
    return _captures.depth > 0


@contextmanager
def captured(parameters: Iterable[Tensor]) -> Iterator[dict[Tensor, Tensor]]:
    """Collects the gradients that are written inside; `.grad` is afterwards what it was before.

    Hooks of the parameters do not run inside. Whoever hands the gradients on runs them, once.

    Args:
        parameters: whose `.grad` is watched.

    Yields:
        A dictionary that maps each parameter to its gradient; it is filled when the block ends without an error.
    """
    held = [(p, p.grad) for p in dict.fromkeys(parameters)]
    found: dict[Tensor, Tensor] = {}
    for p, _ in held:
        p.grad = None
    _captures.depth += 1
    try:
        with without_hooks(p for p, _ in held):
            yield found
            found.update((p, p.grad) for p, _ in held if p.grad is not None)
    finally:
        _captures.depth -= 1
        for p, grad in held:
            p.grad = grad


@contextmanager
def without_hooks(parameters: Iterable[Tensor]) -> Iterator[None]:
    """Autograd inside computes gradients of the parameters without running their hooks."""
    hooked: list[Any] = [p for p in parameters if has_hooks(p)]
    kept = [(p, p._backward_hooks, p._post_accumulate_grad_hooks) for p in hooked]
    try:
        for p, _, after in kept:
            p._backward_hooks = None
            if after:
                p._post_accumulate_grad_hooks = OrderedDict()  # None would leave the old table in use
        yield
    finally:
        for p, before, after in kept:
            p._backward_hooks = before
            if after:
                p._post_accumulate_grad_hooks = after


def has_hooks(p: Any) -> bool:
    """Whether `register_hook` or `register_post_accumulate_grad_hook` of the tensor is in use."""
    return bool(p._backward_hooks) or bool(p._post_accumulate_grad_hooks)


def deliver(pairs: Pairs) -> None:
    """Adds gradients to `.grad`, and runs the parameters' hooks as `backward()` does.

    Inside `captured` the hooks wait for the gradients' own delivery.
    """
    pairs = [(p, g if g.dtype == p.dtype else g.to(p.dtype)) for p, g in pairs if g is not None]
    hooked = [] if _captures.depth else [(p, g) for p, g in pairs if has_hooks(p) and p.requires_grad]
    if hooked:
        torch.autograd.backward([p for p, _ in hooked], [g for _, g in hooked])
        done = {p for p, _ in hooked}
        pairs = [(p, g) for p, g in pairs if p not in done]
    add_gradients(pairs)


def add_gradients(pairs: Pairs) -> None:
    """Adds to the `.grad` of each parameter, in its dtype; a gradient that shares storage with another is copied."""
    seen: set[int] = set()
    for p, g in pairs:
        if g is None:
            continue
        if g.dtype != p.dtype:  # under autocast a rule may have worked in a shorter one
            g = g.to(p.dtype)
        if p.grad is not None:
            p.grad = p.grad + g
            continue
        if g.layout is not torch.strided:  # a sparse gradient has no storage to compare
            p.grad = g.clone()
            continue
        where = g.untyped_storage().data_ptr()
        p.grad = g.clone() if where in seen else g
        seen.add(where)


def skip_hooks_without_gradient(parameters: Iterable[Tensor]) -> None:
    """Until the running backward pass ends, the parameters' hooks run only if a gradient arrives.

    torch calls the hooks of a custom function's input with None where the function returns no gradient for it. A
    parameter that a plain network does not use is not in the graph, and its hooks are not called.
    """
    hooked: list[Any] = [p for p in parameters if has_hooks(p) and not isinstance(p._backward_hooks, _Guarded)]
    kept = [(p, p._backward_hooks, p._post_accumulate_grad_hooks) for p in hooked]
    if not kept:
        return
    for p, before, after in kept:
        arrived = [False]
        p._backward_hooks = _Guarded(before or {}, arrived)
        if after:
            p._post_accumulate_grad_hooks = OrderedDict({0: _only_after(arrived, list(after.values()))})

    def restore() -> None:
        for p, before, after in kept:
            p._backward_hooks = before
            if after:
                p._post_accumulate_grad_hooks = after

    engine: Any = torch.autograd.Variable._execution_engine
    engine.queue_callback(restore)


class _Guarded(OrderedDict[int, Callable[[Tensor | None], Any]]):
    """A table with one hook, which calls the hooks given unless the gradient is None."""

    def __init__(self, hooks: dict[int, Callable[[Tensor], Any]], arrived: list[bool]) -> None:
        def guarded(g: Tensor | None) -> Tensor | None:
            arrived[0] = g is not None
            if g is None:
                return None
            for hook in list(hooks.values()):
                changed = hook(g)
                g = g if changed is None else changed
            return g

        super().__init__({0: guarded})


def _only_after(arrived: list[bool], hooks: list[Callable[[Tensor], None]]) -> Callable[[Tensor], None]:
    def guarded(p: Tensor) -> None:
        if arrived[0]:
            for hook in hooks:
                hook(p)

    return guarded
