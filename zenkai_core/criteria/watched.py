"""Finds criteria written by users that hand a target to a loss for labels or probabilities."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree

from zenkai_core.criteria.base import Criterion
from zenkai_core.values import IO

_FOR_LABELS = frozenset(
    {
        "cross_entropy",
        "nll_loss",
        "binary_cross_entropy",
        "binary_cross_entropy_with_logits",
        "multi_margin_loss",
        "multilabel_margin_loss",
        "multilabel_soft_margin_loss",
    }
)


def takes_labels(criterion: Criterion, y: IO, t: IO) -> bool:
    """Whether the criterion, called once, gives a tensor of t as the target to a loss of torch for labels.

    What it computes of t first, as in `F.cross_entropy(y.f, t.f.softmax(1))`, may well be probabilities.

    Args:
        criterion: (y, t) -> `[n]`; whatever it raises is left to its next call.
        y: the outputs of a pass.
        t: their target.
    """
    with torch.no_grad(), _Watch(t) as watch:
        try:
            criterion(y.detach(), t)
        except Exception:  # the machine's own call raises it again, with its place
            return watch.found
    return watch.found


class _Watch(TorchFunctionMode):
    """Notes whether a loss for labels gets a tensor of t behind its first argument."""

    def __init__(self, t: IO) -> None:
        super().__init__()
        self.targets = {v.data_ptr() for v in t if v.numel()}
        self.found = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _FOR_LABELS:
            given = _pytree.tree_leaves((args[1:], {k: v for k, v in kwargs.items() if k != "input"}))
            self.found = self.found or any(isinstance(v, Tensor) and v.data_ptr() in self.targets for v in given)
        return func(*args, **kwargs)
