"""The ways through a module: what it may write into, what a normalisation saw, and under which autocast."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tansaku
import zenkai_core as zk
from zenkai_core import IO, Chain, Machine, State


def gradient(n: int = 1) -> zk.theta.Gradient:
    return zk.theta.Gradient(torch.optim.SGD, lr=0.1, n=n)


def passed(machine: Machine, x: Tensor) -> tuple[State, IO]:
    state = State()
    return state, machine.remember(IO(x), state)


@pytest.mark.parametrize("kind", [nn.ReLU, nn.Dropout])
def test_a_module_that_begins_in_place_is_the_module_that_does_not(kind: Callable[..., nn.Module]) -> None:
    torch.manual_seed(0)
    a = Chain(*(Machine(m, gradient(2), zk.targets.Gradient(2)) for m in (nn.Linear(4, 3), nn.Linear(3, 2))))
    b = copy.deepcopy(a)
    for net, inplace in ((a, False), (b, True)):
        for m in net.machines:
            m.module = nn.Sequential(kind(inplace=inplace), m.module)
    x, t = torch.randn(6, 4), torch.randn(6, 2)
    given = x.clone()
    for net in (a, b):
        torch.manual_seed(1)
        net.learn(x, t)
        net.test(x, t)
    assert torch.equal(x, given)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_the_layer_above_leaves_the_lower_layers_output_as_it_was() -> None:
    lower = Machine(nn.Linear(4, 3), gradient(), zk.targets.Gradient())
    upper = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 2))
    search = zk.targets.SearchX(tansaku.HillClimb(k=4, std=0.1))
    net, state, x = Chain(lower, Machine(upper, zk.theta.Null(), search)), State(), torch.randn(6, 4)
    net.remember(IO(x), state)
    assert torch.equal(state.sub("0").outputs.f, lower.module(x))


def test_a_module_that_writes_into_its_input_unasked_is_refused() -> None:
    class Writes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mul_(2)

    machine = Machine(Writes(), zk.theta.Null(), zk.targets.Null())
    with pytest.raises(RuntimeError, match="leaves its input as it is, got Writes, which writes into it"):
        machine.learn(torch.ones(2, 3), torch.ones(2, 3))


@pytest.mark.parametrize("training", [True, False])
def test_a_frozen_pass_is_the_pass_though_the_module_wrote_into_what_its_norm_was_given(training: bool) -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=training)

        def forward(self, x: Tensor) -> Tensor:
            h = self.linear(x)
            return h.add_(self.norm(h))

    machine, x = Machine(Residual(), zk.theta.Null(), zk.targets.Null()), torch.randn(6, 4)
    machine.train(training)
    buffers = copy.deepcopy(dict(machine.named_buffers()))
    state, y = passed(machine, x)
    assert torch.allclose(machine.frozen(IO(x[:2]), state).f, y.f[:2], atol=1e-5)
    if training:
        assert machine.module.norm.num_batches_tracked == buffers["module.norm.num_batches_tracked"] + 1


def test_in_evaluation_a_norm_without_running_statistics_is_frozen_as_it_was_in_the_pass() -> None:
    machine, x = Machine(nn.BatchNorm1d(4, track_running_stats=False), gradient(), zk.targets.Null()), torch.randn(6, 4)
    machine.eval()
    state, y = passed(machine, x)
    assert torch.allclose(machine.frozen(IO(x[:2]), state).f, y.f[:2], atol=1e-5)


def test_a_frozen_pass_refuses_rows_that_were_changed_since() -> None:
    machine, x = Machine(nn.BatchNorm1d(4), gradient(), zk.targets.Null()), torch.randn(6, 4)
    state, _ = passed(machine, x)
    x.zero_()
    with pytest.raises(RuntimeError, match="got one that was changed in place"):
        machine.frozen(IO(x), state)


# ------------------------------------------------------------------------------------------------- a cut graph


class Cuts(nn.Module):
    """A linear layer whose output has no graph."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).detach()


def test_a_module_that_cuts_the_graph_is_refused_by_gradient_rules() -> None:
    for theta in (gradient(), zk.theta.Null()):
        machine, state, x = Machine(Cuts(), theta, zk.targets.Gradient()), State(), IO(torch.randn(6, 4))
        machine.remember(x, state)
        with pytest.raises(RuntimeError, match=r"got IO\(float32\[6, 2\]\) without from Cuts: drop \.detach"):
            machine.step_x(x, machine.tell(IO(torch.randn(6, 2)), state).t, state)


def test_learning_by_gradient_in_inference_mode_is_refused() -> None:
    machine = Machine(nn.Linear(4, 2), gradient(), zk.targets.Gradient())
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"outside inference_mode"):
        machine.learn(torch.randn(6, 4), torch.randn(6, 2))


# ---------------------------------------------------------------------------------------------------- autocast


def climb() -> tansaku.HillClimb:
    return tansaku.HillClimb(k=4, std=0.1)


RULES: dict[str, Callable[[], tuple[zk.StepTheta, zk.StepX]]] = {
    "gradient": lambda: (gradient(3), zk.targets.Gradient(3)),
    "delta": lambda: (zk.theta.Delta(torch.optim.SGD, lr=0.1), zk.targets.Gradient()),
    "search": lambda: (zk.theta.Search(climb()), zk.targets.SearchX(climb(), generations=2)),
}


@pytest.mark.parametrize("name", RULES)
def test_every_rule_learns_under_autocast_and_when_only_the_forward_pass_stands_under_it(name: str) -> None:
    net = Chain(*(Machine(nn.Linear(i, o), *RULES[name]()) for i, o in ((4, 3), (3, 2))))
    x, t = torch.randn(6, 4), torch.randn(6, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        net.learn(x, t)
        loss = F.mse_loss(net(x).float(), t)
    before = [p.detach().clone() for p in net.parameters()]
    loss.backward()
    zk.Optimizer(net).step()
    assert all(p.dtype == torch.float32 for p in net.parameters())
    assert name == "search" or not any(torch.equal(p, q) for p, q in zip(before, net.parameters(), strict=True))


def test_a_replay_outside_autocast_is_the_pass_that_was_made_under_it() -> None:
    machine, x = Machine(nn.Linear(4, 2), gradient(), zk.targets.Gradient()), torch.randn(6, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        state, y = passed(machine, x)
    assert y.f.dtype == torch.bfloat16
    for again in (machine.replay(IO(x), state), machine.frozen(IO(x), state)):
        assert torch.equal(again.f, y.f)
    state, y = passed(machine, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(machine.replay(IO(x), state).f, y.f)


def test_within_one_autocast_block_a_pass_takes_the_weights_of_the_last_step() -> None:
    machine, x = Machine(nn.Linear(4, 2), gradient(), zk.targets.Gradient()), torch.randn(6, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        machine.learn(x, torch.randn(6, 2))
        inside = machine.module(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(machine.module(x), inside)
