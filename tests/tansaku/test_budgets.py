"""Algorithms that plan their course over a budget: which budget they get."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tansaku
from tansaku import LSHADE, PSO, Algorithm, Annealing, Individual, Objective, Restarts, Search, maximize, minimize

BOX = (-5.12, 5.12)
START = Individual({"x": torch.ones(4)})
PLANNERS: dict[str, Callable[..., Algorithm[Any]]] = {
    "lshade": lambda **own: LSHADE(k=12, bounds=BOX, **own),  # type: ignore[arg-type]
    "annealing": lambda **own: Annealing(k=4, bounds=BOX, **own),  # type: ignore[arg-type]
    "pso": lambda **own: PSO(k=6, bounds=BOX, last_inertia=0.1, **own),  # type: ignore[arg-type]
}


def rastrigin(x: Tensor) -> Tensor:
    return (x.square() - 10 * torch.cos(2 * math.pi * x) + 10).sum(-1)


@pytest.mark.parametrize("name", ["lshade", "annealing"])
@pytest.mark.parametrize("budget", [{"max_evaluations": 600}, {"max_generations": 20}, {}])
def test_an_instance_and_its_name_give_the_same_run(name: str, budget: dict[str, int]) -> None:
    by_name = minimize(rastrigin, shape=4, bounds=BOX, algorithm=name, **budget)  # type: ignore[arg-type]
    instance = tansaku.make(name, bounds=BOX)
    assert torch.equal(minimize(rastrigin, shape=4, algorithm=instance, **budget).best["x"], by_name.best["x"])  # type: ignore[arg-type]
    upside_down = maximize(lambda x: -rastrigin(x), shape=4, algorithm=instance, **budget)
    assert torch.equal(upside_down.best["x"], by_name.best["x"])


@pytest.mark.parametrize("name", PLANNERS)
def test_an_unset_budget_is_that_of_the_run_and_a_set_one_stays(name: str) -> None:
    make = PLANNERS[name]

    def found(algorithm: Algorithm[Any]) -> Tensor:
        return Search(algorithm, Objective(rastrigin), START, seed=3).run(max_evaluations=300).best["x"]

    assert torch.equal(found(make()), found(make(max_evaluations=300)))
    assert torch.equal(found(make(max_evaluations=10_000)), found(make(max_evaluations=np.int64(10_000))))
    assert not torch.equal(found(make()), found(make(max_evaluations=10_000)))


def test_restarts_plan_every_run_over_what_is_left() -> None:
    search = Search(Restarts(LSHADE(k=12)), Objective(rastrigin), START)
    search.run(max_evaluations=np.int64(400))  # type: ignore[arg-type]
    restarts: Any = search.algorithm
    assert restarts._algorithm(tansaku.algorithms.restarts.Run(12)).max_evaluations == 400
    assert restarts._algorithm(tansaku.algorithms.restarts.Run(12, before=150)).max_evaluations == 250
    own: Any = Restarts(LSHADE(k=12, max_evaluations=70)).with_budget(400)
    assert own._algorithm(tansaku.algorithms.restarts.Run(12)).max_evaluations == 70


@pytest.mark.parametrize("name", PLANNERS)
def test_a_resumed_run_keeps_the_plan(name: str, tmp_path: Any) -> None:
    def search() -> Search[Any]:
        return Search(PLANNERS[name](), Objective(rastrigin), START, seed=3)

    whole, first, second = search(), search(), search()
    answer = whole.run(max_evaluations=300).best["x"]
    first.callbacks.append(lambda s: s.generations == 5)
    assert first.run(max_evaluations=np.int64(300)).stopped == "callback"  # type: ignore[arg-type]
    first.save(tmp_path / "search")
    second.load(tmp_path / "search")
    assert torch.equal(second.run(max_evaluations=300).best["x"], answer)


def test_by_hand_the_plan_is_over_ten_thousand_evaluations() -> None:
    search = Search(LSHADE(k=8), None, START)
    for _ in range(2):
        search.tell(rastrigin(search.ask()["x"]))
    planned: Any = search.algorithm
    assert planned.max_evaluations == 10_000
