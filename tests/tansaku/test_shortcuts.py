"""`minimize` and `maximize`: every way to start, every way to be called, every wrong input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tansaku
from tansaku import (
    GA,
    PSO,
    Best,
    Bounds,
    Gaussian,
    HillClimb,
    Individual,
    Objective,
    Plus,
    Result,
    Search,
    maximize,
    minimize,
)
from tansaku.testing import ackley, ellipsoid, rastrigin, rosenbrock, sphere, zeros


def as_float(result: Result) -> float:
    assert isinstance(result.value, float)
    return result.value


@pytest.mark.parametrize("algorithm", ["pso", "ga", "hill_climb"])
@pytest.mark.parametrize("fn", [sphere, ellipsoid, ackley])
def test_every_algorithm_comes_near_the_optimum(algorithm: str, fn: Any) -> None:
    result = minimize(fn, shape=4, bounds=(-5.0, 5.0), algorithm=algorithm, max_evaluations=8000, dtype=torch.float64)
    assert as_float(result) < (50.0 if fn is ellipsoid else 0.5)
    assert as_float(result) == pytest.approx(float(fn(result.best["x"])))
    assert result.stopped == "max_evaluations"
    assert 7900 <= result.evaluations <= 8000


def test_the_readme_line_solves_rastrigin() -> None:
    result = minimize(rastrigin, shape=5, bounds=(-5.12, 5.12), algorithm="pso", max_evaluations=20_000, seed=0)
    assert as_float(result) < 3.0
    assert result.best["x"].shape == (5,)


def test_rosenbrocks_valley_is_followed() -> None:
    result = minimize(rosenbrock, shape=2, bounds=(-2.0, 2.0), algorithm="hill_climb", max_evaluations=20_000)
    assert as_float(result) < 1e-2


def test_maximize_is_minimize_with_the_other_sign() -> None:
    down = minimize(sphere, shape=3, bounds=(-1.0, 1.0), max_generations=10)
    up = maximize(lambda x: -sphere(x), shape=3, bounds=(-1.0, 1.0), max_generations=10)
    assert as_float(up) == -as_float(down)
    assert torch.equal(up.best["x"], down.best["x"])
    assert torch.equal(up.history.best, -down.history.best)
    assert torch.equal(up.history.spread, down.history.spread)


def test_a_tensor_is_where_the_search_starts() -> None:
    x0 = torch.tensor([3.0, -4.0], dtype=torch.float64)
    first = []
    result = minimize(lambda x: first.append(x) or sphere(x), x0=x0, std=0.01, max_generations=5)
    assert torch.equal(first[0][0], x0)
    assert float((first[0] - x0).abs().max()) < 0.06
    assert result.best["x"].dtype == torch.float64
    assert as_float(result) <= 25.0
    assert x0.tolist() == [3.0, -4.0]


def test_a_dictionary_and_an_individual_are_searched_by_name() -> None:
    genes = {"w": torch.ones(2, 3), "b": torch.ones(3)}
    for x0 in (genes, Individual(genes)):
        result = minimize(lambda g: sphere(g["w"].flatten(1)) + sphere(g["b"]), x0=x0, max_evaluations=4000)
        assert result.best["w"].shape == (2, 3)
        assert as_float(result) < 0.5


def test_searches_of_a_batch_run_side_by_side() -> None:
    centre = torch.tensor([[0.0], [1.0], [2.0]])
    result = minimize(lambda x: sphere(x - centre), shape=2, batch_shape=(3,), bounds=(-5.0, 5.0), max_generations=60)
    assert isinstance(result.value, Tensor)
    assert result.value.shape == (3,)
    assert torch.allclose(result.best["x"], centre.expand(3, 2), atol=0.1)
    assert result.history.best.shape == (61, 3)


def test_x0_serves_every_search_or_each_its_own() -> None:
    for x0 in (torch.zeros(2), torch.arange(6.0).view(3, 2)):
        first = []
        minimize(lambda x, first=first: first.append(x) or sphere(x), x0=x0, batch_shape=(3,), max_generations=1)
        assert torch.equal(first[0][0], x0.expand(3, 2))


def test_all_ways_to_call_the_function_are_the_same_run() -> None:
    results = [
        minimize(fn, shape=3, bounds=(-5.0, 5.0), vectorized=way, max_generations=6, batch_shape=(2,), dtype=dtype)
        for dtype in (torch.float64,)
        for fn, way in (
            (lambda x: x.square().sum(-1), True),
            (lambda x: x.square().sum(), "vmap"),
            (lambda x: x.square().sum(), False),
            (lambda x: float(np.square(x.numpy()).sum()), False),
            (lambda x: {"value": x.square().sum()}, False),
            (lambda x: {"value": x.square().sum(-1), "descriptor": x[..., :1]}, True),
        )
    ]
    for result in results[1:]:
        assert torch.allclose(result.best["x"], results[0].best["x"], atol=1e-12)
        assert torch.allclose(torch.as_tensor(result.value), torch.as_tensor(results[0].value), atol=1e-12)


def test_a_plain_float_is_as_exact_as_the_genes() -> None:
    offset = 1.0 + 2**-40  # lost in float32
    result = minimize(lambda x: offset, shape=2, vectorized=False, dtype=torch.float64, max_generations=1)
    assert result.value == offset


@pytest.mark.parametrize("algorithm", [None, "hill_climb"])
def test_booleans_and_whole_numbers_are_searched(algorithm: str | None) -> None:
    options: dict[str, Any] = {"algorithm": algorithm, "max_evaluations": 6000}
    bits = minimize(zeros, shape=20, dtype=torch.bool, **options)
    assert bits.best["x"].dtype == torch.bool
    assert bits.value == 0.0
    target = torch.tensor([3, -7, 0, 9])
    whole = minimize(lambda x: (x - target).abs().sum(-1), shape=4, dtype=torch.int64, bounds=(-9, 9), **options)
    assert whole.best["x"].tolist() == target.tolist()


def test_a_scalar_event_and_a_bounded_scalar_work() -> None:
    result = minimize(lambda x: (x - 2).square(), shape=(), bounds=(-5.0, 5.0), max_evaluations=2000)
    assert float(result.best["x"]) == pytest.approx(2.0, abs=1e-2)


def test_one_sided_bounds_hold() -> None:
    seen = []
    minimize(lambda x: seen.append(x) or x.sum(-1), shape=3, bounds=(0.0, float("inf")), max_generations=20)
    assert all(bool((x >= 0).all()) for x in seen)


def test_settings_of_an_instance_are_its_own() -> None:
    result = minimize(sphere, shape=2, algorithm=PSO(k=5, bounds=(-1.0, 1.0)), max_generations=2)  # type: ignore[arg-type]
    assert result.evaluations == 15
    assert minimize(sphere, shape=2, k=6, max_generations=2).evaluations == 18


def test_without_a_budget_it_ends() -> None:
    result = minimize(sphere, shape=2)
    assert result.stopped == "max_evaluations"
    assert result.evaluations <= 10_000


def test_the_seed_decides() -> None:
    runs = [minimize(sphere, shape=2, max_generations=3, seed=seed).value for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_callbacks_see_the_search() -> None:
    seen: list[Search[Any]] = []
    result = minimize(sphere, shape=2, callbacks=[lambda s: seen.append(s) or s.generations == 2], max_generations=9)
    assert result.stopped == "callback"
    assert seen[0].generations == 2


ONE = {"shape": 2, "max_generations": 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": 2, "k": 0}, "expected k >= 2, got 0"),
        ({"shape": 2, "k": 0, "algorithm": "ga"}, "expected k >= 1, got 0"),
        ({"shape": 2, "k": 2.5}, "expected k to be an integer, got 2.5"),
        ({"shape": 0}, "expected every size of shape >= 1, got 0"),
        ({"shape": (3, 0)}, "expected every size of shape >= 1, got 0"),
        ({"shape": 2.5}, "expected shape as an integer or several, got 2.5"),
        ({"shape": "ab"}, "expected every size of shape to be an integer, got 'a'"),
        ({"shape": 2, "batch_shape": (0,)}, "expected every size of batch_shape >= 1, got 0"),
        ({"shape": 2, "batch_shape": 3.5}, "expected batch_shape as an integer or several, got 3.5"),
        ({}, "expected either shape= or x0=, got neither; give one"),
        ({"shape": 2, "x0": torch.zeros(2)}, "expected either shape= or x0=, got both; give one"),
        ({"x0": torch.zeros(0)}, "expected x0 'x' with at least one gene, got shape"),
        ({"x0": "ab"}, r"expected x0\['x'\] to be a tensor, got str"),
        ({"x0": {}}, "expected at least one tensor in x0, got an empty mapping"),
        ({"x0": torch.zeros(2, dtype=torch.complex64)}, "got torch.complex64; search over torch.view_as_real"),
        ({"shape": 2, "dtype": torch.complex64}, "got torch.complex64; search over torch.view_as_real"),
        ({"x0": torch.zeros(2), "dtype": torch.float64}, r"expected dtype and device with shape=.*use x0.to"),
        ({"x0": torch.zeros(2), "bounds": (1.0, 2.0)}, "expected the start of 'x' inside its bounds, got 2 genes"),
        ({"x0": torch.full((2,), float("nan")), "bounds": (1.0, 2.0)}, "inside its bounds, got 2 genes outside or NaN"),
        ({"shape": 2, "bounds": (2.0, 1.0)}, "expected lower <= upper for all genes, got lower 2.0 and upper 1.0"),
        ({"shape": 2, "bounds": 3.0}, r"expected bounds as \(lower, upper\) or Bounds, got 3.0"),
        ({"shape": 2, "bounds": (torch.zeros(3), torch.ones(3))}, r"expected bounds of 'x' to broadcast .* got \[3\]"),
        ({"shape": 2, "bounds": ({"y": 0.0}, {"y": 1.0})}, r"expected bounds for names among \['x'\], got \['y'\]"),
        ({"shape": 2, "algorithm": "magic"}, "expected algorithm among .*, got 'magic'"),
        ({"shape": 2, "algorithm": PSO(), "k": 4}, "expected k and bounds in the algorithm's own arguments"),
        ({"shape": 2, "algorithm": "pso", "dtype": torch.bool}, "expected real genes for PSO, got 'x' of torch.bool"),
        ({"shape": 2, "dtype": torch.int64}, "expected finite bounds for 'x' to draw from, got none"),
        ({"shape": 2, "seed": float("nan")}, "expected seed to be an integer, got nan"),
        ({"shape": 2, "seed": -1}, "expected seed >= 0, got -1"),
        ({"shape": 2, "std": 0.0}, "expected a finite std > 0, got 0"),
        ({"shape": 2, "std": -1.0}, "expected std in"),
        ({"shape": 2, "std": torch.tensor([1.0, 0.0])}, "expected a finite std > 0 for every gene"),
        ({"shape": 2, "vectorized": "no"}, "expected vectorized True, False or 'vmap', got 'no'"),
        (
            {"x0": Individual({"x": torch.zeros(2)}), "batch_shape": (3,)},
            r"expected x0 with batch_shape \[3\], got an Individual with \[\]",
        ),
    ],
)
def test_wrong_options_are_refused_in_words(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        minimize(sphere, **{"max_generations": 1, **options})


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda x: 1.0, "expected fn to return a tensor as value, got float; .* vectorized=False"),
        (lambda x: None, "expected fn to return a tensor as value, got NoneType"),
        (lambda x: x.sum(), r"expected value with shape .* = \[30\], got \[\]"),
        (lambda x: x.sum(0), r"expected value with shape .* = \[30\], got \[2\]"),
        (lambda x: x[..., :1], r"expected one objective for PSO, got values of shape \[30, 1\]"),
        (lambda x: {"cost": x.sum(-1)}, r"expected a dictionary with 'value' .* got \['cost'\]; rename its keys"),
        (lambda x: x.sum(-1).to(torch.complex64), "expected value to be real, got torch.complex64"),
    ],
)
def test_wrong_answers_are_refused_in_words(fn: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        minimize(fn, algorithm="pso", **ONE)


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(TypeError, match="expected fn to be callable, got float"):
        minimize(1.0, **ONE)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"expected options among .*, got \['colour'\]; see minimize"):
        maximize(sphere, shape=2, colour="red")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_function_that_always_fails_ends_with_what_it_gave(bad: float) -> None:
    result = minimize(lambda x: torch.full((x.shape[0],), bad), shape=2, max_generations=5)
    assert result.generations == 5
    assert str(result.value) == str(bad)


def test_names_build_algorithms() -> None:
    assert tansaku.make("pso", k=10, std=None).k == 10
    assert tansaku.make("ga", std=0.3).k == GA().k
    with pytest.raises(ValueError, match=r"expected settings of pso among .*, got \['colour'\]; see PSO"):
        tansaku.make("pso", colour=1)


@pytest.mark.parametrize("batch_shape", [(), (5,)])
def test_the_picture_is_a_picture(batch_shape: tuple[int, ...], tmp_path: Path) -> None:
    result = minimize(sphere, shape=2, bounds=(-1.0, 1.0), batch_shape=batch_shape, max_generations=30)
    result.plot(tmp_path / "run.png")
    data = (tmp_path / "run.png").read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(data) > 10_000


def test_a_picture_of_failures_is_drawn_and_of_nothing_refused(tmp_path: Path) -> None:
    values = iter([float("nan"), float("inf"), 3.0, -1.0, 2.0])
    minimize(lambda x: torch.full((x.shape[0],), next(values)), shape=2, max_generations=4).plot(tmp_path / "run.png")
    assert (tmp_path / "run.png").stat().st_size > 10_000
    from tansaku.plots import plot_history

    with pytest.raises(ValueError, match="expected a history of at least one generation, got an empty one"):
        plot_history(tansaku.History(), tmp_path / "none.png")


def test_a_hill_climb_takes_four_lines_of_operators() -> None:
    noise, assess, mutate = torch.Generator().manual_seed(0), Objective(sphere), Gaussian(0.1)
    best = Individual({"x": torch.full((3,), 2.0)})
    incumbent = assess(best.populate(1))
    for _ in range(150):
        children = assess(mutate(best.populate(16), noise))
        incumbent = Plus(1)(incumbent, children)
        best = Best()(incumbent)
    assert float(sphere(best["x"])) < 0.05


def test_hill_climbing_needs_no_bounds() -> None:
    result = Search(HillClimb(std=0.5), Objective(sphere), Individual({"x": torch.full((3,), 20.0)})).run(
        max_generations=200
    )
    assert as_float(result) < 1e-6


def test_bounds_may_be_given_as_an_object() -> None:
    result = minimize(sphere, shape=2, bounds=Bounds(1.0, 2.0, "wrap"), max_generations=30)
    assert 2.0 <= as_float(result) < 2.1


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"shape": 3}, "IPOPCMAES"),
        ({"shape": 3, "batch_shape": (2,)}, "LSHADE"),
        ({"shape": 501}, "LMMAES"),
        ({"x0": torch.zeros(4, dtype=torch.bool)}, "GA"),
    ],
)
def test_the_genes_decide_which_algorithm_is_taken(options: dict[str, Any], name: str) -> None:
    taken: list[str] = []

    def note(search: Any) -> bool:
        taken.append(type(search.algorithm).__name__)
        return True

    minimize(lambda x: x.float().square().sum(-1), callbacks=[note], max_generations=5, **options)
    assert taken == [name]
