"""Selection by wheels and by cases, survival by age and likeness, reducers: frequencies and slow references."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
from torch import Tensor

from tansaku import (
    GA,
    Age,
    Assessment,
    Best,
    BinaryProbability,
    Boltzmann,
    Crowding,
    ExponentialRank,
    Lexicase,
    LinearRank,
    Mean,
    Momentum,
    Objective,
    Population,
    Roulette,
    Slope,
    StochasticUniversal,
)

N = 40_000
COSTS = [3.0, 0.5, 7.0, 1.0, 4.0]
NAN, INF = float("nan"), float("inf")


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def near(share: Tensor | float, expected: float, n: int = N) -> bool:
    return abs(float(share) - expected) <= 5 * (expected * (1 - expected) / n) ** 0.5 + 1e-12


def costing(costs: list[float], maximize: bool = False) -> Population:
    value = torch.tensor(costs, dtype=torch.float64)
    return Population({"x": torch.zeros(len(costs), 1)}, assessment=Assessment(-value if maximize else value, maximize))


@pytest.mark.parametrize("maximize", [False, True])
def test_exponential_ranks_fall_by_one_factor(maximize: bool) -> None:
    chosen = ExponentialRank(0.6)(costing(COSTS, maximize), N, noise())
    total = sum(0.6**rank for rank in range(5))
    for rank, i in enumerate([1, 3, 0, 4, 2]):
        assert near((chosen == i).double().mean(), 0.6**rank / total)
    with pytest.raises(ValueError, match="expected base between 0 and 1, got 1"):
        ExponentialRank(1.0)


@pytest.mark.parametrize("maximize", [False, True])
def test_boltzmann_chances_fall_exponentially_with_the_cost(maximize: bool) -> None:
    chosen = Boltzmann(2.0)(costing(COSTS, maximize), N, noise())
    total = sum(math.exp(-cost / 2) for cost in COSTS)
    for i, cost in enumerate(COSTS):
        assert near((chosen == i).double().mean(), math.exp(-cost / 2) / total)
    even = Boltzmann(2.0).probability(costing([1e30, 1e30, NAN, INF]))
    assert even.tolist() == pytest.approx([0.25] * 4)
    with pytest.raises(ValueError, match="expected temperature > 0, got 0"):
        Boltzmann(0.0)


@pytest.mark.parametrize("scheme", [Roulette(), LinearRank(1.7), ExponentialRank(0.6), Boltzmann(2.0)])
def test_universal_sampling_rounds_every_expectation_and_keeps_every_chance(scheme: Roulette) -> None:
    population, count, spins = costing(COSTS), 7, 4000
    chance = scheme.probability(population)
    assert float(chance.sum()) == pytest.approx(1.0)
    generator = noise()
    drawn = torch.stack([StochasticUniversal(scheme)(population, count, generator) for _ in range(spins)])
    copies = torch.nn.functional.one_hot(drawn, 5).sum(1)
    assert bool(((copies - count * chance).abs() < 1 + 1e-9).all())
    assert copies.double().mean(0).tolist() == pytest.approx((count * chance).tolist(), abs=0.05)
    for place in range(count):  # in random order: every place has the chances of the whole
        assert all(near((drawn[:, place] == i).double().mean(), float(chance[i]), spins) for i in range(5))


def slow_lexicase(cases: list[list[float]], epsilon: float) -> list[float]:
    """Each candidate's chance, over all orders of the cases."""
    orders = list(permutations(range(len(cases[0]))))
    chance = [0.0] * len(cases)
    for order in orders:
        alive = list(range(len(cases)))
        for case in order:
            costs = {i: INF if math.isnan(cases[i][case]) else cases[i][case] for i in alive}
            alive = [i for i in alive if costs[i] <= min(costs.values()) + epsilon]
        for i in alive:
            chance[i] += 1 / len(alive) / len(orders)
    return chance


@pytest.mark.parametrize("epsilon", [0.0, 1.0])
def test_lexicase_chooses_as_a_slow_reference_does(epsilon: float) -> None:
    cases = [[0.0, 5.0, 3.0], [4.0, 0.0, 2.0], [1.0, 1.0, NAN], [1.0, 1.0, NAN], [3.0, 3.0, 0.0], [9.0, 9.0, 9.0]]
    value = torch.zeros(6)
    population = Population({"x": torch.zeros(6)}, assessment=Assessment(value, cases=torch.tensor(cases)))
    chosen = Lexicase(epsilon)(population, N, noise())
    for i, chance in enumerate(slow_lexicase(cases, epsilon)):
        assert near((chosen == i).double().mean(), chance)
    with pytest.raises(RuntimeError, match="expected cost per case, got none"):
        Lexicase()(costing(COSTS), 2, noise())


