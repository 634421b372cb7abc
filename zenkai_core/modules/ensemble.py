"""Several members, one answer: modules side by side, stochastic passes of one module, fitted estimators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from zenkai_core.modules.noise import GaussianNoise
from zenkai_core.modules.voters import Mean, Voter

Kind = Literal["regression", "classification"]


class Ensemble(nn.Module):
    """Modules that all see the input and vote; at most `members`, of which the oldest leaves first.

    Its parameters are those of the members, so that any rule trains them together. Members that were trained elsewhere
    join by `add`; one that has learned nothing yet should not be added, for every member votes.

    Args:
        factory: () -> a member; a `state_dict` with more members than there are makes them by it.
        n: members made at once.
        members: the most that are kept; n if None.
        voter: from votes `[v, n, ...]` to the answer `[n, ...]`.

    Raises:
        ValueError: n or members is out of range.

    >>> net = Ensemble(lambda: nn.Linear(3, 2), n=4)
    >>> net.votes(torch.zeros(5, 3)).shape, net(torch.zeros(5, 3)).shape
    (torch.Size([4, 5, 2]), torch.Size([5, 2]))

    Reference: Huang et al. (2017), Snapshot ensembles: train 1, get M for free, which adds copies of one network.
    """

    weight: Tensor  # [v]

    def __init__(
        self,
        factory: Callable[[], nn.Module],
        n: int = 1,
        *,
        members: int | None = None,
        voter: Voter | None = None,
    ) -> None:
        super().__init__()
        members = n if members is None else members
        if not 0 <= n <= members or members < 1:
            raise ValueError(
                f"Ensemble expected 0 <= n <= members and a member at least, got n={n} and members={members}: say how "
                "many are made now and how many are kept"
            )
        self.factory, self.members = factory, members
        self.voter = Mean() if voter is None else voter
        self.each = nn.ModuleList(factory() for _ in range(n))
        self.register_buffer("weight", torch.ones(n))

    def __len__(self) -> int:
        """The number of members."""
        return len(self.each)

    def forward(self, *x: Tensor) -> Tensor:
        """x: `[n, ...]` -> `[n, ...]`, the voter's answer."""
        return self.voter(self.votes(*x), self.weight)

    def votes(self, *x: Tensor) -> Tensor:
        """x: `[n, ...]` -> `[v, n, ...]`, each member's own.

        Raises:
            RuntimeError: there is no member.
        """
        if not len(self):
            raise RuntimeError("Ensemble expected a member to vote, got none: add(module) a trained one first")
        return torch.stack([m(*x) for m in self.each])

    def add(self, module: nn.Module, weight: float = 1.0) -> None:
        """Takes one more member, the very module; the oldest leaves when there are more than `members`."""
        self.each = nn.ModuleList([*self.each, module][-self.members :])
        self.weight = appended(self.weight, weight, self.members)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"members={len(self)}/{self.members}"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        saved = state_dict.get(prefix + "weight")
        if isinstance(saved, Tensor) and len(saved) <= self.members:
            made = [self.factory().to(saved.device) for _ in range(len(saved) - len(self))]
            self.each = nn.ModuleList([*self.each, *made][: len(saved)])
            self.weight = self.weight.new_empty(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)


class Stochastic(nn.Module):
    """k stochastic passes of one module, which vote: noise and dropout stay on in evaluation too.

    In training BatchNorm sees the rows of all passes together; in evaluation it is the affine map that it always is.

    Args:
        module: with dropout or noise inside: torch's, `GaussianNoise`, or a module of yours with `stochastic = True`.
        k: passes.
        voter: from votes `[k, n, ...]` to the answer `[n, ...]`.

    Raises:
        ValueError: k < 1.
        TypeError: nothing in the module is stochastic.

    >>> net = Stochastic(nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 2)), k=8).eval()
    >>> net.votes(torch.ones(5, 3)).shape, net(torch.ones(5, 3)).shape
    (torch.Size([8, 5, 2]), torch.Size([5, 2]))

    Reference: Gal, Ghahramani (2016), Dropout as a Bayesian approximation.
    """

    def __init__(self, module: nn.Module, k: int = 16, *, voter: Voter | None = None) -> None:
        super().__init__()
        if k < 1:
            raise ValueError(f"Stochastic expected k >= 1 passes, got {k}: 16 is usual")
        if not any(map(_noisy, module.modules())):
            raise TypeError(
                f"Stochastic expected a module with dropout or noise, got {type(module).__name__} without: all passes "
                "would be the same; write stochastic = True into a noisy module of your own"
            )
        self.module, self.k = module, k
        self.voter = Mean() if voter is None else voter

    def forward(self, *x: Tensor) -> Tensor:
        """x: `[n, ...]` -> `[n, ...]`, the voter's answer."""
        return self.voter(self.votes(*x))

    def votes(self, *x: Tensor) -> Tensor:
        """x: `[n, ...]` -> `[k, n, ...]`, in one pass over k * n rows."""
        rows = [v.expand(self.k, *v.shape).flatten(0, 1) for v in x]
        modes = [(m, m.training) for m in self.module.modules() if _noisy(m)]
        try:
            for m, _ in modes:
                m.training = True
            return self.module(*rows).unflatten(0, (self.k, x[0].shape[0]))
        finally:
            for m, mode in modes:
                m.training = mode

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"k={self.k}"


