"""Survival and reduction against slow, obvious references, with ties, NaN and batches."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tansaku import Assessment, Best, BestPerSample, Comma, Greedy, Mean, Plus, Population, WeightedMean
from tansaku.functional import centred_ranks, finite_costs, softmax_weights, standardised_weights

cost = st.sampled_from([0.0, 1.0, 2.0, 3.0, float("nan"), float("inf"), -float("inf")])


def assessed(costs: list[list[float]], first: int, maximize: bool = False) -> Population:
    """[k][b] costs; gene and trait are the candidate's number."""
    value = torch.tensor(costs, dtype=torch.float64)
    number = torch.arange(first, first + len(costs), dtype=torch.float64)[:, None].expand(value.shape)
    genes = {"x": number[..., None].contiguous()}
    return Population(genes, 1, {"age": number.contiguous()}, Assessment(-value if maximize else value, maximize))


def key(value: float) -> float:
    return math.inf if math.isnan(value) else value


def slow_plus(parents: list[float], children: list[float], keep: int) -> list[int]:
    both = [key(c) for c in parents + children]
    return sorted(range(len(both)), key=lambda i: (both[i], i))[:keep]


def slow_comma(parents: list[float], children: list[float], elites: int) -> list[int]:
    m = len(parents)
    best = sorted(range(m), key=lambda i: (key(parents[i]), i))[: min(elites, m, len(children))]
    worst = sorted(range(len(children)), key=lambda i: (-key(children[i]), i))
    survivors = [m + i for i in range(len(children))]
    for parent, place in zip(best, worst, strict=False):
        if key(parents[parent]) <= key(children[place]):
            survivors[place] = parent
    return survivors


def slow_greedy(parents: list[float], children: list[float], strict: bool) -> list[int]:
    m = len(parents)
    return [
        m + i if (key(c) < key(p) if strict else key(c) <= key(p)) else i
        for i, (p, c) in enumerate(zip(parents, children, strict=True))
    ]


@st.composite
def families(draw: st.DrawFn, equal: bool = False) -> tuple[list[list[float]], list[list[float]]]:
    b = draw(st.integers(1, 3))
    m = draw(st.integers(1, 5))
    n = m if equal else draw(st.integers(1, 5))
    row = st.lists(cost, min_size=b, max_size=b)
    return draw(st.lists(row, min_size=m, max_size=m)), draw(st.lists(row, min_size=n, max_size=n))


def agree(survivors: Population, expected: list[list[int]], both: list[list[float]], maximize: bool) -> None:
    for search, numbers in enumerate(expected):
        assert survivors["x"][:, search, 0].tolist() == numbers
        assert survivors.traits["age"][:, search].tolist() == numbers
        costs = [key(both[i][search]) for i in numbers]
        assert survivors.cost[:, search].tolist() == costs
    assert survivors.assessment is not None
    assert survivors.assessment.maximize == maximize


@given(families(), st.booleans(), st.integers(1, 4))
def test_plus_equals_the_slow_reference(family: Any, maximize: bool, keep: int) -> None:
    p, c = family
    keep = min(keep, len(p) + len(c))
    survivors = Plus(keep)(assessed(p, 0, maximize), assessed(c, len(p), maximize))
    columns = range(len(p[0]))
    # a failed candidate is +inf in cost, whichever direction
    q, d = ([[math.nan if math.isnan(v) else v for v in row] for row in rows] for rows in (p, c))
    agree(survivors, [slow_plus([r[i] for r in q], [r[i] for r in d], keep) for i in columns], q + d, maximize)


@given(families(), st.booleans(), st.integers(0, 4))
def test_comma_equals_the_slow_reference(family: Any, maximize: bool, elites: int) -> None:
    p, c = family
    survivors = Comma(elites)(assessed(p, 0, maximize), assessed(c, len(p), maximize))
    expected = [slow_comma([r[i] for r in p], [r[i] for r in c], elites) for i in range(len(p[0]))]
    agree(survivors, expected, p + c, maximize)


