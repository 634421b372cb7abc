"""Fuzzy relations as layers: the or of ands (max-min composition), and its twin, the and of ors (min-max)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zenkai_core.checks import check_whole


class _Relation(nn.Module):
    """A matrix of degrees in [0, 1] between inputs and outputs."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        check_whole(type(self).__name__, inputs=inputs, outputs=outputs)
        if min(inputs, outputs) < 1:
            raise ValueError(
                f"{type(self).__name__} expected inputs and outputs >= 1, got {inputs} and {outputs}: say how many "
                "there are"
            )
        self.inputs, self.outputs = inputs, outputs
        self.weight = nn.Parameter(torch.rand(inputs, outputs))

    @property
    def degrees(self) -> Tensor:
        """`[inputs, outputs]` the weights as the layer uses them, within [0, 1]."""
        return _Within.apply(self.weight)

    def _pairs(self, x: Tensor) -> Tensor:
        """Inputs `[n, inputs]` against the columns of the weights: `[n, inputs, 1]`."""
        if x.ndim != 2 or x.shape[1] != self.inputs:
            raise ValueError(
                f"{type(self).__name__} expected inputs [n, {self.inputs}], got {list(x.shape)}: flatten the rows, or "
                "make it with inputs= that"
            )
        return x.unsqueeze(2)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"inputs={self.inputs}, outputs={self.outputs}"


class MaxMin(_Relation):
    """The or of ands: y_j = max_i min(x_i, w_ij), for degrees of truth x in [0, 1].

    Weights are degrees, uniform in [0, 1] at first, and stay there: one that a step has taken outside counts as the
    bound, and only a gradient that leads back inside reaches it (the projected gradient). The gradient of an output is
    that of the pair which decides it, shared where several do; a search needs none.

    Args:
        inputs: degrees that come in.
        outputs: degrees that go out.

    Raises:
        TypeError: a size is no whole number.
        ValueError: a size below 1, or inputs of another shape (at the call).

    >>> layer = MaxMin(2, 1)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.3], [0.9]]))
    >>> layer(torch.tensor([[1.0, 0.0], [1.0, 0.5]])).tolist() == [[0.30000001192092896], [0.5]]
    True

    Reference: Sanchez (1976), Resolution of composite fuzzy relation equations; as a neural layer Pedrycz (1993), Fuzzy
    neural networks and neurocomputations.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x: `[n, inputs]` -> `[n, outputs]`."""
        return torch.minimum(self._pairs(x), self.degrees).amax(1)


class MinMax(_Relation):
    """The and of ors: y_j = min_i max(x_i, w_ij), for degrees of truth x in [0, 1].

    The dual of `MaxMin`: 1 - MinMax(x; w) = MaxMin(1 - x; 1 - w). All else is as there.

    Args:
        inputs: degrees that come in.
        outputs: degrees that go out.

    Raises:
        TypeError: a size is no whole number.
        ValueError: a size below 1, or inputs of another shape (at the call).

    >>> layer = MinMax(2, 1)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.0], [0.5]]))
    >>> layer(torch.tensor([[1.0, 0.0], [0.25, 1.0]])).tolist()
    [[0.5], [0.25]]
    """

    def forward(self, x: Tensor) -> Tensor:
        """x: `[n, inputs]` -> `[n, outputs]`."""
        return torch.maximum(self._pairs(x), self.degrees).amin(1)


class _Within(torch.autograd.Function):
    """The nearest value in [0, 1]; backward lets nothing through that would lead a weight at a bound further out."""

    generate_vmap_rule = True

    @staticmethod
    def forward(w: Tensor) -> Tensor:
        return w.clamp(0.0, 1.0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (w,) = ctx.saved_tensors
        out = ((w <= 0) & (grad > 0)) | ((w >= 1) & (grad < 0))  # a step goes against the gradient
        return torch.where(out, torch.zeros_like(grad), grad)
