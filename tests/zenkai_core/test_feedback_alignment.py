"""Feedback alignment: only the transposed weights are replaced, by B; with B = W it is backpropagation, exactly."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tansaku
import zenkai_core as zk
from zenkai_core import IO, Chain, Machine, State
from zenkai_core.targets.feedback import linear_maps
from zenkai_core.testing import check_machine

pytestmark = pytest.mark.usefixtures("float64")

KINDS = ("random", "sign", "fresh", "uniform")


class Residual(nn.Module):
    """Two branches over one shared linear map, its second call by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(x + self.a(torch.tanh(self.a(input=x)))) + x[:, :3]


def features(o: int) -> list[nn.Module]:
    return [nn.BatchNorm1d(o), nn.ReLU(inplace=True), nn.Dropout(0.3)]


MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(4, 3), (4,)),
    "linear without bias": (lambda: nn.Linear(4, 3, bias=False), (4,)),
    "linear over sequences": (lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh()), (5, 4)),
    "linear, norm, relu": (lambda: nn.Sequential(nn.Linear(4, 3, bias=False), *features(3)), (4,)),
    "norm first": (lambda: nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3), nn.ReLU(inplace=True)), (4,)),
    "nested": (lambda: nn.Sequential(nn.Sequential(nn.Linear(4, 6), *features(6)), nn.Linear(6, 3)), (4,)),
    "residual": (Residual, (4,)),
    "no linear map": (nn.PReLU, (4,)),
    "conv1d": (lambda: nn.Conv1d(2, 4, 3, padding=1, dilation=2, groups=2, bias=False), (2, 9)),
    "conv2d": (lambda: nn.Sequential(nn.Conv2d(2, 3, 3, stride=2), nn.BatchNorm2d(3), nn.ReLU()), (2, 8, 8)),
    "conv2d, same": (lambda: nn.Conv2d(2, 3, (1, 3), padding="same"), (2, 5, 6)),
    "conv2d, circular": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (2, 5, 6)),
    "conv3d": (lambda: nn.Conv3d(1, 2, 2), (1, 4, 4, 4)),
    "transposed": (lambda: nn.ConvTranspose1d(2, 4, 3, stride=2, output_padding=1, groups=2), (2, 5)),
    "transposed2d": (lambda: nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1, dilation=2), (2, 4, 5)),
    "conv to linear": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 4), nn.Linear(4, 3)),
        (1, 5, 5),
    ),
}


def feed_weights(machine: Machine) -> None:
    """Sets B = W."""
    for i, m in enumerate(linear_maps(machine.module)):
        machine.x.get_buffer(f"feedback_{i}").copy_(m.weight.detach())


def told(machine: Machine, x: Tensor, t: Tensor) -> tuple[Tensor, list[Tensor]]:
    """What one pass gives: the error at x, per row, and the gradients of the parameters."""
    state = State()
    torch.manual_seed(3)
    machine.remember(IO(x), state)
    target = machine.step_x(*machine.tell(IO(t), state))
    return x - target.f, [p.grad for p in machine.module.parameters()]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", MODULES)
def test_with_the_weights_as_feedback_it_is_autograd(name: str, training: bool) -> None:
    make, shape = MODULES[name]
    module, x = make().train(training), torch.randn(6, *shape)
    module(x)  # statistics of their own for evaluation mode
    plain = copy.deepcopy(module)
    t = torch.randn_like(module(x))
    plain.load_state_dict(module.state_dict())
    machine = Machine(module, zk.theta.Gradient(), zk.targets.FeedbackAlignment()).train(training)
    feed_weights(machine)
    error, grads = told(machine, x, t)
    leaf = x.clone().requires_grad_()
    torch.manual_seed(3)
    (0.5 * (plain(leaf) - t).square().sum()).backward()
    assert torch.allclose(error, leaf.grad, rtol=0, atol=1e-12)
    for g, p in zip(grads, plain.parameters(), strict=True):
        assert torch.allclose(g, p.grad / 6, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["random", "fresh"])
