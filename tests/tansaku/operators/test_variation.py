"""Mutation, crossover, sampling, limits: exact values from known noise, frequencies against theory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tansaku import (
    BitFlip,
    Blend,
    Bounds,
    Crossover,
    Gaussian,
    GaussianSampler,
    Individual,
    Limit,
    Mutation,
    PerName,
    Population,
    UniformCrossover,
    UniformReset,
    UniformSampler,
)
from tansaku.functional import blend, exchange, flip, jitter

N = 200_000


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def near(share: Tensor | float, expected: float, n: int = N) -> bool:
    return abs(float(share) - expected) <= 5 * (expected * (1 - expected) / n) ** 0.5 + 1e-12


# kernels: noise as an argument


def test_jitter_adds_scaled_noise() -> None:
    x, z = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, -1.0], [0.5, 0.0]])
    assert jitter(x, z, 0.5).tolist() == [[1.5, 1.5], [3.25, 4.0]]
    assert jitter(x, z, torch.tensor([10.0, 1.0])).tolist() == [[11.0, 1.0], [8.0, 4.0]]


def test_flip_inverts_where_the_mask_says() -> None:
    assert flip(torch.tensor([True, True, False]), torch.tensor([True, False, True])).tolist() == [False, True, True]


def test_exchange_takes_the_second_where_the_mask_says() -> None:
    a, b = torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6])
    assert exchange(a, b, torch.tensor([False, True, False])).tolist() == [1, 5, 3]


@pytest.mark.parametrize(("weight", "child"), [(0.0, 2.0), (1.0, 6.0), (0.25, 3.0), (-0.5, 0.0), (1.5, 8.0)])
def test_blend_is_a_point_on_the_line_through_the_parents(weight: float, child: float) -> None:
    assert blend(torch.tensor([2.0]), torch.tensor([6.0]), torch.tensor([weight])).tolist() == [child]


# frequencies


@pytest.mark.parametrize("rate", [0.0, 1e-4, 0.1, 0.5, 0.9, 1.0])
def test_bit_flip_flips_its_rate(rate: float) -> None:
    for start in (False, True):
        flipped = BitFlip(rate)(Population({"x": torch.full((1, N), start)}), noise())["x"]
        assert near((flipped != start).double().mean(), rate)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_uniform_crossover_takes_its_rate_from_the_second_parent(rate: float) -> None:
    a, b = (Population({"x": torch.full((1, N), value)}) for value in (0.0, 1.0))
    assert near(UniformCrossover(rate)(a, b, noise())["x"].double().mean(), rate)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_gaussian_changes_its_rate_of_genes_by_its_std(rate: float) -> None:
    x = Gaussian(2.0, rate)(Population({"x": torch.zeros(1, N, dtype=torch.float64)}), noise())["x"]
    assert near((x != 0).double().mean(), rate)
    if rate:
        changed = x[x != 0]
        assert float(changed.std()) == pytest.approx(2.0, rel=5 / (2 * changed.numel()) ** 0.5)
        assert abs(float(changed.mean())) < 5 * 2.0 / changed.numel() ** 0.5


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_blend_is_uniform_on_the_widened_interval(alpha: float) -> None:
    a, b = (Population({"x": torch.full((1, N), value, dtype=torch.float64)}) for value in (2.0, 6.0))
    child = Blend(alpha)(a, b, noise())["x"]
    low, high = 2.0 - 4 * alpha, 6.0 + 4 * alpha
    assert low <= float(child.min()) < low + 0.01
    assert high - 0.01 < float(child.max()) <= high
    for quarter in (0.25, 0.5, 0.75):
        assert near((child < low + quarter * (high - low)).double().mean(), quarter)


def test_blend_half_keeps_the_spread_of_a_population() -> None:
    """BLX-0.5 is chosen by the GA because it neither widens nor narrows what it is given, but for a known factor."""
    parents = Population({"x": torch.randn(2, N, dtype=torch.float64, generator=noise())})
    a, b = parents.take(torch.tensor([0])), parents.take(torch.tensor([1]))
    # variance: E[(1 - w)^2 + w^2] of w uniform on [-0.5, 1.5] is 7/6
    assert float(Blend(0.5)(a, b, noise(1))["x"].var()) == pytest.approx(7 / 6, rel=0.02)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32, torch.int64])
def test_uniform_reset_draws_all_whole_numbers_equally_often(dtype: torch.dtype) -> None:
    x = Population({"x": torch.full((1, N), 3, dtype=dtype)})
    fresh = UniformReset(Bounds(1, 6), 1.0)(x, noise())["x"]
    counts = fresh.flatten().long().bincount(minlength=8).double() / N
    assert counts[0] == counts[7] == 0
    assert all(near(share, 1 / 6) for share in counts[1:7])


@pytest.mark.parametrize(("dtype", "low", "high"), [(torch.int8, -128, 127), (torch.uint8, 0, 255)])
def test_uniform_reset_reaches_the_whole_range_of_a_small_dtype(dtype: torch.dtype, low: int, high: int) -> None:
    fresh = UniformReset(Bounds(low, high), 1.0)(Population({"x": torch.zeros(1, N, dtype=dtype)}), noise())["x"]
    assert (int(fresh.min()), int(fresh.max())) == (low, high)
    assert near((fresh.long() < (low + high + 1) // 2).double().mean(), 0.5)


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_uniform_reset_changes_its_rate_of_genes(rate: float) -> None:
    fresh = UniformReset(Bounds(-2.0, 2.0), rate)(Population({"x": torch.full((1, N), 9.0)}), noise())["x"]
    changed = fresh != 9.0
    assert near(changed.double().mean(), rate)
    assert bool((fresh[changed].abs() <= 2).all())


def test_uniform_reset_needs_finite_bounds_and_no_booleans() -> None:
    one = Population({"x": torch.zeros(1, 3)})
    with pytest.raises(ValueError, match="expected finite bounds for 'x' to draw from, got none"):
        UniformReset(Bounds(0.0, float("inf")))(one, noise())
    with pytest.raises(ValueError, match="expected finite bounds for 'x'"):
        UniformReset(Bounds({"y": 0.0}, {"y": 1.0}))(one, noise())
    with pytest.raises(TypeError, match=r"expected real or integer genes for UniformReset.*use BitFlip"):
        UniformReset(Bounds(0, 1))(Population({"x": torch.zeros(1, 3, dtype=torch.bool)}), noise())


# sampling


def test_gaussian_sampler_surrounds_the_individual() -> None:
    x = torch.tensor([10.0, -10.0], dtype=torch.float64)
    drawn = GaussianSampler(torch.tensor([1.0, 3.0]))(Individual({"x": x}), 40_000, noise())["x"]
    assert torch.allclose(drawn.mean(0), x, atol=0.08)
    assert torch.allclose(drawn.std(0), torch.tensor([1.0, 3.0], dtype=torch.float64), rtol=0.03)


def test_antithetic_candidates_mirror_each_other() -> None:
    x = torch.tensor([10.0, -10.0], dtype=torch.float64)
    drawn = GaussianSampler(1.0, antithetic=True)(Individual({"x": x}), 6, noise())["x"]
    assert torch.allclose(drawn[:3] + drawn[3:], 2 * x.expand(3, 2))
    with pytest.raises(ValueError, match="expected an even number for antithetic pairs, got 5; use 6"):
        GaussianSampler(1.0, antithetic=True)(Individual({"x": x}), 5, noise())


def test_uniform_sampler_fills_the_box_and_tosses_fair_coins() -> None:
    start = Individual({"x": torch.zeros(2, dtype=torch.float64), "b": torch.zeros(3, dtype=torch.bool)})
    bounds = Bounds({"x": torch.tensor([0.0, -8.0])}, {"x": torch.tensor([1.0, 8.0])})
    drawn = UniformSampler(bounds)(start, 40_000, noise())
    assert torch.allclose(drawn["x"].mean(0), torch.tensor([0.5, 0.0], dtype=torch.float64), atol=0.12)
    assert float(drawn["x"][:, 1].max()) > 7.99
    assert all(near(share, 0.5, 40_000) for share in drawn["b"].double().mean(0))
    with pytest.raises(ValueError, match="expected finite bounds for 'x' to draw from, got none"):
        UniformSampler()(start, 2, noise())


# limits and names


def test_limit_changes_the_named_features_and_no_others() -> None:
    x = Population({"x": torch.zeros(4, 3), "y": torch.zeros(4, 2)})
    for features in (torch.tensor([0, 2]), torch.tensor([True, False, True]), torch.tensor([0, -1])):
        changed = Limit(Gaussian(1.0), {"x": features})(x, noise())
        assert bool((changed["x"][:, [0, 2]] != 0).all())
        assert bool((changed["x"][:, 1] == 0).all())
        assert changed["y"] is x["y"]
    assert bool((Limit(Gaussian(1.0), {"y": None})(x, noise())["y"] != 0).all())


def test_limit_refuses_unknown_names_and_odd_features() -> None:
    x = Population({"x": torch.zeros(4, 3)})
    with pytest.raises(ValueError, match=r"expected names among \['x'\], got \['z'\]"):
        Limit(Gaussian(), {"z": None})(x, noise())
    with pytest.raises(TypeError, match="expected features of 'x' as None, a mask or an index"):
        Limit(Gaussian(), {"x": torch.tensor([0.5])})


def test_per_name_gives_each_tensor_its_own_mutation() -> None:
    x = Population({"w": torch.zeros(4, 3), "m": torch.zeros(4, 3, dtype=torch.bool), "n": torch.zeros(4, 1)})
    changed = PerName({"w": Gaussian(1.0), "m": BitFlip(1.0)})(x, noise())
    assert bool((changed["w"] != 0).all())
    assert bool(changed["m"].all())
    assert changed["n"] is x["n"]
    with pytest.raises(ValueError, match=r"expected names among .*, got \['q'\]"):
        PerName({"q": Gaussian()})(x, noise())


def test_bases_say_what_to_define() -> None:
    x = Population({"x": torch.zeros(2, 3)})
    with pytest.raises(TypeError, match="expected a mutation with a method mutate, got Mutation"):
        Mutation()(x, noise())
    with pytest.raises(TypeError, match="expected a crossover with a method cross, got Crossover"):
        Crossover()(x, x, noise())


def test_crossover_needs_as_many_mothers_as_fathers() -> None:
    a, b = Population({"x": torch.zeros(2, 3)}), Population({"x": torch.zeros(3, 3)})
    with pytest.raises(ValueError, match=r"expected parents of one number and the same names, got 2 of .* and 3 of"):
        Blend()(a, b, noise())


@pytest.mark.parametrize("build", [lambda: BitFlip(1.1), lambda: UniformCrossover(-0.1), lambda: Gaussian(1.0, 2.0)])
def test_a_rate_that_is_no_probability_is_refused(build: object) -> None:
    with pytest.raises(ValueError, match=r"expected rate in \[0, 1\], got"):
        build()  # type: ignore[operator]


def test_negative_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="expected std in"):
        Gaussian(-1.0)
    with pytest.raises(ValueError, match="expected std in"):
        GaussianSampler(-1.0)
    with pytest.raises(ValueError, match="expected alpha in"):
        Blend(-0.1)
