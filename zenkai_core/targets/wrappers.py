"""Rules around a rule for x: targets that differ from the inputs in some features only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from zenkai_core.machine import Machine, StepX
from zenkai_core.noise import NoiseKey
from zenkai_core.passes import Gradients
from zenkai_core.state import State
from zenkai_core.values import IO, Target, exact_error
from zenkai_core.wrapping import Wrapping


class Limited(Wrapping, StepX):
    """Only some features of the first input get a target; all else is told that it was right.

    Args:
        rule: the inner rule.
        features: positions among the features of a row, `[n, *shape]` flattened to `[n, features]`; or a number of
            them, drawn anew for each call, the same for all rows.
        seed: of the draws; one draw of torch's global generator if None.

    Raises:
        ValueError: no feature, or one that the input does not have (at the call).

    >>> from torch import nn
    >>> from zenkai_core import Machine, targets, theta
    >>> layer, state = Machine(nn.Linear(3, 1), theta.Null(), Limited(targets.Gradient(), [0, 2])), State()
    >>> y = layer.remember(IO(torch.ones(2, 3)), state)
    >>> (layer.step_x(state.inputs, IO(y.f.detach() + 1), state).f != 1).tolist()
    [[True, False, True], [True, False, True]]
    """

    kind = StepX

    def __init__(self, rule: StepX, features: Sequence[int] | int, *, seed: int | None = None) -> None:
        super().__init__(rule)
        self.features = features if isinstance(features, int) else tuple(features)
        if not (features if isinstance(features, int) else self.features) or (
            isinstance(features, int) and features < 1
        ):
            raise ValueError(
                f"targets.Limited expected at least one feature, got {features!r}: take targets.Null for none"
            )
        self.noise = NoiseKey(seed if isinstance(features, int) else 0)  # named features draw nothing

    def step_x(self, machine: Machine, t: IO, state: State) -> IO:
        """The inner rule's target where it may differ, as exact as that; x elsewhere."""
        x, target = state.inputs.detach(), self.rule.step_x(machine, t, state)
        count = math.prod(x.f.shape[1:])
        mask = torch.zeros(count, dtype=torch.bool, device=x.f.device)
        mask[self._positions(count).to(mask.device)] = True
        mask = mask.view(x.f.shape[1:])
        error = (exact_error(state.inputs, target) or (None,))[0]
        if error is not None:
            return Target.away_from(state.inputs, [error.where(mask, torch.zeros_like(error)), *(None for _ in x[1:])])
        return IO(torch.where(mask, target.f, x.f), *x[1:])

    def passing(self, machine: Machine, state: State) -> AbstractContextManager[None]:
        """As the inner rule does."""
        return self.rule.passing(machine, state)

    def pull(
        self, machine: Machine, x: IO, y: IO, errors: Iterable[Tensor | None], params: list[nn.Parameter], n: int
    ) -> Gradients:
        """As the inner rule does."""
        return self.rule.pull(machine, x, y, errors, params, n)

    def accumulate(self, machine: Machine, t: IO, state: State) -> None:
        """As the inner rule does."""
        self.rule.accumulate(machine, t, state)

    def step(self, machine: Machine) -> None:
        """As the inner rule does."""
        self.rule.step(machine)

    def _positions(self, count: int) -> Tensor:
        named = self.features if isinstance(self.features, tuple) else ()
        number = self.features if isinstance(self.features, int) else len(named)
        if number > count or any(not -count <= i < count for i in named):
            raise ValueError(
                f"targets.Limited expected features among {count}, got {self.features}: positions in a flattened row "
                "count from 0"
            )
        if named:
            return torch.tensor(named)
        return torch.randperm(count, generator=self.noise.next())[:number]

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"features={self.features}"
