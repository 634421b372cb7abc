"""Violations: every way to return them changes the ranking, and results say whether they are feasible."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tansaku
from tansaku import (
    GTE,
    LTE,
    PSO,
    Annealing,
    Assessment,
    Constrained,
    Individual,
    InputObjective,
    MapElites,
    ModuleObjective,
    Objective,
    Penalty,
    Population,
    Restarts,
    Roulette,
    Search,
    maximize,
    minimize,
)
from tansaku.states import pack, unpack


def total_at_least_one(x: Tensor) -> dict[str, Tensor]:
    return {"value": x.sum(-1), "violation": (1 - x.sum(-1))[:, None]}


@pytest.mark.parametrize("algorithm", [None, "de", "ga"])
def test_a_violation_that_the_objective_returns_is_honoured(algorithm: str | None) -> None:
    found = minimize(total_at_least_one, shape=2, bounds=(0.0, 1.0), algorithm=algorithm, max_evaluations=2_000)
    assert found.value == pytest.approx(1.0, abs=0.02)
    assert found.value >= 1
    assert found.feasible is True
    assert found.violation == 0.0


def impossible(**settings: Any) -> Search[Any]:
    judged = Constrained(Objective(lambda x: x.square().sum(-1)), [GTE(lambda x: x.sum(-1), 100.0)])
    return Search(PSO(k=20, bounds=(-1.0, 1.0)), judged, Individual({"x": torch.zeros(3)}), **settings)


def test_where_nothing_is_feasible_a_warning_says_so_and_the_least_violated_is_kept(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="no feasible candidate was found: the best one violates .* by 97 in total"):
        found = impossible().run(max_generations=50)
    assert found.value == 3.0
    assert found.best["x"].tolist() == [1.0, 1.0, 1.0]
    assert found.feasible is False
    assert found.violation == 97.0
    assert bool(found.history.best.isnan().all())
    assert bool(found.history.median.isnan().all())
    assert found.history.feasible.tolist() == [0.0] * 51
    assert list(found.history)[-1]["feasible"] == 0.0
    found.plot(tmp_path / "nothing.png")


@pytest.mark.parametrize("way", [True, "vmap", False])
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("sign", [1, -1])
def test_violations_count_however_the_objective_is_called(way: Any, several: bool, sign: int) -> None:
    def fn(x: Tensor) -> dict[str, Tensor]:
        short = 1 - x.sum(-1)
        return {"value": sign * x.sum(-1), "violation": torch.stack([short, short - 5], -1) if several else short}

    search = minimize if sign == 1 else maximize
    found = search(fn, shape=2, bounds=(0.0, 1.0), algorithm="de", k=12, vectorized=way, max_generations=25)
    assert 1 <= sign * float(found.value) < 1.2


def test_each_search_of_a_batch_has_its_own_violations_and_its_own_target() -> None:
    limit = torch.tensor([0.5, 1.0, 50.0])

    def fn(x: Tensor) -> dict[str, Tensor]:
        return {"value": x.sum(-1), "violation": limit - x.sum(-1)}

    settings: dict[str, Any] = {"shape": 2, "bounds": (0.0, 1.0), "batch_shape": 3, "algorithm": "pso", "k": 20}
    with pytest.warns(UserWarning, match="no feasible candidate was found in 1 of 3 searches"):
        found = minimize(fn, **settings, max_generations=60, target=10.0)
    assert found.stopped == "max_generations"  # the third search has no feasible value below the target
    assert isinstance(found.feasible, Tensor)
    assert isinstance(found.violation, Tensor)
    assert isinstance(found.value, Tensor)
    assert found.feasible.tolist() == [True, True, False]
    assert found.violation.tolist() == [0.0, 0.0, 48.0]
    assert found.value.tolist() == pytest.approx([0.5, 1.0, 2.0], abs=0.05)
    without = minimize(lambda x: x.sum(-1), **settings, max_generations=1)
    assert isinstance(without.feasible, Tensor)
    assert without.feasible.tolist() == [True] * 3


def test_patience_counts_feasible_values_only() -> None:
    """The infeasible values and the violations get better in every generation; nothing feasible is found."""
    with pytest.warns(UserWarning, match="no feasible"):
        found = minimize(
            lambda x: {"value": x.sum(-1), "violation": 100 + x.sum(-1)},
            shape=2,
            bounds=(-10.0, 10.0),
            algorithm="cma_es",
            patience=7,
            max_generations=50,
        )
    assert (found.stopped, found.generations) == ("patience", 7)


def test_a_target_is_reached_by_a_feasible_candidate_only() -> None:
    found = minimize(
        total_at_least_one, shape=2, bounds=(0.0, 1.0), algorithm="de", k=20, target=1.1, max_generations=99
    )
    assert found.stopped == "target"
    assert found.feasible
    assert 1 <= float(found.value) <= 1.1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_violation_of_nan_or_infinity_is_infeasible_and_a_negative_one_is_satisfied(bad: float) -> None:
    for dtype in (torch.float16, torch.float32, torch.float64):
        value = torch.tensor([0.0, 5.0, 3.0, 4.0], dtype=dtype)
        for violation in (
            torch.tensor([bad, -3.0, -math.inf, 1.0]),
            torch.tensor([[bad, -1.0], [0, 0], [-9, 0], [2, 0]]),
        ):
            population = Population({"x": torch.arange(4.0)}).assessed(Assessment(value, violation=violation))
            assert population.best()["x"].tolist() == [2.0]
            assert population.cost.argsort().tolist() == [2, 1, 3, 0]
            assert population.scaled_cost.argsort().tolist() == [2, 1, 3, 0]


def test_the_shape_of_violations_is_unambiguous_for_batches_and_for_several_objectives() -> None:
    x = torch.zeros(2, 2)
    batch = Population({"x": x}, 1).assessed(Assessment(x, violation=torch.tensor([[1.0, 0.0], [0.0, 1.0]])))
    assert batch.cost.argmin(0).tolist() == [1, 0]  # per search
    many = Population({"x": x}).assessed(Assessment(x, violation=torch.tensor([[1.0, 0.0], [0.0, 0.0]])))
    assert (many.cost[0] > many.cost[1]).all()  # two constraints, two objectives


def test_constraints_and_a_rule_are_arguments_of_minimize_and_maximize() -> None:
    def centre(x: Tensor) -> Tensor:
        return x.square().sum(-1)

    limits = [GTE(lambda x: x.sum(-1), 2.0), LTE("x", 1.5)]
    found = minimize(centre, shape=2, bounds=(-5.0, 5.0), constraints=limits, max_evaluations=3000)
    assert found.feasible
    assert found.value == pytest.approx(2.0, abs=1e-3)
    with pytest.warns(UserWarning, match="the best candidate is infeasible: it violates"):
        soft = minimize(centre, shape=2, bounds=(-5.0, 5.0), constraints=limits, rule=Penalty(0.0), max_evaluations=300)
    assert soft.value < 2  # a violation costs nothing
    most = maximize(lambda x: x.sum(-1), shape=2, bounds=(-5.0, 5.0), constraints=LTE("x", 1.0), max_evaluations=3000)
    assert most.feasible
    assert most.value == pytest.approx(2.0, abs=1e-3)
    with pytest.raises(TypeError, match=r"expected rule such as Feasibility\(\) or Penalty\(100.0\), got the class"):
        minimize(centre, shape=2, constraints=limits, rule=Penalty)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:no feasible")
def test_nsga2_keeps_a_front_of_feasible_candidates() -> None:
    """Deb's constrained domination: f = (x, y), with x + y >= 1."""

    def fn(x: Tensor) -> dict[str, Tensor]:
        return {"value": x, "violation": 1 - x.sum(-1)}

    found = minimize(fn, shape=2, bounds=(0.0, 1.0), algorithm="nsga2", k=24, max_generations=40)
    assert found.feasible is True
    assert bool((torch.as_tensor(found.value).sum(-1) >= 1).all())
    assert bool((torch.as_tensor(found.value).sum(-1) < 1.1).all())


