"""NSGA-II: selection and survival against references, fronts of published problems, several objectives in Search."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tansaku import (
    NSGA2,
    PSO,
    Assessment,
    Bounds,
    Individual,
    NSGA2State,
    Objective,
    Population,
    Replay,
    Search,
    maximize,
    minimize,
)
from tansaku.functional import crowding_distances, hypervolume, pareto_ranks
from tansaku.testing import dtlz2, zdt1, zdt2, zdt3

BOX = Bounds(0.0, 1.0)


def population(k: int, seed: int, m: int = 2) -> Population:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(k, 4, generator=generator, dtype=torch.float64)
    value = torch.randint(6, (k, m), generator=generator).double()
    return Population({"x": x}, assessment=Assessment(value))


def slow_survivors(cost: torch.Tensor, k: int) -> list[int]:
    """The paper's loop: whole fronts while they fit, then the least crowded members of the next."""
    rank = pareto_ranks(cost)
    crowding = crowding_distances(cost, rank).tolist()
    chosen: list[int] = []
    for front in range(len(cost)):
        members = [i for i in range(len(cost)) if rank[i] == front]
        if len(chosen) + len(members) > k:
            members = sorted(members, key=lambda i: -crowding[i])[: k - len(chosen)]
        chosen += members
    return chosen


