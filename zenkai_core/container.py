"""What containers of machines share: checks of what they are given, and one target made of several."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from torch import Tensor, nn

from zenkai_core.compiled import original
from zenkai_core.context import Context
from zenkai_core.learning import LearningMachine, LMode
from zenkai_core.state import State
from zenkai_core.values import IO, Probabilities, Target, asks_nothing, errors_of, exact_error, nothing_asked

Order = Literal["accumulate step_x step", "accumulate step step_x"]
Combine = Literal["sum", "mean"]


class Container(LearningMachine):
    """A machine made of machines, which note their own passes in sub-states.

    Args:
        machines: all of them.
        order: which of step and step_x comes first, from machine to machine.
        scale, lmode: as for `LearningMachine`; `loss` is that of the machines.

    Raises:
        TypeError: something is not a machine.
        ValueError: no machine, an unknown order, machines whose `loss` differ, or one machine at two places in the
            second order.
    """

    def __init__(
        self,
        machines: Sequence[LearningMachine],
        *,
        order: Order = "accumulate step_x step",
        scale: float = 1.0,
        lmode: LMode = "accumulate",
    ) -> None:
        name = type(self).__name__
        if not machines:
            raise ValueError(f"{name} expected at least one machine, got none: give them from input to output")
        for m in machines:
            if not isinstance(m, LearningMachine):
                if isinstance(m, nn.Module) and isinstance(original(m), LearningMachine):
                    raise TypeError(
                        f"{name} expected machines, got one that torch.compile has wrapped: compile the module inside "
                        "the machine, Machine(torch.compile(module), ...), or the whole network"
                    )
                raise TypeError(
                    f"{name} expected machines, got {type(m).__name__}: wrap a plain module in "
                    "Machine(module, theta.Null(), targets.Gradient())"
                )
        if len({m.loss for m in machines}) > 1:
            raise ValueError(
                f"{name} expected machines with one loss, got {[m.loss for m in machines]}: 'mean' or 'sum' "
                "for all of them"
            )
        if order not in ("accumulate step_x step", "accumulate step step_x"):
            raise ValueError(
                f"{name} expected order 'accumulate step_x step' or 'accumulate step step_x', got {order!r}: "
                "choose which comes first"
            )
        if order == "accumulate step step_x":
            inside = [m for given in machines for m in given.modules() if isinstance(m, LearningMachine)]
            if len(set(inside)) < len(inside):
                raise ValueError(
                    f"a {name} that steps before step_x expected each machine once, got one at two places, whose lower "
                    "pass would be older than its upper step: use the other order, or machines of their own"
                )
        super().__init__(loss=machines[0].loss, scale=scale, lmode=lmode)
        self.order: Order = order

    def __repr__(self) -> str:
        named = [(name, m) for name, m in self.named_children() if isinstance(m, LearningMachine)]
        inside = ", ".join(f"{name}: {_what(m)}" for name, m in named)
        return f"{type(self).__name__}({inside})"

    def _warn_without_target(self) -> None:
        """Warns of the machines inside that learn but can receive no target; each is reported once."""
        found = [m for m in dict.fromkeys(self.without_target(True)) if not m.__dict__.get("_reported", False)]
        if not found:
            return
        names = {id(m): name for name, m in self.named_modules()}
        for m in found:
            m.__dict__["_reported"] = True
        listed = "; ".join(f"{names.get(id(m), '?')!r} ({_what(m)})" for m in found)
        leaves = [
            (name, m)
            for name, m in self.named_modules()
            if isinstance(m, LearningMachine) and not isinstance(m, Container)
        ]
        first = next((i for i, (_, m) in enumerate(leaves) if m is found[0]), -1)
        above = [
            f"{name!r} ({_what(m)}) has {'targets.Null()' if hasattr(m, 'x') else 'no step_x'}"
            for name, m in leaves[first + 1 :]
            if not m.gives_target(True)
        ]
        warnings.warn(
            f"{type(self).__name__} expected a target for every machine that learns, got none for {listed}: no machine "
            f"above gives one; {', '.join(above) or 'one above has targets.Null()'}. Give the machine above a rule "
            "for x, or this one a y rule such as targets.SearchY or targets.DirectFeedback, or theta.Null()",
            stacklevel=3,
        )

    def remember(self, x: IO, state: State) -> IO:
        """As `forward_nn`; the machines note their own passes."""
        state.y = self.forward_nn(x, state)
        return state.y

    def _step_each(self, machines: Iterable[tuple[LearningMachine, State]]) -> None:
        """Every machine that has accumulated since its last step steps once."""
        for m, sub in machines:
            self._told_by(sub)
            m.step_told(sub)

    def _delivers(self) -> bool:
        return True  # the machines inside do

    def local_only(self) -> list[str]:
        """Nothing: the machines inside speak for themselves."""
        return []

    def _asked_by(self, m: LearningMachine, sub: State) -> IO:
        """The target that one of the machines gives for its inputs; one that was asked nothing asks nothing."""
        t = self._told_by(sub)
        return nothing_asked(sub.inputs) if asks_nothing(sub.outputs, t) else m.step_x(sub.inputs, t, sub)

    def _told_by(self, sub: State) -> IO:
        """The target that one of the machines was told.

        Raises:
            RuntimeError: none.
        """
        if sub.t is None:
            raise RuntimeError(
                f"a machine of a {type(self).__name__} expected a target, got none: call accumulate(x, t, state) first"
            )
        return sub.t

    def _run(self, x: IO, context: Context | None = None) -> tuple[IO, State]:
        if self.order == "accumulate step step_x" and self.lmode not in ("accumulate step step_x", "step_x"):
            raise RuntimeError(
                f"a {type(self).__name__} that steps before step_x expected lmode 'accumulate step step_x' in "
                f"autograd, got {self.lmode!r}: backward() moves no parameter by itself; set the lmode, call "
                "learn(x, t), or use the other order"
            )
        return super()._run(x, context)


def _what(machine: LearningMachine) -> str:
    return type(getattr(machine, "module", machine)).__name__


@contextmanager
def placed(where: str, x: IO) -> Iterator[None]:
    """An error of a pass on inputs x says where it came up: torch's own names neither a layer nor what it was given."""
    try:
        yield
    except Exception as error:
        shapes = ", ".join(str(list(v.shape)) for v in x)
        note = f"in {where}, on inputs of shape {shapes}"
        if note not in getattr(error, "__notes__", ()):  # an exception may be raised again
            error.add_note(note)
        raise


