"""Constraints: what they say is violated, how that shows in costs, and that searches respect them."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from tansaku import (
    EQ,
    GA,
    GT,
    GTE,
    LT,
    LTE,
    PSO,
    Assessment,
    Constrained,
    Constraint,
    Feasibility,
    HillClimb,
    Individual,
    Objective,
    Penalty,
    Population,
    Search,
)


def line(*values: float) -> Population:
    return Population({"x": torch.tensor(values, dtype=torch.float64)})


@pytest.mark.parametrize(
    ("kind", "violated", "amount"),
    [
        (LT, [False, True, True, True], [0.0, 0.0, 1.0, math.inf]),
        (LTE, [False, False, True, True], [0.0, 0.0, 1.0, math.inf]),
        (GT, [True, True, False, True], [1.0, 0.0, 0.0, math.inf]),
        (GTE, [True, False, False, True], [1.0, 0.0, 0.0, math.inf]),
        (EQ, [True, False, True, True], [0.9999, 0.0, 0.9999, math.inf]),
    ],
)
def test_true_means_violated_and_the_amount_is_the_distance(
    kind: type[Constraint], violated: list[bool], amount: list[float]
) -> None:
    population = line(1.0, 2.0, 3.0, math.nan)
    for quantity in ("x", lambda x: x, lambda x: x[:, None]):
        constraint = kind(quantity, 2.0)
        assert constraint.violated(population).tolist() == violated
        assert constraint.violation(population)[:, 0].tolist() == pytest.approx(amount)


def test_a_name_constrains_all_its_genes_and_a_limit_may_differ_between_them() -> None:
    population = Population({"x": torch.tensor([[1.0, 5.0], [3.0, 3.0]]), "n": torch.tensor([4, 6])})
    assert LTE("x", torch.tensor([2.0, 6.0])).violated(population).tolist() == [False, True]
    assert GT("n", 5).violated(population).tolist() == [True, False]
    assert LT(lambda genes: genes["x"].sum(-1) + genes["n"], 11.0).violated(population).tolist() == [False, True]


def test_any_violated_constraint_makes_a_candidate_infeasible() -> None:
    both = Constrained(Objective(lambda x: x), [GTE("x", 1.0), LTE("x", 2.0)])
    assert both.violated(line(0.0, 1.0, 1.5, 3.0)).tolist() == [True, False, False, True]
    assessed = both(line(0.0, 1.0, 1.5, 3.0)).assessment
    assert assessed is not None
    assert assessed.violation is not None
    assert (assessed.violation > 0).any(-1).tolist() == [True, False, False, True]


def deb(a: tuple[float, float], b: tuple[float, float]) -> bool:
    """Whether (cost, violation) a comes before b by Deb's rules, NaN being the worst cost."""
    (cost_a, out_a), (cost_b, out_b) = a, b
    if (out_a > 0) != (out_b > 0):
        return out_b > 0 and math.isfinite(cost_a)
    if out_a > 0:
        return out_a < out_b
    return cost_a < cost_b


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("maximize", [False, True])
def test_feasibility_orders_every_pair_as_debs_rules_do(dtype: torch.dtype, maximize: bool) -> None:
    pairs = list(itertools.product([-1e20, -3.0, 0.0, 1e-9, 2.0, 1e20], [0.0, 1e-30, 1e-7, 1.0, 1.001, 1e9, math.inf]))
    cost = torch.tensor([pair[0] for pair in pairs], dtype=dtype)
    out = torch.tensor([pair[1] for pair in pairs], dtype=dtype)

    def assess(population: Population) -> Population:
        return population.assessed(Assessment(-cost if maximize else cost, maximize, violation=out[:, None]))

    made = Constrained(assess)(Population({"x": torch.zeros(len(pairs))})).cost.tolist()
    for i, j in itertools.product(range(len(pairs)), repeat=2):
        if deb(pairs[i], pairs[j]):
            assert made[i] < made[j], (pairs[i], pairs[j])
    for i, pair in enumerate(pairs):
        if pair[1] == 0:
            assert made[i] == float(cost[i])  # the value of a feasible candidate is untouched


