"""The functions of constraints are users' functions too: they may write, take one candidate, or return numpy arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tansaku import GTE, Constrained, Individual, Objective, Population, Search, minimize
from tansaku.result import Result


def sphere(x: Tensor) -> Tensor:
    return x.square().sum(-1)


def found(quantity: Callable[[Any], Any], n: int = 20) -> Result:
    return minimize(
        sphere,
        shape=n,
        bounds=(-1.0, 1.0),
        algorithm="pso",
        k=20,
        constraints=[GTE(quantity, 0.5)],
        max_evaluations=200,
    )


def by_torch(x: Tensor) -> Tensor:
    return x.mul_(0.5).sum(-1)


def by_data(x: Tensor) -> Tensor:
    x.data.mul_(0.5)
    return x.sum(-1)


def by_numpy(x: Tensor) -> Tensor:
    a = x.numpy()
    a *= 0.5
    return x.sum(-1)


@pytest.mark.parametrize("quantity", [by_torch, by_data, by_numpy])
def test_a_constraint_that_writes_into_its_argument_is_refused(quantity: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(RuntimeError, match=r"changed in place; work on a copy, x\.clone"):
        found(quantity)


@pytest.mark.parametrize("quantity", [by_torch, by_data, by_numpy])
def test_a_constraint_that_writes_cannot_reach_the_genes(quantity: Callable[[Tensor], Tensor]) -> None:
    population = Population({"x": torch.ones(4, 3)})
    with pytest.raises(RuntimeError, match="changed in place"):
        Constrained(Objective(sphere), [GTE(quantity, 0.5)])(population)
    assert torch.equal(population["x"], torch.ones(4, 3))


@pytest.mark.parametrize("quantity", [lambda x: x[0] + x[1], lambda x: x[0], lambda x: x.sum(0)])
def test_a_constraint_of_one_candidate_is_refused_where_k_equals_n(quantity: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(ValueError, match=r"constraint take all candidates, such as lambda x: x\[\.\.\., 0\]"):
        found(quantity)


def test_a_constraint_of_every_gene_is_accepted_where_k_equals_n() -> None:
    with pytest.warns(UserWarning, match="no feasible candidate"):
        result = found(lambda x: x)
    assert result.violation == pytest.approx(float((0.5 - result.best["x"]).clamp(min=0).sum()), rel=1e-5)


def test_a_constraint_may_return_a_numpy_array() -> None:
    assert found(lambda x: x.numpy().sum(-1)).value == found(lambda x: x.sum(-1)).value


def test_a_violation_of_one_candidate_is_refused_where_k_equals_n() -> None:
    objective = Objective(lambda x: {"value": sphere(x), "violation": 1 - x[0]})
    with pytest.raises(ValueError, match=r"expected violation with shape \[1\] for one candidate alone, got \[20\]"):
        Search("pso", objective, Population({"x": torch.zeros(20, 20)})).run(max_generations=2)


def test_a_constraint_that_draws_leaves_the_random_states_as_an_unambiguous_one_does() -> None:
    def drawing(x: Tensor) -> Tensor:
        return x.sum(-1) + torch.rand(x.shape[0])

    def state_after(n: int) -> Tensor:
        torch.manual_seed(0)
        judged = Constrained(Objective(sphere), [GTE(drawing, 0.5)])
        judged(Individual({"x": torch.zeros(n)}).populate(4))
        return torch.get_rng_state()

    assert torch.equal(state_after(4), state_after(3))