def test_lexicase_in_blocks_is_lexicase_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = torch.randint(3, (9, 2, 4), generator=noise())
    population = Population({"x": torch.zeros(9, 2)}, 1, assessment=Assessment(cases.sum(-1), cases=cases))
    once = Lexicase()(population, 50, noise())
    monkeypatch.setattr("tansaku.operators.selection._COMPARISONS", 40)
    assert torch.equal(Lexicase()(population, 50, noise()), once)


def test_nobody_outlives_the_greatest_age_while_there_are_younger_ones() -> None:
    parents = costing([0.0, 1.0, 2.0]).with_traits(lived=torch.tensor([2, 0, 1]))
    children = costing([5.0, NAN, 3.0])
    kept = Age(3)(parents, children)
    assert kept.cost.tolist() == [1.0, 2.0, 3.0]  # the best has lived for 3 generations
    assert kept.traits["lived"].tolist() == [1, 2, 0]
    assert Age(1)(parents, children).cost.tolist() == [3.0, 5.0, INF]
    assert Age(1, keep=4)(parents, children).cost.tolist() == [3.0, 5.0, INF, 0.0]  # a place is left for the old
    assert Age(99)(parents, children).cost.tolist() == [0.0, 1.0, 2.0]


def test_a_ga_in_which_candidates_age_forgets_nothing_that_was_best() -> None:
    objective = Objective(lambda x: x.square().sum(-1))
    ga = GA(k=6, survive=Age(2))
    state = ga.init(objective(Population({"x": torch.randn(6, 2, generator=noise())})))
    lowest = float(state.best.cost)
    for seed in range(8):
        state = ga.tell(state, asked := objective(ga.ask(state, noise(seed))))
        lowest = min(lowest, float(asked.cost.min()))
        assert float(ga.best(state).cost) == lowest
        assert int(state.parents.traits["lived"].max()) < 2


def slow_crowding(parents: Population, children: Population) -> Tensor:
    genes, costs = parents["x"].clone(), parents.cost.clone()
    rivals: dict[int, list[int]] = {}
    span = parents["x"].amax(0) - parents["x"].amin(0)
    for i in range(children.k):
        distance = ((parents["x"] - children["x"][i]) / span).square().sum(-1)
        rivals.setdefault(int(distance.argmin()), []).append(i)
    for parent, own in rivals.items():
        best = min(own, key=lambda i: float(children.cost[i]))
        if children.cost[best] < costs[parent]:
            genes[parent], costs[parent] = children["x"][best], children.cost[best]
    return torch.cat([genes, costs[:, None]], 1)


def test_crowding_equals_a_slow_reference_in_blocks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def some(seed: int, k: int) -> Population:
        x = torch.randn(k, 3, dtype=torch.float64, generator=noise(seed))
        cost = torch.randn(k, dtype=torch.float64, generator=noise(seed + 50))
        return Population({"x": x}, assessment=Assessment(torch.where(cost > 1.2, NAN, cost)))

    for seed in range(20):
        parents, children = some(seed, 7), some(seed + 100, 11)
        expected = slow_crowding(parents, children)
        for block in (1 << 24, 10):
            monkeypatch.setattr("tansaku.operators.survival._DISTANCES", block)
            kept = Crowding()(parents, children)
            assert torch.equal(torch.cat([kept["x"], kept.cost[:, None]], 1), expected)


def test_crowding_measures_every_gene_in_units_of_its_range() -> None:
    parents = Population({"x": torch.tensor([[0.0, 0.0], [1.0, 1e6]])}, assessment=Assessment(torch.ones(2)))
    child = Population({"x": torch.tensor([[0.9, 4e5]])}, assessment=Assessment(torch.zeros(1)))
    assert Crowding()(parents, child)["x"].tolist() == [[0.0, 0.0], [pytest.approx(0.9), 4e5]]


def test_crowding_keeps_both_optima_where_the_best_alone_survive_on_one() -> None:
    objective = Objective(lambda x: (x.square() - 4).square().sum(-1))
    ga = GA(k=30, survive=Crowding())
    state = ga.init(objective(Population({"x": torch.linspace(-3, 3, 30)[:, None]})))
    for seed in range(60):
        state = ga.tell(state, objective(ga.ask(state, noise(seed))))
    x = state.parents["x"]
    assert float((x - 2).abs().min()) < 0.01
    assert float((x + 2).abs().min()) < 0.01
    assert float(state.parents.cost.median()) < 0.2


