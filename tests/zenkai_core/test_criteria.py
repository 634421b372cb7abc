from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zenkai_core import IO, LearningMachine, Machine, State, criteria, targets, theta
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
    torch.testing.assert_close(whole, alone, rtol=1e-14, atol=1e-14)  # sums over 4 rows and over 1 may round apart


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


def machine(criterion: Criterion) -> Machine:
    return Machine(nn.Linear(4, 2), theta.Gradient(torch.optim.SGD, lr=0.1), targets.Gradient(), criterion)


def test_a_cost_that_is_not_one_per_row_is_refused_wherever_it_is_asked() -> None:
    x, t = torch.randn(16, 4), torch.randn(16, 2)
    with pytest.raises(ValueError, match=r"criterion expected one cost per row \[16\], got \[\]: do not reduce"):
        machine(lambda y, t: (y.f - t.f).square().mean()).learn(x, t)
    each = machine(lambda y, t: (y.f - t.f).square())
    for ask in (each.learn, each.test):
        with pytest.raises(ValueError, match=r"got \[16, 2\]: sum over all dimensions but the first"):
            ask(x, t)
    state = State()
    each.remember(IO(x), state)
    with pytest.raises(ValueError, match=r"got \[16, 2\]"):
        each.tell(IO(t), state)

    class Own(LearningMachine):
        def forward_nn(self, x: IO, state: State) -> IO:
            return x

        def assess_y(self, y: IO, t: IO) -> torch.Tensor:
            return y.f.mean()

    with pytest.raises(ValueError, match=r"assess_y expected one cost per row \[16\], got \[\]"):
        Own().learn(x, x)


@pytest.mark.parametrize("loss", [nn.MSELoss(), F.mse_loss, F.cross_entropy, 3])
def test_torchs_own_losses_are_refused_as_criteria(loss: object) -> None:
    with pytest.raises(TypeError, match=r"expected a criterion \(y: IO, t: IO\) -> \[n\] cost per row, got"):
        machine(loss)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.uint8, torch.bool])
@pytest.mark.parametrize("criterion", [criteria.cross_entropy, criteria.margin, criteria.zero_one])
def test_labels_of_any_integer_dtype_are_labels(criterion: criteria.Cost, dtype: torch.dtype) -> None:
    y, t = torch.randn(4, 3), torch.tensor([0, 1, 1, 0])
    assert torch.equal(criterion(IO(y), IO(t.to(dtype))), criterion(IO(y), IO(t)))
    if criterion is not criteria.zero_one:
        grads = [output_gradient(criterion, IO(y), IO(v))[0] for v in (t, t.to(dtype))]
        assert torch.equal(*grads)


@pytest.mark.parametrize("label", [3, -1])
@pytest.mark.parametrize("criterion", [criteria.cross_entropy, criteria.margin])
def test_a_label_without_a_class_is_refused(criterion: criteria.Cost, label: int) -> None:
    y, t = IO(torch.randn(2, 3)), IO(torch.tensor([-100, label]))
    for ask in (criterion, criterion.gradient):
        with pytest.raises(ValueError, match=rf"expected labels in \[0, 3\), or -100 .* got {label}"):
            ask(y, t)


@pytest.mark.parametrize("criterion", [criteria.cross_entropy, criteria.margin, criteria.zero_one])
def test_a_row_labelled_minus_100_costs_nothing(criterion: criteria.Cost) -> None:
    assert criterion(IO(torch.randn(2, 3)), IO(torch.tensor([-100, -100]))).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("name", ["sse", "absolute_error", "huber", "binary_cross_entropy"])
def test_integer_targets_of_a_regression_are_numbers(name: str) -> None:
    criterion: Criterion = getattr(criteria, name)
    y, t = IO(torch.randn(3, 2)), torch.ones(3, 2)
    assert torch.equal(criterion(y, IO(t.long())), criterion(y, IO(t)))
    assert torch.equal(output_gradient(criterion, y, IO(t.long()))[0], output_gradient(criterion, y, IO(t))[0])


@pytest.mark.parametrize("loss", [F.cross_entropy, nn.CrossEntropyLoss()])
def test_torchs_cross_entropy_as_criterion_suggests_ours(loss: Criterion) -> None:
    with pytest.raises(TypeError, match=r"got (cross_entropy|CrossEntropyLoss): take zenkai_core\.cross_entropy, or"):
        Machine(nn.Linear(2, 2), theta.Null(), targets.Null(), loss)


