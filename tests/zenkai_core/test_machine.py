from __future__ import annotations

import copy
import gc
import io
import weakref

import pytest
import torch
from torch import Tensor, nn

import zenkai_core as zk
from zenkai_core import IO, Machine, State


def gradient(lr: float = 0.1, n: int = 1) -> zk.theta.Gradient:
    return zk.theta.Gradient(torch.optim.SGD, lr=lr, n=n)


def normed(dropout: float = 0.0, **kw: object) -> Machine:
    module = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(dropout))
    return Machine(module, gradient(), zk.targets.Gradient(), **kw)  # type: ignore[arg-type]


def passed(machine: Machine, x: Tensor) -> tuple[State, IO]:
    state = State()
    return state, machine.forward_nn(IO(x), state)


def test_arguments_of_the_wrong_kind_are_refused() -> None:
    with pytest.raises(TypeError, match="expected theta to be a StepTheta, got Gradient"):
        Machine(nn.Linear(2, 2), zk.targets.Gradient(), zk.targets.Gradient())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected y to be a StepY, got int"):
        Machine(nn.Linear(2, 2), gradient(), zk.targets.Gradient(), y=3)  # type: ignore[arg-type]


def test_a_rule_of_ones_own_that_is_half_made_is_told_what_it_lacks() -> None:
    class Bare(zk.StepTheta):
        def __init__(self) -> None:
            self.rate = 0.1

        def accumulate(self, machine: Machine, t: IO, state: State) -> None: ...

        def step(self, machine: Machine) -> None: ...

    class Misspelt(zk.theta.Null):
        requires = frozenset({"liner"})

    with pytest.raises(TypeError, match=r"got Bare, whose __init__ does not call super\(\).__init__\(\)"):
        Machine(nn.Linear(2, 2), Bare(), zk.targets.Null())
    with pytest.raises(ValueError, match=r"Misspelt expected requires among \['differentiable', .*, got \['liner'\]"):
        Machine(nn.Linear(2, 2), Misspelt(), zk.targets.Null())


def test_a_rule_serves_one_machine() -> None:
    rule = gradient()
    Machine(nn.Linear(2, 2), rule, zk.targets.Null())
    with pytest.raises(RuntimeError, match="serve one machine, got a second"):
        Machine(nn.Linear(2, 2), rule, zk.targets.Null())


def test_a_module_that_returns_no_tensors_is_refused() -> None:
    class Text(nn.Module):
        def forward(self, x: Tensor) -> str:
            return "x"

    with pytest.raises(TypeError, match="got str from Text"):
        Machine(Text(), zk.theta.Null(), zk.targets.Null())(torch.ones(1, 1))


def test_a_pass_older_than_the_last_step_is_refused() -> None:
    machine, x, t = normed(), IO(torch.randn(6, 5)), IO(torch.randn(6, 4))
    state, _ = passed(machine, x.f)
    machine.learn(x, t)
    with pytest.raises(RuntimeError, match="accumulate expected a pass made after the last step"):
        machine.accumulate(x, t, state)


def test_an_unused_state_is_refused() -> None:
    machine, x, t = normed(), IO(torch.randn(6, 5)), IO(torch.randn(6, 4))
    with pytest.raises(RuntimeError, match="expected the state of a forward pass, got an unused one"):
        machine.accumulate(x, t, State())
    with pytest.raises(RuntimeError, match="got an unused one"):
        _ = State().outputs
    with pytest.raises(RuntimeError, match="known once the target is"):
        State().cost_above(x)


def test_a_pass_that_left_x_out_gives_no_target_for_it() -> None:
    machine, x, t = normed(), IO(torch.randn(6, 5)), IO(torch.randn(6, 4))
    state = State(wants_x=False)
    machine.forward_nn(x, state)
    machine.accumulate(x, t, state)
    with pytest.raises(RuntimeError, match="got one without: its graph leaves"):
        machine.step_x(x, t, state)


def test_no_graph_is_kept_where_no_rule_differentiates() -> None:
    machine = Machine(nn.Linear(3, 2), zk.theta.Delta(torch.optim.SGD, lr=0.1), zk.targets.Null())
    _, y = passed(machine, torch.randn(4, 3))
    assert not y.f.requires_grad


