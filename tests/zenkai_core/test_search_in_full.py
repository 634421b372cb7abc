"""Search as a rule in full: every algorithm, samplers, schedules and reducers, for targets and for parameters."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tansaku
from zenkai_core import IO, Machine, State, modules, sse, targets, theta
from zenkai_core.testing import check_machine

REFUSED = {
    "pbil": (TypeError, "expected an algorithm for real genes, got PBIL"),
    "permutation_ga": (TypeError, "expected an algorithm for real genes, got PermutationGA"),
    "nsga2": (
        ValueError,
        "expected an algorithm for one cost per candidate, got NSGA2, which needs several objectives",
    ),
    "map_elites": (
        ValueError,
        "expected an algorithm for one cost per candidate, got MapElites, which needs a descriptor",
    ),
}
SINGLE = {
    name: (ValueError, f"expected an algorithm that runs one search per row, got {tansaku.ALGORITHMS[name].__name__}")
    for name in ("bipop_cma_es", "ipop_cma_es")
}


def make(name: str) -> tansaku.Algorithm[Any]:
    options: dict[str, dict[str, Any]] = {
        "annealing": {"max_evaluations": 500, "first_acceptance": 0.2},
        "map_elites": {"cells": tansaku.Grid((2, 2))},
    }
    return tansaku.make(name, std=0.3, **options.get(name, {}))


def passed(machine: Machine, x: Tensor) -> State:
    machine.train()
    state = State()
    machine.remember(IO(x), state)
    return state


@pytest.mark.parametrize("rule", [targets.SearchX, targets.SearchY])
@pytest.mark.parametrize("name", tansaku.ALGORITHMS)
def test_every_algorithm_finds_targets_or_says_at_once_why_not(name: str, rule: type) -> None:
    torch.manual_seed(0)
    if name in REFUSED | SINGLE:
        error, message = (REFUSED | SINGLE)[name]
        with pytest.raises(error, match=rf"targets\.{rule.__name__} {message}"):
            rule(make(name))
        return
    own = rule(make(name), generations=5, score="local", seed=0)
    if rule is targets.SearchX:
        machine = Machine(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), theta.Null(), own)
    else:
        machine = Machine(nn.Linear(3, 2), theta.Null(), targets.Null(), y=own)
    t = IO(torch.randn(6, 2))
    state = passed(machine, torch.randn(6, 3))
    if rule is targets.SearchX:
        found = machine.frozen(machine.step_x(state.inputs, t, state), state)
    else:
        found = machine.step_y(state.inputs, t, state)
    before, after = sse(state.outputs.detach(), t), sse(found, t)
    assert (after <= before).all()
    assert (after < before).float().mean() > 0.5


@pytest.mark.parametrize("name", tansaku.ALGORITHMS)
def test_every_algorithm_finds_parameters_or_says_at_once_why_not(name: str) -> None:
    torch.manual_seed(0)
    if name in REFUSED:
        with pytest.raises(REFUSED[name][0], match=rf"theta\.Search {REFUSED[name][1]}"):
            theta.Search(make(name))
        return
    machine = Machine(nn.Linear(3, 2), theta.Search(make(name), generations=3, write="best", seed=0), targets.Null())
    x, t = torch.randn(20, 3), torch.randn(20, 2)
    first = machine.learn(x, t)
    for _ in range(40):
        last = machine.learn(x, t)
    assert last < first


# ------------------------------------------------------------------------------------------------------- samplers
def test_a_samplers_candidates_are_searched_as_an_algorithms() -> None:
    """The first generation of a hill climb draws the very same steps from the incumbent."""
    answers = []
    for algorithm in (tansaku.HillClimb(k=16, std=0.4), targets.Sampled(tansaku.GaussianSampler(0.4), 16)):
        torch.manual_seed(0)
        machine = Machine(nn.Linear(3, 2), theta.Null(), targets.SearchX(algorithm, seed=0))
        state = passed(machine, torch.randn(6, 3))
        answers.append(machine.step_x(state.inputs, IO(torch.ones(6, 2)), state).f)
    torch.testing.assert_close(*answers)


def test_every_generation_of_a_sampler_draws_around_the_start() -> None:
    seen: list[Tensor] = []

    def sampler(individual: tansaku.Individual, k: int, noise: tansaku.Noise) -> tansaku.Population:
        seen.append(individual["0"])
        return tansaku.GaussianSampler(1.0)(individual, k, noise)

    machine = Machine(nn.Linear(3, 2), theta.Null(), targets.SearchX(targets.Sampled(sampler, 8), generations=3))
    state = passed(machine, torch.randn(6, 3))
    machine.step_x(state.inputs, IO(torch.ones(6, 2)), state)
    assert len(seen) == 3
    assert all(torch.equal(v, state.inputs.f) for v in seen)


# ------------------------------------------------------------------------------------- schedules, reducers, the rate
def steps_of(rule: targets.SearchX, calls: int) -> list[float]:
    """The largest step of each call, of a cost so flat that only the reducer's mean moves anything."""
    machine = Machine(nn.Linear(3, 2), theta.Null(), rule)
    nn.init.zeros_(machine.module.weight)
    found = []
    for _ in range(calls):
        state = passed(machine, torch.zeros(6, 3))
        found.append(float(machine.step_x(state.inputs, IO(torch.zeros(6, 2)), state).f.abs().max()))
    return found


