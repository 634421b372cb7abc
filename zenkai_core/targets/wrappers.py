"""Rules around a target rule: targets that differ from the inputs, or from the outputs, in some features only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from zenkai_core.criteria import is_distance
from zenkai_core.machine import Machine, StepX, StepY
from zenkai_core.noise import NoiseKey
from zenkai_core.passes import Gradients
from zenkai_core.state import State
from zenkai_core.values import IO, Target, exact_error
from zenkai_core.wrapping import Wrapping


class _Features(Wrapping):
    """What `Limited` and `LimitedY` share: which features, and a target that differs in these alone.

    Args: see `Limited`.
    """

    def __init__(self, rule: Any, features: Sequence[int] | int, *, seed: int | None = None) -> None:
        super().__init__(rule)
        self.features = features if isinstance(features, int) else tuple(features)
        if not (features if isinstance(features, int) else self.features) or (
            isinstance(features, int) and features < 1
        ):
            raise ValueError(f"{self._name} expected at least one feature, got {features!r}: {self._of_none}")
        self.noise = NoiseKey(seed if isinstance(features, int) else 0)  # named features draw nothing

    _of_none = "take targets.Null for none"

    @property
    def _name(self) -> str:
        return f"targets.{type(self).__name__}"

    def _limited(self, values: IO, target: IO) -> IO:
        """The target where it may differ from the values, as exact as it is; the values elsewhere."""
        held = values.detach()
        count = math.prod(held.f.shape[1:])
        mask = torch.zeros(count, dtype=torch.bool, device=held.f.device)
        mask[self._positions(count).to(mask.device)] = True
        mask = mask.view(held.f.shape[1:])
        error = (exact_error(values, target) or (None,))[0]
        if error is not None:
            return Target.away_from(values, [error.where(mask, torch.zeros_like(error)), *(None for _ in held[1:])])
        return IO(torch.where(mask, target.f, held.f), *held[1:])

    def _positions(self, count: int) -> Tensor:
        named = self.features if isinstance(self.features, tuple) else ()
        number = self.features if isinstance(self.features, int) else len(named)
        if number > count or any(not -count <= i < count for i in named):
            raise ValueError(
                f"{self._name} expected features among {count}, got {self.features}: positions in a flattened row "
                "count from 0"
            )
        if named:
            return torch.tensor(named)
        return torch.randperm(count, generator=self.noise.next())[:number]

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{self.rule!r}, features={self.features}"


class Limited(_Features, StepX):
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
        super().__init__(rule, features, seed=seed)
        self.points = rule.points
        self.gives_target, self.uses_target = rule.gives_target, rule.uses_target

    def step_x(self, machine: Machine, t: IO, state: State) -> IO:
        """The inner rule's target where it may differ, as exact as that; x elsewhere."""
        return self._limited(state.inputs, self.rule.step_x(machine, t, state))

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


class LimitedY(_Features, StepY):
    """The layer's own target differs from its first output in some features only; all else is told that it was right.

    Args: as for `Limited`, with a rule for y and the features of the layer's output.

    Raises:
        ValueError: no feature, or one that the output does not have (at the call).
        TypeError: the layer's targets are no places among its outputs, such as labels (when it is bound).

    >>> import tansaku
    >>> from torch import nn
    >>> from zenkai_core import Machine, targets, theta
    >>> rule = LimitedY(targets.SearchY(tansaku.HillClimb(k=32, std=0.5), score="local", seed=0), [0, 2])
    >>> layer, state = Machine(nn.Linear(3, 3), theta.Null(), targets.Null(), y=rule), State()
    >>> y = layer.remember(IO(torch.ones(2, 3)), state)
    >>> (layer.step_y(state.inputs, IO(y.f.detach() + 1), state).f != y.f).any(0).tolist()
    [True, False, True]
    """

    kind = StepY
    _of_none = "take theta.Null for a layer that learns nothing"

    def __init__(self, rule: StepY, features: Sequence[int] | int, *, seed: int | None = None) -> None:
        super().__init__(rule, features, seed=seed)
        self.points = rule.points

    def bind(self, machine: Machine) -> None:
        """Binds the inner rule, and asks whether an output can be its own target."""
        if not self.points and is_distance(machine.criterion) is False:
            raise TypeError(
                f"targets.LimitedY expected targets that are places among the outputs, got those of "
                f"{machine.criterion}: an output is no target of its own there; take targets.Limited for x instead"
            )
        super().bind(machine)

    def step_y(self, machine: Machine, t: IO, state: State) -> IO:
        """The inner rule's target where it may differ, as exact as that; y elsewhere."""
        return self._limited(state.outputs, self.rule.step_y(machine, t, state))
