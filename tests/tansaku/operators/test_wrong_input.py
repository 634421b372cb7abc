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
    Comma,
    Crowding,
    ExponentialRank,
    Greedy,
    LinearRank,
    Momentum,
    Plus,
    Population,
    Roulette,
    Slope,
    StochasticUniversal,
    Tournament,
    Truncation,
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