@pytest.mark.parametrize("name", MODULES)
def test_it_is_autograd_of_the_module_with_b_for_w_less_what_the_forward_pass_is(name: str, kind: str) -> None:
    make, shape = MODULES[name]
    module, x = make(), torch.randn(6, *shape)
    plain = copy.deepcopy(module)
    t = torch.randn_like(module(x))
    machine = Machine(module, zk.theta.Gradient(), zk.targets.FeedbackAlignment(kind, scale=2.0))  # type: ignore[arg-type]
    feedback = machine.x.feedback(machine)
    if kind != "random":
        assert all(torch.equal(B.sign(), m.weight.sign()) for m, B in feedback.items())
    error, grads = told(machine, x, t)
    leaf = x.clone().requires_grad_()
    for m, B in zip(linear_maps(plain), feedback.values(), strict=True):  # y has W's value and B's derivative
        m.register_forward_hook(by_feedback(B), with_kwargs=True)
    torch.manual_seed(3)
    (0.5 * (plain(leaf) - t).square().sum()).backward()
    assert torch.allclose(error, leaf.grad, rtol=0, atol=1e-12)
    exact = copy.deepcopy(module)
    exact.zero_grad()
    exact.load_state_dict(plain.state_dict())
    torch.manual_seed(3)
    (0.5 * (exact.train()(x) - t).square().sum()).backward()
    for g, p in zip(grads, exact.parameters(), strict=True):  # the local update is the ordinary one
        assert torch.allclose(g, p.grad / 6, rtol=0, atol=1e-12)


def by_feedback(B: Tensor) -> Callable[..., Tensor]:
    def hook(m: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], y: Tensor) -> Tensor:
        swapped = copy.copy(m)
        swapped._parameters = {"weight": nn.Parameter(B), "bias": m.bias}
        own = swapped.forward(*args, **kwargs)
        return y.detach() + own - own.detach()

    return hook


@pytest.mark.parametrize("drive", ["learn", "bridge", "second order"])
def test_a_two_layer_network_follows_the_published_formula(drive: str) -> None:
    x, labels = torch.randn(8, 5), torch.randint(3, (8,))
    hidden, output = nn.Sequential(nn.Linear(5, 4), nn.Tanh()), nn.Linear(4, 3)
    (W1, b1), (W2, b2) = ([p.detach().clone() for p in m.parameters()] for m in (hidden, output))
    lower = Machine(hidden, zk.theta.Gradient(torch.optim.SGD, lr=1.0), zk.targets.Null())
    upper = Machine(
        output, zk.theta.Gradient(torch.optim.SGD, lr=1.0), zk.targets.FeedbackAlignment(), zk.cross_entropy
    )
    (B,) = upper.x.feedback(upper).values()
    order = "accumulate step step_x" if drive == "second order" else "accumulate step_x step"
    net = Chain(lower, upper, order=order, lmode="step_x" if drive == "second order" else "accumulate")
    h = torch.tanh(x @ W1.T + b1)
    e = (h @ W2.T + b2).softmax(1) - F.one_hot(labels, 3)
    new_W2, new_b2 = W2 - e.T @ h / 8, b2 - e.mean(0)
    if drive == "second order":  # the error as the moved layer makes it
        e = (h @ new_W2.T + new_b2).softmax(1) - F.one_hot(labels, 3)
    delta = (e @ B) * (1 - h.square())
    if drive == "bridge":
        F.cross_entropy(net(x), labels).backward()
        zk.Optimizer(net).step()
    else:
        net.learn(x, labels)
    expected = (W1 - delta.T @ x / 8, b1 - delta.mean(0), new_W2, new_b2)
    for p, value in zip(net.parameters(), expected, strict=True):
        assert torch.allclose(p, value, rtol=0, atol=1e-12)


