"""Any Python callable as a layer: nothing is known of it but what it answers, and every question is counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tansaku import functional


class BlackBox(nn.Module):
    """Calls ``fn`` on the rows that come in, as a layer in the middle of a network, without a gradient.

    A rule that searches (`targets.SearchX`) trains through it, whatever happens inside: a formula in plain Python, a
    simulator, a table, a lottery of integers. All candidates of a search go to ``fn`` together, as rows of one call.

    ``fn`` receives copies of its inputs, which take memory only if something writes into them: it may change them, and
    the network does not see it.

    Args:
        fn: (*inputs) -> outputs, with as many inputs as the layer has. ``vectorized``: tensors `[n, ...]` ->
            `[n, ...]`, a tensor, an array, or a list with an entry per row. Otherwise one row at a time, in Python's
            own numbers and lists of them -> a number, a list or a tensor. A tuple is several outputs.
        vectorized: whether fn takes all rows at once.
        choices: whether an input `[n, classes, ...]` of logits or one-hots stands for discrete choices: fn is given
            the chosen classes as integers `[n, ...]`, the largest along dimension 1, ties by the lower index.

    Attributes:
        calls: how often fn was called.
        rows: of how many rows it was asked.

    Outputs are floating, in the dtype of the first floating input, so that any criterion takes them.

    Raises:
        TypeError: fn is no callable, or answers something that is no number.
        ValueError: fn answers another number of rows, choices are asked of an input without classes, or a function of
            one row is given none (at the call).

    >>> box = BlackBox(lambda a, b: a * b % 3, vectorized=False, choices=True)
    >>> box(torch.eye(3), torch.eye(3)).tolist()
    [0.0, 1.0, 1.0]
    >>> box.calls, box.rows
    (3, 3)
    """

    differentiable = False

    def __init__(self, fn: Callable[..., Any], *, vectorized: bool = True, choices: bool = False) -> None:
        super().__init__()
        if not callable(fn):
            raise TypeError(f"BlackBox expected a callable, got {type(fn).__name__}: give a function of the inputs")
        self.fn, self.vectorized, self.choices = fn, vectorized, choices
        self.calls = 0
        self.rows = 0

    def forward(self, *x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """What fn answers for the rows, `[n, ...]` each."""
        y = _Asked.apply(self, *(v.detach() for v in x))
        return y[0] if len(y) == 1 else y

    def ask(self, *x: Tensor) -> tuple[Tensor, ...]:
        """The answers as tensors, counted."""
        n = x[0].shape[0] if x else 0
        floating = (v.dtype for v in x if v.is_floating_point())
        dtype, device = next(floating, torch.get_default_dtype()), x[0].device if x else None
        given = tuple(self._chosen(v) for v in x) if self.choices else x
        self.rows += n
        if self.vectorized:
            self.calls += 1
            answers = _several(self.fn(*map(functional.lazy_copy, given)))
        else:
            if not n:
                raise ValueError(
                    "BlackBox expected rows, got none for a function of one row: its outputs are known by its answers "
                    "alone; leave the empty batch out, or say vectorized=True for a function of all rows"
                )
            self.calls += n
            rows = [_several(self.fn(*row)) for row in zip(*(v.tolist() for v in given), strict=True)]
            answers = tuple(_stacked(values) for values in zip(*rows, strict=True))
        found = tuple(self._tensor(a, dtype, device) for a in answers)
        for v in found:
            if v.ndim == 0 or v.shape[0] != n:
                raise ValueError(
                    f"BlackBox expected fn to answer {n} rows, got shape {list(v.shape)}: return one entry per row, or "
                    "say vectorized=False for a function of one row"
                )
        return found

    def _chosen(self, x: Tensor) -> Tensor:
        if x.ndim < 2 or not x.is_floating_point():
            raise ValueError(
                f"BlackBox with choices expected logits or one-hots [n, classes, ...], got {x.dtype} {list(x.shape)}: "
                "leave choices out for values that are no choices"
            )
        return x.argmax(1)

    def _tensor(self, answer: Any, dtype: torch.dtype, device: torch.device | None) -> Tensor:
        try:
            return torch.as_tensor(answer).to(device=device, dtype=dtype, copy=True)  # fn may reuse its memory
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(
                f"BlackBox expected fn to answer numbers, got {type(answer).__name__} ({error}): return a tensor, an "
                "array or a list of numbers"
            ) from error

    def extra_repr(self) -> str:
        """What `print` shows."""
        name = getattr(self.fn, "__name__", type(self.fn).__name__)
        return f"{name}, vectorized={self.vectorized}, choices={self.choices}"


class _Asked(torch.autograd.Function):
    """The call itself; under vmap the candidates become rows, so that fn sees ordinary tensors."""

    @staticmethod
    def forward(box: BlackBox, *x: Tensor) -> tuple[Tensor, ...]:
        return box.ask(*x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise AssertionError  # never reached: no output has a gradient

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], box: BlackBox, *x: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        k = info.batch_size
        rows = [
            (v.expand(k, *v.shape) if dim is None else v.movedim(dim, 0)).flatten(0, 1)
            for v, dim in zip(x, in_dims[1:], strict=True)
        ]
        y = _Asked.apply(box, *rows)
        return tuple(v.unflatten(0, (k, -1)) for v in y), (0,) * len(y)


def _several(answer: Any) -> tuple[Any, ...]:
    return answer if isinstance(answer, tuple) else (answer,)


def _stacked(values: tuple[Any, ...]) -> Any:
    return torch.stack(values) if isinstance(values[0], Tensor) else list(values)
