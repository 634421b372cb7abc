"""Every rule under local losses other than squared error: right to the formula, learning, or refused with why."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeRegressor
from torch import Tensor, nn

import tansaku
import zenkai_core as zk
from zenkai_core import IO, Chain, Machine, State, StepTheta, StepX, StepY, criteria, modules, targets, theta
from zenkai_core.linear import ridge

pytestmark = pytest.mark.usefixtures("float64")

DISTANCES: dict[str, zk.Criterion] = {"absolute_error": criteria.absolute_error, "huber": criteria.huber}
OTHERS: dict[str, zk.Criterion] = {
    "cross_entropy": zk.cross_entropy,
    "binary_cross_entropy": criteria.binary_cross_entropy,
    "margin": criteria.margin,
}
WEIGHTED = {"weighted": zk.Weighted((0.5, criteria.huber), (2.0, zk.sse))}
LOSSES = {**DISTANCES, **OTHERS, **WEIGHTED}
CURVED = ("huber", "cross_entropy", "binary_cross_entropy")  # by at most 1


def batch(loss: str, n: int = 24) -> tuple[Tensor, Tensor]:
    x, w = torch.randn(n, 4), torch.randn(4, 3)
    if loss in ("cross_entropy", "margin"):
        return x, (x @ w).argmax(1)
    return x, (x @ w > 0).double() if loss == "binary_cross_entropy" else x @ w


def slope(y: Tensor, t: Tensor, loss: str) -> Tensor:
    """dl/dy by autograd, of torch's own losses."""
    y = y.detach().requires_grad_()
    f = nn.functional
    costs = {
        "absolute_error": lambda: f.l1_loss(y, t, reduction="sum"),
        "huber": lambda: f.huber_loss(y, t, reduction="sum"),
        "cross_entropy": lambda: f.cross_entropy(y, t, reduction="sum"),
        "binary_cross_entropy": lambda: f.binary_cross_entropy_with_logits(y, t, reduction="sum"),
        "margin": lambda: (1 + y.scatter(1, t[:, None], -9e9).amax(1) - y.gather(1, t[:, None])[:, 0]).relu().sum(),
        "weighted": lambda: 0.5 * f.huber_loss(y, t, reduction="sum") + (y - t).square().sum(),
    }
    return torch.autograd.grad(costs[loss](), y)[0]


# --------------------------------------------------------------------------------------------------------- the formula


