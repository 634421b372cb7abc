"""What `minimize` takes as a start, bounds and steps, and what a result and a search show."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tansaku
from tansaku import Assessment, Individual, Objective, Population, Search, minimize


def sphere(x: Tensor) -> Tensor:
    return x.square().sum(-1)


def test_a_run_goes_on_from_the_best_of_another_with_the_same_function() -> None:
    first = minimize(sphere, shape=3, max_evaluations=60)
    assert isinstance(first.value, float)
    again = minimize(sphere, x0=first.best, max_evaluations=60)  # type: ignore[arg-type]
    assert again.value <= first.value
    named = minimize(lambda genes: sphere(genes["w"]), x0={"w": torch.ones(2)}, max_evaluations=60)
    assert minimize(lambda genes: sphere(genes["w"]), x0=named.estimate, max_evaluations=60).evaluations


def test_rows_and_a_population_are_candidates_of_the_start() -> None:
    rows, seen = torch.rand(4, 3), []

    def fn(x: Tensor) -> Tensor:
        seen.append(x.clone())
        return sphere(x)

    minimize(fn, shape=3, x0=rows, algorithm="pso", k=6, max_generations=1)
    assert torch.equal(seen[0][:4], rows)
    assert seen[0].shape == (6, 3)
    result = minimize(
        lambda genes: sphere(genes["x"]), x0=Population({"x": rows}), algorithm="pso", k=3, max_generations=0
    )
    assert result.evaluations == 4
    assert result.value == float(sphere(rows).min())
    with pytest.raises(ValueError, match="beside shape="):
        minimize(sphere, shape=2, x0=rows, max_generations=1)


@pytest.mark.parametrize(
    "bounds",
    [([-1.0, -2.0], [1.0, 2.0]), (np.array([-1.0, -2.0]), np.array([1.0, 2.0])), [[-1.0, -2.0], [1.0, 2.0]]],
)
def test_lists_and_arrays_are_bounds_starts_and_steps_as_tensors_are(bounds: Any) -> None:
    tensors = (torch.tensor([-1.0, -2.0]), torch.tensor([1.0, 2.0]))
    options: dict[str, Any] = {"algorithm": "cma_es", "max_evaluations": 60}
    expected = minimize(sphere, x0=torch.tensor([0.5, 1.5]), std=torch.tensor([0.1, 0.2]), bounds=tensors, **options)
    given = minimize(sphere, x0=[0.5, 1.5], std=[0.1, 0.2], bounds=bounds, **options)
    assert given.value == expected.value
    array = minimize(sphere, x0=np.array([0.5, 1.5]), **options)
    assert array.best["x"].dtype == torch.float64
    assert tansaku.PSO(std=[0.1, 0.2], bounds=bounds).bounds is not None  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="pairs"):
        minimize(sphere, shape=2, bounds=[(-1.0, 1.0), (-2.0, 2.0)], **options)  # type: ignore[arg-type]


def test_callbacks_see_the_start_and_read_the_generation() -> None:
    seen: list[tuple[int, int]] = []

    def look(search: Search[Any]) -> None:
        assert search.last is not None
        assert search.last.assessment is not None
        assert torch.equal(search.last.assessment.value, -sphere(search.last["x"]))
        seen.append((search.generations, search.last.k))

    start = Individual({"x": torch.ones(3)})
    Search(tansaku.PSO(k=5), Objective(lambda x: -sphere(x), True), start, callbacks=[look]).run(max_generations=2)
    assert seen == [(0, 1), (1, 5), (2, 5)]


def test_patience_with_a_tolerance_ignores_small_gains() -> None:
    values = iter([5.0, 4.0, 3.9, 3.8, 3.7, 0.0])
    fn = lambda p: p.assessed(Assessment(torch.full((p.k,), next(values))))  # noqa: E731
    result = Search(tansaku.PSO(k=3), fn, Individual({"x": torch.ones(2)})).run(patience=3, tolerance=0.5)
    assert (result.stopped, result.generations) == ("patience", 4)
    with pytest.raises(ValueError, match="expected tolerance with patience"):
        minimize(sphere, shape=2, tolerance=0.1, max_generations=1)


def test_history_has_rows_by_number_and_slice() -> None:
    history = minimize(sphere, shape=2, algorithm="pso", max_generations=5).history
    rows = list(history)
    assert history[-1] == rows[-1]
    assert history[np.int64(2)] == rows[2]  # type: ignore[call-overload]
    assert history[1:3] == rows[1:3]
    for wrong in (6, -7):
        with pytest.raises(IndexError, match="expected a generation"):
            history[wrong]


def test_the_estimate_is_the_algorithms_at_the_end() -> None:
    result = minimize(sphere, shape=2, algorithm="cma_es", max_generations=5, seed=1)
    assert result.estimate is not None
    assert torch.equal(result.estimate["x"], tansaku.CMAES().estimate(result.state)["x"])


def test_every_repr_is_one_line_without_values() -> None:
    bounds = (torch.full((40,), -1.2345), torch.full((40,), 1.2345))
    start = Individual({"x": torch.zeros(40)})
    search = Search(tansaku.PSO(k=4, bounds=bounds, std=torch.ones(40)), Objective(sphere), start)  # type: ignore[arg-type]
    result = search.run(max_generations=1)
    assert search.last is not None
    for shown in (result, search, result.best, search.last, search.last.assessment, result.history):
        assert "\n" not in repr(shown)
        assert "1.2345" not in repr(shown)
    assert "[4, 40]" in repr(search.last)


@pytest.mark.parametrize("name", tansaku.ALGORITHMS)
def test_counts_may_come_from_numpy(name: str, tmp_path: Any) -> None:
    k = np.int64(8)
    algorithm = tansaku.make(name, k=k) if name not in ("map_elites",) else tansaku.PSO(k=k)  # type: ignore[arg-type]
    assert type(algorithm.k) is int


def test_x0_may_be_a_dictionary_of_lists_and_arrays_of_numpy() -> None:
    def cost(g: dict[str, torch.Tensor]) -> torch.Tensor:
        return g["a"].square().sum(-1) + g["b"].square().sum(-1)

    given: dict[str, Any] = {"a": [1.0, 2.0], "b": np.ones(3, dtype=np.float32)}
    tensors = {"a": torch.tensor([1.0, 2.0]), "b": torch.ones(3)}
    found = minimize(cost, x0=given, algorithm="pso", max_evaluations=90)
    expected = minimize(cost, x0=tensors, algorithm="pso", max_evaluations=90)
    assert found.value == expected.value
