"""A chain of gradient machines is backpropagation, to rounding, however it is driven."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import zenkai_core as zk
from zenkai_core import IO, Chain, Machine

pytestmark = pytest.mark.usefixtures("float64")
OPTIMIZERS = [(torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}), (torch.optim.Adam, {"lr": 1e-2})]
STEPS = 20


class TwoByTwo(nn.Module):
    """Two inputs `[n, a]` and `[n, b]`, two outputs `[n, 4]` and `[n, b]`, which mix both inputs."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.both, self.gate = nn.Linear(a + b, 4), nn.Linear(a, b)

    def forward(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self.both(torch.cat([u, v], 1)).tanh(), self.gate(u) * v


def layers(dropout: float = 0.0) -> list[nn.Module]:
    torch.manual_seed(1)
    hidden = [
        nn.Sequential(nn.Linear(i, o, bias=False), nn.BatchNorm1d(o), nn.ReLU(), nn.Dropout(dropout))
        for i, o in pairwise((12, 10, 8))
    ]
    return [*hidden, nn.Linear(8, 5)]


def machines(modules: Sequence[nn.Module], kind: Callable, options: dict, **kw: str) -> list[Machine]:
    criteria = [zk.sse] * (len(modules) - 1) + [zk.cross_entropy]
    return [
        Machine(m, zk.theta.Gradient(kind, **options), zk.targets.Gradient(), c, **kw)  # type: ignore[arg-type]
        for m, c in zip(modules, criteria, strict=True)
    ]


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    torch.manual_seed(2)
    for _ in range(STEPS):
        yield torch.randn(16, 12), torch.randint(5, (16,))


def assert_equal(a: Sequence[nn.Module], b: Sequence[nn.Module]) -> None:
    for m, other in zip(a, b, strict=True):
        for (name, v), w in zip(m.state_dict().items(), other.state_dict().values(), strict=True):
            assert torch.allclose(v, w, rtol=0, atol=1e-12), (name, (v - w).abs().max())


def plain_run(model: nn.Module, optimizer: torch.optim.Optimizer, reduction: str = "mean") -> list[float]:
    costs = []
    for i, (x, t) in enumerate(batches()):
        torch.manual_seed(100 + i)  # the same dropout masks for everybody
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), t, reduction=reduction)
        loss.backward()
        optimizer.step()
        costs.append(loss.item())
    return costs


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize(("kind", "options"), OPTIMIZERS)
def test_learn_equals_backpropagation(kind: Callable, options: dict, dropout: float) -> None:
    plain, ours = nn.Sequential(*layers(dropout)), layers(dropout)
    costs = plain_run(plain, kind(plain.parameters(), **options))
    chain = Chain(*machines(ours, kind, options))
    for i, (x, t) in enumerate(batches()):
        torch.manual_seed(100 + i)
        assert chain.learn(x, t).item() == pytest.approx(costs[i], abs=1e-12)
    assert_equal(ours, list(plain))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(("kind", "options"), OPTIMIZERS)
def test_a_chain_in_an_ordinary_loop_equals_backpropagation(kind: Callable, options: dict, reduction: str) -> None:
    options = {**options, "lr": options["lr"] / 10} if reduction == "sum" else options
    plain, ours = nn.Sequential(*layers()), layers()
    costs = plain_run(plain, kind(plain.parameters(), **options), reduction)
    chain = Chain(*machines(ours, kind, options, loss=reduction))
    assert plain_run(chain, zk.Optimizer(chain), reduction) == pytest.approx(costs, abs=1e-11)
    assert_equal(ours, list(plain))


@pytest.mark.parametrize(("kind", "options"), OPTIMIZERS)
@pytest.mark.parametrize("plain_at", [0, 1, 2])
def test_machines_mixed_with_plain_modules_equal_backpropagation(kind: Callable, options: dict, plain_at: int) -> None:
    plain, ours = nn.Sequential(*layers()), layers()
    costs = plain_run(plain, kind(plain.parameters(), **options))
    mixed = nn.Sequential(*machines(ours, kind, options))
    mixed[plain_at] = ours[plain_at]
    optimizer = zk.Optimizer(mixed, lambda params: kind(params, **options))
    assert plain_run(mixed, optimizer) == pytest.approx(costs, abs=1e-12)
    assert_equal(ours, list(plain))


