"""Restarts begin when nothing is gained any more, keep the best, spend the budget exactly, and grow as published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tansaku import (
    BIPOPCMAES,
    CMAES,
    GA,
    IPOPCMAES,
    PSO,
    Bounds,
    HillClimb,
    Individual,
    Objective,
    Population,
    Restarts,
    RestartsState,
    Search,
    minimize,
)
from tansaku.algorithms.restarts import Run, _range, _stagnates
from tansaku.testing import rastrigin, sphere

F64 = torch.float64
BOX = Bounds(-5.0, 5.0)


def flat(x: Tensor) -> Tensor:
    return torch.zeros_like(x[..., 0])


def asked_sizes(algorithm: Any, cost: Any, budget: int, n: int = 2) -> tuple[list[int], list[RestartsState]]:
    sizes: list[int] = []
    states: list[RestartsState] = []
    objective = Objective(cost)

    def assess(population: Population) -> Population:
        sizes.append(population.k)
        return objective(population)

    search = Search(
        algorithm,
        assess,
        Individual({"x": torch.ones(n, dtype=F64)}),
        callbacks=[lambda search: states.append(search.state)],  # type: ignore[func-returns-value]
    )
    search.run(max_evaluations=budget)
    return sizes, states


def test_a_flat_objective_ends_a_run_after_ten_generations() -> None:
    sizes, states = asked_sizes(Restarts(CMAES(k=6, bounds=BOX), start_k=1), flat, 200)
    assert sizes[:25] == [1, *10 * [6], 1, *10 * [6], 1, 6, 6]
    assert [state.runs for state in states][:13] == [*11 * [1], 2, 2]  # the start is generation 0


def test_the_budget_is_spent_to_the_last_generation_that_fits_though_k_changes() -> None:
    for algorithm in (IPOPCMAES(k=6, bounds=BOX), BIPOPCMAES(k=6, bounds=BOX), Restarts(PSO(k=7, bounds=BOX))):
        for budget in (60, 61, 62, 67, 400, 999):
            sizes, states = asked_sizes(algorithm, flat, budget)
            assert sum(sizes) <= budget < sum(sizes) + algorithm.next_k(states[-1])


def test_ipop_doubles_the_candidates_with_every_restart_nine_times_at_most() -> None:
    sizes, _ = asked_sizes(IPOPCMAES(k=6, bounds=BOX), flat, 3000)
    assert (
        sizes == [1, *10 * [6], 1, *10 * [12], 1, *10 * [24], 1, *10 * [48], 1, *10 * [96], 1, *5 * [192]][: len(sizes)]
    )
    algorithm = IPOPCMAES(k=4)
    start = Objective(flat)(Individual({"x": torch.ones(2)}).populate(1))
    state = algorithm.init(start)
    runs = []
    for _ in range(12):
        runs.append(algorithm._next(state, [0.5, 0.5]).k)
        state = type(state)(**{**state.__dict__, "grown": state.grown + 1})
    assert runs == [4 * 2**i for i in (1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9)]


def test_bipop_takes_turns_so_that_both_kinds_spend_alike() -> None:
    _, states = asked_sizes(BIPOPCMAES(k=6, bounds=BOX), flat, 4000)
    kinds = {state.runs: state.run for state in states if state.inner is not None}
    assert kinds[1] == Run(6, large=False)
    assert kinds[2] == Run(12)
    grown = [run.k for run in kinds.values() if run.large]
    assert grown == [12 * 2**i for i in range(len(grown))]
    small = [run for run in list(kinds.values())[1:] if not run.large]
    assert len(small) > 0
    for run in small:
        assert run.k is not None
        assert 6 <= run.k <= max(grown) / 2
        assert 0.01 <= run.scale <= 1
        assert run.limit > 0
    ended = [state for state in states if state.inner is None]
    for state in ended:
        assert state.run.limit == 0 or state.small_spent > 0


def test_bipop_draws_size_and_step_as_published() -> None:
    algorithm = BIPOPCMAES(k=8, std=2.0)
    state = algorithm.init(Objective(flat)(Individual({"x": torch.ones(2)}).populate(1)))
    state = type(state)(**{**state.__dict__, "grown": 5, "small_spent": 10, "large_spent": 100})
    for u, k in ((0.0, 8), (0.5, int(8 * 16**0.25)), (1.0, 128)):  # 8 * (0.5 * 256 / 8) ** u^2
        run = algorithm._next(state, [u, u])
        assert run == Run(k, 10 ** (-2 * u), 50, large=False)
        begun = algorithm._begun(run, Objective(flat)(Individual({"x": torch.ones(2)}).populate(1)))
        assert float(begun.sigma) == pytest.approx(2 * 10 ** (-2 * u))
    state = type(state)(**{**state.__dict__, "small_spent": 100})
    assert algorithm._next(state, [0.5, 0.5]) == Run(8 * 2**6)


def test_a_small_run_stops_at_its_limit() -> None:
    _, states = asked_sizes(BIPOPCMAES(k=6, bounds=BOX), rastrigin, 20_000, 5)
    limited = [state for state in states if state.inner is not None and state.run.limit]
    assert len(limited) > 0
    assert all(state.spent <= max(state.run.limit, 1 + (state.run.k or 0)) for state in limited)


def test_the_best_of_all_runs_is_kept_and_its_estimate_too() -> None:
    algorithm = IPOPCMAES(k=6, bounds=BOX)
    _, states = asked_sizes(algorithm, rastrigin, 6000, 2)
    assert states[-1].runs > 2
    values = [float(algorithm.best(state).cost) for state in states]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 1e-8
    assert float(rastrigin(algorithm.estimate(states[-1])["x"])) < 1e-6


def test_new_runs_begin_anywhere_in_the_box_or_around_the_first_start() -> None:
    sizes: list[Tensor] = []
    search = Search(
        Restarts(CMAES(k=4, bounds=(-5.0, 5.0)), start_k=500),  # type: ignore[arg-type]
        lambda population: (sizes.append(population["x"]), Objective(flat)(population))[1],  # type: ignore[func-returns-value]
        Individual({"x": torch.ones(2)}),
    )
    search.run(max_evaluations=600)
    drawn = next(x for x in sizes if len(x) == 500)
    assert drawn.mean(0).abs().max() < 0.6
    assert drawn.std(0).tolist() == pytest.approx(2 * [10 / 12**0.5], rel=0.1)
    sizes.clear()
    search = Search(
        Restarts(CMAES(k=4, std=0.5), start_k=500),
        lambda population: (sizes.append(population["x"]), Objective(flat)(population))[1],  # type: ignore[func-returns-value]
        Individual({"x": torch.full((2,), 7.0)}),
    )
    search.run(max_evaluations=600)
    drawn = next(x for x in sizes if len(x) == 500)
    assert drawn.mean(0).tolist() == pytest.approx([7.0, 7.0], abs=0.1)
    assert drawn.std(0).tolist() == pytest.approx([0.5, 0.5], rel=0.15)


def test_a_search_saved_between_and_within_runs_goes_on_exactly(tmp_path: Path) -> None:
    def search() -> Search[Any]:
        return Search(BIPOPCMAES(k=5, bounds=BOX), Objective(flat), Individual({"x": torch.ones(3, dtype=F64)}), seed=4)

    for stop in (9, 10, 11, 25):
        one = search()
        one.run(max_generations=stop)
        one.save(tmp_path / "saved")
        other = search()
        other.load(tmp_path / "saved")
        for each in (one, other):
            each.run(max_generations=60)
        assert torch.equal(one.ask()["x"], other.ask()["x"])


def test_restarts_solve_what_one_run_does_not() -> None:
    def misses(algorithm: str, budget: int) -> int:
        runs = [
            minimize(
                rastrigin,
                shape=3,
                bounds=(-5.0, 5.0),
                dtype=F64,
                algorithm=algorithm,
                seed=seed,
                max_evaluations=budget,
                target=1e-8,
            )
            for seed in (1, 2, 3)
        ]
        return sum(result.stopped != "target" for result in runs)

    assert misses("cma_es", 3000) == 3  # it has long converged
    assert misses("ipop_cma_es", 10_000) == 0


def test_any_algorithm_may_be_restarted_whole_and_boolean_genes_too() -> None:
    for inner in (HillClimb(k=4), GA(k=6)):
        start = Individual({"x": torch.zeros(8, dtype=torch.bool)})
        search: Search[Any] = Search(
            Restarts(inner),
            Objective(lambda x: (~x).sum(-1).double()),
            start,  # type: ignore[arg-type]
        )
        assert search.run(max_evaluations=2000, target=0.0).value == 0.0


def test_ranges_and_stagnation_are_told_apart_from_progress() -> None:
    inf = float("inf")
    assert _range(torch.tensor([inf, inf])) == 0.0
    assert _range(torch.tensor([1.0, inf])) == inf
    assert _range(torch.tensor([1.0, 3.0])) == 2.0
    falling = torch.linspace(1, 0, 50)
    assert not _stagnates(torch.stack([falling, falling]))
    assert not _stagnates(torch.stack([torch.ones(50), falling]))  # the median still falls
    assert _stagnates(torch.ones(2, 50))


def test_wrong_settings_are_refused_in_words() -> None:
    with pytest.raises(TypeError, match="expected algorithm to be an Algorithm, got str"):
        Restarts("cma_es")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="growth"):
        Restarts(CMAES(), growth=0.5)
    with pytest.raises(ValueError, match="start_k"):
        Restarts(CMAES(), start_k=0)
    batched = Objective(sphere)(Individual({"x": torch.ones(3, 2)}, 1).populate(1))
    with pytest.raises(ValueError, match=r"expected batch_shape \(\) for IPOPCMAES, got \(3,\)"):
        IPOPCMAES().init(batched)
