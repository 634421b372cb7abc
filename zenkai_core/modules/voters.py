"""Voters: from the votes of several members to one answer, weighted where the members are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zenkai_core.checks import check_whole


class Voter(nn.Module):
    """From votes `[v, n, ...]` to one answer `[n, ...]`. Override `reduce`, which is given weights that add up to 1."""

    def forward(self, votes: Tensor, weights: Tensor | None = None) -> Tensor:
        """The answer.

        Args:
            votes: `[v, n, ...]` one slice per member.
            weights: `[v]` >= 0, how much each member counts, in any unit; all the same if None.

        Raises:
            ValueError: no votes, or weights that are not one number >= 0 per member and positive in sum.
        """
        v = votes.shape[0] if votes.ndim > 1 else 0
        if not v:
            raise ValueError(
                f"{type(self).__name__} expected votes [v, n, ...] of at least one member, got {list(votes.shape)}: "
                "stack the members' answers along a first dimension"
            )
        dtype = votes.dtype if votes.is_floating_point() else torch.get_default_dtype()
        if weights is None:
            return self.reduce(votes, votes.new_full((v,), 1 / v, dtype=dtype))
        if weights.shape != (v,) or not bool((weights >= 0).all()) or not 0 < float(weights.sum()) < torch.inf:
            raise ValueError(
                f"{type(self).__name__} expected {v} weights >= 0 of which one is positive, got {weights.tolist()}: "
                "give one number for each member"
            )
        return self.reduce(votes, (weights / weights.sum()).to(votes.device, dtype))

    def reduce(self, votes: Tensor, weights: Tensor) -> Tensor:
        """votes: `[v, n, ...]`, weights: `[v]` that add up to 1 -> `[n, ...]`."""
        raise NotImplementedError(f"{type(self).__name__} expected a reduce(votes, weights), got none: override it")


class Mean(Voter):
    """The mean of real votes `[v, n, ...]`, weighted.

    >>> Mean()(torch.tensor([[1.0, 2.0], [3.0, 8.0]]), weights=torch.tensor([1.0, 3.0])).tolist()
    [2.5, 6.5]

    Raises:
        TypeError: the votes are integers.
    """

    def forward(self, votes: Tensor, weights: Tensor | None = None) -> Tensor:
        """As for every voter; without weights the plain mean, to the bit."""
        if weights is None and votes.is_floating_point() and votes.ndim > 1 and votes.shape[0]:
            return votes.mean(0)
        return super().forward(votes, weights)

    def reduce(self, votes: Tensor, weights: Tensor) -> Tensor:
        """The weighted mean over members."""
        if not votes.is_floating_point():
            raise TypeError(
                f"voters.Mean expected real votes, got {votes.dtype}: take voters.Multiclass for labels, or "
                "voters.Binary for yes and no"
            )
        return torch.tensordot(weights, votes, 1)


class Sum(Voter):
    """The sum of real votes, for members that are increments: v times the weighted mean.

    >>> Sum()(torch.tensor([[1.0, 2.0], [3.0, 8.0]])).tolist()
    [4.0, 10.0]
    """

    def reduce(self, votes: Tensor, weights: Tensor) -> Tensor:
        """The weighted mean times the number of members."""
        return Mean().reduce(votes, weights * votes.shape[0])


class Binary(Voter):
    """The majority of yes-or-no votes `[v, n, ...]`, each element for itself; a tie is a yes.

    Args:
        low, high: what no and yes are in votes and answers: 0 and 1, or -1 and 1. A vote between them counts as the
            nearer one, the middle as a yes.

    Raises:
        ValueError: low is not below high.

    >>> Binary(-1, 1)(torch.tensor([[1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]])).tolist()
    [1.0, -1.0]
    """

    def __init__(self, low: float = 0.0, high: float = 1.0) -> None:
        super().__init__()
        if not low < high:
            raise ValueError(f"voters.Binary expected low < high, got {low} and {high}: for example 0 and 1")
        self.low, self.high = low, high

    def reduce(self, votes: Tensor, weights: Tensor) -> Tensor:
        """Low or high, in the dtype of real votes, else in that of the weights."""
        yes = torch.tensordot(weights, (votes >= (self.low + self.high) / 2).to(weights.dtype), 1)
        won = yes >= 0.5 - 4 * torch.finfo(weights.dtype).eps  # halves that add up to a rounded 0.5 are a tie
        return torch.where(won, self.high, self.low).to(weights.dtype)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"low={self.low}, high={self.high}"


class Multiclass(Voter):
    """One member, one vote: the share of votes for each class, `[n, classes]`, whose argmax is the majority.

    The answer is real, so that it can be the output of a layer; on a tie `argmax` takes the lowest class. `Mean` would
    average how sure the members are.

    Args:
        classes: their number.

    Raises:
        TypeError: classes is no whole number.
        ValueError: fewer than 1 class; votes that are neither labels `[v, n]` nor shares `[v, n, classes]`.

    >>> Multiclass(3)(torch.tensor([[0, 2], [1, 2], [1, 2]])).argmax(1).tolist()
    [1, 2]
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        check_whole("voters.Multiclass", classes=classes)
        if classes < 1:
            raise ValueError(f"voters.Multiclass expected at least one class, got {classes}: say how many there are")
        self.classes = classes

    def reduce(self, votes: Tensor, weights: Tensor) -> Tensor:
        """The weighted share of votes, from labels `[v, n]` or from each member's shares `[v, n, classes]`."""
        if votes.is_floating_point() and votes.ndim == 3 and votes.shape[2] == self.classes:
            votes = votes.argmax(2)
        elif votes.is_floating_point() or votes.ndim != 2:
            raise ValueError(
                f"voters.Multiclass expected integer labels [v, n] or shares [v, n, {self.classes}], got {votes.dtype} "
                f"{list(votes.shape)}: make it with classes= their number"
            )
        elif votes.numel() and not 0 <= int(votes.min()) <= int(votes.max()) < self.classes:
            raise ValueError(
                f"voters.Multiclass expected labels in [0, {self.classes}), got {int(votes.min())} to "
                f"{int(votes.max())}: number the classes from 0"
            )
        shares = weights.new_zeros(votes.shape[1], self.classes)
        return shares.scatter_add_(1, votes.long().T, weights.expand(votes.shape[1], -1))

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{self.classes}"
