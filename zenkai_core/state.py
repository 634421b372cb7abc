"""`State`: what one forward pass of one machine must remember, and nothing else knows.

It is made by whoever runs the pass, handed to every later call about that pass, and dropped with it. Nothing is keyed
by the identity of an object: a sub-state has a name, and two passes have two states.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from zenkai_core.context import Context
from zenkai_core.requested import Requested
from zenkai_core.values import IO, Target

Origin = tuple[nn.Module, "State", int]
"""(machine, its state, which of its outputs)."""


class NeedsLabels(RuntimeError):
    """A rule asked for labels in a backward pass of autograd, which knows none."""


@dataclass(eq=False)
class State:
    """The memory of one pass of one machine.

    Attributes:
        x: the inputs of the pass, leaves of its own graph.
        y: the outputs of the pass.
        t: the target of the layer, once `accumulate` has been told.
        above: outputs of this layer `[k * n, ...]` (k whole copies of the rows, row r being sample r % n) -> `[k * n]`
            the cost per row of the network's loss through the layers above, with the labels inside. Set once the
            target is known; alone, a machine is its own network.
        error: () -> dl/dy per row of the whole network's cost at the network's own outputs, a tensor (or None, for an
            integer output) each: the error that direct feedback sends to every layer. Set together with `above`.
        goal: the whole network's own target, labels say, whatever this layer is given. Set together with `above`.
        criterion: the cost that replaces the machine's own in this pass: squared error under the autograd bridge,
            which sees only gradients; or the one that the machine's own, which sees inputs, makes of those of the pass.
        notes: where rules write figures about this pass by `Rule.note`, if somebody records it; None costs nothing.
        remember: False for a pass that nobody will learn from: no graph is kept.
        wants_x: whether a target for x will be asked; False spares its gradient.
        training: the mode the pass was made in.
        version: the machine's count of steps when the pass was made.
        checked: whether the inputs, the target and the cost of the pass are known to be finite.
        position: which of the network's outputs the first of this layer's is, if these are outputs of the network.
        requested: under autograd, which parameters the running backward pass wants the gradients of; None in an
            explicit call, which learns from everything.
        accumulated: whether the machine has accumulated the pass, so that a step may come of it.
        context: what the module is called with beside x, such as masks.
        factor: the factor on the user's loss that targets are free of and `.grad` keeps; None for none.
        data: whatever else rules and users keep; a `Machine` notes there the random state, the autocast and the
            statistics of normalisation of the pass.

    >>> state = State()
    >>> state.sub("0") is state.sub("0"), state.sub("0") is state.sub("1")
    (True, False)
    """

    x: IO | None = None
    y: IO | None = None
    t: IO | None = None
    above: Callable[[IO], Tensor] | None = None
    error: Callable[[], tuple[Tensor | None, ...]] | None = None
    goal: IO | None = None
    criterion: Callable[[IO, IO], Tensor] | None = None
    notes: dict[str, Any] | None = None
    remember: bool = True
    wants_x: bool = True
    training: bool = False
    version: int = 0
    checked: bool = False
    position: int | None = None
    requested: Requested | None = None
    context: Context | None = None
    factor: Tensor | float | None = None
    accumulated: bool = False
    data: dict[str, Any] = field(default_factory=dict)
    _subs: dict[str, State] = field(default_factory=dict)
    _origins: tuple[tuple[nn.Module, weakref.ref[State], int] | None, ...] = ()

    def sub(self, name: str) -> State:
        """The sub-state of that name, made when first asked; `remember` is inherited."""
        found = self._subs.get(name)
        if found is None:
            found = self._subs[name] = State(remember=self.remember)
        return found

    @property
    def origins(self) -> tuple[Origin | None, ...]:
        """For each input who made it: the machine below, its state, and which of its outputs it is; None: nobody.

        Set by containers; empty at the bottom. Machines within containers are named, not the containers around them.
        States are held weakly (the layer below knows the layers above), so that a pass is freed with its last user.
        """
        found: list[Origin | None] = []
        for origin in self._origins:
            below = None if origin is None else origin[1]()
            found.append(None if origin is None or below is None else (origin[0], below, origin[2]))
        return tuple(found)

    @origins.setter
    def origins(self, origins: Iterable[Origin | None]) -> None:
        self._origins = tuple(None if o is None else (o[0], weakref.ref(o[1]), o[2]) for o in origins)

    @property
    def incoming(self) -> tuple[nn.Module, State] | None:
        """The machine below and its state, for rules that ask the layer below; None at the bottom, and where the inputs
        are not just the outputs of one machine.
        """
        origins = self.origins
        if not origins or origins[0] is None:
            return None
        machine, below, _ = origins[0]
        places = [o[2] if o is not None and o[1] is below else None for o in origins]
        return (machine, below) if places == list(range(len(below.outputs))) else None

    @property
    def subs(self) -> dict[str, State]:
        """Name -> sub-state, a copy of the table."""
        return dict(self._subs)

    @property
    def inputs(self) -> IO:
        """x, where the pass has been made.

        Raises:
            RuntimeError: no pass has been made with this state.
        """
        if self.x is None:
            raise _unused()
        return self.x

    @property
    def outputs(self) -> IO:
        """y, where the pass has been made.

        Raises:
            RuntimeError: no pass has been made with this state.
        """
        if self.y is None:
            raise _unused()
        return self.y

    def expect_newest(self, version: int) -> None:
        """Refuses a pass that is older than the machine's last step.

        Raises:
            RuntimeError: its graph belongs to parameters that are gone.
        """
        if self.inputs and self.version != version:
            raise RuntimeError(
                "accumulate expected a pass made after the last step, got an older one: its graph belongs "
                "to parameters that are gone; run the forward pass again"
            )

    def expect_x(self) -> None:
        """Refuses a pass that no target for x may be asked of.

        Raises:
            RuntimeError: it was made with `wants_x=False`.
        """
        if not self.wants_x:
            raise RuntimeError(
                "step_x expected a pass made with State(wants_x=True), got one without: its graph leaves x out"
            )

    def labels(self, owner: str = "a rule") -> IO:
        """The network's own target, such as labels, wherever this layer is.

        Args:
            owner: who asks, for the error.

        Raises:
            RuntimeError: the target is not known yet.
            NeedsLabels: under autograd, which knows the gradient of the loss and no labels.
        """
        if self.goal is None:
            raise _unknown_target("target")
        if isinstance(self.goal, Target):
            raise NeedsLabels(
                f"{owner} expected the network's own target, got a gradient: call learn(x, t) of the network, since "
                "loss.backward() keeps the labels to itself"
            )
        return self.goal

    def cost_above(self, y: IO) -> Tensor:
        """The network's cost per row, `[k * n]`, if this layer put out y, `[k * n, ...]`.

        Raises:
            RuntimeError: the target is not known yet.
        """
        if self.above is None:
            raise _unknown_target("cost")
        return self.above(y)

    def output_error(self) -> tuple[Tensor | None, ...]:
        """The error at the network's outputs, dl/dy per row for each of them; None for an integer output.

        Raises:
            RuntimeError: the target is not known yet.
        """
        if self.error is None:
            raise _unknown_target("error")
        return self.error()

    def forget_targets(self) -> None:
        """Drops the targets of this pass and of its sub-states, before a further backward pass sets them."""
        self.t = self.goal = self.error = self.above = None
        self.accumulated = False
        for sub in self._subs.values():
            sub.forget_targets()


def _unknown_target(what: str) -> RuntimeError:
    return RuntimeError(
        f"the network's {what} is known once the target is, got a state without one: call learn, accumulate or step_y "
        "of the outermost machine first"
    )


def _unused() -> RuntimeError:
    return RuntimeError(
        "expected the state of a forward pass, got an unused one: call forward_nn(x, state) with this state first"
    )
