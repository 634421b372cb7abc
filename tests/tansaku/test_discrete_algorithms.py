"""PBIL's equations, permutations in `minimize`, and resampling bounds in every algorithm."""

from __future__ import annotations

import math

import pytest
import torch

from tansaku import (
    ALGORITHMS,
    GA,
    PBIL,
    Assessment,
    Blend,
    Bounds,
    HillClimb,
    Noise,
    Objective,
    OrderCrossover,
    PermutationGA,
    Population,
    Search,
    Swap,
    minimize,
)
from tansaku.algorithms import SwapOrInversion
from tansaku.testing import check_operator


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bits(rows: list[list[int]], costs: list[float]) -> Population:
    return Population({"x": torch.tensor(rows, dtype=torch.bool)}, assessment=Assessment(torch.tensor(costs)))


# PBIL


def test_pbil_begins_at_the_frequencies_of_the_start_by_laplaces_rule() -> None:
    state = PBIL().init(bits([[1, 0]], [1.0]))
    assert state.probability.tolist() == pytest.approx([2 / 3, 1 / 3])
    state = PBIL().init(bits([[1, 0, 1], [1, 0, 0]], [1.0, 2.0]))
    assert state.probability.tolist() == pytest.approx([3 / 4, 1 / 4, 1 / 2])


def test_pbil_learns_from_the_best_and_where_it_differs_from_the_worst() -> None:
    pbil = PBIL(k=3, mutation=0.0)
    state = pbil.init(bits([[1, 0, 1], [1, 0, 0]], [5.0, 6.0]))
    asked = pbil.ask(state, noise())
    rows = torch.tensor([[0, 0, 1], [1, 1, 1], [1, 0, 1]], dtype=torch.bool)
    told = pbil.tell(state, asked.with_genes({"x": rows}).assessed(Assessment(torch.tensor([1.0, 2.0, 9.0]))))
    positive = [0.75 * 0.9, 0.25 * 0.9, 0.5 * 0.9 + 0.1]
    assert told.probability.tolist() == pytest.approx([positive[0] * 0.925, positive[1], positive[2]])
    assert pbil.best(told)["x"].tolist() == [[False, False, True]]


def test_pbil_mutates_as_many_probabilities_as_it_says_by_its_shift() -> None:
    pbil = PBIL(k=4, rate=0.0, negative_rate=0.0, mutation=0.3, shift=0.2)
    n = 20_000
    state = pbil.init(Population({"x": torch.zeros(1, n, dtype=torch.bool)}, assessment=Assessment(torch.zeros(1))))
    told = pbil.tell(state, pbil.ask(state, noise()).assessed(Assessment(torch.arange(4.0))))
    p = 1 / 3
    for value, share in ((p, 0.7), (0.8 * p, 0.15), (0.8 * p + 0.2, 0.15)):
        seen = torch.isclose(told.probability, torch.tensor(value)).double().mean()
        assert abs(float(seen) - share) < 5 * (share * (1 - share) / n) ** 0.5


def test_pbil_samples_each_bit_as_often_as_its_probability_says() -> None:
    pbil = PBIL(k=20_000)
    state = pbil.init(bits([[1, 0], [1, 0], [1, 1]], [1.0, 1.0, 1.0]))
    share = pbil.ask(state, noise())["x"].double().mean(0)
    for seen, expected in zip(share.tolist(), (0.8, 0.4), strict=True):
        assert abs(seen - expected) < 5 * (expected * (1 - expected) / 20_000) ** 0.5


@pytest.mark.parametrize("cost", [0.0, math.nan, math.inf])
def test_pbil_learns_nothing_from_samples_that_cost_the_same_or_all_failed(cost: float) -> None:
    pbil = PBIL(k=5, mutation=0.0)
    state = pbil.init(bits([[1, 0]], [1.0]))
    told = pbil.tell(state, pbil.ask(state, noise()).assessed(Assessment(torch.full((5,), cost))))
    assert torch.equal(told.probability, state.probability)


def test_pbil_solves_one_max_of_100_bits() -> None:
    result = minimize(
        lambda x: (~x).sum(-1), x0=torch.zeros(100, dtype=torch.bool), algorithm="pbil", max_generations=300
    )
    assert result.value == 0
    assert bool(result.best["x"].all())


# permutations


def tour_length(order: torch.Tensor) -> torch.Tensor:
    angle = 2 * math.pi * order / order.shape[-1]  # cities on a circle: the best tour goes round
    towns = torch.stack([angle.cos(), angle.sin()], -1)
    return (towns - towns.roll(1, -2)).norm(dim=-1).sum(-1)


def test_minimize_solves_a_tour_of_20_cities_on_a_circle() -> None:
    result = minimize(tour_length, shape=20, algorithm="permutation_ga", max_generations=300, seed=1)
    assert result.best["x"].dtype == torch.int64
    assert result.best["x"].sort().values.tolist() == list(range(20))
    assert result.value == pytest.approx(float(tour_length(torch.arange(20))), rel=1e-5)


