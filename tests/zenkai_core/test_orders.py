"""The four-step flow under `loss.backward()`: step after step_x, before it, not at all, and step_x alone."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import zenkai_core as zk
from zenkai_core import IO, Chain, GlobalTargets, Graph, LearningMachine, Machine, Node, Parallel, State, Swap

pytestmark = pytest.mark.usefixtures("float64")
LR = 0.1
ORDERS = {
    "accumulate": ["accumulate", "step_x"],
    "accumulate step_x step": ["accumulate", "step_x", "step"],
    "accumulate step step_x": ["accumulate", "step", "step_x"],
    "step_x": ["step_x"],
}


class Own(LearningMachine):
    """A user's own machine: y = x w."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3))

    def forward_nn(self, x: IO, state: State) -> IO:
        return IO(x.f @ self.weight.T)

    def accumulate(self, x: IO, t: IO, state: State) -> None:
        grad = (state.outputs.f - t.f).detach().T @ x.f.detach() / t.rows
        self.weight.grad = grad if self.weight.grad is None else self.weight.grad + grad

    def step_x(self, x: IO, t: IO, state: State) -> IO:
        y = x.f.detach() @ self.weight.T  # on the weights as they are now
        return IO((x.f - (y - t.f) @ self.weight).detach())

    def step(self, x: IO, t: IO, state: State) -> None:
        self.weight.data -= LR * self.weight.grad
        self.weight.grad = None


def linear(i: int, o: int) -> Machine:
    return Machine(nn.Linear(i, o, bias=False), zk.theta.Gradient(torch.optim.SGD, lr=LR), zk.targets.Gradient())


