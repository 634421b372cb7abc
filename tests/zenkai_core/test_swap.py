"""Two machines for one place, by the formula of their targets."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zenkai_core as zk
from zenkai_core import IO, Chain, Machine, State, Swap


def machine(i: int = 3, o: int = 2, criterion: zk.Criterion = zk.sse) -> Machine:
    return Machine(nn.Linear(i, o), zk.theta.Gradient(torch.optim.SGD, lr=0.1), zk.targets.Gradient(), criterion)


def passed(net: zk.LearningMachine, x: torch.Tensor, t: torch.Tensor) -> tuple[State, IO]:
    state = State()
    net.remember(IO(x), state)
    told = net.tell(IO(t), state)
    return state, net.step_x(*told)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("step_x", ["main", "sub"])
@pytest.mark.parametrize("x_mix", [None, 0.6])
def test_targets_are_mixes_of_t_and_the_others_output(labels: bool, step_x: Any, x_mix: float | None) -> None:
    torch.manual_seed(0)
    criterion = zk.cross_entropy if labels else zk.sse
    a, b, x = machine(criterion=criterion), machine(criterion=criterion), torch.randn(6, 3)
    t = torch.randint(2, (6,)) if labels else torch.randn(6, 2)
    net = Swap(a, b, main_mix=0.25, sub_mix=0.5, step_x=step_x, x_mix=x_mix)
    _, t_x = passed(net, x, t)
    y = {"main": a.module(x).detach(), "sub": b.module(x).detach()}

    def error(role: str, other: str, mix: float) -> torch.Tensor:
        own = y[role] - (y[role].softmax(1) - F.one_hot(t, 2)) if labels else t
        return y[role] - ((1 - mix) * own + mix * y[other])

    errors = {"main": error("main", "sub", 0.25), "sub": error("sub", "main", 0.5)}
    for role, m in (("main", a), ("sub", b)):
        assert torch.allclose(m.module.weight.grad, errors[role].T @ x / 6)
    other = "sub" if step_x == "main" else "main"
    below = errors[step_x] if x_mix is None else error(step_x, other, x_mix)
    assert torch.allclose(t_x.f, x - below @ (a if step_x == "main" else b).module.weight)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("explicit", [True, False])
def test_without_mixes_the_main_machine_learns_as_if_alone(explicit: bool) -> None:
    torch.manual_seed(0)
    alone = Chain(machine(3, 3), machine(criterion=zk.cross_entropy))
    below, head = copy.deepcopy(alone).machines
    net = Chain(below, Swap(head, machine(criterion=zk.cross_entropy)))
    for _ in range(5):
        x, t = torch.randn(6, 3), torch.randint(2, (6,))
        for model in (alone, net):
            if explicit:
                model.learn(x, t)
            else:
                F.cross_entropy(model(x), t).backward()
                zk.Optimizer(model).step()
    for p, q in zip(alone.parameters(), [*below.parameters(), *head.parameters()], strict=True):
        assert torch.allclose(p, q, rtol=0, atol=1e-14)


def test_who_is_not_trained_stays_and_who_is_not_needed_makes_no_pass() -> None:
    calls: list[str] = []
    a, b = machine(), machine()
    for name, m in (("a", a), ("b", b)):
        m.register_hook("forward", lambda call, name=name: calls.append(name))
    x, t = torch.randn(6, 3), torch.randn(6, 2)
    before = copy.deepcopy((a.state_dict(), b.state_dict()))
    Swap(a, b, train_sub=False).learn(x, t)
    assert calls == ["a"]
    assert all(torch.equal(before[1][k], v) for k, v in b.module.state_dict(prefix="module.").items())
    assert not torch.equal(before[0]["module.weight"], a.module.weight)
    kept = a.module.weight.clone()
    both = Swap(a, b, train_main=False)
    both.learn(x, t)
    assert calls == ["a", "a", "b"]
    assert torch.equal(a.module.weight, kept)
    both.test(x, t)
    with torch.no_grad():
        both(x)
    assert calls == ["a", "a", "b", "a", "a"]


def test_a_sub_with_a_gradient_gives_the_target_below_a_main_without() -> None:
    torch.manual_seed(0)
    sign = Machine(
        nn.Sequential(nn.Linear(4, 2), zk.modules.Sign()), zk.theta.Delta(torch.optim.SGD, lr=0.05), zk.targets.Null()
    )
    smooth = Machine(nn.Sequential(nn.Linear(4, 2), nn.Tanh()), *gradient())
    net = Chain(
        Machine(nn.Sequential(nn.Linear(3, 4), nn.Tanh()), *gradient()), Swap(sign, smooth, sub_mix=0.5, step_x="sub")
    )
    x = torch.randn(50, 3)
    t = torch.stack([x[:, 0] + x[:, 1], x[:, 2]], 1).sign()
    before = net[0].module[0].weight.clone()
    first = net.test(x, t)
    for _ in range(100):
        net.learn(x, t)
    assert not torch.equal(net[0].module[0].weight, before)
    assert net.test(x, t) < 0.5 * first


def gradient() -> tuple[zk.StepTheta, zk.StepX]:
    return zk.theta.Gradient(torch.optim.SGD, lr=0.1), zk.targets.Gradient()


def test_swapping_exchanges_the_roles_for_later_passes_and_is_saved() -> None:
    a, b, x = machine(), machine(), torch.randn(4, 3)
    net = Swap(a, b, train_sub=False, step_x="sub")
    state = State()
    net.remember(IO(x), state)
    net.swap()
    before = b.module.weight.clone()
    net.step(*net.tell(IO(torch.randn(4, 2)), state))  # the pass was made with a as the main one
    assert torch.equal(b.module.weight, before)
    assert torch.equal(net(x), b.module(x))
    loaded = Swap(machine(), machine(), train_sub=False)
    loaded.load_state_dict(net.state_dict())
    for other in (loaded, copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert other.swapped
        assert torch.equal(other(x), net(x))
        assert other.main is other.second


def test_the_network_above_is_known_to_both_and_a_frozen_pass_is_the_mains() -> None:
    a, b, head = machine(), machine(), machine(2, 2, zk.cross_entropy)
    net, state, x, t = Chain(Swap(a, b), head), State(), IO(torch.randn(4, 3)), IO(torch.tensor([0, 1, 0, 1]))
    net.remember(x, state)
    net.tell(t, state)
    y = torch.randn(8, 2)
    expected = F.cross_entropy(head.module(y), t.f.repeat(2), reduction="none")
    for role in ("main", "sub"):
        sub = state.sub("0").sub(role)
        assert torch.allclose(sub.cost_above(IO(y)), expected)
        assert sub.output_error()[0].shape == (4, 2)
    assert torch.equal(net[0].frozen(x, state.sub("0")).f, a.module(x.f))
    with pytest.raises(TypeError, match="only a Machine takes candidate parameters"):
        net[0].frozen(x, state.sub("0"), {"w": y})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"main_mix": 1.5}, r"main_mix in \[0, 1\], got 1.5"),
        ({"sub_mix": -1}, "sub_mix in"),
        ({"x_mix": 2}, "x_mix in"),
        ({"train_main": False, "train_sub": False}, "got neither: somebody must learn"),
        ({"step_x": "first"}, "step_x 'main' or 'sub', got 'first'"),
    ],
)
def test_wrong_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Swap(machine(), machine(), **options)


def test_one_machine_twice_and_outputs_that_differ_are_refused() -> None:
    m = machine()
    with pytest.raises(ValueError, match="two machines, got one twice"):
        Swap(m, m)
    with pytest.raises(ValueError, match=r"a sub that puts out IO\(float32\[4, 2\]\), got IO\(float32\[4, 3\]\)"):
        Swap(m, machine(3, 3)).learn(torch.ones(4, 3), torch.ones(4, 2))
