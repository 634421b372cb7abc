"""evotorch's searchers behind `Algorithm`, tansaku's objectives behind its `Problem`."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from tansaku import Bounds, Individual, Objective, Population, Search
from tansaku.bridges import evotorch as bridge
from tansaku.testing import ALGORITHM_CHECKS, check_algorithm, sphere

evotorch = pytest.importorskip("evotorch", reason="needs evotorch: pip install tansaku-zenkai[evotorch]")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")


def makers(k: int) -> dict[str, Any]:
    from evotorch import algorithms, operators

    def ga(problem: Any) -> Any:
        steps = [operators.GaussianMutation(problem, stdev=0.3)]
        return algorithms.GeneticAlgorithm(problem, popsize=k, operators=steps)

    def steady(problem: Any) -> Any:
        searcher = algorithms.SteadyStateGA(problem, popsize=k)
        searcher.use(operators.GaussianMutation(problem, stdev=0.3))
        return searcher

    width = {"popsize": k, "stdev_init": 1.0}
    return {
        "SNES": lambda p: algorithms.SNES(p, **width),
        "XNES": lambda p: algorithms.XNES(p, **width),
        "CEM": lambda p: algorithms.CEM(p, parenthood_ratio=0.5, **width),
        "PGPE": lambda p: algorithms.PGPE(p, center_learning_rate=0.3, stdev_learning_rate=0.1, **width),
        "CMAES": lambda p: algorithms.CMAES(p, **width),
        "PyCMAES": lambda p: algorithms.PyCMAES(p, obj_index=0, cma_options={"verbose": -9}, **width),
        "GA": ga,
        "SteadyStateGA": steady,
        "Cosyne": lambda p: algorithms.Cosyne(p, popsize=k, tournament_size=4, mutation_stdev=0.3),
    }


def snes(k: int = 20, bounds: Bounds | None = None) -> Any:
    return bridge.EvotorchSearcher(makers(k)["SNES"], k, bounds)


def genetic(k: int = 20, bounds: Bounds | None = None) -> Any:
    return bridge.EvotorchSearcher(makers(k)["SteadyStateGA"], k, bounds)


@pytest.mark.parametrize("check", [check for check in ALGORITHM_CHECKS if check != "convergence_does_no_harm"])  # slow
def test_a_wrapped_searcher_keeps_the_promises_of_an_algorithm(check: str) -> None:
    check_algorithm(snes, only=[check])


def test_a_searcher_that_asks_twice_in_a_step_keeps_them_too() -> None:
    names = ["ask_is_a_query", "same_seed_same_run", "best_is_never_lost", "bounds_hold", "inputs_stay_as_they_were"]
    check_algorithm(genetic, only=names)


@pytest.mark.parametrize("name", makers(2))
def test_every_searcher_improves_named_genes(name: str) -> None:
    objective = Objective(lambda x: x["a"].square().sum((-1, -2)) + x["b"].square())
    start = Individual({"a": torch.full((2, 2), 2.0, dtype=torch.float64), "b": torch.tensor(2.0).double()})
    search: Search[Any] = Search(bridge.EvotorchSearcher(makers(16)[name], 16), objective, start)
    result = search.run(max_generations=40)
    assert float(result.value) < 5.0  # 20 at the start
    assert result.best["a"].shape == (2, 2)
    assert result.best["b"].dtype == torch.float64
    assert result.evaluations == 1 + 40 * 16


def test_a_wrapped_searcher_makes_the_run_that_evotorch_makes() -> None:
    from evotorch.algorithms import SNES

    problem = bridge.problem(Objective(sphere), Individual({"x": torch.ones(3, dtype=torch.float64)}))
    theirs = SNES(problem, popsize=10, stdev_init=0.5)
    algorithm = bridge.EvotorchSearcher(lambda p: SNES(p, popsize=10, stdev_init=0.5), 10)
    objective = Objective(sphere)
    state = algorithm.init(objective(Population({"x": torch.ones(1, 3, dtype=torch.float64)})))
    noise = torch.Generator().manual_seed(0)
    for _ in range(12):
        asked = objective(algorithm.ask(state, noise))
        problem.manual_seed(int(asked.traits["seed"][0]))
        theirs.step()
        assert torch.equal(theirs.population.values, asked["x"])
        state = algorithm.tell(state, asked)
        assert torch.equal(theirs.status["center"], algorithm.estimate(state)["x"])


def test_a_population_of_another_size_is_asked_for_in_parts() -> None:
    objective = Objective(sphere)
    begun = objective(Population({"x": torch.ones(1, 3, dtype=torch.float64)}))
    whole, parts = (bridge.EvotorchSearcher(makers(10)["SNES"], k) for k in (10, 4))
    left, right = whole.init(begun), parts.init(begun)
    for seed in range(5):
        asked = objective(whole.ask(left, torch.Generator().manual_seed(seed)))
        left = whole.tell(left, asked)
        seen = []
        for _ in range(3):
            part = objective(parts.ask(right, torch.Generator().manual_seed(seed)))
            seen.append(part["x"])
            right = parts.tell(right, part)
        assert torch.equal(torch.cat(seen)[:10], asked["x"])
        assert torch.equal(seen[2][2:], asked["x"][9].expand(2, 3))
        assert torch.equal(parts.estimate(right)["x"], whole.estimate(left)["x"])


def test_the_loggers_of_evotorch_follow_a_tansaku_objective() -> None:
    pytest.importorskip("pandas")
    from evotorch.algorithms import SNES
    from evotorch.logging import PandasLogger

    utility = Objective(lambda x: -(x["w"] - 3).square().sum(-1) - x["b"].square(), maximize=True)
    start = Individual({"w": torch.zeros(4), "b": torch.tensor(0.5)})
    problem = bridge.problem(utility, start, seed=1)
    searcher = SNES(problem, popsize=20, stdev_init=1.0)
    assert searcher.status["center"].tolist() == [0.5, 0.0, 0.0, 0.0, 0.0]
    logger = PandasLogger(searcher)
    searcher.run(80)
    frame = logger.to_dataframe()
    assert len(frame) == 80
    assert frame["best_eval"].iloc[-1] > -1e-3
    best = problem.individual(searcher.status["best"].values)
    assert torch.allclose(best["w"], torch.full((4,), 3.0), atol=0.05)


def test_failures_and_bounds_reach_evotorch_as_finite_costs() -> None:
    seen = []

    def cost(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return torch.where(x[..., 0] < 0.2, float("nan"), x.sum(-1))

    problem = bridge.problem(Objective(cost), Individual({"x": torch.full((3,), 0.5)}), bounds=(0.0, 1.0))
    batch = problem.generate_batch(200)
    assert batch.values[0].tolist() == [0.5] * 3
    batch.access_values()[1] = 9.0
    problem.evaluate(batch)
    assert bool(torch.isfinite(batch.evals).all())
    assert bool((seen[0] >= 0).all() and (seen[0] <= 1).all())
    assert float(batch.evals[1, 0]) > 3.0


def test_a_problem_has_no_batch_and_starts_inside() -> None:
    with pytest.raises(ValueError, match=r"expected batch_shape \(\) for evotorch, got \[2\]"):
        bridge.problem(Objective(sphere), Individual({"x": torch.zeros(2, 3)}, 1))
    with pytest.raises(ValueError, match="expected the start of 'x' inside its bounds"):
        bridge.problem(Objective(sphere), Individual({"x": torch.full((3,), 2.0)}), bounds=(0.0, 1.0))
    with pytest.raises(AttributeError, match="has no attribute 'Problem'"):
        _ = bridge.Problem


def test_importing_the_bridge_loads_no_evotorch() -> None:
    program = "import sys, tansaku.bridges.evotorch; print('evotorch' in sys.modules, 'ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
