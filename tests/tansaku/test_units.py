"""Searches know no unit of length, and genes with equal bounds are no part of them."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tansaku import (
    CMAES,
    GA,
    IPOPCMAES,
    LMMAES,
    NSGA2,
    PSO,
    Assessment,
    BitFlip,
    Bounds,
    CMAEmitter,
    Gaussian,
    HillClimb,
    Individual,
    Limit,
    MapElites,
    Objective,
    Polynomial,
    Population,
    Restarts,
    Search,
    UniformReset,
    draws,
    minimize,
    optim,
)
from tansaku.operators.mutation import Mutation, shapes
from tansaku.testing import sphere

F64 = torch.float64


def rosenbrock(x: Tensor) -> Tensor:
    return (100 * (x[..., 1:] - x[..., :-1] ** 2) ** 2 + (1 - x[..., :-1]) ** 2).sum(-1)


# Units


@pytest.mark.parametrize("name", ["cma_es", "sep_cma_es", "ipop_cma_es", "bipop_cma_es", "lm_ma_es", "xnes", "snes"])
@pytest.mark.parametrize(("dtype", "ratio"), [(torch.float32, 1e6), (F64, 1e9)])
def test_a_std_per_gene_of_any_ratio_solves_the_sphere_in_its_units(
    name: str, dtype: torch.dtype, ratio: float
) -> None:
    std = torch.tensor([1.0, 1.0, ratio], dtype=dtype)
    found = minimize(
        lambda x: ((x / std - 0.3) ** 2).sum(-1),
        x0=torch.zeros(3, dtype=dtype), std=std, algorithm=name, max_evaluations=3_000,
    )  # fmt: skip
    assert found.value < 1e-10


def test_a_std_by_name_solves_tensors_of_other_scales() -> None:
    x0 = {"wide": torch.zeros(2, dtype=F64), "narrow": torch.zeros((), dtype=F64)}

    def cost(genes: dict[str, Tensor]) -> Tensor:
        return (genes["wide"] / 1e6 - 0.3).square().sum(-1) + (genes["narrow"] / 1e-3 + 0.2).square()

    for name in ("cma_es", "ipop_cma_es", "lm_ma_es"):
        found = minimize(cost, x0=x0, std={"wide": 1e6, "narrow": 1e-3}, algorithm=name, max_evaluations=3_000)
        assert found.value < 1e-12


@pytest.mark.parametrize("name", [None, "ipop_cma_es", "bipop_cma_es", "lshade"])
def test_boxes_of_unequal_width_are_searched_like_equal_ones(name: str | None) -> None:
    low, high = torch.zeros(3, dtype=F64), torch.tensor([1.0, 1e3, 1e6], dtype=F64)
    found = minimize(
        lambda x: rosenbrock(4 * x / high - 2), shape=3, dtype=F64, bounds=(low, high), algorithm=name,
        max_evaluations=6_000,
    )  # fmt: skip
    assert found.value < 1e-8
    equal = minimize(
        lambda x: rosenbrock(4 * x - 2), shape=3, dtype=F64, bounds=(0.0, 1.0), algorithm=name, max_evaluations=300
    )
    unequal = minimize(
        lambda x: rosenbrock(4 * x / high - 2), shape=3, dtype=F64, bounds=(low, high), algorithm=name,
        max_evaluations=300,
    )  # fmt: skip
    assert unequal.value == pytest.approx(equal.value, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_a_ratio_of_widths_alone_starts_no_run_anew(dtype: torch.dtype) -> None:
    width = torch.tensor([1e-3, 1.0, 1e3], dtype=dtype)
    search: Search[Any] = Search(
        IPOPCMAES(std=width), Objective(lambda x: (x / width).square().sum(-1)), Individual({"x": width}), seed=2
    )
    search.run(max_generations=60)
    assert search.state.runs == 1
    assert not CMAES(std=width).exhausted(search.state.inner)


def test_the_covariance_begins_as_the_identity_beside_the_first_std() -> None:
    std = torch.tensor([2.0, 0.5, 1e4], dtype=F64)
    start = Population({"x": torch.zeros(1, 3, dtype=F64)}, assessment=Assessment(torch.zeros(1)))
    state = CMAES(std=std).init(start)
    assert torch.equal(state.cov, torch.eye(3, dtype=F64))
    assert torch.allclose(state.sigma * state.unit, std, rtol=1e-15)


@pytest.mark.parametrize("algorithm", [PSO(k=20), GA(), HillClimb()])
def test_restarts_search_boxes_of_unequal_width(algorithm: Any) -> None:
    def found(high: Tensor) -> float:
        inner = type(algorithm)(k=algorithm.k, bounds=(torch.zeros(2, dtype=F64), high))
        return minimize(
            lambda x: (x / high - 0.3).square().sum(-1), shape=2, dtype=F64, algorithm=Restarts(inner),
            max_evaluations=2_000,
        ).value  # fmt: skip

    equal, unequal = found(torch.ones(2, dtype=F64)), found(torch.tensor([2.0**-10, 2.0**20], dtype=F64))
    assert unequal == pytest.approx(equal, rel=1e-6, abs=1e-12)


# A failed generation in LM-MA-ES


def test_lm_ma_es_arrives_where_every_candidate_fails_at_first() -> None:
    def cost(x: Tensor) -> Tensor:
        return torch.where(x[..., 0] < 4.5, torch.inf, x.square().sum(-1))

    for seed in range(3):
        found = minimize(cost, x0=torch.zeros(4), std=2.0, algorithm="lm_ma_es", max_evaluations=3_000, seed=seed)
        assert found.value < 30


def test_a_failed_generation_changes_nothing_in_lm_ma_es() -> None:
    start = Population(
        {"x": torch.ones(1, 2, 5, dtype=F64)}, 1, assessment=Assessment(torch.full((1, 2), 9.0, dtype=F64))
    )
    algorithm, noise = LMMAES(k=8), torch.Generator().manual_seed(0)
    state = algorithm.init(start)
    for _ in range(3):
        asked = algorithm.ask(state, noise)
        cost = asked["x"].square().sum(-1)
        state = algorithm.tell(state, asked.assessed(torch.stack([cost[:, 0], torch.full((8,), torch.inf)], 1)))
    first = algorithm.init(start)
    for name in ("mean", "sigma", "path", "generation"):
        before, after = getattr(first, name), getattr(state, name)
        assert torch.equal(before[1], after[1])
        assert not torch.equal(before[0], after[0])
    assert torch.equal(state.memory[:, 1], first.memory[:, 1])


# Fixed genes


@pytest.mark.parametrize("name", ["ipop_cma_es", "bipop_cma_es", "lm_ma_es", "pso", "lshade"])
@pytest.mark.parametrize("place", [0, 3, 7])
def test_a_gene_with_equal_bounds_gives_the_run_without_it(name: str, place: int) -> None:
    low, high = torch.full((8,), -2.0, dtype=F64), torch.full((8,), 2.0, dtype=F64)
    low[place] = high[place] = 1.0

    def without(x: Tensor) -> Tensor:
        return rosenbrock(torch.cat([x[..., :place], torch.ones_like(x[..., :1]), x[..., place:]], -1))

    options: dict[str, Any] = {"dtype": F64, "algorithm": name, "max_evaluations": 1_500}
    held = minimize(rosenbrock, shape=8, bounds=(low, high), **options)
    narrow = minimize(without, shape=7, bounds=(-2.0, 2.0), **options)
    assert held.value == pytest.approx(narrow.value, rel=1e-9)
    assert held.best["x"][place] == 1.0
    assert (held.evaluations, held.generations) == (narrow.evaluations, narrow.generations)


@pytest.mark.parametrize("name", ["ipop_cma_es", "bipop_cma_es"])
def test_a_fixed_gene_does_not_keep_the_default_from_the_optimum(name: str) -> None:
    low, high = torch.full((8,), -2.0, dtype=F64), torch.full((8,), 2.0, dtype=F64)
    low[7] = high[7] = 1.0
    found = minimize(rosenbrock, shape=8, dtype=F64, bounds=(low, high), algorithm=name, max_evaluations=20_000)
    assert found.value < 1e-8


def test_all_genes_but_one_may_be_fixed() -> None:
    low = torch.tensor([1.0, -5.0, 2.0, 3.0])
    high = torch.tensor([1.0, 5.0, 2.0, 3.0])
    for name in ("ipop_cma_es", "pso", "de", "ga", "snes", "hill_climb"):
        found = minimize(
            lambda x: x.square().sum(-1), shape=4, bounds=(low, high), algorithm=name, max_evaluations=2000
        )
        assert found.value == pytest.approx(14.0, abs=1e-3)
        assert found.best["x"][[0, 2, 3]].tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("name", ["ipop_cma_es", "cma_es", "pso", "de", "ga", "snes", "xnes", "lm_ma_es", "annealing"])
def test_all_genes_may_be_fixed(name: str) -> None:
    for bounds in ((2.0, 2.0), (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0]))):
        found = minimize(lambda x: x.sum(-1), shape=2, bounds=bounds, algorithm=name, max_evaluations=300)
        assert torch.equal(found.best["x"], torch.as_tensor(bounds[0]).expand(2))
        assert found.value == float(found.best["x"].sum())


def test_the_choice_of_an_algorithm_counts_genes_that_can_move() -> None:
    x0 = {"w": torch.full((600,), 0.5), "n": torch.tensor([3])}
    high = torch.full((600,), 0.5)
    high[:2] = 1.0
    bounds = ({"w": torch.full((600,), 0.5), "n": 3}, {"w": high, "n": 3})
    found = minimize(lambda g: (g["w"] - 0.7).square().sum(-1), x0=x0, bounds=bounds, max_evaluations=600)
    assert found.value == pytest.approx(598 * 0.04, abs=1e-3)
    assert type(found.state.inner).__name__ == "RestartsState"
    assert found.state.first_k == 6  # of two genes


def test_integer_genes_may_be_fixed() -> None:
    bounds = (torch.tensor([0, 4, 0]), torch.tensor([9, 4, 9]))
    held = minimize(
        lambda x: (x - 3).abs().sum(-1).float(), x0=torch.tensor([0, 4, 0]), bounds=bounds, max_evaluations=600
    )
    assert held.best["x"].tolist() == [3, 4, 3]


def test_a_mutation_of_the_users_own_sees_all_genes() -> None:
    seen = []

    def mutate(population: Population, noise: Any) -> Population:
        seen.append(population["x"].shape)
        return Gaussian(torch.full((3,), 0.2))(population, noise)

    low, high = torch.tensor([-1.0, 0.5, -1.0]), torch.tensor([1.0, 0.5, 1.0])
    algorithm = GA(k=12, mutate=mutate, bounds=(low, high))  # type: ignore[arg-type]
    found = minimize(lambda x: x.square().sum(-1), shape=3, algorithm=algorithm, max_generations=20)
    assert set(seen) == {torch.Size([12, 3])}
    assert found.best["x"][1] == 0.5
    assert found.value < 0.3


class Shaken(Mutation):
    def mutate(self, name: str, x: Tensor, batch_ndim: int, noise: Any) -> Tensor:
        return x + 0.1 * draws.normal(*shapes(x, batch_ndim), x, noise)


@pytest.mark.parametrize(
    "mutate",
    [
        Gaussian(torch.tensor([0.1, 0.2, 0.3])),
        {"x": Gaussian(torch.tensor([0.1, 0.2, 0.3]))},
        Limit(Gaussian(0.2), {"x": torch.tensor([0, 1])}),
        Polynomial(Bounds(torch.tensor([-1.0, 0.5, -1.0]), torch.tensor([1.0, 0.5, 1.0]))),
        UniformReset(Bounds(torch.tensor([-1.0, 0.5, -1.0]), torch.tensor([1.0, 0.5, 1.0])), 0.5),
        Shaken(),
    ],
)
def test_operators_work_without_the_fixed_genes(mutate: Any) -> None:
    low, high = torch.tensor([-1.0, 0.5, -1.0]), torch.tensor([1.0, 0.5, 1.0])
    algorithm = HillClimb(k=8, mutate=mutate, bounds=(low, high))
    start = Individual({"x": torch.tensor([0.9, 0.5, 0.9])})
    search: Search[Any] = Search(algorithm, Objective(lambda x: x.square().sum(-1)), start, seed=1)
    found = search.run(max_generations=30)
    assert found.best["x"][1] == 0.5
    assert found.value < 1.2
    assert algorithm.mutate is mutate


def test_a_search_with_fixed_genes_is_saved_copied_and_read_like_others(tmp_path: Path) -> None:
    low, high = torch.tensor([-1.0, 0.5, -1.0]), torch.tensor([1.0, 0.5, 1.0])

    def made() -> Search[Any]:
        start = Individual({"x": torch.tensor([0.9, 0.5, 0.9])})
        algorithm = PSO(k=10, bounds=(low, high))
        return Search(algorithm, Objective(sphere), start, seed=1)

    search = made()
    search.run(max_generations=5)
    search.save(tmp_path / "saved")
    again = made()
    again.load(tmp_path / "saved")
    straight, resumed = search.run(max_generations=12), again.run(max_generations=12)
    assert torch.equal(straight.best["x"], resumed.best["x"])
    assert search.state.swarm["x"].shape == (10, 3)
    for twin in (copy.deepcopy(search.state), pickle.loads(pickle.dumps(search.state))):
        assert torch.equal(search.algorithm.best(twin)["x"], straight.best["x"][None])
    with pytest.raises(AttributeError, match="mean"):
        search.state.mean  # noqa: B018


def test_an_archive_is_read_with_all_genes() -> None:
    low, high = torch.tensor([0.0, 0.5, 0.0]), torch.tensor([1.0, 0.5, 1.0])
    task = Objective(lambda x: {"value": x.square().sum(-1), "descriptor": x[..., ::2]})
    start = Individual({"x": torch.full((3,), 0.5)})
    algorithm = MapElites(k=32, emitters=(CMAEmitter(),), bounds=(low, high))
    search: Search[Any] = Search(algorithm, task, start)
    search.run(max_generations=20)
    assert search.state.archive["x"].shape == (256, 3)
    assert bool((search.state.archive["x"][:, 1] == 0.5).all())
    assert float(search.state.coverage) > 0.1


def test_a_front_is_searched_without_the_fixed_genes() -> None:
    low, high = torch.tensor([-10.0, 1.0]), torch.tensor([10.0, 1.0])
    algorithm = NSGA2(k=20, bounds=(low, high))
    found = minimize(
        lambda x: torch.stack([x[..., 0] ** 2 + x[..., 1], (x[..., 0] - 2) ** 2], -1), shape=2, algorithm=algorithm,
        max_generations=30,
    )  # fmt: skip
    assert bool((found.best["x"][:, 1] == 1).all())
    assert float(found.best["x"][:, 0].min()) > -0.2


def test_an_optimiser_of_torch_holds_parameters_with_equal_bounds() -> None:
    parameter = torch.nn.Parameter(torch.tensor([0.9, 0.5, 0.9]))
    bounds = (torch.tensor([-1.0, 0.5, -1.0]), torch.tensor([1.0, 0.5, 1.0]))
    optimizer = optim.CMAES([parameter], std=0.3, bounds=bounds)
    for _ in range(40):
        optimizer.step(lambda: parameter.square().sum())
    found = parameter.detach()
    assert float(found[1]) == 0.5
    assert float(found[0].abs()) < 0.05


def test_boolean_genes_move_beside_a_fixed_tensor() -> None:
    start = Individual({"mask": torch.zeros(6, dtype=torch.bool), "c": torch.tensor([2.0])})
    algorithm = GA(k=20, mutate={"mask": BitFlip(0.2), "c": Gaussian(1.0)}, bounds=({"c": 2.0}, {"c": 2.0}))
    cost = Objective(lambda genes: (~genes["mask"]).sum(-1) + genes["c"][..., 0])
    found = Search(algorithm, cost, start).run(max_generations=30)
    assert found.value == 2.0


def test_polynomial_mutation_counts_genes_that_can_move() -> None:
    low, high = torch.zeros(10), torch.zeros(10)
    high[:2] = 1.0
    x = torch.full((4000, 10), 0.5) * (high > 0)
    changed = Polynomial(Bounds(low, high))(Population({"x": x}), torch.Generator().manual_seed(0))["x"] != x
    assert float(changed[:, :2].sum(-1).float().mean()) == pytest.approx(1.0, abs=0.05)  # one of two, not of ten
