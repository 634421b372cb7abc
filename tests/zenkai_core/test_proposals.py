"""Targets among the stochastic passes of the layer below."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import tansaku
from zenkai_core import IO, Chain, LearningMachine, Machine, State, StepTheta, modules, sse, targets, theta
from zenkai_core.testing import check_machine


def network(rule: targets.Proposals) -> Chain:
    torch.manual_seed(0)
    below = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5))
    return Chain(
        Machine(below, theta.Gradient(torch.optim.Adam, lr=0.01), targets.Null()),
        Machine(nn.Linear(6, 2), theta.Delta(torch.optim.SGD, lr=0.05), rule),
    ).double()


def told(net: Chain, n: int = 9) -> tuple[State, Tensor]:
    """A pass with its targets: the state of the upper machine, and its target."""
    state, t = State(), torch.randn(n, 2, dtype=torch.float64)
    net.remember(IO(torch.randn(n, 4, dtype=torch.float64)), state)
    net.accumulate(state.inputs, IO(t), state)
    return state, t


def test_every_row_gets_the_best_of_its_passes_found_one_by_one() -> None:
    """Against a plain loop over passes and rows; the pass's own output is a candidate too."""
    rule = targets.Proposals(k=7, seed=3)
    net = network(rule)
    state, t = told(net)
    below, upper = net.machines
    noise = targets.Proposals(k=7, seed=3).noise.next()
    passes = below.propose(state.sub("0"), 7, noise).f
    own = state.sub("1").inputs.f.detach()
    found = state.sub("0").t
    assert found is not None
    for row in range(9):
        best, cost = own[row], sse(upper.frozen(IO(own[row : row + 1]), state.sub("1")), IO(t[row : row + 1]))
        for i in range(7):
            other = sse(upper.frozen(IO(passes[i, row : row + 1]), state.sub("1")), IO(t[row : row + 1]))
            if other < cost:
                best, cost = passes[i, row], other
        assert torch.equal(found.f[row], best)
    assert 0 < float(rule.moved) <= 1  # type: ignore[arg-type]


def test_ties_keep_the_outputs_of_the_pass_itself() -> None:
    rule = targets.Proposals(k=16, seed=0)
    net = network(rule)
    nn.init.zeros_(net.machines[1].module.weight)  # whatever comes in, the cost is the same
    state, _ = told(net)
    assert torch.equal(state.sub("0").t.f, state.sub("1").inputs.f.detach())  # type: ignore[union-attr]
    assert rule.moved == 0


def test_the_network_score_asks_the_layers_above() -> None:
    """With no target for the middle layer, only the network's loss can tell the passes apart."""
    moved = {}
    for score in ("local", "network"):
        torch.manual_seed(0)
        rule = targets.Proposals(k=16, score=score, seed=0)  # type: ignore[arg-type]
        net = Chain(
            Machine(nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5)), theta.Null(), targets.Null()),
            Machine(nn.Linear(6, 3), theta.Null(), rule),
            Machine(nn.Linear(3, 2), theta.Null(), targets.Null()),
        )
        net.learn(torch.randn(20, 4), torch.randn(20, 2))
        moved[score] = float(rule.moved)  # type: ignore[arg-type]
    assert moved["local"] == 0
    assert moved["network"] > 0.5


def test_the_weighted_mean_lies_between_the_passes() -> None:
    rule = targets.Proposals(k=5, reduce=tansaku.WeightedMean("softmax", temperature=0.5), seed=1)
    net = network(rule)
    state, t = told(net)
    noise = targets.Proposals(k=5, seed=1).noise.next()
    passes = net.machines[0].propose(state.sub("0"), 5, noise).f
    costs = torch.stack([sse(net.machines[1].frozen(IO(p), state.sub("1")), IO(t)) for p in passes])
    expected = ((-costs / 0.5).softmax(0).unsqueeze(-1) * passes).sum(0)
    torch.testing.assert_close(state.sub("0").t.f, expected)  # type: ignore[union-attr]


