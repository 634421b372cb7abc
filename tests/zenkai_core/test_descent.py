"""The true gradient reaches every layer, wherever it stands; a layer that is asked for nothing is not starved."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import tansaku
import zenkai_core as zk
from zenkai_core import Chain, GlobalTargets, LearningMachine, Machine, Parallel, Recorder, StepTheta, targets, theta

pytestmark = pytest.mark.usefixtures("float64")


def layer(i: int, o: int, rule: StepTheta | None = None, x: zk.StepX | None = None) -> Machine:
    made = theta.Gradient(torch.optim.SGD, lr=1e-4) if rule is None else rule
    return Machine(nn.Sequential(nn.Linear(i, o), nn.Tanh()), made, targets.Gradient() if x is None else x)


def head(i: int, o: int) -> Machine:
    rule = theta.Gradient(torch.optim.SGD, lr=1e-4)
    return Machine(nn.Linear(i, o), rule, targets.Gradient(), zk.cross_entropy)


def twice() -> Chain:
    shared = layer(4, 4)
    return Chain(layer(4, 4), shared, layer(4, 4), shared, head(4, 3))


def split_chains(*halves: Callable[[], LearningMachine]) -> Chain:
    return Chain(layer(4, 4), Parallel(*(half() for half in halves), split=(2, 2)), head(4, 3))


NETS: dict[str, Callable[[], Chain]] = {
    "a machine at two places": twice,
    "chains side by side": lambda: split_chains(
        lambda: Chain(layer(2, 3), layer(3, 2)), lambda: Chain(layer(2, 3), layer(3, 2))
    ),
    "a chain beside a layer": lambda: split_chains(lambda: Chain(layer(2, 3), layer(3, 2)), lambda: layer(2, 2)),
    "machines side by side, side by side": lambda: split_chains(
        lambda: Parallel(layer(2, 1), layer(2, 1)), lambda: Parallel(layer(1, 1), layer(1, 1), split=(1, 1))
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_backpropagation_is_steepest_descent_wherever_a_layer_stands(name: str) -> None:
    net = NETS[name]()
    with Recorder(net) as recorder:
        for _ in range(2):
            net.learn(torch.randn(8, 4), torch.randint(3, (8,)))
    angles: dict[str, list[float | None]] = {}
    for row in recorder.rows():
        angles.setdefault(row["layer"], []).append(row["update_angle"])
    assert len(angles) == len({m for m in net.modules() if isinstance(m, Machine)})
    for found in angles.values():
        known = [angle for angle in found if angle is not None]
        assert len(known) == 2  # for a machine at two places one row of each pass has the update
        assert known == pytest.approx([0, 0], abs=1e-2)


def test_a_place_that_is_not_kept_leaves_the_angle_open() -> None:
    net = twice()
    with Recorder(net, every=2) as recorder:
        for _ in range(4):
            net.learn(torch.randn(8, 4), torch.randint(3, (8,)))
    shared = [row for row in recorder.rows() if row["layer"] == "1"]
    assert [row["update_angle"] for row in shared] == [None] * 4
    assert all(row["update_ratio"] > 0 for row in shared)


class Skewed(StepTheta):
    """Takes one from every parameter."""

    def accumulate(self, machine: Machine, t: zk.IO, state: zk.State) -> None: ...

    def step(self, machine: Machine) -> None:
        with torch.no_grad():
            for p in machine.module.parameters():
                p.sub_(1.0)


@pytest.mark.parametrize("nested", [False, True])
def test_under_global_targets_the_angle_is_that_to_autograds_gradient(nested: bool) -> None:
    inner = [layer(4, 4, Skewed(), targets.Null()) for _ in range(2)]
    rule = targets.Gradient(n=3, scale=0.1)
    last = Machine(nn.Linear(4, 3), Skewed(), targets.Gradient(), zk.cross_entropy)
    if nested:
        net: Chain = Chain(layer(4, 4, Skewed()), GlobalTargets(*inner, x=rule), last)
    else:
        net = GlobalTargets(layer(4, 4, Skewed()), *inner, last, x=rule)
    machines = [m for m in net.modules() if isinstance(m, Machine)]
    modules = [m.module for m in machines]
    plain, (x, t) = nn.Sequential(*copy.deepcopy(modules)), (torch.randn(8, 4), torch.randint(3, (8,)))
    outputs = [x]
    for module in plain:
        outputs.append(module(outputs[-1]))
        outputs[-1].retain_grad()
    nn.functional.cross_entropy(outputs[-1], t).backward()
    with Recorder(net) as recorder:
        net.learn(x, t)
    found = {row["layer"]: row for row in recorder.rows()}
    names = {m: name for name, m in net.named_modules()}
    for machine, module, y in zip(machines, plain, outputs[1:], strict=True):
        g = torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
        expected = torch.rad2deg(torch.acos(g.sum() / g.norm() / len(g) ** 0.5))
        assert found[names[machine]]["update_angle"] == pytest.approx(float(expected), rel=1e-6)
        error = len(x) * y.grad.norm(dim=1).mean() / y.detach().norm(dim=1).mean()  # type: ignore[union-attr]
        assert found[names[machine]]["error"] == pytest.approx(float(error), rel=1e-6)


def solved(*machines: Machine) -> tuple[Chain, Tensor, Tensor]:
    net, x = Chain(*machines), torch.randn(8, 4)
    return net, x, net(x).detach()


@pytest.mark.filterwarnings("ignore:.*expected a target for every machine that learns")
def test_a_network_without_error_is_not_said_to_starve_its_layers() -> None:
    search = targets.SearchX(tansaku.HillClimb(k=4, std=0.1))
    own = targets.SearchY(tansaku.HillClimb(k=4, std=0.1))
    top = Machine(nn.Linear(4, 2), theta.Gradient(torch.optim.SGD, lr=0.1), search)
    sign = Machine(zk.modules.Sign(), theta.Null(), targets.Null())
    below = Machine(nn.Linear(4, 4), theta.Gradient(torch.optim.SGD, lr=0.1), targets.Null(), y=own)
    for gradients in (True, False):
        net, x, t = solved(layer(4, 4), below, sign, top)
        with Recorder(net, gradients=gradients) as recorder:
            net.learn(x, t)
        assert [row["error"] for row in recorder.rows()] == [0.0] * 4
        read = recorder.read().splitlines()
        assert "starved" not in [line.split(": ")[1] for line in read]
        assert "well: nothing is left to learn: the network's error is 0 of its output" in read[-1]


@pytest.mark.filterwarnings("ignore:.*expected a target for every machine that learns")
def test_a_layer_that_is_told_nothing_of_the_networks_error_starves() -> None:
    net, x, t = solved(layer(4, 4), layer(4, 4, x=targets.Null()), layer(4, 4))
    with Recorder(net) as recorder:
        net.learn(x, t + 1)
    top, middle, bottom = recorder.rows()
    assert top["error"] > 0.1
    assert middle["error"] > 0
    assert (bottom["relative"], bottom["error"] > 0) == (0.0, True)
    assert [line.split(": ")[:2] for line in recorder.read().splitlines()][2] == ["0", "starved"]


def test_reading_says_where_the_angle_is_not_known() -> None:
    learns = theta.Search(tansaku.HillClimb(k=8, std=0.1))
    net = Chain(
        Machine(nn.Linear(4, 4), learns, targets.Null(), y=targets.DirectFeedback()),
        Machine(zk.modules.Sign(), theta.Null(), targets.Null()),
        head(4, 3),
    )
    with Recorder(net) as recorder:
        for _ in range(4):
            net.learn(torch.randn(8, 4), torch.randint(3, (8,)))
    top, _, bottom = recorder.read().splitlines()
    assert "degrees from the network's steepest descent" in top
    assert "at an unknown angle (no gradient of the network's loss reaches it, or none was asked for)" in bottom
