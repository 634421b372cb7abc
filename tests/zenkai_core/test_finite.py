"""NaN and infinity in the inputs, the target or the cost are refused before any parameter moves."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingRegressor
from torch import Tensor, nn

import tansaku
import zenkai_core as zk
from tansaku.testing.watch import Dispatched
from zenkai_core import Chain, Machine, cross_entropy, modules, sse, targets, theta
from zenkai_core.linear import check_finite

NAN, INF = float("nan"), float("inf")


def sgd() -> zk.StepTheta:
    return theta.Gradient(torch.optim.SGD, lr=0.1)


def head(criterion: zk.Criterion = sse) -> Machine:
    return Machine(nn.Linear(8, 3), sgd(), targets.Gradient(), criterion)


HIDDEN: dict[str, Callable[[], Machine]] = {
    "gradient": lambda: Machine(nn.Linear(4, 8), sgd(), targets.Gradient()),
    "delta": lambda: Machine(nn.Linear(4, 8), theta.Delta(torch.optim.SGD, lr=0.1), targets.Null()),
    "least squares": lambda: Machine(nn.Linear(4, 8), theta.LeastSquares(), targets.LeastSquares()),
    "feedback": lambda: Machine(nn.Linear(4, 8), sgd(), targets.FeedbackAlignment(seed=0)),
    "direct feedback": lambda: Machine(nn.Linear(4, 8), sgd(), targets.Null(), y=targets.DirectFeedback(seed=0)),
    "search": lambda: Machine(nn.Linear(4, 8), theta.Search(tansaku.HillClimb(k=4, std=0.1)), targets.Null()),
    "searched targets": lambda: Machine(
        nn.Linear(4, 8),
        theta.Delta(torch.optim.Adam, lr=0.1),
        targets.Null(),
        y=targets.SearchY(tansaku.HillClimb(k=4, std=0.3), reduce=tansaku.WeightedMean("standardised")),
    ),
    "trees": lambda: Machine(modules.Trees(4, 8), theta.Fit(rows=6), targets.Null()),
}
NETS: dict[str, Callable[[], zk.LearningMachine]] = {
    **{name: (lambda make=make: Chain(make(), head())) for name, make in HIDDEN.items()},
    "behind a sign": lambda: Chain(HIDDEN["delta"](), Machine(modules.Sign(), theta.Null(), targets.Null()), head()),
    "graph": lambda: zk.Graph({"h": zk.Node(HIDDEN["gradient"](), "x"), "y": zk.Node(head(), "h")}, outputs=("y",)),
    "global targets": lambda: zk.GlobalTargets(HIDDEN["gradient"](), head(), x=targets.Gradient(scale=0.1)),
    "alone": lambda: Machine(nn.Linear(4, 3), sgd(), targets.Gradient()),
}


def by_learn(net: zk.LearningMachine, x: Tensor, t: Tensor) -> None:
    net.learn(x, t)


def by_hand(net: zk.LearningMachine, x: Tensor, t: Tensor) -> None:
    state = zk.State()
    net.remember(zk.IO(x), state)
    net.accumulate(state.inputs, zk.IO(t), state)
    net.step(state.inputs, zk.IO(t), state)


def by_autograd(net: zk.LearningMachine, x: Tensor, t: Tensor) -> None:
    optimizer = zk.Optimizer(net)
    (net(x) - t).square().sum(1).mean().backward()
    optimizer.step()


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("where", ["x", "t"])
@pytest.mark.parametrize("way", [by_learn, by_hand, by_autograd])
@pytest.mark.parametrize("name", NETS)
@pytest.mark.filterwarnings("ignore:.*expected a target for every machine that learns")
def test_a_bad_row_is_refused_by_name_and_nothing_moves(
    name: str, way: Callable[..., None], where: str, bad: float
) -> None:
    torch.manual_seed(0)
    net = NETS[name]()
    x, t = torch.randn(6, 4), torch.randn(6, 3)
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    if name == "trees" and where == "x" and math.isnan(bad):
        pytest.skip("NaN marks a missing value for trees")
    (x if where == "x" else t)[2, 1] = bad
    expected = where if way is not by_autograd or where == "x" else "t"
    with pytest.raises(ValueError, match=rf"finite numbers, got -?(nan|inf) in {expected}, row"):
        way(net, x, t)
    assert all(torch.equal(before[n], p) for n, p in net.named_parameters())
    assert all(bool(p.isfinite().all()) for p in net.parameters())


def test_a_cost_that_is_not_finite_is_refused() -> None:
    machine = Machine(nn.Linear(3, 2), sgd(), targets.Null(), lambda y, t: (y.f - t.f).square().sum(1).log())
    with torch.no_grad():
        machine.module.weight.zero_()
        machine.module.bias.zero_()
    with pytest.raises(ValueError, match=r"got -inf in cost, row 0"):
        machine.learn(torch.randn(4, 3), torch.zeros(4, 2))


def test_the_network_of_the_readme_stays_whole() -> None:
    search = targets.SearchY(tansaku.HillClimb(k=8, std=1.0), reduce=tansaku.WeightedMean("standardised"))
    net = Chain(
        Machine(nn.Linear(64, 32), theta.Delta(torch.optim.Adam, lr=1e-2), targets.Null(), y=search),
        Machine(modules.Sign(), theta.Null(), targets.Null()),
        Machine(nn.Linear(32, 10), theta.Gradient(torch.optim.Adam, lr=1e-2), targets.Null(), cross_entropy),
    )
    x, labels = torch.randn(128, 64), torch.randint(10, (128,))
    net.learn(x, labels)
    bad = x.clone()
    bad[0, 0] = NAN
    with pytest.raises(ValueError, match="got nan in x, row 0"):
        net.learn(bad, labels)
    for _ in range(3):
        assert net.learn(x, labels).isfinite()
    assert all(bool(p.isfinite().all()) for p in net.parameters())


def test_missing_values_reach_an_estimator_that_takes_them_and_infinity_does_not() -> None:
    estimators = modules.Estimators(4, 3)
    net = Machine(
        estimators, theta.Fit(lambda: modules.PerOutput(HistGradientBoostingRegressor()), rows=40), targets.Null()
    )
    x, t = torch.randn(40, 4), torch.randn(40, 3)
    x[0, 0] = NAN
    net.learn(x, t)
    assert len(estimators) == 1
    x[1, 1] = INF
    with pytest.raises(ValueError, match="got inf in x, row 1"):
        net.learn(x, t)


@pytest.mark.parametrize("depth", [1, 2, 6])
def test_a_step_of_a_whole_network_reads_one_value(depth: int) -> None:
    layers = [Machine(nn.Linear(4, 4), sgd(), targets.Gradient()) for _ in range(depth)]
    net = Chain(*layers)
    x, t = torch.randn(6, 4), torch.randn(6, 4)
    net.learn(x, t)
    with Dispatched() as watched:
        net.learn(x, t)
    assert watched.waits == ["aten::_local_scalar_dense"]


def test_large_finite_numbers_in_short_dtypes_are_finite() -> None:
    machine = Machine(nn.Linear(3, 2).half(), theta.Null(), targets.Null())
    x = torch.full((512, 3), 6e4, dtype=torch.float16)
    with torch.no_grad():
        for p in machine.module.parameters():
            p.zero_()
    assert machine.learn(x, torch.zeros(512, 2, dtype=torch.float16)).item() == 0.0


@pytest.mark.parametrize("module", [modules.Sign(), modules.Step(), modules.SignSTE(), modules.StepSTE()], ids=repr)
def test_units_without_a_gradient_pass_nan_through(module: nn.Module) -> None:
    out = module(torch.tensor([NAN, -1.0, 1.0]))
    assert np.isnan(out[0].item())
    assert bool(out[1:].isfinite().all())


def test_complex_targets_are_refused() -> None:
    machine = Machine(nn.Linear(3, 2), sgd(), targets.Null())
    for way in (by_learn, by_hand):
        with pytest.raises(TypeError, match="expected real targets, got complex ones"):
            way(machine, torch.randn(4, 3), torch.randn(4, 2, dtype=torch.complex64))


def test_a_schedule_and_direct_feedback_read_no_further_value() -> None:
    falling = tansaku.LinearSchedule(1.0, 0.1)
    net = Chain(
        Machine(nn.Linear(4, 4), sgd(), targets.Null(), y=targets.DirectFeedback(scale=falling, calls=50, seed=0)),
        Machine(nn.Linear(4, 4), sgd(), targets.Gradient(scale=falling, calls=50)),
        Machine(nn.Linear(4, 4), sgd(), targets.Gradient()),
    )
    x, t = torch.randn(6, 4), torch.randn(6, 4)
    net.learn(x, t)
    with Dispatched() as watched:
        net.learn(x, t)
    assert watched.waits == ["aten::_local_scalar_dense"]


def test_least_squares_read_one_value_for_all_that_they_solve_from() -> None:
    inputs, error = torch.randn(4, 3), torch.randn(4, 2)
    with Dispatched() as watched:
        check_finite("theta.LeastSquares", inputs=inputs, error=error)
    assert watched.waits == ["aten::_local_scalar_dense"]
    check_finite("theta.LeastSquares", inputs=torch.full((4,), 1.7e308, dtype=torch.float64))