def test_the_slope_is_the_least_squares_line_of_every_gene() -> None:
    x = torch.randn(12, 2, 3, dtype=torch.float64, generator=noise())
    cost = torch.randn(12, 2, dtype=torch.float64, generator=noise(1))
    cost[3, 0], cost[5, 1] = NAN, INF
    population = Population({"x": x}, 1, assessment=Assessment(cost))
    slopes = Slope().slopes(population)["x"]
    stepped = Slope(0.5)(population)["x"]
    for b in range(2):
        used = torch.isfinite(cost[:, b])
        for j in range(3):
            design = torch.stack([x[used, b, j], torch.ones(11, dtype=torch.float64)], 1)
            line = torch.linalg.lstsq(design, cost[used, b, None]).solution
            assert float(slopes[b, j]) == pytest.approx(float(line[0]))
            assert float(stepped[b, j]) == pytest.approx(float(x[used, b, j].mean() - 0.5 * line[0]))


def test_the_slope_is_zero_where_nothing_was_varied_or_all_failed() -> None:
    x = torch.tensor([[1.0, 2.0], [1.0, 3.0]])
    flat = Population({"x": x}, assessment=Assessment(torch.tensor([1.0, 2.0])))
    assert Slope().slopes(flat)["x"].tolist() == [0.0, 1.0]
    failed = Population({"x": x}, assessment=Assessment(torch.tensor([NAN, INF])))
    assert Slope()(failed)["x"].tolist() == [1.0, 2.5]
    with pytest.raises(TypeError, match=r"expected real genes for the slope.*use BinaryProbability for booleans"):
        Slope()(Population({"x": torch.ones(2, 2, dtype=torch.bool)}, assessment=Assessment(torch.zeros(2))))


def test_binary_probability_compares_the_mean_costs_of_both_values() -> None:
    x = torch.tensor([[1, 1, 1, 0], [1, 0, 1, 0], [0, 1, 1, 0], [0, 0, 1, 1], [1, 1, 1, 1]], dtype=torch.bool)
    cost = torch.tensor([1.0, 2.0, 4.0, 7.0, NAN], dtype=torch.float64)
    population = Population({"x": x}, assessment=Assessment(cost))
    p = BinaryProbability().probability(population)["x"]
    for j in (0, 1):
        true, false = cost[:4][x[:4, j]], cost[:4][~x[:4, j]]
        score = (false.mean() - true.mean()) / (true.var() / 2 + false.var() / 2).sqrt()
        assert float(p[j]) == pytest.approx(float(torch.special.ndtr(score)))
    assert float(p[2]) == 1.0  # nothing to compare with
    far = (7 / 3 - 7.0) / (7 / 9) ** 0.5  # one True, whose mean has no known error
    assert float(p[3]) == pytest.approx(float(torch.special.ndtr(torch.tensor(far, dtype=torch.float64))))
    assert BinaryProbability()(population)["x"].tolist() == [True, True, True, False]
    with pytest.raises(TypeError, match=r"expected boolean genes for BinaryProbability.*use Slope"):
        BinaryProbability()(costing(COSTS))


def test_momentum_follows_its_reducer_like_a_heavy_ball() -> None:
    follow = Momentum(Mean(), 0.9)
    current, velocity = 0.0, 0.0
    memory = None
    for step, x in enumerate([1.0, 3.0, -2.0, 0.5]):
        population = Population({"x": torch.full((3, 1), x, dtype=torch.float64)}, assessment=Assessment(torch.ones(3)))
        memory = follow.after(memory, population)
        velocity = 0.0 if step == 0 else x - current + 0.9 * velocity
        current = x if step == 0 else current + velocity
        assert float(memory.current["x"]) == pytest.approx(current)
    assert Momentum(Best(), 0.0)(costing(COSTS))["x"].tolist() == [0.0]
    with pytest.raises(ValueError, match="expected momentum < 1, got 1"):
        Momentum(Best(), 1.0)
    with pytest.raises(TypeError, match=r"expected real genes for Momentum.*use Best"):
        Momentum()(Population({"x": torch.ones(2, 2, dtype=torch.bool)}, assessment=Assessment(torch.zeros(2))))