@given(families(equal=True), st.booleans(), st.booleans())
def test_greedy_equals_the_slow_reference(family: Any, maximize: bool, strict: bool) -> None:
    p, c = family
    survivors = Greedy(strict)(assessed(p, 0, maximize), assessed(c, len(p), maximize))
    expected = [slow_greedy([r[i] for r in p], [r[i] for r in c], strict) for i in range(len(p[0]))]
    agree(survivors, expected, p + c, maximize)


def test_worse_child_never_replaces_its_parent() -> None:
    survivors = Greedy()(assessed([[1.0], [1.0]], 0), assessed([[2.0], [math.nan]], 2))
    assert survivors["x"].flatten().tolist() == [0.0, 1.0]


def test_greedy_needs_a_child_for_every_parent() -> None:
    with pytest.raises(ValueError, match="expected as many children as parents, 1, got 2; pair them"):
        Greedy()(assessed([[1.0]], 0), assessed([[1.0], [2.0]], 1))


def test_survival_needs_assessed_populations() -> None:
    one = assessed([[1.0]], 0)
    with pytest.raises(RuntimeError, match="expected an assessed population"):
        Plus()(one, one.with_genes({}))
    with pytest.raises(ValueError, match="keep >= 1"):
        Plus(0)
    with pytest.raises(ValueError, match="elites >= 0"):
        Comma(-1)


def test_survival_keeps_every_field_of_an_assessment() -> None:
    def family(first: float) -> Population:
        value = torch.tensor([first, first + 2])
        return Population(
            {"x": value[:, None]},
            assessment=Assessment(value, cases=value[:, None] * torch.ones(2, 3), violation=value[:, None]),
        )

    for survive in (Plus(), Comma(1), Greedy()):
        kept = survive(family(0.0), family(1.0)).assessment
        assert kept is not None
        assert kept.cases is not None
        assert torch.equal(kept.cases[:, 0], kept.value)
        assert kept.violation is not None
        assert torch.equal(kept.violation[:, 0], kept.value)


# reduction

costs = st.lists(st.lists(cost, min_size=2, max_size=2), min_size=1, max_size=6)


def population(costs: list[list[float]]) -> Population:
    x = torch.arange(len(costs) * 2 * 3, dtype=torch.float64).view(-1, 2, 3).sin()
    return Population({"x": x}, 1, {}, Assessment(torch.tensor(costs, dtype=torch.float64)))


@given(costs)
def test_best_takes_the_first_of_the_lowest(costs: list[list[float]]) -> None:
    parents = population(costs)
    answer = Best()(parents)["x"]
    for search in range(2):
        column = [key(row[search]) for row in costs]
        assert torch.equal(answer[search], parents["x"][column.index(min(column)), search])


def test_best_per_sample_puts_rows_of_several_candidates_together() -> None:
    cases = torch.tensor([[1.0, 5.0, math.nan], [2.0, 0.0, 7.0]])
    x = torch.tensor([[[0.0], [1.0], [2.0]], [[10.0], [11.0], [12.0]]])
    parents = Population({"x": x}, assessment=Assessment(cases.nanmean(-1), cases=cases))
    assert BestPerSample()(parents)["x"].flatten().tolist() == [0.0, 11.0, 12.0]


def test_best_per_sample_needs_cases_that_fit() -> None:
    with pytest.raises(RuntimeError, match="expected cost per case, got none"):
        BestPerSample()(population([[1.0, 2.0]]))
    parents = Population({"x": torch.zeros(2, 4)}, assessment=Assessment(torch.zeros(2), cases=torch.zeros(2, 3)))
    with pytest.raises(ValueError, match=r"expected 'x' with leading dimensions \[2, 3\].*got \[2, 4\]"):
        BestPerSample()(parents)


