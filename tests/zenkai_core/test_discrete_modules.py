"""Steps, signs and choices, with and without a straight-through gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import tansaku
from zenkai_core import Chain, Machine, cross_entropy, modules, targets, theta
from zenkai_core.testing import check_machine

POINTS = [-2.0, -1.0, -0.5, -0.0, 0.0, 0.3, 1.0, 1.5]


def pulled(module: nn.Module, x: Tensor, grad: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(module(leaf), leaf, grad)
    return found


@pytest.mark.parametrize("kind", [modules.Step, modules.StepSTE])
def test_a_step_is_one_from_zero_on(kind: type[nn.Module]) -> None:
    assert kind()(torch.tensor(POINTS)).tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    assert kind()(torch.tensor(POINTS, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize(("step", "sign"), [(modules.Step, modules.Sign), (modules.StepSTE, modules.SignSTE)])
def test_a_step_is_half_a_sign_plus_a_half(step: type[nn.Module], sign: type[nn.Module]) -> None:
    x = torch.cat([torch.randn(1000), torch.tensor(POINTS)])
    assert torch.equal(step()(x), sign()(x) / 2 + 0.5)


@pytest.mark.parametrize("kind", [modules.StepSTE, modules.SignSTE])
def test_the_straight_through_gradient_passes_inside_the_window_only(kind: type[nn.Module]) -> None:
    x, grad = torch.tensor(POINTS), torch.arange(1.0, 9.0)
    assert pulled(kind(), x, grad).tolist() == [0, 2, 3, 4, 5, 6, 7, 0]
    assert torch.equal(pulled(kind(float("inf")), x, grad), grad)


@pytest.mark.parametrize("kind", [modules.Argmax, modules.ArgmaxSTE])
def test_a_choice_is_the_one_hot_of_the_first_largest_class(kind: type[nn.Module]) -> None:
    x = torch.tensor([[[1.0, 0.0], [3.0, 2.0], [3.0, 2.0]]])  # [n, classes, m]: a tie in each of two choices
    assert kind()(x).tolist() == [[[0, 0], [1, 1], [0, 0]]]


def test_the_straight_through_choice_has_the_gradient_of_a_softmax(float64: None) -> None:
    x, grad = torch.randn(5, 4, 3), torch.randn(5, 4, 3)
    for temperature in (1.0, 0.3):
        leaf = x.clone().requires_grad_()
        (expected,) = torch.autograd.grad((leaf / temperature).softmax(1), leaf, grad)
        torch.testing.assert_close(pulled(modules.ArgmaxSTE(temperature), x, grad), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [modules.StepSTE, modules.SignSTE, modules.ArgmaxSTE])
def test_a_straight_through_unit_works_under_vmap(kind: type[nn.Module]) -> None:
    x = torch.randn(3, 5, 4)
    grads = torch.func.vmap(torch.func.grad(lambda v: (kind()(v) * x[0]).sum()))(x)
    torch.testing.assert_close(grads, torch.stack([pulled(kind(), v, x[0]) for v in x]))  # a softmax of another shape


@pytest.mark.parametrize("kind", [modules.Step, modules.Sign, modules.Argmax])
def test_a_gradient_rule_refuses_a_unit_without_one(kind: type[nn.Module]) -> None:
    with pytest.raises(TypeError, match=f"'differentiable', got Sequential: {kind.__name__} has no gradient"):
        Machine(nn.Sequential(nn.Linear(2, 2), kind()), theta.Gradient(), targets.Null())
    assert not kind()(torch.randn(2, 2, requires_grad=True)).requires_grad


def test_settings_out_of_range_say_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"StepSTE expected a positive width, got 0: 1\.0 is usual"):
        modules.StepSTE(0)
    with pytest.raises(ValueError, match="ArgmaxSTE expected a positive temperature, got -1"):
        modules.ArgmaxSTE(-1)


def searched(*hidden: nn.Module) -> Chain:
    """Units without a gradient between two linear layers, every target found by a search."""
    wide = targets.SearchY(
        tansaku.HillClimb(k=32, std=0.3, adapt=False, antithetic=True),
        reduce=tansaku.WeightedMean("centred", step=0.3**-2),
        relative=True,
    )
    top = targets.SearchY(tansaku.HillClimb(k=16, std=0.5))
    return Chain(
        Machine(nn.Linear(4, 16), theta.Delta(torch.optim.Adam, lr=0.02), targets.Null(), y=wide),
        Machine(nn.Sequential(*hidden), theta.Null(), targets.Null()),
        Machine(nn.Linear(16, 2), theta.Delta(torch.optim.Adam, lr=0.02), targets.Null(), cross_entropy, y=top),
    )


@pytest.mark.parametrize("kind", [modules.Step, modules.Sign])
def test_units_without_a_gradient_learn_by_search(kind: type[nn.Module]) -> None:
    """An exclusive or of two inputs' signs, of which a linear layer gets half right."""

    def make() -> tuple[Chain, Tensor, Tensor]:
        torch.manual_seed(0)
        x = torch.randn(64, 4)
        return searched(kind()), x, (x[:, 0] * x[:, 1] > 0).long()

    check_machine(make)
    net, x, t = make()
    for _ in range(300):
        net.learn(x, t)
    assert (net(x).argmax(1) == t).float().mean() > 0.9


@pytest.mark.parametrize("kind", [modules.StepSTE, modules.ArgmaxSTE])
def test_straight_through_units_learn_by_the_gradient(kind: type[nn.Module]) -> None:
    def make() -> tuple[Machine, Tensor, Tensor]:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(4, 16), kind(), nn.Linear(16, 2))
        x = torch.randn(64, 4)
        rule = theta.Gradient(torch.optim.Adam, lr=0.02)
        return Machine(module, rule, targets.Gradient(), cross_entropy), x, (x[:, 0] > 0).long()

    check_machine(make)
    machine, x, t = make()
    for _ in range(100):
        machine.learn(x, t)
    assert (machine(x).argmax(1) == t).float().mean() > 0.95