def test_in_training_the_update_turns_towards_the_gradient() -> None:
    x = torch.randn(256, 10)
    t = x @ torch.randn(10, 3) * 0.3
    net = Chain(
        Machine(nn.Linear(10, 30), zk.theta.Gradient(torch.optim.SGD, lr=0.1), zk.targets.Null()),
        Machine(nn.Linear(30, 3), zk.theta.Gradient(torch.optim.SGD, lr=0.1), zk.targets.FeedbackAlignment(seed=2)),
    )
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(0.1)

    def angle() -> float:
        state = State()
        net.remember(IO(x), state)
        net.tell(IO(t), state)
        ours = net[0].module.weight.grad.clone()
        net.forget()
        cost = 0.5 * (net[1].module(net[0].module(x)) - t).square().sum(1).mean()
        (exact,) = torch.autograd.grad(cost, net[0].module.weight)
        return float(torch.rad2deg(torch.arccos(F.cosine_similarity(ours.flatten(), exact.flatten(), 0))))

    begin = angle()
    first = net.test(x, t)
    for _ in range(40):
        net.learn(x, t)
    assert angle() < 60 < 80 < begin
    assert net.test(x, t) < 0.1 * first


def test_sign_follows_the_present_weights_and_its_magnitudes_stay() -> None:
    machine = Machine(nn.Linear(4, 3), zk.theta.Null(), zk.targets.FeedbackAlignment("sign"))
    (before,) = machine.x.feedback(machine).values()
    with torch.no_grad():
        machine.module.weight.neg_()
    (after,) = machine.x.feedback(machine).values()
    assert torch.equal(after, -before)


def test_fresh_magnitudes_differ_from_backward_to_backward_and_looking_moves_nothing() -> None:
    machine = Machine(nn.Linear(4, 3), zk.theta.Gradient(), zk.targets.FeedbackAlignment("fresh"))
    x, t = torch.randn(6, 4), torch.randn(6, 3)
    (first,) = machine.x.feedback(machine).values()
    (again,) = machine.x.feedback(machine).values()
    assert torch.equal(first, again)
    told(machine, x, t)
    (second,) = machine.x.feedback(machine).values()
    assert not torch.equal(first, second)


def test_feedback_has_the_scale_of_torchs_initialisation() -> None:
    module = nn.Sequential(nn.Linear(300, 200), nn.Conv2d(30, 40, 5), nn.ConvTranspose2d(30, 40, 5))
    for kind in KINDS:
        machine = Machine(module, zk.theta.Null(), zk.targets.FeedbackAlignment(kind, scale=3.0))  # type: ignore[arg-type]
        for m, B in machine.x.feedback(machine).items():
            assert B.square().mean().sqrt() == pytest.approx(3 * m.weight.square().mean().sqrt().item(), rel=0.02)


def test_the_cost_is_one_backward_through_a_single_layer_and_a_second_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *args, **kwargs: calls.append(1) or grad(*args, **kwargs))
    backwards = {"linear, norm, relu": 1, "no linear map": 1, "norm first": 2, "nested": 2, "residual": 2}
    for name, expected in backwards.items():
        make, shape = MODULES[name]
        machine = Machine(make(), zk.theta.Gradient(), zk.targets.FeedbackAlignment())
        x = torch.randn(6, *shape)
        calls.clear()
        told(machine, x, torch.randn_like(machine.module(x)))
        assert len(calls) == expected, name


def test_a_layer_without_a_target_below_draws_nothing_and_pays_nothing() -> None:
    machine = Machine(nn.Linear(4, 3), zk.theta.Gradient(), zk.targets.FeedbackAlignment("fresh", seed=0))
    machine.learn(torch.randn(6, 4), torch.randn(6, 3))
    assert machine.x.noise.key.tolist() == [0, 0]


def test_feedback_moves_with_its_machine_and_is_saved() -> None:
    make = lambda seed: Machine(nn.Linear(4, 3), zk.theta.Gradient(), zk.targets.FeedbackAlignment(seed=seed))  # noqa: E731
    machine, other = make(0), make(1)
    assert not torch.equal(machine.x.feedback_0, other.x.feedback_0)
    other.load_state_dict(machine.state_dict())
    assert torch.equal(machine.x.feedback_0, other.x.feedback_0)
    assert copy.deepcopy(machine).float().x.feedback_0.dtype == torch.float32


