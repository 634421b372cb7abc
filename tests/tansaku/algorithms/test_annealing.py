"""Simulated annealing: acceptance against Metropolis' rule and its equilibrium, cooling and steps against formulas."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from tansaku import Annealing, AnnealingState, Assessment, Gaussian, Objective, Population, Search
from tansaku.testing import rastrigin, sphere

ASSESS = Objective(sphere)


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def start(k: int = 4, n: int = 3, seed: int = 0) -> Population:
    return ASSESS(Population({"x": torch.randn(k, n, generator=noise(seed), dtype=torch.float64)}))


def at(state: AnnealingState, temperature: float) -> AnnealingState:
    return replace(state, hottest=torch.full_like(state.hottest, temperature))


def test_a_better_step_is_always_taken_and_a_worse_one_if_the_coin_is_below_exp_minus_rise_over_t() -> None:
    rises = torch.tensor([-1.0, 0.0, 0.5, 0.5, 2.0, math.nan], dtype=torch.float64)
    coins = torch.tensor([0.999, 0.999, math.exp(-0.5 / 2) - 1e-6, math.exp(-0.5 / 2) + 1e-6, 0.3, 0.0]).double()
    annealing = Annealing(k=6, cooling="fast", temperature=2.0, adapt=False)
    state = annealing.init(start(6))
    asked = annealing.ask(state, noise()).with_traits(coin=coins)
    told = annealing.tell(state, asked.assessed(Assessment(state.chains.cost + rises)))
    for i, taken in enumerate([True, True, True, False, math.exp(-1.0) > 0.3, False]):
        assert torch.equal(told.chains["x"][i], (asked if taken else state.chains)["x"][i])


def test_chains_at_one_temperature_find_the_boltzmann_distribution() -> None:
    annealing = Annealing(k=4000, cooling="logarithmic", temperature=0.5, adapt=False, mutate=Gaussian(1.0))
    search: Search[AnnealingState] = Search(annealing, ASSESS, start(4000, 1), seed=1)
    search.step()
    for _ in range(100):
        assert search.state is not None
        search.state = replace(search.state, generations=0)  # never colder
        search.step()
    x = search.state.chains["x"]  # density exp(-x^2 / 0.5): variance 0.25
    assert float(x.var()) == pytest.approx(0.25, rel=0.1)
    assert float(x.mean()) == pytest.approx(0.0, abs=0.04)


def test_the_first_temperature_accepts_the_average_change_with_the_given_probability() -> None:
    annealing = Annealing(k=4, first_acceptance=0.7)
    state = annealing.init(start())
    rises = torch.tensor([1.0, 3.0, -5.0, math.inf], dtype=torch.float64)
    asked = annealing.ask(state, noise()).assessed(Assessment(state.chains.cost + rises))
    hottest = annealing.tell(state, asked).hottest
    assert math.exp(-3.0 / float(hottest)) == pytest.approx(0.7)


def test_without_a_change_the_temperature_waits_and_no_worse_step_is_taken() -> None:
    annealing = Annealing(k=4)
    state = annealing.init(start())
    asked = annealing.ask(state, noise()).assessed(Assessment(torch.full((4,), math.inf, dtype=torch.float64)))
    told = annealing.tell(state, asked)
    assert float(told.hottest) == 0.0
    assert torch.equal(told.chains["x"], state.chains["x"])


@pytest.mark.parametrize(
    ("cooling", "expected"),
    [
        ("geometric", lambda done, g: 1e-4**done),
        ("linear", lambda done, g: 1 - (1 - 1e-4) * done),
        ("fast", lambda done, g: 1 / (1 + g)),
        ("logarithmic", lambda done, g: math.log(2) / math.log(2 + g)),
    ],
)
def test_it_cools_as_the_schedule_says(cooling: str, expected: object) -> None:
    annealing = Annealing(k=2, cooling=cooling, coldest=1e-4, max_evaluations=100, adapt=False)  # type: ignore[arg-type]
    for evaluations, generation in ((0, 0), (50, 7), (100, 20), (300, 80)):
        state = annealing.init(start(2))
        state = at(replace(state, evaluations=evaluations, generations=generation), 3.0)
        temperature = 3.0 * expected(min(1.0, evaluations / 100), generation)  # type: ignore[operator]
        for factor, taken in ((0.999, True), (1.001, False)):
            coin = torch.full((2,), math.exp(-1.0), dtype=torch.float64)
            asked = annealing.ask(state, noise()).with_traits(coin=coin)
            told = annealing.tell(state, asked.assessed(Assessment(state.chains.cost + factor * temperature)))
            assert torch.equal(told.chains["x"], (asked if taken else state.chains)["x"])


@pytest.mark.parametrize(
    ("taken", "factor"), [(0, 3.0**-0.2), (2, 1.0), (4, 3.0**0.2), (3, (1 + 2 * 0.15 / 0.4) ** 0.2)]
)
def test_steps_grow_while_most_are_taken_and_shrink_while_few_are(taken: int, factor: float) -> None:
    annealing = Annealing(k=4, temperature=1e-9)
    state = annealing.init(start())
    rises = torch.tensor([-1.0] * taken + [1.0] * (4 - taken), dtype=torch.float64)
    told = annealing.tell(state, annealing.ask(state, noise()).assessed(Assessment(state.chains.cost + rises)))
    assert float(told.scale) == pytest.approx(factor)


def test_chains_begin_with_the_best_of_the_start_and_share_a_small_one() -> None:
    begun = start(9)
    assert torch.equal(Annealing(k=4).init(begun).chains.cost, begun.cost.sort().values[:4])
    few = start(2)
    assert Annealing(k=5).init(few).chains.cost.unique().tolist() == few.cost.sort().values.tolist()


def test_a_refreshed_search_finds_its_best_among_the_chains() -> None:
    annealing = Annealing(k=6)
    state = annealing.init(start(6))
    other = Objective(lambda x: -sphere(x))
    assert float(annealing.best(annealing.refresh(state, other)).cost) == float(other(state.chains).cost.min())


def test_it_finds_the_best_valley_of_many() -> None:
    begun = Population({"x": torch.full((20, 2), 4.4)})
    annealing = Annealing(k=20, bounds=(-5.0, 5.0), max_evaluations=20000)  # type: ignore[arg-type]
    result = Search(annealing, Objective(rastrigin), begun, seed=1).run(max_evaluations=20000)
    assert float(torch.as_tensor(result.value)) < 1e-2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"coldest": 0.0}, "expected coldest between 0 and 1, got 0.0"),
        ({"first_acceptance": 1.0}, "expected first_acceptance between 0 and 1, got 1.0"),
        ({"temperature": 0.0}, "expected temperature > 0, got 0; use HillClimb"),
        ({"cooling": "slow"}, "expected cooling 'geometric', 'linear', 'fast' or 'logarithmic', got 'slow'"),
        ({"max_evaluations": 0}, "expected max_evaluations >= 1, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Annealing(**settings)  # type: ignore[arg-type]
