"""What a criterion is: the base class of the losses, checks of a user's criterion, gradients and means."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from zenkai_core.values import IO, Target, no_io

Criterion = Callable[[IO, IO], Tensor]
"""(y, t) -> `[n]` cost per row."""

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


class Cost(ABC):
    """Base class of the losses: a function of one output tensor and its target; the costs of several pairs are added.

    A subclass defines `pair`, and as needed `pair_gradient` and `pair_normaliser`.

    Args:
        name: how it prints; the instances of `zenkai_core.criteria` print as their own names.

    Attributes:
        distance: whether the target is a point among the outputs, where the cost is least.
    """

    distance: bool = False

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def pair(self, y: Tensor, t: Tensor) -> Tensor:
        """(y `[n, ...]`, its target) -> `[n]`."""

    def pair_gradient(self, y: Tensor, t: Tensor) -> Tensor | None:
        """dcost/dy in closed form, shaped as y; None leaves it to autograd."""
        return None

    def pair_normaliser(self, y: Tensor, t: Tensor) -> Tensor | None:
        """`[]` what torch divides the sum of the costs by for their mean; None for the number of rows."""
        return None

    def __call__(self, y: IO, t: IO) -> Tensor:
        """The cost per row, `[n]`.

        Raises:
            TypeError: y or t is a bare tensor; t is a point among the outputs, and the loss takes labels or
                probabilities.
            ValueError: y and t differ in the number of tensors, or in a shape.
        """
        self._check(y, t)
        total = self.pair(y[0], t[0])
        for a, b in zip(y[1:], t[1:], strict=True):
            total = total + self.pair(a, b)
        return total

    def gradient(self, y: IO, t: IO) -> tuple[Tensor | None, ...]:
        """dcost/dy per tensor of y, None for an integer output; y is treated as a constant."""
        self._check(y, t)
        found: list[Tensor | None] = []
        for a, b in zip(y, t, strict=True):
            if not a.is_floating_point():
                found.append(None)
                continue
            with torch.no_grad():
                closed = self.pair_gradient(a.detach(), b)
            if closed is None:
                return by_autograd(self, y, t)
            found.append(closed)
        return tuple(found)

    def _check(self, y: IO, t: IO) -> None:
        if not (isinstance(y, IO) and isinstance(t, IO)):
            raise no_io(self.name, *(("t", t) if isinstance(y, IO) else ("y", y)))
        if isinstance(t, Target) and not self.distance:
            raise unsuitable_target("a layer", self)
        if len(y) != len(t) or not y:
            raise ValueError(
                f"{self.name} expected as many targets as outputs (at least one), got {len(t)} for "
                f"{len(y)}: give one target per output"
            )

    def __repr__(self) -> str:
        return self.name


class AveragedCost(Cost):
    """A `Cost` whose mean over rows is torch's mean: each pair's costs are multiplied by rows / normaliser."""

    def __init__(self, cost: Cost) -> None:
        super().__init__(cost.name)
        self.cost = cost
        self.distance = cost.distance

    def pair(self, y: Tensor, t: Tensor) -> Tensor:
        """See `Cost.pair`."""
        cost = self.cost.pair(y, t)
        factor = self._factor(y, t)
        return cost if factor is None else cost * factor

    def pair_gradient(self, y: Tensor, t: Tensor) -> Tensor | None:
        """See `Cost.pair_gradient`."""
        closed = self.cost.pair_gradient(y, t)
        factor = None if closed is None else self._factor(y, t)
        return closed if closed is None or factor is None else closed * factor

    def _factor(self, y: Tensor, t: Tensor) -> Tensor | None:
        normaliser = self.cost.pair_normaliser(y, t)
        return None if normaliser is None else _rows_per(y.shape[0], normaliser, y.dtype)


class AveragedCriterion:
    """A criterion with a `normaliser` of its own, whose costs are multiplied by rows / normaliser."""

    def __init__(self, criterion: Any) -> None:
        self.criterion = criterion

    @property
    def distance(self) -> bool | None:
        """As the criterion says."""
        return is_distance(self.criterion)

    def __call__(self, y: IO, t: IO) -> Tensor:
        """The cost per row, `[n]`."""
        cost: Tensor = per_row(self.criterion(y, t), y)
        return cost * self._factor(y, t)

    def gradient(self, y: IO, t: IO) -> tuple[Tensor | None, ...]:
        """dcost/dy per tensor of y, None for an integer output; the normaliser counts as a constant."""
        factor = self._factor(y, t)
        return tuple(None if g is None else g * factor for g in output_gradient(self.criterion, y, t))

    def _factor(self, y: IO, t: IO) -> Tensor:
        with torch.no_grad():
            normaliser = torch.as_tensor(self.criterion.normaliser(y.detach(), t), device=y.f.device)
            return _rows_per(y.rows, normaliser, y.f.dtype)

    def __repr__(self) -> str:
        return repr(self.criterion)


def _rows_per(rows: int, normaliser: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows / normaliser in the dtype of the outputs; 0 if nothing counts, so that such a batch costs nothing."""
    dtype = dtype if dtype.is_floating_point else torch.get_default_dtype()
    divisor = normaliser.to(dtype)
    return torch.where(divisor > 0, rows / divisor, 0.0)


def averaged(criterion: Criterion) -> Criterion:
    """The criterion, scaled so that the mean of its costs over rows is its own mean; see `normaliser` above.

    >>> from zenkai_core.criteria import CrossEntropy
    >>> weighted = averaged(CrossEntropy(weight=torch.tensor([1.0, 3.0])))
    >>> y, t = torch.randn(5, 2), torch.tensor([0, 1, 1, 0, 1])
    >>> torch_mean = torch.nn.functional.cross_entropy(y, t, torch.tensor([1.0, 3.0]))
    >>> torch.allclose(weighted(IO(y), IO(t)).mean(), torch_mean)
    True
    """
    of_terms: Any = getattr(criterion, "averaged", None)
    if of_terms is not None:
        return of_terms()
    if isinstance(criterion, Cost):
        if type(criterion).pair_normaliser is Cost.pair_normaliser:
            return criterion
        return AveragedCost(criterion)
    return criterion if getattr(criterion, "normaliser", None) is None else AveragedCriterion(criterion)


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
        TypeError: it is no callable, it is a class, or it is a loss of torch, which takes tensors and reduces.
    """
    if isinstance(criterion, type):
        raise TypeError(f"expected a criterion, got the class {criterion.__name__}: call it, {criterion.__name__}()")
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
    return closed(y, t) if closed is not None else by_autograd(criterion, y, t)


def is_distance(criterion: Criterion) -> bool | None:
    """Whether the target is a point among the outputs, where the cost is least; None if the criterion does not say."""
    return getattr(criterion, "distance", None)


def unsuitable_target(layer: str, criterion: Criterion) -> TypeError:
    """The error for a point among the outputs as the target of a criterion for labels or probabilities."""
    return TypeError(
        f"{layer} with criterion={criterion!r} expected labels or probabilities as its target, got a point among its "
        "outputs, y - error, from the layer above: give this layer criterion=zk.sse; only the last layer has the "
        "criterion of the task"
    )


def by_autograd(criterion: Criterion, y: IO, t: IO) -> tuple[Tensor | None, ...]:
    """dcost/dy per row and tensor of y, by autograd; None for an integer output.

    Raises:
        RuntimeError: the criterion cuts the graph.
    """
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