def test_module_and_input_objectives_take_a_dictionary() -> None:
    net = torch.nn.Linear(1, 1, bias=False)
    module = ModuleObjective(net, lambda run: {"value": run(torch.ones(1)).sum(), "violation": -run(torch.ones(1))})
    weights = Population({"weight": torch.tensor([-1.0, 3.0, 2.0]).view(3, 1, 1)})
    assert module(weights).best()["weight"].item() == 2.0
    rows = InputObjective(lambda x: {"value": x[:, 0], "violation": 1 - x[:, 0]}, chunk=2)
    inputs = Population({"x": torch.tensor([[0.0, 5.0], [2.0, 0.5], [1.0, 4.0]])[..., None]}, 1)
    assert rows(inputs).best()["x"].flatten().tolist() == [1.0, 4.0]


def test_an_assessment_told_by_hand_may_have_violations_and_survives_a_checkpoint(tmp_path: Path) -> None:
    def search() -> Search[Any]:
        return Search("de", None, Population({"x": torch.rand(8, 2, generator=torch.Generator().manual_seed(0))}))

    def tell(s: Search[Any]) -> None:
        x = s.ask()["x"]
        s.tell(Assessment(x.sum(-1), violation=1.5 - x.sum(-1)))

    whole, first, second = search(), search(), search()
    for _ in range(6):
        tell(whole)
    for _ in range(3):
        tell(first)
    first.save(tmp_path / "half")
    second.load(tmp_path / "half")
    for _ in range(3):
        tell(second)
    assert torch.equal(whole.best["x"], second.best["x"])
    assert torch.equal(whole.history.feasible, second.history.feasible)
    assert whole.history.median.nan_to_num(-1.0).tolist() == second.history.median.nan_to_num(-1.0).tolist()
    assert whole.violation is not None
    assert whole.value >= 1.5


