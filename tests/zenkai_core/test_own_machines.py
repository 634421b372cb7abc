"""A user's own machine: what its methods may return, and what `learn` may be given."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import zenkai_core as zk
from zenkai_core import IO, Chain, LearningMachine, Machine, State


class Bare(LearningMachine):
    """Returns plain tensors wherever an IO belongs."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward_nn(self, x: IO, state: State) -> Any:
        return self.linear(x.f)

    def step_y(self, x: IO, t: IO, state: State) -> Any:
        return t.f

    def step_x(self, x: IO, t: IO, state: State) -> Any:
        return x.f.detach() - 1


class Nothing(Bare):
    def forward_nn(self, x: IO, state: State) -> Any:
        self.linear(x.f)


class NoTarget(Bare):
    def step_x(self, x: IO, t: IO, state: State) -> Any:
        pass


class Pair(Bare):
    def forward_nn(self, x: IO, state: State) -> Any:
        return self.linear(x.f), x.f


def head() -> Machine:
    return Machine(nn.Linear(3, 2), zk.theta.Gradient(torch.optim.SGD, lr=0.1), zk.targets.Gradient())


def test_a_bare_tensor_is_one_output_and_not_a_tuple_of_rows() -> None:
    x, t, state = IO(torch.ones(4, 3)), IO(torch.zeros(4, 3)), State()
    machine = Bare()
    y = machine.remember(x, state)
    told = machine.tell(t, state)
    target = machine.step_x(*told)
    assert [[v.shape for v in io] for io in (y, state.outputs, told.t, target)] == [[(4, 3)]] * 4
    assert all(isinstance(io, IO) for io in (y, state.y, told.t, target))


@pytest.mark.parametrize("listened", [False, True])
def test_bare_tensors_work_in_chains_in_autograd_and_under_hooks(listened: bool) -> None:
    lower, upper = Bare(), Bare()
    if listened:
        for event in ("forward", "step_y", "step_x"):
            upper.register_hook(event, lambda call: isinstance(call.result, IO) or pytest.fail(str(call)))
    net = Chain(lower, upper, head())
    x, t = torch.ones(4, 3), torch.zeros(4, 2)
    assert net.learn(x, t).isfinite()
    assert net.test(x, t).isfinite()
    assert net(x).shape == (4, 2)
    x.requires_grad_()
    net(x).sum().backward()
    assert torch.equal(x.grad, torch.full((4, 3), 0.25))  # x - t_x = 1 per row, over 4 rows


def test_several_tensors_are_several_outputs() -> None:
    y = Pair().remember(IO(torch.ones(4, 3)), State())
    assert isinstance(y, IO)
    assert len(y) == 2


def test_a_method_that_returns_nothing_is_told_to_return_an_io() -> None:
    x, t = torch.ones(4, 3), torch.zeros(4, 3)
    with pytest.raises(TypeError, match=r"Nothing\.forward_nn expected .* got NoneType: return IO\(y\)"):
        Nothing().learn(x, t)
    with pytest.raises(TypeError, match=r"NoTarget\.step_x expected .* got NoneType: return IO\(y\)"):
        Chain(Bare(), NoTarget()).learn(x, t)


@pytest.mark.parametrize("wrong", [5, None, "labels"])
def test_what_is_no_tensor_is_refused_by_learn_and_test_by_name(wrong: Any) -> None:
    x: Tensor = torch.ones(4, 3)
    for call in ("learn", "test"):
        with pytest.raises(TypeError, match=f"^t of {call} expected a tensor .* got {type(wrong).__name__}: give rows"):
            getattr(head(), call)(x, wrong)
        with pytest.raises(TypeError, match=f"^x of {call} expected a tensor"):
            getattr(head(), call)(wrong, torch.ones(4, 2))


@pytest.mark.parametrize("by", ["position", "name"])
def test_a_bare_tensor_where_an_io_belongs_is_refused_by_the_name_of_the_method(by: str) -> None:
    def call(method: Any, *args: Any, **named: Any) -> None:
        method(*args, *named.values()) if by == "position" else method(*args, **named)

    x, y = torch.ones(4, 3), torch.ones(4, 2)
    for machine in (head(), Chain(head()), Bare()):
        kind, t = type(machine).__name__, IO(torch.ones(4, 2 if type(machine) is not Bare else 3))
        state = State()
        with pytest.raises(TypeError, match=rf"^{kind}\.forward_nn expected x as an IO, got Tensor: write IO\(x\)"):
            call(machine.forward_nn, x=x, state=state)
        with pytest.raises(TypeError, match="expected x as an IO, got Tensor"):
            call(machine.remember, x=x, state=state)
        machine.remember(IO(x), state)
        for name in ("step_y", "accumulate", "step_x", "step"):
            with pytest.raises(TypeError, match=rf"^{kind}\.{name} expected t as an IO, got Tensor: write IO\(t\)"):
                call(getattr(machine, name), x=IO(x), t=y, state=state)
        with pytest.raises(TypeError, match="expected t as an IO, got Tensor"):
            call(machine.tell, t=y, state=state)
        with pytest.raises(TypeError, match="expected y as an IO, got Tensor"):
            machine.assess_y(y, t)
        with pytest.raises(TypeError, match="expected t as an IO, got Tensor"):
            machine.assess_y(t, y)


def test_targets_of_other_rows_are_refused_and_not_repeated() -> None:
    for call in ("learn", "test"):
        for machine in (head(), Machine(nn.Linear(3, 2), zk.theta.Null(), zk.targets.Null())):
            with pytest.raises(ValueError, match=r"target shaped as the output \[6, 2\], got \[3, 2\]"):
                getattr(machine, call)(torch.ones(6, 3), torch.zeros(3, 2))
