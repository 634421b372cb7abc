"""Machines, rules, recorders and optimizers print on one line: optimiser, learning rate, algorithm, reducer."""

from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import Ridge
from torch import nn

import tansaku
import zenkai_core as zk
from zenkai_core import Chain, Graph, Machine, Node, Parallel, Swap, modules, targets, theta

search = tansaku.HillClimb(k=4, std=torch.ones(3))
RULES = {
    theta.Gradient(torch.optim.SGD, lr=0.1, momentum=0.9): "theta.Gradient(SGD, lr=0.1, momentum=0.9)",
    theta.Delta(lr=0.01): "theta.Delta(Adam, lr=0.01)",
    theta.LeastSquares(): "theta.LeastSquares(damping=1.0, lr=1.0)",
    theta.Search(search): "theta.Search(HillClimb(k=4, std=tensor[3]), score='local', write='estimate')",
    theta.Fit(Ridge, rows=8): "theta.Fit(Ridge, rows=8, pending=0)",
    theta.Postponed(theta.Gradient(lr=0.1), every=3): "theta.Postponed(theta.Gradient(Adam, lr=0.1), every=3)",
    theta.Null(): "theta.Null()",
    targets.Gradient(scale=0.5): "targets.Gradient(n=1, scale=0.5)",
    targets.SearchX(
        search, reduce=tansaku.WeightedMean("standardised")
    ): "targets.SearchX(HillClimb(k=4, std=tensor[3]), score='local', reduce=WeightedMean(",
    targets.Proposals(k=8): "targets.Proposals(k=8, score='local')",
    targets.Reverse(nn.Linear(3, 2), torch.optim.SGD, lr=0.2): "targets.Reverse(Linear(in_features=3, ",
    targets.Limited(targets.Gradient(), [0]): "targets.Limited(targets.Gradient(n=1, scale=1.0), features=(0,))",
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_rules_show_their_settings_on_one_line(rule: zk.StepTheta) -> None:
    text = repr(rule)
    assert text.startswith(RULES[rule])
    assert "\n" not in text


def layer() -> Machine:
    module = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    return Machine(module, theta.Gradient(torch.optim.SGD, lr=0.1), targets.Gradient())


def test_machines_show_module_rules_and_criterion_on_one_line() -> None:
    machine = Machine(nn.Linear(3, 2), theta.Delta(lr=0.1), targets.Null(), zk.cross_entropy)
    assert repr(machine) == (
        "Machine(Linear(in_features=3, out_features=2, bias=True), theta.Delta(Adam, lr=0.1), targets.Null(), "
        "criterion=cross_entropy)"
    )
    machine.theta.optimizer.param_groups[0]["lr"] = 0.05
    assert "lr=0.05" in repr(machine)


def test_containers_recorders_and_optimizers_print_on_one_line() -> None:
    nets = [
        Chain(layer(), layer()),
        Graph({"a": Node(layer(), "x"), "y": Node(layer(), "a")}, outputs=("y",)),
        Parallel(layer(), layer()),
        Swap(layer(), layer()),
        Machine(modules.Trees(3, 2), theta.Fit(rows=4), targets.Null()),
    ]
    for net in nets:
        assert "\n" not in repr(net)
        assert "\n" not in repr(zk.Optimizer(net))
        with zk.Recorder(net) as recorder:
            assert "\n" not in repr(recorder)
    assert repr(nets[0]) == "Chain(0: Sequential, 1: Sequential)"
    plain = nn.Sequential(layer(), nn.Linear(3, 2))
    optimizer = zk.Optimizer(plain, lambda params: torch.optim.Adam(params, lr=0.2))
    assert "theta.Gradient(SGD, lr=0.1)" in repr(optimizer)
    assert "Adam, lr=0.2 for the plain parameters" in repr(optimizer)
