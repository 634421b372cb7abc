"""Costs per row: a criterion maps an output and its target to `[n]` and never reduces over rows.

Inside a network the target of a layer is t = y - dL/dy (equation 2 of the paper), and 0.5 * the sum of squared errors
(equation 3) has exactly dL/dy as its gradient: therefore `sse` sums and halves. A criterion may offer a closed form,
`criterion.gradient(y, t)`, which spares the graph of the cost; others are differentiated by autograd. It may say
`criterion.distance`: whether a target is a place among the outputs, where the cost is least; labels and probabilities
for logits are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zenkai_core.values import IO, exact_error, no_io

Criterion = Callable[[IO, IO], Tensor]
"""(y, t) -> `[n]` cost per row."""

_IGNORED = -100
_OURS = {  # torch's loss, as function and as module -> our criterion
    "mse_loss": "zenkai_core.sse",
    "MSELoss": "zenkai_core.sse",
    "l1_loss": "zenkai_core.criteria.absolute_error",
    "L1Loss": "zenkai_core.criteria.absolute_error",
    "huber_loss": "zenkai_core.criteria.huber",
    "HuberLoss": "zenkai_core.criteria.huber",
    "cross_entropy": "zenkai_core.cross_entropy",
    "CrossEntropyLoss": "zenkai_core.cross_entropy",
    "binary_cross_entropy_with_logits": "zenkai_core.criteria.binary_cross_entropy",
    "BCEWithLogitsLoss": "zenkai_core.criteria.binary_cross_entropy",
    "multi_margin_loss": "zenkai_core.criteria.margin",
    "MultiMarginLoss": "zenkai_core.criteria.margin",
}


class Cost:
    """A criterion made of a function per pair of tensors; the costs of several pairs are added.

    Args:
        name: how it prints.
        pair: (y `[n, ...]`, t) -> `[n]`.
        gradient: (y, t) -> dcost/dy, shaped as y; None leaves it to autograd.
        distance: whether the cost is least where y is t.
    """

    def __init__(
        self,
        name: str,
        pair: Callable[[Tensor, Tensor], Tensor],
        gradient: Callable[[Tensor, Tensor], Tensor] | None = None,
        *,
        distance: bool = False,
    ) -> None:
        self.name = name
        self.distance = distance
        self._pair = pair
        self._gradient = gradient

    def __call__(self, y: IO, t: IO) -> Tensor:
        """The cost per row, `[n]`.

        Raises:
            TypeError: y or t is a bare tensor.
            ValueError: y and t differ in the number of tensors, or in a shape.
        """
        self._check(y, t)
        total = self._pair(y[0], t[0])
        for a, b in zip(y[1:], t[1:], strict=True):
            total = total + self._pair(a, b)
        return total

    def gradient(self, y: IO, t: IO) -> tuple[Tensor | None, ...]:
        """dcost/dy per tensor of y, None for an integer output; y is treated as a constant."""
        if self._gradient is None:
            return _by_autograd(self, y, t)
        self._check(y, t)
        pairs = zip(y, t, strict=True)
        with torch.no_grad():
            return tuple(self._gradient(a.detach(), b) if a.is_floating_point() else None for a, b in pairs)

    def _check(self, y: IO, t: IO) -> None:
        if not (isinstance(y, IO) and isinstance(t, IO)):
            raise no_io(self.name, *(("t", t) if isinstance(y, IO) else ("y", y)))
        if len(y) != len(t) or not y:
            raise ValueError(
                f"{self.name} expected as many targets as outputs (at least one), got {len(t)} for "
                f"{len(y)}: give one target per output"
            )

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> str:
        return self.name  # the module's own object: a copied or pickled machine keeps its criterion


class _SquaredErrors(Cost):
    """`sse`, whose gradient y - t is exact where t was made from y by a gradient."""

    def gradient(self, y: IO, t: IO) -> tuple[Tensor | None, ...]:
        """The error that made the target, if it was made from this y; else y - t."""
        exact = exact_error(y, t)
        return super().gradient(y, t) if exact is None else exact


def per_row(cost: Tensor, y: IO, name: str = "criterion") -> Tensor:
    """The cost, if it has one value per row of y.

    Raises:
        ValueError: it was reduced over the rows, or not over the features.
    """
    got = list(cost.shape) if isinstance(cost, Tensor) else type(cost).__name__
    if got != [y.rows]:
        remedy = "sum over all dimensions but the first" if isinstance(got, list) and len(got) > 1 else "do not reduce"
        raise ValueError(f"{name} expected one cost per row [{y.rows}], got {got}: {remedy}")
    return cost


def checked(criterion: Criterion) -> Criterion:
    """The criterion, if it can be one.

    Raises:
        TypeError: it is no callable, or a loss of torch, which takes tensors and reduces.
    """
    of_torch = isinstance(criterion, nn.Module) and type(criterion).__module__.startswith("torch.")
    if of_torch or getattr(criterion, "__module__", None) == "torch.nn.functional" or not callable(criterion):
        name = getattr(criterion, "__name__", type(criterion).__name__)
        ours = _OURS.get(name, "one of zenkai_core.criteria")
        raise TypeError(
            f"Machine expected a criterion (y: IO, t: IO) -> [n] cost per row, got {name}: take {ours}, or "
            "write lambda y, t: F.mse_loss(y.f, t.f, reduction='none').flatten(1).sum(1)"
        )
    return criterion


def output_gradient(criterion: Criterion, y: IO, t: IO) -> tuple[Tensor | None, ...]:
    """dcost/dy per row and tensor of y, for any criterion: its closed form if it has one, else by autograd."""
    closed: Any = getattr(criterion, "gradient", None)
    return closed(y, t) if closed is not None else _by_autograd(criterion, y, t)


def is_distance(criterion: Criterion) -> bool | None:
    """Whether a target is a place among the outputs, where the cost is least; None where the criterion does not say."""
    return getattr(criterion, "distance", None)


def _by_autograd(criterion: Criterion, y: IO, t: IO) -> tuple[Tensor | None, ...]:
    with torch.enable_grad():
        leaves = y.leaves(requires_grad=True)
        wanted = [v for v in leaves if v.requires_grad]
        cost = per_row(criterion(leaves, t), y).sum()
        if wanted and not cost.requires_grad:
            name = getattr(criterion, "__name__", repr(criterion))
            raise RuntimeError(
                f"a rule that asks for gradients expected a criterion with one, got {name}, which cuts autograd's "
                "graph: take a smooth one, or rules that search"
            )
        grads = iter(torch.autograd.grad(cost, wanted, allow_unused=True))
    return tuple(next(grads) if v.requires_grad else None for v in leaves)


def _same_shape(name: str, y: Tensor, t: Tensor) -> None:
    if y.shape != t.shape:
        raise ValueError(
            f"{name} expected a target shaped as the output {list(y.shape)}, got {list(t.shape)}: "
            f"{_rows_differ(y, t) or 'reshape the target; nothing is broadcast'}"
        )


def _labels(name: str, y: Tensor, t: Tensor) -> Tensor:
    """The labels as int64, where -100 marks a row that costs nothing, as in torch."""
    if t.is_floating_point() or not _as_labels(y, t):
        raise ValueError(
            f"{name} expected outputs [n, classes, ...] and integer labels [n, ...], got {list(y.shape)} "
            f"and {t.dtype} {list(t.shape)}: {_remedy(y, t)}"
        )
    return t.long()


def _remedy(y: Tensor, t: Tensor) -> str:
    """How to make labels for y of t, which are none."""
    if _as_labels(y, t):
        return "make them integers, t.long()"
    if y.ndim < 2:
        return "let the layer put out a score for each class"
    if differ := _rows_differ(y, t):
        return differ
    if t.ndim == y.ndim and t.shape[1] == 1 and t.shape[2:] == y.shape[2:]:
        return "drop the dimension of one, t.squeeze(1)" + (".long()" if t.is_floating_point() else "")
    if t.shape == y.shape:
        return "give class indices, t.argmax(1) for scores or one-hots"
    return f"give class indices {[y.shape[0], *y.shape[2:]]}, one for each row and place"


def _rows_differ(y: Tensor, t: Tensor) -> str | None:
    """The remedy where there are not as many targets as rows."""
    if t.ndim and t.shape[0] == y.shape[0]:
        return None
    return f"give a target for each of the {y.shape[0]} rows"


def _as_labels(y: Tensor, t: Tensor) -> bool:
    """Whether t has the shape of labels for y."""
    return y.ndim > 1 and t.shape == (y.shape[0], *y.shape[2:])


def _as_probabilities(y: Tensor, t: Tensor) -> bool:
    """Whether t is meant as probabilities: floats that are no labels, nor a column of them."""
    column = t.ndim == y.ndim > 1 and t.shape[1] == 1 != y.shape[1]
    return t.is_floating_point() and not column and not _as_labels(y, t)


@contextmanager
def _indexing(name: str, y: Tensor, t: Tensor) -> Iterator[None]:
    """Says which label has no class, where torch finds one; on other devices than the CPU it cannot say which."""
    try:
        yield
    except (IndexError, RuntimeError) as error:
        wrong = t[((t < 0) & (t != _IGNORED)) | (t >= y.shape[1])] if t.device.type == "cpu" else t[:0]
        if not len(wrong):
            raise
        raise ValueError(
            f"{name} expected labels in [0, {y.shape[1]}), or {_IGNORED} for a row that costs nothing, got "
            f"{int(wrong[0])}: number the classes from 0"
        ) from error


def _rowsum(v: Tensor) -> Tensor:
    return v.flatten(1).sum(1) if v.ndim > 1 else v


def _sse(y: Tensor, t: Tensor) -> Tensor:
    _same_shape("sse", y, t)
    return _rowsum((y - t).square()) * 0.5


def _sse_gradient(y: Tensor, t: Tensor) -> Tensor:
    _same_shape("sse", y, t)
    return y - t


def _absolute(y: Tensor, t: Tensor) -> Tensor:
    _same_shape("absolute_error", y, t)
    return _rowsum((y - t).abs())


def _absolute_gradient(y: Tensor, t: Tensor) -> Tensor:
    _same_shape("absolute_error", y, t)
    return (y - t).sign().to(y.dtype)


def _huber(y: Tensor, t: Tensor) -> Tensor:
    _same_shape("huber", y, t)
    return _rowsum(F.huber_loss(y, t.to(y.dtype), reduction="none"))


def _huber_gradient(y: Tensor, t: Tensor) -> Tensor:
    _same_shape("huber", y, t)
    return (y - t.to(y.dtype)).clamp(-1, 1)


def _cross_entropy(y: Tensor, t: Tensor) -> Tensor:
    if _as_probabilities(y, t):
        _same_shape("cross_entropy", y, t)
    else:
        t = _labels("cross_entropy", y, t)
    with _indexing("cross_entropy", y, t):
        return _rowsum(F.cross_entropy(y, t, reduction="none"))


def _cross_entropy_gradient(y: Tensor, t: Tensor) -> Tensor:
    if _as_probabilities(y, t):
        _same_shape("cross_entropy", y, t)
        return y.softmax(1) * t.sum(1, keepdim=True) - t
    t = _labels("cross_entropy", y, t).unsqueeze(1)
    p = y.softmax(1)
    counted = t != _IGNORED
    index, counted = t * counted, counted.to(p.dtype)
    with _indexing("cross_entropy", y, t):
        return p.mul_(counted).scatter_add_(1, index, -counted)


def _binary_cross_entropy(y: Tensor, t: Tensor) -> Tensor:
    _same_shape("binary_cross_entropy", y, t)
    return _rowsum(F.binary_cross_entropy_with_logits(y, t.to(y.dtype), reduction="none"))


def _binary_cross_entropy_gradient(y: Tensor, t: Tensor) -> Tensor:
    _same_shape("binary_cross_entropy", y, t)
    return y.sigmoid() - t.to(y.dtype)


def _margin(y: Tensor, t: Tensor) -> Tensor:
    t = _labels("margin", y, t)
    counted = t != _IGNORED
    index = (t * counted).unsqueeze(1)
    with _indexing("margin", y, t):
        right = y.gather(1, index)
    wrong = y.scatter(1, index, -torch.inf).amax(1)
    return _rowsum((1 + wrong - right.squeeze(1)).clamp_min(0) * counted)


def _zero_one(y: Tensor, t: Tensor) -> Tensor:
    t = _labels("zero_one", y, t)
    wrong = (y.argmax(1) != t) & (t != _IGNORED)
    return _rowsum(wrong.to(y.dtype if y.is_floating_point() else torch.get_default_dtype()))


sse = _SquaredErrors("sse", _sse, _sse_gradient, distance=True)
"""0.5 * the sum of squared errors over all event dimensions (equation 3); its gradient is y - t, or the
error itself where a gradient made t from this very y."""
absolute_error = Cost("absolute_error", _absolute, _absolute_gradient, distance=True)
"""The sum of absolute errors."""
huber = Cost("huber", _huber, _huber_gradient, distance=True)
"""Squared (halved) within 1 of the target, linear beyond, summed."""
cross_entropy = Cost("cross_entropy", _cross_entropy, _cross_entropy_gradient)
"""Cross entropy of logits `[n, classes, ...]` against labels `[n, ...]` (-100 costs nothing) or
probabilities shaped as the logits."""
binary_cross_entropy = Cost("binary_cross_entropy", _binary_cross_entropy, _binary_cross_entropy_gradient)
"""Binary cross entropy of logits against targets in [0, 1], summed."""
margin = Cost("margin", _margin)
"""How far the right class falls short of the best wrong one by a margin of 1 (multi-class hinge); -100 as above."""
zero_one = Cost("zero_one", _zero_one)
"""1 where the highest output is not the label (0 for -100); no gradient, for searches and reports."""
