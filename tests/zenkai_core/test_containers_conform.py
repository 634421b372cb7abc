"""The published suite passes on every container, and on containers of containers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from sklearn.tree import DecisionTreeRegressor
from torch import Tensor, nn

import tansaku
import zenkai_core as zk
from zenkai_core import Chain, GlobalTargets, Graph, LearningMachine, Machine, Node, Parallel, Swap, convert
from zenkai_core.testing import check_machine


def linear(i: int, o: int, criterion: zk.Criterion = zk.sse, n: int = 1) -> Machine:
    return Machine(nn.Linear(i, o), zk.theta.Gradient(torch.optim.SGD, lr=0.05, n=n), zk.targets.Gradient(n), criterion)


class Add(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


def graph(order: zk.container.Order = "accumulate step_x step", n: int = 1) -> Graph:
    hidden = nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5), nn.Dropout(0.2), nn.Tanh())
    net = Graph(
        {
            "a": Node(linear(4, 5, n=n), "x"),
            "b": Node(Machine(hidden, zk.theta.Gradient(torch.optim.Adam, lr=0.01), zk.targets.Gradient(n)), "a"),
            "sum": Node(Machine(Add(), zk.theta.Null(), zk.targets.Gradient()), "a", "b"),
            "y": Node(linear(5, 3, zk.cross_entropy), "sum"),
        },
        order=order,
    )
    net.lmode = "step_x" if order == "accumulate step step_x" else "accumulate"
    return net


def searched_graph() -> Graph:
    climb = tansaku.HillClimb(k=8, std=0.1)
    trees = zk.theta.Fit(lambda: DecisionTreeRegressor(max_depth=3), rows=24)
    above = Machine(Add(), zk.theta.Null(), zk.targets.SearchX(climb, score="network"))
    return Graph(
        {
            "a": Node(Machine(nn.Linear(4, 5), zk.theta.Search(climb, score="network"), zk.targets.Null()), "x"),
            "b": Node(Machine(zk.modules.Trees(4, 5, members=3), trees, zk.targets.Null()), "x"),
            "sum": Node(above, "a", "b"),
            "y": Node(linear(5, 3, zk.cross_entropy), "sum"),
        }
    )


def parallel(n: int = 1) -> Parallel:
    half = Machine(nn.Linear(2, 1), zk.theta.Delta(torch.optim.SGD, lr=0.05), zk.targets.Gradient(n))
    return Parallel(half, linear(2, 2, n=n), split=(2, 2), criterion=zk.cross_entropy)


def swap() -> Swap:
    return Swap(linear(4, 3, zk.cross_entropy), linear(4, 3, zk.cross_entropy), main_mix=0.1, sub_mix=0.5, step_x="sub")


def global_targets() -> GlobalTargets:
    search = zk.targets.SearchX(tansaku.HillClimb(k=8, std=0.1))
    return GlobalTargets(linear(4, 5), linear(5, 3, zk.cross_entropy), x=search)


def converted() -> Chain:
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))
    rules = lambda m: (zk.theta.Gradient(torch.optim.SGD, lr=0.05), zk.targets.Gradient())  # noqa: E731
    return convert(model, rules, zk.cross_entropy, group=True)


def nested() -> Chain:
    swapped = Swap(linear(5, 2), linear(5, 2), sub_mix=0.5)
    middle = Parallel(Chain(linear(5, 4), linear(4, 3)), swapped)
    skip = Graph({"a": Node(middle, "x"), "y": Node(Machine(Add(), zk.theta.Null(), zk.targets.Gradient()), "a", "x")})
    return Chain(linear(4, 5), skip, linear(5, 3, zk.cross_entropy))


@pytest.mark.parametrize("make", [searched_graph, swap, global_targets, converted, nested])
def test_our_containers_conform(make: Callable[[], LearningMachine]) -> None:
    check_machine(lambda: (make(), torch.randn(12, 4), torch.randint(3, (12,))))


@pytest.mark.parametrize("order", ["accumulate step_x step", "accumulate step step_x"])
def test_a_graph_conforms_in_both_orders(order: zk.container.Order) -> None:
    check_machine(lambda n=1: (graph(order, n), torch.randn(12, 4), torch.randint(3, (12,))))


def test_a_parallel_conforms() -> None:
    check_machine(lambda n=1: (parallel(n), torch.randn(12, 4), torch.randint(3, (12,))))


def test_a_graph_of_several_inputs_and_outputs_conforms() -> None:
    def make() -> tuple[Graph, zk.IO, zk.IO]:
        net = Graph(
            {"a": Node(Machine(Add(), zk.theta.Null(), zk.targets.Gradient()), "u", "v"), "b": Node(linear(4, 2), "a")},
            ("u", "v"),
            ("a", "b"),
        )
        return net, zk.IO(torch.randn(12, 4), torch.randn(12, 4)), zk.IO(torch.randn(12, 4), torch.randn(12, 2))

    check_machine(make)


def test_direct_feedback_reaches_a_layer_in_every_container_and_learns() -> None:
    torch.manual_seed(0)

    def direct(i: int, o: int) -> Machine:
        module = nn.Sequential(nn.Linear(i, o), nn.Tanh())
        rule = zk.theta.Gradient(torch.optim.Adam, lr=0.01)
        return Machine(module, rule, zk.targets.Null(), y=zk.targets.DirectFeedback())

    skip = Graph(
        {"a": Node(direct(8, 8), "x"), "y": Node(Machine(Add(), zk.theta.Null(), zk.targets.Null()), "a", "x")}
    )
    middle = Parallel(skip, Swap(direct(8, 3), direct(8, 3)))
    net = Chain(direct(4, 8), middle, linear(11, 3, zk.cross_entropy))
    x = torch.randn(100, 4)
    labels = (x[:, 0] * x[:, 1] > 0).long() + (x[:, 2] > 1).long()
    told: list[zk.State] = []
    for m in net.modules():
        if isinstance(m, Machine):
            m.register_hook("accumulate", lambda call: told.append(call.state))
    first = net.learn(x, labels)
    expected = told[0].output_error()[0]
    assert len(told) == 6
    assert all(s.goal.same(told[0].goal) and torch.equal(s.output_error()[0], expected) for s in told)
    assert torch.equal(told[0].goal.f, labels)
    for _ in range(100):
        last = net.learn(x, labels)
    assert last < 0.8 * first
