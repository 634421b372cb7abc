"""Criteria made of others, by formula, with every kind of rule, alone and in a chain."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import tansaku
import zenkai_core as zk
from zenkai_core import (
    IO,
    Chain,
    Machine,
    SeesInputs,
    State,
    Utility,
    Weighted,
    criteria,
    cross_entropy,
    sse,
    targets,
    theta,
)
from zenkai_core.testing import check_machine


def penalised(x: IO, y: IO, t: IO) -> Tensor:
    return sse(y, t) + 0.3 * (y.f * x.f[:, : y.f.shape[1]]).sum(1)


def test_a_weighted_sum_and_its_gradient_are_those_of_its_terms() -> None:
    y, t = IO(torch.randn(5, 3).double()), IO(torch.randn(5, 3).double())
    both = Weighted((2.0, sse), (0.5, criteria.absolute_error))
    torch.testing.assert_close(both(y, t), 2 * sse(y, t) + 0.5 * criteria.absolute_error(y, t))
    torch.testing.assert_close(both.gradient(y, t)[0], 2 * (y.f - t.f) + 0.5 * (y.f - t.f).sign())
    with pytest.raises(ValueError, match="at least one"):
        Weighted()
    with pytest.raises(TypeError, match=r"take zenkai_core\.sse"):
        Weighted((1.0, nn.MSELoss()))  # type: ignore[arg-type]


def test_a_utility_is_raised() -> None:
    machine = Machine(
        nn.Linear(4, 3), theta.Gradient(torch.optim.SGD, lr=0.1), targets.Null(), Utility(lambda y, t: -sse(y, t))
    )
    plain = Machine(copy.deepcopy(machine.module), theta.Gradient(torch.optim.SGD, lr=0.1), targets.Null())
    x, t = torch.randn(6, 4), torch.randn(6, 3)
    assert machine.learn(x, t) == plain.learn(x, t)
    assert torch.equal(machine.module.weight, plain.module.weight)
    with pytest.raises(ValueError, match=r"utility expected one cost per row \[6\], got \[\]"):
        Machine(nn.Linear(4, 3), theta.Null(), targets.Null(), Utility(lambda y, t: sse(y, t).mean())).test(x, t)


def test_a_criterion_that_sees_inputs_is_followed_exactly_alone_and_in_a_chain() -> None:
    torch.manual_seed(0)
    x, t = torch.randn(6, 4).double(), torch.randn(6, 3).double()
    for chained in (False, True):
        below, above = nn.Linear(4, 4).double(), nn.Linear(4, 3).double()
        plain = copy.deepcopy(nn.Sequential(below, above))
        sgd = lambda: theta.Gradient(torch.optim.SGD, lr=0.1)  # noqa: E731
        head = Machine(above, sgd(), targets.Gradient(), SeesInputs(penalised))
        net = Chain(Machine(below, sgd(), targets.Gradient()), head) if chained else head
        optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
        for _ in range(3):
            inputs = x
            h = plain[0](inputs) if chained else inputs
            cost = penalised(IO(h.detach()), IO(plain[1](h)), IO(t)).mean()  # x as it was in the pass
            optimizer.zero_grad()
            cost.backward()
            optimizer.step()
            assert net.learn(x, t).item() == pytest.approx(cost.item(), abs=1e-12)
        torch.testing.assert_close(above.weight, plain[1].weight, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(below.weight, plain[0].weight if chained else below.weight, rtol=1e-12, atol=1e-12)
        h = plain[0](x) if chained else x
        expected = penalised(IO(h), IO(plain[1](h)), IO(t)).mean().item()
        assert net.test(x, t).item() == pytest.approx(expected, abs=1e-12)


def test_searches_score_every_candidate_against_the_inputs_of_its_row() -> None:
    torch.manual_seed(0)
    search = targets.SearchY(tansaku.HillClimb(k=8, std=0.5), score="local", generations=2, seed=0)
    machine = Machine(nn.Linear(4, 3), theta.Null(), targets.Null(), SeesInputs(penalised), y=search)
    x, t, state = IO(torch.randn(5, 4)), IO(torch.randn(5, 3)), State()
    y = machine.remember(x, state).detach()
    found = machine.step_y(x, t, state)
    assert (penalised(x, found, t) <= penalised(x, y, t)).all()
    assert (penalised(x, found, t) < penalised(x, y, t)).any()


def test_machines_whose_criterion_sees_inputs_conform() -> None:
    def make() -> tuple[Machine, Tensor, Tensor]:
        rule = theta.Gradient(torch.optim.SGD, lr=0.1)
        return (
            Machine(nn.Linear(4, 3), rule, targets.Gradient(), SeesInputs(penalised)),
            torch.randn(8, 4),
            torch.randn(8, 3),
        )

    check_machine(make, skip={"a cost is one per row"})  # assess_y has no inputs to see


def test_without_inputs_or_with_other_rows_the_remedy_is_named() -> None:
    with pytest.raises(TypeError, match="expected the inputs of a pass, got y and t alone"):
        SeesInputs(penalised)(IO(torch.zeros(2, 3)), IO(torch.zeros(2, 3)))
    with pytest.raises(TypeError, match=r"\(x, y, t\) -> \[n\] cost per row, got str"):
        SeesInputs("sse")  # type: ignore[arg-type]
    machine = Machine(nn.Linear(4, 3), theta.Gradient(batch_size=4), targets.Null(), SeesInputs(penalised))
    with pytest.raises(ValueError, match="outputs for the 6 rows of the pass, got 4: leave batch_size out"):
        machine.learn(torch.randn(6, 4), torch.randn(6, 3))


@pytest.mark.parametrize(
    "criterion",
    [
        criteria.absolute_error,
        criteria.huber,
        Weighted((1.0, sse), (0.1, criteria.huber)),
    ],
)
def test_local_losses_other_than_squared_error_train_inner_layers_by_every_kind_of_rule(
    criterion: zk.Criterion,
) -> None:
    rules = {
        "gradient": (theta.Gradient(torch.optim.Adam, lr=1e-2), targets.Gradient(), None),
        "feedback": (theta.Gradient(torch.optim.Adam, lr=1e-2), targets.FeedbackAlignment(), None),
        "direct feedback": (theta.Gradient(torch.optim.Adam, lr=1e-2), targets.Null(), targets.DirectFeedback()),
        "search": (
            theta.Search(tansaku.HillClimb(k=8, std=0.1)),
            targets.SearchX(tansaku.HillClimb(k=8, std=0.3)),
            None,
        ),
    }
    x, labels = torch.randn(32, 4), torch.randint(3, (32,))
    for name, (learn, down, own) in rules.items():
        torch.manual_seed(0)
        head = Machine(nn.Linear(8, 3), theta.Gradient(torch.optim.Adam, lr=1e-2), targets.Gradient(), cross_entropy)
        hidden = Machine(nn.Sequential(nn.Linear(4, 8), nn.Sigmoid()), learn, down, criterion, y=own)
        net = Chain(Machine(nn.Linear(4, 4), theta.Null(), targets.Null()), hidden, head)
        before = [p.detach().clone() for p in hidden.module.parameters()]
        costs = [net.learn(x, labels).item() for _ in range(25)]
        assert costs[-1] < costs[0], name
        assert not all(torch.equal(a, b) for a, b in zip(before, hidden.module.parameters(), strict=True)), name


def test_a_utility_without_a_gradient_is_told_from_a_broken_graph() -> None:
    right = zk.Utility(lambda y, t: (y.f.argmax(1) == t.f).float())
    machine = zk.Machine(nn.Linear(3, 2), zk.theta.Gradient(), zk.targets.Null(), right)
    with pytest.raises(
        RuntimeError, match=r"expected a criterion with one, got Utility\(.*: take a smooth one, or rules"
    ):
        machine.learn(torch.randn(4, 3), torch.zeros(4, dtype=torch.long))


def test_a_term_of_a_weighted_sum_may_see_the_inputs() -> None:
    x, t = torch.randn(4, 3).double(), torch.randn(4, 3).double()
    near = zk.SeesInputs(lambda x, y, t: zk.sse(y, x))
    both = zk.Weighted((1.0, zk.sse), (0.5, near))
    apart = zk.SeesInputs(lambda x, y, t: zk.sse(y, t) + 0.5 * zk.sse(y, x))
    runs = []
    for criterion in (both, apart):
        torch.manual_seed(0)
        machine = zk.Machine(nn.Linear(3, 3).double(), zk.theta.Gradient(lr=0.1), zk.targets.Null(), criterion)
        runs.append([machine.learn(x, t) for _ in range(3)] + [machine.test(x, t)])
    torch.testing.assert_close(*runs, rtol=1e-12, atol=1e-12)
