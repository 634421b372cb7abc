"""A machine that learns but can receive no target is reported once, when the network is made."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn

import tansaku
from zenkai_core import (
    IO,
    Chain,
    GlobalTargets,
    Graph,
    LearningMachine,
    Machine,
    Node,
    Parallel,
    State,
    StepX,
    StepY,
    Swap,
    convert,
    cross_entropy,
    modules,
    targets,
    theta,
)


def layer(i: int, o: int, x: StepX | None = None, y: StepY | None = None) -> Machine:
    return Machine(nn.Linear(i, o), theta.Gradient(torch.optim.SGD, lr=0.1), x or targets.Gradient(), y=y)


def sign() -> Machine:
    return Machine(modules.Sign(), theta.Null(), targets.Null())


def still(i: int, o: int) -> Machine:
    return Machine(nn.Linear(i, o), theta.Null(), targets.Null())


def cut() -> StepX:
    return targets.Null()


def of_network() -> StepX:
    return targets.SearchX(tansaku.HillClimb(k=4), score="network")


REPORTED: dict[str, tuple[Callable[[], LearningMachine], str, str]] = {
    "below a sign": (lambda: Chain(layer(4, 4), sign(), layer(4, 2)), "'0' (Linear)", "'1' (Sign)"),
    "two below": (
        lambda: Chain(layer(4, 4), Machine(nn.Tanh(), theta.Null(), targets.Gradient()), layer(4, 2, cut())),
        "'0' (Linear)",
        "'2' (Linear)",
    ),
    "chains in a chain": (lambda: Chain(Chain(layer(4, 4)), Chain(layer(4, 2, cut()))), "'0.0' (Linear)", "'1.0'"),
    "graph": (
        lambda: Graph({"h": Node(layer(4, 4), "x"), "y": Node(layer(4, 2, cut()), "h")}, outputs=("y",)),
        "'h' (Linear)",
        "'y' (Linear)",
    ),
    "parallel above": (
        lambda: Chain(layer(4, 4), Parallel(layer(2, 1, cut()), layer(2, 1, cut()), split=(2, 2))),
        "'0' (Linear)",
        "'1.0' (Linear)",
    ),
    "swap above": (lambda: Chain(layer(4, 4), Swap(layer(4, 2, cut()), layer(4, 2))), "'0' (Linear)", "'1.first'"),
    "wrapped": (
        lambda: Chain(
            Machine(nn.Linear(4, 4), theta.Postponed(theta.Gradient(), every=2), targets.Null()),
            layer(4, 2, targets.Limited(targets.Null(), [0])),
        ),
        "'0' (Linear)",
        "'1' (Linear)",
    ),
    "convert": (
        lambda: convert(
            nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), lambda m: (theta.Gradient(), targets.Null()), cross_entropy
        ),
        "'0' (Linear)",
        "'1' (Linear)",
    ),
}


@pytest.mark.parametrize("name", REPORTED)
def test_a_layer_that_learns_below_one_that_gives_no_target_is_reported_once(name: str) -> None:
    make, below, above = REPORTED[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        net = make()
        Chain(net)  # a network around it says nothing new
    (found,) = [str(w.message) for w in caught]
    assert f"got none for {below}" in found
    assert above in found
    assert below.split(" ")[0] not in found.split("gives one; ")[1]
    assert "theta.Null()" in found


EXEMPT: dict[str, Callable[[], LearningMachine]] = {
    "a layer that learns nothing": lambda: Chain(still(4, 4), layer(4, 2, cut())),
    "a layer that finds its own target": lambda: Chain(
        layer(4, 4, cut(), targets.SearchY(tansaku.HillClimb(k=4))), sign(), layer(4, 2, cut())
    ),
    "direct feedback": lambda: Chain(layer(4, 4, cut(), targets.DirectFeedback()), layer(4, 2, cut())),
    "the first layer's own rule for x": lambda: Chain(layer(4, 4, cut()), layer(4, 2)),
    "a search scored by the network above a layer without a target": lambda: Chain(
        layer(4, 4), Machine(nn.Linear(4, 4), theta.Null(), of_network()), layer(4, 2, cut())
    ),
    "a target by name": lambda: Graph(
        {"h": Node(layer(4, 2), "x", target="y"), "y": Node(layer(2, 2, cut()), "h")}, outputs=("y",)
    ),
    "one of two takers": lambda: Graph(
        {"h": Node(layer(4, 4), "x"), "a": Node(layer(4, 2, cut()), "h"), "b": Node(layer(4, 2), "h")},
        outputs=("a", "b"),
    ),
    "global targets": lambda: GlobalTargets(layer(4, 4, cut()), layer(4, 2, cut()), x=targets.Gradient()),
    "a machine alone": lambda: layer(4, 2, cut()),
}


@pytest.mark.parametrize("name", EXEMPT)
def test_a_layer_that_receives_or_needs_no_target_is_not_reported(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        EXEMPT[name]()


def test_what_is_reported_does_not_move_and_what_is_exempt_does() -> None:
    for name, moves in (("below a sign", False), ("a layer that finds its own target", True)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            net = REPORTED[name][0]() if name in REPORTED else EXEMPT[name]()
        first = next(m for m in net.modules() if isinstance(m, nn.Linear))
        before = first.weight.detach().clone()
        for _ in range(3):
            net.learn(torch.randn(8, 4), torch.randn(8, 2))
        assert torch.equal(before, first.weight) is not moves


def test_a_machine_of_ones_own_that_gives_no_target_is_named_by_what_it_lacks() -> None:
    class Own(LearningMachine):
        def forward_nn(self, x: IO, state: State) -> IO:
            return x

    with pytest.warns(UserWarning, match=r"got none for '0' \(Linear\).* gives one; '1' \(Own\) has no step_x\. Give"):
        Chain(layer(4, 4), Own())
