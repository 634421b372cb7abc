"""Several members, one answer: modules side by side, and stochastic passes of one module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from zenkai_core.checks import check_whole
from zenkai_core.modules.fitted import appended
from zenkai_core.modules.noise import GaussianNoise
from zenkai_core.modules.voters import Mean, Voter


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
        TypeError: n or members is no whole number.
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
        check_whole("Ensemble", n=n, members=members)
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
        TypeError: k is no whole number; nothing in the module is stochastic.

    >>> net = Stochastic(nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 2)), k=8).eval()
    >>> net.votes(torch.ones(5, 3)).shape, net(torch.ones(5, 3)).shape
    (torch.Size([8, 5, 2]), torch.Size([5, 2]))

    Reference: Gal, Ghahramani (2016), Dropout as a Bayesian approximation.
    """

    def __init__(self, module: nn.Module, k: int = 16, *, voter: Voter | None = None) -> None:
        super().__init__()
        check_whole("Stochastic", k=k)
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


def _noisy(module: nn.Module) -> bool:
    return isinstance(module, (_DropoutNd, GaussianNoise)) or getattr(module, "stochastic", False) is True