def test_a_given_permutation_is_one_of_the_start_and_others_are_refused() -> None:
    seen: list[torch.Tensor] = []

    def cost(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return x[..., 0].float()

    given = torch.tensor([3, 1, 0, 2])
    minimize(cost, x0=given, algorithm="permutation_ga", k=9, max_generations=1)
    assert torch.equal(seen[0][0], given)
    assert bool((torch.cat(seen).sort(-1).values == torch.arange(4)).all())
    for wrong in (torch.tensor([0, 0, 1]), torch.tensor([1, 2, 3]), torch.zeros(3)):
        calls = len(seen)
        with pytest.raises(TypeError, match=r"expected (permutation|integer) genes"):
            minimize(cost, x0=wrong, algorithm="permutation_ga")
        assert len(seen) == calls


def test_permutations_have_no_bounds_and_need_operators() -> None:
    with pytest.raises(ValueError, match="expected no bounds for permutations"):
        PermutationGA(bounds=(0, 3))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected crossover of permutations, got None"):
        PermutationGA(crossover=None)


def test_swap_or_inversion_keeps_its_promises() -> None:
    check_operator(SwapOrInversion)
    start = Population({"x": torch.arange(9).expand(2000, 9)})
    swapped = (SwapOrInversion(1.0, 0.0)(start, noise())["x"] != torch.arange(9)).sum(1)
    assert bool((swapped == 2).all())
    for inversion in (0.0, 0.5, 1.0):
        mutated = (SwapOrInversion(0.3, inversion)(start, noise())["x"] != torch.arange(9)).any(1).double().mean()
        assert abs(float(mutated) - 0.3) < 5 * (0.3 * 0.7 / 2000) ** 0.5


def test_permutations_beside_other_genes_are_searched_by_a_ga_with_an_operator_per_name() -> None:
    start = Population(
        {"tour": torch.rand(20, 6, generator=noise()).argsort(-1), "w": torch.randn(20, 2, generator=noise())}
    )
    objective = Objective(lambda x: tour_length(x["tour"]) + x["w"].square().sum(-1))
    ga = GA(k=20, crossover={"tour": OrderCrossover(), "w": Blend()}, mutate={"tour": Swap(0.5)})
    search: Search[object] = Search(ga, objective, start)  # type: ignore[arg-type]
    result = search.run(max_generations=60)
    assert result.best["tour"].sort().values.tolist() == list(range(6))
    assert float(result.value) == pytest.approx(float(tour_length(torch.arange(6))), abs=1e-2)


# bounds that resample


def test_resampling_draws_a_truncated_normal_and_not_heaps_at_the_ends() -> None:
    begun = Population({"x": torch.zeros(1, 1)}, assessment=Assessment(torch.zeros(1)))
    for repair, heaped in (("clip", 0.6171), ("resample", 0.6171**11)):  # P(|N(0, 1)| > 0.5)
        climb = HillClimb(k=50_000, std=1.0, bounds=Bounds(-0.5, 0.5, repair))  # type: ignore[arg-type]
        x = climb.ask(climb.init(begun), noise())["x"]
        share = float((x.abs() == 0.5).double().mean())
        assert abs(share - heaped) < 5 * (heaped * (1 - heaped) / 50_000) ** 0.5 + 1e-4


def test_a_candidate_that_was_inside_at_once_is_not_drawn_anew() -> None:
    begun = Population({"x": torch.zeros(1, 2)}, assessment=Assessment(torch.zeros(1)))
    free = HillClimb(k=100, std=1.0, bounds=Bounds(-9.0, 9.0))
    resampled = HillClimb(k=100, std=1.0, bounds=Bounds(-1.0, 1.0, "resample"))
    first, kept = (climb.ask(climb.init(begun), noise())["x"] for climb in (free, resampled))
    inside = (first.abs() <= 1).all(1)
    assert torch.equal(kept[inside], first[inside])
    assert bool(((kept != first).any(1) == ~inside).all())


def test_ten_redraws_and_no_more() -> None:
    calls = []

    class Counting(HillClimb):
        def ask(self, state: object, noise: Noise) -> Population:
            calls.append(1)
            return super().ask(state, noise)  # type: ignore[arg-type]

    begun = Population({"x": torch.zeros(1, 2)}, assessment=Assessment(torch.zeros(1)))
    climb = Counting(k=4, bounds=Bounds(-1e-9, 1e-9, "resample"), std=1.0)
    asked = climb.ask(climb.init(begun), noise())
    assert len(calls) == 11
    assert bool((asked["x"].abs() <= 1e-9).all())


def single(name: str) -> bool:
    """Whether it searches real genes for the best in one objective."""
    needs = ALGORITHMS[name]().needs
    return "real" in needs.dtypes and needs.objectives == "one" and not needs.descriptor


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if single(name)])
def test_every_algorithm_finds_an_optimum_inside_resampling_bounds(name: str) -> None:
    result = minimize(
        lambda x: (x - 0.5).square().sum(-1),
        shape=2,
        bounds=Bounds(0.0, 3.0, "resample"),
        algorithm=name,
        max_evaluations=4000,
    )
    assert float(result.value) < 1e-3
