from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import zenkai_core as zk
from zenkai_core import IO, Chain, Machine, State


def machine(i: int, o: int, criterion: zk.Criterion = zk.sse, **kw: object) -> Machine:
    rule = zk.theta.Gradient(torch.optim.SGD, lr=0.1)
    return Machine(nn.Linear(i, o), rule, zk.targets.Gradient(), criterion, **kw)  # type: ignore[arg-type]


class Written(zk.LearningMachine):
    """A user's own machine, as in the paper: y = w x by its own gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(2, 2))

    def forward_nn(self, x: IO, state: State) -> IO:
        return IO(x.f @ self.w)

    def accumulate(self, x: IO, t: IO, state: State) -> None:
        self.assess_y(state.outputs, t).sum().backward()

    def step_x(self, x: IO, t: IO, state: State) -> IO:
        return IO((x.f - x.f.grad).detach())

    def step(self, x: IO, t: IO, state: State) -> None:
        with torch.no_grad():
            self.w -= 0.01 * self.w.grad
        self.w.grad = None


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one machine"):
        Chain()
    with pytest.raises(TypeError, match="got Linear: wrap a plain module"):
        Chain(nn.Linear(2, 2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected machines with one loss"):
        Chain(machine(2, 2), machine(2, 2, loss="sum"))
    with pytest.raises(ValueError, match="got 'step first'"):
        Chain(machine(2, 2), order="step first")  # type: ignore[arg-type]


def test_in_the_second_order_a_target_comes_from_the_moved_parameters() -> None:
    torch.manual_seed(0)
    x, t = torch.randn(6, 3), torch.randn(6, 2)
    first, second = nn.Linear(3, 4), nn.Linear(4, 2)
    a, b = copy.deepcopy(first), copy.deepcopy(second)
    rule = [zk.theta.Gradient(torch.optim.SGD, lr=0.1) for _ in range(2)]
    Chain(
        *(Machine(m, r, zk.targets.Gradient()) for m, r in zip((first, second), rule, strict=True)),
        order="accumulate step step_x",
    ).learn(x, t)
    with torch.no_grad():  # by hand: the last layer moves, then its moved weights carry the error down
        h = a(x)
        e = b(h) - t
        b.weight -= 0.1 * e.T @ h / 6
        b.bias -= 0.1 * e.mean(0)
        e = (b(h) - t) @ b.weight
        a.weight -= 0.1 * e.T @ x / 6
        a.bias -= 0.1 * e.mean(0)
    for got, expected in ((first, a), (second, b)):
        assert torch.allclose(got.weight, expected.weight, atol=1e-6)
        assert torch.allclose(got.bias, expected.bias, atol=1e-6)


def test_the_second_order_moves_parameters_only_in_step_and_gives_the_chains_target_after_it() -> None:
    chain = Chain(machine(3, 4), machine(4, 2), order="accumulate step step_x")
    x, t, state = IO(torch.randn(6, 3)), IO(torch.randn(6, 2)), State()
    before = [p.clone() for p in chain.parameters()]
    chain.forward_nn(x, state)
    chain.accumulate(x, t, state)
    assert all(torch.equal(p, q) for p, q in zip(before, chain.parameters(), strict=True))
    chain.step(x, t, state)
    assert not any(torch.equal(p, q) for p, q in zip(before, chain.parameters(), strict=True))
    assert chain.step_x(x, t, state).f.shape == (6, 3)


def test_the_second_order_refuses_a_backward_that_may_not_step() -> None:
    chain = Chain(machine(3, 4), machine(4, 2), order="accumulate step step_x")
    with pytest.raises(RuntimeError, match=r"backward\(\) moves no parameter by itself"):
        chain(torch.ones(2, 3))
    chain.lmode = "accumulate step step_x"
    before = [p.clone() for p in chain.parameters()]
    chain(torch.ones(2, 3)).sum().backward()
    assert not any(torch.equal(p, q) for p, q in zip(before, chain.parameters(), strict=True))


def test_step_before_accumulate_is_refused() -> None:
    chain, state, x = Chain(machine(2, 2)), State(), IO(torch.ones(3, 2))
    chain.forward_nn(x, state)
    with pytest.raises(RuntimeError, match="pass that was accumulated"):
        chain.step(x, x, state)


def test_targets_can_be_asked_without_accumulating() -> None:
    chain, state, x = Chain(machine(2, 3), machine(3, 2)), State(), IO(torch.ones(3, 2))
    chain.forward_nn(x, state)
    alone = chain.step_x(x, IO(torch.zeros(3, 2)), state).f
    assert all(p.grad is None for p in chain.parameters())
    state = State()
    chain.forward_nn(x, state)
    chain.accumulate(x, t := IO(torch.zeros(3, 2)), state)
    assert torch.equal(chain.step_x(x, t, state).f, alone)


def test_a_chain_within_a_chain_is_the_flat_chain() -> None:
    torch.manual_seed(0)
    flat = Chain(machine(3, 4), machine(4, 4), machine(4, 2, zk.cross_entropy))
    nested = copy.deepcopy(flat)
    nested = Chain(Chain(*nested.machines[:2]), nested.machines[2])
    for _ in range(3):
        x, t = torch.randn(5, 3), torch.randint(2, (5,))
        assert torch.equal(flat.learn(x, t), nested.learn(x, t))
    assert all(torch.equal(a, b) for a, b in zip(flat.parameters(), nested.parameters(), strict=True))


def test_a_users_own_machine_learns_alone_in_a_chain_and_in_autograd() -> None:
    torch.manual_seed(0)
    x, t = torch.randn(8, 2), torch.randn(8, 2)
    alone, chain, mixed = Written(), Chain(Written(), machine(2, 2)), nn.Sequential(Written(), nn.Tanh(), machine(2, 2))
    optimizer = zk.Optimizer(mixed)

    def loop() -> Tensor:
        loss = (mixed(x) - t).square().sum(1).mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    for learn in (lambda: alone.learn(x, t), lambda: chain.learn(x, t), loop):
        costs = [learn() for _ in range(20)]
        assert costs[-1] < costs[0]


def test_the_network_above_a_users_own_machine_is_frozen_in_evaluation_mode() -> None:
    own = Written()
    x = IO(torch.ones(3, 2))
    assert torch.equal(own.frozen(x, State()).f, own.forward_nn(x, State()).f)
    with pytest.raises(TypeError, match="only a Machine takes candidate parameters"):
        own.frozen(x, State(), {"w": own.w})


def test_what_a_machine_must_write_is_said_where_it_is_missing() -> None:
    with pytest.raises(NotImplementedError, match="forward_nn"):
        zk.LearningMachine().forward_nn(IO(), State())


def test_the_second_order_refuses_one_machine_at_two_places() -> None:
    m = machine(2, 2)
    for machines in ((m, m), (m, Chain(machine(2, 2), m))):
        with pytest.raises(ValueError, match="expected each machine once, got one at two places"):
            Chain(*machines, order="accumulate step step_x")
        Chain(*machines)


def test_a_machine_put_in_the_place_of_another_is_the_chains() -> None:
    chain, new = Chain(machine(2, 3), machine(3, 2)), machine(3, 2)
    setattr(chain, "1", new)
    before = new.module.weight.detach().clone()
    chain.learn(torch.randn(4, 2), torch.randn(4, 2))
    assert chain.machines[1] is new
    assert not torch.equal(before, new.module.weight)


def test_in_nested_chains_the_incoming_machine_is_the_one_that_made_the_inputs() -> None:
    net, state = Chain(machine(3, 2), Chain(machine(2, 2), machine(2, 2)), Chain(machine(2, 2))), State()
    net.remember(IO(torch.ones(4, 3)), state)
    middle, top = state.sub("1"), state.sub("2").sub("0")
    assert state.sub("0").incoming is None
    assert middle.sub("0").incoming == (net[0], state.sub("0"))
    assert top.incoming == (net[1][1], middle.sub("1"))
    assert top.origins == ((net[1][1], middle.sub("1"), 0),)


def test_a_chain_has_a_length_and_gives_its_machines_by_index() -> None:
    machines = [Machine(nn.Linear(2, 2), zk.theta.Null(), zk.targets.Null()) for _ in range(3)]
    net = Chain(*machines)
    assert len(net) == 3
    assert list(net) == machines
    assert net[-1] is machines[2]
    assert net[1:] == tuple(machines[1:])


def test_every_layer_is_told_the_error_at_the_networks_outputs():
    torch.manual_seed(0)
    inner = Chain(Machine(nn.Linear(4, 4), zk.theta.Null(), zk.targets.Gradient()))
    head = Machine(nn.Linear(4, 3), zk.theta.Null(), zk.targets.Gradient(), zk.cross_entropy)
    net = Chain(Machine(nn.Linear(5, 4), zk.theta.Null(), zk.targets.Gradient()), inner, head)
    seen = []
    for m in (net[0], inner[0], head):
        m.register_hook("accumulate", lambda call: seen.append(call.state.output_error()))
    x, labels = torch.randn(6, 5), torch.tensor([0, 1, 2, 0, 1, 2])
    net.learn(x, labels)
    p = net(x).detach().softmax(1)
    expected = p - nn.functional.one_hot(labels, 3)
    assert len(seen) == 3
    for (error,) in seen:
        torch.testing.assert_close(error, expected)


def test_under_autograd_the_output_error_is_the_gradient_per_row():
    torch.manual_seed(0)
    net = Chain(*(Machine(nn.Linear(4, 4), zk.theta.Null(), zk.targets.Gradient()) for _ in range(2)))
    seen = []
    net[0].register_hook("accumulate", lambda call: seen.append(call.state.output_error()[0]))
    x, t = torch.randn(6, 4), torch.randn(6, 4)
    y = net(x)
    (y - t).square().sum(1).mean().backward()
    torch.testing.assert_close(seen[0], 2 * (y - t).detach())


def test_the_output_error_is_unknown_before_the_target():
    with pytest.raises(RuntimeError, match="error is known once the target is"):
        State().output_error()


def test_an_error_of_a_pass_names_the_machine_and_what_it_was_given() -> None:
    inner = Chain(machine(4, 3), machine(5, 2))
    net = zk.Graph({"stem": zk.Node(machine(6, 4), "x"), "head": zk.Node(inner, "stem")}, outputs=("head",))
    x = torch.zeros(7, 6)
    for call in (lambda: net(x), lambda: net.learn(x, torch.zeros(7, 2))):
        with pytest.raises(RuntimeError, match="cannot be multiplied") as caught:
            call()
        assert caught.value.__notes__ == [
            "in machine 1 of the Chain, on inputs of shape [7, 3]",
            "in node 'head' of the Graph, on inputs of shape [7, 4]",
        ]
