"""What each update of each layer was good for (section 2 of the paper, equations 4 and 5), and how far its target lay.

Global error reduction (equation 4) is the fall of the network's loss, local error reduction (equation 5) the fall of
the layer's own loss: after a step of the parameters, and after moving the layer's input to the target that it gave.
Everything is computed in hooks, by passes that move no buffer and no generator: the run is the same with and without.
"""

from __future__ import annotations

import weakref
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from zenkai_core.hooks import Call, Event, Hook, When
from zenkai_core.learning import LearningMachine
from zenkai_core.machine import Machine
from zenkai_core.state import State
from zenkai_core.values import IO

_FIELDS = ("cost", "distance", "local_theta", "local_x", "global_theta", "global_x")


class Recorder:
    """Listens to every innermost machine of a model, and keeps a row for each layer and update.

    Args:
        model: a machine, a chain, or any module with machines in it.
        every: keep one update of so many; the others cost next to nothing.

    Raises:
        ValueError: every < 1, or a model without machines.

    A row has `step` (the layer's count of updates), `layer` (its name in the model), and, as means over the batch's
    rows or None where there is none: `cost`, the layer's loss before the update; `distance`, the Euclidean distance
    between output and target; `local_theta` and `global_theta`, error reductions by the step of the parameters;
    `local_x` and `global_x`, error reductions by the target given to the layer below.
    Under autograd, where a machine sees only gradients, the network's loss is the squared error of its output.

    Use it in a `with` block, or `close()` it.

    >>> from zenkai_core import Machine, theta, targets
    >>> layer = Machine(nn.Linear(3, 2), theta.Gradient(torch.optim.SGD, lr=0.1), targets.Gradient())
    >>> with Recorder(layer) as recorder:
    ...     _ = layer.learn(torch.ones(4, 3), torch.zeros(4, 2))
    >>> recorder.rows()[0]["local_theta"] > 0
    True
    """

    def __init__(self, model: nn.Module, *, every: int = 1) -> None:
        if not isinstance(every, int) or every < 1:
            raise ValueError(f"Recorder expected a whole number every >= 1, got {every}: 1 keeps every update")
        found = {name: m for name, m in model.named_modules() if isinstance(m, LearningMachine) and _innermost(m)}
        if not found:
            raise ValueError(
                f"Recorder expected a model with machines, got a {type(model).__name__} without one: give it a Machine "
                "or a Chain"
            )
        self.every = every
        self._rows: list[dict[str, Any]] = []
        self._current: dict[LearningMachine, tuple[weakref.ref[State], dict[str, Any]]] = {}
        self._count: dict[LearningMachine, int] = dict.fromkeys(found.values(), 0)
        self._names = {m: name or type(m).__name__ for name, m in found.items()}
        listeners: tuple[tuple[Event, Hook, When], ...] = (
            ("accumulate", self._accumulate, "before"),
            ("step_x", self._step_x, "after"),
            ("step", self._step, "after"),
        )
        self._handles = [m.register_hook(*listener) for m in found.values() for listener in listeners]

    def rows(self) -> list[dict[str, Any]]:
        """What was kept so far, in the order in which layers were told their targets; numbers are floats."""
        return [{k: float(v) if isinstance(v, Tensor) else v for k, v in row.items()} for row in self._rows]

    def clear(self) -> None:
        """Forgets the rows kept so far; counts of updates go on."""
        self._rows.clear()

    def close(self) -> None:
        """Stops listening."""
        for handle in self._handles:
            handle.remove()
        self._current.clear()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @torch.no_grad()
    def _accumulate(self, call: Call) -> None:
        machine, state, t = call.machine, call.state, call.t
        step = self._count[machine]
        self._count[machine] += 1
        if step % self.every or state is None or t is None or state.y is None:
            self._current.pop(machine, None)
            return
        row: dict[str, Any] = {"step": step, "layer": self._names[machine], **dict.fromkeys(_FIELDS)}
        y = state.y.detach()
        row["cost"] = _local(machine, y, t, state).mean()
        if len(y) == len(t) and all(a.shape == b.shape and b.is_floating_point() for a, b in zip(y, t, strict=True)):
            row["distance"] = _distance(y, t)
        self._rows.append(row)
        self._current[machine] = (weakref.ref(state), row)  # weakly: a recorder keeps no graph alive

    @torch.no_grad()
    def _step_x(self, call: Call) -> None:
        row = self._row_of(call)
        if row is not None and call.t is not None and call.state is not None and isinstance(call.machine, Machine):
            after = call.machine.replay(call.result, call.state).detach()
            before = call.machine.replay(call.state.inputs.detach(), call.state).detach()
            _fill(row, "x", call, before, after)

    @torch.no_grad()
    def _step(self, call: Call) -> None:
        row = self._row_of(call)
        if row is not None and call.t is not None and call.state is not None and isinstance(call.machine, Machine):
            after = call.machine.replay(call.state.inputs.detach(), call.state).detach()
            _fill(row, "theta", call, call.state.outputs.detach(), after)

    def _row_of(self, call: Call) -> dict[str, Any] | None:
        held = self._current.get(call.machine)
        return held[1] if held is not None and held[0]() is call.state else None


def _fill(row: dict[str, Any], what: str, call: Call, before: IO, after: IO) -> None:
    """Equations 4 and 5: loss before less loss after, from the outputs before and after."""
    machine, state, t = call.machine, call.state, call.t
    if state is None or t is None:
        return
    row[f"local_{what}"] = (_local(machine, before, t, state) - _local(machine, after, t, state)).mean()
    if state.above is not None:
        row[f"global_{what}"] = (state.above(before) - state.above(after)).mean()


def _local(machine: LearningMachine, y: IO, t: IO, state: State) -> Tensor:
    return machine.cost(y, t, state) if isinstance(machine, Machine) else machine.assess_y(y, t)


def _distance(y: IO, t: IO) -> Tensor:
    squares = [(a - b).square().reshape(a.shape[0], -1).sum(1) for a, b in zip(y, t, strict=True)]
    return torch.stack(squares).sum(0).sqrt().mean()


def _innermost(machine: LearningMachine) -> bool:
    return sum(isinstance(m, LearningMachine) for m in machine.modules()) == 1
