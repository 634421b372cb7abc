"""SHADE and L-SHADE: rates, steps, memory, archive and size against the papers' equations, written slowly."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tansaku import LSHADE, SHADE, Assessment, Objective, Population, Search, minimize
from tansaku.algorithms.success_history import SuccessHistory, forgetful, learned, rates, towards_the_best
from tansaku.testing import rosenbrock, sphere

ASSESS = Objective(sphere)


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def start(k: int = 6, batch_shape: tuple[int, ...] = (), n: int = 3, seed: int = 0) -> Population:
    genes = torch.randn(k, *batch_shape, n, generator=noise(seed), dtype=torch.float64)
    return ASSESS(Population({"x": genes}, len(batch_shape)))


def remembering(rate: float, factor: float, like: Population, capacity: int = 4) -> SuccessHistory:
    history = forgetful(like, 2, capacity)
    return replace(
        history,
        crossover_rate=torch.full_like(history.crossover_rate, rate),
        scale_factor=torch.full_like(history.scale_factor, factor),
    )


def test_crossover_rates_are_normal_around_their_memory_and_stay_in_0_1() -> None:
    rate, _ = rates(remembering(0.9, 0.5, start()), 40000, noise())
    below = {x: 0.5 * (1 + math.erf((x - 0.9) / 0.1 / 2**0.5)) for x in (0.7, 0.8, 0.9, 0.99)}
    for x, share in below.items():
        assert float((rate <= x).double().mean()) == pytest.approx(share, abs=0.0125)
    assert float((rate == 1.0).double().mean()) == pytest.approx(1 - 0.5 * (1 + math.erf(2**-0.5)), abs=0.01)
    assert float(rate.min()) >= 0.0


@pytest.mark.parametrize("centre", [0.05, 0.5, 1.0])
def test_scale_factors_are_cauchy_drawn_again_until_positive_and_cut_at_1(centre: float) -> None:
    _, factor = rates(remembering(0.5, centre, start()), 40000, noise())
    cauchy = torch.distributions.Cauchy(torch.tensor(centre).double(), torch.tensor(0.1).double())
    free = cauchy.sample((400000,))
    free = free[free > 0]
    for x in (0.02, 0.1, 0.4, 0.6, 0.99):
        assert float((factor <= x).double().mean()) == pytest.approx(float((free <= x).double().mean()), abs=0.0125)
    assert float(factor.min()) > 0.0
    assert float(factor.max()) == 1.0


def test_the_terminal_value_of_a_memory_gives_a_rate_of_0() -> None:
    rate, _ = rates(remembering(-1.0, 0.5, start()), 100, noise())
    assert rate.tolist() == [0.0] * 100


@pytest.mark.parametrize("archived", [0, 2])
def test_a_full_trial_goes_towards_one_of_the_best_and_along_a_difference(archived: int) -> None:
    targets = start(6)
    x, k = targets["x"], 6
    archive = torch.randn(4, 3, generator=noise(9), dtype=torch.float64)
    history = replace(remembering(10.0, 0.5, targets), archive=archive, archived=torch.tensor(archived))
    seconds = set()
    for seed in range(40):
        asked = towards_the_best(history, targets, torch.full((k,), 2.0), None, noise(seed))
        pool = torch.cat([x, archive[:archived]])
        best = targets.cost.argsort()[:2].tolist()
        for i in range(k):
            factor = asked.traits["scale_factor"][i]
            found = [
                second
                for leader in best
                for first in range(k)
                for second in range(k + archived)
                if len({i, first, second}) == 3
                and torch.allclose(asked["x"][i], x[i] + factor * (x[leader] - x[i] + x[first] - pool[second]))
            ]
            assert found
            seconds.update(found)
    assert seconds == set(range(k + archived))


def told(lehmer: bool, success: Tensor, gain: Tensor, before: SuccessHistory, targets: Population) -> SuccessHistory:
    k, batch_shape = targets.k, targets.batch_shape
    traits = {
        "crossover_rate": torch.rand(k, *batch_shape, generator=noise(1), dtype=torch.float64),
        "scale_factor": torch.rand(k, *batch_shape, generator=noise(2), dtype=torch.float64),
        "lot": torch.rand(k, *batch_shape, 2, generator=noise(3), dtype=torch.float64),
    }
    cost = targets.cost - torch.where(success, gain, -gain)
    asked = Population({"x": targets["x"] + 1}, targets.batch_ndim, traits, Assessment(cost))
    return learned(before, targets, asked, lehmer)


@pytest.mark.parametrize("lehmer", [False, True])
def test_the_memory_is_the_weighted_mean_of_what_paid(lehmer: bool) -> None:
    targets = start(6, (3,))
    success = torch.rand(6, 3, generator=noise(4)) < 0.5
    success[:, 1] = False  # nothing to learn from in this search
    gain = torch.rand(6, 3, generator=noise(5), dtype=torch.float64) + 0.1
    before = remembering(0.5, 0.5, targets)
    after = told(lehmer, success, gain, before, targets)
    rate = torch.rand(6, 3, generator=noise(1), dtype=torch.float64)
    factor = torch.rand(6, 3, generator=noise(2), dtype=torch.float64)
    for search in range(3):
        paid = [i for i in range(6) if success[i, search]]
        total = sum(float(gain[i, search]) for i in paid)
        weight = {i: float(gain[i, search]) / total for i in paid}

        def mean(x: Tensor, power: int, search: int = search, weight: dict[int, float] = weight) -> float:
            above = sum(w * float(x[i, search]) ** power for i, w in weight.items())
            return above / sum(w * float(x[i, search]) ** (power - 1) for i, w in weight.items())

        assert int(after.position[search]) == bool(paid)
        expected_factor = [mean(factor, 2) if paid else 0.5, 0.5]
        expected_rate = [mean(rate, 2 if lehmer else 1) if paid else 0.5, 0.5]
        assert after.scale_factor[:, search].tolist() == pytest.approx(expected_factor)
        assert after.crossover_rate[:, search].tolist() == pytest.approx(expected_rate)


def test_the_memory_is_written_in_turn_and_begins_again() -> None:
    targets = start(6)
    history = remembering(0.5, 0.5, targets)
    success, gain = torch.ones(6, dtype=torch.bool), torch.ones(6, dtype=torch.float64)
    positions = []
    for _ in range(3):
        history = told(False, success, gain, history, targets)
        positions.append(int(history.position))
    assert positions == [1, 0, 1]


def test_a_rate_that_only_paid_at_0_is_terminal_for_ever() -> None:
    targets = start(4)
    rate, lot = torch.zeros(4, dtype=torch.float64), torch.rand(4, 2, generator=noise(), dtype=torch.float64)
    history = remembering(0.5, 0.5, targets)
    for _ in range(3):  # the third generation writes the first entry again, with rates above 0
        asked = Population({"x": targets["x"]}, 0, {"crossover_rate": rate, "scale_factor": rate + 0.5, "lot": lot})
        history = learned(history, targets, asked.assessed(Assessment(targets.cost - 1)), lehmer=True)
        rate = torch.ones(4, dtype=torch.float64)
    assert history.crossover_rate.tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("after", [0.0, -math.inf])
def test_a_gain_without_end_weighs_as_much_as_the_largest_and_no_more(after: float) -> None:
    targets = start(4)
    costs = torch.tensor([math.inf, 3.0, 3.0, 3.0], dtype=torch.float64)
    targets = targets.assessed(Assessment(costs))
    factor = torch.tensor([0.2, 0.4, 0.9, 0.9], dtype=torch.float64)
    lot = torch.rand(4, 2, generator=noise(), dtype=torch.float64)
    traits = {"crossover_rate": factor, "scale_factor": factor, "lot": lot}
    now = torch.tensor([after, 1.0, math.nan, 3.0], dtype=torch.float64)
    asked = Population({"x": targets["x"]}, 0, traits, Assessment(now))
    history = learned(remembering(0.5, 0.5, targets), targets, asked, lehmer=False)
    assert float(history.crossover_rate[0]) == pytest.approx(0.3)
    assert int(history.archived) == 2


def test_the_archive_keeps_what_was_replaced_and_when_full_a_random_part_of_all() -> None:
    targets = start(4)
    success, gain = torch.tensor([True, False, True, False]), torch.ones(4, dtype=torch.float64)
    history = told(False, success, gain, remembering(0.5, 0.5, targets, capacity=4), targets)
    assert int(history.archived) == 2
    expected = {tuple(row) for row in targets["x"][success].tolist()}
    assert {tuple(row) for row in history.archive[:2].tolist()} == expected
    repeats = 4000
    wide = start(4, (repeats,))
    old = torch.arange(4, dtype=torch.float64)[:, None, None].expand(4, repeats, 3).contiguous()
    full = replace(
        remembering(0.5, 0.5, wide, capacity=4), archive=old, archived=torch.full((repeats,), 4, dtype=torch.int64)
    )
    kept = told(False, success[:, None].expand(4, repeats), gain[:, None].expand(4, repeats), full, wide)
    assert kept.archived.unique().tolist() == [4]
    for value in range(4):
        share = float((kept.archive == value).all(-1).any(0).double().mean())
        assert share == pytest.approx(4 / 6, abs=5 * 0.5 / repeats**0.5)


def test_a_population_shrinks_linearly_with_the_evaluations_made() -> None:
    algorithm = LSHADE(k=20, max_evaluations=400)
    search = Search(algorithm, ASSESS, start(20), seed=0)
    sizes = []
    for _ in range(60):
        search.step()
        assert search.state is not None
        k = algorithm.next_k(search.state)
        assert k == max(4, round((4 - 20) / 400 * search.evaluations + 20))  # equation 10
        assert search.state.history.archive.shape[0] == round(2.6 * k)
        sizes.append(k)
    assert sizes[0] > sizes[-1] == 4
    assert search.evaluations == search.state.evaluations


def test_the_budget_counts_the_evaluations_that_are_made() -> None:
    for budget in (400, 407, 1000):
        search: Search[object] = Search(LSHADE(k=20, max_evaluations=400), ASSESS, start(20), seed=0)  # type: ignore[arg-type]
        result = search.run(max_evaluations=budget)
        assert budget - 4 < result.evaluations <= budget


def test_the_worst_targets_go_and_the_best_is_kept() -> None:
    algorithm = LSHADE(k=20, max_evaluations=100)
    state = algorithm.init(start(20))
    asked = ASSESS(algorithm.ask(state, noise()))
    pool = torch.minimum(state.population.cost, asked.cost)
    after = algorithm.tell(state, asked).population
    assert torch.equal(after.cost, pool.sort().values[: after.k])


def test_minimize_plans_its_own_budget() -> None:
    seen: list[int] = []

    def fn(x: Tensor) -> Tensor:
        seen.append(x.shape[0])
        return x.square().sum(-1)

    minimize(fn, shape=2, bounds=(-1.0, 1.0), algorithm="lshade", k=30, max_evaluations=600)
    assert seen[0] == 30
    assert seen[-1] < 6
    assert sum(seen) > 590


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (SHADE, {"k": 3}, "expected k >= 4, got 3"),
        (SHADE, {"memory": 0}, "expected memory >= 1, got 0"),
        (SHADE, {"greatest_share": 1.2}, r"expected greatest_share in \[0, 1\]"),
        (LSHADE, {"least_k": 3}, "expected least_k >= 4, got 3"),
        (LSHADE, {"k": 8, "least_k": 9}, "expected least_k <= k, got 9 and 8"),
        (LSHADE, {"max_evaluations": 0}, "expected max_evaluations >= 1, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(kind: type, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**settings)


@pytest.mark.parametrize("name", ["shade", "lshade"])
def test_they_solve_rosenbrock(name: str) -> None:
    result = minimize(
        rosenbrock,
        shape=5,
        bounds=(-5.0, 5.0),
        algorithm=name,
        dtype=torch.float64,
        max_evaluations=20000,
        k=50,
        progress=False,
    )
    assert float(torch.as_tensor(result.value)) < 1e-8
