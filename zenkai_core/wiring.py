"""How the nodes of a graph hang together: names, the order of the pass, and the order in which targets become known."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TypeVar

import torch
from torch import Tensor

from zenkai_core.criteria import Criterion, output_gradient
from zenkai_core.learning import LearningMachine
from zenkai_core.state import State
from zenkai_core.values import IO, target_of_part

T = TypeVar("T")


class Node:
    """A machine of a `Graph`, and what it takes.

    Args:
        machine: the machine.
        sources: names of inputs and nodes, in the order of the machine's inputs; "a" is every tensor that a puts out,
            "a.1" the second alone.
        target: where its target comes from. None: from the nodes that take its output, and for an output from the
            network's target. The name of another node: the very target that this one is given, for an output's name
            what the graph itself is told (the labels, say, for a local classifier). The name of an input: that input's
            values, which a decoder may learn to restore.

    >>> from torch import nn
    >>> from zenkai_core import Machine, targets, theta
    >>> Node(Machine(nn.Linear(2, 1), theta.Gradient(), targets.Gradient()), "x")
    Node(Machine, 'x')
    """

    def __init__(self, machine: LearningMachine, *sources: str, target: str | None = None) -> None:
        self.machine, self.sources, self.target = machine, sources, target

    def __repr__(self) -> str:
        parts = [type(self.machine).__name__, *map(repr, self.sources)]
        return f"Node({', '.join(parts + ([f'target={self.target!r}'] if self.target else []))})"


@dataclass(frozen=True)
class Source:
    """What a node takes: all tensors of an input or node, or one of them (written "name.1")."""

    name: str
    index: int | None

    @staticmethod
    def of(text: str) -> Source:
        """The source that the text names."""
        name, dot, index = text.partition(".")
        return Source(name, int(index)) if dot and index.isdecimal() else Source(text, None)


class Wiring:
    """Who takes what from whom, checked.

    Args:
        sources: node -> names of inputs and nodes, in the order of its inputs.
        targets: node -> None, or the name of a node whose target it shares or of an input whose values are its target.
        inputs, outputs: names.

    Attributes:
        up: nodes in an order of the pass.
        down: nodes in an order in which their targets become known.
        consumers: input or node -> nodes that take from it.
        downstream: node -> the nodes that its output reaches, in the order of the pass.

    Raises:
        TypeError: inputs or outputs are one string, no sequence of names.
        ValueError: a name that is unknown, used twice or no name, a cycle, a node or an input that nobody uses, a
            target for an output, or a target that waits for itself.
    """

    def __init__(
        self,
        sources: Mapping[str, Sequence[str]],
        targets: Mapping[str, str | None],
        inputs: Sequence[str],
        outputs: Sequence[str],
    ) -> None:
        self.inputs, self.outputs = _names("inputs", inputs), _names("outputs", outputs)
        for name in [*self.inputs, *sources]:
            if not isinstance(name, str) or not name or "." in name:
                raise ValueError(f"Graph expected names without a dot, got {name!r}: a dot picks one tensor of several")
        for name in sources:
            if name in self.inputs:
                raise ValueError(f"Graph expected each name once, got {name!r} as an input and as a node: rename one")
        for name in self.outputs:
            if name not in sources:
                raise ValueError(f"Graph expected outputs among its nodes {list(sources)}, got {name!r}: name a node")
        known = [*self.inputs, *sources]
        self.sources = {name: tuple(map(Source.of, taken)) for name, taken in sources.items()}
        self.targets = dict(targets)
        for name, taken in self.sources.items():
            if not taken:
                raise ValueError(f"Graph expected node {name!r} to take something, got nothing: name inputs or nodes")
            for source in taken:
                if source.name not in known:
                    raise ValueError(f"node {name!r} expected sources among {known}, got {source.name!r}: name one")
        for name, target in self.targets.items():
            if target is not None and target not in known:
                raise ValueError(f"node {name!r} expected a target among {known}, got {target!r}: name one, or none")
            if target is not None and name in self.outputs:
                raise ValueError(f"output {name!r} expected no target of its own, got {target!r}: it is the network's")
        takes = {name: list(dict.fromkeys(s.name for s in taken)) for name, taken in self.sources.items()}
        self.consumers = {name: tuple(n for n, taken in takes.items() if name in taken) for name in known}
        for name in known:
            if not self.consumers[name] and name not in self.outputs and self.targets.get(name) is None:
                raise ValueError(
                    f"{name!r} expected a node that takes it, got none: let one take it, drop it"
                    + (", make it an output or give it a target" if name in sources else "")
                )
        self.up = _sorted(takes, "Graph expected nodes without a cycle, got {}: a node takes what was made before it")
        waits = {name: self._waits_for(name) for name in reversed(self.up)}
        self.down = _sorted(
            waits,
            "Graph expected targets that become known one after another, got {}: each waits for the next; let one of "
            "them take another target",
        )
        with contextlib.suppress(ValueError):  # if it can be, layers above come first for those too that do not wait
            self.down = _sorted({name: [*before, *self.consumers[name]] for name, before in waits.items()}, "{}")
        self.downstream = {name: tuple(n for n in self.up if n in self._reach(name)) for name in self.up}

    def wants(self, name: str) -> bool:
        """Whether the target of that node is made by the nodes that take it."""
        return name in self.targets and self.targets[name] is None

    def asks(self, name: str) -> bool:
        """Whether the node is asked for targets by a node below."""
        return any(self.wants(source.name) for source in self.sources[name])

    def takes_input(self, name: str) -> bool:
        """Whether the node takes an input of the network."""
        return any(source.name in self.inputs for source in self.sources[name])

    def _waits_for(self, name: str) -> list[str]:
        target = self.targets[name]
        if target is None:
            return list(self.consumers[name])
        return [] if target in self.inputs else [target]

    def _reach(self, name: str) -> set[str]:
        found: set[str] = set()
        new = list(self.consumers[name])
        while new:
            node = new.pop()
            if node not in found:
                found.add(node)
                new += self.consumers[node]
        return found


@dataclass(frozen=True)
class CostAbove:
    """Outputs of one node `[k * n, ...]` -> the network's cost per row, what stands beside it being as in the pass."""

    name: str
    layers: list[tuple[str, LearningMachine, tuple[Source, ...], State]]
    beside: dict[str, IO]
    outputs: tuple[str, ...]
    above: Callable[[IO], Tensor]

    def __call__(self, y: IO) -> Tensor:
        """The cost `[k * n]`."""
        values = {self.name: y}
        for name, held in self.beside.items():
            values[name] = held.tile(y.rows // held.rows if held.rows else 1)
        for name, machine, sources, sub in self.layers:
            values[name] = machine.frozen(IO(*pick(sources, values)), sub)
        return self.above(IO(*(v for name in self.outputs for v in values[name])))


class OutputCosts:
    """The sum of a criterion for each of several outputs of one tensor."""

    def __init__(self, criteria: tuple[Criterion, ...], names: tuple[str, ...]) -> None:
        self.criteria, self.names = criteria, names

    def __call__(self, y: IO, t: IO) -> Tensor:
        """The cost per row, `[n]`."""
        check_targets(self.names, t)
        costs = [c(y[i : i + 1], t[i : i + 1]) for i, c in enumerate(self.criteria)]
        return torch.stack(costs).sum(0)

    def gradient(self, y: IO, t: IO) -> tuple[Tensor | None, ...]:
        """dcost/dy of each, by the criterion's own closed form where it has one."""
        check_targets(self.names, t)
        parts = [output_gradient(c, y[i : i + 1], target_of_part(y, t, i)) for i, c in enumerate(self.criteria)]
        return tuple(e for part in parts for e in part)


def check_targets(names: Sequence[str], t: IO) -> None:
    """Refuses targets that are not one for each of several outputs.

    Raises:
        ValueError: there are fewer or more.
    """
    if len(t) != len(names):
        raise ValueError(
            f"Graph expected a target for each of its outputs {list(names)}, got {len(t)}: give IO(t_1, t_2, ...) "
            "in this order"
        )


def pick(sources: Sequence[Source], table: Mapping[str, Sequence[T]]) -> list[T]:
    """What a node takes, out of what inputs and nodes put out.

    Args:
        sources: of the node.
        table: name -> an entry for each of its tensors.

    Raises:
        ValueError: a source names a tensor that is not there.
    """
    found: list[T] = []
    for source in sources:
        entries = table[source.name]
        if source.index is not None and source.index >= len(entries):
            raise ValueError(
                f"Graph expected {source.name!r} to put out a tensor {source.index}, got {len(entries)}: count from 0"
            )
        found += entries if source.index is None else [entries[source.index]]
    return found


def _names(what: str, names: Sequence[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise TypeError(f"Graph expected {what} as a sequence of names, got the string {names!r}: write ({names!r},)")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"Graph expected {what} with at least one name, each once, got {tuple(names)}: name them")
    return tuple(names)


def _sorted(waits_for: Mapping[str, Sequence[str]], message: str) -> tuple[str, ...]:
    inner = {name: [n for n in before if n in waits_for] for name, before in waits_for.items()}
    try:
        return tuple(TopologicalSorter(inner).static_order())
    except CycleError as error:
        raise ValueError(message.format(" -> ".join(map(repr, error.args[1])))) from error
