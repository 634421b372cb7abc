"""The network's true error at every layer of a pass, handed down from layer to layer as the layers say it.

An error is dl/dy of the network's loss per row, a tensor (or None, for an integer) for each output of a layer. It adds
up where several layers take one output; where one of them cannot say, it is unknown, and so it is below.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable

import torch
from torch import Tensor

from zenkai_core.chain import Chain
from zenkai_core.graph import Graph
from zenkai_core.learning import LearningMachine
from zenkai_core.parallel import Parallel
from zenkai_core.state import Origin, State
from zenkai_core.swap import Swap

Errors = tuple[Tensor | None, ...]


class Trace:
    """Errors by pass; passes are held weakly."""

    def __init__(self) -> None:
        self._errors: weakref.WeakKeyDictionary[State, Errors | None] = weakref.WeakKeyDictionary()
        self._inputs: weakref.WeakKeyDictionary[State, Errors | None] = weakref.WeakKeyDictionary()

    def reaches(self, state: State) -> bool:
        """Whether something of the network's outputs comes from this pass, as far as the layers above have said."""
        return state.position is not None or state in self._errors

    def at(self, state: State) -> Errors | None:
        """The error at this pass's outputs; None where it is not known."""
        handed = self._errors.get(state)
        if state in self._errors and handed is None:
            return None
        if state.position is None:  # only layers above can say
            return handed
        try:
            errors = state.output_error()[state.position : state.position + len(state.outputs)]
        except RuntimeError:  # a cost without a gradient, or no target: a recorder breaks no run
            return None
        fits = len(errors) == len(state.outputs) and all(
            e is None or e.shape == y.shape for e, y in zip(errors, state.outputs, strict=True)
        )
        return None if not fits else errors if handed is None else _added(errors, handed)

    def hand_down(self, state: State, errors: Errors | None) -> None:
        """Adds the error at a pass's inputs (None: unknown) to what other layers have said to those that made them.

        What is said of a pass a second time is what was said of it before, and is not added once more.
        """
        if state in self._inputs:
            return
        self._inputs[state] = errors
        self._tell(state.origins, errors)

    def enter(self, machine: LearningMachine, state: State) -> None:
        """Before a container accumulates: shares its error out where the machines inside cannot be told otherwise."""
        if isinstance(machine, Parallel):
            if self.reaches(state):
                subs = [state.sub(str(i)) for i in range(len(machine))]
                for m, sub, errors in zip(machine.machines, subs, _shared(self.at(state), subs), strict=True):
                    self._tell(m.origins(sub), errors)
        elif isinstance(machine, Swap):
            if not machine.trained["main"]:  # then nobody tells the machine that answers
                self.hand_down(state, None)
        elif not isinstance(machine, (Chain, Graph)):
            self.hand_down(state, None)  # it keeps to itself how its machines hang together

    def leave(self, machine: LearningMachine, state: State) -> None:
        """After a container accumulated: joins what machines side by side said of the parts of the input they see."""
        if not isinstance(machine, Parallel) or machine.columns is None or not self.reaches(state):
            return
        said = [self._said(m, state.sub(str(i))) for i, m in enumerate(machine.machines)]
        total: Tensor | None = torch.zeros_like(state.inputs.f)
        for columns, errors in zip(machine.columns, said, strict=True):
            if errors is None:
                self.hand_down(state, None)
                return
            if errors[0] is None:
                total = None
            elif total is not None:
                total[:, columns] += errors[0]
        self.hand_down(state, (total,))

    def _said(self, machine: LearningMachine, state: State) -> Errors | None:
        """The error at the inputs of a machine, be it a chain or machines side by side; None where it is not known."""
        if state in self._inputs:
            return self._inputs[state]
        if isinstance(machine, Chain):
            return self._said(machine.machines[0], state.sub("0"))
        if not isinstance(machine, Parallel):
            return None
        total, *others = (self._said(m, state.sub(str(i))) for i, m in enumerate(machine.machines))
        for errors in others:
            total = None if total is None or errors is None else _added(total, errors)
        return total

    def _tell(self, origins: Iterable[Origin | None], errors: Errors | None) -> None:
        for i, origin in enumerate(origins):
            if origin is None:
                continue
            _, below, index = origin
            held = self._errors.get(below)
            if errors is None or (held is None and below in self._errors):
                self._errors[below] = None
                continue
            new = tuple(errors[i] if j == index else None for j in range(len(below.outputs)))
            self._errors[below] = new if held is None else _added(held, new)


def _shared(errors: Errors | None, subs: list[State]) -> list[Errors | None]:
    """The error of outputs side by side, split into those of the passes that made them."""
    if errors is None:
        return [None] * len(subs)
    pieces = [
        [None] * len(subs) if e is None else list(e.split([sub.outputs[j].shape[1] for sub in subs], 1))
        for j, e in enumerate(errors)
    ]
    return list(zip(*pieces, strict=True))


def _added(a: Errors, b: Errors) -> Errors:
    return tuple(w if v is None else v if w is None else v + w for v, w in zip(a, b, strict=True))
