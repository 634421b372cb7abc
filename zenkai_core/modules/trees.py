"""An ensemble of fitted scikit-learn trees as a module, kept as tensors: it moves, predicts and saves as any other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from zenkai_core.modules import show
from zenkai_core.modules.estimators import PerOutput
from zenkai_core.modules.fitted import EnsembleVoter, Kind
from zenkai_core.modules.voters import Voter

_AT_ONCE = 1 << 20  # of trees times rows that walk down together: their places stay in the processor's cache
_BUFFERS = ("branches", "feature", "threshold", "missing_left", "value", "depth")


class Trees(EnsembleVoter):
    """At most n members, first in first out, whose outputs are averaged; a random linear map until the first comes.

    A member is one regression tree with all the outputs, or with `per_output` one tree for each. A classification tree
    votes with its leaf's shares of the classes, so that the output is real votes `[n, classes]`.

    Args:
        inputs: features of a row; inputs `[n, ...]` are flattened to `[n, inputs]`.
        outputs: outputs, or classes.
        members: the most kept; only fitted ones ever vote.
        kind: "regression" or "classification".
        per_output: a member is a fitted `PerOutput` of trees, one for each output.
        voter, out_of_bag: as for `EnsembleVoter`.

    Raises:
        TypeError: a size is no whole number.
        ValueError: a size below 1, an unknown kind, or `per_output` classification.

    >>> from sklearn.tree import DecisionTreeRegressor
    >>> x = torch.tensor([[0.0], [1.0], [2.0]])
    >>> trees = Trees(1, 2)
    >>> trees.add_member(DecisionTreeRegressor().fit(x.numpy(), [[0, 1], [2, 3], [4, 5]]))
    >>> trees(x).tolist()
    [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    >>> print(trees.text(features=["age"], outputs=["a", "b"]))
    |--- age <= 0.50
    |   |--- a: 0.00, b: 1.00
    |--- age >  0.50
    |   |--- age <= 1.50
    |   |   |--- a: 2.00, b: 3.00
    |   |--- age >  1.50
    |   |   |--- a: 4.00, b: 5.00
    """

    branches: Tensor  # [trees, nodes, 2] where to go; a leaf leads to itself
    feature: Tensor  # [trees, nodes]
    threshold: Tensor  # [trees, nodes] float64, as scikit-learn compares, whatever dtype the module is cast to
    missing_left: Tensor  # [trees, nodes] whether a NaN goes left
    value: Tensor  # [trees, nodes, outputs], or [trees, nodes, 1] where each output has its own
    depth: Tensor  # [trees]

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        members: int = 9,
        kind: Kind = "regression",
        per_output: bool = False,
        voter: Voter | None = None,
        out_of_bag: bool = False,
    ) -> None:
        super().__init__(inputs, outputs, members=members, kind=kind, voter=voter, out_of_bag=out_of_bag)
        if per_output and kind == "classification":
            raise ValueError(
                "Trees expected kind='regression' with per_output, got 'classification': a classification tree has one "
                "output, the class"
            )
        self.per_output = per_output
        self.register_buffer("branches", torch.zeros(0, 0, 2, dtype=torch.int64))
        self.register_buffer("feature", torch.zeros(0, 0, dtype=torch.int64))
        self.register_buffer("threshold", torch.zeros(0, 0, dtype=torch.float64))
        self.register_buffer("missing_left", torch.zeros(0, 0, dtype=torch.bool))
        self.register_buffer("value", torch.zeros(0, 0, 1 if per_output else outputs))
        self.register_buffer("depth", torch.zeros(0, dtype=torch.int64))
        self._levels = 0  # the deepest tree, known to the host so that a prediction waits for nobody
        self._missing = False  # whether any NaN goes left, known likewise

    def __len__(self) -> int:
        """The number of fitted members."""
        return self.branches.shape[0] // self._size

    @property
    def _size(self) -> int:
        """Trees in a member."""
        return self.outputs if self.per_output else 1

    def votes(self, x: Tensor) -> Tensor:
        """x: `[n, inputs]` -> `[v, n, outputs]`, each member's own; trees and rows walk down together."""
        rows = max(1, _AT_ONCE // max(self.branches.shape[0], 1))
        return torch.cat([self._walk(part) for part in x.float().split(rows)], 1)  # scikit-learn compares float32

    def _walk(self, x: Tensor) -> Tensor:
        """All trees as one list of nodes: `index_select` is several times faster than an index of two dimensions."""
        (trees, nodes), (rows, width) = self.feature.shape, x.shape
        root = torch.arange(trees, device=x.device).unsqueeze(1) * nodes
        row = (torch.arange(rows, device=x.device) * width).repeat(trees)
        node, x = root.expand(trees, rows).flatten(), x.flatten()
        branches = (self.branches + root.unsqueeze(2)).flatten()
        feature, threshold, missing_left = (v.flatten() for v in (self.feature, self.threshold, self.missing_left))
        for _ in range(self._levels):
            value = x.index_select(0, row + feature.index_select(0, node))
            right = ~(value <= threshold.index_select(0, node))
            if self._missing:
                right &= ~(value.isnan() & missing_left.index_select(0, node))
            node = branches.index_select(0, 2 * node + right)
        found = self.value.flatten(0, 1).index_select(0, node).unflatten(0, (trees, rows))
        return found[..., 0].unflatten(0, (-1, self.outputs)).transpose(1, 2) if self.per_output else found

    def add_member(self, estimator: Any, weight: float = 1.0) -> None:
        """Takes a fitted tree; the oldest member leaves when there are more than `members`.

        Args:
            estimator: a fitted DecisionTree or ExtraTree, a regressor of all outputs or a classifier; with `per_output`
                a fitted `PerOutput`, or one of `sklearn.multioutput`, of such regressors.
            weight: > 0, how much its vote counts.

        Raises:
            TypeError: it is no fitted tree, or one of the other kind.
            ValueError: its features, outputs or classes are not the module's; a weight that is not positive.
        """
        trees = self._trees_of(estimator)
        self._join(weight)
        member = [self._tensors(tree) for tree in trees]
        for name in _BUFFERS:
            held: Tensor = getattr(self, name)
            new = [each[name].to(held) for each in member]
            setattr(self, name, _append(held, new)[-self.members * self._size :])
        self._note()

    def text(
        self,
        member: int = -1,
        *,
        output: int = 0,
        features: Sequence[str] | None = None,
        outputs: Sequence[str] | None = None,
        decimals: int = 2,
        max_depth: int | None = None,
    ) -> str:
        """A tree in words, one line per node, as `sklearn.tree.export_text` writes it.

        Args:
            member: which, from the oldest, or from the newest below 0.
            output: with `per_output`, whose tree.
            features: names of the inputs; "feature_0", ... if None.
            outputs: names of the outputs or classes; a leaf without them shows its values, or its class, alone.
            decimals: of thresholds and values.
            max_depth: below which a branch is cut off.

        Raises:
            ValueError: there is no such member or output, or the names are not one for each.
        """
        return show.text(self._shown(member, output, features, outputs, decimals, max_depth))

    def draw(
        self,
        member: int = -1,
        *,
        output: int = 0,
        features: Sequence[str] | None = None,
        outputs: Sequence[str] | None = None,
        decimals: int = 2,
        max_depth: int | None = 3,
    ) -> Any:
        """A tree as a matplotlib figure, the root above; arguments and errors as for `text`."""
        return show.draw(self._shown(member, output, features, outputs, decimals, max_depth))

    def _shown(
        self,
        member: int,
        output: int,
        features: Sequence[str] | None,
        outputs: Sequence[str] | None,
        decimals: int,
        max_depth: int | None,
    ) -> show.Shown:
        if not len(self):
            raise ValueError("Trees expected a fitted member to show, got none: theta.Fit waits for `rows` rows")
        if not -len(self) <= member < len(self) or not 0 <= output < self._size:
            raise ValueError(
                f"Trees expected a member among {len(self)} and an output among {self._size} trees of each, got "
                f"{member} and {output}: fitted members count from 0, the oldest"
            )
        for what, names, count in (("features", features, self.inputs), ("outputs", outputs, self.outputs)):
            if names is not None and len(names) != count:
                raise ValueError(f"Trees expected {count} names of {what}, got {len(names)}: give one for each")
        at = member % len(self) * self._size + output
        if outputs is not None and self.per_output:
            outputs = [outputs[output]]
        branches, value = self.branches[at].cpu(), self.value[at].double().cpu()
        return show.Shown(
            branches=branches.tolist(),
            feature=self.feature[at].tolist(),
            threshold=self.threshold[at].tolist(),
            value=value.tolist(),
            features=[f"feature_{i}" for i in range(self.inputs)] if features is None else list(features),
            outputs=None if outputs is None else list(outputs),
            classifies=self.kind == "classification",
            decimals=decimals,
            max_depth=max_depth,
        )

    def _trees_of(self, estimator: Any) -> list[Any]:
        """The fitted trees of one member, checked."""
        several = isinstance(estimator, PerOutput) or type(estimator).__module__ == "sklearn.multioutput"
        given = getattr(estimator, "estimators_", []) if several and self.per_output else [estimator]
        if len(given) != self._size:
            raise ValueError(
                f"Trees with per_output expected {self.outputs} fitted trees, got {len(given)} from "
                f"{type(estimator).__name__}: fit PerOutput(DecisionTreeRegressor()) on [n, {self.outputs}] targets"
            )
        for each in given:
            tree = getattr(each, "tree_", None)
            if tree is None:
                raise TypeError(
                    f"Trees expected a fitted scikit-learn tree, got {type(each).__name__}: fit a DecisionTree or "
                    "ExtraTree; an ensemble is what this module makes of them, and one tree per output needs "
                    "per_output=True"
                )
            classifies = hasattr(each, "classes_")
            outputs = self.outputs * tree.n_outputs if self.per_output else tree.n_outputs
            self.expect(type(each).__name__, classifies, tree.n_features, outputs)
            if classifies and tree.n_outputs > 1:
                raise ValueError(
                    f"Trees expected a classifier of one label, got {tree.n_outputs}: fit it on integer labels [n]"
                )
        return list(given)

    def _tensors(self, estimator: Any) -> dict[str, Tensor]:
        """One fitted tree, by the names of the buffers."""
        tree = estimator.tree_
        value = torch.as_tensor(tree.value.copy())  # [nodes, outputs, 1], or [nodes, 1, classes seen]
        if self.kind == "regression":
            value = value[:, :, 0]
        else:
            raw = value[:, 0]
            value = raw.new_zeros(len(raw), self.outputs)
            value[:, self.labels(estimator.classes_)] = raw / raw.sum(1, keepdim=True)
        own = torch.arange(tree.node_count)
        left, right = torch.as_tensor(tree.children_left.copy()), torch.as_tensor(tree.children_right.copy())
        leaf = left < 0
        return {
            "branches": torch.stack([torch.where(leaf, own, left), torch.where(leaf, own, right)], 1),
            "feature": torch.as_tensor(tree.feature.copy()).clamp_min(0),
            "threshold": torch.as_tensor(tree.threshold.copy()),
            "missing_left": torch.as_tensor(tree.missing_go_to_left.copy()).bool(),
            "value": value,
            "depth": torch.tensor(tree.max_depth),
        }

    def _note(self) -> None:
        self._levels = int(self.depth.max()) if len(self) else 0
        self._missing = bool(self.missing_left.any())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Trees:
        exact = self.threshold
        super()._apply(fn, recurse)
        if self.threshold.dtype != exact.dtype:  # .half() and the like: a rounded threshold sends rows elsewhere
            self.threshold = exact.to(self.threshold.device)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        self._check_saved({name: state_dict.get(prefix + name) for name in (*_BUFFERS, "weight")})
        for name in _BUFFERS:  # the number of trees and nodes is that of the file
            if isinstance(saved := state_dict.get(prefix + name), Tensor):
                setattr(self, name, getattr(self, name).new_empty(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._note()

    def _check_saved(self, saved: dict[str, Any]) -> None:
        """Refuses saved trees that cannot be this module's, before any of its tensors changes.

        Raises:
            ValueError: some entries without the others, other shapes, more members than are kept, or indices of nodes
                or features out of range.
        """
        missing = [name for name, v in saved.items() if not isinstance(v, Tensor)]
        if len(missing) == len(saved):
            return  # torch reports what is missing, unless strict=False allows it
        if missing:
            raise ValueError(
                f"Trees expected all saved entries of its trees, got none for {', '.join(missing)}: load all of them, "
                "or none with strict=False"
            )
        trees, nodes = saved["feature"].shape if saved["feature"].ndim == 2 else (-1, -1)
        width = 1 if self.per_output else self.outputs
        shapes = {
            "branches": (trees, nodes, 2),
            "threshold": (trees, nodes),
            "missing_left": (trees, nodes),
            "value": (trees, nodes, width),
            "depth": (trees,),
            "weight": (trees // self._size,),
        }
        for name, shape in shapes.items():
            if tuple(saved[name].shape) != shape or trees % self._size:
                raise ValueError(
                    f"Trees expected saved {name} of shape {list(shape)}, got {list(saved[name].shape)}: make it with "
                    "the outputs and the per_output that it was saved with"
                )
        if trees > self.members * self._size:
            raise ValueError(
                f"Trees expected at most {self.members} saved members, got {trees // self._size}: make it with "
                "members= as it was when it was saved"
            )
        for name, most in (("branches", nodes), ("feature", self.inputs)):
            indices = saved[name]
            if indices.numel() and not bool(((indices >= 0) & (indices < most)).all()):
                raise ValueError(
                    f"Trees expected saved {name} in [0, {most}), got {int(indices.min())} to {int(indices.max())}: "
                    "the file is damaged, or was saved with another number of inputs"
                )
        if saved["depth"].numel() and not bool(((saved["depth"] >= 0) & (saved["depth"] <= max(nodes, 0))).all()):
            raise ValueError(f"Trees expected saved depths in [0, {nodes}], got others: the file is damaged")


class Tree(Trees):
    """One tree with all the outputs, which each fit replaces: the layer that a person can read.

    `print(tree.text())` writes it, `tree.draw()` draws it.

    Args:
        inputs, outputs, kind: as for `Trees`.

    >>> from sklearn.tree import DecisionTreeClassifier
    >>> tree = Tree(1, 2, kind="classification")
    >>> tree.add_member(DecisionTreeClassifier().fit([[0.0], [1.0]], [0, 1]))
    >>> print(tree.text(features=["petal"], outputs=["rose", "lily"]))
    |--- petal <= 0.50
    |   |--- class: rose
    |--- petal >  0.50
    |   |--- class: lily
    """

    def __init__(self, inputs: int, outputs: int, *, kind: Kind = "regression") -> None:
        super().__init__(inputs, outputs, members=1, kind=kind)


def _append(held: Tensor, new: list[Tensor]) -> Tensor:
    """held: `[v, nodes, ...]`, new: of `[m, ...]` each -> `[v + len(new), most nodes, ...]`, filled up with zeros."""
    if new[0].ndim == 0:
        return torch.cat([held, torch.stack(new)])
    nodes = max(held.shape[1], *(v.shape[0] for v in new))
    out = held.new_zeros(held.shape[0] + len(new), nodes, *held.shape[2:])
    out[: len(held), : held.shape[1]] = held
    for row, v in zip(out[len(held) :], new, strict=True):
        row[: v.shape[0]] = v
    return out
