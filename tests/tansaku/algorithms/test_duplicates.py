"""Duplicates among discrete genes: NSGA-II and GA replace them, and a front has distinct candidates."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tansaku import (
    GA,
    NSGA2,
    Assessment,
    BitFlip,
    Bounds,
    Gaussian,
    Individual,
    Objective,
    PermutationGA,
    Plus,
    Population,
    Search,
    Swap,
    minimize,
)
from tansaku.functional import hypervolume, keys, repeats
from tansaku.operators.distinct import one_gene_changed

g = torch.Generator().manual_seed(1)
VALUES, WEIGHTS = (torch.rand(size, 60, generator=g, dtype=torch.float64) * 90 + 10 for size in (2, 1))


def knapsack(x: Tensor) -> Tensor:
    """Two profits of the chosen items, less a penalty for the weight above half of the whole."""
    x = x.double()
    over = (x @ WEIGHTS[0] - WEIGHTS.sum() / 2).clamp(min=0)
    return -(x @ VALUES.T) + 1e3 * over[..., None]


def volume(value: Any) -> Tensor:
    return hypervolume(torch.as_tensor(value).double(), torch.zeros(2, dtype=torch.float64))


def copies(x: Tensor) -> int:
    return len(x) - len(x.flatten(1).unique(dim=0))


def test_a_front_of_boolean_genes_holds_distinct_candidates() -> None:
    zeros = torch.zeros(60, dtype=torch.bool)
    found = minimize(knapsack, x0=zeros, algorithm="nsga2", max_evaluations=5_000, progress=False)
    assert isinstance(found.best, Population)
    assert copies(found.best["x"]) == 0


def test_the_hypervolume_of_a_knapsack_is_at_least_that_of_pymoo_with_elimination() -> None:
    pytest.importorskip("pymoo", reason="needs pymoo: pip install pymoo")
    from pymoo.algorithms.moo.nsga2 import NSGA2 as Theirs
    from pymoo.core.problem import Problem
    from pymoo.operators.crossover.pntx import TwoPointCrossover
    from pymoo.operators.mutation.bitflip import BitflipMutation
    from pymoo.operators.sampling.rnd import BinaryRandomSampling
    from pymoo.optimize import minimize as theirs_minimize

    class Knapsack(Problem):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(n_var=60, n_obj=2, xl=0, xu=1, vtype=bool)

        def _evaluate(self, x: Any, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
            out["F"] = knapsack(torch.from_numpy(x)).numpy()

    ours, theirs = [], []
    for seed in range(4):
        start = torch.rand(100, 60, generator=torch.Generator().manual_seed(seed)) < 0.5
        search: Search[Any] = Search(NSGA2(k=100), Objective(knapsack), Population({"x": start}), seed=seed)
        search.run(max_generations=100)
        ours.append(volume(search.value))
        algorithm = Theirs(
            pop_size=100,
            sampling=BinaryRandomSampling(),
            crossover=TwoPointCrossover(),
            mutation=BitflipMutation(),
            eliminate_duplicates=True,
        )
        theirs.append(volume(theirs_minimize(Knapsack(), algorithm, ("n_gen", 101), seed=seed + 1).F))
    a, b = torch.stack(ours), torch.stack(theirs)
    error = (a.var() / len(a) + b.var() / len(b)).sqrt()
    assert a.mean() >= b.mean() - 2 * error


def started(kind: str, k: int, n: int, batch_shape: tuple[int, ...] = ()) -> Population:
    unit = torch.rand(k, *batch_shape, n, generator=torch.Generator().manual_seed(0))
    x = {"boolean": unit < 0.5, "integer": (unit * 10).long(), "permutation": unit.argsort(-1)}[kind]
    return Population({"x": x}, len(batch_shape))


def total(x: Tensor) -> Tensor:
    weight = torch.arange(1, x.shape[-1] + 1)
    return -(x.double() * weight).sum(-1)


@pytest.mark.parametrize("kind", ["boolean", "integer", "permutation"])
@pytest.mark.parametrize("batch_shape", [(), (3,)])
def test_a_ga_evaluates_hardly_any_candidate_twice(kind: str, batch_shape: tuple[int, ...]) -> None:
    bounds = Bounds(0, 9) if kind == "integer" else None
    ga = PermutationGA(k=50) if kind == "permutation" else GA(k=50, bounds=bounds)
    search: Search[Any] = Search(ga, Objective(total), started(kind, 50, 30, batch_shape))
    for _ in range(40):
        search.step()
        parents, asked = search.state.parents["x"], search.ask()["x"]
        for one, both in zip(
            asked.flatten(1, -2).unbind(1) if batch_shape else [asked],
            torch.cat([parents, asked]).flatten(1, -2).unbind(1) if batch_shape else [torch.cat([parents, asked])],
            strict=True,
        ):
            assert copies(one) <= 5
            new = len(both.unique(dim=0)) - len(both[:50].unique(dim=0))
            assert new >= 40
        search.tell(Assessment(total(asked)))


def test_mixed_genes_of_nsga2_are_compared_as_a_whole() -> None:
    start = Population(
        {
            "mask": torch.rand(40, 6, generator=torch.Generator().manual_seed(0)) < 0.5,
            "count": torch.randint(0, 4, (40, 2), generator=torch.Generator().manual_seed(1)),
        }
    )

    def cost(genes: dict[str, Tensor]) -> Tensor:
        mask, count = genes["mask"], genes["count"]
        score = count.double().sum(-1)
        return torch.stack([-mask.double().sum(-1) - score, (mask.double() * torch.arange(6)).sum(-1) + score], -1)

    search: Search[Any] = Search(NSGA2(k=40, bounds=Bounds({"count": 0}, {"count": 3})), Objective(cost), start)
    for _ in range(30):
        search.step()
        state = search.state
        whole = torch.cat([state.parents["mask"].long(), state.parents["count"]], -1)
        kept = whole[state.rank < 80]  # duplicates are ranked last
        assert copies(kept) == 0
        best = search.best
        assert copies(torch.cat([best["mask"].long(), best["count"]], -1)) == 0


@pytest.mark.parametrize("algorithm", [GA(k=40), NSGA2(k=40), GA(k=40, mutate=BitFlip(0.0)), GA(k=40, survive=Plus())])
def test_fewer_different_candidates_than_k_do_no_harm(algorithm: Any) -> None:
    many = isinstance(algorithm, NSGA2)

    def cost(x: Tensor) -> Tensor:
        ones = x.double().sum(-1)
        return torch.stack([ones, -ones], -1) if many else ones

    search: Search[Any] = Search(algorithm, Objective(cost), Individual({"x": torch.ones(3, dtype=torch.bool)}))
    search.run(max_generations=20)
    assert search.best.k == (8 if many else 1)  # with equal sums no candidate dominates another


def test_integer_genes_that_are_held_by_their_bounds_stay() -> None:
    x = torch.tensor([[3, 5]]).expand(200, 2)
    box = Bounds(torch.tensor([3, 5]), torch.tensor([3, 6]))
    made = one_gene_changed(Population({"x": x}), box, torch.Generator().manual_seed(0))["x"]
    assert bool((made[:, 0] == 3).all())
    assert set(made[:, 1].tolist()) == {5, 6}


def test_one_gene_changes_and_it_takes_all_other_values() -> None:
    start = Population(
        {"a": torch.full((4000, 2), 2), "b": torch.zeros(4000, 3, dtype=torch.bool), "c": torch.ones(4000)}
    )
    made = one_gene_changed(start, Bounds({"a": 0}, {"a": 4}), torch.Generator().manual_seed(0))
    changed = torch.cat([made["a"] != 2, made["b"]], -1)
    assert bool((changed.sum(-1) == 1).all())
    assert changed.double().mean(0).tolist() == pytest.approx([0.2] * 5, abs=5 * (0.16 / 4000) ** 0.5)
    assert set(made["a"].flatten().tolist()) == {0, 1, 2, 3, 4}
    assert torch.equal(made["c"], start["c"])


def test_a_users_mutation_alone_changes_duplicates() -> None:
    x = torch.arange(6).repeat(8, 1)
    start = Population({"x": x, "y": torch.zeros(8, 2, dtype=torch.bool)}, assessment=Assessment(torch.zeros(8)))
    ga = GA(k=8, mutate={"x": Swap(1.0)})
    asked = ga.ask(ga.init(start), torch.Generator().manual_seed(0))
    assert bool((~asked["y"]).all())
    assert bool((asked["x"].sort(-1).values == torch.arange(6)).all())


def test_real_genes_draw_nothing_more() -> None:
    start = Population({"x": torch.zeros(8, 2)}, assessment=Assessment(torch.zeros(8)))
    ga = GA(k=8, mutate=Gaussian(0.0))
    first, second = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    ga.ask(ga.init(start), first)
    ga._children(start, second)
    assert torch.equal(first.get_state(), second.get_state())


def test_keys_are_equal_for_equal_rows_only() -> None:
    for dtype in (torch.bool, torch.uint8, torch.int32, torch.int64, torch.float32, torch.float64, torch.bfloat16):
        for n in (0, 1, 7, 64):
            x = torch.randint(0, 3, (150, 2, n), generator=torch.Generator().manual_seed(n)).to(dtype)
            key = keys([x], 2)
            rows = x.double().reshape(300, n)
            flat = key.flatten()
            same = (rows[:, None] == rows[None]).all(-1)
            assert torch.equal(same, flat[:, None] == flat)
            view = torch.cat([x[:1], x])[1:]  # memory that does not begin at a word
            assert torch.equal(keys([view], 2), key)
    assert torch.equal(keys([torch.tensor([[0.0]])], 1), keys([torch.tensor([[-0.0]])], 1))
    powers = 2.0 ** torch.arange(-500, 500, dtype=torch.float64)
    assert len(keys([torch.stack([powers, powers.flip(0)], -1)], 1).unique()) == 1000
    assert repeats(torch.tensor([[1, 1], [2, 1], [1, 3]])).tolist() == [[False, False], [False, True], [True, False]]


def test_a_front_drops_copies_unless_their_costs_are_failures() -> None:
    x = torch.tensor([[1], [1], [2], [1]])
    value = torch.tensor([[1.0, 2.0], [1.0, 2.0], [2.0, 1.0], [0.5, 3.0]])
    front = Population({"x": x}, assessment=Assessment(value)).front()
    assert front["x"].flatten().tolist() == [1, 2]
    failed = torch.tensor([[1.0, float("nan")], [float("nan"), 2.0]])
    assert Population({"x": x[:2]}, assessment=Assessment(failed)).front().k == 2