def test_a_scheduled_algorithm_shrinks_its_steps_over_the_calls() -> None:
    plan = tansaku.Scheduled(tansaku.HillClimb, k=64, std=tansaku.ExponentialSchedule(1.0, 0.01))
    lengths = steps_of(targets.SearchX(plan, reduce=tansaku.Mean(), calls=4, seed=0), 6)
    expected = [1.0, 0.01**0.25, 0.1, 0.01**0.75, 0.01, 0.01]
    for length, std in zip(lengths, expected, strict=True):
        assert 0.1 * std < length < 0.6 * std  # the largest of 18 means of 64 steps


def test_a_scheduled_reducer_and_a_scheduled_rate_follow_the_calls() -> None:
    """With the noise of one seed, the answers differ by exactly the factors of the schedules."""

    def rule(**settings: object) -> targets.SearchX:
        return targets.SearchX(tansaku.HillClimb(k=8, std=0.5), calls=2, seed=0, **settings)  # type: ignore[arg-type]

    def moves(**settings: object) -> list[Tensor]:
        torch.manual_seed(0)
        machine = Machine(nn.Linear(3, 2).double(), theta.Null(), rule(**settings))
        found = []
        for _ in range(3):
            x = torch.ones(4, 3, dtype=torch.float64)
            state = passed(machine, x)
            found.append(machine.step_x(state.inputs, IO(torch.ones(4, 2, dtype=torch.float64)), state).f - x)
        return found

    whole = moves()
    for share, (move, full) in enumerate(zip(moves(rate=tansaku.LinearSchedule(1.0, 0.0)), whole, strict=True)):
        torch.testing.assert_close(move, (1 - share / 2) * full)
    for move, full in zip(moves(rate=0.25), whole, strict=True):
        torch.testing.assert_close(move, 0.25 * full)
    scheduled = moves(
        reduce=tansaku.Scheduled(tansaku.WeightedMean, weights="ranks", step=tansaku.LinearSchedule(0, 2))
    )
    plain = [moves(reduce=tansaku.WeightedMean("ranks", step=step)) for step in (0.0, 1.0, 2.0)]
    for call in range(3):
        torch.testing.assert_close(scheduled[call], plain[call][call])


def test_momentum_follows_a_reducer_through_the_generations() -> None:
    """Against the recursion v = answer - current + m v written out over the generations' own means."""
    seen: list[tansaku.Population] = []

    class Spy(tansaku.HillClimb):
        def tell(self, state: tansaku.HillClimbState, asked: tansaku.Population) -> tansaku.HillClimbState:
            seen.append(asked)
            return super().tell(state, asked)

    reduce = tansaku.Momentum(tansaku.Best(), 0.5)
    rule = targets.SearchX(Spy(k=6, std=0.3), generations=4, reduce=reduce, seed=0)
    machine = Machine(nn.Linear(3, 2), theta.Null(), rule)
    state = passed(machine, torch.randn(5, 3))
    found = machine.step_x(state.inputs, IO(torch.ones(5, 2)), state).f
    current, velocity = tansaku.Best()(seen[0])["0"], torch.zeros(5, 3)
    for asked in seen[1:]:
        velocity = tansaku.Best()(asked)["0"] - current + 0.5 * velocity
        current = current + velocity
    torch.testing.assert_close(found, current)


def test_a_schedule_without_calls_says_the_remedy() -> None:
    plan = tansaku.Scheduled(tansaku.HillClimb, k=8, std=tansaku.LinearSchedule(1.0, 0.1))
    for rule in (targets.SearchX, targets.SearchY, theta.Search):
        with pytest.raises(ValueError, match=r"expected calls with a schedule for algorithm, got none: say calls=N"):
            rule(plan)
        with pytest.raises(ValueError, match="expected calls >= 1, got 0"):
            rule(plan, calls=0)
    with pytest.raises(ValueError, match="with a schedule for rate, got none"):
        targets.Proposals(rate=tansaku.LinearSchedule(1.0, 0.1))
    with pytest.raises(TypeError, match=r"targets\.SearchX expected a tansaku algorithm at call 0, got Gaussian"):
        targets.SearchX(tansaku.Scheduled(tansaku.Gaussian, std=0.1), calls=3)
    with pytest.raises(ValueError, match="one search per row, got IPOPCMAES"):
        targets.SearchX(tansaku.Scheduled(tansaku.IPOPCMAES, std=0.1), calls=3)