@pytest.mark.parametrize("activation", [None, nn.Tanh])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_delta_rule_is_the_gradient_of_any_criterion(loss: str, activation: type[nn.Module] | None) -> None:
    linear = nn.Linear(4, 3)
    module = linear if activation is None else nn.Sequential(linear, activation())
    other = copy.deepcopy(module)
    rules = theta.Delta(torch.optim.Adam, lr=0.1), theta.Gradient(torch.optim.Adam, lr=0.1)
    x, t = batch(loss)
    for m, rule in zip((module, other), rules, strict=True):
        machine = Machine(m, rule, targets.Null(), LOSSES[loss])
        costs = [machine.learn(x, t) for _ in range(20)]
        assert costs[-1] < costs[0]
    for a, b in zip(module.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("loss", [name for name in LOSSES if name != "margin"])
def test_the_delta_rule_calls_autograd_for_no_closed_form(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("autograd was called")

    monkeypatch.setattr(torch.autograd, "grad", refuse)
    monkeypatch.setattr(torch.autograd, "backward", refuse)
    machine = Machine(nn.Linear(4, 3), theta.Delta(torch.optim.SGD, lr=1e-3), targets.Null(), LOSSES[loss])
    x, t = batch(loss)
    assert machine.learn(x, t) > machine.learn(x, t)


@pytest.mark.parametrize("loss", LOSSES)
def test_least_squares_solve_for_the_criterions_slope(loss: str) -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    before, (x, t) = copy.deepcopy(module[0]), batch(loss)
    y = module(x).detach()
    error = slope(y, t, loss) * (1 - y.square())
    machine, state = Machine(module, theta.LeastSquares(0.3), targets.LeastSquares(0.3), LOSSES[loss]), State()
    machine.remember(IO(x), state)
    told = machine.tell(IO(t), state)
    moved = machine.step_x(*told).f - x
    machine.step(*told)
    wanted = ridge(before.weight.detach(), -error.T, 0.3).T
    torch.testing.assert_close(moved, wanted, rtol=1e-9, atol=1e-11)
    dw = ridge(x - x.mean(0), -(error - error.mean(0)), 0.3 * len(x))
    torch.testing.assert_close(module[0].weight - before.weight, dw.T, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(module[0].bias - before.bias, -error.mean(0) - x.mean(0) @ dw, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("damping", [0.0, 0.1])
@pytest.mark.parametrize("loss", CURVED)
def test_a_least_squares_step_never_raises_a_criterion_of_curvature_below_one(loss: str, damping: float) -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        rules = theta.LeastSquares(damping), targets.LeastSquares(damping)
        machine, (x, t) = Machine(nn.Linear(4, 3), *rules, LOSSES[loss]), batch(loss)
        with torch.no_grad():
            machine.module.weight.mul_(5)
        for _ in range(10):
            state = State()
            y = machine.remember(IO(x), state).detach()
            told = machine.tell(IO(t), state)
            nearer = machine.frozen(machine.step_x(*told), state)
            assert (machine.assess_y(nearer, IO(t)) <= machine.assess_y(y, IO(t)) + 1e-12).all()
            machine.step(*told)
            assert machine.assess_y(y, IO(t)).mean() >= machine.test(x, t) - 1e-12


# ---------------------------------------------------------------------------------------------- every rule, every loss

THETA: dict[str, Callable[[], StepTheta]] = {
    "gradient": lambda: theta.Gradient(torch.optim.SGD, lr=0.05, n=2),
    "minibatches": lambda: theta.Gradient(torch.optim.SGD, lr=0.05, batch_size=8),
    "delta": lambda: theta.Delta(torch.optim.SGD, lr=0.05),
    "least squares": lambda: theta.LeastSquares(0.1, lr=0.2),
    "search": lambda: theta.Search(tansaku.HillClimb(k=16, std=0.1), seed=0),
    "postponed": lambda: theta.Postponed(theta.Delta(torch.optim.SGD, lr=0.1), every=2),
    "filtered": lambda: theta.Filtered(theta.LeastSquares(0.1), torch.optim.SGD, lr=0.2),
    "limited": lambda: theta.Limited(
        theta.Delta(torch.optim.SGD, lr=0.05), {"weight": torch.tensor([[True], [True], [False]])}
    ),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", THETA)
def test_every_rule_for_theta_lowers_every_local_loss(name: str, loss: str) -> None:
    machine, (x, t) = Machine(nn.Linear(4, 3), THETA[name](), targets.Null(), LOSSES[loss]), batch(loss)
    first = machine.test(x, t)
    for _ in range(30):
        machine.learn(x, t)
    assert machine.test(x, t) < 0.9 * first


@pytest.mark.parametrize("loss", LOSSES)
def test_fits_reach_places_and_labels_and_refuse_what_is_neither(loss: str) -> None:
    x, t = batch(loss, 200)
    labels = t.ndim == 1
    if labels:
        module: nn.Module = modules.Estimators(4, 3, kind="classification")
        rule = theta.Fit(LogisticRegression, rows=200)
    else:
        module = modules.Trees(4, 3)
        rule = theta.Fit(lambda: DecisionTreeRegressor(max_depth=6, criterion="absolute_error"), rows=200)
    machine = Machine(module, rule, targets.Null(), LOSSES[loss])
    if loss == "binary_cross_entropy":
        with pytest.raises(TypeError, match=r"a place among the outputs .*, got binary_cross_entropy for a regr"):
            machine.learn(x, t)
        return
    first = machine.learn(x, t)
    assert machine.test(x, t) < 0.7 * first
    if labels:
        regressor = Machine(modules.Trees(4, 3), theta.Fit(rows=200), targets.Null(), LOSSES[loss])
        with pytest.raises(TypeError, match="take a module of kind 'classification' for labels"):
            regressor.learn(x, t)


def equal_feedback(rule: StepX) -> Callable[[Machine], None]:
    def set_(machine: Machine) -> None:
        rule.get_buffer("feedback_0").copy_(machine.module.weight) if "feedback_0" in rule._buffers else (
            rule.get_parameter("feedback_0").data.copy_(machine.module.weight)
        )

    return set_


X: dict[str, Callable[[], StepX]] = {
    "gradient": lambda: targets.Gradient(3, scale=0.02),
    "minibatches": lambda: targets.Gradient(2, scale=0.02, batch_size=8),
    "feedback": targets.FeedbackAlignment,
    "learned feedback": lambda: targets.KolenPollack(torch.optim.SGD, lr=0.1),
    "least squares": lambda: targets.LeastSquares(10.0),
    "search": lambda: targets.SearchX(tansaku.HillClimb(k=16, std=0.1), seed=0),
    "limited": lambda: targets.Limited(targets.Gradient(scale=0.02), [0, 2]),
    "reverse": targets.Reverse,
    "difference": targets.Difference,
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", X)
def test_every_rule_for_x_asks_for_inputs_of_a_lower_local_loss_or_says_why_not(name: str, loss: str) -> None:
    rule = X[name]()
    module = modules.InvertibleLinear(4) if name in ("reverse", "difference") else nn.Linear(4, 3)
    machine, (x, t), state = Machine(module, theta.Null(), rule, LOSSES[loss]), batch(loss), State()
    if isinstance(module, modules.InvertibleLinear) and t.ndim == 2:
        t = torch.cat([t, t[:, :1]], 1)
    if "feedback" in name:
        equal_feedback(rule)(machine)
    y = machine.remember(IO(x), state).detach()
    machine.tell(IO(t), state)
    if name in ("reverse", "difference") and loss in OTHERS:
        with pytest.raises(TypeError, match=f"a place among the outputs .*, got {loss}: take targets.Gradient"):
            machine.step_x(state.inputs, IO(t), state)
        return
    nearer = machine.step_x(state.inputs, IO(t), state)
    assert machine.assess_y(machine.frozen(nearer, state), IO(t)).mean() < machine.assess_y(y, IO(t)).mean()
    if "feedback" in name:
        torch.testing.assert_close(nearer.f, x - slope(y.f, t, loss) @ machine.module.weight)


@pytest.mark.parametrize("loss", LOSSES)
def test_proposals_that_cost_less_by_the_local_loss_win(loss: str) -> None:
    below = Machine(nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5)), theta.Null(), targets.Null())
    net = Chain(below, Machine(nn.Linear(6, 3), theta.Null(), targets.Proposals(k=16), LOSSES[loss]))
    (x, t), state = batch(loss), State()
    y = net.remember(IO(x), state).detach()
    told, top = net.tell(IO(t), state), state.sub("1")
    assert told.t.f is t
    found = net[1].frozen(top.inputs, top), net[1].frozen(state.sub("0").t, top)
    before, after = (net[1].assess_y(v, IO(t)) for v in found)
    assert torch.equal(found[0].f, y.f)
    assert (after <= before).all()
    assert after.mean() < before.mean()


# ---------------------------------------------------------------------------------------------- a layer's own target


def own(name: str) -> StepY:
    if name == "search":
        return targets.SearchY(tansaku.HillClimb(k=64, std=0.5), score="local", seed=0)
    return targets.DirectFeedback(seed=0) if name == "direct feedback" else targets.LocalReadout(zk.sse, seed=0)


@pytest.mark.parametrize("rule", [theta.Gradient, theta.Delta])
@pytest.mark.parametrize("name", ["search", "direct feedback"])
@pytest.mark.parametrize("loss", OTHERS)
def test_a_place_found_for_labels_is_approached_by_squared_error(loss: str, name: str, rule: type) -> None:
    machine = Machine(nn.Linear(4, 3), rule(torch.optim.SGD, lr=1.0), targets.Null(), LOSSES[loss], y=own(name))
    before, (x, t), state = machine.module.weight.detach().clone(), batch(loss), State()
    y = machine.remember(IO(x), state).f.detach()
    told = machine.tell(IO(t), state)
    assert told.t.f.shape == y.shape
    machine.step(*told)
    torch.testing.assert_close(machine.module.weight, before - (y - told.t.f).T @ x / len(x))


@pytest.mark.parametrize("name", ["search", "direct feedback", "local readout"])
@pytest.mark.parametrize("loss", DISTANCES)
def test_a_place_is_approached_by_the_layers_own_distance(loss: str, name: str) -> None:
    rule = theta.Gradient(torch.optim.SGD, lr=1.0)
    machine = Machine(nn.Linear(4, 3), rule, targets.Null(), LOSSES[loss], y=own(name))
    before, (x, t), state = machine.module.weight.detach().clone(), batch(loss), State()
    y = machine.remember(IO(x), state).f.detach()
    told = machine.tell(IO(t), state)
    machine.step(*told)
    torch.testing.assert_close(machine.module.weight, before - slope(y, told.t.f, loss).T @ x / len(x))


def test_answers_of_the_criterions_own_kind_go_to_the_criterion() -> None:
    class Softened(StepY):
        """Labels as probabilities."""

        def step_y(self, machine: Machine, t: IO, state: State) -> IO:
            return IO(0.9 * nn.functional.one_hot(t.f, 3) + 0.1 / 3)

    rule = theta.Delta(torch.optim.SGD, lr=1.0)
    machine = Machine(nn.Linear(4, 3), rule, targets.Null(), zk.cross_entropy, y=Softened())
    before, (x, t) = machine.module.weight.detach().clone(), batch("cross_entropy")
    p = machine.module(x).detach().softmax(1)
    machine.learn(x, t)
    wanted = 0.9 * nn.functional.one_hot(t, 3) + 0.1 / 3
    torch.testing.assert_close(machine.module.weight, before - (p - wanted).T @ x / len(x))


def test_a_criterion_without_a_slope_is_told_from_a_broken_graph_by_every_rule_that_needs_one() -> None:
    for rule in (theta.Delta(), theta.LeastSquares()):
        machine = Machine(nn.Linear(4, 3), rule, targets.Null(), criteria.zero_one)
        with pytest.raises(RuntimeError, match="expected a criterion with one, got zero_one, which cuts"):
            machine.learn(*batch("cross_entropy"))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_least_squares_name_what_is_not_finite(bad: float) -> None:
    machine = Machine(nn.Linear(4, 3), theta.LeastSquares(0.0), targets.LeastSquares(0.0))
    x, t = batch("huber")
    wrong = x.clone()
    wrong[3, 1] = bad
    with pytest.raises(ValueError, match=r"expected finite numbers, got (nan|inf) in x, row 3"):
        machine.learn(wrong, t)
    wrong = t.clone()
    wrong[0, 0] = bad
    with pytest.raises(ValueError, match=r"expected finite numbers, got (nan|inf) in t, row 0"):
        machine.learn(x, wrong)
    machine.learn(x, t)
    assert machine.module.weight.isfinite().all()
    state = State()
    machine.remember(IO(x), state)
    for name, where in (("error", state.outputs.f), ("weights", machine.module.weight)):
        where.data[0, 0] = bad
        with pytest.raises(ValueError, match=f"targets.LeastSquares expected finite numbers, got .* in the {name}: "):
            machine.step_x(state.inputs, IO(t), state)
        where.data[0, 0] = 0.0