class EnsembleVoter(nn.Module):
    """Fitted estimators, first in first out, whose votes a voter reduces: the base of `Estimators` and `Trees`.

    Until the first fitted member comes a fixed random linear map answers (its softmax, for classes), and it never votes
    afterwards.
    A subclass has `__len__`, `votes` and `add_member`.

    Args:
        inputs: features of a row; inputs `[n, ...]` are flattened to `[n, inputs]`.
        outputs: outputs, or classes.
        members: the most that are kept.
        kind: "regression", outputs `[n, outputs]` as the members predict them, or "classification": integer labels are
            fitted, and a member votes `[n, classes]` real shares of the classes.
        voter: from votes `[v, n, outputs]` to `[n, outputs]`.

    Raises:
        ValueError: a size below 1, or an unknown kind.
    """

    differentiable = False
    weight: Tensor  # [v] how much each member counts
    surrogate: Tensor  # [inputs, outputs]

    def __init__(
        self, inputs: int, outputs: int, *, members: int = 9, kind: Kind = "regression", voter: Voter | None = None
    ) -> None:
        super().__init__()
        if min(inputs, outputs, members) < 1:
            raise ValueError(
                f"{type(self).__name__} expected inputs, outputs and members >= 1, got {inputs}, {outputs} and "
                f"{members}: say how many features, outputs and members there are"
            )
        if kind not in ("regression", "classification"):
            raise ValueError(
                f"{type(self).__name__} expected kind 'regression' or 'classification', got {kind!r}: choose one"
            )
        self.inputs, self.outputs, self.members, self.kind = inputs, outputs, members, kind
        self.voter = Mean() if voter is None else voter
        self.register_buffer("weight", torch.ones(0))
        self.register_buffer("surrogate", torch.randn(inputs, outputs) / inputs**0.5)

    def __len__(self) -> int:
        """The number of fitted members."""
        raise NotImplementedError(f"{type(self).__name__} expected a __len__, got none: override it")

    def forward(self, x: Tensor) -> Tensor:
        """x: `[n, ...]` -> `[n, outputs]`, the voter's answer."""
        x = x.detach().flatten(1)
        if x.shape[1] != self.inputs:
            raise ValueError(
                f"{type(self).__name__} expected {self.inputs} features in a row, got {x.shape[1]}: make it with "
                "inputs= that"
            )
        if len(self) == 0:
            y = x.to(self.surrogate.dtype) @ self.surrogate
            return y if self.kind == "regression" else y.softmax(1)
        return self.voter(self.votes(x), self.weight)

    def votes(self, x: Tensor) -> Tensor:
        """x: `[n, inputs]` -> `[v, n, outputs]`, each member's own."""
        raise NotImplementedError(f"{type(self).__name__} expected votes(x), got none: override it")

    def add_member(self, estimator: Any, weight: float = 1.0) -> None:
        """Takes a fitted member; the oldest leaves when there are more than `members`."""
        raise NotImplementedError(f"{type(self).__name__} expected add_member(estimator), got none: override it")

    def labels(self, classes: Any) -> Tensor:
        """What a classifier calls its classes, as columns of the output.

        Raises:
            ValueError: they are no integers in [0, outputs).
        """
        if getattr(getattr(classes, "dtype", None), "kind", "") not in "iub" or (len(classes) and min(classes) < 0):
            raise ValueError(
                f"{type(self).__name__} expected integer labels >= 0, got the classes {list(classes)}: number them "
                "from 0 before the fit, for example with sklearn.preprocessing.LabelEncoder"
            )
        seen = torch.as_tensor(classes).long()
        if len(seen) and int(seen.max()) >= self.outputs:
            raise ValueError(
                f"{type(self).__name__} expected labels below {self.outputs}, got {int(seen.max())}: make it with "
                "outputs=classes"
            )
        return seen

    def expect(self, name: str, classifies: bool, features: int, outputs: int) -> None:
        """Refuses an estimator that is not of the module's kind or sizes.

        Raises:
            TypeError: it is of the other kind.
            ValueError: its features or outputs are not the module's.
        """
        if classifies != (self.kind == "classification"):
            raise TypeError(
                f"{type(self).__name__} of kind {self.kind!r} got {name}: give a member of that kind, or make it with "
                "the other kind"
            )
        if features != self.inputs or (outputs != self.outputs and not classifies):
            raise ValueError(
                f"{type(self).__name__} expected a member of {self.inputs} features and {self.outputs} outputs, got "
                f"{features} and {outputs}: fit it on [n, {self.inputs}] rows and one multi-output target"
            )

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{self.inputs}, {self.outputs}, members={len(self)}/{self.members}, kind={self.kind!r}"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if isinstance(saved := state_dict.get(prefix + "weight"), Tensor):  # the number of members is that of the file
            self.weight = self.weight.new_empty(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)


def appended(weights: Tensor, weight: float, members: int) -> Tensor:
    """Weights `[v]` with one more at the end, the last `members` of them.

    Raises:
        ValueError: the weight is not a positive number.
    """
    if not 0 < weight < torch.inf:
        raise ValueError(f"a member's weight expected a positive number, got {weight}: 1.0 counts as the others do")
    return torch.cat([weights, weights.new_tensor([weight])])[-members:]


def _noisy(module: nn.Module) -> bool:
    return isinstance(module, (_DropoutNd, GaussianNoise)) or getattr(module, "stochastic", False) is True
