"""`EnsembleVoter`: what layers of fitted estimators share; members come and go, and only fitted ones vote."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from zenkai_core.checks import check_whole
from zenkai_core.modules.voters import Mean, Voter

Kind = Literal["regression", "classification"]
_CHUNK = 4096  # rows whose fingerprints are taken at once
_NONE = torch.iinfo(torch.int64).max  # fills up the shorter lists of fingerprints


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
        out_of_bag: in training a row is answered by the members that were not fitted on it (by all, where each was):
            what the layer above learns from is then what it will see of new rows. Give `theta.Fit` a share below 1.

    Raises:
        TypeError: a size is no whole number.
        ValueError: a size below 1, an unknown kind, or `out_of_bag` with another voter than `voters.Mean`.

    Reference: Breiman (1996), Out-of-bag estimation.
    """

    differentiable = False
    seen: Tensor  # [v, m] sorted fingerprints of the rows that each member was fitted on
    weight: Tensor  # [v] how much each member counts
    surrogate: Tensor  # [inputs, outputs]

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        members: int = 9,
        kind: Kind = "regression",
        voter: Voter | None = None,
        out_of_bag: bool = False,
    ) -> None:
        super().__init__()
        check_whole(type(self).__name__, inputs=inputs, outputs=outputs, members=members)
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
        if out_of_bag and type(self.voter) is not Mean:
            raise ValueError(
                f"{type(self).__name__} expected voters.Mean with out_of_bag, got {type(self.voter).__name__}: the "
                "members that answer differ from row to row, which only a mean takes"
            )
        self.out_of_bag = out_of_bag
        self.register_buffer("seen", torch.zeros(0, 0, dtype=torch.int64))
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
            x = torch.where(x == x, x, torch.zeros_like(x))  # a missing value counts as 0
            y = x.to(self.surrogate.dtype) @ self.surrogate
            return y if self.kind == "regression" else y.softmax(1)
        votes = self.votes(x)
        if self.training and self.out_of_bag and self.seen.shape[1]:
            weight = self._weights_of_rows(x).to(votes.dtype)
            return torch.einsum("vn,vno->no", weight, votes)
        return self.voter(votes, self.weight)

    def note_rows(self, x: Tensor) -> None:
        """Remembers, for `out_of_bag`, rows `[n, inputs]` that the newest member was fitted on."""
        rows, newest = fingerprints(x).to(self.seen.device), self.seen[-1]
        newest = torch.cat([newest[newest != _NONE], rows]).sort().values
        longest = max(len(newest), self.seen.shape[1])
        seen = self.seen.new_full((len(self.seen), longest), _NONE)
        seen[:-1, : self.seen.shape[1]] = self.seen[:-1]
        seen[-1, : len(newest)] = newest
        self.seen = seen

    def _weights_of_rows(self, x: Tensor) -> Tensor:
        """`[v, n]` how much each member counts for each row; columns add up to 1."""
        rows = fingerprints(x).expand(len(self.seen), -1).contiguous()
        at = torch.searchsorted(self.seen, rows).clamp_max(self.seen.shape[1] - 1)
        all_of_them = self.weight.unsqueeze(1)
        weight = all_of_them * (self.seen.gather(1, at) != rows)
        weight = torch.where(weight.sum(0) > 0, weight, all_of_them)
        return weight / weight.sum(0)

    def _join(self, weight: float) -> None:
        """One more member, of this weight, no rows noted yet; the oldest leaves where there are too many."""
        self.weight = appended(self.weight, weight, self.members)
        seen = self.seen.new_full((len(self.seen) + 1, self.seen.shape[1]), _NONE)
        seen[:-1] = self.seen
        self.seen = seen[-self.members :]

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
        for name in ("seen", "weight"):  # the number of members is that of the file
            if isinstance(saved := state_dict.get(prefix + name), Tensor):
                setattr(self, name, getattr(self, name).new_empty(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)


def appended(weights: Tensor, weight: float, members: int) -> Tensor:
    """Weights `[v]` with one more at the end, the last `members` of them.

    Raises:
        ValueError: the weight is not a positive number.
    """
    if not 0 < weight < torch.inf:
        raise ValueError(f"a member's weight expected a positive number, got {weight}: 1.0 counts as the others do")
    return torch.cat([weights, weights.new_tensor([weight])])[-members:]


def fingerprints(x: Tensor) -> Tensor:
    """Rows `[n, inputs]` -> `[n]` int64, equal for equal rows and, but for a chance of n^2 / 2^64, only for those."""
    generator = torch.Generator().manual_seed(0x5EED)
    factors = torch.randint(-(2**62), 2**62, (x.shape[1],), generator=generator).to(x.device) * 2 + 1
    bits = [(part.float() + 0.0).contiguous().view(torch.int32) for part in x.detach().split(_CHUNK)]
    return torch.cat([(part * factors).sum(1) for part in bits])  # -0.0 is 0.0; a product wraps around
