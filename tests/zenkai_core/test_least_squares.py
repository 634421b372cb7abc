"""Least squares and ridge, for theta and for x: the change is penalised, the bias is free, the limits are right."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import zenkai_core as zk
from zenkai_core import IO, Chain, Machine, State
from zenkai_core.linear import ridge, ridge_normal
from zenkai_core.testing import check_machine

pytestmark = pytest.mark.usefixtures("float64")


def augmented(a: Tensor, b: Tensor, damping: float, free: int = 0) -> Tensor:
    """The ridge solution by numpy's lstsq on rows sqrt(damping) * I below A; the last `free` columns unpenalised."""
    n = a.shape[1]
    below = damping**0.5 * np.eye(n)[: n - free]
    stacked = np.concatenate([a.numpy(), below]), np.concatenate([b.numpy(), np.zeros((len(below), b.shape[1]))])
    return torch.from_numpy(np.linalg.lstsq(*stacked, rcond=None)[0])


def rows(m: int, n: int, rank: int | None = None) -> Tensor:
    return torch.randn(m, n) if rank is None else torch.randn(m, rank) @ torch.randn(rank, n)


SHAPES = [(20, 5, None), (5, 20, None), (8, 8, None), (20, 8, 3), (5, 20, 3), (1, 4, None)]


@pytest.mark.parametrize("damping", [0.0, 1e-6, 0.5, 30.0])
@pytest.mark.parametrize(("m", "n", "rank"), SHAPES)
def test_ridge_is_lstsq_of_the_augmented_system(m: int, n: int, rank: int | None, damping: float) -> None:
    a, b = rows(m, n, rank), torch.randn(m, 3)
    expected = augmented(a, b, damping)
    assert torch.allclose(ridge(a, b, damping), expected, rtol=1e-7, atol=1e-7)
    assert torch.allclose(ridge_normal(a.T @ a, a.T @ b, damping), expected, rtol=1e-6, atol=1e-6)


def test_ridge_takes_batches_of_systems_and_gives_float64() -> None:
    for m, n in ((6, 3), (3, 6)):
        a, b = torch.randn(2, 4, m, n), torch.randn(2, 4, m, 2)
        for damping in (0.0, 0.5):
            got = ridge(a, b, damping)
            for i, j in itertools.product(range(2), range(4)):
                assert torch.allclose(got[i, j], ridge(a[i, j], b[i, j], damping), rtol=0, atol=1e-12)
    assert ridge(a.float(), b.float(), 0.5).dtype == torch.float64


def test_a_damping_below_rounding_still_has_a_solution() -> None:
    a, b = rows(20, 8, 3) * 1e4, torch.randn(20, 2)
    assert torch.allclose(ridge(a, b, 1e-12), torch.linalg.pinv(a) @ b, rtol=1e-3, atol=1e-9)


# ------------------------------------------------------------------------------------------------------------- theta


def stepped(
    module: nn.Module, rule: zk.theta.LeastSquares, *batches: tuple[Tensor, Tensor], loss: str = "mean"
) -> None:
    machine = Machine(module, rule, zk.targets.Null(), loss=loss)  # type: ignore[arg-type]
    for x, t in batches:
        state = State()
        machine.remember(IO(x), state)
        told = machine.tell(IO(t), state)
    machine.step(*told)


