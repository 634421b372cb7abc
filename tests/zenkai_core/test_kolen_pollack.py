"""Learned feedback: B and W move by the same products and decay alike, so that B comes to equal W."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import zenkai_core as zk
from zenkai_core import IO, Chain, Machine, State
from zenkai_core.testing import check_machine

pytestmark = pytest.mark.usefixtures("float64")

OPTIONS = {"lr": 0.1, "weight_decay": 0.5}


def network(factory: type = torch.optim.SGD, head: nn.Module | None = None) -> Chain:
    """A layer with learned feedback above another one."""
    head = nn.Linear(6, 3) if head is None else head
    rule = zk.targets.KolenPollack(factory, **OPTIONS)
    return Chain(
        Machine(nn.Linear(5, 6), zk.theta.Gradient(torch.optim.SGD, lr=0.05), zk.targets.Null()),
        Machine(head, zk.theta.Gradient(factory, **OPTIONS), rule),
    )


@pytest.mark.parametrize("factory", [torch.optim.SGD, torch.optim.AdamW])
def test_the_distance_of_feedback_and_weights_shrinks_by_the_decay(factory: type) -> None:
    head = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3, bias=False))
    net = network(factory, head)
    maps = [head[0], head[3]]
    start = [B - m.weight.detach() for B, m in zip(net[1].x.feedback(net[1]).values(), maps, strict=True)]
    for i in range(1, 6):
        net.learn(torch.randn(8, 5), torch.randn(8, 3))
        for B, m, d in zip(net[1].x.feedback(net[1]).values(), maps, start, strict=True):
            assert torch.allclose(B - m.weight, 0.95**i * d, rtol=0, atol=1e-12)


def test_feedback_moves_by_the_published_products() -> None:
    """Akrout et al. (2019), equation 17: dB = -lr * (delta' x / n + decay * B), here for one layer by hand."""
    net, x, t = network(), torch.randn(8, 5), torch.randn(8, 3)
    W, b = (p.detach().clone() for p in net[1].module.parameters())
    (B,) = (v.clone() for v in net[1].x.feedback(net[1]).values())
    h = net[0].module(x).detach()
    net.learn(x, t)
    delta = h @ W.T + b - t
    assert torch.allclose(net[1].x.feedback_0, B - 0.1 * (delta.T @ h / 8 + 0.5 * B), rtol=0, atol=1e-12)


def test_the_error_goes_down_by_the_feedback_of_the_pass() -> None:
    net, x, t = network(), torch.randn(8, 5), torch.randn(8, 3)
    for _ in range(2):
        net.learn(x, t)
    state = State()
    y = net.remember(IO(x), state).f.detach()
    (B,) = (v.clone() for v in net[1].x.feedback(net[1]).values())
    net.tell(IO(t), state)
    sub = state.sub("0")
    assert torch.allclose(sub.outputs.f - sub.t.f, (y - t) @ B, rtol=0, atol=1e-12)


@pytest.mark.parametrize("theta", [zk.theta.Delta, lambda *a, **k: zk.theta.Null()])
def test_it_learns_beside_any_rule_for_theta(theta: Callable[..., zk.StepTheta]) -> None:
    machine = Machine(
        nn.Linear(6, 3), theta(torch.optim.SGD, **OPTIONS), zk.targets.KolenPollack(torch.optim.SGD, lr=1)
    )
    x, t, state = IO(torch.randn(8, 6)), IO(torch.randn(8, 3)), State()
    e = (machine.module(x.f) - t.f).detach()
    before = machine.x.feedback_0.clone()
    machine.remember(x, state)
    machine.step(*machine.tell(t, state))
    assert torch.allclose(machine.x.feedback_0, before - e.T @ x.f / 8, rtol=0, atol=1e-12)


def test_it_conforms_and_what_it_learns_is_saved() -> None:
    def make() -> tuple[Chain, Tensor, Tensor]:
        return network(torch.optim.AdamW), torch.randn(12, 5), torch.randn(12, 3)

    check_machine(make)
    net, x, t = make()
    net.learn(x, t)
    other = network(torch.optim.AdamW)
    other.load_state_dict(copy.deepcopy(net.state_dict()))
    for each in (net, other):
        each.learn(x, t)
    assert torch.equal(net[1].x.feedback_0, other[1].x.feedback_0)


def test_a_layer_without_linear_maps_and_wrong_arguments() -> None:
    machine = Machine(nn.ReLU(), zk.theta.Null(), zk.targets.KolenPollack())
    state = State()
    machine.remember(IO(torch.randn(4, 3)), state)
    machine.step(*machine.tell(IO(torch.randn(4, 3)), state))
    assert not list(machine.x.parameters())
    with pytest.raises(TypeError, match=r"expected an optimiser class such as torch\.optim\.AdamW, got float"):
        zk.targets.KolenPollack(0.1)  # type: ignore[arg-type]


def test_gradients_of_feedback_and_weights_share_no_memory() -> None:
    rule = zk.targets.KolenPollack(torch.optim.SGD, lr=0.1)
    machine = zk.Machine(nn.Linear(3, 2), zk.theta.Gradient(torch.optim.SGD, lr=0.1), rule)
    machine(torch.randn(4, 3, requires_grad=True)).square().sum().backward()
    before = rule.feedback_0.grad.clone()  # type: ignore[union-attr, operator]
    machine.module.weight.grad.mul_(0.0)  # type: ignore[union-attr, operator]
    assert torch.equal(rule.feedback_0.grad, before)  # type: ignore[arg-type]