def test_what_a_callable_makes_is_checked_at_the_call() -> None:
    machine = Machine(nn.Linear(3, 2), theta.Null(), targets.SearchX(lambda count: tansaku.NSGA2()))
    state = passed(machine, torch.zeros(4, 3))
    with pytest.raises(ValueError, match="got NSGA2, which needs several objectives"):
        machine.step_x(state.inputs, IO(torch.zeros(4, 2)), state)


# ------------------------------------------------------------------------------------------------------- parameters
def learner(**settings: Any) -> Callable[[], tuple[Machine, Tensor, Tensor]]:
    def make() -> tuple[Machine, Tensor, Tensor]:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(4, 6), modules.Sign(), nn.Linear(6, 2))
        machine = Machine(module, theta.Search(seed=0, **settings), targets.Null())
        x = torch.randn(30, 4)
        return machine, x, x[:, :2].sign()

    return make


PARAMETERS: dict[str, dict[str, Any]] = {
    "a scheduled algorithm": {
        "algorithm": tansaku.Scheduled(tansaku.HillClimb, k=32, std=tansaku.CosineSchedule(0.5, 0.02), adapt=False),
        "calls": 100,
    },
    "a callable": {"algorithm": lambda count: tansaku.HillClimb(k=32, std=1 / (2 + count / 10), adapt=False)},
    "the weighted mean": {
        "algorithm": tansaku.HillClimb(k=64, std=0.2, antithetic=True),
        "write": tansaku.WeightedMean("standardised", step=3.0),
    },
    "a scheduled mean": {
        "algorithm": tansaku.HillClimb(k=64, std=0.2, antithetic=True),
        "write": tansaku.Scheduled(tansaku.WeightedMean, weights="standardised", step=tansaku.LinearSchedule(4.0, 0.5)),
        "calls": 100,
    },
    "momentum": {
        "algorithm": tansaku.HillClimb(k=64, std=0.2, antithetic=True),
        "write": tansaku.Momentum(tansaku.WeightedMean("standardised", step=1.0), 0.5),
    },
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_follow_schedules_and_reducers(name: str) -> None:
    make = learner(**PARAMETERS[name])
    check_machine(make)
    machine, x, t = make()
    first = machine.learn(x, t)
    for _ in range(100):
        last = machine.learn(x, t)
    assert last < 0.5 * first


def test_a_reducers_answer_is_what_is_written() -> None:
    seen: list[tansaku.Population] = []

    class Spy(tansaku.HillClimb):
        def tell(self, state: tansaku.HillClimbState, asked: tansaku.Population) -> tansaku.HillClimbState:
            seen.append(asked)
            return super().tell(state, asked)

    reduce = tansaku.WeightedMean("ranks", step=2.0)
    machine = Machine(nn.Linear(3, 2), theta.Search(Spy(k=6, std=0.3), write=reduce, seed=0), targets.Null())
    for _ in range(3):
        before = machine.module.weight.detach().clone()
        machine.learn(torch.randn(8, 3), torch.randn(8, 2))
        torch.testing.assert_close(machine.module.weight.detach(), reduce(seen[-1])["weight"])
        assert (seen[-1]["weight"].mean(0) - before).abs().max() < 1.0  # the search began at what was written


def test_momentum_is_saved_with_the_search_and_dropped_with_the_weights() -> None:
    make = learner(**PARAMETERS["momentum"])
    machine, x, t = make()
    for _ in range(3):
        machine.learn(x, t)
    assert machine.theta._memory is not None
    other = make()[0]
    other.load_state_dict(copy.deepcopy(machine.state_dict()))
    assert other.theta._memory is not None
    for name, velocity in machine.theta._memory.velocity.genes.items():
        assert torch.equal(other.theta._memory.velocity[name], velocity)
    with torch.no_grad():
        machine.module[0].weight.fill_(3.0)
    machine.learn(x, t)
    assert (machine.module[0].weight - 3).abs().max() < 1.0
    assert all((v == 0).all() for v in machine.theta._memory.velocity.genes.values())


# ------------------------------------------------------------------------------------------------------------ notes
def test_a_recorded_search_notes_what_it_won() -> None:
    torch.manual_seed(0)
    rule = targets.SearchX(tansaku.HillClimb(k=7, std=0.3), generations=2, seed=0)
    machine = Machine(nn.Linear(3, 2), theta.Null(), rule)
    state, t = passed(machine, torch.randn(6, 3)), IO(torch.randn(6, 2))
    state.notes = {}
    found = machine.step_x(state.inputs, t, state)
    gain = sse(state.outputs.detach(), t) - sse(machine.frozen(found, state), t)
    torch.testing.assert_close(state.notes["x_gain"], gain.mean())
    assert state.notes["x_acceptance"] == (gain > 0).float().mean()
    assert state.notes["x_evaluations"] == 1 + 2 * 7
    assert 0.1 < float(state.notes["x_diversity"]) < 0.6
