"""What an operator cannot work with is refused in words, before anything is drawn or changed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tansaku import (
    Age,
    Assessment,
    Best,
    BinaryProbability,
    Boltzmann,
    Bounds,
    Comma,
    Crowding,
    ExponentialRank,
    Greedy,
    Individual,
    LatinHypercubeSampler,
    LinearRank,
    Momentum,
    Plus,
    Polynomial,
    Population,
    Roulette,
    Slope,
    SobolSampler,
    StochasticUniversal,
    Tournament,
    Truncation,
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


@pytest.mark.parametrize("make", [UniformReset, Polynomial])
def test_a_mutation_within_bounds_needs_some(make: Any) -> None:
    with pytest.raises(TypeError, match=rf"expected bounds for {make.__name__}, got None; pass e.g. \(-1.0, 1.0\)"):
        make(None)
