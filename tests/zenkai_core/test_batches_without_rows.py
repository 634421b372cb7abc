"""A batch without rows: `learn` and `test` refuse it, for no mean can be taken; a pass of none moves nothing."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from sklearn.tree import DecisionTreeRegressor
from torch import nn

import tansaku
import zenkai_core as zk
from zenkai_core import IO, Chain, Machine, State, targets, theta

MOMENTUM = {"factory": torch.optim.SGD, "lr": 0.1, "momentum": 0.9}


def climb() -> tansaku.HillClimb:
    return tansaku.HillClimb(k=4, std=0.1)


THETA: dict[str, Callable[[], zk.StepTheta]] = {
    "gradient by Adam": theta.Gradient,
    "gradient with momentum": lambda: theta.Gradient(**MOMENTUM),
    "gradient thrice": lambda: theta.Gradient(n=3),
    "gradient by minibatches": lambda: theta.Gradient(batch_size=4),
    "delta by Adam": theta.Delta,
    "delta with momentum": lambda: theta.Delta(**MOMENTUM),
    "search": lambda: theta.Search(climb()),
    "least squares": theta.LeastSquares,
    "limited": lambda: theta.Limited(theta.Gradient(), {"weight": torch.tensor(True)}),
    "fit": lambda: theta.Fit(lambda: DecisionTreeRegressor(max_depth=2), rows=1),
}
X: dict[str, Callable[[], zk.StepX]] = {
    "gradient": targets.Gradient,
    "learned feedback": targets.KolenPollack,
    "learned inverse": lambda: targets.Reverse(nn.Linear(2, 4), lr=0.1),
    "learned inverse, by difference": lambda: targets.Difference(nn.Linear(2, 4), lr=0.1),
    "null": targets.Null,
}
PAIRS = [(t, x) for t, x in product(THETA, X) if t != "fit" or x == "null"]


def made(t: str, x: str = "null") -> Machine:
    torch.manual_seed(0)
    module = zk.modules.Trees(4, 2) if t == "fit" else nn.Linear(4, 2)
    return Machine(module, THETA[t](), X[x]())


def one_pass(machine: zk.LearningMachine, rows: int) -> Any:
    state = State()
    machine.remember(IO(torch.randn(rows, 4)), state)
    return machine.tell(IO(torch.randn(rows, 2)), state)


def kept(machine: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in [*machine.named_parameters(), *machine.named_buffers()]}


@pytest.mark.parametrize(("t", "x"), PAIRS)
def test_learn_and_test_ask_for_a_row_and_leave_no_trace(t: str, x: str) -> None:
    machine = made(t, x)
    machine.learn(torch.randn(6, 4), torch.randn(6, 2))
    before = kept(machine)
    for call, inputs, wanted in product(("learn", "test"), (0, 6), (0, 6)):
        if inputs and wanted:
            continue
        expected = (
            rf"^{call} expected at least one row, got IO\(float32\[{inputs}, 4\]\) and IO\(float32\[{wanted}, 2\]"
        )
        with pytest.raises(ValueError, match=expected):
            getattr(machine, call)(torch.randn(inputs, 4), torch.randn(wanted, 2))
    after = kept(machine)
    assert before.keys() == after.keys()
    assert all(torch.equal(v, after[name]) for name, v in before.items())


@pytest.mark.parametrize("network", ["machine", "chain", "graph"])
@pytest.mark.parametrize(("t", "x"), PAIRS)
@pytest.mark.filterwarnings("ignore:.*expected a target for every machine that learns")
def test_a_pass_without_rows_moves_no_parameter_after_an_ordinary_step(t: str, x: str, network: str) -> None:
    machine: Any = made(t, x)
    if network == "chain":
        machine = Chain(Machine(nn.Linear(4, 4), theta.Gradient(), targets.Gradient()), machine)
    elif network == "graph":
        machine = zk.Graph({"y": zk.Node(machine, "x")})
    machine.learn(torch.randn(6, 4), torch.randn(6, 2))
    before = kept(machine)
    told = one_pass(machine, 0)
    assert machine.step_x(*told).f.shape == (0, 4)
    machine.step(*told)
    after = kept(machine)
    same = {name: v.shape == after[name].shape and torch.equal(v, after[name]) for name, v in before.items()}
    assert [name for name, held in same.items() if not held and not name.endswith(".key")] == []


@pytest.mark.parametrize("t", [t for t in THETA if t != "fit"])
def test_an_empty_pass_beside_an_ordinary_one_changes_nothing(t: str) -> None:
    ends = []
    for order in ((6,), (0, 6), (6, 0)):
        machine = made(t)
        torch.manual_seed(1)
        told = [one_pass(machine, rows) for rows in order]
        machine.step(*told[0])
        ends.append(kept(machine)["module.weight"])
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])


@pytest.mark.parametrize("t", ["gradient by Adam", "delta with momentum"])
def test_a_backward_pass_without_rows_moves_no_parameter(t: str) -> None:
    machine = made(t, "gradient")
    optimizer = zk.Optimizer(machine)
    machine(torch.randn(6, 4)).square().mean().backward()
    optimizer.step()
    before = kept(machine)
    machine(torch.randn(0, 4)).square().mean().backward()
    optimizer.step()
    assert all(torch.equal(v, kept(machine)[name]) for name, v in before.items())


def test_a_machine_without_inputs_learns_from_the_rows_of_its_targets() -> None:
    class Constant(zk.LearningMachine):
        def forward_nn(self, x: IO, state: State) -> IO:
            return IO(torch.zeros(3, 1))

    assert Constant().learn(IO(), torch.ones(3, 1)) == 0.5
