"""PyTorch's features with rules that a plain network has no counterpart of; lines of docs/with_pytorch.md."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tansaku
import zenkai_core as zk
from zenkai_core import Chain, Machine

Rule = Callable[[], zk.StepTheta]
SGD: dict[str, Any] = {"lr": 0.05, "momentum": 0.9}


def gradient(**kw: Any) -> zk.StepTheta:
    return zk.theta.Gradient(torch.optim.SGD, **SGD, **kw)


RULES: dict[str, Rule] = {
    "gradient": gradient,
    "three updates": lambda: gradient(n=3),
    "minibatches": lambda: gradient(batch_size=3, seed=0),
    "delta": lambda: zk.theta.Delta(torch.optim.SGD, **SGD),
    "least squares": lambda: zk.theta.LeastSquares(),
    "search": lambda: zk.theta.Search(tansaku.HillClimb(k=4, std=0.1), seed=0),
    "network search": lambda: zk.theta.Search(tansaku.HillClimb(k=4, std=0.1), score="network", seed=0),
    "postponed": lambda: zk.theta.Postponed(gradient(), every=2),
    "filtered": lambda: zk.theta.Filtered(zk.theta.LeastSquares(), torch.optim.SGD, lr=0.5),
    "limited": lambda: zk.theta.Limited(gradient(), {"0.weight": torch.tensor([[True], [False], [True], [True]])}),
    "tree": lambda: zk.theta.Fit(rows=8, seed=0),
}
TARGETS: dict[str, Callable[[], zk.StepX]] = {
    "gradient": zk.targets.Gradient,
    "feedback": lambda: zk.targets.FeedbackAlignment(seed=0),
    "kolen-pollack": lambda: zk.targets.KolenPollack(torch.optim.SGD, seed=0, lr=0.1),
    "least squares": lambda: zk.targets.LeastSquares(),
    "search": lambda: zk.targets.SearchX(tansaku.HillClimb(k=4, std=0.1), seed=0),
    "reverse": lambda: zk.targets.Difference(nn.Linear(4, 3), torch.optim.SGD, std=0.1, seed=0, lr=0.1),
}


def hidden(rule: str = "gradient", target: str = "gradient") -> Machine:
    module: nn.Module = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
    if rule == "tree":
        return Machine(zk.modules.Trees(3, 4), RULES[rule](), zk.targets.Null())
    return Machine(module, RULES[rule](), TARGETS[target]())


def network(rule: str = "gradient", target: str = "gradient") -> nn.Sequential:
    torch.manual_seed(0)
    below = Machine(nn.Linear(3, 3), gradient(), zk.targets.Gradient())
    return nn.Sequential(below, hidden(rule, target), Machine(nn.Linear(4, 2), gradient(), zk.targets.Gradient()))


PAIRS = [(rule, "gradient") for rule in RULES] + [("gradient", target) for target in TARGETS if target != "gradient"]


def batch(i: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(i)
    return torch.randn(8, 3, generator=generator), torch.randn(8, 2, generator=generator)


def state_of(net: nn.Module) -> dict[str, Any]:
    return copy.deepcopy(net.state_dict())


def same(a: Any, b: Any, atol: float = 0.0) -> bool:
    if isinstance(a, Tensor):
        return a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=0, atol=atol, equal_nan=True)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k], atol) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y, atol) for x, y in zip(a, b, strict=True))
    return bool(a == b) or not isinstance(a, (int, float, str))


@pytest.mark.parametrize(("rule", "target"), PAIRS)
def test_the_gradient_of_the_input_alone_lets_no_rule_learn(rule: str, target: str) -> None:
    net = network(rule, target)
    optimizer = zk.Optimizer(net)
    before = state_of(net)
    for call in ("grad", "inputs"):
        x = batch(0)[0].requires_grad_()
        loss = net(x).square().mean()
        if call == "grad":
            torch.autograd.grad(loss, x)
        else:
            loss.backward(inputs=[x])
        assert all(p.grad is None for p in net.parameters())
        optimizer.step()
    after = state_of(net)
    moved = [k for k in before if not k.endswith(".key") and not same(before[k], after[k])]
    assert moved == []
    if rule == "tree":
        assert net[1].theta.pending == 0


@pytest.mark.filterwarnings("ignore:Chain expected a target for every machine")
@pytest.mark.parametrize(("rule", "target"), PAIRS)
def test_backward_to_the_parameters_of_other_layers_lets_a_rule_not_learn(rule: str, target: str) -> None:
    machines = list(network(rule, target))
    for net in (nn.Sequential(*machines), Chain(*machines)):
        optimizer = zk.Optimizer(net)
        before, top = state_of(machines[1]), machines[2].module.weight.clone()
        net(batch(0)[0]).square().mean().backward(inputs=[*machines[2].parameters()])
        optimizer.step()
        after = state_of(machines[1])
        assert [k for k in before if not k.endswith(".key") and not same(before[k], after[k])] == []
        assert not torch.equal(top, machines[2].module.weight)


def train(net: nn.Module, optimizer: zk.Optimizer, factor: Callable[[int], float] = lambda i: 1.0) -> None:
    for i in range(20):
        optimizer.zero_grad()
        x, t = batch(i)
        (F.mse_loss(net(x), t) * factor(i)).backward()
        optimizer.step()


@pytest.mark.parametrize(("rule", "target"), PAIRS)
def test_with_a_scaler_every_rule_learns_as_without(rule: str, target: str) -> None:
    ends = []
    for init in (None, 2.0**10):
        net = network(rule, target)
        scaler = None if init is None else torch.amp.GradScaler("cpu", init_scale=init, growth_interval=4)
        optimizer = zk.Optimizer(net, grad_scale=scaler)
        for i in range(20):
            optimizer.zero_grad()
            x, t = batch(i)
            loss = F.mse_loss(net(x), t)
            if scaler is None:
                loss.backward()
                optimizer.step()
                continue
            scaler.scale(loss).backward()
            if i % 2:
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
        if scaler is not None:
            assert scaler.get_scale() == 2.0**15
        ends.append(state_of(net))
    assert same(*ends, atol=1e-6)


@pytest.mark.parametrize("rule", ["least squares", "tree", "search", "minibatches"])
def test_with_a_number_every_rule_without_gradients_learns_as_without_the_factor(rule: str) -> None:
    ends = []
    for factor in (1.0, 0.25):
        torch.manual_seed(0)
        net = hidden(rule)
        optimizer = zk.Optimizer(net, grad_scale=factor)
        for i in range(20):
            optimizer.zero_grad()
            (net(batch(i)[0]) - 1).square().mean().mul(factor).backward()
            optimizer.step()
        ends.append(state_of(net))
    assert same(*ends, atol=1e-6)


def test_with_a_number_gradients_stay_scaled() -> None:
    grads = []
    for given in (None, 0.25):
        net = network()
        zk.Optimizer(net, grad_scale=given)
        (net(batch(0)[0]).square().mean() * 0.25).backward()
        grads.append([p.grad for p in net.parameters()])
    assert same(*grads, atol=1e-7)


@pytest.mark.parametrize("rule", ["least squares", "tree", "search"])
def test_a_scaler_works_for_a_network_without_gradients_and_skips_its_overflow(rule: str) -> None:
    torch.manual_seed(0)
    net = hidden(rule)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    optimizer = zk.Optimizer(net, grad_scale=scaler)
    before = state_of(net)
    for overflow in (True, False):
        optimizer.zero_grad()
        loss = net(batch(0)[0]).square().mean() * (float("inf") if overflow else 1.0)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        assert scaler.get_scale() == 4.0
        moved = [k for k, v in state_of(net).items() if not k.endswith(".key") and not same(before[k], v)]
        assert bool(moved) is not overflow


@pytest.mark.filterwarnings("ignore:Optimizer.param_groups")
def test_a_scaler_that_the_optimizer_does_not_know_of_is_refused_where_a_rule_would_learn_its_factor() -> None:
    for rule in ("tree", "least squares", "search"):
        net = network(rule)
        optimizer, scaler = zk.Optimizer(net), torch.amp.GradScaler("cpu")
        before = [p.detach().clone() for p in net.parameters()]
        scaler.scale(net(batch(0)[0]).square().mean()).backward()
        with pytest.raises(RuntimeError, match="make it with grad_scale=scaler"):
            scaler.step(optimizer)
        assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_a_factor_that_is_none_is_refused() -> None:
    net = network()
    with pytest.raises(TypeError, match=r"grad_scale as a number or a torch.amp.GradScaler, got str"):
        zk.Optimizer(net, grad_scale="4")  # type: ignore[arg-type]
    for number in (0.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="finite number other than 0"):
            zk.Optimizer(net, grad_scale=number)


@pytest.mark.parametrize("rule", ["gradient", "delta", "postponed", "limited", "three updates"])
@pytest.mark.parametrize("call", ["backward", "learn", "by hand"])
def test_hooks_on_parameters_run_in_every_call(rule: str, call: str) -> None:
    torch.manual_seed(0)
    net = Chain(hidden(rule), Machine(nn.Linear(4, 2), gradient(), zk.targets.Gradient()))
    weight = net[0].module[0].weight
    before, calls = weight.detach().clone(), [0, 0]
    mask = torch.zeros(4, 3)
    mask[0] = 1

    def masked(g: Tensor) -> Tensor:
        calls[0] += 1
        return g * mask

    def after(p: Tensor) -> None:
        calls[1] += 1

    weight.register_hook(masked)
    weight.register_post_accumulate_grad_hook(after)
    x, t = batch(0)
    for _ in range(2):
        if call == "backward":
            F.mse_loss(net(x), t).backward()
            zk.Optimizer(net).step()
        elif call == "learn":
            net.learn(x, t)
        else:
            state = zk.State()
            net.remember(zk.IO(x), state)
            net.step(*net.tell(zk.IO(t), state))
    assert calls == ([6, 6] if rule == "three updates" else [2, 2])
    moved = (weight != before).any(1).tolist()
    assert moved == [True, False, False, False]


@pytest.mark.parametrize(("rule", "target"), PAIRS)
@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_a_copy_with_its_optimizer_goes_on_as_its_original(rule: str, target: str, how: str) -> None:
    net = network(rule, target)
    optimizer = zk.Optimizer(net)
    train(net, optimizer)
    pair = [net, optimizer]
    other, its = copy.deepcopy(pair) if how == "deepcopy" else pickle.loads(pickle.dumps(pair))
    ends = []
    for each, by in ((net, optimizer), (other, its)):
        train(each, by)
        ends.append(state_of(each))
    assert same(*ends)


def test_a_copy_keeps_the_factor_on_the_loss_and_a_copy_of_the_network_alone_has_none() -> None:
    net = hidden("least squares")
    optimizer = zk.Optimizer(net, grad_scale=0.25)
    other, its = copy.deepcopy((net, optimizer))
    assert other.loss_scale.number == 0.25
    assert copy.deepcopy(net).loss_scale is None
    assert its.machines == [other]


@pytest.mark.parametrize("given", ["rmsprop", "adam", "delta", "least squares", "null"])
def test_the_state_of_another_optimiser_or_rule_is_refused_before_anything_is_loaded(given: str) -> None:
    def make(theta: zk.StepTheta) -> Chain:
        torch.manual_seed(0 if isinstance(theta, zk.theta.Gradient) else 1)
        bottom = Machine(nn.Linear(3, 3), gradient(), zk.targets.Gradient())
        return Chain(bottom, Machine(nn.Linear(3, 2), theta, zk.targets.Gradient()))

    thetas: dict[str, zk.StepTheta] = {
        "rmsprop": zk.theta.Gradient(torch.optim.RMSprop, lr=9.0),
        "adam": zk.theta.Gradient(torch.optim.Adam),
        "delta": zk.theta.Delta(torch.optim.SGD, **SGD),
        "least squares": zk.theta.LeastSquares(),
        "null": zk.theta.Null(),
    }
    saved, net = make(thetas[given]), make(gradient())
    for each in (saved, net):
        each.learn(*batch(0))
    with torch.no_grad():
        saved[0].module.weight.add_(1.0)
    before = state_of(net)
    with pytest.raises(ValueError, match=r"got that of .*: make the machine with the rules that were saved, or load"):
        net.load_state_dict(saved.state_dict())
    assert same(before, state_of(net))
    zk.load_weights(net, saved.state_dict())
    assert same([p.detach() for p in net.parameters()], [p.detach() for p in saved.parameters()])
    assert net[1].theta.optimizer.param_groups[0]["lr"] == 0.05
    net.learn(*batch(1))


def test_the_state_of_another_rule_for_targets_is_refused() -> None:
    def make(x: zk.StepX) -> Machine:
        return Machine(nn.Linear(3, 2), zk.theta.Null(), x)

    rules: list[Callable[[], zk.StepX]] = [
        lambda: zk.targets.FeedbackAlignment("random"),
        lambda: zk.targets.FeedbackAlignment("sign"),
        lambda: zk.targets.FeedbackAlignment("fresh"),
        lambda: zk.targets.KolenPollack(torch.optim.SGD, lr=0.1),
        lambda: zk.targets.Difference(nn.Linear(2, 3), torch.optim.SGD, lr=0.1),
    ]
    for i, a in enumerate(rules):
        for j, b in enumerate(rules):
            if i == j:
                make(b()).load_state_dict(make(a()).state_dict())
            else:
                with pytest.raises(ValueError, match="Machine expected the state of targets"):
                    make(b()).load_state_dict(make(a()).state_dict())


def test_weights_of_other_modules_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got none for \['module.weight'\].*unknown \['module.0.weight'\]"):
        zk.load_weights(
            Machine(nn.Linear(3, 2, bias=False), gradient(), zk.targets.Null()),
            Machine(nn.Sequential(nn.Linear(3, 2, bias=False)), gradient(), zk.targets.Null()).state_dict(),
        )


def test_the_state_of_another_torch_optimiser_is_refused() -> None:
    model = nn.Sequential(Machine(nn.Linear(3, 3), gradient(), zk.targets.Gradient()), nn.Linear(3, 2))
    saved = zk.Optimizer(model, lambda p: torch.optim.Adam(p)).state_dict()
    with pytest.raises(ValueError, match="expected the state of SGD, got that of Adam"):
        zk.Optimizer(model, lambda p: torch.optim.SGD(p, lr=0.1)).load_state_dict(saved)


def test_a_tree_under_a_scaler_of_65536_learns_the_outputs_that_it_learns_without() -> None:
    found = []
    x = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
    labels = (x[:, 0] * x[:, 1] > 0).long()
    for factor in (1.0, 65536.0):
        torch.manual_seed(0)
        tree = Machine(zk.modules.Trees(8, 6), zk.theta.Fit(rows=256, seed=0), zk.targets.Null(), scale=5.0)
        net = nn.Sequential(tree, nn.Linear(6, 2))
        scaler = torch.amp.GradScaler("cpu", init_scale=factor)
        optimizer = zk.Optimizer(net, lambda plain: torch.optim.SGD(plain, lr=0.1), grad_scale=scaler)
        scaler.scale(F.cross_entropy(net(x), labels)).backward()
        scaler.step(optimizer)
        scaler.update()
        found.append(net[0](x).detach())
    assert float(found[0].abs().max()) > 0
    assert torch.allclose(*found, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_small_gradients_in_half_precision_survive_where_the_loss_is_scaled(dtype: torch.dtype) -> None:
    grads = []
    for half in (False, True):
        net = network()
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16, enabled=half)
        zk.Optimizer(net, grad_scale=scaler)
        with torch.autocast("cpu", dtype=dtype, enabled=half):
            loss = net(batch(0)[0]).float().square().mean() * 1e-6
        scaler.scale(loss).backward()
        grads.append([p.grad / (2.0**16 if half else 1.0) for p in net.parameters()])
    for a, b in zip(*grads, strict=True):
        assert (a - b).norm() < 0.05 * a.norm()


def test_a_scaler_divides_the_gradients_of_a_parameter_in_two_optimisers_once() -> None:
    ends = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=64.0)):
        torch.manual_seed(0)
        rule = zk.theta.Filtered(zk.theta.Gradient(torch.optim.SGD, lr=1.0), torch.optim.SGD, lr=0.5)
        net = zk.Machine(torch.nn.Linear(4, 2), rule, zk.targets.Gradient())
        optimizer, x = zk.Optimizer(net, grad_scale=scaler), torch.randn(8, 4)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
        for _ in range(3):
            optimizer.zero_grad()
            loss = net(x).square().mean()
            if scaler is None:
                loss.backward()
                optimizer.step()
            else:
                scaler.scale(loss).backward()
                scaler.unscale_(optimizer)
                scaler.step(optimizer)
                scaler.update()
            schedule.step()
        assert rule.optimizer.param_groups[0]["lr"] == 0.0625
        ends.append(net.module.weight.detach())
    assert torch.allclose(*ends, atol=1e-6)
