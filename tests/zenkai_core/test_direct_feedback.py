"""Direct feedback alignment as published, and the local readout: both against their formulas, written out."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import zenkai_core as zk
from zenkai_core import IO, Chain, Machine, State
from zenkai_core.testing import check_machine

pytestmark = pytest.mark.usefixtures("float64")

Rule = Callable[[], zk.StepY]


def net(rule: Rule, criterion: zk.Criterion = zk.cross_entropy, lr: float = 1.0) -> Chain:
    def layer(module: nn.Module, y: zk.StepY | None, criterion: zk.Criterion = zk.sse) -> Machine:
        return Machine(module, zk.theta.Gradient(torch.optim.SGD, lr=lr), zk.targets.Null(), criterion, y=y)

    return Chain(
        layer(nn.Sequential(nn.Linear(5, 6), nn.Tanh()), rule()),
        layer(nn.Sequential(nn.Linear(6, 4, bias=False), nn.Tanh()), rule()),
        layer(nn.Linear(4, 3), None, criterion),
    )


def parts(chain: Chain, x: Tensor, labels: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """B and output of each hidden layer, and the network's output error."""
    other, state = copy.deepcopy(chain), State()
    y = other.remember(IO(x), state).f.detach()
    other.tell(IO(labels), state)
    subs = [state.sub(str(i)) for i in range(2)]
    e = y.softmax(1) - F.one_hot(labels, 3)
    return [m.y.weights(s) for m, s in zip(other, subs, strict=False)], [s.outputs.f.detach() for s in subs], e


@pytest.mark.parametrize("drive", ["learn", "bridge"])
def test_direct_feedback_is_the_published_formula(drive: str) -> None:
    chain, x, labels = net(zk.targets.DirectFeedback), torch.randn(8, 5), torch.randint(3, (8,))
    (B1, B2), (h1, h2), e = parts(chain, x, labels)
    old = [p.detach().clone() for p in chain.parameters()]
    if drive == "learn":
        chain.learn(x, labels)
    else:
        F.cross_entropy(chain(x), labels).backward()
        zk.Optimizer(chain).step()
    delta1, delta2 = (e @ B1.T) * (1 - h1.square()), (e @ B2.T) * (1 - h2.square())
    steps = [delta1.T @ x / 8, delta1.mean(0), delta2.T @ h1 / 8, e.T @ h2 / 8, e.mean(0)]
    for p, before, step in zip(chain.parameters(), old, steps, strict=True):
        assert torch.allclose(p, before - step, rtol=0, atol=1e-12)


def test_the_error_passes_batch_norm_and_convolution_by_autograd() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2), nn.ReLU())
    plain = copy.deepcopy(module)
    head = nn.Sequential(nn.Flatten(), nn.Linear(18, 3))
    chain = Chain(
        Machine(module, zk.theta.Gradient(), zk.targets.Null(), y=zk.targets.DirectFeedback()),
        Machine(head, zk.theta.Gradient(), zk.targets.Null(), zk.cross_entropy),
    )
    x, labels, state = torch.randn(6, 1, 5, 5), torch.randint(3, (6,)), State()
    y = chain.remember(IO(x), state).f.detach()
    chain.tell(IO(labels), state)
    e = y.softmax(1) - F.one_hot(labels, 3)
    B = chain[0].y.weights(state.sub("0"))
    assert B.shape == (18, 3)
    (plain(x) * (e @ B.T).view(6, 2, 3, 3)).sum().backward()
    for p, q in zip(module.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad / 6, rtol=0, atol=1e-12)


def test_the_local_readout_is_the_gradient_of_its_own_loss() -> None:
    chain, x, labels = net(zk.targets.LocalReadout), torch.randn(8, 5), torch.randint(3, (8,))
    (B1, B2), (h1, h2), e = parts(chain, x, labels)
    W1, b1, W2, W3, b3 = (p.detach().clone().requires_grad_() for p in chain.parameters())
    g1 = torch.autograd.grad(F.cross_entropy(torch.tanh(x @ W1.T + b1) @ B1, labels), (W1, b1))
    (g2,) = torch.autograd.grad(F.cross_entropy(torch.tanh(h1 @ W2.T) @ B2, labels), W2)
    chain.learn(x, labels)
    steps = [*g1, g2, e.T @ h2 / 8, e.mean(0)]
    for p, before, step in zip(chain.parameters(), (W1, b1, W2, W3, b3), steps, strict=True):
        assert torch.allclose(p, before - step, rtol=0, atol=1e-12)


class Two(nn.Module):
    """Two outputs, of rank 3 and 1."""

    def __init__(self, n_in: int) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(n_in, 4), nn.Linear(n_in, 1)

    def forward(self, *x: Tensor) -> tuple[Tensor, Tensor]:
        joined = torch.cat([v.flatten(1) if v.ndim > 1 else v.unsqueeze(1) for v in x], 1)
        return self.a(joined).unflatten(1, (2, 2)), self.b(joined).squeeze(1)


@pytest.mark.parametrize("rule", [zk.targets.DirectFeedback, lambda: zk.targets.LocalReadout(zk.sse)])
def test_several_outputs_lie_side_by_side(rule: Rule) -> None:
    chain = Chain(
        Machine(Two(3), zk.theta.Null(), zk.targets.Null(), y=rule()),
        Machine(Two(5), zk.theta.Null(), zk.targets.Null()),
    )
    state, t = State(), IO(torch.randn(6, 2, 2), torch.randn(6))
    y = chain.remember(IO(torch.randn(6, 3)), state)
    chain.tell(t, state)
    sub = state.sub("0")
    B = chain[0].y.weights(sub)
    assert B.shape == (5, 5)
    h = torch.cat([sub.outputs[0].flatten(1), sub.outputs[1].unsqueeze(1)], 1)
    goal = torch.cat([t[0].flatten(1), t[1].unsqueeze(1)], 1)
    out = torch.cat([y[0].flatten(1), y[1].unsqueeze(1)], 1)
    e = out - goal if isinstance(chain[0].y, zk.targets.DirectFeedback) else h @ B - goal
    expected = h - e @ B.T
    assert torch.allclose(sub.t[0], expected[:, :4].unflatten(1, (2, 2)), rtol=0, atol=1e-12)
    assert torch.allclose(sub.t[1], expected[:, 4], rtol=0, atol=1e-12)