@pytest.mark.parametrize("criterion", [criteria.cross_entropy, criteria.margin, criteria.zero_one])
def test_float_labels_are_told_to_become_integers(criterion: Criterion) -> None:
    y, t = IO(torch.randn(3, 4)), IO(torch.tensor([1.0, 0.0, 3.0]))
    with pytest.raises(ValueError, match=r"torch.float32 \[3\]: make them integers, t\.long\(\)"):
        criterion(y, t)
    with pytest.raises(ValueError, match=r"t\.long\(\)"):
        output_gradient(criterion, y, t)


@pytest.mark.parametrize(
    ("y", "t", "remedy"),
    [
        ((6, 3), (6, 1), r"drop the dimension of one, t\.squeeze\(1\)$"),
        ((6, 3, 2), (6, 1, 2), r"drop the dimension of one, t\.squeeze\(1\)$"),
        ((6, 1), (6, 1), r"drop the dimension of one, t\.squeeze\(1\)$"),
        ((6, 3), (5,), "give a target for each of the 6 rows$"),
        ((6, 3), (5, 1), "give a target for each of the 6 rows$"),
        ((6, 3), (6, 3), r"give class indices, t\.argmax\(1\) for scores or one-hots$"),
        ((6, 3), (6, 2), r"give class indices \[6\], one for each row and place$"),
        ((6, 3, 2), (6, 3), r"give class indices \[6, 2\], one for each row and place$"),
        ((6,), (6,), "let the layer put out a score for each class$"),
    ],
)
@pytest.mark.parametrize("criterion", [criteria.cross_entropy, criteria.margin, criteria.zero_one])
def test_labels_of_another_shape_are_told_what_is_wrong_with_them(
    criterion: Criterion, y: tuple[int, ...], t: tuple[int, ...], remedy: str
) -> None:
    labels = torch.zeros(t, dtype=torch.int64)
    with pytest.raises(ValueError, match=remedy):
        criterion(IO(torch.randn(y)), IO(labels))


@pytest.mark.parametrize("criterion", [criteria.cross_entropy, criteria.margin, criteria.zero_one])
def test_a_column_of_float_labels_is_told_both_remedies(criterion: Criterion) -> None:
    with pytest.raises(ValueError, match=r"t\.squeeze\(1\)\.long\(\)$"):
        criterion(IO(torch.randn(6, 3)), IO(torch.zeros(6, 1)))


def test_the_remedies_make_labels_of_what_was_given() -> None:
    y, labels = torch.randn(6, 3), torch.tensor([2, 0, 1, 1, 0, 2])
    column, one_hot = labels.unsqueeze(1), F.one_hot(labels, 3)
    assert torch.equal(column.squeeze(1), labels)
    assert torch.equal(one_hot.argmax(1), labels)
    for wrong in (column, one_hot):
        with pytest.raises(ValueError, match="integer labels"):
            criteria.cross_entropy(IO(y), IO(wrong))


@pytest.mark.parametrize("name", ["sse", "absolute_error", "huber", "binary_cross_entropy"])
def test_targets_of_other_rows_are_told_of_the_rows(name: str) -> None:
    criterion: Criterion = getattr(criteria, name)
    with pytest.raises(ValueError, match=r"output \[6, 3\], got \[5, 3\]: give a target for each of the 6 rows$"):
        criterion(IO(torch.randn(6, 3)), IO(torch.randn(5, 3)))
    with pytest.raises(ValueError, match=r"got \[6, 1\]: reshape the target; nothing is broadcast$"):
        criterion(IO(torch.randn(6, 3)), IO(torch.randn(6, 1)))


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: criteria.CrossEntropy(label_smoothing="a"), "label_smoothing as a number, got 'a'"),
        (lambda: criteria.CrossEntropy(ignore_index=1.5), "ignore_index as a whole number, got 1.5"),
        (lambda: criteria.Margin("a"), "margin as a number, got 'a'"),
        (lambda: criteria.Margin(ignore_index=None), "ignore_index as a whole number, got None"),
        (lambda: criteria.Huber(None), "delta as a number, got None"),
        (lambda: criteria.ZeroOne("a"), "ignore_index as a whole number, got 'a'"),
    ],
)
def test_an_option_that_is_no_number_is_refused_by_name(make: Callable[[], object], argument: str) -> None:
    with pytest.raises(TypeError, match=argument):
        make()
