"""Evolution strategies, one update at a time: slow loops, the reference library on the same samples, hard cases."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tansaku import (
    CEM,
    ES,
    PGPE,
    SGD,
    SNES,
    XNES,
    Adam,
    Assessment,
    ClipUp,
    Individual,
    Objective,
    OpenAIES,
    Population,
    Search,
    TorchStep,
    host,
    minimize,
)
from tansaku.algorithms.gaussian import penalised_order, shares
from tansaku.functional import centred_ranks, ranked_weights, ranks
from tansaku.testing import ellipsoid, sphere

ALL: dict[str, Any] = {"openai_es": OpenAIES, "pgpe": PGPE, "snes": SNES, "xnes": XNES, "cem": CEM, "es": ES}
ASSESS = Objective(lambda x: ellipsoid(x, 100.0))


def start(n: int = 3) -> Population:
    return ASSESS(Population({"x": torch.linspace(1, 2, n, dtype=torch.float64)[None]}))


def one_update(algorithm: Any, n: int = 3, seed: int = 0) -> tuple[Any, Population, Any]:
    """The second update: whatever is remembered is no longer zero."""
    noise = torch.Generator().manual_seed(seed)
    state = algorithm.init(start(n))
    state = algorithm.tell(state, ASSESS(algorithm.ask(state, noise)))
    asked = ASSESS(algorithm.ask(state, noise))
    return state, asked, algorithm.tell(state, asked)


def best_first(asked: Population) -> list[int]:
    return sorted(range(asked.k), key=lambda i: float(asked.cost[i]))


# Golden values: each update against an obvious loop over candidates and genes.


@pytest.mark.parametrize("orthogonal", [False, True])
def test_openai_es_follows_mirrored_centred_ranks(orthogonal: bool) -> None:
    settings: dict[str, Any] = {"weight_decay": 0.1, "std_decay": 0.9, "orthogonal": orthogonal}
    algorithm = OpenAIES(k=6, std=0.5, lr=0.2, optimizer="sgd", **settings)
    state, asked, told = one_update(algorithm)
    order = best_first(asked)
    for gene in range(3):
        gradient = 0.0
        for i in range(6):
            e = (asked["x"][i, gene] - state.mean[gene]) / state.std[gene]
            gradient += (0.5 - order.index(i) / 5) * float(e) / 6
        decay = 0.1 * state.mean[gene] * state.std[gene]
        expected = state.mean[gene] + 0.2 * state.std[gene] * (gradient - decay)
        assert float(told.mean[gene]) == pytest.approx(float(expected), abs=1e-13)
    assert torch.allclose(told.std, 0.9 * state.std)
    steps = (asked["x"] - state.mean) / state.std
    assert torch.allclose(steps.abs(), torch.ones_like(steps)) == orthogonal
    assert torch.allclose(asked["x"][:3] + asked["x"][3:], 2 * state.mean.expand(3, 3))


def nes_utilities(k: int) -> list[float]:
    raw = [max(0.0, math.log(k / 2 + 1) - math.log(i)) for i in range(1, k + 1)]
    return [u / sum(raw) - 1 / k for u in raw]


def test_snes_follows_the_natural_gradient() -> None:
    state, asked, told = one_update(SNES(k=6))
    for gene in range(3):
        to_mean = to_std = 0.0
        for u, i in zip(nes_utilities(6), best_first(asked), strict=True):
            s = float((asked["x"][i, gene] - state.mean[gene]) / state.std[gene])
            to_mean, to_std = to_mean + u * s, to_std + u * (s * s - 1)
        assert float(told.mean[gene]) == pytest.approx(float(state.mean[gene] + state.std[gene] * to_mean), abs=1e-13)
        growth = math.exp((3 + math.log(3)) / (5 * math.sqrt(3)) / 2 * to_std)
        assert float(told.std[gene]) == pytest.approx(float(state.std[gene]) * growth, rel=1e-13)


def test_xnes_follows_the_natural_gradient_of_a_full_covariance() -> None:
    state, asked, told = one_update(XNES(k=6))
    to_mean, to_root = torch.zeros(3).double(), torch.zeros(3, 3).double()
    for u, i in zip(nes_utilities(6), best_first(asked), strict=True):
        s = torch.linalg.solve(state.root, asked["x"][i] - state.mean)
        to_mean += u * s
        to_root += u * (torch.outer(s, s) - torch.eye(3))
    step = 0.6 * (3 + math.log(3)) / (3 * math.sqrt(3)) / 2 * to_root
    series, term = torch.eye(3).double(), torch.eye(3).double()
    for power in range(1, 30):
        term = term @ step / power
        series = series + term
    assert torch.allclose(told.mean, state.mean + state.root @ to_mean, atol=1e-13)
    assert torch.allclose(told.root, state.root @ series, atol=1e-13)


def test_pgpe_moves_by_pairs_and_clips_its_speed() -> None:
    state, asked, told = one_update(PGPE(k=6, std=0.5))
    order, unit = best_first(asked), 0.5
    gradient, growth = [0.0] * 3, [0.0] * 3
    for i in range(3):
        plus, minus = (0.5 - order.index(j) / 5 for j in (i, i + 3))
        for gene in range(3):
            epsilon = float(asked["x"][i, gene] - state.mean[gene])
            std = float(state.std[gene])
            gradient[gene] += epsilon / unit * (plus - minus) / 2 / 3
            growth[gene] += (epsilon**2 - std**2) / std**2 * (plus + minus) / 2 / 3
    length, lr = math.hypot(*gradient), math.sqrt(3) / 30
    velocity = [0.9 * float(v) + lr * g / length for v, g in zip(state.memory["velocity"], gradient, strict=True)]
    speed = math.hypot(*velocity)
    velocity = [v * min(1.0, 2 * lr / speed) for v in velocity]
    for gene in range(3):
        assert float(told.mean[gene] - state.mean[gene]) == pytest.approx(unit * velocity[gene], abs=1e-13)
        change = max(-0.2, min(0.2, 0.1 * growth[gene]))
        assert float(told.std[gene]) == pytest.approx(float(state.std[gene]) * (1 + change), rel=1e-13)


def test_cem_goes_a_part_of_the_way_to_its_elite() -> None:
    algorithm = CEM(k=10, elite=0.39, smoothing=0.8, smoothing_std=0.6)
    state, asked, told = one_update(algorithm)
    elite = [asked["x"][i] for i in best_first(asked)[:3]]
    for gene in range(3):
        values = [float(x[gene]) for x in elite]
        mean = sum(values) / 3
        std = math.sqrt(sum((value - mean) ** 2 for value in values) / 2)
        assert float(told.mean[gene]) == pytest.approx(0.2 * float(state.mean[gene]) + 0.8 * mean, abs=1e-13)
        assert float(told.std[gene]) == pytest.approx(0.4 * float(state.std[gene]) + 0.6 * std, abs=1e-13)


def test_es_recombines_genes_and_step_sizes_of_its_best_children() -> None:
    _, asked, told = one_update(ES(k=8, parents=3))
    chosen = best_first(asked)[:3]
    steps = asked.traits["std"]
    for gene in range(3):
        assert float(told.mean[gene]) == pytest.approx(sum(float(asked["x"][i, gene]) for i in chosen) / 3, abs=1e-13)
        product = math.prod(float(steps[i, gene]) for i in chosen)
        assert float(told.std[gene]) == pytest.approx(product ** (1 / 3), rel=1e-13)


def test_step_sizes_of_an_es_are_log_normal_as_the_paper_says() -> None:
    n, algorithm = 4, ES(k=40_000, std=0.3)
    asked = algorithm.ask(algorithm.init(start(n)), torch.Generator().manual_seed(0))
    log = (asked.traits["std"] / 0.3).log()
    common, own = 1 / (2 * n), 1 / (2 * math.sqrt(n))  # tau_0^2 and tau^2
    covariance = torch.cov(log.T)
    assert torch.allclose(covariance.diagonal(), torch.full((n,), common + own).double(), rtol=0.05)
    assert float(covariance[0, 1]) == pytest.approx(common, rel=0.1)
    assert float(log.mean()) == pytest.approx(0.0, abs=0.01)


# The same samples through evotorch, update by update.


@pytest.mark.parametrize("name", ["snes", "xnes", "cem", "pgpe"])
def test_updates_equal_those_of_evotorch(name: str) -> None:
    algorithms = pytest.importorskip(
        "evotorch.algorithms", reason="needs evotorch: pip install tansaku-zenkai[evotorch]"
    )
    core = pytest.importorskip("evotorch.core")
    n, k = 5, 12
    problem = core.Problem(
        "min", lambda x: ellipsoid(x, 100.0), vectorized=True, solution_length=n, dtype=torch.float64,
        initial_bounds=(-1.0, 1.0), seed=1,
    )  # fmt: skip
    settings = {"popsize": k, "stdev_init": 1.0}
    ours: Any
    if name == "snes":
        ours, theirs = SNES(k=k, lr_std=0.3), algorithms.SNES
        settings |= {"stdev_learning_rate": 0.3, "scale_learning_rate": False}
    elif name == "xnes":
        ours, theirs = XNES(k=k), algorithms.XNES
    elif name == "cem":
        ours, theirs = CEM(k=k, elite=0.25, smoothing=1.0, smoothing_std=1.0), algorithms.CEM
        settings |= {"parenthood_ratio": 0.25}
    else:
        ours, theirs = PGPE(k=k, lr=0.15), algorithms.PGPE
        settings |= {"center_learning_rate": 0.15, "stdev_learning_rate": 0.1, "optimizer": "clipup"}
    searcher = theirs(problem, **settings)
    searcher.step()  # the first one only samples
    begun = Population({"x": searcher.status["center"].clone()[None]})
    state = ours.init(Objective(lambda x: ellipsoid(x, 100.0))(begun))
    for _ in range(20):
        values, costs = searcher.population.values.clone(), searcher.population.evals[:, 0].clone()
        if name == "pgpe":  # theirs alternate
            values, costs = (torch.cat([x[0::2], x[1::2]]) for x in (values, costs))
        width = state.root if name == "xnes" else torch.diag(state.std)
        noise = torch.linalg.solve(width, (values - state.mean).T).T
        asked = Population({"x": values}, traits={"noise": noise}, assessment=Assessment(costs))
        state = ours.tell(state, asked)
        searcher.step()
        assert torch.allclose(state.mean, searcher.status["center"], rtol=1e-9, atol=1e-12)
        width = state.root if name == "xnes" else state.std
        assert torch.allclose(width, searcher.status["stdev"], rtol=1e-9, atol=1e-12)


# Step rules.


@pytest.mark.parametrize(
    ("rule", "reference"),
    [
        (SGD(0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
        (SGD(0.1, momentum=0.8), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8)),
        (Adam(0.1, betas=(0.8, 0.95)), lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.8, 0.95))),
        (TorchStep(lambda p: torch.optim.RMSprop(p, lr=0.1)), lambda p: torch.optim.RMSprop(p, lr=0.1)),
        (TorchStep(lambda p: torch.optim.NAdam(p, lr=0.1)), lambda p: torch.optim.NAdam(p, lr=0.1)),
    ],
)
def test_step_rules_equal_the_optimisers_of_torch(rule: Any, reference: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    parameter = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    optimizer = reference([parameter])
    x, memory = torch.zeros(2, 3, dtype=torch.float64), rule.init(torch.zeros(2, 3, dtype=torch.float64))
    for _ in range(10):
        gradient = torch.randn(2, 3, generator=generator, dtype=torch.float64)
        parameter.grad = gradient.clone()
        optimizer.step()
        kept = {name: value.clone() for name, value in memory.items()}
        change, later = rule.step(gradient, memory)
        assert all(torch.equal(kept[name], memory[name]) for name in kept)
        x, memory = x + change, later
        assert torch.allclose(x, parameter.detach(), atol=1e-12)


def test_clipup_never_exceeds_its_speed_and_stands_still_without_a_gradient() -> None:
    rule = ClipUp(0.1, max_speed=0.15)
    memory = rule.init(torch.zeros(2, 3))
    gradient = torch.tensor([[3.0, 0.0, 4.0], [0.0, 0.0, 0.0]])
    lengths = []
    for _ in range(4):
        change, memory = rule.step(gradient, memory)
        lengths.append(change.norm(dim=-1).tolist())
    assert [pair[0] for pair in lengths] == pytest.approx([0.1, 0.15, 0.15, 0.15])
    assert [pair[1] for pair in lengths] == [0.0] * 4
    assert torch.allclose(change[0] / change[0].norm(), torch.tensor([-0.6, 0.0, -0.8]))


@pytest.mark.parametrize(
    "optimizer", ["sgd", "momentum", "adam", "clipup", TorchStep(lambda p: torch.optim.Adagrad(p, 0.3))]
)
@pytest.mark.parametrize("kind", [OpenAIES, PGPE])
def test_any_optimiser_takes_the_step(kind: Any, optimizer: Any) -> None:
    algorithm = kind(k=20, std=0.5, lr=0.5, optimizer=optimizer)
    search: Search[Any] = Search(algorithm, Objective(sphere), Individual({"x": torch.full((2, 3), 2.0)}, 1))
    before = search.algorithm.estimate(algorithm.init(Objective(sphere)(Population({"x": torch.full((1, 2), 2.0)}))))
    search.run(max_generations=60)
    assert before["x"].tolist() == [2.0, 2.0]
    assert bool((sphere(algorithm.estimate(search.state)["x"]) < 6.0).all())  # 12 at the start


def test_unknown_optimisers_and_settings_are_refused() -> None:
    for kind in (OpenAIES, PGPE):
        with pytest.raises(ValueError, match=r"expected optimizer among \['adam', 'clipup', 'momentum', 'sgd'\]"):
            kind(optimizer="lion")
    with pytest.raises(ValueError, match="expected parents <= k = 10, got 11"):
        ES(k=10, parents=11)
    with pytest.raises(ValueError, match=r"expected elite in \[0, 1\], got 2"):
        CEM(elite=2)
    with pytest.raises(ValueError, match=r"expected lr_cov in \[0, inf\]"):
        XNES(lr_cov=-1.0)
    with pytest.raises(ValueError, match=r"expected max_change in \[0, 1\]"):
        PGPE(max_change=1.5)
    with pytest.raises(ValueError, match="expected k to be a multiple of 2 for OpenAIES, got 5; use 6"):
        OpenAIES(k=5)


# Ranks.


def test_weights_by_rank_are_shared_by_ties() -> None:
    cost = torch.tensor([[3.0, 1.0], [1.0, 1.0], [3.0, 1.0], [float("inf"), 0.0]])
    given = ranked_weights(cost, torch.tensor([4.0, 2.0, 1.0, 0.0]))
    assert given.tolist() == [[1.5, 1.0], [4.0, 1.0], [1.5, 1.0], [0.0, 4.0]]
    assert ranks(cost).tolist() == [[1.5, 2.0], [0.0, 2.0], [1.5, 2.0], [3.0, 0.0]]
    assert centred_ranks(cost)[:, 0].tolist() == pytest.approx([0.0, 0.5, 0.0, -0.5])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("highest", [3, 10**6])
def test_ranks_in_the_hosts_memory_are_those_of_a_device(dtype: torch.dtype, highest: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(30, generator=generator)
    for _ in range(5):
        cost = torch.randint(highest, (30,), generator=generator).double().to(dtype)
        with host.all_apart():
            expected = ranks(cost), ranked_weights(cost, weights)
        for got, wanted in zip((ranks(cost), ranked_weights(cost, weights)), expected, strict=True):
            assert got.dtype == wanted.dtype
            assert torch.equal(got, wanted)


def test_the_price_of_leaving_the_box_alone_makes_ranks_of_costs() -> None:
    cost = torch.tensor([1.0, 1.0 + 1e-12, 0.5], dtype=torch.float64)
    free = Population({"x": torch.zeros(3, 2)}, assessment=Assessment(cost))
    order = penalised_order(free, torch.ones(2))
    assert torch.equal(order, cost)  # single precision would make two of them equal


def test_a_sample_outside_pays_half_the_population_per_squared_deviation() -> None:
    asked = Population(
        {"x": torch.zeros(4, 2)},
        traits={"raw": torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 0.0], [0.0, -1.0]])},
        assessment=Assessment(torch.tensor([3.0, 0.0, 1.0, 2.0])),
    )
    paid = penalised_order(asked, torch.tensor([2.0, 0.5])).tolist()
    assert paid == [3.0, 0.0 + 2 * (1 / 2), 1.0, 2.0 + 2 * (4 / 2)]


def test_failed_evaluations_have_no_share() -> None:
    asked = Population({"x": torch.zeros(4, 1)}, assessment=Assessment(torch.tensor([math.nan, 1.0, math.inf, 2.0])))
    assert shares(asked, torch.ones(1), 3).tolist() == pytest.approx([0.0, 0.5, 0.0, 0.5])
    failed = asked.assessed(Assessment(torch.full((4,), math.nan)))
    assert shares(failed, torch.ones(1), 3).tolist() == [0.0] * 4


# Hard cases.


@pytest.mark.parametrize("name", ALL)
def test_a_generation_of_failures_moves_nothing(name: str) -> None:
    algorithm = ALL[name](k=8)
    state = algorithm.init(start())
    asked = algorithm.ask(state, torch.Generator().manual_seed(0))
    told = algorithm.tell(state, asked.assessed(Assessment(torch.full((8,), math.nan))))
    assert torch.allclose(told.mean, state.mean, atol=1e-14)
    width = "root" if name == "xnes" else "std"
    assert torch.allclose(getattr(told, width), getattr(state, width), atol=1e-14)
    assert torch.equal(told.best["x"], state.best["x"])


@pytest.mark.parametrize("name", ALL)
def test_the_search_begins_at_the_best_of_the_start(name: str) -> None:
    genes = {"b": torch.tensor([[3.0], [0.5]]), "a": torch.tensor([[[1.0, 2.0]], [[0.25, 0.75]]])}
    objective = Objective(lambda x: x["a"].square().sum((-1, -2)) + x["b"].square().sum(-1))
    algorithm = ALL[name]()
    state = algorithm.init(objective(Population(genes)))
    assert state.mean.tolist() == [0.25, 0.75, 0.5]
    estimate = algorithm.estimate(state)
    assert estimate["a"].tolist() == [[0.25, 0.75]]
    assert estimate["b"].tolist() == [0.5]


@pytest.mark.parametrize("name", ["snes", "xnes", "cem", "es"])
@pytest.mark.parametrize("centre", [5.0, 7.0])
def test_an_optimum_at_or_beyond_the_edge_is_found(name: str, centre: float) -> None:
    result = minimize(
        lambda x: (x - centre).square().sum(-1), shape=6, bounds=(-5.0, 5.0), algorithm=name,
        dtype=torch.float64, max_evaluations=8_000,
    )  # fmt: skip
    assert torch.allclose(result.best["x"], torch.full((6,), min(centre, 5.0)).double(), atol=1e-4)


@pytest.mark.parametrize("name", ALL)
def test_a_slope_without_end_stays_finite(name: str) -> None:
    algorithm = ALL[name](k=16)
    search: Search[Any] = Search(algorithm, Objective(lambda x: x.sum(-1)), Individual({"x": torch.zeros(3)}))
    search.run(max_generations=500)
    assert bool(torch.isfinite(search.best["x"]).all())
    assert bool(torch.isfinite(algorithm.estimate(search.state)["x"]).all())
    assert float(search.value) < -1.0


@pytest.mark.parametrize("name", ALL)
def test_a_condition_of_1e12_in_float32_stays_finite(name: str) -> None:
    algorithm = ALL[name](k=16)
    objective = Objective(lambda x: ellipsoid(x, 1e12))
    search: Search[Any] = Search(algorithm, objective, Individual({"x": torch.ones(2, 4)}, 1))
    before = objective(Population({"x": torch.ones(1, 2, 4)}, 1)).cost[0]
    search.run(max_generations=400)
    assert bool(torch.isfinite(algorithm.estimate(search.state)["x"]).all())
    assert bool((search.value < before).all())


def test_xnes_learns_a_rotated_ellipsoid_that_snes_cannot() -> None:
    turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)).Q

    def rotated(x: Tensor) -> Tensor:
        return ellipsoid(x @ turn, 1e4)

    found = {
        name: float(
            minimize(
                rotated,
                shape=6,
                algorithm=name,
                dtype=torch.float64,
                max_evaluations=10_000,
                std=1.0,
                x0=None,
                bounds=(-5.0, 5.0),
            ).value
        )
        for name in ("xnes", "snes")
    }
    assert found["xnes"] < 1e-9 < found["snes"]


def test_weight_decay_pulls_towards_zero_and_is_declared() -> None:
    flat = Objective(lambda x: torch.zeros_like(x[..., 0]))
    begun = flat(Population({"x": torch.full((1, 3), 2.0)}))
    algorithm = OpenAIES(k=4, optimizer="sgd", weight_decay=0.5, std=1.0, lr=0.1)
    state = algorithm.init(begun)
    told = algorithm.tell(state, flat(algorithm.ask(state, torch.Generator().manual_seed(0))))
    assert told.mean.tolist() == pytest.approx([2.0 - 0.1 * 0.5 * 2.0] * 3)
    assert not algorithm.needs.translates
    assert replace(algorithm, weight_decay=0.0).needs.translates


@pytest.mark.parametrize("name", ALL)
def test_half_precision_is_searched_too(name: str) -> None:
    for dtype in (torch.float16, torch.bfloat16):
        search: Search[Any] = Search(
            ALL[name](k=16), Objective(sphere), Individual({"x": torch.full((3,), 2.0).to(dtype)})
        )
        search.run(max_generations=30)
        assert search.best["x"].dtype == dtype
        assert float(search.value) < 12.0
        assert bool(torch.isfinite(search.algorithm.estimate(search.state)["x"]).all())