@pytest.mark.parametrize(("kind", "options"), OPTIMIZERS)
@pytest.mark.parametrize("explicit", [True, False])
def test_two_inputs_and_two_outputs_equal_backpropagation(kind: Callable, options: dict, explicit: bool) -> None:
    def modules() -> list[nn.Module]:
        torch.manual_seed(1)
        return [TwoByTwo(3, 2), TwoByTwo(4, 2)]

    plain, ours = modules(), modules()
    optimizer = kind([p for m in plain for p in m.parameters()], **options)
    chain = Chain(*(Machine(m, zk.theta.Gradient(kind, **options), zk.targets.Gradient()) for m in ours))
    steps = zk.Optimizer(chain)
    torch.manual_seed(2)
    for _ in range(STEPS):
        x, t = IO(torch.randn(7, 3), torch.randn(7, 2)), IO(torch.randn(7, 4), torch.randn(7, 2))
        a, b = plain[1](*plain[0](*x))
        optimizer.zero_grad()
        (0.5 * ((a - t[0]).square().sum() + (b - t[1]).square().sum()) / 7).backward()
        optimizer.step()
        if explicit:
            chain.learn(x, t)
        else:
            a, b = chain(*x)
            (0.5 * ((a - t[0]).square().sum() + (b - t[1]).square().sum()) / 7).backward()
            steps.step()
    assert_equal(ours, plain)


def test_the_chains_input_gets_autograds_gradient() -> None:
    plain, ours = nn.Sequential(*layers()), layers()
    chain = Chain(*machines(ours, torch.optim.SGD, {"lr": 0.1}))
    x, t = next(batches())
    grads = []
    for model in (plain, chain):
        leaf = x.clone().requires_grad_()
        F.cross_entropy(model(leaf), t).backward()
        grads.append(leaf.grad)
    assert torch.allclose(*grads, rtol=0, atol=1e-14)


def test_by_hand_the_target_below_a_chain_is_x_less_the_gradient_per_row() -> None:
    plain, ours = nn.Sequential(*layers()), layers()
    chain = Chain(*machines(ours, torch.optim.SGD, {"lr": 0.1}))
    x, t = next(batches())
    leaf = x.clone().requires_grad_()
    F.cross_entropy(plain(leaf), t, reduction="sum").backward()
    state = zk.State()
    chain.forward_nn(IO(x), state)
    chain.accumulate(IO(x), IO(t), state)
    assert torch.allclose(chain.step_x(IO(x), IO(t), state).f, x - leaf.grad, rtol=0, atol=1e-13)


def test_gradients_of_several_batches_add_up_before_a_step() -> None:
    plain, ours = nn.Sequential(*layers()), layers()
    chain = Chain(*machines(ours, torch.optim.SGD, {"lr": 0.1}))
    for model, optimizer in ((plain, torch.optim.SGD(plain.parameters(), lr=0.1)), (chain, zk.Optimizer(chain))):
        for i, (x, t) in enumerate(batches()):
            F.cross_entropy(model(x), t).backward()
            if i % 4 == 3:
                optimizer.step()
                optimizer.zero_grad()
    assert_equal(ours, list(plain))


def test_one_machine_at_two_places_of_a_chain_equals_shared_weights() -> None:
    torch.manual_seed(1)
    plain = nn.Linear(4, 4)
    ours = nn.Linear(4, 4)
    ours.load_state_dict(plain.state_dict())
    machine = Machine(ours, zk.theta.Gradient(torch.optim.SGD, lr=0.1), zk.targets.Gradient())
    chain = Chain(machine, machine)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    for _ in range(5):
        x, t = torch.randn(6, 4), torch.randn(6, 4)
        optimizer.zero_grad()
        (0.5 * (plain(plain(x)) - t).square().sum() / 6).backward()
        optimizer.step()
        chain.learn(x, t)
    assert_equal([ours], [plain])


def test_a_schedulers_rate_reaches_every_machine() -> None:
    plain, ours = nn.Sequential(*layers()), layers()
    chain = Chain(*machines(ours, torch.optim.Adam, {"lr": 1e-2}))
    for model, optimizer in ((plain, torch.optim.Adam(plain.parameters(), lr=1e-2)), (chain, zk.Optimizer(chain))):
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        for x, t in batches():
            optimizer.zero_grad()
            F.cross_entropy(model(x), t).backward()
            optimizer.step()
            schedule.step()
    assert_equal(ours, list(plain))