def test_a_map_elites_archive_replaces_infeasible_elites_and_leaves_them_out_of_its_scores() -> None:
    def fn(x: Tensor) -> dict[str, Tensor]:
        return {"value": x.sum(-1), "descriptor": x[..., :2], "violation": 0.5 - x[..., 2]}

    search: Search[Any] = Search(MapElites(bounds=(0.0, 1.0)), Objective(fn), Individual({"x": torch.zeros(3)}))
    search.step()
    assert float(search.state.coverage) < float(search.state.filled.double().mean())
    found = search.run(max_generations=60)
    assert found.feasible
    assert 0.5 <= float(found.value) < 0.7
    assert abs(float(search.state.qd_score())) < 1e4  # no ranking cost is added up
    again = unpack(pack(search.state))
    assert torch.equal(again.filled, search.state.filled)


@pytest.mark.parametrize("algorithm", [Annealing(k=8, max_evaluations=4000), Restarts(PSO(k=20))])
def test_algorithms_that_subtract_costs_find_the_edge(algorithm: Any) -> None:
    limits = [GTE(lambda x: x.sum(-1), 2.0)]
    found = Search(
        algorithm, Constrained(Objective(lambda x: x.square().sum(-1)), limits), Individual({"x": torch.zeros(2)})
    ).run(max_evaluations=4000)
    assert found.feasible
    assert found.value == pytest.approx(2.0, abs=0.1)


def test_the_temperature_of_annealing_has_the_unit_of_the_objective() -> None:
    search: Search[Any] = Search(
        Annealing(k=8),
        Objective(lambda x: {"value": x.sum(-1), "violation": -x[..., 0]}),
        Individual({"x": torch.zeros(2)}),
    )
    for _ in range(20):
        search.step()
    assert 0 < float(search.state.hottest) < 1e3


def test_proportional_selection_sees_the_differences_between_feasible_candidates() -> None:
    value, violation = torch.tensor([1.0, 2.0, 3.0, 0.0]), torch.tensor([0.0, 0.0, 0.0, 1.0])
    population = Population({"x": value}).assessed(Assessment(value, violation=violation))
    assert population.scaled_cost.tolist() == [1.0, 2.0, 3.0, 4.0]
    picked = Roulette()(population, 3000, torch.Generator().manual_seed(0))
    share = torch.bincount(picked.flatten(), minlength=4) / 3000
    assert share.tolist() == pytest.approx([3 / 6, 2 / 6, 1 / 6, 0.0], abs=0.04)


def test_history_leaves_infeasible_costs_out() -> None:
    history = tansaku.History()
    history.record(torch.tensor([5.0, 1.0, 3.0]), 3, feasible=torch.tensor([False, False, False]))
    history.record(torch.tensor([5.0, 1.0, 3.0]), 6, feasible=torch.tensor([True, False, True]))
    history.record(torch.tensor([9.0, 1.0, 8.0]), 9, feasible=torch.tensor([True, False, False]))
    assert history.best.nan_to_num(-1.0).tolist() == [-1.0, 3.0, 3.0]
    assert history.median.nan_to_num(-1.0).tolist() == [-1.0, 3.0, 9.0]
    assert history.spread.nan_to_num(-1.0).tolist() == pytest.approx([-1.0, math.sqrt(2), 0.0])
    assert history.feasible.tolist() == pytest.approx([0, 2 / 3, 1 / 3])


def test_the_torch_optimisers_take_a_violation() -> None:
    weight = torch.nn.Parameter(torch.tensor([0.0]))
    optimizer = tansaku.optim.PSO([weight], k=12, seed=0, write="best")
    loss = torch.tensor(0.0)
    for _ in range(40):
        loss = optimizer.step(lambda: {"value": weight.square().sum(), "violation": 1 - weight})
    assert weight.item() >= 1
    assert loss.item() == pytest.approx(1.0, abs=0.05)
    with pytest.raises(ValueError, match="expected a dictionary with 'value' and maybe 'violation'"):
        optimizer.step(lambda: {"loss": weight})


def test_no_warning_without_constraints_or_with_a_feasible_result() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = minimize(total_at_least_one, shape=2, bounds=(0.0, 1.0), algorithm="de", k=10, max_generations=20)
        assert found.feasible
        assert minimize(lambda x: x.sum(-1), shape=2, algorithm="de", k=10, max_generations=2).feasible is True
