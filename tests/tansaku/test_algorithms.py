"""The algorithms' equations, one generation at a time, against numbers written out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from tansaku import (
    GA,
    PSO,
    Assessment,
    BitFlip,
    Comma,
    Gaussian,
    HillClimb,
    Objective,
    Population,
    Replay,
    Search,
    Truncation,
    UniformCrossover,
    WeightedMean,
)
from tansaku.testing import sphere

ASSESS = Objective(sphere)


def start(k: int = 5, n: int = 3, seed: int = 0) -> Population:
    generator = torch.Generator().manual_seed(seed)
    return ASSESS(Population({"x": torch.randn(k, n, generator=generator, dtype=torch.float64)}))


def test_pso_moves_by_inertia_and_two_pulls() -> None:
    pso = PSO(k=5, inertia=0.7, cognitive=1.4, social=1.3, neighbourhood="global")
    state = pso.init(start())
    noise = torch.Generator().manual_seed(1)
    for _ in range(4):
        tape = Replay(torch.Generator().manual_seed(0))
        tape.generator = noise
        asked = ASSESS(pso.ask(state, tape))
        v, x = state.swarm.traits["velocity.x"], state.swarm["x"]
        first, second = torch.cat([drawn.view(-1, *x.shape) for _, drawn in tape._tape])
        own, leader = state.personal["x"], state.personal["x"][state.personal.cost.argmin()]
        velocity = 0.7 * v + 1.4 * first * (own - x) + 1.3 * second * (leader - x)
        assert torch.allclose(asked.traits["velocity.x"], velocity, atol=1e-14)
        assert torch.allclose(asked["x"], x + velocity, atol=1e-14)
        told = pso.tell(state, asked)
        for i in range(5):
            better = bool(asked.cost[i] < state.personal.cost[i])
            assert torch.equal(told.personal["x"][i], (asked if better else state.personal)["x"][i])
        state = told


def test_particles_start_at_rest_and_stop_at_the_bounds() -> None:
    pso = PSO(k=5, bounds=(-0.5, 0.5))  # type: ignore[arg-type]
    begun = ASSESS(Population({"x": start()["x"].clamp(-0.5, 0.5)}))
    state = pso.init(begun)
    assert bool((state.swarm.traits["velocity.x"] == 0).all())
    state = pso.tell(state, ASSESS(pso.ask(state, torch.Generator().manual_seed(0))))
    asked = pso.ask(
        type(state)(
            state.swarm.with_traits(**{"velocity.x": torch.full((5, 3), 9.0, dtype=torch.float64)}), state.personal, 5
        ),
        torch.Generator().manual_seed(0),
    )
    assert bool((asked["x"] == 0.5).all())
    assert bool((asked.traits["velocity.x"] == 0).all())


def test_a_larger_start_gives_its_best_particles() -> None:
    begun = start(9)
    state = PSO(k=4).init(begun)
    assert torch.equal(state.personal.cost, begun.cost.sort().values[:4])


def test_hill_climbing_keeps_the_better_and_adapts_its_steps() -> None:
    climb = HillClimb(k=4)
    state = climb.init(start(3))
    incumbent = state.incumbent.cost
    assert incumbent == start(3).cost.min()
    for better in range(5):
        costs = torch.tensor([incumbent.item() - 1] * better + [incumbent.item() + 1] * (4 - better)).double()
        asked = climb.ask(state, torch.Generator().manual_seed(0)).assessed(Assessment(costs))
        told = climb.tell(state, asked)
        assert (told.incumbent.cost < incumbent) == (better > 0)
        goal, damping = 1 / (5 + math.sqrt(4) / 2), 1 + 3 / (2 * 4)
        expected = math.exp((better / 4 - goal) / ((1 - goal) * damping))
        assert float(told.scale) == pytest.approx(expected)
    assert float(HillClimb(k=4, adapt=False).tell(state, asked).scale) == 1.0


def test_a_tie_keeps_the_incumbent_of_a_hill_climb() -> None:
    climb = HillClimb(k=2)
    state = climb.init(start(1))
    asked = climb.ask(state, torch.Generator().manual_seed(0)).assessed(Assessment(state.incumbent.cost.expand(2)))
    assert torch.equal(climb.tell(state, asked).incumbent["x"], state.incumbent["x"])


def test_antithetic_steps_mirror_each_other() -> None:
    climb = HillClimb(k=6, antithetic=True)
    state = climb.init(start(1))
    asked = climb.ask(state, torch.Generator().manual_seed(0))["x"]
    assert torch.allclose(asked[:3] + asked[3:], 2 * state.incumbent["x"].expand(3, 3))
    with pytest.raises(ValueError, match="expected k to be a multiple of 2 for HillClimb, got 5; use 6"):
        HillClimb(k=5, antithetic=True)
    assert HillClimb(k=5).needs.k_multiple == 1


def test_orthogonal_steps_take_the_exact_slope_of_a_linear_cost_where_normal_ones_leave_noise() -> None:
    slope, std, k = torch.linspace(-3, 5, 10, dtype=torch.float64), 0.2, 32
    climbs = {kind: HillClimb(k=k, std=std, adapt=False, **{kind: True}) for kind in ("antithetic", "orthogonal")}
    wrong = {}
    for kind, climb in climbs.items():
        begun = Population(
            {"x": torch.ones(1, 7, 10, dtype=torch.float64)}, 1, assessment=Assessment(torch.zeros(1, 7))
        )
        asked = climb.ask(climb.init(begun), torch.Generator().manual_seed(0))
        assessed = Objective(lambda x: x @ slope)(asked)
        moved = WeightedMean("centred", step=std**-2)(assessed)["x"]
        wrong[kind] = float((1 - slope - moved).norm(dim=-1).min() / slope.norm())
    assert wrong["orthogonal"] < 1e-12
    assert wrong["antithetic"] > 0.3


def test_orthogonal_steps_are_of_one_length_and_in_pairs() -> None:
    climb = HillClimb(k=6, std=0.5, orthogonal=True)
    state = climb.init(start(1))
    steps = climb.ask(state, torch.Generator().manual_seed(0))["x"] - state.incumbent["x"]
    torch.testing.assert_close(steps.abs(), torch.full_like(steps, 0.5))
    torch.testing.assert_close(steps[:3], -steps[3:])
    with pytest.raises(ValueError, match="expected k to be a multiple of 2 for HillClimb, got 5; use 6"):
        HillClimb(k=5, orthogonal=True)


def test_a_ga_is_made_of_the_operators_it_is_given() -> None:
    begun = start(6)
    ga = GA(k=3, select=Truncation(), crossover=UniformCrossover(0.0), mutate=Gaussian(0.0), survive=Comma(0))
    asked = ga.ask(ga.init(begun), torch.Generator().manual_seed(0))
    order = begun.cost.argsort()
    assert torch.equal(asked["x"], begun["x"][order[:3]])
    ga = GA(k=3, select=Truncation(), crossover=UniformCrossover(1.0), survive=Comma(0))
    asked = ga.ask(ga.init(begun), torch.Generator().manual_seed(0))
    assert torch.equal(asked["x"], begun["x"][order[3:]])


def test_a_ga_changes_one_bit_per_child_on_average() -> None:
    ga = GA(k=4000)
    begun = Population({"x": torch.zeros(1, 20, dtype=torch.bool)}, assessment=Assessment(torch.zeros(1)))
    asked = ga._children(begun, torch.Generator().manual_seed(0))  # before duplicates of the one parent are replaced
    assert float(asked["x"].double().sum(1).mean()) == pytest.approx(1.0, abs=5 / 4000**0.5)


def test_a_refreshed_ga_finds_its_best_among_the_parents() -> None:
    ga = GA(k=6)
    state = ga.init(start(6))
    other = Objective(lambda x: -sphere(x))
    fresh = ga.refresh(state, other)
    assert float(ga.best(fresh).cost) == float(other(state.parents).cost.min())


def test_whole_genes_need_bounds_or_a_mutation() -> None:
    begun = Population({"x": torch.zeros(1, 4, dtype=torch.int64)}, assessment=Assessment(torch.zeros(1)))
    climb = HillClimb()
    with pytest.raises(TypeError, match="expected bounds or a mutation for integer genes, got neither for 'x'"):
        climb.ask(climb.init(begun), torch.Generator())
    assert HillClimb(mutate=BitFlip()).mutate is not None


def test_a_step_length_may_be_given_per_name_and_per_gene() -> None:
    begun = Population({"a": torch.zeros(1, 2), "b": torch.zeros(1, 2)}, assessment=Assessment(torch.zeros(1)))
    climb = HillClimb(k=5000, std={"a": torch.tensor([1.0, 4.0]), "b": 0.1})
    asked = climb.ask(climb.init(begun), torch.Generator().manual_seed(0))
    assert asked["a"].std(0).tolist() == pytest.approx([1.0, 4.0], rel=0.06)
    assert asked["b"].std(0).tolist() == pytest.approx([0.1, 0.1], rel=0.06)
    climb = HillClimb(std={"a": 1.0})
    with pytest.raises(ValueError, match=r"expected std for \['a'\] and 'b', got none for the latter"):
        climb.ask(climb.init(begun), torch.Generator())


def test_the_step_is_a_fifth_of_the_box_where_none_is_given() -> None:
    begun = Population({"x": torch.zeros(1, 2)}, assessment=Assessment(torch.zeros(1)))
    bounds = (torch.tensor([-50.0, -1e9]), torch.tensor([50.0, float("inf")]))
    climb = HillClimb(k=5000, bounds=bounds)  # type: ignore[arg-type]
    asked = climb.ask(climb.init(begun), torch.Generator().manual_seed(0))["x"]
    assert asked.std(0).tolist() == pytest.approx([20.0, 1.0], rel=0.06)


def test_half_precision_is_searched_too() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        begun = Population({"x": torch.full((1, 3), 2.0, dtype=dtype)})
        for algorithm in (HillClimb(k=8), PSO(k=8), GA(k=8)):
            search: Search[object] = Search(algorithm, ASSESS, begun)  # type: ignore[arg-type]
            result = search.run(max_generations=20)
            assert result.best["x"].dtype == dtype
            assert float(torch.as_tensor(result.value)) <= 12.0
