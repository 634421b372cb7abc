"""`Swap`: two machines for one place, each learning from a mix of the target and what the other puts out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from zenkai_core.container import Container, hand_down
from zenkai_core.criteria import Criterion, output_gradient, sse
from zenkai_core.learning import LearningMachine, LMode
from zenkai_core.state import Origin, State
from zenkai_core.values import IO, Target, asks_nothing, nothing_asked

Role = Literal["main", "sub"]


class Swap(Container):
    """Two machines from the same inputs to outputs of the same shape, of which `main` answers and both may learn.

    With y the outputs of the pass, the targets are

        t_main = (1 - main_mix) * t + main_mix * y_sub,        t_sub = (1 - sub_mix) * t + sub_mix * y_main,

    so that the one can be trained towards the other (distilled) before or while it takes its place: `swap()` exchanges
    the roles. A cheap differentiable machine as the sub can so give the target for what is below one that has no
    gradient (`step_x="sub"`). Where a machine's cost is not `sse` (labels), what is mixed is the target that its cost
    gives (equation 2 of the paper), t = y - dl/dy per row.

    Args:
        main: answers, until they are swapped.
        sub: the other one; it makes a pass only where something depends on it.
        train_main, train_sub: who learns.
        main_mix, sub_mix: in [0, 1]; the other's share in its target.
        step_x: whose rule gives the target for what is below, from the mix that this one learns from.
        x_mix: in [0, 1]; the other's share in the target from which that rule starts, if it shall be another one.
        scale, lmode: as for `LearningMachine`; `loss` is that of the machines.

    Attributes:
        swapped: whether the machine first given as the sub is the main one now; saved with the `state_dict`.

    Raises:
        TypeError: something is not a machine.
        ValueError: a share outside [0, 1], nobody who learns, an unknown step_x, one machine given twice; or as for
            `Chain`.

    >>> import torch
    >>> from torch import nn
    >>> from zenkai_core import Machine, targets, theta
    >>> def layer():
    ...     return Machine(nn.Linear(3, 2), theta.Gradient(torch.optim.SGD, lr=0.1), targets.Gradient())
    >>> teacher, pupil = layer(), layer()
    >>> both = Swap(teacher, pupil, train_main=False, train_sub=True, sub_mix=1.0)
    >>> x, t = torch.randn(20, 3), torch.randn(20, 2)
    >>> for _ in range(200): _ = both.learn(x, t)
    >>> torch.allclose(teacher(x), pupil(x), atol=0.05)
    True
    >>> both.swap()
    >>> both.main is pupil
    True
    """

    def __init__(
        self,
        main: LearningMachine,
        sub: LearningMachine,
        *,
        train_main: bool = True,
        train_sub: bool = True,
        main_mix: float = 0.0,
        sub_mix: float = 0.0,
        step_x: Role = "main",
        x_mix: float | None = None,
        scale: float = 1.0,
        lmode: LMode = "accumulate",
    ) -> None:
        super().__init__((main, sub), scale=scale, lmode=lmode)
        if main is sub:
            raise ValueError("Swap expected two machines, got one twice: give it a machine of its own for each role")
        for name, share in (("main_mix", main_mix), ("sub_mix", sub_mix), ("x_mix", 0.0 if x_mix is None else x_mix)):
            if not 0 <= share <= 1:
                raise ValueError(f"Swap expected {name} in [0, 1], got {share}: it is the other's share in the target")
        if not (train_main or train_sub):
            raise ValueError("Swap expected train_main or train_sub, got neither: somebody must learn")
        if step_x not in ("main", "sub"):
            raise ValueError(
                f"Swap expected step_x 'main' or 'sub', got {step_x!r}: say whose rule gives the target below"
            )
        self.first, self.second = main, sub
        self.swapped = False
        self.trained: dict[Role, bool] = {"main": train_main, "sub": train_sub}
        self.mix: dict[Role, float] = {"main": main_mix, "sub": sub_mix}
        self.asked: Role = step_x
        self.x_mix = x_mix

    @property
    def main(self) -> LearningMachine:
        """The machine that answers."""
        return self.second if self.swapped else self.first

    @property
    def sub(self) -> LearningMachine:
        """The other one."""
        return self.first if self.swapped else self.second

    def swap(self) -> None:
        """Exchanges the roles, for passes from now on; a pass made before keeps those it was made with."""
        self.swapped = not self.swapped

    def forward_nn(self, x: IO, state: State) -> IO:
        """One pass of the main machine, and one of the sub where its output or its rules will be used."""
        state.training, state.x = self.training, x.detach()
        machines: dict[Role, LearningMachine] = {"main": self.main, "sub": self.sub}
        if not (state.remember and self._needs_sub(state.wants_x)):
            del machines["sub"]
        state.data["machines"] = machines
        for role, m in machines.items():
            of = state.sub(role)
            of.wants_x = state.wants_x and role == self.asked
            of.origins = state.origins if role in ("main", self.asked) else ()  # only rules for x look below
            y = m.remember(state.x, of)
            if role == "main":
                state.y = y
            elif [v.shape for v in y] != [v.shape for v in state.outputs]:
                raise ValueError(f"Swap expected a sub that puts out {state.outputs}, got {y}: shape it as the main")
        return state.outputs

    def assess_y(self, y: IO, t: IO) -> Tensor:
        """The main machine's cost per row, `[n]`."""
        return self.main.assess_y(y, t)

    def accumulate(self, x: IO, t: IO, state: State) -> None:
        """Those who learn accumulate, each towards its own mix."""
        self._say_around(t, state)
        state.t = t
        for role, m in self._machines(state).items():
            if self.trained[role]:
                m.tell(self._mixed(role, self.mix[role], t, state), state.sub(role))

    def step_x(self, x: IO, t: IO, state: State) -> IO:
        """By the rule of the machine that is asked, from its mix."""
        m, of = self._machines(state)[self.asked], state.sub(self.asked)
        if self.x_mix is None and state.t is t and of.t is not None:
            target = of.t
        else:
            self._say_around(t, state)
            mix = self.mix[self.asked] if self.x_mix is None else self.x_mix
            target = m.step_y(of.inputs, self._mixed(self.asked, mix, t, state), of)
        return nothing_asked(of.inputs) if asks_nothing(of.outputs, target) else m.step_x(of.inputs, target, of)

    def step(self, x: IO, t: IO, state: State) -> None:
        """Those who learn step."""
        machines = self._machines(state)
        self._step_each((m, state.sub(role)) for role, m in machines.items() if self.trained[role])

    def frozen(self, x: IO, state: State, params: Mapping[str, Tensor] | None = None) -> IO:
        """Any rows through the main machine as it is in this pass.

        Raises:
            TypeError: params are given; ask one machine.
        """
        if params is not None:
            return super().frozen(x, state, params)
        return self._machines(state)["main"].frozen(x, state.sub("main"))

    def origins(self, state: State) -> tuple[Origin | None, ...]:
        """Those of the main machine."""
        return self._machines(state)["main"].origins(state.sub("main"))

    def get_extra_state(self) -> Any:
        """Whether they are swapped, so that it is part of the `state_dict`."""
        return {"swapped": self.swapped}

    def set_extra_state(self, state: Any) -> None:
        """Takes the roles back."""
        self.swapped = state["swapped"]

    def _needs_sub(self, wants_x: bool) -> bool:
        mixes = [self.mix["main"]] if self.trained["main"] else []
        if wants_x and self.asked == "main":
            mixes.append(self.mix["main"] if self.x_mix is None else self.x_mix)
        return self.trained["sub"] or any(mixes) or (wants_x and self.asked == "sub")

    def _machines(self, state: State) -> dict[Role, LearningMachine]:
        return state.data["machines"]

    def gives_target(self, has_target: bool) -> bool:
        """Whether the machine that is asked gives a target; the other's output may be one."""
        mixed = (self.mix[self.asked] if self.x_mix is None else self.x_mix) > 0
        asked = self.main if self.asked == "main" else self.sub
        return asked.gives_target(has_target or mixed)

    def without_target(self, has_target: bool) -> list[LearningMachine]:
        """Those of the two that learn without a target; the other's output may be one."""
        roles: dict[Role, LearningMachine] = {"main": self.main, "sub": self.sub}
        return [
            found
            for role, m in roles.items()
            if self.trained[role]
            for found in m.without_target(has_target or self.mix[role] > 0)
        ]

    @property
    def takes_missing(self) -> bool:
        """Whether all machines take NaN in the inputs as missing values."""
        return all(m.takes_missing for m in (self.main, self.sub))

    @property
    def _criterion(self) -> Criterion:
        return self.main._criterion

    def _say_around(self, t: IO, state: State) -> None:
        above = self._say_goal(t, state)
        for role in self._machines(state):
            hand_down(state, state.sub(role), above, state.position if role == "main" else None)

    def _mixed(self, role: Role, share: float, t: IO, state: State) -> IO:
        """(1 - share) * t + share * the other's output."""
        of, machine = state.sub(role), self._machines(state)[role]
        criterion = state.criterion or machine._criterion
        plain = self.mix[role] == 0 and (self.x_mix or 0) == 0
        of.criterion = state.criterion if plain else sse
        if plain or (share == 0 and criterion is sse):
            return t
        y = of.outputs.detach()
        if criterion is not sse:
            t = Target.away_from(y, output_gradient(criterion, y, t))
        if share == 0:
            return t
        other = state.sub("sub" if role == "main" else "main").outputs.detach()
        return Target(*(a.lerp(b, share) if b.is_floating_point() else a for a, b in zip(t, other, strict=True)))
