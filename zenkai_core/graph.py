"""`Graph`: machines that take each other's outputs by name, with several inputs and outputs.

What several nodes ask of one output is added: t = y - sum_j (y - t_j), so that a graph of gradient machines is
backpropagation (the errors of a fan-out add up), skip connections included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from torch import Tensor

from zenkai_core.container import Combine, Container, Joint, Order, check_combine, hand_down, placed
from zenkai_core.criteria import Criterion, output_gradient, sse
from zenkai_core.learning import LearningMachine, LMode
from zenkai_core.state import Origin, State
from zenkai_core.values import IO, Target, asks_nothing, nothing_asked, target_of_part
from zenkai_core.wiring import CostAbove, Node, OutputCosts, Wiring, check_targets, pick


class Graph(Container):
    """A network of machines that take inputs and each other's outputs by name; one autograd function for the whole.

    Called with a tensor for each input, it returns a tensor for each output; `learn` takes an IO of as many targets as
    outputs (several outputs: one tensor each), and its cost is the sum of the outputs' own. A node's pass is in the
    sub-state of its name, where `above` is the network's loss if this node's output were another, all other inputs and
    nodes beside it being as in the pass.

    Args:
        nodes: name -> `Node`, in any order; names are those of submodules too ("a.module.weight" in a `state_dict`).
        inputs: names of the inputs, one tensor each.
        outputs: names of the nodes that put out; other nodes may take these outputs too.
        order: "accumulate step_x step": all targets come from the parameters of the pass, then all machines step.
            "accumulate step step_x": a machine steps before it makes the targets of those below. A `Graph` or `Chain`
            as a node keeps its own order.
        combine: what several takers ask of one output becomes y less the "sum" of their errors y - t_j, which is
            backpropagation for gradients; "mean" divides by the number of askers, the mean of their targets, for rules
            that answer with a target that is right by itself. The network's own target of an output counts as one more.
        scale, lmode: as for `LearningMachine`; `loss` is that of the machines.

    Raises:
        TypeError: something is no node or no machine; inputs or outputs are a string.
        ValueError: a cycle, an unknown name, a name that cannot be a submodule's, a node that nobody takes and that is
            no output, targets that wait for each other; or as for `Chain`.

    A layer with a skip connection around it:

    >>> import torch
    >>> from torch import nn
    >>> from zenkai_core import Machine, targets, theta
    >>> class Add(nn.Module):
    ...     def forward(self, a, b):
    ...         return a + b
    >>> def layer(i, o):
    ...     return Machine(nn.Linear(i, o), theta.Gradient(torch.optim.SGD, lr=0.1), targets.Gradient())
    >>> net = Graph(
    ...     {
    ...         "first": Node(layer(3, 4), "x"),
    ...         "second": Node(layer(4, 4), "first"),
    ...         "sum": Node(Machine(Add(), theta.Null(), targets.Gradient()), "first", "second"),
    ...         "head": Node(layer(4, 1), "sum"),
    ...     },
    ...     inputs=("x",),
    ...     outputs=("head",),
    ... )
    >>> x, t = torch.ones(5, 3), torch.zeros(5, 1)
    >>> bool(net.learn(x, t) > net.learn(x, t))
    True
    """

    def __init__(
        self,
        nodes: Mapping[str, Node],
        inputs: Sequence[str] = ("x",),
        outputs: Sequence[str] = ("y",),
        *,
        order: Order = "accumulate step_x step",
        combine: Combine = "sum",
        scale: float = 1.0,
        lmode: LMode = "accumulate",
    ) -> None:
        for name, node in nodes.items():
            if not isinstance(node, Node):
                raise TypeError(f"Graph expected a Node for {name!r}, got {type(node).__name__}: Node(machine, 'x')")
        super().__init__([node.machine for node in nodes.values()], order=order, scale=scale, lmode=lmode)
        self.combine = check_combine("Graph", combine)
        self.wiring = Wiring(
            {name: node.sources for name, node in nodes.items()},
            {name: node.target for name, node in nodes.items()},
            inputs,
            outputs,
        )
        for name, node in nodes.items():
            if hasattr(self, name):
                raise ValueError(f"Graph expected names that it has no use for itself, got {name!r}: rename the node")
            self.add_module(name, node.machine)
        self._warn_without_target()

    @property
    def machines(self) -> dict[str, LearningMachine]:
        """Name -> machine, in the order of the pass, as they are registered now."""
        return {name: self[name] for name in self.wiring.up}

    def __getitem__(self, name: str) -> LearningMachine:
        if name not in self.wiring.sources:
            raise KeyError(f"Graph expected a node among {list(self.wiring.sources)}, got {name!r}: name one of them")
        return cast(LearningMachine, self._modules[name])

    def __len__(self) -> int:
        return len(self.wiring.sources)

    def forward_nn(self, x: IO, state: State) -> IO:
        """One pass through all nodes.

        Raises:
            ValueError: not one tensor for each input; one of several outputs puts out several tensors.
        """
        state.training, state.x = self.training, x.detach()
        values = self._named(x)
        made: dict[str, Sequence[Origin | None]] = {
            name: [origin] for name, origin in zip(self.wiring.inputs, state.origins or [None] * len(x), strict=True)
        }
        for name in self.wiring.up:
            sub = state.sub(name)
            sub.wants_x = self.wiring.asks(name) or (state.wants_x and self.wiring.takes_input(name))
            sub.origins = pick(self.wiring.sources[name], made)
            below = IO(*pick(self.wiring.sources[name], values))
            with placed(f"node {name!r} of the Graph", below):
                values[name] = self[name].remember(below, sub)
            made[name] = self[name].origins(sub)
        outputs = self.wiring.outputs
        for name in outputs:
            if len(outputs) > 1 and len(values[name]) != 1:
                raise ValueError(
                    f"a Graph of several outputs expected one tensor of each, got {len(values[name])} of {name!r}: let "
                    "nodes that take one of them be the outputs"
                )
        state.y = IO(*(v for name in outputs for v in values[name]))
        return state.y

    def assess_y(self, y: IO, t: IO) -> Tensor:
        """The sum of the outputs' own costs per row, `[n]`.

        Raises:
            ValueError: several outputs, and not a target for each.
        """
        return self._criterion(y, t)

    def accumulate(self, x: IO, t: IO, state: State) -> None:
        """Every node accumulates towards its own target; in the second order only what waits for no step does.

        Raises:
            ValueError: several outputs, and not a target for each.
        """
        self._say_above(t, state)
        state.t = t
        if self.order == "accumulate step_x step":
            self._sweep(t, state, accumulate=True)
            return
        silent = self._silent(t, state)
        for name in self._first():
            if name not in silent:
                self[name].tell(self._from_network(name, t, state), state.sub(name))

    def step_x(self, x: IO, t: IO, state: State) -> IO:
        """What the nodes at the inputs ask of them; the sweep of `accumulate` serves if there was one."""
        if state.data.get("swept") is not t:
            self._say_above(t, state)
            self._sweep(t, state, accumulate=False)
        asked: dict[str, IO] = state.data["asked"]
        joint, places = Joint(state.inputs, self.combine), {name: (i,) for i, name in enumerate(self.wiring.inputs)}
        for name in self.wiring.down:
            if self.wiring.takes_input(name):
                if name not in asked:
                    asked[name] = self._step_x_of(name, state)
                joint.ask(self._places(name, places, state), state.sub(name).inputs, asked[name])
        return joint.target()

    def step(self, x: IO, t: IO, state: State) -> None:
        """Every machine steps once; in the second order each accumulates first, from those that have stepped.

        Raises:
            RuntimeError: nothing was accumulated for this pass.
        """
        if state.t is None:
            raise RuntimeError(
                "Graph.step expected a pass that was accumulated, got one without targets: call "
                "accumulate(x, t, state) first"
            )
        if self.order == "accumulate step step_x":
            self._sweep(t, state, accumulate=True, step=True)
            return
        self._step_each((self[name], state.sub(name)) for name in self.wiring.down)
        state.data["swept"], state.data["asked"] = t, {}  # targets for what is below come from the moved parameters

    def frozen(self, x: IO, state: State, params: Mapping[str, Tensor] | None = None) -> IO:
        """Any rows through all nodes as they are in this pass.

        Raises:
            TypeError: params are given; ask one machine.
        """
        if params is not None:
            return super().frozen(x, state, params)
        values = self._named(x)
        for name in self.wiring.up:
            values[name] = self[name].frozen(IO(*pick(self.wiring.sources[name], values)), state.sub(name))
        return IO(*(v for name in self.wiring.outputs for v in values[name]))

    def origins(self, state: State) -> tuple[Origin | None, ...]:
        """Those of the output nodes."""
        return tuple(o for name in self.wiring.outputs for o in self[name].origins(state.sub(name)))

    def _sweep(self, t: IO, state: State, *, accumulate: bool, step: bool = False) -> None:
        """Down through all nodes: each is told its target, steps if it shall, and is asked for those of its sources."""
        given: dict[str, IO] = {}
        asked: dict[str, IO] = {}
        silent = self._silent(t, state)
        for name in self.wiring.down:
            m, sub = self[name], state.sub(name)
            if name in silent:
                given[name] = sub.t = nothing_asked(sub.outputs)
                asked[name] = nothing_asked(sub.inputs)
                continue
            given[name] = target = self._target(name, t, given, asked, state)
            if accumulate and not (step and name in self._first()):  # those are told in `accumulate` already
                m.tell(target, sub)
            elif not accumulate:
                sub.t = m.step_y(sub.inputs, target, sub)
            if step:
                m.step_told(sub)
            if self.wiring.asks(name):
                asked[name] = self._step_x_of(name, state)
        state.data["swept"], state.data["asked"] = t, asked

    def _silent(self, t: IO, state: State) -> set[str]:
        """The nodes that the loss does not use, neither their outputs nor those of a node that takes them."""
        if state.requested is None:  # an explicit call gives a target for each output
            return set()
        told = {
            name: not asks_nothing(state.sub(name).outputs, self._from_network(name, t, state))
            for name in self.wiring.outputs
        }
        used: dict[str, bool] = {}

        def uses(name: str) -> bool:
            if name not in used:
                target = self.wiring.targets[name]
                if target is None:
                    used[name] = told.get(name, False) or any(map(uses, self.wiring.consumers[name]))
                elif target in told:
                    used[name] = told[target]
                else:
                    used[name] = target in self.wiring.inputs or uses(target)
            return used[name]

        return {name for name in self.wiring.up if not uses(name)}

    def _target(self, name: str, t: IO, given: Mapping[str, IO], asked: Mapping[str, IO], state: State) -> IO:
        target, takers = self.wiring.targets[name], self.wiring.consumers[name]
        if target is not None and target in self.wiring.outputs:
            return self._from_network(target, t, state)
        if target is not None:
            return self._named(state.inputs)[target] if target in self.wiring.inputs else given[target]
        if not takers:
            return self._from_network(name, t, state)
        sub = state.sub(name)
        joint, places = Joint(sub.outputs, self.combine), {name: tuple(range(len(sub.outputs)))}
        for taker in takers:
            joint.ask(self._places(taker, places, state), state.sub(taker).inputs, asked[taker])
        if name in self.wiring.outputs:
            criterion, y = sub.criterion or self[name]._criterion, sub.outputs.detach()
            sub.criterion = sse  # from here on its target is y less the errors, whatever the network was told
            own = Target.away_from(y, output_gradient(criterion, y, self._from_network(name, t, state)))
            joint.ask(range(len(y)), y, own)
        return joint.target()

    def _from_network(self, name: str, t: IO, state: State) -> IO:
        outputs = self.wiring.outputs
        return t if len(outputs) == 1 else target_of_part(state.outputs, t, outputs.index(name))

    def _first(self) -> list[str]:
        """The nodes whose targets wait for no other node."""
        return [name for name in self.wiring.outputs if not self.wiring.consumers[name]]

    def _step_x_of(self, name: str, state: State) -> IO:
        return self._asked_by(self[name], state.sub(name))

    def _named(self, x: IO) -> dict[str, IO]:
        if len(x) != len(self.wiring.inputs):
            raise ValueError(
                f"Graph expected a tensor for each of its inputs {list(self.wiring.inputs)}, got {len(x)}: give them "
                "in this order"
            )
        return {name: IO(v) for name, v in zip(self.wiring.inputs, x, strict=True)}

    def _places(self, taker: str, places: Mapping[str, Sequence[int]], state: State) -> list[int | None]:
        """For each tensor that the taker takes its place among those named in `places`, or None."""
        found: list[int | None] = []
        for source in self.wiring.sources[taker]:
            if source.index is not None:
                found.append(places[source.name][source.index] if source.name in places else None)
            elif source.name in places:
                found += places[source.name]
            else:
                found += [None] * (1 if source.name in self.wiring.inputs else len(state.sub(source.name).outputs))
        return found

    def gives_target(self, has_target: bool) -> bool:
        """Whether a node that takes an input of the graph gives a target."""
        gives = self._targets_from(has_target)[1]
        return any(gives[name] for name in self.wiring.up if self.wiring.takes_input(name))

    def without_target(self, has_target: bool) -> list[LearningMachine]:
        """The nodes that learn but receive no target."""
        has = self._targets_from(has_target)[0]
        return [m for name in self.wiring.down for m in self[name].without_target(has[name])]

    def _targets_from(self, has_target: bool) -> tuple[dict[str, bool], dict[str, bool]]:
        """For each node whether it receives a target, and whether it gives one."""
        has: dict[str, bool] = {}
        gives: dict[str, bool] = {}
        for name in self.wiring.down:
            target = self.wiring.targets[name]
            if target is not None:
                has[name] = target in self.wiring.inputs or (
                    has_target if target in self.wiring.outputs else has[target]
                )
            else:
                asked = any(gives.get(taker, False) for taker in self.wiring.consumers[name])
                has[name] = asked or (has_target and (name in self.wiring.outputs or not self.wiring.consumers[name]))
            gives[name] = self[name].gives_target(has[name])
        return has, gives

    @property
    def takes_missing(self) -> bool:
        """Whether every node that takes an input of the graph takes NaN as missing values."""
        return all(self[name].takes_missing for name in self.wiring.up if self.wiring.takes_input(name))

    @property
    def _criterion(self) -> Criterion:
        criteria = tuple(self[name]._criterion for name in self.wiring.outputs)
        return criteria[0] if len(criteria) == 1 else OutputCosts(criteria, self.wiring.outputs)

    def _say_above(self, t: IO, state: State) -> None:
        if len(self.wiring.outputs) > 1:
            check_targets(self.wiring.outputs, t)
        above = self._say_goal(t, state)
        values = {**self._named(state.inputs), **{name: state.sub(name).outputs.detach() for name in self.wiring.up}}
        for name in self.wiring.up:
            sub, after = state.sub(name), self.wiring.downstream[name]
            sub.criterion = state.criterion if name in self.wiring.outputs else None
            position = None
            if name in self.wiring.outputs and state.position is not None:
                position = state.position + self.wiring.outputs.index(name)
            used = {s.name for n in after for s in self.wiring.sources[n]} | {*self.wiring.outputs}
            through = CostAbove(
                name,
                [(n, self[n], self.wiring.sources[n], state.sub(n)) for n in after],
                {n: values[n] for n in used if n != name and n not in after},
                self.wiring.outputs,
                above,
            )
            hand_down(state, sub, through, position)