def slow_weights(kind: str, costs: list[float]) -> list[float]:
    finite = [c for c in costs if math.isfinite(c)]
    if finite:
        costs = [c if math.isfinite(c) else (max(finite) if key(c) > 0 else min(finite)) for c in map(key, costs)]
    else:
        costs = [1.0 if key(c) > 0 else -1.0 for c in costs]
    k = len(costs)
    if kind == "softmax":
        low = min(costs)
        e = [math.exp(-(c - low) / 0.7) for c in costs]
        return [v / sum(e) for v in e]
    mean = sum(costs) / k
    if kind == "centred":
        return [(mean - c) / k for c in costs]
    spread = math.sqrt(sum((c - mean) ** 2 for c in costs) / k)
    return [0.0 if spread == 0 else (mean - c) / spread / k for c in costs]


@pytest.mark.parametrize("kind", ["softmax", "centred", "standardised"])
@given(costs=costs)
def test_weighted_mean_equals_a_loop(kind: Any, costs: list[list[float]]) -> None:
    parents = population(costs)
    answer = WeightedMean(kind, temperature=0.7, step=2.0)(parents)["x"]
    for search in range(2):
        weights = slow_weights(kind, [row[search] for row in costs])
        total = sum((w * parents["x"][i, search] for i, w in enumerate(weights)), torch.zeros(3, dtype=torch.float64))
        expected = total if kind == "softmax" else parents["x"][:, search].mean(0) + 2.0 * total
        assert torch.allclose(answer[search], expected, atol=1e-12)


def test_centred_ranks_share_ties_and_favour_low_costs() -> None:
    cost = torch.tensor([3.0, 1.0, 1.0, 9.0, float("inf")])
    assert centred_ranks(cost).tolist() == [0.0, 0.375, 0.375, -0.25, -0.5]
    assert centred_ranks(torch.tensor([7.0])).tolist() == [0.0]
    both = torch.stack([cost, -cost], 1)
    assert torch.equal(centred_ranks(both)[:, 1], -centred_ranks(cost))


def test_ranks_mean_goes_from_the_middle_towards_the_better_half() -> None:
    parents = Population(
        {"x": torch.tensor([[0.0], [1.0], [2.0]])}, assessment=Assessment(torch.tensor([9.0, 4.0, 1.0]))
    )
    # ranks -0.5, 0, 0.5, each over k = 3: 1 + 3 * (0.5 * 2) / 3
    assert WeightedMean("ranks", step=3.0)(parents)["x"].tolist() == [2.0]


def test_weights_sum_to_one_or_to_nothing() -> None:
    cost = torch.randn(7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(softmax_weights(cost, 0.3).sum(0), torch.ones(4, dtype=torch.float64))
    assert torch.allclose(standardised_weights(cost).sum(0), torch.zeros(4, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(centred_ranks(cost).sum(0), torch.zeros(4, dtype=torch.float64), atol=1e-12)


def test_finite_costs_fill_in_the_worst_and_the_best() -> None:
    inf = float("inf")
    assert finite_costs(torch.tensor([2.0, inf, -inf, 5.0])).tolist() == [2.0, 5.0, 2.0, 5.0]
    assert finite_costs(torch.tensor([inf, -inf])).tolist() == [1.0, -1.0]


def test_mean_is_the_plain_mean() -> None:
    parents = population([[1.0, 2.0], [math.nan, 0.0]])
    assert np.allclose(Mean()(parents)["x"].numpy(), parents["x"].numpy().mean(0))


def test_means_refuse_genes_without_a_mean() -> None:
    parents = Population({"x": torch.zeros(2, 3, dtype=torch.bool)}, assessment=Assessment(torch.zeros(2)))
    for reduce in (Mean(), WeightedMean()):
        with pytest.raises(TypeError, match=r"expected real genes for the .*mean, got 'x' of torch.bool; use Best"):
            reduce(parents)
    with pytest.raises(ValueError, match=r"expected weights among .*, got 'hard'; choose one"):
        WeightedMean("hard")  # type: ignore[arg-type]
