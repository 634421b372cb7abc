from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from zenkai_core import IO, criteria
from zenkai_core.criteria import Criterion, output_gradient


def test_sse_is_half_the_sum_over_all_event_dimensions() -> None:
    y, t = torch.tensor([[[1.0, 2.0]], [[0.0, 3.0]]]), torch.zeros(2, 1, 2)
    assert criteria.sse(IO(y), IO(t)).tolist() == [2.5, 4.5]
    assert output_gradient(criteria.sse, IO(y), IO(t))[0].tolist() == y.tolist()


def test_costs_of_several_outputs_are_added() -> None:
    a, b = torch.ones(2, 3), torch.ones(2)
    assert criteria.sse(IO(a, b), IO(a * 0, b * 0)).tolist() == [2.0, 2.0]


@pytest.mark.parametrize("name", ["sse", "absolute_error", "huber", "binary_cross_entropy", "cross_entropy", "margin"])
def test_each_rows_cost_depends_on_that_row_alone(name: str) -> None:
    torch.manual_seed(0)
    criterion: Criterion = getattr(criteria, name)
    y = torch.randn(4, 3, dtype=torch.float64)
    t = torch.tensor([0, 2, 1, 1]) if name in ("cross_entropy", "margin") else torch.rand(4, 3, dtype=torch.float64)
    whole = criterion(IO(y), IO(t))
    assert whole.shape == (4,)
    alone = torch.cat([criterion(IO(y[i : i + 1]), IO(t[i : i + 1])) for i in range(4)])
    assert torch.equal(whole, alone)


@pytest.mark.parametrize("name", ["sse", "huber", "binary_cross_entropy", "cross_entropy", "margin"])
def test_the_gradient_is_the_difference_quotient(name: str) -> None:
    torch.manual_seed(0)
    criterion: Criterion = getattr(criteria, name)
    y = torch.randn(3, 4, dtype=torch.float64)
    t = torch.tensor([0, 2, 1]) if name in ("cross_entropy", "margin") else torch.rand(3, 4, dtype=torch.float64)
    (g,) = output_gradient(criterion, IO(y), IO(t))
    for j in range(4):
        h = torch.zeros_like(y)
        h[:, j] = 1e-6
        slope = (criterion(IO(y + h), IO(t)) - criterion(IO(y - h), IO(t))) / 2e-6
        assert torch.allclose(g[:, j], slope, atol=1e-8)


def test_cross_entropy_takes_labels_and_probabilities() -> None:
    y, t = torch.randn(3, 4), torch.tensor([1, 0, 3])
    labels = criteria.cross_entropy(IO(y), IO(t))
    assert torch.allclose(labels, criteria.cross_entropy(IO(y), IO(F.one_hot(t, 4).float())))
    assert torch.allclose(labels, -y.log_softmax(1)[torch.arange(3), t])


def test_cross_entropys_closed_gradient_is_autograds() -> None:
    some = torch.tensor([[0, -100, 4, 1]] * 3)
    for t in (torch.randint(5, (3, 4)), some, torch.rand(3, 5, 4, dtype=torch.float64)):
        y = torch.randn(3, 5, 4, dtype=torch.float64, requires_grad=True)
        (expected,) = torch.autograd.grad(criteria.cross_entropy(IO(y), IO(t)).sum(), y)
        (got,) = output_gradient(criteria.cross_entropy, IO(y), IO(t))
        assert torch.allclose(got, expected, rtol=0, atol=1e-14)


def test_margin_is_how_far_the_right_class_falls_short_of_the_best_wrong_one() -> None:
    y = torch.tensor([[3.0, 1.0, 0.0], [1.0, 1.5, 0.0]])
    assert criteria.margin(IO(y), IO(torch.tensor([0, 0]))).tolist() == [0.0, 1.5]


def test_zero_one_counts_wrong_answers() -> None:
    assert criteria.zero_one(IO(torch.eye(3)), IO(torch.tensor([0, 1, 1]))).tolist() == [0.0, 0.0, 1.0]


def test_nothing_is_broadcast() -> None:
    with pytest.raises(ValueError, match=r"shaped as the output \[4, 1\], got \[4\]"):
        criteria.sse(IO(torch.zeros(4, 1)), IO(torch.zeros(4)))
    with pytest.raises(ValueError, match=r"shaped as the output \[4, 1\], got \[4\]"):
        output_gradient(criteria.sse, IO(torch.zeros(4, 1)), IO(torch.zeros(4)))
    with pytest.raises(ValueError, match="as many targets as outputs"):
        criteria.sse(IO(torch.zeros(4)), IO())
    with pytest.raises(ValueError, match="integer labels"):
        criteria.margin(IO(torch.zeros(4, 3)), IO(torch.zeros(4, 3)))


def test_any_function_of_y_and_t_is_a_criterion() -> None:
    def cube(y: IO, t: IO) -> torch.Tensor:
        return (y.f - t.f).pow(3).sum(1)

    y, t = torch.tensor([[2.0]]), torch.tensor([[1.0]])
    assert output_gradient(cube, IO(y), IO(t))[0].item() == 3.0


def test_a_copied_criterion_is_the_same_object() -> None:
    assert copy.deepcopy(criteria.sse) is criteria.sse
