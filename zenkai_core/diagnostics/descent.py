"""Steepest descent of the network's loss: the true gradient of every layer, handed down from layer to layer.

Each layer's own backward pass starts from the error that the layers above have said (`Trace`). Where a machine stands
at several places of a network, the gradient of its parameters is the sum over them.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zenkai_core.capabilities import capabilities
from zenkai_core.diagnostics.trace import Errors, Trace
from zenkai_core.global_targets import GlobalTargets
from zenkai_core.learning import LearningMachine
from zenkai_core.machine import Machine
from zenkai_core.state import State


@dataclass(frozen=True)
class _Part:
    """The gradient of a machine's parameters through one of its passes; None where it is not known."""

    state: weakref.ref[State]
    gradient: list[Tensor] | None


class Descent:
    """Gradients of layers, of the newest pass of the network; passes are held weakly."""

    def __init__(self) -> None:
        self.trace = Trace()
        self._parts: weakref.WeakKeyDictionary[LearningMachine, list[_Part]] = weakref.WeakKeyDictionary()

    def enter(self, machine: LearningMachine, state: State) -> None:
        """Before a container accumulates: shares its error out, where the machines inside cannot be told otherwise."""
        self.trace.enter(machine, state)
        if isinstance(machine, GlobalTargets):
            self._descend(machine, state)

    def leave(self, machine: LearningMachine, state: State) -> None:
        """After a container accumulated."""
        self.trace.leave(machine, state)

    def skip(self, machine: LearningMachine, state: State) -> None:
        """A pass that nobody keeps: below it, and in the sum of its machine, nothing is known."""
        self._add(machine, state, None)
        self.trace.hand_down(state, None)

    def differentiate(self, machine: LearningMachine, state: State) -> None:
        """Notes the gradient of the layer's parameters in this pass, and hands the error on to the layer below."""
        if not self.trace.reaches(state):
            self._add(machine, state, None)
            return
        of_x, of_parameters = self._pulled(machine, state, self.trace.at(state))
        self.trace.hand_down(state, of_x)
        self._add(machine, state, of_parameters)

    def gradient(self, machine: LearningMachine, state: State) -> list[Tensor] | None:
        """The gradient of the trainable parameters through all passes of the machine in the network's pass of this one.

        It is given once; None where there is none, or where one of the passes is not known.
        """
        found = [part.gradient for part in self._parts.pop(machine, []) if same_network(part.state, state)]
        known = [gradient for gradient in found if gradient is not None]
        if not known or len(known) < len(found):
            return None
        return [torch.stack(parts).sum(0) for parts in zip(*known, strict=True)]

    def _descend(self, net: GlobalTargets, state: State) -> None:
        """The layers of global targets are told from the input on, so the errors go down before."""
        subs = [state.sub(str(i)) for i in range(len(net))]
        errors = self.trace.at(subs[-1] if state.position is None else state)
        for i in reversed(range(len(net))):
            self.trace.hand_down(subs[i], self._pulled(net.machines[i], subs[i], errors)[0])
            errors = self.trace.at(subs[i - 1])

    def _pulled(
        self, machine: LearningMachine, state: State, errors: Errors | None
    ) -> tuple[Errors | None, list[Tensor] | None]:
        """What the errors at a pass's outputs are at its inputs and at the machine's trainable parameters."""
        if errors is None or not isinstance(machine, Machine) or "differentiable" not in capabilities(machine.module):
            return None, None
        with torch.enable_grad():
            x = state.inputs.leaves(requires_grad=True)
            y = machine.replay(x, state)
            parameters = machine.trainable()
            pulled = [(v, e.to(v.dtype)) for v, e in zip(y, errors, strict=True) if e is not None and v.requires_grad]
            if not pulled:
                return None, None
            leaves = [v for v in (*x, *parameters) if v.requires_grad]
            outs, given = zip(*pulled, strict=True)
            found = iter(torch.autograd.grad(outs, leaves, given, allow_unused=True))
        of_x = tuple(next(found) if v.requires_grad else None for v in x)
        of_parameters = [(p, next(found)) for p in parameters]
        return of_x, [torch.zeros_like(p) if g is None else g for p, g in of_parameters] or None

    def _add(self, machine: LearningMachine, state: State, gradient: list[Tensor] | None) -> None:
        earlier: Sequence[_Part] = self._parts.get(machine, [])
        kept = [part for part in earlier if same_network(part.state, state)]
        self._parts[machine] = [*kept, _Part(weakref.ref(state), gradient)]


def same_network(held: weakref.ref[State], state: State | None) -> bool:
    """Whether a pass still lives and belongs to the same pass of the network as another: they share its error."""
    earlier = held()
    return earlier is not None and state is not None and (earlier is state or earlier.error is state.error is not None)
