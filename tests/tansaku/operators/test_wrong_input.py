"""What an operator cannot work with is refused in words, before anything is drawn or changed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tansaku import (
    Age,
    Assessment,
    BernoulliSampler,
    Best,
    BinaryProbability,
    BitFlip,
    Blend,
    Boltzmann,
    Bounds,
    Cauchy,
    Comma,
    Crowding,
    ExponentialRank,
    Gaussian,
    GaussianSampler,
    Greedy,
    Individual,
    LatinHypercubeSampler,
    Limit,
    LinearRank,
    Momentum,
    OnePointCrossover,
    PermutationSampler,
    PerName,
    PerNameCrossover,
    Plus,
    Polynomial,
    Population,
    Roulette,
    Slope,
    SobolSampler,
    StochasticUniversal,
    Tournament,
    Truncation,
    UniformCrossover,
    UniformReset,
    UniformSampler,
    WeightedMean,
)


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# several objectives

SEVERAL = Population({"x": torch.zeros(4, 2)}, assessment=Assessment(torch.rand(4, 3)))
SELECTIONS = [
    Tournament(),
    Truncation(),
    LinearRank(),
    ExponentialRank(),
    Roulette(),
    Boltzmann(),
    StochasticUniversal(),
    StochasticUniversal(LinearRank()),
]
SURVIVALS = [Plus(), Comma(), Comma(2), Greedy(), Greedy(True), Age(), Crowding()]
REDUCTIONS = [Best(), WeightedMean(), WeightedMean("ranks"), Slope(), BinaryProbability(), Momentum()]


@pytest.mark.parametrize("operator", [*SELECTIONS, *SURVIVALS, *REDUCTIONS], ids=str)
@pytest.mark.parametrize("searches", [False, True])
def test_what_orders_candidates_refuses_several_objectives(operator: Any, searches: bool) -> None:
    p = SEVERAL
    if searches:  # as many as objectives, so that shapes alone do not tell
        p = Population({"x": torch.zeros(4, 3, 2)}, 1, assessment=Assessment(torch.rand(4, 3, 3)))
    arguments: tuple[Any, ...] = (p,)
    if operator in SELECTIONS:
        arguments = (p, 4, noise())
    elif operator in SURVIVALS:
        arguments = (p, p)
    with pytest.raises(
        ValueError, match=r"expected one objective, got 3; .* Pareto front, no best: use front\(\), NSGA2"
    ):
        operator(*arguments)


# bounds

BOUNDED = [UniformReset, Polynomial, UniformSampler, LatinHypercubeSampler, SobolSampler]


def drawn(operator: Any, x: torch.Tensor) -> torch.Tensor:
    if isinstance(operator, UniformReset | Polynomial):
        return operator(Individual({"x": x}).populate(8), noise())["x"]
    return operator(Individual({"x": x}), 8, noise())["x"]


@pytest.mark.parametrize("make", BOUNDED)
def test_a_pair_of_numbers_serves_as_bounds(make: Any) -> None:
    x = torch.zeros(3)
    assert torch.equal(drawn(make((-1, 1)), x), drawn(make(Bounds(-1, 1)), x))
    assert make((-1, 1)).bounds == Bounds(-1, 1)
    with pytest.raises(TypeError, match=r"expected bounds as \(lower, upper\) or Bounds, got 5; pass e.g."):
        make(5)


@pytest.mark.parametrize("make", BOUNDED)
def test_bounds_of_another_shape_than_the_genes_are_refused(make: Any) -> None:
    box = (torch.zeros(2), torch.ones(2))
    for x in (torch.zeros(3), torch.zeros(1), torch.zeros(())):
        with pytest.raises(ValueError, match=r"expected bounds of 'x' to broadcast against event_shape .*, got \[2\]"):
            drawn(make(box), x)


@pytest.mark.parametrize("repair", ["clip", "reflect"])
def test_a_repair_never_changes_a_shape(repair: Any) -> None:
    box = Bounds(torch.zeros(2), torch.ones(2), repair)
    for event in ((1,), (3,), ()):
        with pytest.raises(ValueError, match=r"expected bounds of 'x' to broadcast against event_shape .*, got \[2\]"):
            box(Population({"x": torch.zeros(2, *event)}))
    assert box(Population({"x": torch.full((4, 2), 3.0), "m": torch.zeros(4, dtype=torch.bool)}))["x"].shape == (4, 2)


@pytest.mark.parametrize("make", [UniformReset, Polynomial])
def test_a_mutation_within_bounds_needs_some(make: Any) -> None:
    with pytest.raises(TypeError, match=rf"expected bounds for {make.__name__}, got None; pass e.g. \(-1.0, 1.0\)"):
        make(None)


# what is no population, and parents that differ


@pytest.mark.parametrize(
    "mutation", [Gaussian(), BitFlip(), PerName({"x": Gaussian()}), Limit(Gaussian(), {"x": None})], ids=str
)
def test_a_mutation_of_an_individual_says_how_to_make_a_population(mutation: Any) -> None:
    message = r"expected population of type Population, got Individual; make one with individual.populate\(k\)"
    with pytest.raises(TypeError, match=message):
        mutation(Individual({"x": torch.zeros(3)}), noise())


@pytest.mark.parametrize("crossover", [UniformCrossover(), Blend(), PerNameCrossover({"x": Blend()})], ids=str)
def test_a_crossover_of_individuals_says_how_to_make_a_population(crossover: Any) -> None:
    one = Individual({"x": torch.zeros(3)})
    with pytest.raises(TypeError, match="expected a of type Population, got Individual; make one with"):
        crossover(one, one, noise())
    with pytest.raises(TypeError, match="expected b of type Population, got Tensor; make one with"):
        crossover(one.populate(3), torch.zeros(3), noise())


@pytest.mark.parametrize(
    "sampler",
    [
        GaussianSampler(),
        UniformSampler((-1.0, 1.0)),
        BernoulliSampler(),
        LatinHypercubeSampler((-1.0, 1.0)),
        SobolSampler((-1.0, 1.0)),
        PermutationSampler(),
    ],
    ids=str,
)
def test_a_sampler_around_a_population_asks_for_an_individual(sampler: Any) -> None:
    message = r"expected individual of type Individual, got Population; .*population.individual\(\)"
    with pytest.raises(TypeError, match=message):
        sampler(Population({"x": torch.zeros(4, 3)}), 4, noise())


@pytest.mark.parametrize(
    "crossover",
    [UniformCrossover(), Blend(), OnePointCrossover(), PerNameCrossover({"x": UniformCrossover()})],
    ids=str,
)
def test_parents_of_other_dtypes_or_shapes_are_not_crossed(crossover: Any) -> None:
    a = Population({"x": torch.rand(8, 5)})
    with pytest.raises(
        ValueError, match=r"expected 'x' of two populations alike, got .* \[8, 5\] and .*bool \[8, 5\]; cast"
    ):
        crossover(a, Population({"x": torch.rand(8, 5) > 0.5}), noise())
    with pytest.raises(
        ValueError, match=r"alike, got torch.float32 \[8, 5\] and torch.float32 \[8, 4\]; cast or reshape"
    ):
        crossover(a, Population({"x": torch.rand(8, 4)}), noise())


# limits


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.tensor([True, False]), r"expected the mask of 'x' to broadcast against event_shape \[2, 3\], got \[2\]"),
        (torch.ones(4, 2, 3, dtype=torch.bool), r"against event_shape \[2, 3\], got \[4, 2, 3\]"),
        (torch.tensor([0, 7]), "expected features of 'x' among its 3 along the last event dimension, got index 7"),
        (torch.tensor([2, -4]), "among its 3 along the last event dimension, got index -4; count from 0"),
    ],
)
def test_a_limit_names_features_that_the_genes_have(features: torch.Tensor, message: str) -> None:
    x = Population({"x": torch.zeros(4, 2, 3)})
    limit = Limit(Gaussian(), {"x": features})
    with pytest.raises(ValueError, match=message):
        limit(x, noise())
    with pytest.raises(ValueError, match=message):
        limit.mutate("x", x["x"], 0, noise())


def test_genes_without_dimensions_have_no_features_to_count() -> None:
    with pytest.raises(ValueError, match="expected features of 'x' among its 0 along the last event dimension, got"):
        Limit(Gaussian(), {"x": torch.tensor([0])})(Population({"x": torch.zeros(4)}), noise())
    changed = Limit(Gaussian(), {"x": torch.tensor(True)})(Population({"x": torch.zeros(4)}), noise())
    assert bool((changed["x"] != 0).all())


def test_a_limit_is_a_mapping_of_tensors() -> None:
    with pytest.raises(TypeError, match="expected only of type Mapping, got list; pass names and their features"):
        Limit(Gaussian(), ["x"])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"got \[0, 1\]; pass a tensor of booleans or integers, such as"):
        Limit(Gaussian(), {"x": [0, 1]})  # type: ignore[dict-item]


def test_a_limit_that_changes_nothing_is_allowed() -> None:
    x = Population({"x": torch.zeros(4, 3), "y": torch.zeros(4, 3)})
    nothing = torch.zeros(0, dtype=torch.int64)
    assert torch.equal(Limit(Gaussian(), {"x": nothing})(x, noise())["x"], x["x"])
    one = Limit({"x": Gaussian()}, {"x": None, "y": None})
    changed = one(x, noise())
    assert bool((changed["x"] != 0).all())
    assert torch.equal(changed["y"], x["y"])
    assert one.mutate("y", x["y"], 0, noise()) is x["y"]


# scales, probabilities and schemes


def test_a_scale_fits_the_genes_and_is_not_negative() -> None:
    x, two = torch.zeros(3), torch.ones(2)
    for call in (
        lambda: Gaussian(two)(Individual({"x": x}).populate(4), noise()),
        lambda: Cauchy(two)(Individual({"x": x}).populate(4), noise()),
        lambda: GaussianSampler(two)(Individual({"x": x}), 4, noise()),
    ):
        with pytest.raises(ValueError, match=r"expected (std|scale) to broadcast against event_shape \[3\], got \[2\]"):
            call()
    with pytest.raises(ValueError, match="expected scale >= 0 everywhere, got a negative or NaN entry"):
        Cauchy(-two)


def test_probabilities_fit_the_genes() -> None:
    bits = torch.zeros(3, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"expected probability to broadcast against event_shape \[3\], got \[2\]"):
        BernoulliSampler(torch.tensor([0.1, 0.2]))(Individual({"x": bits}), 4, noise())
    searches = BernoulliSampler(torch.tensor([[0.0], [1.0]]))(
        Individual({"x": torch.stack([bits, bits])}, 1), 4, noise()
    )
    assert searches["x"].all(-1).tolist() == [[False, True]] * 4


@pytest.mark.parametrize("scheme", [Tournament(), Roulette])
def test_universal_sampling_needs_probabilities(scheme: Any) -> None:
    with pytest.raises(TypeError, match=r"expected a scheme with probabilities, got .*; use Roulette\(\)"):
        StochasticUniversal(scheme)
