from __future__ import annotations

import pytest
import torch
from torch import Tensor

from zenkai_core.modules import voters


def slow_mean(votes: Tensor, weights: Tensor) -> Tensor:
    total = torch.zeros_like(votes[0])
    for w, vote in zip(weights.tolist(), votes, strict=True):
        total += w * vote
    return total / sum(weights.tolist())


@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 3, 2)])
@pytest.mark.usefixtures("float64")
def test_the_weighted_mean_is_right_for_rows_features_and_more(shape: tuple[int, ...]) -> None:
    votes, weights = torch.randn(4, *shape), torch.rand(4) + 0.1
    assert torch.allclose(voters.Mean()(votes, weights), slow_mean(votes, weights), atol=1e-14)
    assert torch.allclose(voters.Mean()(votes), votes.mean(0), atol=1e-14)
    assert torch.allclose(voters.Sum()(votes), votes.sum(0), atol=1e-14)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0)])
def test_the_majority_of_binary_votes_wins_and_a_tie_is_a_yes(low: float, high: float) -> None:
    patterns = torch.cartesian_prod(*[torch.tensor([low, high])] * 4).T.unsqueeze(1)  # [4, 1, 16] every way to vote
    yes = (patterns == high).sum(0)
    expected = torch.where(yes >= 2, high, low)
    assert torch.equal(voters.Binary(low, high)(patterns), expected)


def test_a_tie_of_many_rounded_weights_is_still_a_tie() -> None:
    for v in (6, 10, 14, 22, 98):
        votes = torch.tensor([0.0, 1.0]).repeat(v // 2).unsqueeze(1)
        assert voters.Binary()(votes).item() == 1.0


def test_a_heavy_binary_vote_outweighs_two_light_ones() -> None:
    votes = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert voters.Binary()(votes, torch.tensor([3.0, 1.0, 1.0])).tolist() == [1.0, 0.0]


def test_the_majority_of_labels_wins_against_a_count_by_hand() -> None:
    votes, weights = torch.randint(3, (7, 20)), torch.rand(7)
    expected = torch.zeros(20, 3)
    for vote, w in zip(votes, weights, strict=True):
        for row, label in enumerate(vote.tolist()):
            expected[row, label] += w / weights.sum()
    assert torch.allclose(voters.Multiclass(3)(votes, weights), expected, atol=1e-6)
    counts = torch.stack([(votes == c).sum(0) for c in range(3)], 1)
    assert torch.equal(voters.Multiclass(3)(votes).argmax(1), counts.argmax(1))


def test_a_sure_member_has_one_vote_among_classes_but_counts_more_in_the_mean() -> None:
    shares = torch.tensor([[[1.0, 0.0]], [[0.4, 0.6]], [[0.4, 0.6]]])
    assert voters.Multiclass(2)(shares).argmax(1).tolist() == [1]
    assert voters.Mean()(shares).argmax(1).tolist() == [0]


@pytest.mark.parametrize(
    ("vote", "error", "message"),
    [
        (lambda: voters.Mean()(torch.zeros(3)), ValueError, r"Mean expected votes \[v, n, ...\] .* got \[3\]"),
        (lambda: voters.Mean()(torch.zeros(0, 3)), ValueError, "at least one member"),
        (lambda: voters.Mean()(torch.ones(2, 3), torch.ones(3)), ValueError, "expected 2 weights >= 0"),
        (lambda: voters.Mean()(torch.ones(2, 3), torch.tensor([1.0, -1.0])), ValueError, "got .1.0, -1.0."),
        (lambda: voters.Mean()(torch.ones(2, 3), torch.zeros(2)), ValueError, "of which one is positive"),
        (lambda: voters.Mean()(torch.ones(2, 3).long()), TypeError, "take voters.Multiclass for labels"),
        (lambda: voters.Binary(1, 1), ValueError, "expected low < high, got 1 and 1"),
        (lambda: voters.Multiclass(0), ValueError, "at least one class, got 0"),
        (lambda: voters.Multiclass(2)(torch.tensor([[2]])), ValueError, "number the classes from 0"),
        (lambda: voters.Multiclass(2)(torch.zeros(2, 3, 4)), ValueError, r"shares \[v, n, 2\], got torch.float32"),
        (lambda: voters.Voter()(torch.zeros(2, 3)), NotImplementedError, "override it"),
    ],
)
def test_votes_that_cannot_be_counted_are_refused(vote: object, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        vote()  # type: ignore[operator]
