"""Fuzzy relations: or of ands, and of ors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import tansaku
from zenkai_core import Chain, Machine, modules, targets, theta
from zenkai_core.testing import check_machine

KINDS = [modules.MaxMin, modules.MinMax]


def slow(kind: type[nn.Module], x: Tensor, w: Tensor) -> Tensor:
    """The definition, number by number."""
    inner, outer = (min, max) if kind is modules.MaxMin else (max, min)
    rows = [
        [outer(inner(float(row[i]), float(w[i, j])) for i in range(w.shape[0])) for j in range(w.shape[1])] for row in x
    ]
    return torch.tensor(rows)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_definition_number_by_number(float64: None, kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    layer, x = kind(5, 3), torch.rand(20, 5)
    assert torch.equal(layer(x), slow(kind, x, layer.weight.detach()))


def test_the_two_are_dual(float64: None) -> None:
    """De Morgan: not and-of-ors is or-of-ands of what is not."""
    a, b = modules.MaxMin(6, 4), modules.MinMax(6, 4)
    b.weight.data = 1 - a.weight.data
    x = torch.rand(30, 6)
    torch.testing.assert_close(1 - b(x), a(1 - x), rtol=0, atol=1e-15)


@pytest.mark.parametrize("kind", KINDS)
def test_crisp_inputs_and_weights_are_boolean_logic(kind: type[nn.Module]) -> None:
    layer = kind(4, 3)
    layer.weight.data = (torch.rand(4, 3) > 0.5).float()
    x = torch.rand(50, 4) > 0.5
    w = layer.weight.bool()
    pairs = x.unsqueeze(2) & w if kind is modules.MaxMin else x.unsqueeze(2) | w
    expected = pairs.any(1) if kind is modules.MaxMin else pairs.all(1)
    assert torch.equal(layer(x.float()), expected.float())


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_the_pair_that_decides(float64: None, kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    layer = kind(5, 3)
    assert torch.autograd.gradcheck(layer, torch.rand(7, 5, requires_grad=True))
    layer.weight.data.clamp_(0.05, 0.95)
    x = torch.rand(7, 5)
    grad = torch.autograd.functional.jacobian(
        lambda w: torch.func.functional_call(layer, {"weight": w}, (x,)), layer.weight.detach()
    )
    step = 1e-7
    for i in range(5):
        for j in range(3):
            moved = layer.weight.detach().clone()
            moved[i, j] += step
            numeric = (torch.func.functional_call(layer, {"weight": moved}, (x,)) - layer(x)) / step
            torch.testing.assert_close(grad[:, :, i, j], numeric.detach(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_count_as_degrees_wherever_a_step_has_taken_them(kind: type[nn.Module]) -> None:
    layer, x = kind(3, 2), torch.rand(9, 3)
    layer.weight.data = torch.tensor([[-0.5, 2.0], [0.3, 0.7], [1.0, 0.0]])
    assert layer.degrees.min() == 0
    assert layer.degrees.max() == 1
    torch.testing.assert_close(layer(x), slow(kind, x, layer.weight.detach().clamp(0, 1)), rtol=0, atol=1e-7)


def test_only_a_gradient_that_leads_back_inside_reaches_a_weight_at_its_bound() -> None:
    layer = modules.MaxMin(2, 2)
    layer.weight.data = torch.tensor([[-0.5, 2.0], [0.0, 1.0]])
    for sign, expected in ((1.0, [[0, 1], [0, 1]]), (-1.0, [[-1, 0], [-1, 0]])):
        (grad,) = torch.autograd.grad(layer.degrees.sum() * sign, layer.weight)
        assert grad.tolist() == expected


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_by_its_subgradient_and_by_search(kind: type[nn.Module]) -> None:
    rules = {
        "gradient": lambda: theta.Gradient(torch.optim.Adam, lr=0.02),
        "search": lambda: theta.Search(tansaku.HillClimb(k=32, std=0.1, bounds=(0.0, 1.0))),
    }
    for rule in rules.values():

        def make(rule: object = rule) -> tuple[Machine, Tensor, Tensor]:
            torch.manual_seed(0)
            x, other = torch.rand(40, 4), kind(4, 2)
            search = targets.SearchX(tansaku.HillClimb(k=8, std=0.1, bounds=(0.0, 1.0)))
            return Machine(kind(4, 2), rule(), search), x, other(x).detach()  # type: ignore[operator]

        check_machine(make)
        machine, x, t = make()
        first = machine.learn(x, t)
        for _ in range(150):
            last = machine.learn(x, t)
        assert last < 0.5 * first


def test_stacked_relations_learn_by_searched_targets() -> None:
    """Each layer's target is found by a search over its outputs, scored by the network's loss."""

    def make() -> tuple[Chain, Tensor, Tensor]:
        torch.manual_seed(0)

        def layer(i: int, o: int) -> Machine:
            own = targets.SearchY(
                tansaku.HillClimb(k=32, std=0.1, adapt=False, antithetic=True),
                reduce=tansaku.WeightedMean("centred", step=100.0),
            )
            return Machine(modules.MaxMin(i, o), theta.Gradient(torch.optim.Adam, lr=0.02), targets.Null(), y=own)

        x, true = torch.rand(60, 4), nn.Sequential(modules.MaxMin(4, 5), modules.MaxMin(5, 2))
        return Chain(layer(4, 6), layer(6, 2)), x, true(x).detach()

    check_machine(make)
    net, x, t = make()
    before = net.test(x, t)
    for _ in range(150):
        net.learn(x, t)
    assert net.test(x, t) < 0.1 * before


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_sizes_say_the_remedy(kind: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match=f"{kind.__name__} expected inputs and outputs >= 1, got 0 and 3"):
        kind(0, 3)
    with pytest.raises(ValueError, match=r"expected inputs \[n, 4\], got \[2, 3\]: flatten the rows"):
        kind(4, 1)(torch.rand(2, 3))
