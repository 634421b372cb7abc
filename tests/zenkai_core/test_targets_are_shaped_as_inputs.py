"""Whoever asks a machine for a target of x gets one shaped as x, or an error: nothing is broadcast, nothing dropped."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import zenkai_core as zk
from zenkai_core import IO, Chain, LearningMachine, Machine, State

Answer = Callable[[IO], object]

WRONG: dict[str, Answer] = {
    "one column": lambda x: IO(x.f[:, :1]),
    "one row": lambda x: IO(x.f[:1]),
    "two columns of four": lambda x: x.f[:, :2],
    "a target too many": lambda x: IO(x.f, x.f),
    "a target of no input": lambda x: IO(),
    "a dimension too many": lambda x: IO(x.f.unsqueeze(1)),
}


class Asks(LearningMachine):
    """A user's own machine that asks for whatever it is made with."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.answer = answer

    def forward_nn(self, x: IO, state: State) -> IO:
        return IO(self.linear(x.f))

    def step_x(self, x: IO, t: IO, state: State) -> IO:
        return self.answer(x.detach())  # type: ignore[return-value]


class Learns(Asks):
    """Below: learns from any target that broadcasts to its output."""

    def assess_y(self, y: IO, t: IO) -> Tensor:
        return (y.f - t.f).square().sum(1)

    def accumulate(self, x: IO, t: IO, state: State) -> None:
        self.assess_y(state.outputs, t).mean().backward(inputs=[*self.linear.parameters()])


class Column(Asks):
    def __init__(self) -> None:
        super().__init__(lambda x: x)
        self.linear = nn.Linear(1, 4)


class AsksByRule(zk.StepX):
    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer

    def step_x(self, machine: Machine, t: IO, state: State) -> IO:
        return self.answer(state.inputs.detach())  # type: ignore[return-value]


def below() -> Learns:
    return Learns(lambda x: x)


def composed(answer: Answer) -> Machine:
    return Machine(nn.Linear(4, 4), zk.theta.Null(), AsksByRule(answer))


def graph(answer: Answer) -> zk.Graph:
    return zk.Graph({"a": zk.Node(below(), "x"), "b": zk.Node(Asks(answer), "a")}, outputs=("b",))


NETWORKS: dict[str, Callable[[Answer], LearningMachine]] = {
    "chain": lambda answer: Chain(below(), Asks(answer)),
    "chain of composed": lambda answer: Chain(below(), composed(answer)),
    "chain in the second order": lambda answer: Chain(below(), Asks(answer), order="accumulate step step_x"),
    "graph": graph,
    "parallel": lambda answer: Chain(below(), zk.Parallel(Asks(answer), Asks(lambda x: x))),
    "split": lambda answer: Chain(below(), zk.Parallel(Asks(answer), Column(), split=([0, 1, 2, 3], [0]))),
    "swap": lambda answer: Chain(below(), zk.Swap(Asks(answer), Asks(lambda x: x))),
    "global targets": lambda answer: zk.GlobalTargets(composed(lambda x: x), x=AsksByRule(answer)),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_autograd_never_sees_a_target_of_another_shape(wrong: str) -> None:
    for machine in (Asks(WRONG[wrong]), composed(WRONG[wrong])):
        x = torch.randn(3, 4, requires_grad=True)
        with pytest.raises(ValueError, match=r"step_x expected a target shaped as its inputs, IO\(float32\[3, 4\]\)"):
            machine(x).sum().backward()
        assert x.grad is None


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("network", NETWORKS)
def test_no_container_hands_on_a_target_of_another_shape(network: str, wrong: str) -> None:
    net, t = NETWORKS[network](WRONG[wrong]), torch.randn(3, 8 if network in ("parallel", "split") else 4)
    with pytest.raises(ValueError, match=r"step_x expected a target shaped as its inputs, IO\(float32\[3, 4\]\), got"):
        net.learn(torch.randn(3, 4), t)


def test_the_error_names_the_machine_what_it_answered_and_the_remedy() -> None:
    machine, x, state = Asks(lambda x: IO(x.f, x.f)), IO(torch.randn(3, 4)), State()
    machine.remember(x, state)
    expected = r"Asks\.step_x expected .*, got IO\(float32\[3, 4\], float32\[3, 4\]\): answer with one tensor for each"
    with pytest.raises(ValueError, match=expected):
        machine.step_x(x, x, state)


def test_a_hook_may_replace_a_target_by_one_of_its_shape_only() -> None:
    machine = Asks(lambda x: x)
    handle = machine.register_hook("step_x", lambda call: IO(call.result.f[:, :1]))
    with pytest.raises(ValueError, match=r"got IO\(float32\[3, 1\]\)"):
        machine(torch.randn(3, 4, requires_grad=True)).sum().backward()
    handle.remove()
    machine.register_hook("step_x", lambda call: IO(call.result.f - 3))
    x = torch.randn(3, 4, requires_grad=True)
    machine(x).sum().backward()
    torch.testing.assert_close(x.grad, torch.ones(3, 4))


def test_a_method_from_a_mixin_is_seen_to_as_ones_own() -> None:
    class AsksForOneColumn:
        def step_x(self, x: IO, t: IO, state: State) -> IO:
            return IO(x.f.detach()[:, :1])

    class Mixed(AsksForOneColumn, Asks):
        pass

    machine, heard = Mixed(lambda x: x), []
    machine.register_hook("step_x", lambda call: heard.append(call.x), "before")
    with pytest.raises(ValueError, match=r"Mixed\.step_x expected a target shaped as its inputs"):
        machine(torch.randn(3, 4, requires_grad=True)).sum().backward()
    assert len(heard) == 1


def test_integer_inputs_and_batches_without_rows_have_targets_shaped_as_they_are() -> None:
    machine = Machine(nn.Embedding(5, 3), zk.theta.Null(), zk.targets.Gradient())
    for x in (torch.tensor([1, 4]), torch.zeros(0, dtype=torch.int64)):
        state = State()
        y = machine.remember(IO(x), state)
        assert machine.step_x(*machine.tell(y.detach(), state)).f.shape == x.shape
