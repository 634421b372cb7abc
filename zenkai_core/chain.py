"""`Chain`: machines one after another, each with its own target and its own rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import SupportsIndex, cast, overload

from torch import Tensor

from zenkai_core.container import Container, Order, hand_down, placed
from zenkai_core.criteria import Criterion
from zenkai_core.learning import LearningMachine, LMode
from zenkai_core.state import Origin, State
from zenkai_core.values import IO


class Chain(Container):
    """A network of machines; one autograd function for the whole of it, one sub-state "0", "1", ... for each machine.

    The target of the last machine is the task's (labels, for a criterion that takes labels); each machine's `step_x`
    gives the target of the one below.

    Args:
        machines: from the input to the output.
        order: "accumulate step_x step": all targets come from the parameters of the pass, in one sweep, then all
            machines step. "accumulate step step_x": a machine steps before it makes the target of the one below.
        scale, lmode: as for `LearningMachine`; `loss` is that of the machines.

    Raises:
        TypeError: something is not a machine.
        ValueError: no machine, an unknown order, machines whose `loss` differ, or one machine at two places in the
            second order.

    >>> import torch
    >>> from torch import nn
    >>> from zenkai_core import Machine, theta, targets
    >>> def layer(i, o):
    ...     return Machine(nn.Linear(i, o), theta.Gradient(torch.optim.SGD, lr=0.1), targets.Gradient())
    >>> net = Chain(layer(3, 4), layer(4, 1))
    >>> net.learn(torch.ones(5, 3), torch.zeros(5, 1)).shape
    torch.Size([])
    >>> len(net), net[-1] is net.machines[1]
    (2, True)
    """

    def __init__(
        self,
        *machines: LearningMachine,
        order: Order = "accumulate step_x step",
        scale: float = 1.0,
        lmode: LMode = "accumulate",
    ) -> None:
        super().__init__(machines, order=order, scale=scale, lmode=lmode)
        for i, m in enumerate(machines):
            self.add_module(str(i), m)
        self._length = len(machines)
        self._warn_without_target()

    @property
    def machines(self) -> tuple[LearningMachine, ...]:
        """From the input to the output: the submodules "0", "1", ..., as they are registered now."""
        return tuple(cast(LearningMachine, self._modules[str(i)]) for i in range(self._length))

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: SupportsIndex) -> LearningMachine: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[LearningMachine, ...]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> LearningMachine | tuple[LearningMachine, ...]:
        return self.machines[index]

    def forward_nn(self, x: IO, state: State) -> IO:
        """One pass through all machines."""
        state.training = self.training
        below = state.origins
        for i, m in enumerate(self.machines):
            sub = state.sub(str(i))
            sub.wants_x = self._wants_x(i, state)
            sub.origins = below
            with placed(f"machine {i} of the Chain", x):
                x = m.remember(x, sub)
            below = m.origins(sub) if state.remember else ()
        state.x, state.y = state.sub("0").x, x
        state.criterion = state.sub(str(self._length - 1)).criterion
        return x

    def assess_y(self, y: IO, t: IO) -> Tensor:
        """The last machine's cost per row, `[n]`."""
        return self.machines[-1].assess_y(y, t)

    def accumulate(self, x: IO, t: IO, state: State) -> None:
        """Every machine accumulates towards its own target; in the second order only the last, the rest in `step`."""
        self._say_above(t, state)
        state.t = t
        if self.order == "accumulate step_x step":
            self._sweep(t, state, accumulate=True)
        else:
            self.machines[-1].tell(t, self._sub(state, self._length - 1))

    def step_x(self, x: IO, t: IO, state: State) -> IO:
        """The first machine's target for what is below the chain; the sweep of `accumulate` serves if there was one."""
        if state.data.get("swept") is not t:
            self._say_above(t, state)
            self._sweep(t, state, accumulate=False)
        return self._step_x_of(0, state)

    def step(self, x: IO, t: IO, state: State) -> None:
        """Every machine that has accumulated steps once.

        In the second order each machine accumulates first, from the target made by the one above.

        Raises:
            RuntimeError: nothing was accumulated for this pass.
        """
        if state.t is None:
            raise RuntimeError(
                "Chain.step expected a pass that was accumulated, got one without targets: call "
                "accumulate(x, t, state) first"
            )
        for i, m in reversed(list(enumerate(self.machines))):
            sub = self._sub(state, i)
            if self.order == "accumulate step step_x" and i < self._length - 1:
                m.tell(self._step_x_of(i + 1, state), sub)
            m.step_told(sub)
        state.data["swept"] = t

    def frozen(self, x: IO, state: State, params: Mapping[str, Tensor] | None = None) -> IO:
        """Any rows through all machines as they are in this pass.

        Raises:
            TypeError: params are given; ask one machine.
        """
        if params is not None:
            return super().frozen(x, state, params)
        return _through(self._layers(state), x)

    def _sweep(self, t: IO, state: State, accumulate: bool) -> None:
        swept = t
        for i, m in reversed(list(enumerate(self.machines))):
            sub = self._sub(state, i)
            if accumulate:
                m.tell(t, sub)
            else:
                sub.t = m.step_y(sub.inputs, t, sub)
            if i > 0:
                t = self._step_x_of(i, state)
        state.data["swept"] = swept

    def _step_x_of(self, i: int, state: State) -> IO:
        return self._asked_by(self.machines[i], self._sub(state, i))

    def origins(self, state: State) -> tuple[Origin | None, ...]:
        """Those of the last machine."""
        return self.machines[-1].origins(self._sub(state, self._length - 1))

    def _wants_x(self, i: int, state: State) -> bool:
        return i > 0 or state.wants_x

    def gives_target(self, has_target: bool) -> bool:
        """Whether the first machine gives a target."""
        for m in reversed(self.machines):
            has_target = m.gives_target(has_target)
        return has_target

    def without_target(self, has_target: bool) -> list[LearningMachine]:
        """The machines that learn but receive no target from the one above."""
        found: list[LearningMachine] = []
        for m in reversed(self.machines):
            found += m.without_target(has_target)
            has_target = m.gives_target(has_target)
        return found

    @property
    def takes_missing(self) -> bool:
        """Whether the first machine takes NaN in the inputs as missing values."""
        return self.machines[0].takes_missing

    @property
    def _criterion(self) -> Criterion:
        return self.machines[-1]._criterion

    def _say_above(self, t: IO, state: State) -> None:
        above = self._say_goal(t, state)
        layers = self._layers(state)
        last = layers[-1][1]
        last.criterion = state.criterion
        for i, (_, sub) in enumerate(layers):
            if sub is last:
                hand_down(state, sub, above, state.position)
            else:
                hand_down(state, sub, partial(_cost_through, layers[i + 1 :], above), None)

    def _layers(self, state: State) -> list[tuple[LearningMachine, State]]:
        return [(m, state.sub(str(i))) for i, m in enumerate(self.machines)]

    def _sub(self, state: State, i: int) -> State:
        return state.sub(str(i))


def _through(layers: list[tuple[LearningMachine, State]], x: IO) -> IO:
    for m, state in layers:
        x = m.frozen(x, state)
    return x


def _cost_through(layers: list[tuple[LearningMachine, State]], above: Callable[[IO], Tensor], y: IO) -> Tensor:
    return above(_through(layers, y))
