"""The losses: squared, absolute and Huber errors, cross entropies, margin and zero-one, with torch's options."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zenkai_core.criteria.base import Cost
from zenkai_core.criteria.labels import (
    as_probabilities,
    check_number,
    check_same_shape,
    check_weight,
    index_errors,
    labels_of,
)
from zenkai_core.values import IO, exact_error


class _Loss(Cost):
    """A loss whose settings are its fields; the instances of this module copy and pickle as themselves.

    Args:
        settings: what the constructor was given, for `repr`.
    """

    def __init__(self, **settings: Any) -> None:
        changed = {name: value for name, value in settings.items() if value is not None}
        super().__init__(f"{type(self).__name__}({', '.join(f'{n}={_brief(v)}' for n, v in changed.items())})")

    def __reduce__(self) -> Any:
        return self.name if globals().get(self.name) is self else super().__reduce__()

    def __deepcopy__(self, memo: dict[int, Any]) -> _Loss:
        return self  # its settings never change


class SquaredError(_Loss):
    """0.5 * the sum of squared errors over all event dimensions (equation 3 of the paper).

    The gradient is y - t, or the error itself where a gradient made t from this very y.
    """

    distance = True

    def pair(self, y: Tensor, t: Tensor) -> Tensor:
        """See `Cost.pair`."""
        check_same_shape(self.name, y, t)
        return _rowsum((y - t).square()) * 0.5

    def pair_gradient(self, y: Tensor, t: Tensor) -> Tensor:
        """See `Cost.pair_gradient`."""
        check_same_shape(self.name, y, t)
        return y - t

    def gradient(self, y: IO, t: IO) -> tuple[Tensor | None, ...]:
        """The error that made the target, if it was made from this y; else y - t."""
        exact = exact_error(y, t)
        return super().gradient(y, t) if exact is None else exact


class AbsoluteError(_Loss):
    """The sum of absolute errors over all event dimensions."""

    distance = True

    def pair(self, y: Tensor, t: Tensor) -> Tensor:
        """See `Cost.pair`."""
        check_same_shape(self.name, y, t)
        return _rowsum((y - t).abs())

    def pair_gradient(self, y: Tensor, t: Tensor) -> Tensor:
        """See `Cost.pair_gradient`."""
        check_same_shape(self.name, y, t)
        return (y - t).sign().to(y.dtype)


class Huber(_Loss):
    """Half the squared error within `delta` of the target, linear beyond; the sum over all event dimensions.

    Args:
        delta: > 0, in units of the output.

    Raises:
        ValueError: delta is not positive.
    """

    distance = True

    def __init__(self, delta: float = 1.0) -> None:
        super().__init__(delta=delta)
        check_number("Huber", "delta", delta)
        if not delta > 0:
            raise ValueError(f"Huber expected delta > 0, got {delta}: give the error at which the loss becomes linear")
        self.delta = float(delta)

    def pair(self, y: Tensor, t: Tensor) -> Tensor:
        """See `Cost.pair`."""
        check_same_shape(self.name, y, t)
        return _rowsum(F.huber_loss(y, t.to(y.dtype), reduction="none", delta=self.delta))

    def pair_gradient(self, y: Tensor, t: Tensor) -> Tensor:
        """See `Cost.pair_gradient`."""
        check_same_shape(self.name, y, t)
        return (y - t.to(y.dtype)).clamp(-self.delta, self.delta)


class CrossEntropy(_Loss):
    """Cross entropy of logits `[n, classes, ...]` against labels `[n, ...]` or probabilities shaped as the logits.

    The cost of a row is the sum over its places. With `loss="mean"` a machine divides as torch does: by the sum of the
    weights of all counted labels, or by the number of places for probabilities. So `learn` reports, and follows, the
    value of `torch.nn.functional.cross_entropy` with the same arguments. A batch without a counted label costs 0.

    Args:
        weight: `[classes]` of each class; None for 1.
        label_smoothing: in [0, 1], the share of the target that is spread evenly over all classes.
        ignore_index: a label that costs nothing.

    Raises:
        TypeError, ValueError: a weight that is no tensor [classes], a share outside [0, 1], an ignore_index that is no
            whole number.

    >>> from zenkai_core import Machine, targets, theta
    >>> rare = CrossEntropy(weight=torch.tensor([1.0, 5.0]), label_smoothing=0.1)
    >>> layer = Machine(torch.nn.Linear(3, 2), theta.Gradient(), targets.Null(), rare)
    >>> x, labels = torch.randn(6, 3), torch.tensor([0, 1, 0, 0, 1, 0])
    >>> expected = F.cross_entropy(layer(x), labels, torch.tensor([1.0, 5.0]), label_smoothing=0.1)
    >>> torch.allclose(layer.learn(x, labels), expected)
    True
    """

    def __init__(self, weight: Tensor | None = None, label_smoothing: float = 0.0, ignore_index: int = -100) -> None:
        super().__init__(
            weight=weight,
            label_smoothing=label_smoothing or None,
            ignore_index=None if ignore_index == -100 else ignore_index,
        )
        check_number("CrossEntropy", "label_smoothing", label_smoothing)
        check_number("CrossEntropy", "ignore_index", ignore_index, whole=True)
        if not 0.0 <= label_smoothing <= 1.0:
            raise ValueError(f"CrossEntropy expected label_smoothing in [0, 1], got {label_smoothing}: give a share")
        self.weight = check_weight("CrossEntropy", "weight", weight)
        self.label_smoothing = float(label_smoothing)
        self.ignore_index = int(ignore_index)

    def pair(self, y: Tensor, t: Tensor) -> Tensor:
        """See `Cost.pair`."""
        t = self._target(y, t)
        with index_errors(self.name, y, t, self.ignore_index):
            return _rowsum(
                F.cross_entropy(
                    y,
                    t,
                    self._weight(y),
                    ignore_index=self.ignore_index,
                    label_smoothing=self.label_smoothing,
                    reduction="none",
                )
            )

    def pair_gradient(self, y: Tensor, t: Tensor) -> Tensor:
        """See `Cost.pair_gradient`; softmax(y) * sum(q) - q, with q the weighted and smoothed target."""
        if as_probabilities(y, t):
            t = self._target(y, t)
            q = self._smoothed(t, y)
            return y.softmax(1) * q.sum(1, keepdim=True) - q
        t = self._target(y, t).unsqueeze(1)
        p = y.softmax(1)
        counted = t != self.ignore_index
        index, counted = t * counted, counted.to(p.dtype)
        with index_errors(self.name, y, t, self.ignore_index):
            if self.weight is None and not self.label_smoothing:
                return p.mul_(counted).scatter_add_(1, index, -counted)
            q = self._smoothed(torch.zeros_like(p).scatter_(1, index, 1.0), y)
        return (p * q.sum(1, keepdim=True) - q) * counted

    def pair_normaliser(self, y: Tensor, t: Tensor) -> Tensor:
        """See `Cost.pair_normaliser`; the sum of the weights of the counted labels."""
        if as_probabilities(y, t):
            return torch.full((), y.numel() // max(1, y.shape[1]), device=y.device)
        t = self._target(y, t)
        counted = t != self.ignore_index
        if self.weight is None:
            return counted.sum()
        with index_errors(self.name, y, t, self.ignore_index):
            weight = self._weight(y)
            return torch.where(counted, torch.as_tensor(weight)[t * counted], 0.0).sum()

    def _target(self, y: Tensor, t: Tensor) -> Tensor:
        if not as_probabilities(y, t):
            return labels_of(self.name, y, t)
        check_same_shape(self.name, y, t)
        return t.to(y.dtype)

    def _weight(self, y: Tensor) -> Tensor | None:
        if self.weight is None:
            return None
        if len(self.weight) != y.shape[1]:
            raise ValueError(
                f"CrossEntropy expected a weight for each of {y.shape[1]} classes, got {len(self.weight)}: give "
                "weight= a tensor [classes]"
            )
        return self.weight.to(y.device, y.dtype)

    def _smoothed(self, target: Tensor, y: Tensor) -> Tensor:
        """The target with its share spread over the classes, times the weights."""
        q = target * (1 - self.label_smoothing) + self.label_smoothing / y.shape[1]
        weight = self._weight(y)
        return q if weight is None else q * weight.view(-1, *(1,) * (y.ndim - 2))


class BinaryCrossEntropy(_Loss):
    """Binary cross entropy of logits against targets in [0, 1]; the sum over all event dimensions.

    Args:
        weight: of each output, a tensor that broadcasts against [*event_shape]; None for 1.
        pos_weight: of the positive part of the cost, a tensor that broadcasts against [*event_shape]; None for 1.

    Raises:
        TypeError: a weight that is no tensor.
    """

    def __init__(self, weight: Tensor | None = None, pos_weight: Tensor | None = None) -> None:
        super().__init__(weight=weight, pos_weight=pos_weight)
        self.weight = check_weight("BinaryCrossEntropy", "weight", weight, per_class=False)
        self.pos_weight = check_weight("BinaryCrossEntropy", "pos_weight", pos_weight, per_class=False)

    def pair(self, y: Tensor, t: Tensor) -> Tensor:
        """See `Cost.pair`."""
        check_same_shape(self.name, y, t)
        weight, pos_weight = (None if w is None else w.to(y.device, y.dtype) for w in (self.weight, self.pos_weight))
        return _rowsum(
            F.binary_cross_entropy_with_logits(y, t.to(y.dtype), weight, reduction="none", pos_weight=pos_weight)
        )

    def pair_gradient(self, y: Tensor, t: Tensor) -> Tensor:
        """See `Cost.pair_gradient`; weight * (((pos_weight - 1) t + 1) sigmoid(y) - pos_weight t)."""
        check_same_shape(self.name, y, t)
        t = t.to(y.dtype)
        if self.pos_weight is None:
            error = y.sigmoid() - t
        else:
            positive = self.pos_weight.to(y.device, y.dtype)
            error = ((positive - 1) * t + 1) * y.sigmoid() - positive * t
        return error if self.weight is None else error * self.weight.to(y.device, y.dtype)


class Margin(_Loss):
    """How far the right class falls short of the best wrong one by a margin (multi-class hinge); labels `[n, ...]`.

    Args:
        margin: > 0, in units of the output.
        ignore_index: a label that costs nothing.

    Raises:
        ValueError: margin is not positive.
    """

    def __init__(self, margin: float = 1.0, ignore_index: int = -100) -> None:
        super().__init__(margin=margin, ignore_index=None if ignore_index == -100 else ignore_index)
        check_number("Margin", "margin", margin)
        check_number("Margin", "ignore_index", ignore_index, whole=True)
        if not margin > 0:
            raise ValueError(f"Margin expected margin > 0, got {margin}: 1.0 is the usual one")
        self.margin = float(margin)
        self.ignore_index = int(ignore_index)

    def pair(self, y: Tensor, t: Tensor) -> Tensor:
        """See `Cost.pair`."""
        t = labels_of(self.name, y, t)
        counted = t != self.ignore_index
        index = (t * counted).unsqueeze(1)
        with index_errors(self.name, y, t, self.ignore_index):
            right = y.gather(1, index)
        wrong = y.scatter(1, index, -torch.inf).amax(1)
        return _rowsum((self.margin + wrong - right.squeeze(1)).clamp_min(0) * counted)


class ZeroOne(_Loss):
    """1 where the highest output is not the label, 0 for `ignore_index`; no gradient, for searches and reports.

    Args:
        ignore_index: a label that costs nothing.
    """

    def __init__(self, ignore_index: int = -100) -> None:
        super().__init__(ignore_index=None if ignore_index == -100 else ignore_index)
        check_number("ZeroOne", "ignore_index", ignore_index, whole=True)
        self.ignore_index = int(ignore_index)

    def pair(self, y: Tensor, t: Tensor) -> Tensor:
        """See `Cost.pair`."""
        t = labels_of(self.name, y, t)
        wrong = (y.argmax(1) != t) & (t != self.ignore_index)
        return _rowsum(wrong.to(y.dtype if y.is_floating_point() else torch.get_default_dtype()))


def _rowsum(v: Tensor) -> Tensor:
    return v.flatten(1).sum(1) if v.ndim > 1 else v


def _brief(value: Any) -> str:
    return f"tensor{list(value.shape)}" if isinstance(value, Tensor) else repr(value)


def _named(name: str, loss: Any) -> Any:
    loss.name = name
    return loss


sse: SquaredError = _named("sse", SquaredError())
"""0.5 * the sum of squared errors, see `SquaredError`."""
absolute_error: AbsoluteError = _named("absolute_error", AbsoluteError())
"""The sum of absolute errors."""
huber: Huber = _named("huber", Huber())
"""Squared (halved) within 1 of the target, linear beyond, summed; see `Huber`."""
cross_entropy: CrossEntropy = _named("cross_entropy", CrossEntropy())
"""Cross entropy of logits against labels (-100 costs nothing) or probabilities, see `CrossEntropy`."""
binary_cross_entropy: BinaryCrossEntropy = _named("binary_cross_entropy", BinaryCrossEntropy())
"""Binary cross entropy of logits against targets in [0, 1], summed; see `BinaryCrossEntropy`."""
margin: Margin = _named("margin", Margin())
"""Multi-class hinge with a margin of 1, see `Margin`."""
zero_one: ZeroOne = _named("zero_one", ZeroOne())
"""1 where the highest output is not the label, see `ZeroOne`."""
