"""Assessors against loops: functions, modules whose parameters are genes, layers whose inputs are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tansaku import Individual, InputObjective, ModuleObjective, Objective, Population
from tansaku.testing.claims import fingerprint


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1)).eval()


@pytest.mark.parametrize("chunk", [None, 1, 3, 100])
@pytest.mark.parametrize("batch_shape", [(), (2,)])
def test_module_objective_equals_a_loop_over_candidates(chunk: int | None, batch_shape: tuple[int, ...]) -> None:
    net, data, target = network(), torch.randn(6, 3), torch.randn(6, 1)
    names = ["0.weight", "3.bias"]
    one = Individual.from_module(net, names)
    generator = torch.Generator().manual_seed(0)
    genes = {n: torch.randn(5, *batch_shape, *x.shape, generator=generator) for n, x in one.genes.items()}
    population = Population(genes, len(batch_shape))
    before = fingerprint(dict(net.state_dict()))
    objective = ModuleObjective(net, lambda run: (run(data) - target).square().mean(), chunk=chunk)
    value = objective(population).cost
    assert fingerprint(dict(net.state_dict())) == before
    for i in range(5):
        for where in [(), *([(0,), (1,)])][1:] if batch_shape else [()]:
            Individual({n: x[(i, *where)] for n, x in genes.items()}).to_module(net)
            with torch.no_grad():
                expected = (net(data) - target).square().mean()
            assert torch.allclose(value[(i, *where)], expected, atol=1e-6)


def test_module_objective_knows_its_direction_and_its_chunk() -> None:
    net = nn.Linear(2, 1)
    population = Individual.from_module(net).populate(3)
    up = ModuleObjective(net, lambda run: run(torch.ones(2)).sum(), maximize=True)(population)
    down = ModuleObjective(net, lambda run: run(torch.ones(2)).sum())(population)
    assert torch.equal(up.cost, -down.cost)
    assert not up.cost.requires_grad
    for kind in (
        lambda: ModuleObjective(net, lambda run: run(torch.ones(2)), chunk=0),
        lambda: InputObjective(lambda rows: rows, chunk=0),
    ):
        with pytest.raises(ValueError, match="expected chunk >= 1, got 0"):
            kind()


@pytest.mark.parametrize("chunk", [1, 2, 4, 7, 100])
def test_input_objective_in_chunks_is_the_same(chunk: int) -> None:
    layer, target = nn.Linear(3, 2), torch.randn(5, 2)
    population = Population({"x": torch.randn(7, 5, 3)}, 1)

    def cost(rows: Tensor, target: Tensor) -> Tensor:
        assert rows.shape == (*target.shape[:1], 3)
        return (layer(rows) - target).square().sum(-1)

    whole = InputObjective(cost, {"target": target})(population).cost
    assert torch.allclose(InputObjective(cost, {"target": target}, chunk=chunk)(population).cost, whole)
    for i in range(7):
        for row in range(5):
            expected = (layer(population["x"][i, row]) - target[row]).square().sum()
            assert torch.allclose(whole[i, row], expected, atol=1e-5)


@pytest.mark.parametrize(("chunk", "calls"), [(None, 1), (2, 3), (1, 5)])
def test_a_chunk_bounds_the_candidates_of_one_call(chunk: int | None, calls: int) -> None:
    net, seen = nn.Linear(2, 1), []
    ModuleObjective(net, lambda run: seen.append(1) or run(torch.ones(2)).sum(), chunk=chunk)(
        Individual.from_module(net).populate(5)
    )
    assert len(seen) == calls
    rows: list[int] = []
    InputObjective(lambda x: rows.append(len(x)) or x.sum(-1), chunk=chunk)(Population({"x": torch.zeros(5, 3, 2)}, 1))
    assert len(rows) == calls
    assert sum(rows) == 15
    assert max(rows) == 3 * (chunk or 5)


def test_input_objective_refuses_what_is_no_row_of_searches() -> None:
    objective = InputObjective(lambda rows: rows.sum(-1))
    with pytest.raises(ValueError, match=r"expected one tensor \[k, n, ...\], a search per row, got \['x'\]"):
        objective(Population({"x": torch.zeros(2, 3)}))
    with pytest.raises(
        ValueError, match=r"expected fn to return one cost per row \[6\], got \[\]; reduce over features"
    ):
        InputObjective(lambda rows: rows.sum())(Population({"x": torch.zeros(2, 3, 4)}, 1))
    with pytest.raises(ValueError, match=r"expected fn to return one cost per row \[6\], got float"):
        InputObjective(lambda rows: 1.0)(Population({"x": torch.zeros(2, 3, 4)}, 1))  # type: ignore[arg-type,return-value]


def test_no_gradient_is_recorded() -> None:
    weight = torch.ones(3, requires_grad=True)
    population = Population({"x": torch.ones(4, 3)})
    for way in (True, "vmap", False):
        cost = Objective(lambda x: (weight * x).sum(-1), vectorized=way)(population).cost  # type: ignore[arg-type]
        assert not cost.requires_grad


@pytest.mark.parametrize("recording", [True, False])
def test_gradients_are_recorded_afterwards_as_before_even_if_the_function_fails(recording: bool) -> None:
    population = Population({"x": torch.ones(4, 3)})
    with torch.set_grad_enabled(recording):
        Objective(lambda x: x.sum(-1))(population)
        assert torch.is_grad_enabled() == recording
        with pytest.raises(ZeroDivisionError):
            Objective(lambda x: 1 / 0)(population)
        assert torch.is_grad_enabled() == recording


def test_one_tensor_comes_alone_and_several_by_name() -> None:
    one = Population({"x": torch.ones(4, 3)})
    seen: list[object] = []
    Objective(lambda x: seen.append(x) or torch.zeros(4))(one)
    Objective(lambda x: seen.append(x) or torch.zeros(4), named=True)(one)
    assert isinstance(seen[0], Tensor)
    assert isinstance(seen[1], dict)


def test_all_fields_of_an_answer_arrive_however_it_is_called() -> None:
    population = Population({"x": torch.randn(4, 2, 3)}, 1)

    def fn(x: Tensor) -> dict[str, Tensor]:
        return {"value": x.sum(-1), "cases": x, "violation": x[..., :1], "descriptor": x[..., 1:]}

    whole = Objective(fn)(population)
    for way in ("vmap", False):
        other = Objective(fn, vectorized=way)(population)  # type: ignore[arg-type]
        for name in ("value", "cases", "violation", "descriptor"):
            assert torch.allclose(getattr(other.assessment, name), getattr(whole.assessment, name))
