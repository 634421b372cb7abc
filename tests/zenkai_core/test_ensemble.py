from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import zenkai_core as zk
from zenkai_core import Machine
from zenkai_core.modules import Ensemble, EnsembleVoter, GaussianNoise, Stochastic, voters
from zenkai_core.testing import check_machine


def member() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def test_members_vote_each_for_itself_and_the_voter_answers() -> None:
    net, x = Ensemble(member, n=3), torch.randn(6, 4)
    expected = torch.stack([m(x) for m in net.each])
    assert torch.equal(net.votes(x), expected)
    assert torch.allclose(net(x), expected.mean(0), atol=1e-6)
    majority = Ensemble(member, n=3, voter=voters.Multiclass(3))
    majority.load_state_dict(net.state_dict())
    labels = expected.argmax(2)
    counts = torch.stack([(labels == c).sum(0) for c in range(3)], 1)
    assert torch.allclose(majority(x), counts / 3, atol=1e-6)


def test_the_oldest_leaves_and_exactly_n_stay() -> None:
    net, added = Ensemble(member, n=0, members=2), [member() for _ in range(5)]
    for i, m in enumerate(added):
        net.add(m)
        assert len(net) == min(i + 1, 2) == len(net.weight)
    assert [m is a for m, a in zip(net.each, added[3:], strict=True)] == [True, True]


def test_a_weight_says_how_much_a_member_counts() -> None:
    net, x = Ensemble(member, n=0, members=3), torch.randn(6, 4)
    a, b = member(), member()
    net.add(a)
    net.add(b, weight=3.0)
    assert torch.allclose(net(x), (a(x) + 3 * b(x)) / 4, atol=1e-6)


def test_a_state_dict_brings_its_number_of_members() -> None:
    net, x = Ensemble(member, n=1, members=4), torch.randn(6, 4)
    net.add(member(), weight=2.0)
    net.add(member())
    for before in (0, 1, 4):
        other = Ensemble(member, n=before, members=4)
        other.load_state_dict(net.state_dict())
        assert torch.equal(other(x), net(x))


def test_stochastic_passes_differ_in_evaluation_too_and_modes_come_back() -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), GaussianNoise(0.1))
    net, x = Stochastic(module, k=5).eval(), torch.randn(6, 4)
    votes = net.votes(x)
    assert votes.shape == (5, 6, 8)
    assert not torch.equal(votes[0], votes[1])
    assert not any(m.training for m in net.modules())
    net.k = 7
    assert net.votes(x).shape == (7, 6, 8)


def test_the_mean_of_stochastic_passes_is_the_pass_without_dropout() -> None:
    torch.manual_seed(0)
    net, x = Stochastic(nn.Dropout(0.25), k=4000).eval(), torch.rand(3, 2) + 1
    spread = 2 * (0.25 / 0.75 / 4000) ** 0.5  # of the mean, at values below 2
    assert torch.allclose(net(x), x, atol=5 * spread)


def test_evaluation_leaves_batch_norm_as_it_is_and_training_sees_all_passes() -> None:
    norm = nn.BatchNorm1d(4)
    net, x = Stochastic(nn.Sequential(nn.Dropout(0.5), norm), k=3).eval(), torch.randn(6, 4)
    net(x)
    assert norm.num_batches_tracked == 0
    net.train()
    net(x)
    assert norm.num_batches_tracked == 1


def ensemble() -> tuple[Machine, Tensor, Tensor]:
    module = Ensemble(member, n=2)
    return Machine(module, zk.theta.Gradient(lr=0.01), zk.targets.Gradient()), torch.randn(12, 4), torch.randn(12, 3)


def stochastic() -> tuple[Machine, Tensor, Tensor]:
    module = Stochastic(nn.Sequential(nn.Dropout(0.2), nn.Linear(4, 3)), k=8)
    return Machine(module, zk.theta.Gradient(lr=0.03), zk.targets.Gradient()), torch.randn(12, 4), torch.randn(12, 3)


def test_machines_of_ensembles_conform() -> None:
    check_machine(ensemble)


def test_machines_of_stochastic_passes_conform_though_they_are_stochastic_in_evaluation() -> None:
    check_machine(stochastic)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Ensemble(member, n=3, members=2), ValueError, "got n=3 and members=2"),
        (lambda: Ensemble(member, n=0), ValueError, "got n=0 and members=0"),
        (lambda: Ensemble(member, n=0, members=1)(torch.zeros(2, 4)), RuntimeError, "a member to vote, got none"),
        (lambda: Ensemble(member).add(member(), weight=0.0), ValueError, "a positive number, got 0.0"),
        (lambda: Stochastic(nn.Dropout(), k=0), ValueError, "k >= 1 passes, got 0"),
        (lambda: Stochastic(nn.Linear(2, 2)), TypeError, "with dropout or noise, got Linear without"),
        (lambda: len(EnsembleVoter(1, 1)), NotImplementedError, "override it"),
        (lambda: EnsembleVoter(1, 1).votes(torch.zeros(1, 1)), NotImplementedError, "override it"),
        (lambda: EnsembleVoter(1, 1).add_member(None), NotImplementedError, "override it"),
    ],
)
def test_wrong_arguments_are_refused(make: object, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        make()  # type: ignore[operator]
