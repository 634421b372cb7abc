"""Fits of a scikit-learn estimator: the newest member of an ensemble is fitted on the rows collected since the last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zenkai_core.machine import Machine, StepTheta
from zenkai_core.noise import NoiseKey
from zenkai_core.state import State
from zenkai_core.values import IO


class Fit(StepTheta):
    """Collects (input, target) rows and fits one new member from time to time.

    Args:
        factory: makes an unfitted estimator; by default `DecisionTreeRegressor(max_depth=11)`. One multi-output
            estimator is a member. An unset `random_state` is drawn from the rule's noise key.
        rows: how many rows a fit waits for; a `step` with fewer keeps collecting.
        seed: of the noise key.

    Raises:
        ValueError: rows < 1.

    The module takes the member: `modules.Trees` for scikit-learn's trees, or one of your own with `add_member`.
    """

    requires = frozenset({"estimator"})

    def __init__(self, factory: Callable[[], Any] | None = None, *, rows: int = 1024, seed: int | None = None) -> None:
        super().__init__()
        if rows < 1:
            raise ValueError(f"theta.Fit expected rows >= 1, got {rows}: a fit needs rows")
        self.factory = factory if factory is not None else _regression_tree
        self.rows = rows
        self.noise = NoiseKey(seed)
        self._pending: list[tuple[Tensor, Tensor]] = []
        self._stepped = 0  # how many of the pending passes a step has seen

    @property
    def pending(self) -> int:
        """The rows collected since the last fit."""
        return sum(len(x) for x, _ in self._pending)

    def accumulate(self, machine: Machine, t: IO, state: State) -> None:
        """Keeps the pass's rows: the first input and the first target.

        Raises:
            ValueError: a target is NaN or infinite; no later fit would succeed.
        """
        if not bool(t.f.isfinite().all()):
            raise ValueError(
                "theta.Fit expected finite targets, got NaN or infinity: look at the loss, and at the rule above"
            )
        self._pending.append((state.inputs.f.detach().flatten(1).cpu().clone(), t.f.detach().cpu().clone()))

    def step(self, machine: Machine) -> None:
        """Fits a member once there are rows enough; the rows stay where the fit fails."""
        if self.pending >= self.rows:
            self._fit(machine)
            self._pending = []
        self._stepped = len(self._pending)

    def forget(self) -> None:
        """Drops the rows of passes that no step has seen; those collected by earlier steps stay."""
        del self._pending[self._stepped :]

    def _fit(self, machine: Machine) -> None:
        x, t = (torch.cat(values) for values in zip(*self._pending, strict=True))
        estimator = self.factory()
        if "random_state" in estimator.get_params() and estimator.get_params()["random_state"] is None:
            seed = torch.randint(2**31 - 1, (), generator=self.noise.next())
            estimator.set_params(random_state=int(seed))
        machine.module.add_member(estimator.fit(x.float().numpy(), t.numpy()))  # type: ignore[operator]

    def get_extra_state(self) -> dict[str, list[Tensor]]:
        """The collected rows, so that a resumed run fits on what the unbroken one would have."""
        return {"x": [x for x, _ in self._pending], "t": [t for _, t in self._pending]}

    def set_extra_state(self, state: dict[str, list[Tensor]]) -> None:
        """Takes the collected rows back."""
        self._pending = list(zip(state["x"], state["t"], strict=True))
        self._stepped = len(self._pending)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"rows={self.rows}, pending={self.pending}"


def _regression_tree() -> Any:
    from sklearn.tree import DecisionTreeRegressor

    return DecisionTreeRegressor(max_depth=11)
