"""One better input proposes every layer's target."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tansaku
import zenkai_core as zk
from zenkai_core import IO, Chain, GlobalTargets, Machine, State


def machine(module: nn.Module, criterion: zk.Criterion = zk.sse) -> Machine:
    return Machine(module, zk.theta.Gradient(torch.optim.SGD, lr=0.1), zk.targets.Null(), criterion)


def layers() -> list[nn.Module]:
    torch.manual_seed(0)
    return [nn.Sequential(nn.Linear(3, 4), nn.Tanh()), nn.Sequential(nn.Linear(4, 4), nn.Tanh()), nn.Linear(4, 2)]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("propose_output", [False, True])
@pytest.mark.parametrize("explicit", [True, False])
def test_every_layers_target_is_what_the_optimised_input_makes_of_it(propose_output: bool, explicit: bool) -> None:
    modules, x, labels = layers(), torch.randn(6, 3), torch.randint(2, (6,))
    plain = copy.deepcopy(modules)
    net = GlobalTargets(
        *map(machine, modules[:-1]),
        machine(modules[-1], zk.cross_entropy),
        x=zk.targets.Gradient(scale=0.5),
        propose_output=propose_output,
    )
    leaf = x.clone().requires_grad_()
    F.cross_entropy(nn.Sequential(*plain)(leaf), labels, reduction="sum").backward()
    for p in nn.ModuleList(plain).parameters():
        p.grad = None
    moved = x - 0.5 * leaf.grad
    if explicit:
        state = State()
        net.remember(IO(x), state)
        told = net.tell(IO(labels), state)
        assert torch.allclose(net.step_x(*told).f, moved, rtol=0, atol=1e-14)
    else:
        given = x.clone().requires_grad_()
        F.cross_entropy(net(given), labels).backward()
        assert torch.allclose(given.grad, (x - moved) / 6, rtol=0, atol=1e-14)
    h, t = x, moved
    for i, m in enumerate(plain):
        y, t = m(h), m(t).detach()
        last = i == 2 and not propose_output
        (F.cross_entropy(y, labels) if last else 0.5 * (y - t).square().sum() / 6).backward()
        h = y.detach()
    for p, q in zip(nn.ModuleList(plain).parameters(), nn.ModuleList(modules).parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, rtol=0, atol=1e-14)


def normed(dropout: float = 0.5) -> GlobalTargets:
    hidden = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(dropout))
    return GlobalTargets(machine(hidden), machine(nn.Linear(8, 2)), x=zk.targets.Gradient(scale=0.1))


@pytest.mark.filterwarnings("ignore:.*expected a target for every machine that learns")
def test_the_other_passes_move_no_buffer_and_no_generator_and_take_the_same_masks() -> None:
    torch.manual_seed(0)
    net = normed()
    chain = Chain(*copy.deepcopy(net).machines)
    ends = []
    for model in (net, chain):
        torch.manual_seed(1)
        state = State()
        y = model.remember(IO(x := torch.randn(6, 3)), state)
        told = model.tell(IO(y.f.detach() * 1.0), state)
        ends.append((*model[0].module.buffers(), torch.get_rng_state()))
        if model is net:  # the network is told that it was right: nothing moves, if the masks are the pass's
            assert torch.allclose(net.step_x(*told).f, x, atol=1e-6)
            assert torch.allclose(state.sub("0").t.f, state.sub("0").outputs.f, atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_it_learns_without_a_gradient_of_the_network() -> None:
    torch.manual_seed(0)
    hidden = Machine(
        nn.Sequential(nn.Linear(3, 8), zk.modules.Sign()), zk.theta.Delta(torch.optim.SGD, lr=0.05), zk.targets.Null()
    )
    search = zk.targets.SearchX(tansaku.HillClimb(k=16, std=0.5), generations=2, seed=0)
    net = GlobalTargets(hidden, machine(nn.Linear(8, 2), zk.cross_entropy), x=search)
    x = torch.randn(60, 3)
    labels = (x[:, 0] * x[:, 1] > 0).long()
    before = hidden.module[0].weight.clone()
    first = net.test(x, labels)
    for _ in range(60):
        net.learn(x, labels)
    assert net.test(x, labels) < 0.8 * first
    assert not torch.equal(before, hidden.module[0].weight)


def test_saved_copied_and_pickled_it_goes_on_alike_and_its_state_names_no_module_twice() -> None:
    torch.manual_seed(0)
    net, x, t = normed(0.0), torch.randn(6, 3), torch.randn(6, 2)
    net.learn(x, t)
    loaded = normed(0.0)
    loaded.load_state_dict(net.state_dict())
    several = [net, loaded, copy.deepcopy(net), pickle.loads(pickle.dumps(net))]
    assert len({tuple(m.learn(x, t).item() for _ in range(3)) for m in several}) == 1
    assert not [key for key in net.state_dict() if key.startswith("_whole")]
    assert sum(key.endswith("0.weight") for key in net.state_dict()) == 1


def test_a_machine_put_in_the_place_of_another_is_the_networks() -> None:
    torch.manual_seed(0)
    net, new = normed(0.0), machine(nn.Linear(8, 2))
    setattr(net, "1", new)
    state, x = State(), torch.randn(6, 3)
    net.eval()
    y = net.remember(IO(x), state)
    assert torch.allclose(state.sub("whole").outputs.f, y.f)


def test_what_cannot_be_run_twice_is_refused() -> None:
    with pytest.raises(TypeError, match="expected composed machines, got Chain: the second pass needs"):
        GlobalTargets(Chain(machine(nn.Linear(2, 2))), x=zk.targets.Gradient())
    sign = Machine(zk.modules.Sign(), zk.theta.Null(), zk.targets.Null())
    with pytest.raises(TypeError, match="expected a module that is 'differentiable'"):
        GlobalTargets(sign, x=zk.targets.Gradient())
    with pytest.raises(TypeError, match="expected x to be a StepX, got Gradient"):
        GlobalTargets(machine(nn.Linear(2, 2)), x=zk.theta.Gradient())  # type: ignore[arg-type]