def test_test_moves_nothing_and_restores_each_submodules_mode() -> None:
    machine = normed(0.5)
    machine.train()
    machine.module[1].eval()
    before = copy.deepcopy(machine.state_dict())
    x, t = torch.randn(6, 5), torch.randn(6, 4)
    assert torch.equal(machine.test(x, t), machine.test(x, t))
    assert [m.training for m in machine.module] == [True, False, True, True]
    assert all(torch.equal(v, before[k]) for k, v in machine.state_dict().items() if isinstance(v, Tensor))


def test_learn_trains_a_machine_in_evaluation_and_keeps_a_frozen_submodule_of_one_in_training() -> None:
    machine = normed()
    machine.eval()
    machine.learn(torch.randn(6, 5), torch.randn(6, 4))
    assert machine.module[1].num_batches_tracked == 1
    assert not machine.module[1].training
    machine.train()
    machine.module[1].eval()
    machine.learn(torch.randn(6, 5), torch.randn(6, 4))
    assert machine.module[1].num_batches_tracked == 1


# ------------------------------------------------------------------------------------- replay, frozen, propose


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_replay_of_the_pass_is_the_pass(dropout: float) -> None:
    machine, x = normed(dropout), torch.randn(6, 5)
    state, y = passed(machine, x)
    buffers, random = copy.deepcopy(dict(machine.named_buffers())), torch.get_rng_state()
    torch.rand(7)
    after = torch.get_rng_state()
    assert torch.equal(machine.replay(IO(x), state).f, y.f)
    assert torch.equal(torch.get_rng_state(), after)
    assert not torch.equal(random, after)
    assert all(torch.equal(b, buffers[name]) for name, b in machine.named_buffers())


def test_replay_differentiates_through_the_batchs_statistics() -> None:
    machine, x = normed(), torch.randn(6, 5)
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(machine.module(leaf).pow(3).sum(), leaf)
    state, _ = passed(machine, x)
    leaf = x.clone().requires_grad_()
    (got,) = torch.autograd.grad(machine.replay(IO(leaf), state).f.pow(3).sum(), leaf)
    assert torch.allclose(got, expected, atol=1e-6)


def test_step_x_after_step_uses_the_moved_parameters_and_the_pass_s_masks() -> None:
    machine, x, t = normed(0.5), torch.randn(6, 5), torch.randn(6, 4)
    machine.train()
    state, _ = passed(machine, x)
    machine.accumulate(IO(x), IO(t), state)
    machine.step(IO(x), IO(t), state)
    leaf = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(zk.sse(machine.replay(IO(leaf), state), IO(t)).sum(), leaf)
    assert torch.allclose(machine.step_x(IO(x), IO(t), state).f, x - g, atol=1e-6)


def test_a_frozen_pass_gives_each_of_the_passs_rows_its_own_output_whatever_stands_beside_it() -> None:
    machine, x = normed(), torch.randn(6, 5)
    state, y = passed(machine, x)
    others = torch.randn(20, 5) * 30
    with torch.no_grad():
        together = machine.frozen(IO(torch.cat([x, others])), state).f
    assert torch.allclose(together[:6], y.f, atol=1e-5)
    assert machine.module.training


def test_frozen_takes_batchnorm_without_running_statistics_and_leaves_it_without() -> None:
    norm = nn.BatchNorm1d(5, track_running_stats=False)
    machine = Machine(norm, gradient(), zk.targets.Gradient())
    x = torch.randn(6, 5)
    state, y = passed(machine, x)
    assert torch.allclose(machine.frozen(IO(x[:2]), state).f, y.f[:2], atol=1e-5)
    assert norm.running_mean is None


def test_a_frozen_pass_turns_dropout_off_and_moves_no_generator() -> None:
    machine, x = normed(0.5), torch.randn(6, 5)
    state, _ = passed(machine, x)
    random = torch.get_rng_state()
    a, b = machine.frozen(IO(x), state).f, machine.frozen(IO(x), state).f
    assert torch.equal(a, b)
    assert torch.equal(random, torch.get_rng_state())


def test_in_evaluation_a_frozen_pass_is_the_module() -> None:
    machine, x = normed(0.5), torch.randn(6, 5)
    machine.learn(x, torch.randn(6, 4))
    machine.eval()
    state, y = passed(machine, x)
    assert torch.equal(machine.frozen(IO(x), state).f, y.f)


