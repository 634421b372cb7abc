"""Selection: how often each candidate is chosen, against theory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tansaku import Assessment, LinearRank, Population, Roulette, Tournament, Truncation

COSTS = [3.0, 0.5, 7.0, 1.0, 9.0, 2.0]  # ranks 3, 0, 4, 1, 5, 2
RANKS = torch.tensor([3, 0, 4, 1, 5, 2])
DRAWS = 60_000


def population(costs: list[float] | Tensor, maximize: bool = False) -> Population:
    value = torch.as_tensor(costs)
    value = -value if maximize else value
    return Population({"x": torch.zeros(*value.shape, 1)}, value.ndim - 1, {}, Assessment(value, maximize))


def shares(chosen: Tensor, k: int) -> Tensor:
    return chosen.flatten().bincount(minlength=k).double() / chosen.numel()


def close_to(seen: Tensor, expected: Tensor) -> bool:
    """Within 5 standard errors of a binomial share."""
    return bool(((seen - expected).abs() <= 5 * (expected * (1 - expected) / DRAWS).sqrt() + 1e-9).all())


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_tournament_chooses_each_rank_as_often_as_theory_says(size: int, maximize: bool) -> None:
    chosen = Tournament(size)(population(COSTS, maximize), DRAWS, torch.Generator().manual_seed(0))
    r, k = RANKS.double(), 6
    assert close_to(shares(chosen, 6), ((k - r) ** size - (k - r - 1) ** size) / k**size)


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("pressure", [1.0, 1.4, 2.0])
def test_linear_rank_chooses_each_rank_as_often_as_theory_says(pressure: float, maximize: bool) -> None:
    chosen = LinearRank(pressure)(population(COSTS, maximize), DRAWS, torch.Generator().manual_seed(0))
    expected = (pressure - (2 * pressure - 2) * RANKS.double() / 5) / 6
    assert expected.sum() == pytest.approx(1.0)
    assert close_to(shares(chosen, 6), expected)


@pytest.mark.parametrize("maximize", [False, True])
def test_roulette_chooses_in_proportion_to_the_distance_from_the_worst(maximize: bool) -> None:
    chosen = Roulette()(population(COSTS, maximize), DRAWS, torch.Generator().manual_seed(0))
    fitness = 9.0 - torch.tensor(COSTS, dtype=torch.float64)
    assert close_to(shares(chosen, 6), fitness / fitness.sum())


def test_roulette_counts_failed_candidates_as_the_worst() -> None:
    nan, inf = float("nan"), float("inf")
    chosen = Roulette()(population([3.0, nan, 1.0, inf, 0.0]), DRAWS, torch.Generator().manual_seed(0))
    assert close_to(shares(chosen, 5), torch.tensor([0, 0, 2, 0, 3], dtype=torch.float64) / 5)


@pytest.mark.parametrize("cost", [1.0, float("nan"), float("inf"), -float("inf")])
def test_roulette_gives_equal_costs_equal_chances(cost: float) -> None:
    chosen = Roulette()(population([cost] * 4), DRAWS, torch.Generator().manual_seed(0))
    assert close_to(shares(chosen, 4), torch.full((4,), 0.25, dtype=torch.float64))


def test_every_search_of_a_batch_has_its_own_frequencies() -> None:
    costs = torch.tensor([COSTS, COSTS[::-1]]).T
    chosen = LinearRank(2.0)(population(costs), DRAWS, torch.Generator().manual_seed(0))
    expected = (2 - 2 * RANKS.double() / 5) / 6
    assert close_to(shares(chosen[:, 0], 6), expected)
    assert close_to(shares(chosen[:, 1], 6), expected.flip(0))


def test_truncation_takes_the_best_first_and_ties_in_order() -> None:
    chosen = Truncation()(population([2.0, 1.0, float("nan"), 1.0, 0.0]), 5)
    assert chosen.tolist() == [4, 1, 3, 0, 2]


def test_truncation_of_a_batch_ranks_each_search_alone() -> None:
    costs = torch.tensor([[1.0, 3.0], [2.0, 1.0], [0.0, 2.0]])
    assert Truncation()(population(costs), 2).tolist() == [[2, 1], [0, 2]]


def test_truncation_refuses_more_than_there_are() -> None:
    with pytest.raises(ValueError, match="expected count <= k = 2, got 3; select fewer"):
        Truncation()(population([1.0, 2.0]), 3)


@pytest.mark.parametrize("size", range(1, 8))
@pytest.mark.parametrize("batch_shape", [(), (2,)])
def test_a_tie_in_a_tournament_goes_to_the_one_drawn_first(size: int, batch_shape: tuple[int, ...]) -> None:
    cost = torch.tensor([1.0, 0.0, 1.0, 0.0, 2.0]).view(5, *(1,) * len(batch_shape)).expand(5, *batch_shape)
    rivals = torch.randint(5, (size, 200, *batch_shape), generator=torch.Generator().manual_seed(0))
    parents = Population({"x": cost[..., None]}, len(batch_shape), assessment=Assessment(cost))
    chosen = Tournament(size)(parents, 200, torch.Generator().manual_seed(0))
    for drawn, winner in zip(rivals.flatten(1).T.tolist(), chosen.flatten().tolist(), strict=True):
        assert winner == min(drawn, key=[1.0, 0.0, 1.0, 0.0, 2.0].__getitem__)  # of equal ones, min keeps the first


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="expected size >= 1, got 0"):
        Tournament(0)
    with pytest.raises(ValueError, match=r"expected pressure in \[1, 2\], got 2.5"):
        LinearRank(2.5)
    with pytest.raises(ValueError, match="expected count >= 1, got 0"):
        Tournament()(population([1.0]), 0, torch.Generator())
    with pytest.raises(RuntimeError, match="expected an assessed population"):
        Tournament()(Population({"x": torch.zeros(2, 1)}), 2, torch.Generator())