def check_combine(name: str, combine: Any) -> Combine:
    """The way to make one target of several.

    Raises:
        ValueError: it is unknown.
    """
    if combine not in ("sum", "mean"):
        raise ValueError(
            f"{name} expected combine 'sum' or 'mean', got {combine!r}: 'sum' adds the changes that are asked of one "
            "output (for gradients), 'mean' takes the mean of the targets"
        )
    return combine


def hand_down(state: State, sub: State, above: Callable[[IO], Tensor], position: int | None) -> None:
    """Tells one of a container's passes of the network around: its cost above, its target, its outputs' place in it.

    Args:
        state: of the container.
        sub: of the machine.
        above: outputs of this machine -> the network's cost per row.
        position: the first of its outputs among the network's, if they are.
    """
    sub.error, sub.goal, sub.above, sub.position = state.error, state.goal, above, position
    sub.requested, sub.factor = state.requested, state.factor


class Joint:
    """The targets that several machines ask of the same tensors, until one is made of them.

    With errors e_j = y - t_j the target is y - sum(e_j), which is the sum of gradients where machines answer by
    gradient; "mean" divides by their number and gives the mean of the targets. What one machine alone asks of a tensor
    stays as it is; a tensor of which nobody asks anything is its own target, and so is an integer one of which several
    ask.

    Args:
        y: the tensors.
        combine: "sum" or "mean".

    >>> import torch
    >>> y = IO(torch.zeros(1))
    >>> joint = Joint(y, "sum")
    >>> joint.ask([0], y, IO(torch.ones(1)))
    >>> joint.ask([0], y, IO(torch.ones(1)))
    >>> joint.target().f.item()
    2.0
    """

    def __init__(self, y: IO, combine: Combine) -> None:
        self._y, self._combine = y.detach(), combine
        self._asked: list[list[tuple[Tensor, Tensor | None, bool]]] = [[] for _ in y]
        self._points = False  # whether a machine asks for a point among the outputs, not for probabilities

    def ask(self, places: Sequence[int | None], x: IO, t: IO) -> None:
        """Notes what one machine asks: its inputs x should be t; x[p] is tensor places[p] of y (None: of none)."""
        exact = exact_error(x, t) is not None
        self._points = self._points or not isinstance(t, Probabilities)
        for place, value, error in zip(places, t, errors_of(x, t), strict=True):
            if place is not None and (error is not None or not value.is_floating_point()):
                self._asked[place].append((value, error, exact))

    def target(self) -> IO:
        """One target for all tensors of y."""
        values: list[Tensor] = []
        errors: list[Tensor | None] = []
        known = True
        for y, asked in zip(self._y, self._asked, strict=True):
            if len(asked) == 1:
                value, error, exact = asked[0]
                known = known and exact
            else:
                error = None
                for _, e, _ in asked:
                    error = e if error is None or e is None else error + e
                if error is not None and self._combine == "mean":
                    error = error / len(asked)
                value = y if error is None else y - error
            values.append(value)
            errors.append(error)
        if known:
            return Target.away_from(self._y, errors)
        return Target(*values) if self._points else Probabilities(*values)