def test_candidate_parameters_are_scored_under_vmap_one_by_one() -> None:
    machine, x = normed(0.5), torch.randn(6, 5)
    state, _ = passed(machine, x)
    params = {name: torch.stack([p.detach() + i for i in range(3)]) for name, p in machine.module.named_parameters()}
    with torch.no_grad():
        many = torch.func.vmap(lambda p: machine.frozen(IO(x), state, p))(params)
        one = machine.frozen(IO(x), state, {name: v[2] for name, v in params.items()})
        own = machine.frozen(IO(x), state, {})
        assert torch.equal(own.f, machine.frozen(IO(x), state).f)
    assert many.f.shape == (3, 6, 4)
    assert torch.allclose(many.f[2], one.f, atol=1e-5)
    assert torch.allclose(many.f[0], own.f, atol=1e-5)


def test_proposals_are_k_stochastic_passes_that_the_noise_alone_decides() -> None:
    machine, x = normed(0.5), torch.randn(6, 5)
    state, _ = passed(machine, x)
    random = torch.get_rng_state()
    a = machine.propose(state, 8, torch.Generator().manual_seed(1)).f
    b = machine.propose(state, 8, torch.Generator().manual_seed(1)).f
    assert a.shape == (8, 6, 4)
    assert torch.equal(a, b)
    assert not torch.equal(a[0], a[1])
    assert torch.equal(random, torch.get_rng_state())
    frozen = machine.frozen(IO(x), state).f.detach()
    kept = a != 0
    assert torch.allclose(a[kept], 2 * frozen.expand_as(a)[kept], atol=1e-5)  # dropout 0.5 doubles what it keeps


# -------------------------------------------------------------------------------------- the slots for targets


class Half(zk.StepY):
    """Half way to the target."""

    def step_y(self, machine: Machine, t: IO, state: State) -> IO:
        return IO(*((a.detach() + b) / 2 for a, b in zip(state.outputs, t, strict=True)))


def test_a_y_rule_replaces_the_target_before_accumulate() -> None:
    torch.manual_seed(0)
    half, x, t = nn.Linear(3, 2), torch.randn(4, 3), torch.randn(4, 2)
    plain = copy.deepcopy(half)
    Machine(half, gradient(0.2), zk.targets.Gradient(), y=Half()).learn(x, t)
    Machine(plain, gradient(0.1), zk.targets.Gradient()).learn(x, t)
    assert torch.allclose(half.weight, plain.weight, atol=1e-6)


@pytest.mark.parametrize("drive", ["learn", "backward"])
def test_every_machine_of_a_chain_can_ask_the_networks_cost_of_its_outputs(drive: str) -> None:
    asked: list[Tensor] = []
    outputs: list[Tensor] = []

    class Ask(zk.StepY):
        def step_y(self, machine: Machine, t: IO, state: State) -> IO:
            y = state.outputs.detach()
            asked.append(state.cost_above(y.tile(3)).detach().view(3, -1))
            if state.position == 0:
                outputs.append(torch.randn(16, 3))
                asked.append(state.cost_above(IO(outputs[0])).detach().view(2, -1))
            return t

    def layer(i: int, o: int, criterion: zk.Criterion = zk.sse) -> Machine:
        module = nn.Sequential(nn.Linear(i, o), nn.BatchNorm1d(o))
        return Machine(module, gradient(), zk.targets.Gradient(), criterion, y=Ask())

    chain = zk.Chain(layer(5, 4), layer(4, 4), layer(4, 3, zk.cross_entropy))
    x, t = torch.randn(8, 5), torch.randint(3, (8,))
    if drive == "learn":
        cost = chain.learn(x, t)
        other = asked.pop(1)
        assert len(asked) == 3
        assert all(torch.allclose(a.mean(1), cost.expand(3), atol=1e-5) for a in asked)
        torch.testing.assert_close(other, zk.cross_entropy(IO(outputs[0]), IO(t.repeat(2))).view(2, -1))
    else:  # only gradients are known: the cost is the loss's change to first order
        y = chain(x)
        loss = nn.functional.cross_entropy(y, t)
        loss.backward()
        p = y.detach().softmax(1) - nn.functional.one_hot(t, 3)
        other = asked.pop(1)
        assert len(asked) == 3
        assert all(torch.allclose(a, torch.zeros(3, 8), atol=1e-4) for a in asked)
        torch.testing.assert_close(other, (p * (outputs[0].view(2, 8, 3) - y.detach())).sum(2), atol=1e-4, rtol=1e-4)


