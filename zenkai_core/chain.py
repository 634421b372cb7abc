"""`Chain`: machines one after another, each with its own target and its own rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal, SupportsIndex, cast, overload

from torch import Tensor

from zenkai_core.criteria import Criterion
from zenkai_core.learning import LearningMachine, LMode
from zenkai_core.state import State
from zenkai_core.values import IO

Order = Literal["accumulate step_x step", "accumulate step step_x"]


class Chain(LearningMachine):
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
        if not machines:
            raise ValueError("Chain expected at least one machine, got none: give them from input to output")
        for m in machines:
            if not isinstance(m, LearningMachine):
                raise TypeError(
                    f"Chain expected machines, got {type(m).__name__}: wrap a plain module in "
                    "Machine(module, theta.Null(), targets.Gradient())"
                )
        if len({m.loss for m in machines}) > 1:
            raise ValueError(
                f"Chain expected machines with one loss, got {[m.loss for m in machines]}: 'mean' or 'sum' "
                "for all of them"
            )
        if order not in ("accumulate step_x step", "accumulate step step_x"):
            raise ValueError(
                f"Chain expected order 'accumulate step_x step' or 'accumulate step step_x', got {order!r}: "
                "choose which comes first"
            )
        if order == "accumulate step step_x":
            inside = [m for given in machines for m in given.modules() if isinstance(m, LearningMachine)]
            if len(set(inside)) < len(inside):
                raise ValueError(
                    "a Chain that steps before step_x expected each machine once, got one at two places, whose lower "
                    "pass would be older than its upper step: use the other order, or machines of their own"
                )
        super().__init__(loss=machines[0].loss, scale=scale, lmode=lmode)
        for i, m in enumerate(machines):
            self.add_module(str(i), m)
        self._length = len(machines)
        self.order: Order = order

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

    def remember(self, x: IO, state: State) -> IO:
        """As `forward_nn`; the machines note their own passes."""
        state.y = self.forward_nn(x, state)
        return state.y

    def forward_nn(self, x: IO, state: State) -> IO:
        """One pass through all machines."""
        state.training = self.training
        below = state.incoming
        for i, m in enumerate(self.machines):
            sub = state.sub(str(i))
            sub.wants_x = i > 0 or state.wants_x
            sub.incoming = below
            x = m.remember(x, sub)
            below = (m, sub)
        state.x, state.y = state.sub("0").x, x
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
        """Every machine steps once; in the second order each accumulates first, from the target made by the one above.

        Raises:
            RuntimeError: nothing was accumulated for this pass.
        """
        if state.t is None:
            raise RuntimeError(
                "Chain.step expected a pass that was accumulated, got one without targets: call "
                "accumulate(x, t, state) first"
            )
        stepped: set[LearningMachine] = set()
        for i, m in reversed(list(enumerate(self.machines))):
            sub = self._sub(state, i)
            if self.order == "accumulate step step_x" and i < self._length - 1:
                m.tell(self._step_x_of(i + 1, state), sub)
            if m not in stepped:
                m.step(sub.inputs, self._target_of(sub), sub)
                stepped.add(m)
        state.data["swept"] = t

    def frozen(self, x: IO, state: State, params: Mapping[str, Tensor] | None = None) -> IO:
        """Any rows through all machines as they are in this pass.

        Raises:
            TypeError: params are given; ask one machine.
        """
        if params is not None:
            return super().frozen(x, state, params)
        return _through(self._layers(state), x)

    def _run(self, x: IO) -> tuple[IO, State]:
        if self.order == "accumulate step step_x" and self.lmode not in ("accumulate step step_x", "step_x"):
            raise RuntimeError(
                f"a Chain that steps before step_x expected lmode 'accumulate step step_x' in autograd, got "
                f"{self.lmode!r}: backward() moves no parameter by itself; set the lmode, call learn(x, t), "
                "or use the other order"
            )
        return super()._run(x)

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
        sub = self._sub(state, i)
        return self.machines[i].step_x(sub.inputs, self._target_of(sub), sub)

    def _target_of(self, sub: State) -> IO:
        if sub.t is None:
            raise RuntimeError("a machine of a Chain expected a target, got none: call accumulate(x, t, state) first")
        return sub.t

    @property
    def _criterion(self) -> Criterion:
        return self.machines[-1]._criterion

    def _say_above(self, t: IO, state: State) -> None:
        above = self._say_goal(t, state)
        layers = self._layers(state)
        last = layers[-1][1]
        last.criterion, last.above = state.criterion, above
        for i, (_, sub) in enumerate(layers):
            sub.error, sub.goal = state.error, state.goal
            if sub is not last:
                sub.above = partial(_cost_through, layers[i + 1 :], above)

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
