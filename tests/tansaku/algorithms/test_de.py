"""Differential evolution: mutants against the equation, crossover against its frequencies, survival one to one."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from tansaku import DE, Assessment, Objective, Population, Search, draws, ravel
from tansaku.algorithms.differential import binomial, exponential
from tansaku.testing import rastrigin, sphere

ASSESS = Objective(sphere)


def start(k: int = 6, n: int = 4, seed: int = 0) -> Population:
    generator = torch.Generator().manual_seed(seed)
    return ASSESS(Population({"x": torch.randn(k, n, generator=generator, dtype=torch.float64)}))


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_others_of_a_candidate_are_different_and_equally_frequent() -> None:
    k, repeats = 5, 6000
    three = torch.stack(draws.others(3, k, (repeats,), torch.zeros(()), noise()))
    for i in range(k):
        seen = three[:, i].T.tolist()
        free = [j for j in range(k) if j != i]
        assert {tuple(row) for row in seen} == set(itertools.permutations(free, 3))
        for triple in itertools.permutations(free, 3):
            share = sum(tuple(row) == triple for row in seen) / repeats
            assert share == pytest.approx(1 / 24, abs=5 * math.sqrt(1 / 24 / repeats))


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_binomial_crossover_forces_one_gene_and_takes_the_others_with_the_rate(rate: float) -> None:
    n, k = 8, 20000
    for given in (rate, torch.full((k,), rate)):
        mask = binomial(given, torch.zeros(k, n), 0, noise())
        count = mask.sum(1)
        assert int(count.min()) >= 1
        if rate == 0.0:
            assert bool((count == 1).all())
        expected = 1 / n + (1 - 1 / n) * rate
        assert mask.double().mean(0).tolist() == pytest.approx([expected] * n, abs=5 * 0.5 / k**0.5)


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.9, 1.0])
def test_exponential_crossover_takes_a_run_whose_length_is_geometric(rate: float) -> None:
    n, k = 6, 20000
    mask = exponential(rate, torch.zeros(k, n), 0, noise())
    borders = (mask != mask.roll(1, 1)).sum(1)
    assert bool((borders <= 2).all())  # one run, around the end
    length = mask.sum(1)
    assert int(length.min()) >= 1
    for m in range(1, n):
        assert float((length > m).double().mean()) == pytest.approx(rate**m, abs=5 * 0.5 / k**0.5)
    assert mask.double().mean(0).tolist() == pytest.approx([float(length.double().mean()) / n] * n, abs=0.02)


@pytest.mark.parametrize("base", ["rand", "best"])
def test_a_full_trial_is_the_base_plus_a_scaled_difference(base: str) -> None:
    de = DE(k=6, scale_factor=0.7, crossover_rate=1.0, base=base)  # type: ignore[arg-type]
    begun = start()
    x = begun["x"]
    asked = de.ask(de.init(begun), noise(3))["x"]
    for i in range(6):
        free = [j for j in range(6) if j != i]
        if base == "rand":
            mutants = [x[a] + 0.7 * (x[b] - x[c]) for a, b, c in itertools.permutations(free, 3)]
        else:
            lowest = x[begun.cost.argmin()]
            mutants = [lowest + 0.7 * (x[b] - x[c]) for b, c in itertools.permutations(free, 2)]
        assert any(torch.allclose(asked[i], mutant, atol=1e-14) for mutant in mutants)


def test_without_crossover_a_trial_differs_from_its_target_in_one_gene_of_all_names() -> None:
    genes = {"a": torch.rand(30, 2, 3, generator=noise()), "b": torch.rand(30, generator=noise(1))}
    begun = Population(genes, assessment=Assessment(torch.zeros(30)))
    asked = DE(k=30, crossover_rate=0.0).ask(DE(k=30).init(begun), noise(2))
    changed = (ravel(asked) != ravel(begun)).sum(1)
    assert changed.tolist() == [1] * 30
    assert bool((asked["b"] != genes["b"]).any())
    assert bool((asked["a"] != genes["a"]).any())


def test_a_trial_replaces_its_own_target_unless_it_is_worse() -> None:
    de = DE(k=4)
    begun = start(4)
    state = de.init(begun)
    asked = de.ask(state, noise())
    costs = begun.cost + torch.tensor([-1.0, 0.0, 1.0, math.nan], dtype=torch.float64)
    told = de.tell(state, asked.assessed(Assessment(costs))).population
    for i, replaced in enumerate([True, True, False, False]):
        assert torch.equal(told["x"][i], (asked if replaced else begun)["x"][i])


def test_a_small_start_is_filled_up_with_the_best_around_it() -> None:
    de = DE(k=8, std=0.1)
    begun = start(1)
    asked = de.ask(de.init(begun), noise())
    assert 0.0 < float((asked["x"] - begun["x"]).abs().max()) < 0.6
    told = de.tell(de.init(begun), ASSESS(asked)).population
    pool = torch.cat([begun.cost, ASSESS(asked).cost])
    assert torch.equal(told.cost, pool.sort().values[:8])
    assert len({tuple(row) for row in told["x"].tolist()}) == 8


def test_a_population_that_overflows_keeps_finite_genes() -> None:
    huge = torch.tensor([[3e38], [-3e38], [3e38], [-3e38], [1.0]]).expand(5, 4).contiguous()
    begun = Population({"x": huge}, assessment=Assessment(torch.zeros(5)))
    de = DE(k=5, scale_factor=2.0)
    for seed in range(20):
        assert bool(torch.isfinite(de.ask(de.init(begun), noise(seed))["x"]).all())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 3}, "expected k >= 4, got 3"),
        ({"scale_factor": 2.5}, r"expected scale_factor in \[0, 2\]"),
        ({"crossover_rate": 1.5}, r"expected crossover_rate in \[0, 1\]"),
        ({"base": "worst"}, "expected base 'rand' or 'best', got 'worst'"),
        ({"crossover": "uniform"}, "expected crossover 'binomial' or 'exponential', got 'uniform'"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DE(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("base", ["rand", "best"])
def test_it_solves_a_separable_multimodal_function(base: str) -> None:
    generator = noise()
    begun = Population({"x": torch.rand(40, 5, generator=generator, dtype=torch.float64) * 10 - 5})
    de = DE(k=40, crossover_rate=0.1, base=base, bounds=(-5.0, 5.0))  # type: ignore[arg-type]
    result = Search(de, Objective(rastrigin), begun, seed=1).run(max_evaluations=20000, target=1e-8)
    assert result.stopped == "target"