@pytest.mark.parametrize("m", [2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_whole_fronts_survive_and_of_the_cut_one_the_least_crowded(seed: int, m: int) -> None:
    nsga2 = NSGA2(k=20)
    parents, children = population(20, seed, m), population(20, seed + 50, m)
    told = nsga2.tell(nsga2.init(parents), children)
    both = parents.cat(children)
    assert sorted(map(tuple, told.parents["x"].tolist())) == sorted(
        tuple(both["x"][i].tolist()) for i in slow_survivors(both.cost, 20)
    )
    whole = crowding_distances(both.cost, pareto_ranks(both.cost))
    for x, rank, crowding in zip(told.parents["x"], told.rank, told.crowding, strict=True):
        index = int((both["x"] == x).all(-1).nonzero()[0])
        assert rank == pareto_ranks(both.cost)[index]
        assert crowding == whole[index]  # every survivor has its distance, not only those of the cut front


def test_a_tournament_is_won_by_rank_and_then_by_room() -> None:
    rank = torch.tensor([0, 0, 1, 1])
    crowding = torch.tensor([1.0, 2.0, math.inf, 0.5])
    state = NSGA2State(population(4, 0), rank, crowding)
    tape = Replay(torch.Generator().manual_seed(0))
    winners = NSGA2(k=4)._tournament(state, 400, tape)
    first, second = tape._tape[0][1]
    better = {(i, j) for i in range(4) for j in range(4) if (rank[i], -crowding[i]) < (rank[j], -crowding[j])}
    for winner, i, j in zip(winners.tolist(), first.tolist(), second.tolist(), strict=True):
        assert winner == (j if (j, i) in better else i)
    # of 16 equally likely pairs, candidate 1 (the best) wins 7
    assert float((winners == 1).double().mean()) == pytest.approx(7 / 16, abs=0.08)


def test_crossover_and_mutation_happen_as_often_as_they_say() -> None:
    x = torch.tensor([[0.25], [0.75]], dtype=torch.float64).expand(2, 10).repeat(50, 1)
    even = Population({"x": x}, assessment=Assessment(torch.zeros(100, 2)))
    state = NSGA2State(even, torch.zeros(100, dtype=torch.int64), torch.ones(100))
    for crossover, mutation in ((0.0, 0.0), (1.0, 0.0), (0.9, 0.0), (0.0, 0.3), (0.0, None)):
        nsga2 = NSGA2(k=20_000, crossover=crossover, mutation=mutation, bounds=BOX)
        asked = nsga2.ask(state, torch.Generator().manual_seed(0))["x"]
        changed = ((asked != 0.25) & (asked != 0.75)).double().mean()
        rate = 0.1 if mutation is None else mutation
        # half of the pairs have different parents; of their genes half take part
        assert float(changed) == pytest.approx(max(rate, 0.25 * crossover), abs=0.01)


def test_children_that_are_not_crossed_are_their_parents() -> None:
    state = NSGA2(k=4).init(population(9, 0))
    asked = NSGA2(k=7, crossover=0.0, mutation=0.0).ask(state, torch.Generator().manual_seed(0))
    assert asked.k == 7
    assert all(bool((state.parents["x"] == x).all(-1).any()) for x in asked["x"])


def front_of(fn: Any, n: int, generations: int, seed: int) -> torch.Tensor:
    box = {"shape": n, "bounds": (0.0, 1.0), "dtype": torch.float64}
    result = minimize(fn, **box, algorithm="nsga2", k=60, seed=seed, max_generations=generations, progress=False)
    return torch.as_tensor(result.value)


PROBLEMS = {"zdt1": (zdt1, 30), "zdt2": (zdt2, 30), "zdt3": (zdt3, 30), "dtlz2": (dtlz2, 12)}


@pytest.mark.parametrize("name", PROBLEMS)
def test_final_hypervolume_is_that_of_pymoos_nsga2(name: str) -> None:
    pytest.importorskip("pymoo", reason="needs pymoo: pip install pymoo")
    from pymoo.algorithms.moo.nsga2 import NSGA2 as Theirs
    from pymoo.core.problem import Problem
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.optimize import minimize as theirs_minimize

    fn, n = PROBLEMS[name]

    class Wrapped(Problem):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(n_var=n, n_obj=3 if name == "dtlz2" else 2, xl=0.0, xu=1.0)

        def _evaluate(self, x: Any, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
            out["F"] = fn(torch.from_numpy(x)).numpy()

    reference = torch.full((3 if name == "dtlz2" else 2,), 1.1)
    ours, theirs = [], []
    for seed in range(3):
        ours.append(hypervolume(front_of(fn, n, 100, seed), reference))
        algorithm = Theirs(pop_size=60, crossover=SBX(prob=0.9, eta=20), mutation=PM(prob=1.0, prob_var=1 / n, eta=20))
        result = theirs_minimize(Wrapped(), algorithm, ("n_gen", 101), seed=seed + 1)
        theirs.append(hypervolume(torch.as_tensor(result.F), reference))
    spread = torch.stack([*ours, *theirs]).std()  # of one run
    assert torch.stack(ours).mean() >= torch.stack(theirs).mean() - spread


def test_the_convex_front_of_zdt1_is_found() -> None:
    value = front_of(zdt1, 10, 150, 0)
    assert len(value) == 60
    assert float((value[:, 1] - (1 - value[:, 0].sqrt())).abs().max()) < 0.02
    exact = 1.1 * 1.1 - (1 / 3) - 0.0  # 1.21 less the area under 1 - sqrt(f)
    assert float(hypervolume(value, torch.tensor([1.1, 1.1]))) == pytest.approx(exact, abs=0.02)


def test_the_fronts_of_the_test_functions_are_where_their_papers_say() -> None:
    first = torch.linspace(0, 1, 9, dtype=torch.float64)[:, None]
    x = torch.cat([first, torch.zeros(9, 4, dtype=torch.float64)], -1)
    assert torch.allclose(zdt1(x)[:, 1], 1 - first[:, 0].sqrt())
    assert torch.allclose(zdt2(x)[:, 1], 1 - first[:, 0] ** 2)
    f = first[:, 0]
    assert torch.allclose(zdt3(x)[:, 1], 1 - f.sqrt() - f * torch.sin(10 * math.pi * f))
    x = torch.rand(20, 7, dtype=torch.float64)
    for m in (2, 3, 4):
        radius = 1 + (x[:, m - 1 :] - 0.5).square().sum(-1)
        assert torch.allclose(dtlz2(x, m).square().sum(-1), radius.square())
        assert torch.allclose(dtlz2(x, m)[:, -1], radius * torch.sin(x[:, 0] * math.pi / 2))


def test_a_front_has_nobody_that_is_dominated_and_leaves_out_nobody_else() -> None:
    for seed in range(5):
        whole = population(30, seed)
        member = pareto_ranks(whole.cost) == 0
        assert torch.equal(whole.front()["x"], whole["x"][member])


def test_small_fronts_of_a_batch_are_filled_up_with_their_own_members() -> None:
    value = torch.tensor([[[1.0, 3.0], [1.0, 1.0]], [[2.0, 2.0], [2.0, 2.0]], [[3.0, 1.0], [3.0, 3.0]]])
    front = Population({"x": torch.arange(6).view(3, 2)}, 1, assessment=Assessment(value)).front()
    assert front["x"].tolist() == [[0, 1], [2, 1], [4, 1]]


def test_the_front_of_one_objective_is_all_that_tie_for_the_best() -> None:
    tied = Population({"x": torch.arange(4)}, assessment=Assessment(torch.tensor([2.0, 1.0, math.nan, 1.0])))
    assert tied.front()["x"].tolist() == [1, 3]


SCHAFFER = {"shape": 1, "bounds": (-10.0, 10.0), "algorithm": "nsga2", "k": 20, "progress": False}


def schaffer(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([x**2, (x - 2) ** 2], -1)


def test_minimize_gives_the_front_with_its_values() -> None:
    result = minimize(schaffer, **SCHAFFER, max_generations=40)  # type: ignore[arg-type]
    assert isinstance(result.best, Population)
    assert torch.equal(torch.as_tensor(result.value), schaffer(result.best["x"]))
    assert result.best.front().k == result.best.k > 10
    assert bool((result.best["x"] > -0.1).all())
    assert bool((result.best["x"] < 2.1).all())
    assert result.history.hypervolume is None
    assert result.history.best[-1].tolist() == pytest.approx([0.0, 0.0], abs=1e-3)  # of each objective


def test_both_directions_find_the_same_front_and_hypervolume() -> None:
    low = minimize(schaffer, **SCHAFFER, max_generations=10, reference=(5.0, 5.0))  # type: ignore[arg-type]
    high = maximize(lambda x: -schaffer(x), **SCHAFFER, max_generations=10, reference=(-5.0, -5.0))
    assert isinstance(low.best, Population)
    assert isinstance(high.best, Population)
    assert torch.equal(low.best["x"], high.best["x"])
    first, second = low.history.hypervolume, high.history.hypervolume
    assert first is not None
    assert second is not None
    assert torch.equal(first, second)
    assert bool((first[1:] >= first[:-1] - 0.3).all())
    assert float(first[-1]) == pytest.approx(float(hypervolume(low.best.cost, torch.tensor([5.0, 5.0]))))
    assert next(iter(low.history))["hypervolume"] == pytest.approx(float(first[0]))


def test_target_and_patience_read_the_hypervolume() -> None:
    options = {**SCHAFFER, "reference": (5.0, 5.0), "max_generations": 200}
    result = minimize(schaffer, **options, target=17.0)  # type: ignore[arg-type]
    assert result.stopped == "target"
    assert result.history.hypervolume is not None
    assert bool(result.history.hypervolume[-1] >= 17.0)
    assert bool((result.history.hypervolume[:-1] < 17.0).all())
    assert minimize(lambda x: 0 * schaffer(x), **options, patience=3).generations == 3  # type: ignore[arg-type]
    for wrong in ({"target": 1.0}, {"patience": 3}):
        with pytest.raises(ValueError, match="expected a reference point with target or patience"):
            minimize(schaffer, **SCHAFFER, **wrong)  # type: ignore[arg-type]


def test_a_wrong_reference_is_refused() -> None:
    start = Individual({"x": torch.ones(1)})
    with pytest.raises(ValueError, match="expected no reference for PSO, which has one objective"):
        Search(PSO(), None, start, reference=(1.0, 1.0))
    with pytest.raises(ValueError, match="expected reference as finite numbers, one per objective"):
        Search(NSGA2(), None, start, reference=(1.0, math.nan))
    search: Search[Any] = Search(NSGA2(k=4), Objective(schaffer), start)
    search.step()
    with pytest.raises(ValueError, match="expected a reference point to judge several objectives by"):
        _ = search.merit


def test_one_objective_and_several_are_told_apart() -> None:
    with pytest.raises(ValueError, match="expected several objectives for NSGA2, got values of shape"):
        minimize(lambda x: x.square().sum(-1), **SCHAFFER)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"expected one objective for PSO, .* or use NSGA2"):
        minimize(schaffer, **{**SCHAFFER, "algorithm": "pso"})  # type: ignore[arg-type]


def test_a_batch_of_fronts_and_its_picture(tmp_path: Path) -> None:
    result = minimize(schaffer, **SCHAFFER, max_generations=5, batch_shape=2, reference=(5.0, 5.0))  # type: ignore[arg-type]
    assert torch.as_tensor(result.value).shape[1:] == (2, 2)
    assert result.history.hypervolume is not None
    assert result.history.hypervolume.shape == (6, 2)
    result.plot(tmp_path / "front.png")
    assert (tmp_path / "front.png").stat().st_size > 1000


def test_a_saved_search_of_several_objectives_keeps_its_hypervolumes(tmp_path: Path) -> None:
    def made() -> Search[Any]:
        start = Individual({"x": torch.ones(1)}).populate(4)
        return Search(NSGA2(k=4), Objective(schaffer), start, reference=(5.0, 5.0))

    search, again = made(), made()
    search.run(max_generations=3)
    search.save(tmp_path / "saved")
    again.load(tmp_path / "saved")
    for one in (search, again):
        one.run(max_generations=5)
    first, second = search.history.hypervolume, again.history.hypervolume
    assert first is not None
    assert second is not None
    assert torch.equal(first, second)
    assert len(first) == 6


@pytest.mark.parametrize("wrong", [{"crossover": 1.5}, {"mutation": -0.1}, {"crossover_index": -1.0}, {"k": 3}])
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        NSGA2(**wrong)
