from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import zenkai_core as zk
from zenkai_core import IO, Chain, Machine, State


def machine(module: nn.Module, **kw: object) -> Machine:
    return Machine(module, zk.theta.Gradient(torch.optim.SGD, lr=0.1), zk.targets.Gradient(), **kw)  # type: ignore[arg-type]


class Told(zk.LearningMachine):
    """Notes the targets that it is told, and passes on what it is given."""

    def __init__(self, outputs: int = 1, **kw: object) -> None:
        super().__init__(**kw)  # type: ignore[arg-type]
        self.outputs = outputs
        self.calls: list[str] = []
        self.targets: list[IO] = []
        self.grad_mode: list[bool] = []

    def forward_nn(self, x: IO, state: State) -> IO:
        return IO(*(x.f * (i + 1) for i in range(self.outputs)))

    def accumulate(self, x: IO, t: IO, state: State) -> None:
        self.calls.append("accumulate")
        self.targets.append(t)
        self.grad_mode.append(torch.is_grad_enabled())

    def step_x(self, x: IO, t: IO, state: State) -> IO:
        self.calls.append("step_x")
        return IO(x.f.detach() - 5)

    def step(self, x: IO, t: IO, state: State) -> None:
        self.calls.append("step")


def test_the_target_is_y_less_the_gradient_per_row() -> None:
    told = Told()
    x = torch.tensor([[1.0], [2.0]], requires_grad=True)
    (told(x).pow(2).mean()).backward()  # dl_i/dy_i = 2 y_i
    assert told.targets[0].f.tolist() == [[-1.0], [-2.0]]
    assert x.grad.tolist() == [[2.5], [2.5]]  # (x - t_x) over the rows


def test_loss_sum_and_scale_say_how_gradients_become_targets() -> None:
    told = Told(loss="sum", scale=10.0)
    x = torch.tensor([[1.0], [2.0]], requires_grad=True)
    told(x).sum().backward()
    assert told.targets[0].f.tolist() == [[-9.0], [-8.0]]
    assert x.grad.tolist() == [[5.0], [5.0]]


def test_gradients_are_on_inside_backward() -> None:
    told = Told()
    told(torch.ones(2, 1)).sum().backward()
    assert told.grad_mode == [True]


def test_the_first_machine_learns_though_its_input_needs_no_gradient() -> None:
    told = Told()
    told(torch.ones(2, 1)).sum().backward()
    assert told.calls == ["accumulate"]


@pytest.mark.parametrize("retain", [True, False])
def test_a_second_backward_is_refused(retain: bool) -> None:
    loss = machine(nn.Linear(2, 1))(torch.ones(3, 2)).sum()
    loss.backward(retain_graph=retain)
    with pytest.raises(RuntimeError, match="second"):
        loss.backward()


def test_an_unused_output_is_its_own_target() -> None:
    told = Told(outputs=2)
    used, _ = told(torch.ones(3, 1))
    used.mean().backward()
    assert told.targets[0][0].flatten().tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    assert told.targets[0][1].tolist() == [[2.0]] * 3


def test_double_backward_is_refused() -> None:
    x = torch.ones(3, 2, requires_grad=True)
    (g,) = torch.autograd.grad(machine(nn.Linear(2, 1))(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        g.sum().backward()


def test_under_no_grad_a_machine_is_its_module() -> None:
    linear = nn.Linear(2, 1)
    m, x = machine(linear), torch.ones(3, 2)
    with torch.no_grad():
        y = m(x)
    assert not y.requires_grad
    assert torch.equal(y, linear(x))


def test_integer_outputs_are_refused_at_the_call_and_allowed_under_no_grad() -> None:
    class Argmax(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.argmax(1)

    m = Machine(Argmax(), zk.theta.Null(), zk.targets.Null())
    with pytest.raises(TypeError, match=r"got torch.int64 at output 0: integer outputs cut the graph"):
        m(torch.eye(3))
    with torch.no_grad():
        assert m(torch.eye(3)).tolist() == [0, 1, 2]


def test_an_output_changed_in_place_is_refused() -> None:
    model = nn.Sequential(machine(nn.Linear(2, 2)), nn.ReLU(inplace=True))
    with pytest.raises(RuntimeError, match=r"in-?place"):
        model(torch.ones(3, 2)).sum().backward()


def test_an_integer_input_gets_no_gradient_and_no_target_of_its_own() -> None:
    m = machine(nn.Embedding(4, 2))
    x = torch.tensor([0, 3])
    m(x).sum().backward()
    assert m.module.weight.grad[3].tolist() == [0.5 * 2, 0.5 * 2]
    state = State()
    m.forward_nn(IO(x), state)
    assert m.step_x(IO(x), IO(torch.zeros(2, 2)), state).f.tolist() == [0, 3]


@pytest.mark.parametrize(
    ("lmode", "calls"),
    [
        ("accumulate", ["accumulate", "step_x"]),
        ("accumulate step_x step", ["accumulate", "step_x", "step"]),
        ("accumulate step step_x", ["accumulate", "step", "step_x"]),
        ("step_x", ["step_x"]),
    ],
)
def test_lmode_says_what_backward_does(lmode: zk.learning.LMode, calls: list[str]) -> None:
    told = Told()
    zk.set_lmode(nn.Sequential(told), lmode)
    told(torch.ones(2, 1, requires_grad=True)).sum().backward()
    assert told.calls == calls


def test_an_unknown_lmode_or_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="lmode expected one of"):
        Told(lmode="often")
    with pytest.raises(ValueError, match="loss expected 'mean' or 'sum'"):
        Told(loss="max")


def test_backward_moves_no_parameter_unless_lmode_says_so() -> None:
    for lmode, moves in (("accumulate", False), ("accumulate step_x step", True), ("accumulate step step_x", True)):
        m = machine(nn.Linear(2, 1), lmode=lmode)
        before = m.module.weight.clone()
        m(torch.ones(3, 2)).sum().backward()
        assert torch.equal(before, m.module.weight) is not moves


def test_a_machine_can_be_copied_between_backward_and_step() -> None:
    chain = Chain(machine(nn.Linear(2, 3)), machine(nn.Linear(3, 1)))
    chain(torch.ones(3, 2)).sum().backward()
    other = copy.deepcopy(chain)
    before = other.machines[0].module.weight.clone()
    zk.Optimizer(chain).step()
    assert torch.equal(other.machines[0].module.weight, before)
    assert not torch.equal(chain.machines[0].module.weight, before)


def test_train_and_eval_reach_the_module_behind_the_bridge() -> None:
    m = Machine(nn.Dropout(0.5), zk.theta.Null(), zk.targets.Gradient())
    x = torch.ones(50, 4)
    m.eval()
    assert torch.equal(m(x).detach(), x)
    m.train()
    assert not torch.equal(m(x).detach(), x)
