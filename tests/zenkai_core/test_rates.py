"""Every rate and scale of a rule is a number or a schedule over the calls of the rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import tansaku
from zenkai_core import IO, Chain, Machine, State, targets, theta
from zenkai_core.modules import Trees, voters

FALLING = tansaku.LinearSchedule(1.0, 0.0)


def x_rule(make: Callable[..., Any], calls: int = 4) -> list[float]:
    """How far a rule's target lies from x, call after call, as a share of the first."""
    torch.manual_seed(0)
    machine = Machine(nn.Linear(3, 2), theta.Null(), make(FALLING, calls))
    x, t, found = torch.randn(5, 3), torch.randn(5, 2), []
    for _ in range(calls + 1):
        state = State()
        machine.remember(IO(x), state)
        found.append(float((machine.step_x(*machine.tell(IO(t), state)).f - x).norm()))
    return [round(length / found[0], 4) for length in found]


@pytest.mark.parametrize(
    "make",
    [
        lambda rate, calls: targets.Gradient(scale=rate, calls=calls),
        lambda rate, calls: targets.LeastSquares(scale=rate, calls=calls),
        lambda rate, calls: targets.SearchX(
            targets.Sampled(lambda one, k, noise: one.populate(k).with_genes({"0": one["0"] + torch.ones(k, 5, 3)}), 2),
            reduce=tansaku.Mean(),
            rate=rate,
            calls=calls,
        ),
    ],
)
def test_targets_follow_a_schedule_over_the_calls(make: Callable[..., Any]) -> None:
    assert x_rule(make) == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_iterations_and_minibatches_follow_it_too() -> None:
    for options in ({"n": 3}, {"batch_size": 5, "seed": 0}):
        lengths = x_rule(lambda rate, calls, options=options: targets.Gradient(scale=rate, calls=calls, **options))
        assert lengths == sorted(lengths, reverse=True)
        assert lengths[-1] == 0.0


def test_least_squares_for_parameters_follows_a_schedule() -> None:
    torch.manual_seed(0)
    machine = Machine(nn.Linear(3, 2), theta.LeastSquares(damping=0.0, lr=FALLING, calls=2), targets.Null())
    x, t = torch.randn(9, 3), torch.randn(9, 2)
    machine.learn(x, t)
    whole = machine.module.weight.detach().clone()
    machine.learn(x, -t)
    half = machine.module.weight.detach().clone()
    machine.learn(x, t)
    assert torch.allclose(half, torch.zeros_like(half), atol=1e-5)  # half of the way from W to -W
    assert torch.equal(machine.module.weight, half)
    assert not torch.allclose(whole, half)


def test_direct_feedback_follows_a_schedule() -> None:
    machine = Machine(
        nn.Linear(3, 2), theta.Null(), targets.Null(), y=targets.DirectFeedback(scale=FALLING, calls=2, seed=0)
    )
    x, t, errors = torch.randn(5, 3), torch.randn(5, 2), []
    for _ in range(3):
        state = State()
        y = machine.remember(IO(x), state)
        errors.append(y.f.detach() - machine.tell(IO(t), state).t.f)
    assert torch.allclose(errors[1], errors[0] / 2, atol=1e-6)
    assert bool((errors[2] == 0).all())


def test_increments_follow_a_schedule_over_the_fits() -> None:
    rule = theta.Fit(rows=8, increments=tansaku.LinearSchedule(1.0, 0.5), calls=2, seed=0)
    machine = Machine(Trees(2, 1, members=3, voter=voters.Sum()), rule, targets.Null())
    machine.learn(torch.randn(8, 2), torch.randn(8, 1))
    assert rule.clock is not None
    assert rule.clock.share == 0.5


def test_a_schedule_goes_on_where_a_saved_run_stopped() -> None:
    def make() -> Machine:
        return Machine(nn.Linear(3, 2), theta.Null(), targets.Gradient(scale=FALLING, calls=4))

    machine, again = make(), make()
    for _ in range(2):
        state = State()
        machine.remember(IO(torch.randn(5, 3)), state)
        machine.step_x(*machine.tell(IO(torch.randn(5, 2)), state))
    again.load_state_dict(machine.state_dict())
    assert again.x.clock.share == 0.5


SETTINGS: dict[str, Callable[[Any], Any]] = {
    "targets.Gradient": lambda value: targets.Gradient(scale=value),
    "targets.LeastSquares": lambda value: targets.LeastSquares(scale=value),
    "theta.LeastSquares": lambda value: theta.LeastSquares(lr=value),
    "targets.SearchX": lambda value: targets.SearchX(tansaku.HillClimb(k=4), rate=value),
    "targets.SearchY": lambda value: targets.SearchY(tansaku.HillClimb(k=4), rate=value),
    "targets.Proposals": lambda value: targets.Proposals(rate=value),
    "targets.DirectFeedback": lambda value: targets.DirectFeedback(scale=value),
    "targets.LocalReadout": lambda value: targets.LocalReadout(scale=value),
    "targets.FeedbackAlignment": lambda value: targets.FeedbackAlignment(scale=value),
    "targets.KolenPollack": lambda value: targets.KolenPollack(scale=value),
    "theta.Fit": lambda value: theta.Fit(increments=value),
}


@pytest.mark.parametrize("bad", ["high", True, torch.ones(2), [1.0]], ids=repr)
@pytest.mark.parametrize("name", SETTINGS)
def test_what_is_no_rate_is_refused_by_name(name: str, bad: Any) -> None:
    with pytest.raises(TypeError, match=rf"{name} expected (scale|rate|lr|increments) as a number"):
        SETTINGS[name](bad)


@pytest.mark.parametrize("bad", [-0.5, float("nan"), float("inf")])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_rate_out_of_range_is_refused_by_name(name: str, bad: float) -> None:
    with pytest.raises(ValueError, match=rf"{name} expected (scale|rate|lr|increments) "):
        SETTINGS[name](bad)


@pytest.mark.parametrize("kind", ["random", "sign", "fresh", "uniform"])
def test_feedback_follows_a_schedule(kind: Any) -> None:
    assert x_rule(lambda rate, calls: targets.FeedbackAlignment(kind, scale=rate, calls=calls, seed=0))[-1] == 0.0
    if kind != "fresh":  # which draws anew at every call
        assert x_rule(lambda rate, calls: targets.FeedbackAlignment(kind, scale=rate, calls=calls, seed=0)) == [
            1.0,
            0.75,
            0.5,
            0.25,
            0.0,
        ]


def test_learned_feedback_takes_no_schedule() -> None:
    with pytest.raises(TypeError, match="B is learned"):
        targets.KolenPollack(scale=tansaku.LinearSchedule(1.0, 0.5))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [n for n in SETTINGS if n != "targets.KolenPollack"])
def test_a_schedule_without_calls_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"expected calls with a schedule for (scale|rate|lr|increments)"):
        SETTINGS[name](tansaku.LinearSchedule(1.0, 0.5))


def test_a_chain_learns_under_schedules() -> None:
    torch.manual_seed(0)
    hidden = Machine(nn.Linear(4, 8), theta.LeastSquares(lr=FALLING, calls=20), targets.Null())
    head = Machine(
        nn.Linear(8, 2), theta.LeastSquares(lr=FALLING, calls=20), targets.LeastSquares(scale=FALLING, calls=20)
    )
    net, x, t = Chain(hidden, head), torch.randn(30, 4), torch.randn(30, 2)
    first = net.learn(x, t)
    for _ in range(19):
        last = net.learn(x, t)
    assert last < first
