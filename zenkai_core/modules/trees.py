"""An ensemble of fitted scikit-learn trees as a module, kept as tensors: it moves, predicts and saves as any other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

Kind = Literal["regression", "classification"]
_BUFFERS = ("branches", "feature", "threshold", "missing_left", "value", "depth")


class Trees(nn.Module):
    """At most n trees, first in first out, whose outputs are averaged; a random linear map until the first comes.

    A regression tree has all the outputs at once. A classification tree votes with its leaf's shares of the classes, so
    that the output is float votes `[n, classes]`.

    Args:
        inputs: features of a row; inputs `[n, ...]` are flattened to `[n, inputs]`.
        outputs: outputs, or classes.
        members: the most trees kept; only fitted ones ever vote.
        kind: "regression" or "classification".

    Raises:
        ValueError: a size below 1, or an unknown kind.

    >>> from sklearn.tree import DecisionTreeRegressor
    >>> x = torch.tensor([[0.0], [1.0], [2.0]])
    >>> trees = Trees(1, 2)
    >>> trees.add_member(DecisionTreeRegressor().fit(x.numpy(), [[0, 1], [2, 3], [4, 5]]))
    >>> trees(x).tolist()
    [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    """

    differentiable = False
    branches: Tensor  # [v, nodes, 2] where to go; a leaf leads to itself
    feature: Tensor  # [v, nodes]
    threshold: Tensor  # [v, nodes] float64, as scikit-learn compares, whatever dtype the module is cast to
    missing_left: Tensor  # [v, nodes] whether a NaN goes left
    value: Tensor  # [v, nodes, outputs]
    depth: Tensor  # [v]
    surrogate: Tensor  # [inputs, outputs]

    def __init__(self, inputs: int, outputs: int, *, members: int = 9, kind: Kind = "regression") -> None:
        super().__init__()
        if min(inputs, outputs, members) < 1:
            raise ValueError(
                f"Trees expected inputs, outputs and members >= 1, got {inputs}, {outputs} and {members}: "
                "say how many features, outputs and trees there are"
            )
        if kind not in ("regression", "classification"):
            raise ValueError(f"Trees expected kind 'regression' or 'classification', got {kind!r}: choose one")
        self.inputs, self.outputs, self.members, self.kind = inputs, outputs, members, kind
        self.register_buffer("branches", torch.zeros(0, 0, 2, dtype=torch.int64))
        self.register_buffer("feature", torch.zeros(0, 0, dtype=torch.int64))
        self.register_buffer("threshold", torch.zeros(0, 0, dtype=torch.float64))
        self.register_buffer("missing_left", torch.zeros(0, 0, dtype=torch.bool))
        self.register_buffer("value", torch.zeros(0, 0, outputs))
        self.register_buffer("depth", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("surrogate", torch.randn(inputs, outputs) / inputs**0.5)
        self._levels = 0  # the deepest tree, known to the host so that a prediction waits for nobody
        self._missing = False  # whether any NaN goes left, known likewise

    def __len__(self) -> int:
        """The number of fitted members."""
        return self.branches.shape[0]

    def forward(self, x: Tensor) -> Tensor:
        """x: `[n, ...]` -> `[n, outputs]`, the mean of the members."""
        x = x.detach().flatten(1)
        if x.shape[1] != self.inputs:
            raise ValueError(
                f"Trees expected {self.inputs} features in a row, got {x.shape[1]}: make it with inputs= that"
            )
        if len(self) == 0:
            return x.to(self.surrogate.dtype) @ self.surrogate
        return self.votes(x).mean(0)

    def votes(self, x: Tensor) -> Tensor:
        """x: `[n, inputs]` -> `[v, n, outputs]`, each member's own; all members and rows walk down together."""
        x = x.float()  # scikit-learn compares float32 features
        row = torch.arange(x.shape[0], device=x.device)
        node = torch.zeros(len(self), x.shape[0], dtype=torch.int64, device=x.device)
        member = torch.arange(len(self), device=x.device).unsqueeze(1)
        for _ in range(self._levels):
            value = x[row, self.feature[member, node]]
            right = ~(value <= self.threshold[member, node])
            if self._missing:
                right &= ~(value.isnan() & self.missing_left[member, node])
            node = self.branches[member, node, right.long()]
        return self.value[member, node]

    def add_member(self, estimator: Any) -> None:
        """Takes a fitted tree; the oldest member leaves when there are more than `members`.

        Args:
            estimator: a fitted DecisionTree or ExtraTree, a regressor of all outputs or a classifier.

        Raises:
            TypeError: it is no fitted tree, or one of the other kind.
            ValueError: its features, outputs or classes are not the module's.
        """
        tree = getattr(estimator, "tree_", None)
        if tree is None:
            raise TypeError(
                f"Trees expected a fitted scikit-learn tree, got {type(estimator).__name__}: fit a DecisionTree or "
                "ExtraTree; an ensemble is what this module makes of them"
            )
        classes = getattr(estimator, "classes_", None)
        if (classes is not None) != (self.kind == "classification"):
            raise TypeError(f"Trees of kind {self.kind!r} got {type(estimator).__name__}: give a tree of that kind")
        if tree.n_features != self.inputs or tree.n_outputs != (1 if classes is not None else self.outputs):
            raise ValueError(
                f"Trees expected a tree of {self.inputs} features and {self.outputs} outputs, got {tree.n_features} "
                f"and {tree.n_outputs}: fit it on [n, {self.inputs}] rows and one multi-output target"
            )
        raw = torch.as_tensor(tree.value.copy())  # [nodes, outputs, 1], or [nodes, 1, classes seen]
        if classes is None:
            value = raw[:, :, 0]
        else:
            if getattr(getattr(classes, "dtype", None), "kind", "") not in "iub" or (len(classes) and min(classes) < 0):
                raise ValueError(
                    f"Trees expected integer labels >= 0, got the classes {list(classes)}: number them from 0 before "
                    "the fit, for example with sklearn.preprocessing.LabelEncoder"
                )
            seen = torch.as_tensor(classes).long()
            if len(seen) and int(seen.max()) >= self.outputs:
                raise ValueError(
                    f"Trees expected labels below {self.outputs}, got {int(seen.max())}: make it with outputs=classes"
                )
            value = raw.new_zeros(len(raw), self.outputs)
            value[:, seen] = raw[:, 0] / raw[:, 0].sum(1, keepdim=True)
        own = torch.arange(tree.node_count)
        left, right = torch.as_tensor(tree.children_left.copy()), torch.as_tensor(tree.children_right.copy())
        leaf = left < 0
        member = {
            "branches": torch.stack([torch.where(leaf, own, left), torch.where(leaf, own, right)], 1),
            "feature": torch.as_tensor(tree.feature.copy()).clamp_min(0),
            "threshold": torch.as_tensor(tree.threshold.copy()),
            "missing_left": torch.as_tensor(tree.missing_go_to_left.copy()).bool(),
            "value": value,
            "depth": torch.tensor(tree.max_depth),
        }
        for name in _BUFFERS:
            held: Tensor = getattr(self, name)
            setattr(self, name, _append(held, member[name].to(held))[-self.members :])
        self._note()

    def _note(self) -> None:
        self._levels = int(self.depth.max()) if len(self) else 0
        self._missing = bool(self.missing_left.any())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Trees:
        exact = self.threshold
        super()._apply(fn, recurse)
        if self.threshold.dtype != exact.dtype:  # .half() and the like: a rounded threshold sends rows elsewhere
            self.threshold = exact.to(self.threshold.device)
        return self

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{self.inputs}, {self.outputs}, members={len(self)}/{self.members}, kind={self.kind!r}"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in _BUFFERS:  # the number of trees and nodes is that of the file
            if isinstance(saved := state_dict.get(prefix + name), Tensor):
                setattr(self, name, getattr(self, name).new_empty(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._note()


def _append(held: Tensor, new: Tensor) -> Tensor:
    """held: `[v, nodes, ...]`, new: `[m, ...]` -> `[v + 1, max(nodes, m), ...]`, the shorter filled up with zeros."""
    if new.ndim == 0:
        return torch.cat([held, new.unsqueeze(0)])
    nodes = max(held.shape[1], new.shape[0])
    out = held.new_zeros(held.shape[0] + 1, nodes, *held.shape[2:])
    out[:-1, : held.shape[1]] = held
    out[-1, : new.shape[0]] = new
    return out
