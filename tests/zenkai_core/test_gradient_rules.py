from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import Tensor, nn

import zenkai_core as zk
from zenkai_core import IO, Machine, State

pytestmark = pytest.mark.usefixtures("float64")


def machine(module: nn.Module, *, n: int = 1, of_x: int = 1, lr: float = 0.1, **kw: object) -> Machine:
    rule = zk.theta.Gradient(torch.optim.SGD, lr=lr, n=n)
    return Machine(module, rule, zk.targets.Gradient(of_x), **kw)  # type: ignore[arg-type]


def passed(m: Machine, x: Tensor, t: Tensor) -> State:
    state = State()
    m.forward_nn(IO(x), state)
    m.accumulate(IO(x), IO(t), state)
    return state


def reference(module: nn.Module, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of the cost per row with respect to x, and the costs, in one obvious way."""
    leaf = x.clone().requires_grad_()
    cost = 0.5 * (module(leaf) - t).square().sum(1)
    return torch.autograd.grad(cost.sum(), leaf)[0], cost


@pytest.mark.parametrize("n", [1, 2, 40])
def test_n_iterations_of_x_are_n_steps_down_the_cost(n: int) -> None:
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh())
    x, t = torch.randn(8, 4), torch.randn(8, 6)
    m = Machine(module, zk.theta.Gradient(torch.optim.SGD), zk.targets.Gradient(n, scale=0.05))
    expected = x
    for _ in range(n):
        expected = expected - 0.05 * reference(copy.deepcopy(module), expected, t)[0]
    got = m.step_x(IO(x), IO(t), passed(m, x, t)).f
    assert torch.allclose(got, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_n_local_updates_are_n_steps_of_the_optimiser_with_the_passs_masks(n: int) -> None:
    module = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 3))
    plain = copy.deepcopy(module)
    x, t = torch.randn(8, 4), torch.randn(8, 3)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    for _ in range(n):
        torch.manual_seed(5)
        optimizer.zero_grad()
        (0.5 * (plain(x) - t).square().sum() / 8).backward()
        optimizer.step()
    torch.manual_seed(5)
    machine(module, n=n).learn(x, t)
    pairs = zip(module.parameters(), plain.parameters(), strict=True)
    assert all(torch.allclose(a, b, rtol=0, atol=1e-12) for a, b in pairs)


def test_local_updates_move_no_buffer_a_second_time() -> None:
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6))
    m = machine(module, n=5, of_x=5)
    m.step_x(IO(x := torch.randn(8, 4)), IO(t := torch.randn(8, 6)), passed(m, x, t))
    m.step(IO(x), IO(t), State())
    assert module[1].num_batches_tracked == 1


def test_accumulate_and_step_x_share_one_backward_in_either_order() -> None:
    module = nn.Linear(4, 3)
    x, t = torch.randn(8, 4), torch.randn(8, 3)
    g, _ = reference(module, x, t)
    for first in ("accumulate", "step_x"):
        m, state, io = machine(copy.deepcopy(module)), State(), IO(t)
        m.forward_nn(IO(x), state)
        if first == "accumulate":
            m.accumulate(IO(x), io, state)
        t_x = m.step_x(IO(x), io, state)
        if first == "step_x":
            m.accumulate(IO(x), io, state)
        assert torch.allclose(t_x.f, x - g, rtol=0, atol=1e-14)
        expected = (module(x) - t).T @ x / 8
        assert torch.allclose(m.module.weight.grad, expected, rtol=0, atol=1e-14)


def test_a_pass_can_be_asked_about_several_targets() -> None:
    m, x = machine(nn.Linear(4, 3)), torch.randn(8, 4)
    state = State()
    m.forward_nn(IO(x), state)
    for _ in range(3):
        t = torch.randn(8, 3)
        g, _ = reference(m.module, x, t)
        assert torch.allclose(m.step_x(IO(x), IO(t), state).f, x - g, rtol=0, atol=1e-14)


def test_an_unused_parameter_and_a_frozen_one_stay() -> None:
    class Partly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused, self.frozen = (nn.Linear(2, 2) for _ in range(3))
            self.frozen.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            return self.frozen(self.used(x))

    m = machine(Partly())
    before = copy.deepcopy(m.module)
    m.learn(torch.ones(3, 2), torch.ones(3, 2))
    assert not torch.equal(m.module.used.weight, before.used.weight)
    assert torch.equal(m.module.unused.weight, before.unused.weight)
    assert torch.equal(m.module.frozen.weight, before.frozen.weight)


def test_parameters_that_share_a_gradient_do_not_share_its_storage() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = (nn.Parameter(torch.zeros(3, 2)) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            return x + (self.a + self.b)

    m = machine(Sum())
    passed(m, torch.zeros(3, 2), torch.ones(3, 2))
    m.module.a.grad.mul_(100)
    assert torch.equal(m.module.b.grad, torch.full((3, 2), -1 / 3))


def test_no_gradient_survives_a_step() -> None:
    m = machine(nn.Linear(2, 2))
    m.learn(torch.ones(3, 2), torch.ones(3, 2))
    assert all(p.grad is None for p in m.parameters())


def test_moments_follow_their_parameters_to_another_dtype() -> None:
    m = Machine(nn.Linear(2, 2), zk.theta.Gradient(torch.optim.Adam, lr=0.1), zk.targets.Gradient())
    m.learn(torch.ones(3, 2), torch.ones(3, 2))
    m.float()
    assert m.theta.optimizer.state[m.module.weight]["exp_avg"].dtype == torch.float32
    m.learn(torch.ones(3, 2, dtype=torch.float32), torch.ones(3, 2, dtype=torch.float32))


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="n >= 1 local updates and a batch_size >= 1, got n=0"):
        zk.theta.Gradient(n=0)
    with pytest.raises(ValueError, match="got n=0 and batch_size=None"):
        zk.targets.Gradient(0)
    with pytest.raises(ValueError, match="expected scale > 0, got 0"):
        zk.targets.Gradient(scale=0)
    with pytest.raises(TypeError, match=r"expected an optimiser class such as .*, got float"):
        zk.theta.Gradient(1e-3)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="expected a bound rule, got a free one"):
        _ = zk.theta.Gradient().optimizer


# ------------------------------------------------------------------------------------------------- the delta rule


@pytest.mark.parametrize("loss", ["mean", "sum"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", [None, nn.Identity, nn.ReLU, nn.Tanh, nn.Sigmoid])
def test_the_delta_rule_is_the_gradient_of_the_squared_error(activation: type | None, bias: bool, loss: str) -> None:
    linear = nn.Linear(4, 3, bias=bias)
    module = linear if activation is None else nn.Sequential(linear, activation())
    other = copy.deepcopy(module)
    for m in (
        Machine(module, zk.theta.Delta(torch.optim.Adam, lr=0.1), zk.targets.Null(), loss=loss),  # type: ignore[arg-type]
        Machine(other, zk.theta.Gradient(torch.optim.Adam, lr=0.1), zk.targets.Null(), loss=loss),  # type: ignore[arg-type]
    ):
        torch.manual_seed(0)
        for _ in range(5):
            m.learn(torch.randn(6, 2, 4), torch.randn(6, 2, 3)) if loss == "sum" else m.learn(
                torch.randn(6, 4), torch.randn(6, 3)
            )
    for a, b in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-9)


def test_behind_a_sign_the_delta_rule_is_the_perceptrons() -> None:
    module = nn.Sequential(nn.Linear(3, 2), zk.modules.Sign())
    weight, bias = module[0].weight.clone(), module[0].bias.clone()
    m = Machine(module, zk.theta.Delta(torch.optim.SGD, lr=1.0), zk.targets.Null())
    x, t = torch.randn(5, 3), torch.randn(5, 2).sign()
    e = module(x) - t
    m.learn(x, t)
    assert torch.allclose(module[0].weight, weight - e.T @ x / 5)
    assert torch.allclose(module[0].bias, bias - e.mean(0))


def test_the_delta_rule_calls_autograd_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("autograd was called")

    monkeypatch.setattr(torch.autograd, "grad", refuse)
    monkeypatch.setattr(torch.autograd, "backward", refuse)
    m = Machine(nn.Linear(3, 2), zk.theta.Delta(torch.optim.Adam, lr=0.1), zk.targets.Null())
    assert m.learn(torch.ones(4, 3), torch.ones(4, 2)) > m.learn(torch.ones(4, 3), torch.ones(4, 2))


def test_the_delta_rule_needs_a_target_per_output() -> None:
    m = Machine(nn.Linear(3, 2), zk.theta.Delta(torch.optim.SGD, lr=0.1), zk.targets.Null())
    state = State()
    m.remember(IO(torch.ones(4, 3)), state)
    with pytest.raises(ValueError, match=r"shaped as the output \[4, 2\], got \[4\]"):
        m.tell(IO(torch.tensor([0, 1, 0, 1])), state)


# ---------------------------------------------------------------------------------------------------------- signs


def test_signs_are_minus_one_or_one_and_only_the_straight_through_one_has_a_gradient() -> None:
    x = torch.tensor([-2.0, -0.5, 0.0, 0.5, 2.0], requires_grad=True)
    assert not zk.modules.Sign()(x).requires_grad
    for width, expected in ((1.0, [0, 1, 1, 1, 0]), (torch.inf, [1, 1, 1, 1, 1])):
        y = zk.modules.SignSTE(width)(x)
        assert y.tolist() == [-1, -1, 1, 1, 1]
        assert torch.autograd.grad(y.sum(), x)[0].tolist() == expected
    with pytest.raises(ValueError, match="positive width, got 0"):
        zk.modules.SignSTE(0)


def test_a_straight_through_sign_runs_under_vmap() -> None:
    x = torch.randn(3, 4)
    assert torch.equal(torch.func.vmap(zk.modules.SignSTE())(x), zk.modules.Sign()(x))


def test_sparse_gradients_are_taken_as_they_are() -> None:
    m = machine(nn.Embedding(5, 2, sparse=True))
    before = m.module.weight.detach().clone()
    m.learn(torch.tensor([1, 1, 3]), torch.zeros(3, 2))
    assert torch.allclose(m.module.weight[1], before[1] * (1 - 0.1 * 2 / 3))
    assert torch.equal(m.module.weight[0], before[0])


@pytest.mark.parametrize("rule", [zk.theta.Gradient, zk.theta.Delta])
def test_a_parameter_unfrozen_after_binding_moves_as_if_it_had_never_been_frozen(rule: type) -> None:
    torch.manual_seed(0)
    late = nn.Linear(4, 2)
    early = copy.deepcopy(late)
    late.bias.requires_grad_(False)
    machines = [zk.Machine(m, rule(torch.optim.SGD, lr=0.1), zk.targets.Null()) for m in (late, early)]
    late.bias.requires_grad_(True)
    for _ in range(3):
        x, t = torch.randn(6, 4), torch.randn(6, 2)
        for m in machines:
            m.learn(x, t)
    assert torch.equal(late.bias, early.bias)
    assert late.bias.grad is None


def test_an_optimiser_that_needs_a_closure_is_refused() -> None:
    with pytest.raises(TypeError, match="step\\(\\) needs no closure, got LBFGS"):
        zk.Machine(nn.Linear(2, 2), zk.theta.Gradient(torch.optim.LBFGS), zk.targets.Null())
    model = nn.Sequential(zk.Machine(nn.Linear(2, 2), zk.theta.Null(), zk.targets.Gradient()), nn.Linear(2, 1))
    with pytest.raises(TypeError, match="got LBFGS"):
        zk.Optimizer(model, torch.optim.LBFGS)


def unfrozen_later(rule: type, wrap: bool, late: bool) -> tuple[Machine, nn.Linear]:
    """A layer whose bias, if it is `late`, is frozen when the rule is bound."""
    torch.manual_seed(0)
    module = nn.Linear(4, 2)
    module.bias.requires_grad_(not late)
    inner = rule(torch.optim.AdamW, lr=0.1)
    made = zk.theta.Filtered(inner, torch.optim.SGD, lr=0.5, momentum=0.5) if wrap else inner
    return Machine(module, made, zk.targets.Null()), module


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("rule", [zk.theta.Gradient, zk.theta.Delta])
def test_a_run_with_a_parameter_unfrozen_later_continues_in_a_fresh_machine_bit_for_bit(
    rule: type, late: bool, wrap: bool
) -> None:
    machine, module = unfrozen_later(rule, wrap, True)
    batches = [(torch.randn(6, 4), torch.randn(6, 2)) for _ in range(6)]
    machine.learn(*batches[0])
    module.bias.requires_grad_(True)
    for x, t in batches[1:3]:
        machine.learn(x, t)
    saved = io.BytesIO()
    torch.save(machine.state_dict(), saved)
    saved.seek(0)
    other, fresh = unfrozen_later(rule, wrap, late)
    other.load_state_dict(torch.load(saved, weights_only=True))
    fresh.bias.requires_grad_(True)
    for x, t in batches[3:]:
        assert torch.equal(machine.learn(x, t), other.learn(x, t))
    assert torch.equal(module.weight, fresh.weight)
    assert torch.equal(module.bias, fresh.bias)
    assert [len(g["params"]) for g in zk.Optimizer(other).param_groups] == [1, 1] * (1 + wrap)


def test_a_run_saved_before_a_parameter_was_unfrozen_is_taken_by_a_machine_with_two_groups() -> None:
    early, _ = unfrozen_later(zk.theta.Gradient, False, True)
    x, t = torch.randn(6, 4), torch.randn(6, 2)
    early.learn(x, t)
    late, module = unfrozen_later(zk.theta.Gradient, False, True)
    module.bias.requires_grad_(True)
    late.learn(x, t)
    late.load_state_dict(early.state_dict())
    assert [len(g["params"]) for g in late.theta.optimizer.param_groups] == [1]
    assert len(late.theta.optimizer.state) == 1


def test_an_optimisers_state_for_more_parameters_is_refused() -> None:
    wide = Machine(nn.Linear(4, 2), zk.theta.Gradient(torch.optim.SGD, lr=0.1), zk.targets.Null())
    narrow = Machine(nn.Linear(4, 2, bias=False), zk.theta.Gradient(torch.optim.SGD, lr=0.1), zk.targets.Null())
    with pytest.raises(ValueError, match="state for 1 parameters, got one that moves number 1: make the machine as it"):
        narrow.theta.set_extra_state(wide.theta.get_extra_state())
