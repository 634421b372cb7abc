"""What each update of each layer was good for (section 2 of the paper, equations 4 and 5), and what is wrong with it.

Global error reduction (equation 4) is the fall of the network's loss, local error reduction (equation 5) the fall of
the layer's own loss: after a step of the parameters, and after moving the layer's input to the target that it gave.
Everything is computed in hooks, by passes that move no buffer and no generator: the run is the same with and without.
"""

from __future__ import annotations

import math
import os
import weakref
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from zenkai_core.diagnostics import measures, outputs, reading
from zenkai_core.diagnostics.descent import Descent, same_network
from zenkai_core.hooks import Call, Event, Hook, When
from zenkai_core.learning import LearningMachine
from zenkai_core.machine import Machine
from zenkai_core.state import State
from zenkai_core.values import IO

FIELDS = (
    "cost",
    "distance",
    "relative",
    "error",
    "attained",
    "round_trip",
    "dead",
    "update_ratio",
    "update_angle",
    "target_angle",
    "local_theta",
    "local_x",
    "global_theta",
    "global_x",
)
_OF_SOMETHING = (
    "relative",
    "error",
    "attained",
    "update_ratio",
    "update_angle",
    "target_angle",
)  # not finite: that is zero


class Recorder:
    """Listens to every innermost machine of a model, and keeps a row for each layer and update.

    Args:
        model: a machine, a chain, or any module with machines in it.
        every: keep one update of so many; the others cost next to nothing.
        gradients: whether to differentiate the network for the two angles, by one backward pass per layer and row.

    Raises:
        ValueError: every < 1, or a model without machines.

    A row has `step` (the layer's count of updates), `layer` (its name in the model), and, as means over the batch's
    rows, or None where there is none:

    - `cost`, the layer's loss before the update;
    - `distance`, the Euclidean distance between output and target; `relative`, the same as a share of the output's
      norm; `attained`, the share of the distance that the step of the parameters closed (negative: it went away);
      `round_trip`, the distance to the target that is left where the layer below reaches the target given to it;
    - `error`, the norm of the network's error (its loss's gradient) at the layer's output, as a share of the output's
      norm; 0 in every layer where the network itself has none left;
    - `dead`, the share of the layer's units that said the same for every row;
    - `update_ratio`, the norm of the parameters' update over the norm of the parameters;
    - `update_angle`, in degrees, between the update and steepest descent of the network's loss; `target_angle`, in
      degrees, between target less output and steepest descent of the network's loss at that output. The gradient is
      that of the pass: its parameters, statistics and masks; it is the sum over all places of a machine that stands at
      several, if each of them is kept, and the update is noted with the place by which it steps. There is none below a
      layer without one, below a machine of your own, below a `Graph` that sees a part of a split input, and where a
      `Swap` is answered for by a machine that does not learn;
    - `local_theta` and `global_theta`, error reductions by the step of the parameters; `local_x` and `global_x`, error
      reductions by the target given to the layer below;
    - what the layer's rules note: see the rule; `theta_`, `x_` and `y_` say whose figure it is.

    Under autograd, where a machine sees only gradients, the network's loss is the squared error of its output. A
    `modules.BlackBox` is asked by the recorder's passes too, and counts them.

    Use it in a `with` block, or `close()` it. `read` says in words what is wrong with a layer, `plot` draws, `frame`
    makes a pandas frame and `to_tensorboard` writes to a `SummaryWriter`.

    >>> from zenkai_core import Machine, theta, targets
    >>> layer = Machine(nn.Linear(3, 2), theta.Gradient(torch.optim.SGD, lr=0.1), targets.Gradient())
    >>> with Recorder(layer) as recorder:
    ...     _ = layer.learn(torch.ones(4, 3), torch.zeros(4, 2))
    >>> row = recorder.rows()[0]
    >>> row["local_theta"] > 0, round(row["update_angle"], 3)
    (True, 0.0)
    """

    def __init__(self, model: nn.Module, *, every: int = 1, gradients: bool = True) -> None:
        if not isinstance(every, int) or every < 1:
            raise ValueError(f"Recorder expected a whole number every >= 1, got {every}: 1 keeps every update")
        found = {name: m for name, m in model.named_modules() if isinstance(m, LearningMachine) and _innermost(m)}
        if not found:
            raise ValueError(
                f"Recorder expected a model with machines, got a {type(model).__name__} without one: give it a Machine "
                "or a Chain"
            )
        self.every = every
        self.gradients = gradients
        self._rows: list[dict[str, Any]] = []
        self._current: dict[LearningMachine, list[tuple[weakref.ref[State], dict[str, Any]]]] = {}
        self._descent = Descent()
        self._before: dict[LearningMachine, list[Tensor]] = {}
        self._count: dict[LearningMachine, int] = dict.fromkeys(found.values(), 0)
        self._names = {m: name or type(m).__name__ for name, m in found.items()}
        listeners: tuple[tuple[Event, Hook, When], ...] = (
            ("step_y", self._begin, "before"),
            ("accumulate", self._accumulate, "before"),
            ("step_x", self._step_x, "after"),
            ("step", self._before_step, "before"),
            ("step", self._step, "after"),
        )
        self._handles = [m.register_hook(*listener) for m in found.values() for listener in listeners]
        if gradients:
            around = {m for m in model.modules() if isinstance(m, LearningMachine) and m not in self._names}
            self._handles += [m.register_hook("accumulate", self._enter, "before") for m in around]
            self._handles += [m.register_hook("accumulate", self._leave) for m in around]

    def __repr__(self) -> str:
        layers = ", ".join(self._names.values())
        return f"Recorder({layers}: {len(self._rows)} rows, every={self.every}, gradients={self.gradients})"

    def rows(self) -> list[dict[str, Any]]:
        """What was kept so far, in the order in which layers were told their targets; numbers are floats."""
        return [{k: _number(k, v) for k, v in row.items()} for row in self._rows]

    def read(self, last: int | None = None) -> str:
        """What is wrong with which layer, and by which figure, in a few lines: see `zenkai_core.diagnostics.read`.

        Args:
            last: only so many of each layer's newest rows; all if None.
        """
        return "\n".join(str(finding) for finding in reading.read(self.rows(), last))

    def plot(self, path: str | os.PathLike[str], title: str = "") -> None:
        """Draws every quantity, a panel each, over the updates of every layer.

        Args:
            path: where to write; the ending says the format (png, pdf, svg).
            title: above the picture.

        Raises:
            ValueError: nothing was recorded.
        """
        outputs.plot(self.rows(), path, title)

    def frame(self) -> Any:
        """The rows as a `pandas.DataFrame`, a column for each quantity.

        Raises:
            ImportError: pandas is not installed.
        """
        return outputs.frame(self.rows())

    def to_tensorboard(self, writer: Any) -> None:
        """Writes every quantity as the scalar "layer/quantity" at the layer's count of updates.

        Args:
            writer: a `torch.utils.tensorboard.SummaryWriter`, or a directory for a new one.

        Raises:
            ImportError: a directory is given and tensorboard is not installed.
        """
        outputs.to_tensorboard(self.rows(), writer)

    def clear(self) -> None:
        """Forgets the rows kept so far; counts of updates go on."""
        self._rows.clear()

    def close(self) -> None:
        """Stops listening."""
        for handle in self._handles:
            handle.remove()
        self._current.clear()
        self._before.clear()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self, call: Call) -> None:
        """Gives the rules a place for their notes, where the coming update is one to keep."""
        if call.state is not None and call.state.notes is None and self._count[call.machine] % self.every == 0:
            call.state.notes = {}

    def _enter(self, call: Call) -> None:
        """Lets a container share the network's error out to the machines inside, where one of them will be kept."""
        kept = any(self._count[m] % self.every == 0 for m in call.machine.modules() if m in self._count)
        if kept and call.state is not None:
            self._descent.enter(call.machine, call.state)

    @torch.no_grad()
    def _leave(self, call: Call) -> None:
        if call.state is not None:
            self._descent.leave(call.machine, call.state)

    @torch.no_grad()
    def _accumulate(self, call: Call) -> None:
        machine, state, t = call.machine, call.state, call.t
        step = self._count[machine]
        self._count[machine] += 1
        current = self._current[machine] = [
            held for held in self._current.get(machine, []) if same_network(held[0], state)
        ]
        if step % self.every or state is None or t is None or state.y is None:
            if state is not None:
                self._descent.skip(machine, state)
            return
        row: dict[str, Any] = {"step": step, "layer": self._names[machine], **dict.fromkeys(FIELDS)}
        row.update(state.notes or {})
        state.notes = row
        y = state.y.detach()
        row["cost"] = _local(machine, y, t, state).mean()
        row["dead"] = measures.dead(y)
        if measures.comparable(y, t):
            row["distance"] = measures.distance(y, t)
            row["relative"] = row["distance"] / measures.size(y)
        row["error"] = self._error(state)
        self._rows.append(row)
        current.append((weakref.ref(state), row))  # weakly: a recorder keeps no graph alive
        if self.gradients:
            errors = self._descent.trace.at(state)
            if errors is not None and measures.comparable(state.outputs, t):
                pairs = [(v.detach() - w, e) for v, w, e in zip(state.outputs, t, errors, strict=True) if e is not None]
                row["target_angle"] = measures.angle((a for a, _ in pairs), (e for _, e in pairs)) if pairs else None
            self._descent.differentiate(machine, state)

    def _error(self, state: State) -> Tensor | float | None:
        """The network's error at the pass's outputs as a share of these, as far as it is known; 0 where it has none."""
        errors = self._descent.trace.at(state)
        if errors is None:
            try:
                errors = state.output_error()
            except RuntimeError:  # a cost without a gradient: a recorder breaks no run
                return None
            return 0.0 if not any(bool(e.any()) for e in errors if e is not None) else None
        pairs = [(e, y.detach()) for e, y in zip(errors, state.outputs, strict=True) if e is not None]
        if not any(bool(e.any()) for e, _ in pairs):
            return 0.0
        return measures.size(IO(*(e for e, _ in pairs))) / measures.size(IO(*(y for _, y in pairs)))

    @torch.no_grad()
    def _step_x(self, call: Call) -> None:
        row = self._row_of(call)
        if row is not None and call.t is not None and call.state is not None and isinstance(call.machine, Machine):
            after = call.machine.replay(call.result, call.state).detach()
            before = call.machine.replay(call.state.inputs.detach(), call.state).detach()
            _reductions(row, "x", call, before, after)
            if measures.comparable(after, call.t):
                row["round_trip"] = measures.distance(after, call.t)

    def _before_step(self, call: Call) -> None:
        row = self._row_of(call)
        if row is not None and isinstance(call.machine, Machine):
            self._before[call.machine] = [p.detach().clone() for p in call.machine.trainable()]

    @torch.no_grad()
    def _step(self, call: Call) -> None:
        row = self._row_of(call)
        before = self._before.pop(call.machine, None)
        if row is None or call.t is None or call.state is None or before is None:
            return
        machine, y, t = call.machine, call.state.outputs.detach(), call.t
        after = machine.replay(call.state.inputs.detach(), call.state).detach()
        _reductions(row, "theta", call, y, after)
        if measures.comparable(y, t):
            row["attained"] = 1 - measures.distance(after, t) / row["distance"]
        now = machine.trainable()
        if before and len(before) == len(now):
            moved = [p - q for p, q in zip(now, before, strict=True)]
            row["update_ratio"] = measures.ratio(moved, before)
            if (gradient := self._descent.gradient(machine, call.state)) is not None:
                row["update_angle"] = measures.angle((-v for v in moved), gradient)

    def _row_of(self, call: Call) -> dict[str, Any] | None:
        return next((row for held, row in self._current.get(call.machine, []) if held() is call.state), None)


def _reductions(row: dict[str, Any], what: str, call: Call, before: IO, after: IO) -> None:
    """Equations 4 and 5: loss before less loss after, from the outputs before and after."""
    machine, state, t = call.machine, call.state, call.t
    if state is None or t is None:
        return
    row[f"local_{what}"] = (_local(machine, before, t, state) - _local(machine, after, t, state)).mean()
    if state.above is not None:
        row[f"global_{what}"] = (state.above(before) - state.above(after)).mean()


def _local(machine: LearningMachine, y: IO, t: IO, state: State) -> Tensor:
    return machine.cost(y, t, state) if isinstance(machine, Machine) else machine._cost_against(t, state.criterion, y)


def _number(name: str, value: Any) -> Any:
    """A float of a tensor; None where an angle or a share is of nothing."""
    if isinstance(value, Tensor):
        value = float(value)
    return None if name in _OF_SOMETHING and value is not None and not math.isfinite(value) else value


def _innermost(machine: LearningMachine) -> bool:
    return sum(isinstance(m, LearningMachine) for m in machine.modules()) == 1