def test_a_machine_knows_the_machine_below_it() -> None:
    below, above = (Machine(nn.Linear(i, o), gradient(), zk.targets.Gradient()) for i, o in ((2, 3), (3, 1)))
    chain = zk.Chain(below, above)
    state = State()
    chain.forward_nn(IO(torch.ones(4, 2)), state)
    assert state.sub("1").incoming == (below, state.sub("0"))
    assert state.sub("0").incoming is None


def test_two_passes_have_two_memories() -> None:
    a, b = State(), State()
    a.sub("0").data["k"] = 1
    assert "k" not in b.sub("0").data
    assert list(a.subs) == ["0"]


@pytest.mark.parametrize("drive", ["learn", "loop"])
def test_a_pass_is_freed_with_its_last_user_without_the_garbage_collector(drive: str) -> None:
    chain = zk.Chain(*(Machine(nn.Linear(3, 3), gradient(), zk.targets.Gradient()) for _ in range(3)))
    optimizer, kept = zk.Optimizer(chain), []
    for m in (chain, *chain.machines):
        m.register_hook("forward", lambda call: kept.append(weakref.ref(call.state)))
    gc.disable()
    try:
        if drive == "learn":
            chain.learn(torch.ones(2, 3), torch.ones(2, 3))
        else:
            chain(torch.ones(2, 3)).sum().backward()
            optimizer.step()
        assert len(kept) == 4
        assert [ref() for ref in kept] == [None] * 4
    finally:
        gc.enable()


def test_a_whole_machine_can_be_saved_and_goes_on_as_the_original() -> None:
    machine, file, x, t = normed(), io.BytesIO(), torch.randn(6, 5), torch.randn(6, 4)
    machine.learn(x, t)
    machine(x).sum().backward()
    torch.save(machine, file)
    file.seek(0)
    other = torch.load(file, weights_only=False)
    assert other.criterion is zk.sse
    for p in machine.parameters():
        p.grad = None
    assert torch.equal(machine.learn(x, t), other.learn(x, t))
    assert all(torch.equal(a, b) for a, b in zip(machine.parameters(), other.parameters(), strict=True))


def test_a_machine_that_was_refused_uses_up_none_of_its_rules() -> None:
    module, rule = nn.Sequential(nn.Linear(2, 2), zk.modules.Sign()), zk.theta.Delta(torch.optim.SGD, lr=0.1)
    with pytest.raises(TypeError, match="expected a module that is 'differentiable'"):
        Machine(module, rule, zk.targets.Gradient())
    Machine(module, rule, zk.targets.Null())
    rule = zk.theta.Delta(torch.optim.SGD, momentum=-1)
    for _ in range(2):
        with pytest.raises(ValueError, match="momentum"):
            Machine(module, rule, zk.targets.Null())
    taken = gradient()
    Machine(nn.Linear(2, 2), taken, zk.targets.Null())
    for _ in range(2):
        with pytest.raises(RuntimeError, match="serve one machine"):
            Machine(nn.Linear(2, 2), taken, zk.targets.Null())


@pytest.mark.parametrize("scale", ["a", float("nan"), None])
def test_a_scale_that_is_no_finite_number_is_refused(scale: object) -> None:
    with pytest.raises(TypeError, match="scale expected a finite number, got"):
        normed(scale=scale)


@pytest.mark.parametrize(
    ("module", "name"), [(lambda x: x, "<lambda>"), (torch.relu, "relu"), (nn.ReLU, "ReLU"), (None, "NoneType")]
)
def test_what_is_no_module_is_refused_by_name(module: object, name: str) -> None:
    with pytest.raises(
        TypeError, match=rf"Machine expected an nn\.Module, got {name}: modules\.BlackBox makes a module"
    ):
        Machine(module, zk.theta.Null(), zk.targets.Null())  # type: ignore[arg-type]
