"""`State.labels` gives a layer the network's own target, or says why there is none."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import zenkai_core as zk
from zenkai_core import IO, Chain, LearningMachine, Machine, State, cross_entropy, targets, theta
from zenkai_core.state import NeedsLabels
from zenkai_core.testing import check_machine


class ByLabels(LearningMachine):
    """A classifier of its own that learns from the network's labels."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.optim = torch.optim.SGD(self.linear.parameters(), lr=0.1)

    def forward_nn(self, x: IO, state: State) -> IO:
        return IO(self.linear(x.f))

    def assess_y(self, y: IO, t: IO) -> Tensor:
        return cross_entropy(y, t)

    def accumulate(self, x: IO, t: IO, state: State) -> None:
        loss = F.cross_entropy(state.outputs.f, state.labels().f)
        loss.backward(inputs=[*self.linear.parameters()], retain_graph=True)

    def step_x(self, x: IO, t: IO, state: State) -> IO:
        loss = F.cross_entropy(state.outputs.f, state.labels().f, reduction="sum")
        (g,) = torch.autograd.grad(loss, [x.f], retain_graph=True)
        return IO(x.f.detach() - g)

    def step(self, x: IO, t: IO, state: State) -> None:
        self.optim.step()
        self.optim.zero_grad()

    def get_extra_state(self) -> object:
        return self.optim.state_dict()

    def set_extra_state(self, state: dict[str, object]) -> None:
        self.optim.load_state_dict(copy.deepcopy(state))


def readout() -> Chain:
    y = targets.LocalReadout(seed=0)
    hidden = Machine(nn.Linear(4, 8), theta.Gradient(torch.optim.SGD, lr=0.05), targets.Null(), y=y)
    head = Machine(nn.Linear(8, 3), theta.Gradient(torch.optim.SGD, lr=0.05), targets.Null(), cross_entropy)
    return Chain(hidden, head)


@pytest.mark.parametrize("make", [ByLabels, readout])
def test_machines_that_need_labels_conform(make: type[LearningMachine]) -> None:
    check_machine(lambda: (make(), torch.randn(6, 4), torch.randint(3, (6,))))


def test_labels_are_the_networks_wherever_the_layer_is() -> None:
    seen: list[Tensor] = []

    class Noting(theta.Null):
        def accumulate(self, machine: Machine, t: IO, state: State) -> None:
            seen.append(state.labels().f)

    net = Chain(
        Chain(Machine(nn.Linear(4, 4), Noting(), targets.Null())),
        Machine(nn.Linear(4, 3), Noting(), targets.Gradient(), cross_entropy),
    )
    labels = torch.randint(3, (6,))
    net.learn(torch.randn(6, 4), labels)
    assert len(seen) == 2
    assert all(torch.equal(v, labels) for v in seen)


def test_autograd_and_a_pass_without_a_target_have_no_labels() -> None:
    machine = ByLabels()
    with pytest.raises(NeedsLabels, match=r"got a gradient: call learn\(x, t\) of the network"):
        machine(torch.randn(6, 4)).sum().backward()
    state = State()
    machine.remember(IO(torch.randn(6, 4)), state)
    with pytest.raises(RuntimeError, match="target is known once"):
        state.labels()


def test_the_local_readout_names_itself() -> None:
    with pytest.raises(NeedsLabels, match=r"targets\.LocalReadout with criterion=cross_entropy expected the network's"):
        readout()(torch.randn(6, 4)).sum().backward()
    assert zk.targets.LocalReadout(criterion=zk.sse) is not None