@pytest.mark.parametrize("loss", ["mean", "sum"])
@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("damping", [0.0, 0.3])
@pytest.mark.parametrize(("m", "n", "rank"), SHAPES)
def test_the_change_solves_the_penalised_problem(
    m: int, n: int, rank: int | None, damping: float, bias: bool, passes: int, loss: str
) -> None:
    linear = nn.Linear(n, 3, bias=bias)
    before = copy.deepcopy(linear)
    batches = [(rows(m, n, rank), torch.randn(m, 3)) for _ in range(passes)]
    stepped(linear, zk.theta.LeastSquares(damping, lr=0.5), *batches, loss=loss)
    x, t = (torch.cat(v) for v in zip(*batches, strict=True))
    e = t - before(x).detach()
    scaled = damping * (len(x) if loss == "mean" else 1)
    if damping == 0 and bias:  # the shortest dW for the free bias's best place
        change = torch.linalg.pinv(x - x.mean(0)) @ (e - e.mean(0))
        change = torch.cat([change, (e.mean(0) - x.mean(0) @ change)[None]])
    else:
        change = augmented(torch.cat([x, torch.ones(len(x), 1)], 1) if bias else x, e, scaled, free=int(bias))
    assert torch.allclose(2 * (linear.weight - before.weight), change[:n].T, rtol=1e-6, atol=1e-6)
    if bias:
        assert torch.allclose(2 * (linear.bias - before.bias), change[n], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("m", [4, 40])
@pytest.mark.parametrize("activation", [None, nn.Tanh, nn.ReLU])
def test_towards_infinite_damping_the_step_is_gradient_descent(activation: type | None, m: int) -> None:
    linear = nn.Linear(6, 3, bias=False)
    module = linear if activation is None else nn.Sequential(linear, activation())
    x, t, before = torch.randn(m, 6), torch.randn(m, 3), linear.weight.detach().clone()
    (gradient,) = torch.autograd.grad(0.5 * (module(x) - t).square().sum(1).mean(), linear.weight)
    stepped(module, zk.theta.LeastSquares(1e8), (x, t))
    assert torch.allclose((before - linear.weight) * 1e8, gradient, rtol=1e-5, atol=1e-6)


def test_with_a_bias_the_limit_is_the_gradient_once_the_bias_has_moved() -> None:
    linear = nn.Linear(6, 3)
    x, t, before = torch.randn(40, 6), torch.randn(40, 3), copy.deepcopy(linear)
    moved = (t - linear(x)).detach().mean(0)
    gradient = torch.autograd.grad(0.5 * (linear(x) + moved - t).square().sum(1).mean(), linear.weight)[0]
    stepped(linear, zk.theta.LeastSquares(1e8), (x, t))
    assert torch.allclose((before.weight - linear.weight) * 1e8, gradient, rtol=1e-5, atol=1e-6)
    assert torch.allclose(linear.bias - before.bias, moved, rtol=0, atol=1e-7)


@pytest.mark.parametrize("m", [3, 20])
def test_what_is_frozen_stays_and_the_rest_is_solved(m: int) -> None:
    x, t = torch.randn(m, 6), torch.randn(m, 2)
    linear = nn.Linear(6, 2)
    linear.weight.requires_grad_(False)
    e = (t - linear(x)).detach()
    before = copy.deepcopy(linear)
    stepped(linear, zk.theta.LeastSquares(), (x, t))
    assert torch.equal(linear.weight, before.weight)
    assert torch.allclose(linear.bias, before.bias + e.mean(0), rtol=0, atol=1e-12)
    linear = nn.Linear(6, 2)
    linear.bias.requires_grad_(False)
    before = copy.deepcopy(linear)
    stepped(linear, zk.theta.LeastSquares(0.5), (x, t))
    change = augmented(x, (t - before(x)).detach(), 0.5 * m)
    assert torch.equal(linear.bias, before.bias)
    assert torch.allclose(linear.weight, before.weight + change.T, rtol=0, atol=1e-9)


def test_rows_of_sequences_are_rows_of_the_system() -> None:
    x, t = torch.randn(4, 5, 6), torch.randn(4, 5, 2)
    one, other = nn.Linear(6, 2), nn.Linear(6, 2)
    other.load_state_dict(one.state_dict())
    stepped(one, zk.theta.LeastSquares(0.1), (x, t), loss="sum")
    stepped(other, zk.theta.LeastSquares(0.1), (x.flatten(0, 1), t.flatten(0, 1)), loss="sum")
    assert torch.allclose(one.weight, other.weight, rtol=0, atol=1e-12)


def test_a_step_without_a_pass_and_a_forgotten_pass_move_nothing() -> None:
    machine = Machine(nn.Linear(3, 2), zk.theta.LeastSquares(), zk.targets.Null())
    before, state, x, t = machine.module.weight.clone(), State(), IO(torch.randn(4, 3)), IO(torch.randn(4, 2))
    machine.remember(x, state)
    machine.tell(t, state)
    machine.forget()
    machine.step(x, t, state)
    assert torch.equal(machine.module.weight, before)


# ----------------------------------------------------------------------------------------------------------------- x


def target(module: nn.Module, x: Tensor, t: Tensor, damping: float, **kw: float) -> Tensor:
    machine, state = Machine(module, zk.theta.Null(), zk.targets.LeastSquares(damping, **kw)), State()
    machine.remember(IO(x), state)
    return machine.step_x(state.inputs, IO(t), state).f


@pytest.mark.parametrize("damping", [0.0, 0.3, 10.0])
@pytest.mark.parametrize(("o", "i", "rank"), SHAPES)
def test_the_change_of_x_solves_the_penalised_problem_row_by_row(
    o: int, i: int, rank: int | None, damping: float
) -> None:
    linear = nn.Linear(i, o)
    linear.weight.data = rows(o, i, rank)
    x, t = torch.randn(7, i), torch.randn(7, o)
    got = target(linear, x, t, damping, scale=0.5)
    change = augmented(linear.weight.detach(), (t - linear(x)).detach().T, damping).T
    assert torch.allclose(2 * (got - x), change, rtol=1e-7, atol=1e-7)


def test_an_invertible_square_layer_makes_an_exact_round_trip() -> None:
    linear = nn.Linear(8, 8)
    x, t = torch.randn(5, 8), torch.randn(5, 8)
    assert torch.allclose(linear(target(linear, x, t, 0.0)), t, rtol=0, atol=1e-10)


@pytest.mark.parametrize("activation", [None, nn.Sigmoid, nn.ReLU])
def test_towards_infinite_damping_the_target_lies_against_the_gradient(activation: type | None) -> None:
    linear = nn.Linear(6, 3)
    module = linear if activation is None else nn.Sequential(linear, activation())
    x, t = torch.randn(5, 6, requires_grad=True), torch.randn(5, 3)
    (gradient,) = torch.autograd.grad(0.5 * (module(x) - t).square().sum(), x)
    assert torch.allclose((x.detach() - target(module, x.detach(), t, 1e8)) * 1e8, gradient, rtol=1e-5, atol=1e-6)


def test_behind_an_activation_the_linear_map_gets_a_gradient_steps_target() -> None:
    linear = nn.Linear(4, 4)
    x, t = torch.randn(5, 4), torch.randn(5, 4)
    a, y = linear(x), torch.tanh(linear(x))
    got = target(nn.Sequential(linear, nn.Tanh()), x, t, 0.0)
    assert torch.allclose(linear(got), a - (y - t) * (1 - y.square()), rtol=0, atol=1e-10)


@pytest.mark.parametrize("damping", [0.01, 1.0, 1e8])
def test_it_notes_the_angle_to_the_gradient(damping: float) -> None:
    linear, state = nn.Linear(6, 5), State(notes={})
    machine = Machine(linear, zk.theta.Null(), zk.targets.LeastSquares(damping))
    x, t = torch.randn(7, 6), torch.randn(7, 5)
    e = (linear(x) - t).detach()
    machine.remember(IO(x), state)
    change = (x - machine.step_x(state.inputs, IO(t), state).f).flatten()
    gradient = (e @ linear.weight).detach().flatten()
    cosine = change @ gradient / (change.norm() * gradient.norm())
    assert state.notes["x_angle"].item() == pytest.approx(
        torch.rad2deg(torch.arccos(cosine.clamp(-1, 1))).item(), abs=1e-4
    )


def test_in_float32_an_ill_conditioned_layer_loses_only_its_last_digits() -> None:
    u, _ = torch.linalg.qr(torch.randn(30, 30))
    v, _ = torch.linalg.qr(torch.randn(30, 30))
    linear = nn.Linear(30, 30, bias=False)
    linear.weight.data = (u * torch.logspace(0, -4, 30)) @ v
    x, e = torch.randn(5, 30), torch.randn(5, 30)
    exact = augmented(linear.weight.detach(), e.T, 1e-6).T
    linear.float()
    got = target(linear, x.float(), (linear(x.float()) + e.float()).detach(), 1e-6) - x.float()
    assert (got - exact).norm() < 1e-2 * exact.norm()


# -------------------------------------------------------------------------------------------------------------- both


def test_hidden_units_learn_by_least_squares_alone() -> None:
    x = torch.randn(200, 5)
    t = torch.tanh(x @ torch.randn(5, 4)) @ torch.randn(4, 2)
    costs = []
    for hidden in (zk.theta.LeastSquares(0.1, lr=0.3), zk.theta.Null()):
        torch.manual_seed(1)
        net = Chain(
            Machine(nn.Sequential(nn.Linear(5, 20), nn.Tanh()), hidden, zk.targets.Null()),
            Machine(nn.Linear(20, 2), zk.theta.LeastSquares(0.1, lr=0.3), zk.targets.LeastSquares(0.1)),
        )
        for _ in range(100):
            net.learn(x, t)
        costs.append(net.test(x, t))
    assert costs[0] < 0.6 * costs[1]


def test_no_graph_is_kept() -> None:
    machine, state = Machine(nn.Linear(3, 2), zk.theta.LeastSquares(), zk.targets.LeastSquares()), State()
    assert not machine.remember(IO(torch.randn(4, 3)), state).f.requires_grad


@pytest.mark.parametrize("activation", [nn.Identity, nn.Sigmoid])
def test_it_conforms(activation: type) -> None:
    def make() -> tuple[Machine, Tensor, Tensor]:
        module = nn.Sequential(nn.Linear(4, 3), activation())
        return Machine(module, zk.theta.LeastSquares(0.1, lr=0.5), zk.targets.LeastSquares()), *batch()

    check_machine(make)


def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(12, 4), torch.rand(12, 3)


def test_wrong_arguments_are_refused() -> None:
    for rule in (zk.theta.LeastSquares, zk.targets.LeastSquares):
        for damping in (-1.0, float("inf"), "0.1"):
            with pytest.raises(ValueError, match=rf"LeastSquares expected a finite damping >= 0, got {damping!r}"):
                rule(damping)  # type: ignore[arg-type]
        machine = Machine(nn.Linear(3, 2), zk.theta.LeastSquares(), zk.targets.LeastSquares())
    with pytest.raises(ValueError, match=r"theta\.LeastSquares expected lr > 0, got 0"):
        zk.theta.LeastSquares(lr=0)
    with pytest.raises(ValueError, match=r"targets\.LeastSquares expected scale > 0, got 0"):
        zk.targets.LeastSquares(scale=0)
    with pytest.raises(TypeError, match=r"LeastSquares expected a module that is 'linear', got Sequential"):
        Machine(nn.Sequential(nn.ReLU()), zk.theta.LeastSquares(), zk.targets.Null())
    state = State()
    machine.remember(IO(torch.randn(4, 3)), state)
    with pytest.raises(ValueError, match=r"shaped as the output \[4, 2\], got \[4, 3\]"):
        machine.step_x(state.inputs, IO(torch.randn(4, 3)), state)
    machine.module = nn.ReLU()
    with pytest.raises(TypeError, match="the module was changed after it was bound"):
        machine.step_x(state.inputs, IO(torch.randn(4, 2)), state)


def test_after_the_layers_own_step_its_present_output_is_what_has_to_change() -> None:
    torch.manual_seed(0)
    machine = Machine(
        nn.Linear(3, 3).double(), zk.theta.Gradient(torch.optim.SGD, lr=0.1), zk.targets.LeastSquares(0.0)
    )
    state = State()
    machine.remember(IO(torch.randn(4, 3).double()), state)
    told = machine.tell(IO(torch.randn(4, 3).double()), state)
    machine.step(*told)
    reached = machine.module(machine.step_x(*told).f)
    torch.testing.assert_close(reached, told.t.f, rtol=1e-9, atol=1e-9)
