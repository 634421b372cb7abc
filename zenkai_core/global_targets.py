"""`GlobalTargets`: one optimised x for the whole chain proposes the target of every layer, by a second forward pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zenkai_core import passes
from zenkai_core.chain import Chain
from zenkai_core.container import hand_down
from zenkai_core.criteria import sse
from zenkai_core.learning import LearningMachine, LMode
from zenkai_core.machine import Machine, StepX
from zenkai_core.state import State
from zenkai_core.theta.null import Null
from zenkai_core.values import IO, Target


class GlobalTargets(Chain):
    """A chain whose layers' targets come from one better input, not from the layer above.

    A rule for x looks at the whole network as one module and gives x', where the network's cost is lower. With h_i the
    layers, the target of layer i is what x' would have made of it, t_i = h_i(... h_1(x')), by a second pass with the
    first one's batch and dropout masks (batch statistics are those of the moved rows); the last layer's is the
    network's own. Each layer learns from its own input of the first pass. No layer's rule for x is asked.

    Args:
        machines: composed machines, from the input to the output.
        x: the rule that gives x', for example `targets.Gradient(n=10, scale=0.1)`, or `targets.SearchX(...)` where the
            network has no gradient. What it answers is the target for what is below, too.
        propose_output: whether the last layer, too, learns from what x' makes of it, by squared error.
        scale, lmode: as for `LearningMachine`; `loss` is that of the machines.

    Raises:
        TypeError: a machine that is not composed of a module and rules, or a network that lacks what the rule requires.
        ValueError: as for `Chain`.

    >>> from zenkai_core import targets, theta
    >>> def layer(i, o):
    ...     return Machine(nn.Linear(i, o), theta.Gradient(torch.optim.SGD, lr=0.05), targets.Null())
    >>> net = GlobalTargets(layer(3, 4), layer(4, 2), x=targets.Gradient(n=5, scale=0.1))
    >>> x, t = torch.randn(20, 3), torch.randn(20, 2)
    >>> bool(net.learn(x, t) > net.learn(x, t))
    True
    """

    def __init__(
        self,
        *machines: LearningMachine,
        x: StepX,
        propose_output: bool = False,
        scale: float = 1.0,
        lmode: LMode = "accumulate",
    ) -> None:
        super().__init__(*machines, scale=scale, lmode=lmode)
        for m in machines:
            if not isinstance(m, Machine):
                raise TypeError(
                    f"GlobalTargets expected composed machines, got {type(m).__name__}: the second pass needs "
                    "Machine(module, theta, x)"
                )
        whole = Machine(self._network(), Null(), x, self._criterion, loss=self.loss)
        self.x = x
        self.propose_output = propose_output
        self._whole = (whole,)  # in a tuple, so that it is no submodule: its modules are the machines' own

    def gives_target(self, has_target: bool) -> bool:
        """Whether the rule for x gives a target."""
        return self.x.gives_target and (has_target or not self.x.uses_target)

    def without_target(self, has_target: bool) -> list[LearningMachine]:
        """None: every layer's target is what the better input makes of it."""
        return []

    def forward_nn(self, x: IO, state: State) -> IO:
        """One pass through all machines, and the same pass through the whole network for the rule."""
        device = x.f.device if x else torch.device("cpu")
        before = passes.RandomState.now(device) if self.training and state.remember else None
        y = super().forward_nn(x, state)
        if state.remember:
            whole = self._whole[0]
            whole.module, whole.training = self._network(), self.training
            with passes.replaying(whole.module, before, device):  # the same masks; buffers have moved once already
                whole.remember(x, state.sub("whole"))
        return y

    def accumulate(self, x: IO, t: IO, state: State) -> None:
        """Every machine accumulates towards what x' makes of it."""
        super().accumulate(x, t, state)
        of = state.sub("whole")
        self._whole[0].accumulate(of.inputs, t, of)

    def step_x(self, x: IO, t: IO, state: State) -> IO:
        """x', the rule's answer."""
        if state.data.get("swept") is not t:
            self._say_above(t, state)
            self._sweep(t, state, accumulate=False)
        return state.data["proposed"]

    def step(self, x: IO, t: IO, state: State) -> None:
        """Every machine steps once, and what the rule itself learns."""
        super().step(x, t, state)
        of = state.sub("whole")
        self._whole[0].step(of.inputs, t, of)

    def local_only(self) -> list[str]:
        """The rule for x, if it learns anything from rows that it keeps."""
        return self._whole[0].local_only()

    def forget(self) -> None:
        """As for every machine; the rule forgets too."""
        super().forget()
        self._whole[0].forget()

    def _sweep(self, t: IO, state: State, accumulate: bool) -> None:
        of = state.sub("whole")
        of.criterion = state.criterion
        hand_down(state, of, self._say_goal(t, state), state.position)
        x = state.data["proposed"] = self._whole[0].step_x(of.inputs, t, of)
        for i, m in enumerate(self._composed()):
            sub = state.sub(str(i))
            x = m.replay(x.detach(), sub).detach()
            target: IO = Target.at(x)
            if i == len(self) - 1 and self.propose_output:
                sub.criterion = sse
            elif i == len(self) - 1:
                target = t
            if accumulate:
                m.tell(target, sub)
            else:
                sub.t = m.step_y(sub.inputs, target, sub)
        state.data["swept"] = t

    def _wants_x(self, i: int, state: State) -> bool:
        return False

    def _composed(self) -> list[Machine]:
        return [m for m in self.machines if isinstance(m, Machine)]

    def _network(self) -> nn.Module:
        return _Network([m.module for m in self._composed()])


class _Network(nn.ModuleList):
    """Modules one after another, from tensors to tensors."""

    def forward(self, *x: Tensor) -> tuple[Tensor, ...]:
        for module in self:
            y = module(*x)
            x = (y,) if isinstance(y, Tensor) else tuple(y)
        return x