def test_the_published_rule_needs_the_output_error_and_the_readout_does_not() -> None:
    """What tells the two apart: with all outputs right, only the readout still moves the hidden layers."""
    x, t = torch.randn(8, 5), torch.randn(8, 3)
    for rule, moves in ((zk.targets.DirectFeedback, False), (lambda: zk.targets.LocalReadout(zk.sse), True)):
        chain = net(rule, zk.sse)
        goal = chain(x).detach() if not moves else t
        before = chain[0].module[0].weight.clone()
        chain.learn(x, chain(x).detach() if moves else goal)
        assert torch.equal(before, chain[0].module[0].weight) != moves


def test_the_weights_stay_and_follow_seed_copy_dtype_and_file() -> None:
    chain, x, labels = net(lambda: zk.targets.DirectFeedback(seed=1)), torch.randn(8, 5), torch.randint(3, (8,))
    (B, _), _, _ = parts(chain, x, labels)
    for _ in range(3):
        chain.learn(x, labels)
    assert torch.equal(parts(chain, x, labels)[0][0], B)
    assert torch.equal(parts(copy.deepcopy(chain), x, labels)[0][0], B)
    other = net(lambda: zk.targets.DirectFeedback(seed=2))
    assert not torch.equal(parts(other, x, labels)[0][0], B)
    other.learn(x, labels)
    other.load_state_dict(chain.state_dict())
    assert torch.equal(parts(other, x, labels)[0][0], B)
    assert torch.equal(parts(chain.float(), x.float(), labels)[0][0], B.float())


def test_the_weights_are_uniform_within_their_bound() -> None:
    chain = Chain(
        Machine(nn.Linear(2, 400), zk.theta.Null(), zk.targets.Null(), y=zk.targets.DirectFeedback(scale=2.0)),
        Machine(nn.Linear(400, 25), zk.theta.Null(), zk.targets.Null()),
    )
    state = State()
    chain.remember(IO(torch.randn(2, 2)), state)
    chain.tell(IO(torch.randn(2, 25)), state)
    B = chain[0].y.weights(state.sub("0"))
    assert B.abs().max() <= 2 / 5
    assert B.std() == pytest.approx(0.4 / 3**0.5, rel=0.02)


@pytest.mark.parametrize("rule", [zk.targets.DirectFeedback, zk.targets.LocalReadout])
def test_it_learns(rule: Rule) -> None:
    x = torch.randn(64, 5)
    labels = (x @ torch.randn(5, 3)).argmax(1)
    chain = net(rule, lr=0.3)
    first = chain.test(x, labels)
    for _ in range(150):
        chain.learn(x, labels)
    assert chain.test(x, labels) < 0.4 * first


@pytest.mark.parametrize("rule", [zk.targets.DirectFeedback, zk.targets.LocalReadout])
def test_it_conforms(rule: Rule) -> None:
    skip = {"backward moves no parameter", "no caller's tensor changes"} if rule is zk.targets.LocalReadout else set()
    check_machine(lambda: (net(rule, lr=0.05), torch.randn(12, 5), torch.randint(3, (12,))), skip=skip)


def test_under_autograd_there_are_no_labels_to_read_out() -> None:
    x, labels = torch.randn(8, 5), torch.randint(3, (8,))
    with pytest.raises(RuntimeError, match="criterion=cross_entropy expected the network's own target, got a gradient"):
        F.cross_entropy(net(zk.targets.LocalReadout)(x), labels).backward()
    F.mse_loss(net(lambda: zk.targets.LocalReadout(zk.sse))(x), torch.randn(8, 3)).backward()


def test_wrong_arguments_are_refused() -> None:
    for rule in (zk.targets.DirectFeedback, zk.targets.LocalReadout):
        with pytest.raises(ValueError, match=f"{rule.__name__} expected scale > 0, got -1"):
            rule(scale=-1)
    with pytest.raises(TypeError, match=r"take zenkai_core\.cross_entropy"):
        zk.targets.LocalReadout(nn.CrossEntropyLoss())


@pytest.mark.parametrize("short", [torch.bfloat16, torch.float32])
def test_a_pass_in_a_shorter_dtype_leaves_the_weights_as_they_were(short: torch.dtype) -> None:
    rule, drawn = zk.targets.DirectFeedback(seed=0), []
    for dtype in (torch.float64, short, torch.float64):
        machine = Machine(nn.Linear(3, 4).to(dtype), zk.theta.Null(), zk.targets.Null())
        state = State()
        machine.remember(IO(torch.ones(2, 3, dtype=dtype)), state)
        machine.tell(IO(torch.zeros(2, 4, dtype=dtype)), state)
        drawn.append(rule.weights(state))
    assert drawn[1].dtype == short
    assert torch.equal(drawn[0], drawn[2])


def test_direct_feedback_takes_a_batch_without_rows() -> None:
    class Total(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sum(1)

    machine, state = Machine(Total(), zk.theta.Null(), zk.targets.Null(), y=zk.targets.DirectFeedback()), State()
    machine.remember(IO(torch.ones(0, 3)), state)
    assert machine.tell(IO(torch.ones(0)), state).t.f.shape == (0,)
