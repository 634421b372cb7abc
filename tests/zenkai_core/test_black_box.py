"""Any Python callable in the middle of a network: asked, counted, and trained through by search."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tansaku
from zenkai_core import IO, Chain, Machine, State, criteria, cross_entropy, modules, targets, theta
from zenkai_core.modules import BlackBox
from zenkai_core.testing import check_machine


def test_a_vectorised_function_is_called_once_for_all_rows() -> None:
    box = BlackBox(lambda a, b: (a * 10).round() + b)
    a, b = torch.rand(7, 2), torch.rand(7, 2)
    assert torch.equal(box(a, b), (a * 10).round() + b)
    assert (box.calls, box.rows) == (1, 7)


def test_a_function_of_one_row_gets_pythons_own_numbers_and_lists() -> None:
    seen: list[object] = []

    def fn(a: float, b: list[float]) -> list[float]:
        seen.append((a, b))
        return [a * v for v in b]

    box = BlackBox(fn, vectorized=False)
    y = box(torch.tensor([2.0, 3.0]), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert y.tolist() == [[2, 4], [9, 12]]
    assert seen == [(2.0, [1.0, 2.0]), (3.0, [3.0, 4.0])]
    assert (box.calls, box.rows) == (2, 2)


def test_choices_reach_the_function_as_integers() -> None:
    """Logits and one-hots alike, classes along dimension 1, ties by the lower index."""
    box = BlackBox(sum, vectorized=False, choices=True)
    logits = torch.tensor([[[0.1, 5.0], [0.2, 5.0], [0.3, 4.0]], [[9.0, 0.0], [0.0, 0.0], [0.0, 1.0]]])  # [2, 3, 2]
    assert box(logits).tolist() == [2 + 0, 0 + 2]
    assert box(modules.Argmax()(logits)).tolist() == [2, 2]


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (lambda x: x.numpy().sum(1), [[3.0], [7.0]]),
        (lambda x: [int(v.sum()) for v in x], [[3.0], [7.0]]),
        (lambda x: (x.sum(1), x > 2), [[3.0, 7.0], [[0, 0], [1, 1]]]),
        (lambda x: x.double().sum(1, keepdim=True), [[[3.0], [7.0]]]),
        (lambda x: x.numpy().sum(1) > 4, [[0.0, 1.0]]),
    ],
)
def test_answers_of_any_kind_become_floating_outputs(fn: object, expected: list[object]) -> None:
    y = BlackBox(fn)(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))  # type: ignore[arg-type]
    y = y if isinstance(y, tuple) else (y,)
    assert all(v.dtype == torch.float32 and not v.requires_grad for v in y)
    flat = [v for out in expected for v in np.ravel(out).tolist()] if len(y) > 1 else np.ravel(expected).tolist()
    assert [v for out in y for v in out.flatten().tolist()] == flat


def test_all_candidates_of_a_search_go_to_the_function_in_one_call() -> None:
    box = BlackBox(lambda x: x.round())
    rule = targets.SearchX(tansaku.HillClimb(k=9, std=1.0), generations=3, seed=0)
    machine, state = Machine(box, theta.Null(), rule), State()
    machine.remember(IO(torch.zeros(5, 2)), state)
    machine.step_x(state.inputs, IO(torch.ones(5, 2)), state)
    assert box.calls == 1 + 1 + 3  # the pass, the start, the generations
    assert box.rows == 5 * (1 + 1 + 3 * 9)


def test_candidates_of_the_parameters_below_are_rows_of_one_call() -> None:
    """A box behind weights that are searched under vmap answers as it does to each candidate alone."""
    shapes: list[tuple[int, ...]] = []

    def fn(x: Tensor) -> Tensor:
        shapes.append(tuple(x.shape))
        return x.round() * x.tolist()[0][0]  # ordinary tensors only: a batched one would refuse tolist

    module = nn.Sequential(nn.Linear(3, 2), BlackBox(fn))
    x, weight = torch.randn(4, 3), torch.randn(5, 2, 3)
    y = torch.func.vmap(lambda w: torch.func.functional_call(module, {"0.weight": w}, (x,)))(weight)
    assert shapes == [(20, 2)]
    scale = (x @ weight[0].T + module[0].bias)[0, 0]
    for i in range(5):
        torch.testing.assert_close(y[i], (x @ weight[i].T + module[0].bias).round() * scale)


def test_a_box_cuts_the_graph_and_gradient_rules_refuse_it() -> None:
    assert not BlackBox(lambda x: x)(torch.ones(2, 2, requires_grad=True)).requires_grad
    with pytest.raises(TypeError, match="BlackBox has no gradient"):
        Machine(nn.Sequential(nn.Linear(2, 2), BlackBox(lambda x: x)), theta.Gradient(), targets.Null())


def test_wrong_functions_and_inputs_say_the_remedy() -> None:
    with pytest.raises(TypeError, match="BlackBox expected a callable, got int: give a function"):
        BlackBox(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"expected fn to answer 3 rows, got shape \[\]: .*say vectorized=False"):
        BlackBox(lambda x: x.sum())(torch.ones(3, 2))
    with pytest.raises(ValueError, match=r"expected fn to answer 3 rows, got shape \[2\]"):
        BlackBox(lambda x: x[:2, 0])(torch.ones(3, 2))
    with pytest.raises(TypeError, match="expected fn to answer numbers, got list"):
        BlackBox(lambda x: ["one"] * 3)(torch.ones(3, 2))
    with pytest.raises(ValueError, match=r"with choices expected logits or one-hots .* got torch\.float32 \[3\]"):
        BlackBox(sum, choices=True)(torch.ones(3))


def test_a_continuous_box_in_the_middle_is_trained_through_by_search() -> None:
    """Rounded products of what the layer below puts out; the layer above stays linear."""

    def make() -> tuple[Chain, Tensor, Tensor]:
        torch.manual_seed(0)
        own = targets.SearchX(tansaku.HillClimb(k=32, std=0.5), generations=2)
        head = targets.SearchX(tansaku.HillClimb(k=32, std=0.5), generations=2)
        net = Chain(
            Machine(nn.Linear(3, 4), theta.Delta(torch.optim.Adam, lr=0.03), targets.Null()),
            Machine(BlackBox(lambda v: (v[:, :2] * v[:, 2:] * 4).round() / 4), theta.Null(), own),
            Machine(nn.Linear(2, 2), theta.Delta(torch.optim.Adam, lr=0.03), head),
        )
        x = torch.randn(48, 3)
        return net, x, x[:, :2] * x[:, 1:]

    check_machine(make)
    net, x, t = make()
    before = net.test(x, t)
    for _ in range(150):
        net.learn(x, t)
    assert net.test(x, t) < 0.5 * before


# ------------------------------------------------------------------------------------------------ discrete choices
def test_drawn_choices_have_the_frequencies_of_the_softmax(float64: None) -> None:
    logits = torch.tensor([[[2.0], [1.0], [-1.0]], [[0.0], [0.0], [0.0]]])  # two rows of one choice among 3
    for temperature in (1.0, 2.0):
        drawn = targets.Choices(temperature)(
            tansaku.Individual({"x": logits}, 1), 40_000, torch.Generator().manual_seed(0)
        )["x"]
        assert torch.equal(drawn.sum(2), torch.ones(40_000, 2, 1))
        p = (logits / temperature).softmax(1)
        assert ((drawn.mean(0) - p).abs() < 5 * (p * (1 - p) / 40_000).sqrt()).all()


def test_the_mean_of_the_choices_that_are_right_is_their_posterior(float64: None) -> None:
    """Two choices among 4, known by their sum alone: against the enumeration of all 16."""
    torch.manual_seed(0)
    logits, total = torch.randn(1, 4, 2), 3.0
    rule = targets.SearchX(
        targets.Sampled(targets.Choices(), k=200_000), reduce=tansaku.WeightedMean("softmax", temperature=0.01), seed=0
    )
    machine = Machine(
        BlackBox(lambda v: v.sum(1).double(), choices=True), theta.Null(), rule, lambda y, t: (y.f != t.f).double()
    )
    state = State()
    machine.remember(IO(logits), state)
    found = machine.step_x(state.inputs, IO(torch.tensor([total])), state).f
    p, posterior = logits[0].softmax(0), torch.zeros(4, 2)
    for a in range(4):
        for b in range(4):
            if a + b == total:
                posterior[a, 0] += p[a, 0] * p[b, 1]
                posterior[b, 1] += p[a, 0] * p[b, 1]
    torch.testing.assert_close(found[0], posterior / posterior[:, :1].sum(), rtol=0, atol=0.01)


def test_choices_are_learned_from_what_a_function_makes_of_them() -> None:
    """Each of two inputs is classed by a net that only ever hears the sum of both classes."""

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x).transpose(1, 2)  # [n, 2, features] -> [n, classes, 2]

    def make() -> tuple[Chain, Tensor, Tensor]:
        torch.manual_seed(0)
        rule = targets.SearchX(
            targets.Sampled(targets.Choices(), k=16), reduce=tansaku.WeightedMean("softmax", temperature=0.1)
        )
        net = Chain(
            Machine(Pair(), theta.Gradient(torch.optim.Adam, lr=0.05), targets.Null(), cross_entropy),
            Machine(BlackBox(sum, vectorized=False, choices=True), theta.Null(), rule, criteria.absolute_error),
        )
        x = torch.randn(64, 2, 4)
        return net, x, x.argmax(2).sum(1).float()

    check_machine(make)
    net, x, t = make()
    for _ in range(150):
        net.learn(x, t)
    assert (net(x) == t).float().mean() > 0.9
    assert (net[0].module(x).argmax(1) == x.argmax(2)).float().mean() > 0.9


def test_samplers_say_what_they_expect() -> None:
    with pytest.raises(ValueError, match=r"targets\.Choices expected a positive temperature, got 0"):
        targets.Choices(0)
    whole = tansaku.Individual({"x": torch.ones(2, 3, dtype=torch.int64)}, 1)
    with pytest.raises(TypeError, match="expected real genes, the logits of each choice"):
        targets.Choices()(whole, 2, torch.Generator())
    with pytest.raises(TypeError, match=r"targets\.Sampled expected a sampler .* got float"):
        targets.Sampled(0.5)  # type: ignore[arg-type]


PROMISES = (
    "translates",
    "only_ranks_matter",
    "both_directions_agree",
    "batch_equals_separate",
    "failed_evaluations_do_no_harm",
    "bounds_hold",
    "any_size_works",
    "several_tensors_work",
    "unmet_needs_are_refused",
    "inputs_stay_as_they_were",
    "dtype_and_device_are_kept",
    "same_seed_same_run",
    "best_is_never_lost",
    "ask_is_a_query",
    "tell_is_deterministic_and_compiles",
    "refresh_assesses_what_is_remembered",
    "saved_searches_continue_exactly",
    "flat_objectives_do_no_harm",
    "no_hidden_synchronisation",
)


def test_sampled_candidates_make_an_algorithm_that_keeps_its_promises() -> None:
    """All but one: it is a random search, and finds no better candidates than that."""

    def make(k: int = 8, bounds: tansaku.Bounds | None = None) -> targets.Sampled:
        return targets.Sampled(tansaku.GaussianSampler(0.3), k, bounds)

    tansaku.testing.check_algorithm(make, only=PROMISES)


def test_a_function_that_reuses_its_memory_leaves_earlier_answers_alone() -> None:
    memory = torch.zeros(4, 2)
    box = BlackBox(memory.copy_)
    first = box(torch.ones(4, 2))
    box(torch.zeros(4, 2))
    assert torch.equal(first, torch.ones(4, 2))


def test_a_function_of_one_row_asked_for_none_says_so() -> None:
    with pytest.raises(ValueError, match="expected rows, got none for a function of one row"):
        BlackBox(lambda x: x, vectorized=False)(torch.zeros(0, 2))


def test_a_function_that_writes_into_its_array_trains_the_same_network() -> None:
    def trained(write: bool) -> float:
        def box(x: Tensor) -> Tensor:
            a = x.numpy() if write else x.numpy().copy()
            a += 1
            return torch.from_numpy(a.round())

        torch.manual_seed(0)
        rule = targets.SearchX(tansaku.HillClimb(k=16, std=1.0), score="network", seed=0)
        first = Machine(nn.Linear(4, 3), theta.Delta(lr=0.01), targets.Null())
        net = Chain(first, Machine(BlackBox(box), theta.Null(), rule))
        x, t = torch.randn(64, 4), torch.randn(64, 3) * 3
        for _ in range(10):
            net.learn(x, t)
        return float(net.test(x, t))

    assert trained(True) == trained(False)