class Add(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


def graph() -> Graph:
    return Graph(
        {
            "a": Node(linear(3, 4), "x"),
            "b": Node(linear(4, 4), "a"),
            "y": Node(Machine(Add(), zk.theta.Null(), zk.targets.Gradient()), "a", "b"),
        }
    )


ZOO: dict[str, Callable[[], LearningMachine]] = {
    "own": Own,
    "machine": lambda: linear(3, 4),
    "chain": lambda: Chain(linear(3, 5), linear(5, 4)),
    "graph": graph,
    "parallel": lambda: Parallel(linear(3, 1), linear(3, 3)),
    "split": lambda: Parallel(linear(1, 2), linear(2, 2), split=(1, 2)),
    "swap": lambda: Swap(linear(3, 4), linear(3, 4), train_sub=False),
    "global": lambda: GlobalTargets(linear(3, 4), x=zk.targets.Gradient()),
    "nested": lambda: Chain(Parallel(linear(3, 2), Chain(linear(3, 5), linear(5, 2))), graph_of(linear(4, 4))),
}


def graph_of(machine: LearningMachine) -> Graph:
    return Graph({"y": Node(machine, "x")})


def plain(net: LearningMachine) -> Callable[[Tensor], Tensor]:
    """The same function, by torch's own autograd."""

    def of(m: LearningMachine, *x: Tensor) -> Tensor:
        if isinstance(m, Own):
            return x[0] @ m.weight.T
        if isinstance(m, Machine):
            return m.module(*x)
        if isinstance(m, Chain):
            for each in m.machines:
                x = (of(each, *x),)
            return x[0]
        if isinstance(m, Swap):
            return of(m.main, *x)
        if isinstance(m, Parallel):
            parts = x[0].split([1, 2], 1) if m.columns else [x[0]] * len(m)
            return torch.cat([of(each, part) for each, part in zip(m.machines, parts, strict=True)], 1)
        values = {"x": x[0]}
        for name in m.wiring.up:
            values[name] = of(m[name], *(values[s.name] for s in m.wiring.sources[name]))
        return values["y"]

    return lambda x: of(net, x)


@pytest.mark.parametrize("lmode", ORDERS)
@pytest.mark.parametrize("kind", ZOO)
def test_backward_does_what_lmode_says_in_this_order(kind: str, lmode: zk.learning.LMode) -> None:
    torch.manual_seed(0)
    net = ZOO[kind]()
    old = copy.deepcopy(net)
    zk.set_lmode(net, lmode)
    events: list[str] = []
    for event in ("accumulate", "step_x", "step"):
        net.register_hook(event, lambda call: events.append(call.event))
    x, t = torch.randn(6, 3, requires_grad=True), torch.randn(6, 4)
    (0.5 * (net(x) - t).square().sum(1)).mean().backward()
    assert events == ORDERS[lmode]

    leaf = x.detach().clone().requires_grad_()
    (0.5 * (plain(old)(leaf) - t).square().sum(1)).mean().backward()
    moved = "step" in events
    for p, q in zip(net.parameters(), old.parameters(), strict=True):
        expected = q if q.grad is None or not moved else q - LR * q.grad
        assert torch.allclose(p, expected, rtol=0, atol=1e-14)
        accumulated = None if lmode != "accumulate" else q.grad
        assert (p.grad is None) if accumulated is None else torch.allclose(p.grad, accumulated, rtol=0, atol=1e-14)
    same = torch.allclose(x.grad, leaf.grad, rtol=0, atol=1e-14)
    assert same is (lmode != "accumulate step step_x" or kind == "global")  # its x is proposed before any step


@pytest.mark.parametrize("kind", ["own", "machine", "parallel", "split", "swap"])
def test_after_the_step_the_target_below_comes_from_the_moved_parameters(kind: str) -> None:
    torch.manual_seed(0)
    net = ZOO[kind]()
    zk.set_lmode(net, "accumulate step step_x")
    x, t = torch.randn(6, 3, requires_grad=True), torch.randn(6, 4)
    (0.5 * (net(x) - t).square().sum(1)).mean().backward()
    leaf = x.detach().clone().requires_grad_()
    (0.5 * (plain(net)(leaf) - t).square().sum(1)).mean().backward()  # the parameters have moved
    assert torch.allclose(x.grad, leaf.grad, rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", ["chain", "graph"])
def test_machine_by_machine_the_step_comes_first_in_the_second_order(kind: str) -> None:
    torch.manual_seed(0)
    first, second = linear(3, 5), linear(5, 4)
    net: Chain | Graph = Chain(first, second, order="accumulate step step_x")
    if kind == "graph":
        net = Graph({"1": Node(first, "x"), "y": Node(second, "1")}, order="accumulate step step_x")
    one, two = first.module.weight, second.module.weight
    a, b = one.detach().clone(), two.detach().clone()
    with pytest.raises(RuntimeError, match=r"backward\(\) moves no parameter by itself"):
        net(torch.ones(1, 3))
    zk.set_lmode(net, "accumulate step step_x")
    x, t = torch.randn(6, 3, requires_grad=True), torch.randn(6, 4)
    (0.5 * (net(x) - t).square().sum(1)).mean().backward()
    with torch.no_grad():  # by hand: each layer moves, then its moved weights carry the error down
        h = x @ a.T
        b -= LR * (h @ b.T - t).T @ h / 6
        error = (h @ b.T - t) @ b
        target = h - error
        a -= LR * error.T @ x / 6
        below = (x @ a.T - target) @ a
    for got, expected in ((one, a), (two, b), (x.grad, below / 6)):
        assert torch.allclose(got, expected, rtol=0, atol=1e-13)


def test_where_backward_itself_steps_no_optimiser_is_needed_and_none_steps_again() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(linear(3, 5), nn.Tanh(), graph_of(linear(5, 4)))
    zk.set_lmode(net, "accumulate step_x step")
    x, t = torch.randn(20, 3), torch.randn(20, 4)
    losses = []
    for _ in range(30):
        loss = 0.5 * (net(x) - t).square().sum(1).mean()
        loss.backward()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    before = [p.detach().clone() for p in net.parameters()]
    zk.Optimizer(net).step()
    assert all(torch.equal(p, q) for p, q in zip(before, net.parameters(), strict=True))


def test_targets_alone_know_the_network_and_the_layers_own_target() -> None:
    class Further(zk.StepY):
        def step_y(self, machine: Machine, t: zk.IO, state: zk.State) -> zk.IO:
            return zk.IO(state.outputs.f.detach() - 3 * (state.outputs.f.detach() - t.f))

    class Looks(zk.StepX):
        def step_x(self, machine: Machine, t: zk.IO, state: zk.State) -> zk.IO:
            (error,) = state.output_error()
            moved = zk.IO(state.outputs.f.detach() + 2)  # by the loss's gradient alone, all that autograd tells
            assert torch.allclose(state.cost_above(moved), 2 * error.sum(1))
            return zk.IO(state.inputs.f.detach() - (state.outputs.f.detach() - t.f) @ machine.module.weight)

    layer = Machine(nn.Linear(3, 2), zk.theta.Null(), Looks(), y=Further(), lmode="step_x")
    x = torch.randn(4, 3, requires_grad=True)
    layer(x).square().sum(1).mean().backward()
    (g,) = torch.autograd.grad(layer.module(x).square().sum(1).mean(), [x])
    assert torch.allclose(x.grad, 3 * g)
