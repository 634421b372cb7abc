"""All rules for theta, for x and for y, crossed on a zoo of modules: the pair works, or a TypeError says what lacks."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import torch
from sklearn.tree import DecisionTreeRegressor
from torch import nn

import tansaku
import zenkai_core as zk
from zenkai_core import IO, Machine, State
from zenkai_core.capabilities import capabilities


def climb() -> tansaku.HillClimb:
    return tansaku.HillClimb(k=4, std=0.1)


class Spread(nn.Module):
    """An inverse to be learned, for outputs of any width: their mean, times a weight for each of the four inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        return y.mean(1, keepdim=True) * self.weight


THETA: dict[str, Callable[[], zk.StepTheta]] = {
    "gradient": lambda: zk.theta.Gradient(torch.optim.Adam, lr=1e-3),
    "gradient twice": lambda: zk.theta.Gradient(torch.optim.SGD, lr=1e-3, n=2),
    "delta": lambda: zk.theta.Delta(torch.optim.Adam, lr=1e-3),
    "fit": lambda: zk.theta.Fit(lambda: DecisionTreeRegressor(max_depth=2), rows=1),
    "fit in a window": lambda: zk.theta.Fit(lambda: DecisionTreeRegressor(max_depth=2), rows=1, window=9),
    "search": lambda: zk.theta.Search(climb()),
    "least squares": lambda: zk.theta.LeastSquares(0.1),
    "null": zk.theta.Null,
}
X: dict[str, Callable[[], zk.StepX]] = {
    "difference": zk.targets.Difference,
    "difference learned": lambda: zk.targets.Difference(Spread(), lr=1e-3),
    "gradient": zk.targets.Gradient,
    "gradient twice": lambda: zk.targets.Gradient(2),
    "search": lambda: zk.targets.SearchX(climb()),
    "search the network": lambda: zk.targets.SearchX(climb(), score="network"),
    "search by a sampler": lambda: zk.targets.SearchX(
        zk.targets.Sampled(tansaku.GaussianSampler(0.1), k=4), reduce=tansaku.Momentum(), generations=2
    ),
    "feedback": zk.targets.FeedbackAlignment,
    "sign-symmetric feedback": lambda: zk.targets.FeedbackAlignment("fresh"),
    "learned feedback": lambda: zk.targets.KolenPollack(torch.optim.SGD, lr=0.1),
    "least squares": lambda: zk.targets.LeastSquares(0.1),
    "null": zk.targets.Null,
    "reverse": zk.targets.Reverse,
    "reverse learned": lambda: zk.targets.Reverse(Spread(), lr=1e-3, n=2),
}
Y: dict[str, Callable[[], zk.StepY | None]] = {
    "none": lambda: None,
    "search": lambda: zk.targets.SearchY(climb()),
    "direct feedback": zk.targets.DirectFeedback,
    "local readout": lambda: zk.targets.LocalReadout(zk.sse),
}
ZOO: dict[str, tuple[Callable[[], nn.Module], set[str]]] = {
    "linear": (lambda: nn.Linear(4, 3), {"parameters", "differentiable", "linear"}),
    "linear sign": (lambda: nn.Sequential(nn.Linear(4, 3), zk.modules.Sign()), {"parameters", "linear"}),
    "linear straight through": (
        lambda: nn.Sequential(nn.Linear(4, 3), zk.modules.SignSTE()),
        {"parameters", "differentiable", "linear"},
    ),
    "deep": (
        lambda: nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 3)),
        {"parameters", "differentiable"},
    ),
    "invertible": (
        lambda: zk.modules.Sequential(
            zk.modules.InvertibleLinear(4), zk.modules.BatchNorm1d(4), zk.modules.LeakyReLU(0.1)
        ),
        {"parameters", "differentiable", "invertible"},
    ),
    "relu": (lambda: nn.Sequential(nn.ReLU(), nn.Flatten()), {"differentiable"}),
    "frozen": (lambda: nn.Linear(4, 3).requires_grad_(False), {"differentiable", "linear"}),
    "sign": (zk.modules.Sign, set()),
    "black box": (lambda: zk.modules.BlackBox(lambda x: x[:, :3].round()), set()),
    "linear step": (lambda: nn.Sequential(nn.Linear(4, 3), zk.modules.Step()), {"parameters", "linear"}),
    "max-min": (lambda: zk.modules.MaxMin(4, 3), {"parameters", "differentiable"}),
    "trees": (lambda: zk.modules.Trees(4, 3), {"estimator"}),
    "one tree": (lambda: zk.modules.Tree(4, 3), {"estimator"}),
    "estimators": (lambda: zk.modules.Estimators(4, 3), {"estimator"}),
    "ensemble": (lambda: zk.modules.Ensemble(lambda: nn.Linear(4, 3), n=2), {"parameters", "differentiable"}),
}


def kept(module: nn.Module) -> torch.Tensor:
    return torch.cat(
        [v.detach().flatten().double() for v in (*module.parameters(), *module.buffers())] or [torch.zeros(0)]
    )


@pytest.mark.parametrize("module", ZOO)
def test_capabilities_are_what_the_module_offers(module: str) -> None:
    make, expected = ZOO[module]
    assert capabilities(make()) == expected


def test_an_inverse_makes_a_module_invertible() -> None:
    class Double(nn.Module):
        def inverse(self, y: torch.Tensor) -> torch.Tensor:
            return y / 2

    assert "invertible" in capabilities(Double())


@pytest.mark.parametrize(("theta", "x", "y"), list(product(THETA, X, Y)))
def test_each_pair_works_or_says_what_the_module_lacks(theta: str, x: str, y: str) -> None:
    for make, has in ZOO.values():
        rules = THETA[theta](), X[x](), Y[y]()
        lacks = {need for rule in rules if rule is not None for need in rule.requires} - has
        if lacks:
            with pytest.raises(TypeError, match="|".join(f"that is '{need}', got" for need in sorted(lacks))):
                Machine(make(), rules[0], rules[1], y=rules[2])
            continue
        machine = Machine(make(), rules[0], rules[1], y=rules[2])
        before = kept(machine.module)
        inputs, state = IO(torch.randn(6, 4)), State()
        t = IO(torch.randn_like(machine.remember(inputs, state).f))
        told = machine.tell(t, state)
        target = machine.step_x(*told)
        machine.step(*told)
        after = kept(machine.module)
        assert target.f.shape == (6, 4)
        assert target.f.isfinite().all()
        assert (x == "null") == torch.equal(target.f, inputs.f) or x.startswith("search")
        if theta != "null" and theta != "search":
            assert before.shape != after.shape or not torch.equal(before, after)
