"""An ordinary Sequential becomes a chain of machines."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tansaku
import zenkai_core as zk
from zenkai_core import Chain, Machine, convert
from zenkai_core.convert import Rules


class Backwards(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in reversed(list(self)):
            x = layer(x)
        return x


def gradient(module: nn.Module) -> Rules:
    return zk.theta.Gradient(torch.optim.SGD, lr=0.1), zk.targets.Gradient()


def delta(module: nn.Module) -> Rules:
    return zk.theta.Delta(torch.optim.SGD, lr=0.1), zk.targets.Gradient()


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 4), nn.Sigmoid(), nn.Linear(4, 3)
    )


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("group", [False, True, (4, 2, 1)])
@pytest.mark.parametrize("explicit", [True, False])
def test_under_gradient_rules_it_is_the_plain_model(group: Any, explicit: bool) -> None:
    plain, ours = model(), model()
    net = convert(ours, gradient, zk.cross_entropy, group=group)
    optimizer, steps = torch.optim.SGD(plain.parameters(), lr=0.1), zk.Optimizer(net)
    for _ in range(5):
        x, labels = torch.randn(8, 2, 3), torch.randint(3, (8,))
        optimizer.zero_grad()
        F.cross_entropy(plain(x), labels).backward()
        optimizer.step()
        if explicit:
            net.learn(x, labels)
        else:
            F.cross_entropy(net(x), labels).backward()
            steps.step()
    for (name, v), w in zip(plain.state_dict().items(), ours.state_dict().values(), strict=True):
        assert torch.allclose(v, w, rtol=0, atol=1e-12), name
    x = torch.randn(3, 2, 3)
    assert torch.equal(net.eval()(x), ours.eval()(x))


def test_the_modules_are_the_very_same() -> None:
    ours = model()
    net = convert(ours, gradient)
    assert [m.module for m in net.machines] == list(ours)
    assert set(net.parameters()) == set(ours.parameters())


def test_a_group_is_a_layer_with_parameters_and_what_follows_it() -> None:
    ours = model()
    kinds = [type(m.module).__name__ for m in convert(ours, gradient, group=True).machines]
    assert kinds == ["Flatten", "Sequential", "Sequential", "Linear"]
    net = convert(ours, gradient, group=True)
    assert [list(m.module) for m in net.machines[1:3]] == [list(ours)[1:4], list(ours)[4:6]]
    assert list(dict(net[1].module.named_children())) == ["1", "2", "3"]


def test_a_position_or_name_goes_before_a_type_and_a_type_before_its_ancestors() -> None:
    called: list[str] = []

    def note(name: str, recipe: Any = gradient) -> Any:
        return lambda m: (called.append(f"{name}:{type(m).__name__}"), recipe(m))[1]

    rules = {
        nn.Module: note("any"),
        nn.Linear: note("linear"),
        "4": note("name"),
        -1: note("last", delta),
        nn.ReLU: note("relu", lambda m: (zk.theta.Null(), zk.targets.SearchX(tansaku.HillClimb(k=4, std=0.1)))),
    }
    net = convert(model(), rules, zk.cross_entropy, loss="sum", scale=2.0, lmode="step_x")
    assert called == ["linear:Linear", "any:BatchNorm1d", "relu:ReLU", "name:Linear", "last:Linear"]
    assert isinstance(net[-1].theta, zk.theta.Delta)
    assert isinstance(net[3].x, zk.targets.SearchX)
    assert isinstance(net[5].theta, zk.theta.Null)
    assert [m.criterion for m in net.machines] == [zk.sse] * 6 + [zk.cross_entropy]
    assert (net.loss, net.scale, net.lmode) == ("sum", 2.0, "step_x")


def test_a_recipe_may_give_a_machine_or_three_rules_and_a_machine_in_the_model_stays() -> None:
    own = Machine(nn.Linear(3, 2), *gradient(nn.Identity()), zk.cross_entropy)
    inner = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    climb = tansaku.HillClimb(k=4, std=0.1)
    net = convert(
        nn.Sequential(nn.Linear(4, 4), inner, own),
        {
            nn.Sequential: lambda m: convert(m, gradient),
            nn.Linear: lambda m: (*delta(m), zk.targets.SearchY(climb)),
        },
        group=True,
    )
    assert isinstance(net[0].y, zk.targets.SearchY)
    assert isinstance(net[1], Chain)
    assert net[2] is own
    x, labels = torch.randn(20, 4), torch.randint(2, (20,))
    first = net.learn(x, labels)
    for _ in range(20):
        last = net.learn(x, labels)
    assert last < first


def test_the_second_order_and_a_deepcopy_are_the_chains() -> None:
    net = convert(model(), gradient, zk.cross_entropy, order="accumulate step step_x")
    other = copy.deepcopy(net)
    x, labels = torch.randn(8, 2, 3), torch.randint(3, (8,))
    assert net.order == "accumulate step step_x"
    assert [net.learn(x, labels).item() for _ in range(2)] == [other.learn(x, labels).item() for _ in range(2)]


@pytest.mark.parametrize(
    ("given", "rules", "options", "error", "message"),
    [
        (nn.Linear(1, 1), gradient, {}, TypeError, "expected an nn.Sequential with its own forward, got Linear"),
        (Backwards(nn.ReLU()), gradient, {}, TypeError, "with its own forward, got Backwards"),
        (nn.Sequential(), gradient, {}, ValueError, "a model with layers, got an empty one"),
        (None, gradient(nn.ReLU()), {}, TypeError, "a callable for Module, got tuple: rules serve one machine"),
        (None, {nn.Linear: zk.theta.Null()}, {}, TypeError, "a callable for Linear, got Null"),
        (None, {"first": gradient}, {}, ValueError, r"a layer among \['0', '1'.*, got 'first'"),
        (None, {7: gradient}, {}, ValueError, "got 7: name one"),
        (None, {int: gradient}, {}, ValueError, "got <class 'int'>"),
        (None, {nn.Linear: gradient}, {}, ValueError, r"a rule for layer '2' \(BatchNorm1d\), got none"),
        (None, lambda m: zk.theta.Null(), {}, TypeError, r"a machine for layer '1' \(Linear\), got Null"),
        (None, lambda m: gradient(m)[::-1], {}, TypeError, r"got \(Gradient, Gradient\)"),
        (
            None,
            {nn.ReLU: gradient, nn.Module: gradient},
            {},
            TypeError,
            r"layer '3' \(ReLU\): .* 'parameters', got ReLU",
        ),
        (
            None,
            delta,
            {"group": True},
            TypeError,
            r"convert, layer '1' \(Linear\): theta.Delta expected .* 'linear'",
        ),
        (
            nn.Sequential(zk.modules.Sign()),
            gradient,
            {},
            TypeError,
            r"layer '0' \(Sign\): targets.Gradient expected",
        ),
        (None, gradient, {"group": (3, 3)}, ValueError, r"share out 7 layers, got \[3, 3\]"),
    ],
)
def test_what_cannot_be_converted_is_refused_with_the_layers_name(
    given: Any, rules: Any, options: dict, error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        convert(model() if given is None else given, rules, **options)


@pytest.mark.usefixtures("float64")
def test_a_layer_at_two_places_is_one_machine_with_shared_weights() -> None:
    torch.manual_seed(0)
    shared, tanh = nn.Linear(4, 4), nn.Tanh()
    ours = nn.Sequential(shared, tanh, shared, tanh, nn.Linear(4, 2))
    plain = copy.deepcopy(ours)
    net = convert(ours, lambda m: (zk.theta.Gradient(torch.optim.Adam, lr=0.1), zk.targets.Gradient()))
    assert net[0] is net[2]
    assert len(net) == 5
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.1)
    for _ in range(5):
        x, t = torch.randn(6, 4), torch.randn(6, 2)
        optimizer.zero_grad()
        (0.5 * (plain(x) - t).square().sum(1)).mean().backward()
        optimizer.step()
        net.learn(x, t)
    for p, q in zip(plain.parameters(), ours.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=0, atol=1e-12)


def test_one_pair_of_rules_for_two_layers_is_refused() -> None:
    pair = gradient(nn.ReLU())
    with pytest.raises(RuntimeError, match=r"convert, layer '1' \(Linear\): Gradient expected to serve one machine"):
        convert(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), lambda m: pair)


def shared(*after: nn.Module, tied: bool = False) -> tuple[nn.Sequential, nn.Linear]:
    """A linear layer at two places, or two of one weight; something stands behind each."""
    torch.manual_seed(0)
    first = nn.Linear(4, 4)
    again = nn.Linear(4, 4) if tied else first
    again.weight = first.weight
    return nn.Sequential(first, nn.Tanh(), again, *after), first


@pytest.mark.parametrize(
    ("layers", "tied", "options", "places"),
    [
        ((), False, {}, ("2", "0")),  # the last machine has a criterion of its own
        ((nn.ReLU(), nn.Linear(4, 3)), False, {"group": True}, ("2", "0")),
        ((nn.Tanh(), nn.Linear(4, 3)), False, {"group": (2, 1, 2)}, ("2", "0")),
        ((nn.Tanh(), nn.Linear(4, 3)), True, {"group": True}, ("2", "0")),
    ],
)
def test_parameters_that_two_machines_would_move_are_refused(
    layers: tuple[nn.Module, ...], tied: bool, options: dict[str, Any], places: tuple[str, str]
) -> None:
    message = rf"got those of layer '{places[0]}' \(Linear\) in another, with layer '{places[1]}', too.* group both"
    with pytest.raises(ValueError, match=message):
        convert(shared(*layers, tied=tied)[0], gradient, zk.cross_entropy, **options)


def test_fitted_members_that_two_machines_would_move_are_refused() -> None:
    trees = zk.modules.Trees(3, 3)
    model = nn.Sequential(trees, nn.Linear(3, 3), trees)

    def rules(m: nn.Module) -> tuple[zk.StepTheta, zk.StepX]:
        return (gradient(m)[0] if isinstance(m, nn.Linear) else zk.theta.Fit()), zk.targets.Null()

    with pytest.raises(ValueError, match=r"layer '2' \(Trees\) in another, with layer '0', too"):
        convert(model, rules, zk.cross_entropy)


@pytest.mark.usefixtures("float64")
def test_a_shared_layer_that_is_the_last_but_identity_is_one_machine() -> None:
    ours, layer = shared(nn.Identity())
    plain = copy.deepcopy(ours)
    net = convert(ours, lambda m: (zk.theta.Gradient(torch.optim.SGD, lr=0.1), zk.targets.Gradient()), zk.cross_entropy)
    assert net[0] is net[2]
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    for _ in range(3):
        x, t = torch.randn(6, 4), torch.randint(4, (6,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(plain(x), t).backward()
        optimizer.step()
        net.learn(x, t)
    torch.testing.assert_close(layer.weight, plain[0].weight, rtol=0, atol=1e-12)


def test_one_of_two_machines_may_hold_a_shared_layer_still() -> None:
    model, layer = shared()
    rules = {0: gradient, 2: lambda m: (zk.theta.Null(), zk.targets.Gradient())}
    net = convert(model, rules, zk.cross_entropy)
    before = layer.weight.detach().clone()
    net.learn(torch.randn(6, 4), torch.randint(4, (6,)))
    assert not torch.equal(before, layer.weight)