def test_an_infeasible_candidate_may_have_no_objective_and_a_failed_feasible_one_is_last() -> None:
    root = Constrained(Objective(lambda x: x.sqrt()), [GTE("x", 0.0)])
    cost = root(line(-4.0, -1.0, 4.0)).cost
    assert cost[0] > cost[1] > cost[2] == 2.0
    assert bool(torch.isfinite(cost).all())
    failed = Constrained(Objective(lambda x: x * math.nan), [GTE("x", 0.0)])(line(-1.0, 1.0)).cost
    assert failed[1] == math.inf > failed[0]


def test_a_penalty_is_paid_in_proportion_in_both_directions() -> None:
    for maximize in (False, True):
        assess = Constrained(Objective(lambda x: x, maximize), [LTE("x", 2.0)], Penalty(10.0, 2.0))
        value = assess(line(1.0, 2.0, 5.0)).assessment
        assert value is not None
        assert value.cost.tolist() == [-1.0, -2.0, 85.0] if maximize else [1.0, 2.0, 95.0]
        assert value.value.tolist() == [1.0, 2.0, 5.0]  # the objective's own


def test_several_objectives_are_all_worse_where_a_constraint_is_violated() -> None:
    assess = Constrained(Objective(lambda x: torch.stack([x, -x], -1)), [LTE("x", 2.0)])
    cost = assess(line(1.0, 3.0, 4.0)).cost
    assert cost[0].tolist() == [1.0, -1.0]
    assert bool((cost[1] < cost[2]).all())
    assert bool((cost[1] > 1e30).all())


def test_what_the_objective_says_of_violations_counts_too() -> None:
    objective = Objective(lambda x: {"value": x, "violation": (x - 2)[:, None]})
    assert (Constrained(objective)(line(1.0, 3.0)).cost > 100).tolist() == [False, True]
    plain = Objective(lambda x: x)
    assert torch.equal(Constrained(plain)(line(1.0, 3.0)).cost, plain(line(1.0, 3.0)).cost)


@pytest.mark.parametrize("algorithm", [PSO(k=30), GA(k=60), HillClimb(k=30)])
@pytest.mark.parametrize("rule", [Feasibility(), Penalty(100.0)])
def test_searches_find_the_optimum_on_the_edge(algorithm: PSO, rule: Feasibility) -> None:
    """Min x^2 + y^2 with x + y >= 2 and x <= 0.5: (0.5, 1.5), in every one of three searches."""
    assess = Constrained(
        Objective(lambda x: x.square().sum(-1)),
        [GTE(lambda x: x.sum(-1), 2.0), LTE(lambda x: x[..., 0], 0.5)],
        rule,
    )
    start = Individual({"x": torch.zeros(3, 2, dtype=torch.float64)}, 1)
    search: Search[object] = Search(algorithm, assess, start)  # type: ignore[arg-type]
    if isinstance(algorithm, GA):
        drawn = torch.randn(60, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        search = Search(algorithm, assess, Population({"x": drawn}, 1))  # type: ignore[arg-type]
    best = search.run(max_generations=300).best
    assert bool(((best["x"] - torch.tensor([0.5, 1.5])).abs() < 0.1).all()), best["x"]
    if isinstance(rule, Feasibility):
        assert not bool(assess.violated(best.populate(1)).any())


def test_wrong_constraints_are_refused_in_words() -> None:
    with pytest.raises(TypeError, match="expected quantity as a name or a function of the genes, got int"):
        LT(3, 1.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected limit to be a number"):
        LT("x", "high")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected constraints such as LT or EQ, got function"):
        Constrained(Objective(lambda x: x), [lambda x: x])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"expected a quantity among \['x'\], got 'y'"):
        LT("y", 1.0).violation(line(1.0))
    with pytest.raises(TypeError, match="expected the quantity as a tensor or a numpy array, got float"):
        LT(lambda x: 1.0, 1.0).violation(line(1.0))  # type: ignore[arg-type,return-value]
    with pytest.raises(ValueError, match=r"expected a quantity of shape \[k, \*batch_shape\] = \[2\].*got \[\]"):
        LT(lambda x: x.sum(), 1.0).violation(line(1.0, 2.0))