def test_chunks_do_not_change_the_answer() -> None:
    found = [told(network(targets.Proposals(k=8, chunk=chunk, seed=0)))[0].sub("0").t for chunk in (None, 3)]
    assert torch.equal(found[0].f, found[1].f)  # type: ignore[union-attr]


def test_it_conforms_and_learns_by_proposals_alone() -> None:
    def make() -> tuple[LearningMachine, Tensor, Tensor]:
        torch.manual_seed(0)
        below = nn.Sequential(nn.Linear(4, 6), modules.GaussianNoise(0.5))
        net = Chain(
            Machine(below, theta.Gradient(torch.optim.Adam, lr=0.03), targets.Null()),
            Machine(nn.Linear(6, 2), theta.Null(), targets.Proposals(k=16)),
        )
        x = torch.randn(12, 4)
        return net, x, x @ torch.randn(4, 2)

    check_machine(make)
    net, x, t = make()
    before = net.test(x, t)
    for _ in range(200):
        net.learn(x, t)
    assert net.test(x, t) < 0.2 * before


def test_it_works_with_every_rule_for_theta() -> None:
    rules: list[StepTheta] = [
        theta.Gradient(torch.optim.Adam, lr=0.01),
        theta.Delta(torch.optim.Adam, lr=0.01),
        theta.Search(tansaku.HillClimb(k=4, std=0.1)),
        theta.LeastSquares(0.1),
        theta.Null(),
    ]
    for rule in rules:
        net = network(targets.Proposals(k=8, seed=0))
        below, upper = net.machines
        pair = Chain(below, Machine(upper.module, rule, targets.Proposals(k=8, seed=0))).double()
        state, _ = told(pair)
        pair.step(state.inputs, state.t, state)  # type: ignore[arg-type]
        assert 0 < float(pair[1].x.moved) <= 1


def test_a_layer_below_without_noise_warns_with_the_remedy() -> None:
    below = Machine(nn.ReLU(), theta.Null(), targets.Null())
    net = Chain(below, Machine(nn.Linear(4, 2), theta.Null(), targets.Proposals(k=2, seed=0)))
    for _ in range(19):
        net.learn(torch.ones(3, 4), torch.zeros(3, 2))
    with pytest.warns(UserWarning, match=r"moved no row in its first 20 calls.*give the layer below dropout or noise"):
        net.learn(torch.ones(3, 4), torch.zeros(3, 2))


def test_what_cannot_propose_is_named_with_the_remedy() -> None:
    alone = Machine(nn.Linear(4, 2), theta.Null(), targets.Proposals())
    state = State()
    alone.remember(IO(torch.zeros(3, 4)), state)
    with pytest.raises(RuntimeError, match=r"expected a layer below to propose candidates, got the bottom"):
        alone.step_x(state.inputs, IO(torch.zeros(3, 2)), state)

    class Same(LearningMachine):
        def forward_nn(self, x: IO, state: State) -> IO:
            return x

    net = Chain(Same(), Machine(nn.Linear(4, 2), theta.Null(), targets.Proposals()))
    with pytest.raises(TypeError, match=r"expected a Machine below, got Same: give it a method"):
        net.learn(torch.zeros(3, 4), torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"targets\.Proposals expected k >= 1, got 0"):
        targets.Proposals(k=0)


def test_proposals_that_differ_from_the_pass_by_rounding_alone_move_no_row() -> None:
    torch.manual_seed(0)
    below = Machine(nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32)), theta.Null(), targets.Null())
    net = Chain(below, Machine(nn.Linear(32, 2), theta.Delta(), targets.Proposals(k=8)))
    net.learn(torch.randn(50, 64) * 3 + 1, torch.randn(50, 2))
    assert net[1].x.moved == 0  # type: ignore[union-attr]
