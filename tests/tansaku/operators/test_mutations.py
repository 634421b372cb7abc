"""Cauchy, polynomial, creep, swap and inversion; samplers and schedules: frequencies against theory, exact values."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tansaku import (
    GA,
    BernoulliSampler,
    BitFlip,
    Bounds,
    Cauchy,
    ConstantSchedule,
    CosineSchedule,
    Creep,
    ExponentialSchedule,
    Gaussian,
    HillClimb,
    Individual,
    Inversion,
    LatinHypercubeSampler,
    LinearSchedule,
    Objective,
    PermutationSampler,
    Polynomial,
    Population,
    Scheduled,
    Search,
    SobolSampler,
    Swap,
    UniformCrossover,
)
from tansaku.functional import polynomial

N = 60_000


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def near(share: Tensor | float, expected: float, n: int = N) -> bool:
    return abs(float(share) - expected) <= 5 * (expected * (1 - expected) / n) ** 0.5 + 1e-12


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_cauchy_steps_have_the_quartiles_of_their_scale(rate: float) -> None:
    x = Cauchy(2.0, rate)(Population({"x": torch.zeros(1, N, dtype=torch.float64)}), noise())["x"]
    assert near((x != 0).double().mean(), rate)
    if rate:
        moved = x[x != 0]
        for quantile in (0.1, 0.25, 0.5, 0.9):
            edge = 2.0 * math.tan(math.pi * (quantile - 0.5))
            assert near((moved < edge).double().mean(), quantile, moved.numel())


def polynomial_step(place: torch.Tensor, u: torch.Tensor, eta: float) -> torch.Tensor:
    """In a box from 0 to 1."""
    return polynomial(place, u, eta, torch.zeros(()).to(u), torch.ones(()).to(u)) - place


def test_polynomial_steps_reach_both_ends_and_no_further() -> None:
    u = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    assert polynomial_step(torch.full_like(u, 0.3), u, 20.0)[[0, 2, 4]].tolist() == pytest.approx([-0.3, 0.0, 0.7])
    quarter = (0.5 + 0.5 * 0.7**3) ** (1 / 3) - 1  # eta 2, a gene at 0.3, u 0.25
    assert float(polynomial_step(u.new_tensor(0.3), u[1], 2.0)) == pytest.approx(quarter)
    assert float(polynomial_step(u.new_tensor(0.7), u[3], 2.0)) == pytest.approx(-quarter)


@pytest.mark.parametrize("rate", [0.0, 0.4, 1.0])
def test_polynomial_mutation_changes_its_rate_and_half_of_it_downwards(rate: float) -> None:
    genes = torch.zeros(1, N, dtype=torch.float64)  # in single precision some steps are too short to be any
    x = Polynomial(Bounds(-10.0, 30.0), 20.0, rate)(Population({"x": genes}), noise())["x"]
    assert near((x != 0).double().mean(), rate)
    assert near((x < 0).double().mean(), rate / 2)
    assert bool(((x >= -10) & (x <= 30)).all())
    if rate:  # far from the ends the mean step is span / (eta + 2), as that of 1 - u^(1 / (eta + 1)) is
        assert float(x[x != 0].abs().mean()) == pytest.approx(40 / 22, rel=0.05)


def test_polynomial_mutation_changes_one_gene_on_average_if_no_rate_is_given() -> None:
    x = Polynomial(Bounds(-1.0, 1.0))(Population({"x": torch.zeros(6000, 10)}), noise())["x"]
    assert near((x != 0).double().mean(), 0.1)
    held = Polynomial(Bounds(torch.tensor([0.0, 1.0]), 1.0), rate=1.0)(Population({"x": torch.ones(5, 2)}), noise())
    assert bool((held["x"][:, 1] == 1).all())
    with pytest.raises(ValueError, match="expected finite bounds for 'x'"):
        Polynomial(Bounds(0.0, float("inf")))(Population({"x": torch.zeros(2, 3)}), noise())


@pytest.mark.parametrize("rate", [0.0, 0.2, 1.0])
def test_creep_takes_every_step_equally_often_and_never_none(rate: float) -> None:
    x = Creep(2, rate)(Population({"x": torch.full((1, N), 7)}), noise())["x"] - 7
    assert near((x != 0).double().mean(), rate)
    for step in (-2, -1, 1, 2):
        assert near((x == step).double().mean(), rate / 4)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32, torch.int64])
def test_creep_stops_at_the_ends_of_the_dtype(dtype: torch.dtype) -> None:
    ends = torch.iinfo(dtype)
    for end, step in ((ends.max, 1), (ends.min, 1), (ends.max, 500), (ends.min, 500)):
        made = Creep(step, 1.0)(Population({"x": torch.full((1, 500), end, dtype=dtype)}), noise())["x"]
        stay = (made == end).double().mean()
        assert near(stay, 0.5, 500)
        assert bool(((made.double() - end).abs() <= step).all())


def test_swap_exchanges_every_pair_equally_often() -> None:
    start = Population({"x": torch.arange(4).expand(N, 4)})
    made = Swap()(start, noise())["x"]
    assert bool(((made != torch.arange(4)).sum(1) == 2).all())
    for i in range(4):
        for j in range(i + 1, 4):
            expected = torch.arange(4)
            expected[[i, j]] = torch.tensor([j, i])
            assert near((made == expected).all(1).double().mean(), 1 / 6)
    assert near((Swap(0.3)(start, noise())["x"] != torch.arange(4)).any(1).double().mean(), 0.3)


def test_inversion_turns_every_piece_round_equally_often() -> None:
    made = Inversion()(Population({"x": torch.arange(4).expand(N, 4)}), noise())["x"]
    for i in range(4):
        for j in range(i + 1, 4):
            expected = torch.arange(4)
            expected[i : j + 1] = expected[i : j + 1].flip(0)
            assert near((made == expected).all(1).double().mean(), 1 / 6)


def test_wrong_dtypes_are_met_by_the_name_of_another_operator() -> None:
    flags = Population({"x": torch.zeros(2, 3, dtype=torch.bool)})
    for mutation, remedy in ((Cauchy(), "BitFlip"), (Polynomial(Bounds(0, 1)), "BitFlip"), (Creep(), "BitFlip")):
        with pytest.raises(TypeError, match=rf"'x' of torch.bool; use .*{remedy}"):
            mutation(flags, noise())
    for kind in (Swap, Inversion):
        with pytest.raises(TypeError, match=rf"expected integer genes for {kind.__name__} mutation"):
            kind()(flags, noise())


def test_permutations_are_all_equally_likely() -> None:
    made = PermutationSampler()(Individual({"x": torch.zeros(3, dtype=torch.int32)}), N, noise())["x"]
    assert made.dtype == torch.int32
    number = (made.long() * torch.tensor([9, 3, 1])).sum(1)
    counts = number.bincount()
    assert (counts > 0).sum() == 6
    assert all(near(count / N, 1 / 6) for count in counts[counts > 0])


def test_bernoulli_candidates_are_true_as_often_as_they_should() -> None:
    start = Individual({"m": torch.zeros(2, dtype=torch.bool), "n": torch.zeros(3, dtype=torch.bool)})
    made = BernoulliSampler({"m": torch.tensor([0.0, 1.0]), "n": 0.3})(start, N, noise())
    assert made["m"].double().mean(0).tolist() == [0.0, 1.0]
    assert all(near(share, 0.3) for share in made["n"].double().mean(0))
    with pytest.raises(ValueError, match=r"expected a probability for 'n', got \['m'\]"):
        BernoulliSampler({"m": 0.5})(start, 2, noise())
    with pytest.raises(TypeError, match=r"expected boolean genes for Bernoulli.*use UniformSampler"):
        BernoulliSampler()(Individual({"x": torch.zeros(2)}), 2, noise())
    with pytest.raises(ValueError, match=r"expected every probability in \[0, 1\]"):
        BernoulliSampler(torch.tensor([0.5, 1.5]))


@pytest.mark.parametrize("sampler", [LatinHypercubeSampler, SobolSampler])
def test_an_even_design_holds_one_candidate_in_every_part_of_every_gene(sampler: type) -> None:
    genes = {"x": torch.zeros(2, 3, dtype=torch.float64), "i": torch.zeros(2, dtype=torch.int64)}
    start = Individual({**genes, "b": torch.zeros(2, 2, dtype=torch.bool), "y": torch.zeros(2)}, 1)
    bounds = Bounds({"x": -4.0, "i": 0, "y": 0.0}, {"x": 4.0, "i": 15, "y": 1.0})
    made = sampler(bounds)(start, 16, noise())
    part = ((made["x"] + 4) / 8 * 16).floor().long()
    assert torch.equal(part.sort(0).values, torch.arange(16).view(16, 1, 1).expand(16, 2, 3))
    assert torch.equal(made["i"].sort(0).values, torch.arange(16).view(16, 1).expand(16, 2))
    assert bool((made["b"].sum(0) == 8).all())
    assert not torch.equal(made["x"][:, 0], made["x"][:, 1])
    assert not torch.equal(made["x"], sampler(bounds)(start, 16, noise(1))["x"])
    with pytest.raises(ValueError, match="expected finite bounds for 'x'"):
        sampler()(Individual({"x": torch.zeros(2)}), 4, noise())


def test_sobol_points_fill_the_plane_evenly_whatever_the_shift() -> None:
    start = Individual({"x": torch.zeros(2, dtype=torch.float64)})
    for seed in range(5):
        x = SobolSampler(Bounds(0.0, 1.0))(start, 64, noise(seed))["x"]
        for rows in (1, 2, 4, 8, 16, 32, 64):  # a (0, 2)-sequence: one point in every elementary box
            box = (x[:, 0] * rows).floor() * (64 // rows) + (x[:, 1] * (64 // rows)).floor()
            assert box.long().bincount(minlength=64).tolist() == [1] * 64
    first = torch.cat([SobolSampler(Bounds(0.0, 1.0))(start, 1, noise(s))["x"] for s in range(2000)])
    assert float(first.mean()) == pytest.approx(0.5, abs=0.04)
    with pytest.raises(ValueError, match="expected at most 21201 genes, got 30000; use LatinHypercubeSampler"):
        SobolSampler(Bounds(0.0, 1.0))(Individual({"x": torch.zeros(30_000)}), 2, noise())


def test_schedules_pass_through_their_ends_and_middle() -> None:
    for schedule, middle in (
        (ConstantSchedule(3.0), 3.0),
        (LinearSchedule(4.0, 1.0), 2.5),
        (CosineSchedule(4.0, 1.0), 2.5),
        (ExponentialSchedule(4.0, 1.0), 2.0),
    ):
        ends = (3.0, 3.0) if isinstance(schedule, ConstantSchedule) else (4.0, 1.0)
        assert schedule.at(0.0) == schedule.at(-1.0) == pytest.approx(ends[0])
        assert schedule.at(1.0) == schedule.at(7.0) == pytest.approx(ends[1])
        assert schedule.at(0.5) == pytest.approx(middle)
        shares = torch.tensor([-1.0, 0.0, 0.25, 0.5, 1.0, 7.0], dtype=torch.float64)
        assert schedule.at(shares).tolist() == pytest.approx([schedule.at(float(share)) for share in shares])
    assert CosineSchedule(1.0, 0.0).at(0.25) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    with pytest.raises(ValueError, match="expected last > 0 for an exponential schedule, got 0"):
        ExponentialSchedule(1.0, 0.0)


def test_a_plan_makes_the_operator_of_the_moment_and_wrong_settings_raise_at_once() -> None:
    plan = Scheduled(GA, k=8, mutate={"x": Scheduled(Gaussian, std=LinearSchedule(1.0, 0.0), rate=0.5)})
    assert plan.at(0.25).mutate["x"] == Gaussian(0.75, 0.5)
    with pytest.raises(ValueError, match="expected std in"):
        Scheduled(Gaussian, std=LinearSchedule(1.0, -1.0))
    with pytest.raises(TypeError, match="expected make to be callable, got int"):
        Scheduled(3)  # type: ignore[arg-type]

    def follow(search: Search[object]) -> None:
        search.algorithm = plan.at(search.generations / 10)

    start = Population({"x": torch.ones(8, 2)})
    search: Search[object] = Search(plan.at(0.0), Objective(lambda x: x.square().sum(-1)), start, callbacks=[follow])
    search.run(max_generations=10)
    assert search.algorithm.mutate["x"].std == 0.0  # type: ignore[attr-defined]


def test_a_dictionary_of_operators_is_taken_where_one_is_expected() -> None:
    start = Population({"w": torch.zeros(6, 3), "mask": torch.zeros(6, 3, dtype=torch.bool), "kept": torch.zeros(6)})
    mutate = {"w": Gaussian(0.1), "mask": BitFlip(1.0)}
    objective = Objective(lambda x: x["w"].square().sum(-1))
    for algorithm in (
        GA(k=6, crossover={"w": UniformCrossover()}, mutate=mutate),
        HillClimb(k=6, mutate=mutate),
    ):
        asked = algorithm.ask(algorithm.init(objective(start)), noise())  # type: ignore[arg-type]
        assert bool((asked["w"] != 0).all())
        assert bool(asked["mask"].all())
        assert bool((asked["kept"] == 0).all())