def test_a_module_is_left_without_hooks_and_dies_with_its_machine() -> None:
    machine = Machine(nn.Linear(4, 3), zk.theta.Gradient(), zk.targets.FeedbackAlignment())
    told(machine, torch.randn(6, 4), torch.randn(6, 3))
    assert not machine.module._forward_hooks
    assert not machine.module._forward_pre_hooks
    assert not machine.x._route


@pytest.mark.parametrize("theta", [zk.theta.Gradient, zk.theta.Delta])
def test_it_goes_with_other_rules_below_and_above(theta: Callable[..., zk.StepTheta]) -> None:
    x = torch.randn(64, 6)
    labels = (x @ torch.randn(6, 3)).argmax(1)
    net = Chain(
        Machine(nn.Sequential(nn.Linear(6, 20), nn.ReLU()), theta(torch.optim.Adam, lr=0.02), zk.targets.Null()),
        Machine(
            nn.Sequential(nn.Linear(20, 20), nn.ReLU()),
            theta(torch.optim.Adam, lr=0.02),
            zk.targets.FeedbackAlignment(),
        ),
        Machine(
            nn.Linear(20, 3),
            zk.theta.Gradient(torch.optim.Adam, lr=0.02),
            zk.targets.SearchX(tansaku.HillClimb(k=16, std=0.1)),
            zk.cross_entropy,
        ),
    )
    first = net.test(x, labels)
    for _ in range(60):
        net.learn(x, labels)
    assert net.test(x, labels) < 0.3 * first


def test_a_rule_around_it_hands_errors_down_by_feedback_too() -> None:
    x, t = torch.randn(6, 4), torch.randn(6, 3)
    rule = zk.targets.Limited(zk.targets.FeedbackAlignment(), [0, 2])
    machine = Machine(nn.Linear(4, 3), zk.theta.Gradient(), rule)
    (B,) = rule.rule.feedback(machine).values()
    error, _ = told(machine, x, t)
    expected = (machine.module(x) - t) @ B * torch.tensor([1, 0, 1, 0])
    assert torch.allclose(error, expected, rtol=0, atol=1e-12)


def test_it_notes_how_feedback_lies_to_the_weights() -> None:
    machine = Machine(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3)), zk.theta.Null(), zk.targets.FeedbackAlignment())
    B = machine.x.feedback(machine)
    x, t, state = IO(torch.randn(6, 4)), IO(torch.randn(6, 3)), State(notes={})
    machine.remember(x, state)
    machine.step_x(x, t, state)
    cosines = [(B[m] * m.weight).sum() / (B[m].norm() * m.weight.norm()) for m in machine.module]
    angle = sum(torch.rad2deg(torch.arccos(c)) for c in cosines) / 2
    assert state.notes["x_angle"] == pytest.approx(angle.item(), rel=1e-9)
    assert state.notes["x_ratio"] == pytest.approx(
        sum((B[m].norm() / m.weight.norm()).item() for m in machine.module) / 2
    )


@pytest.mark.parametrize("kind", KINDS)
def test_it_conforms(kind: zk.targets.feedback.Kind) -> None:
    def alone(n: int = 1) -> tuple[Machine, Tensor, Tensor]:
        module = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.2), nn.Tanh(), nn.Linear(5, 3))
        rule = zk.theta.Gradient(torch.optim.Adam, lr=0.01, n=n)
        return Machine(module, rule, zk.targets.FeedbackAlignment(kind)), torch.randn(12, 4), torch.randn(12, 3)

    check_machine(alone)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="expected a kind of random, sign, fresh, uniform, got 'fixed'"):
        zk.targets.FeedbackAlignment("fixed")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected scale > 0, got 0"):
        zk.targets.FeedbackAlignment(scale=0)
    with pytest.raises(TypeError, match="that is 'differentiable', got Sign"):
        Machine(zk.modules.Sign(), zk.theta.Null(), zk.targets.FeedbackAlignment())
