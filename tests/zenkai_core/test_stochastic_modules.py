"""Dropout with a mask that can be held, and the mean of several stochastic passes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from zenkai_core import IO, Machine, State, modules, targets, theta
from zenkai_core.testing import check_machine


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
def test_the_mean_over_masks_is_what_evaluation_gives(p: float) -> None:
    """The defect `1 / 1 - p` gives 1 - p of it, 0.56 at p = 0.25."""
    torch.manual_seed(0)
    layer, x = modules.FreezableDropout(p), torch.full((200_000,), 3.0)
    error = 3 * (p / (1 - p) / 200_000) ** 0.5
    assert abs(layer(x).mean() - layer.eval()(x).mean()) < 5 * error
    assert torch.equal(layer.eval()(x), x)


def test_values_are_zero_with_probability_p_or_divided_by_the_rest() -> None:
    torch.manual_seed(0)
    y = modules.FreezableDropout(0.25)(torch.ones(100_000))
    assert sorted(set(y.tolist())) == pytest.approx([0, 4 / 3])
    assert (y == 0).float().mean() == pytest.approx(0.25, abs=0.007)  # 5 standard errors


def test_a_frozen_mask_is_used_until_it_is_unfrozen() -> None:
    torch.manual_seed(0)
    layer, x = modules.FreezableDropout(0.5), torch.randn(6, 20)
    assert not torch.equal(layer(x), layer(x))
    layer.freeze()
    first = layer(x)
    layer.eval()(x)
    assert torch.equal(layer.train()(x), first)
    assert torch.equal(layer(2 * x), 2 * first)
    assert torch.equal(copy.deepcopy(layer)(x), first)
    layer.unfreeze()
    assert not torch.equal(layer(x), first)
    layer.freeze()
    assert not torch.equal(layer(x), first)


def test_copies_of_the_rows_get_the_frozen_mask_once_each() -> None:
    layer, x = modules.FreezableDropout(0.5).freeze(), torch.randn(4, 5)
    y = layer(x)
    assert torch.equal(layer(x.repeat(3, 1)), y.repeat(3, 1))
    with pytest.raises(ValueError, match=r"expected rows \[4, 5\], or whole copies .* got \[6, 5\]: unfreeze\(\)"):
        layer(torch.randn(6, 5))
    with pytest.raises(ValueError, match=r"got \[4, 7\]"):
        layer(torch.randn(4, 7))
    with pytest.raises(ValueError, match=r"FreezableDropout expected p in \[0, 1\), got 1\.0"):
        modules.FreezableDropout(1.0)


def test_the_gradient_of_a_frozen_mask_is_the_mask() -> None:
    layer = modules.FreezableDropout(0.5).freeze()
    x = torch.ones(3, 4, requires_grad=True)
    y = layer(x)
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(grad, y.detach())


def test_a_machine_replays_and_proposes_with_it_as_with_torchs_dropout() -> None:
    torch.manual_seed(0)
    machine = Machine(nn.Sequential(nn.Linear(4, 8), modules.FreezableDropout(0.5)), theta.Null(), targets.Null())
    x, state = IO(torch.randn(5, 4)), State()
    y = machine.remember(x, state)
    assert torch.equal(machine.replay(x, state).f, y.f)
    assert torch.equal(machine.frozen(x, state).f, machine.module[0](x.f))
    passes = machine.propose(state, 50, torch.Generator().manual_seed(0)).f
    assert (passes == 0).any(0).all()
    machine.module[1].freeze()
    y = machine.remember(x, state)
    passes = machine.propose(state, 3, torch.Generator().manual_seed(0)).f  # a product of 15 rows, y one of 5
    torch.testing.assert_close(passes, y.f.detach().expand(3, 5, 8))
    assert torch.equal(passes == 0, (y.f == 0).expand(3, 5, 8))


def test_a_machine_with_a_frozen_or_a_free_mask_conforms() -> None:
    for frozen in (False, True):

        def make(frozen: bool = frozen) -> tuple[Machine, torch.Tensor, torch.Tensor]:
            dropout = modules.FreezableDropout(0.3)
            module = nn.Sequential(nn.Linear(4, 3), dropout.freeze() if frozen else dropout)
            return (
                Machine(module, theta.Gradient(torch.optim.Adam, lr=0.02), targets.Gradient()),
                torch.randn(12, 4),
                torch.randn(12, 3),
            )

        if frozen:  # a mask begins with the first pass, and the row counts of some claims differ
            machine, x, t = make()
            costs = [float(machine.learn(x, t)) for _ in range(50)]
            assert costs[-1] < costs[0]
            assert sorted(costs, reverse=True) == costs
        else:
            check_machine(make)


# ---------------------------------------------------------------------------------------- the mean of several passes
def test_stochastic_passes_have_dropouts_mean_and_a_kth_of_its_variance() -> None:
    torch.manual_seed(0)
    for training in (True, False):
        layer = modules.Stochastic(nn.Dropout(0.5), k=10).train(training)
        y = layer(torch.ones(20_000))
        assert y.mean() == pytest.approx(1.0, abs=0.012)  # 5 standard errors
        assert y.var() == pytest.approx(0.1, rel=0.06)


def test_the_mean_is_that_of_the_passes_one_by_one() -> None:
    layer, x = modules.Stochastic(modules.GaussianNoise(1.0), k=3), torch.randn(5, 2)
    torch.manual_seed(1)
    passes = layer.votes(x)
    torch.manual_seed(1)
    torch.testing.assert_close(layer(x), passes.mean(0))
    assert passes.shape == (3, 5, 2)
    torch.manual_seed(1)
    assert torch.equal(passes, x + torch.randn(15, 2).view(3, 5, 2))


def test_a_machine_of_stochastic_passes_learns() -> None:
    torch.manual_seed(0)
    module = modules.Stochastic(nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.2)), k=16)
    machine = Machine(module, theta.Gradient(torch.optim.Adam, lr=0.02), targets.Gradient())
    x = torch.randn(30, 4)
    t = x @ torch.randn(4, 3)
    first = machine.learn(x, t)
    for _ in range(200):
        last = machine.learn(x, t)
    assert last < 0.2 * first


def test_freezable_dropout_keeps_its_rate_in_bfloat16() -> None:
    torch.manual_seed(0)
    zeros = modules.FreezableDropout(0.002)(torch.ones(1000, 1000, dtype=torch.bfloat16)) == 0
    assert abs(zeros.float().mean().item() - 0.002) < 0.0003
