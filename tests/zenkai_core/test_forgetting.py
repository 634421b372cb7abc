"""A pass that comes to nothing leaves nothing behind."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tansaku
import zenkai_core as zk
from zenkai_core import IO, Chain, LearningMachine, Machine, State


def machine(i: int, o: int, n: int = 1) -> Machine:
    return Machine(nn.Linear(i, o), zk.theta.Gradient(torch.optim.SGD, lr=0.1, n=n), zk.targets.Gradient())


def chain() -> Chain:
    return Chain(machine(4, 3), machine(3, 3, n=2), machine(3, 2))


def searched() -> Machine:
    return Machine(nn.Linear(4, 2), zk.theta.Search(tansaku.HillClimb(k=8, std=0.1), seed=0), zk.targets.Null())


def interrupt(m: LearningMachine, event: zk.hooks.Event, x: torch.Tensor, t: torch.Tensor) -> None:
    def press(call: zk.hooks.Call) -> None:
        raise KeyboardInterrupt

    handle = m.register_hook(event, press, "before")
    with pytest.raises(KeyboardInterrupt):
        m.learn(x, t)
    handle.remove()


@pytest.mark.parametrize("make", [chain, searched])
def test_a_learn_that_was_interrupted_changes_nothing_of_the_next(make: Callable[[], LearningMachine]) -> None:
    torch.manual_seed(0)
    broken, x, t = make(), torch.randn(6, 4), torch.randn(6, 2)
    whole = copy.deepcopy(broken)
    interrupt(broken, "step", torch.randn(6, 4), t)
    assert torch.equal(broken.learn(x, t), whole.learn(x, t))
    assert all(torch.equal(a, b) for a, b in zip(broken.parameters(), whole.parameters(), strict=True))


def test_a_failure_half_way_down_a_chain_leaves_no_gradient_in_the_machines_above() -> None:
    class Fails(zk.targets.Gradient):
        def step_x(self, machine: Machine, t: IO, state: State) -> IO:
            raise ValueError("no target today")

    head = Machine(nn.Linear(3, 2), zk.theta.Gradient(torch.optim.SGD, lr=0.1), Fails())
    net = Chain(machine(4, 3), head)
    with pytest.raises(ValueError, match="no target today"):
        net.learn(torch.randn(6, 4), torch.randn(6, 2))
    assert all(p.grad is None for p in net.parameters())


def test_of_a_failed_pass_a_fit_forgets_the_rows_and_keeps_those_of_earlier_steps() -> None:
    fit = zk.theta.Fit(rows=100)
    layer, x, t = Machine(zk.modules.Trees(4, 2), fit, zk.targets.Null()), torch.randn(6, 4), torch.randn(6, 2)
    layer.learn(x, t)
    interrupt(layer, "step", x, t)
    assert fit.pending == 6
    layer.learn(x, t)
    assert fit.pending == 12


def test_rows_survive_a_fit_that_fails() -> None:
    class Fails:
        def get_params(self) -> dict[str, object]:
            return {}

        def fit(self, x: object, t: object) -> None:
            raise ValueError("cannot fit")

    fit = zk.theta.Fit(Fails, rows=10)
    layer, x, t = Machine(zk.modules.Trees(4, 2), fit, zk.targets.Null()), torch.randn(6, 4), torch.randn(6, 2)
    layer.learn(x, t)
    with pytest.raises(ValueError, match="cannot fit"):
        layer.learn(x, t)
    assert fit.pending == 6


def test_a_fit_refuses_a_target_that_no_tree_takes() -> None:
    layer = Machine(zk.modules.Trees(4, 2), zk.theta.Fit(rows=10), zk.targets.Null())
    with pytest.raises(ValueError, match="expected finite numbers, got nan in t, row 0"):
        layer.learn(torch.randn(6, 4), torch.full((6, 2), torch.nan))


@pytest.mark.parametrize("make", [lambda: machine(4, 2, n=3), searched])
def test_zero_grad_forgets_the_passes_that_were_told(make: Callable[[], Machine]) -> None:
    torch.manual_seed(0)
    model, x, t = make(), torch.randn(6, 4), torch.randn(6, 2)
    optimizer, before = zk.Optimizer(model), model.module.weight.detach().clone()
    F.mse_loss(model(x), t).backward()
    optimizer.zero_grad()
    optimizer.step()
    assert torch.equal(before, model.module.weight)


def test_zero_grad_can_leave_zeros() -> None:
    model = machine(4, 2)
    model(torch.randn(6, 4)).sum().backward()
    zk.Optimizer(model).zero_grad(set_to_none=False)
    assert model.module.weight.grad is not None
    assert not model.module.weight.grad.any()


@pytest.mark.parametrize("taken", ["copied", "saved"])
def test_a_copied_or_saved_fit_leaves_out_the_rows_of_a_pass_in_flight(taken: str) -> None:
    fit = zk.theta.Fit(rows=20)
    layer, x, t = Machine(zk.modules.Trees(4, 2), fit, zk.targets.Null()), torch.randn(6, 4), torch.randn(6, 2)
    layer.learn(x, t)
    state = State()
    layer.remember(IO(x), state)
    told = layer.tell(IO(t), state)
    assert fit.pending == 12
    if taken == "copied":
        other = copy.deepcopy(layer)
    else:
        other = Machine(zk.modules.Trees(4, 2), zk.theta.Fit(rows=20), zk.targets.Null())
        other.load_state_dict(layer.state_dict())
    assert other.theta.pending == 6
    other.learn(x, t)
    layer.step(*told)
    assert (fit.pending, other.theta.pending) == (12, 12)
    collected = [torch.cat([torch.cat(rows, 1) for rows in each._pending]) for each in (fit, other.theta)]
    assert torch.equal(*collected)
