"""Users' functions: they may write, raise, be written for one candidate, draw random numbers, or return arrays."""

from __future__ import annotations

import copy
import pickle
import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tansaku
from tansaku import (
    ALGORITHMS,
    GA,
    NSGA2,
    PSO,
    Constrained,
    HillClimb,
    Individual,
    InputObjective,
    LTE,
    ModuleObjective,
    Objective,
    Population,
    Search,
)
from tansaku.testing import sphere

CHANGED = "expected fn to leave its argument as it is, got it changed in place; work on a copy"
ONE = r"set vectorized='vmap' \(or False\) if fn takes one candidate"


def one_candidate(x: Tensor) -> Tensor:
    return (x[0] - 1) ** 2 + x[1] ** 2 + (x[2:] ** 2).sum(0)


# Functions of one candidate.


@pytest.mark.parametrize("algorithm", ["ga", "pso", "de", "hill_climb", "cma_es", None])
@pytest.mark.parametrize("n", [2, 3, 99, 100])
def test_a_function_of_one_candidate_is_refused_by_every_size(algorithm: str | None, n: int) -> None:
    options: dict[str, Any] = {"shape": n, "bounds": (-5.0, 5.0), "algorithm": algorithm, "max_evaluations": 5_000}
    for k in (None, n) if n > 3 and algorithm is not None else (None,):
        with pytest.raises(ValueError, match=ONE):
            tansaku.minimize(one_candidate, k=k, **options)
    found = tansaku.minimize(one_candidate, vectorized="vmap", **{**options, "max_evaluations": 300})
    assert found.value == pytest.approx(float(one_candidate(found.best["x"])), rel=1e-5)


@pytest.mark.parametrize(
    ("fn", "event"),
    [
        (lambda x: (x - 1).square().sum(0), (6,)),
        (lambda x: x[0].square() + (x * x).mean(0), (6,)),
        (lambda x: x @ torch.eye(6) @ x, (6,)),
        (lambda x: torch.from_numpy((x.numpy() ** 2).sum(0)), (6,)),
        (lambda x: x.square().sum((0, 1)), (3, 6)),
        (lambda x: torch.stack([x.sum(0), x.prod(0)], -1), (6,)),
        (lambda x: {"value": x.square().sum(0)}, (6,)),
    ],
)
def test_as_many_candidates_as_genes_do_not_hide_a_function_of_one(fn: Callable[..., Any], event: Any) -> None:
    with pytest.raises(ValueError, match=ONE):
        Objective(fn)(Population({"x": torch.randn(6, *event)}))


def test_as_many_candidates_as_genes_do_not_hide_a_function_of_one_with_names_or_a_batch() -> None:
    named = Objective(lambda genes: genes["a"].sum(0) + genes["b"].sum(0))
    with pytest.raises(ValueError, match=ONE):
        named(Population({"a": torch.randn(4, 4), "b": torch.randn(4, 4)}))
    with pytest.raises(ValueError, match=ONE):
        Objective(lambda x: x.sum(0))(Population({"x": torch.randn(4, 4, 4)}, 1))


@pytest.mark.parametrize("error", [IndexError, RuntimeError, ValueError, TypeError])
def test_an_error_about_shapes_names_the_remedy_and_keeps_its_cause(error: type[Exception]) -> None:
    fn = {
        IndexError: lambda x: x[7],
        RuntimeError: lambda x: x + torch.ones(7),
        ValueError: lambda x: sum(a * b for a, b in [x]),
        TypeError: lambda x: torch.tensor([np.int64(1) if bool(x[0] > 0) else 1]) if False else math_of_one(x),
    }[error]
    with pytest.raises(error, match=r"x: \[5, 3\], got .*; set vectorized='vmap'") as caught:
        Objective(fn)(Population({"x": torch.randn(5, 3)}))
    assert type(caught.value.__cause__) is error


def math_of_one(x: Tensor) -> float:
    raise TypeError("only length-1 arrays can be converted to Python scalars")


@pytest.mark.parametrize(("k", "calls"), [(7, 1), (3, 2), (1, 1)])
def test_only_ambiguous_shapes_cost_another_call_and_only_once(k: int, calls: int) -> None:
    seen: list[tuple[int, ...]] = []
    objective = Objective(lambda x: (seen.append(tuple(x.shape)), sphere(x))[1])  # type: ignore[func-returns-value]
    for _ in range(3):
        objective(Population({"x": torch.randn(k, 3)}))
    assert len(seen) == 2 + calls
    assert seen[1:calls] == [(1, 3)] * (calls - 1)


@pytest.mark.parametrize("way", ["vmap", False])
def test_a_function_that_takes_one_candidate_by_agreement_is_not_tried(way: Any) -> None:
    seen: list[int] = []
    Objective(lambda x: (seen.append(1), x.sum())[1], vectorized=way)(Population({"x": torch.randn(3, 3)}))  # type: ignore[func-returns-value]
    assert len(seen) == (1 if way == "vmap" else 3)


def test_the_call_that_tells_shapes_apart_changes_no_run() -> None:
    def noisy(x: Tensor) -> Tensor:
        assert random.random() < 1
        return sphere(x) + torch.rand(x.shape[0]) + torch.from_numpy(np.random.rand(x.shape[0]))  # noqa: NPY002

    def values(n: int) -> tuple[Any, ...]:
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        random.seed(0)
        objective = Objective(noisy)
        for _ in range(3):
            value = objective(Population({"x": torch.ones(5, n)})).cost
        return (value - n).tolist(), random.random(), torch.rand(1).item(), np.random.rand()  # noqa: NPY002

    ambiguous, plain = values(5), values(4)
    assert ambiguous[0] == pytest.approx(plain[0])
    assert ambiguous[1:] == plain[1:]
    run = tansaku.minimize(sphere, shape=5, k=5, algorithm="pso", max_generations=3)
    assert run.evaluations == 20


def test_a_function_may_reuse_the_tensor_that_it_returns_where_shapes_are_ambiguous() -> None:
    out = torch.empty(3)

    def reusing(x: Tensor) -> Tensor:
        out[: x.shape[0]] = sphere(x)
        return out[: x.shape[0]]

    x = torch.randn(3, 3)
    assert torch.equal(Objective(reusing)(Population({"x": x})).cost, sphere(x))


def test_rows_that_equal_features_do_not_hide_a_function_of_one_row() -> None:
    population = Population({"x": torch.randn(2, 3, 6)}, 1)
    with pytest.raises(ValueError, match="reduce over features only"):
        InputObjective(lambda rows: rows.square().sum(0))(population)
    assert InputObjective(sphere)(population).cost.shape == (2, 3)
