from __future__ import annotations

import pytest
import torch
from sklearn.tree import DecisionTreeRegressor
from torch import Tensor, nn

import zenkai_core as zk
from zenkai_core import Machine
from zenkai_core.modules import Estimators, PerOutput, Trees, voters
from zenkai_core.modules.fitted import fingerprints
from zenkai_core.testing import check_machine


def layer(share: float = 0.5, members: int = 3) -> Machine:
    rule = zk.theta.Fit(lambda: DecisionTreeRegressor(max_depth=5), rows=40, share=share, seed=0)
    return Machine(Trees(4, 2, members=members, out_of_bag=True), rule, zk.targets.Null())


def rows_of_fits(n: int, share: float, fits: int) -> list[set[int]]:
    """The rows that each fit of a rule with seed 0 draws."""
    keys, drawn = zk.NoiseKey(0), []
    for _ in range(fits):
        drawn.append(set(torch.randperm(n, generator=keys.next())[: round(share * n)].tolist()))
        keys.next()  # the estimator's random_state
    return drawn


def test_in_training_a_row_is_answered_by_the_members_that_were_not_fitted_on_it() -> None:
    torch.manual_seed(0)
    m, x, t = layer(), torch.randn(40, 4), torch.randn(40, 2)
    for _ in range(5):
        m.learn(x, t)
    drawn = rows_of_fits(40, 0.5, 5)[-3:]
    votes, y = m.module.votes(x), m.module.train()(x)
    for row in range(40):
        honest = [v for v, seen in zip(votes, drawn, strict=True) if row not in seen] or list(votes)
        assert torch.allclose(y[row], torch.stack([v[row] for v in honest]).mean(0), atol=1e-6)
    assert torch.allclose(m.module.eval()(x), votes.mean(0), atol=1e-6)
    new = torch.randn(9, 4)
    assert torch.allclose(m.module.train()(new), m.module.votes(new).mean(0), atol=1e-6)


def test_a_members_weight_counts_out_of_bag_too() -> None:
    x = torch.randn(30, 4)
    trees = Trees(4, 2, out_of_bag=True)
    for weight in (1.0, 3.0, 5.0):
        trees.add_member(DecisionTreeRegressor(max_depth=2).fit(x.numpy(), torch.randn(30, 2).numpy()), weight)
    trees.note_rows(x)  # the newest has seen them all
    votes = trees.votes(x)
    assert torch.allclose(trees(x), (votes[0] + 3 * votes[1]) / 4, atol=1e-6)


def test_outputs_out_of_bag_tell_how_new_rows_will_fare() -> None:
    torch.manual_seed(0)
    make = lambda n: (torch.randn(n, 4), torch.randn(n, 2))  # noqa: E731 - pure noise: nothing can be learned
    m, (x, t), (new_x, new_t) = layer(members=9), make(200), make(200)
    for _ in range(9):
        m.learn(x, t)
    honest = zk.sse(zk.IO(m.module.train()(x)), zk.IO(t)).mean()
    fooled = zk.sse(zk.IO(m.module.eval()(x)), zk.IO(t)).mean()
    truth = zk.sse(zk.IO(m.module(new_x)), zk.IO(new_t)).mean()
    assert fooled < 0.8 * truth < honest < 1.5 * truth


def test_rows_that_were_noted_are_saved_with_the_members() -> None:
    m, other, x = layer(), layer(), torch.randn(40, 4)
    for _ in range(4):
        m.learn(x, torch.randn(40, 2))
    other.load_state_dict(m.state_dict())
    assert torch.equal(other.module.train()(x), m.module.train()(x))
    assert not torch.equal(m.module.eval()(x), m.module.train()(x))


def test_equal_rows_have_equal_fingerprints_and_others_do_not() -> None:
    x = torch.randn(5000, 7)
    assert len(fingerprints(x).unique()) == 5000
    assert torch.equal(fingerprints(x.flip(0)), fingerprints(x).flip(0))
    assert torch.equal(fingerprints(torch.tensor([[-0.0, 1.0]])), fingerprints(torch.tensor([[0.0, 1.0]])))
    assert fingerprints(torch.tensor([[1.0, 2.0]])) != fingerprints(torch.tensor([[2.0, 1.0]]))


def conforming() -> tuple[Machine, Tensor, Tensor]:
    rule = zk.theta.Fit(lambda: DecisionTreeRegressor(max_depth=3), rows=12, share=0.7)
    module = Trees(4, 3, members=4, out_of_bag=True)
    return Machine(module, rule, zk.targets.Null()), torch.randn(12, 4), torch.randn(12, 4)[:, :3]


def test_a_machine_that_answers_out_of_bag_conforms_but_learns_nothing_from_noise() -> None:
    check_machine(conforming, skip={"learning lowers the mean cost"})


def test_a_layer_out_of_bag_learns_below_a_gradient_machine() -> None:
    torch.manual_seed(0)
    x = torch.randn(300, 4)
    labels = (x[:, 0] * x[:, 1] > 0).long()
    below = Machine(
        Trees(4, 6, members=5, per_output=True, out_of_bag=True),
        zk.theta.Fit(lambda: PerOutput(DecisionTreeRegressor(max_depth=6)), rows=300, share=0.6),
        zk.targets.Null(),
    )
    rule = zk.theta.Gradient(torch.optim.Adam, lr=0.05)
    net = zk.Chain(below, Machine(nn.Linear(6, 2), rule, zk.targets.Gradient(20, scale=0.5), zk.cross_entropy))
    for _ in range(15):
        net.learn(x, labels)
    new = torch.randn(300, 4)
    assert (net.eval()(new).argmax(1) == (new[:, 0] * new[:, 1] > 0)).float().mean() > 0.85


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ValueError, match=r"voters.Mean with out_of_bag, got Sum"):
        Estimators(4, 2, voter=voters.Sum(), out_of_bag=True)
    with pytest.raises(ValueError, match="no limit for a module with out_of_bag"):
        Machine(Estimators(4, 2, out_of_bag=True), zk.theta.Fit(PerOutput, limit=1), zk.targets.Null())
    with pytest.raises(ValueError, match=r"a share in \(0, 1\], got 0"):
        zk.theta.Fit(share=0)
