"""Users' functions: they may write, raise, be written for one candidate, draw random numbers, or return arrays."""

from __future__ import annotations

import copy
import pickle
import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tansaku
from tansaku import (
    ALGORITHMS,
    GA,
    LTE,
    NSGA2,
    PSO,
    Constrained,
    HillClimb,
    Individual,
    InputObjective,
    ModuleObjective,
    Objective,
    Population,
    Search,
)
from tansaku.testing import sphere

CHANGED = "expected fn to leave its argument as it is, got it changed in place; work on a copy"
ONE = r"set vectorized='vmap' \(or False\) if fn takes one candidate"


def one_candidate(x: Tensor) -> Tensor:
    return (x[0] - 1) ** 2 + x[1] ** 2 + (x[2:] ** 2).sum(0)


# Functions of one candidate.


@pytest.mark.parametrize("algorithm", ["ga", "pso", "de", "hill_climb", "cma_es", None])
@pytest.mark.parametrize("n", [2, 3, 99, 100])
def test_a_function_of_one_candidate_is_refused_by_every_size(algorithm: str | None, n: int) -> None:
    options: dict[str, Any] = {"shape": n, "bounds": (-5.0, 5.0), "algorithm": algorithm, "max_evaluations": 5_000}
    for k in (None, n) if n > 3 and algorithm is not None else (None,):
        with pytest.raises(ValueError, match=ONE):
            tansaku.minimize(one_candidate, k=k, **options)
    found = tansaku.minimize(one_candidate, vectorized="vmap", **{**options, "max_evaluations": 300})
    assert found.value == pytest.approx(float(one_candidate(found.best["x"])), rel=1e-5)


@pytest.mark.parametrize(
    ("fn", "event"),
    [
        (lambda x: (x - 1).square().sum(0), (6,)),
        (lambda x: x[0].square() + (x * x).mean(0), (6,)),
        (lambda x: x @ torch.eye(6) @ x, (6,)),
        (lambda x: torch.from_numpy((x.numpy() ** 2).sum(0)), (6,)),
        (lambda x: x.square().sum((0, 1)), (3, 6)),
        (lambda x: torch.stack([x.sum(0), x.prod(0)], -1), (6,)),
        (lambda x: {"value": x.square().sum(0)}, (6,)),
    ],
)
def test_as_many_candidates_as_genes_do_not_hide_a_function_of_one(fn: Callable[..., Any], event: Any) -> None:
    with pytest.raises(ValueError, match=ONE):
        Objective(fn)(Population({"x": torch.randn(6, *event)}))


def test_as_many_candidates_as_genes_do_not_hide_a_function_of_one_with_names_or_a_batch() -> None:
    named = Objective(lambda genes: genes["a"].sum(0) + genes["b"].sum(0))
    with pytest.raises(ValueError, match=ONE):
        named(Population({"a": torch.randn(4, 4), "b": torch.randn(4, 4)}))
    with pytest.raises(ValueError, match=ONE):
        Objective(lambda x: x.sum(0))(Population({"x": torch.randn(4, 4, 4)}, 1))


def compares(x: Tensor) -> Tensor:
    return x if x[0] > 0 else -x


@pytest.mark.parametrize(
    ("error", "fn"),
    [
        (IndexError, lambda x: x[7]),
        (RuntimeError, lambda x: x + torch.ones(7)),
        (RuntimeError, compares),
        (ValueError, lambda x: sum(a * b for a, b in [x])),
        (ValueError, lambda x: x.numpy() @ np.ones(7)),
    ],
)
def test_an_error_about_shapes_names_the_remedy_and_keeps_its_cause(
    error: type[Exception], fn: Callable[[Tensor], Any]
) -> None:
    with pytest.raises(error, match=r"x: \[5, 3\], got .*; set vectorized='vmap'") as caught:
        Objective(fn)(Population({"x": torch.randn(5, 3)}))
    assert type(caught.value.__cause__) is error


@pytest.mark.parametrize(("k", "calls"), [(7, 1), (3, 2), (1, 1)])
def test_only_ambiguous_shapes_cost_another_call_and_only_once(k: int, calls: int) -> None:
    seen: list[tuple[int, ...]] = []
    objective = Objective(lambda x: (seen.append(tuple(x.shape)), sphere(x))[1])  # type: ignore[func-returns-value]
    for _ in range(3):
        objective(Population({"x": torch.randn(k, 3)}))
    assert len(seen) == 2 + calls
    assert seen[1:calls] == [(1, 3)] * (calls - 1)


@pytest.mark.parametrize("way", ["vmap", False])
def test_a_function_that_takes_one_candidate_by_agreement_is_not_tried(way: Any) -> None:
    seen: list[int] = []
    Objective(lambda x: (seen.append(1), x.sum())[1], vectorized=way)(Population({"x": torch.randn(3, 3)}))  # type: ignore[func-returns-value]
    assert len(seen) == (1 if way == "vmap" else 3)


def test_the_call_that_tells_shapes_apart_changes_no_run() -> None:
    def noisy(x: Tensor) -> Tensor:
        assert random.random() < 1
        return sphere(x) + torch.rand(x.shape[0]) + torch.from_numpy(np.random.rand(x.shape[0]))  # noqa: NPY002

    def values(n: int) -> tuple[Any, ...]:
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        random.seed(0)
        objective = Objective(noisy)
        for _ in range(3):
            value = objective(Population({"x": torch.ones(5, n)})).cost
        return (value - n).tolist(), random.random(), torch.rand(1).item(), np.random.rand()  # noqa: NPY002

    ambiguous, plain = values(5), values(4)
    assert ambiguous[0] == pytest.approx(plain[0])
    assert ambiguous[1:] == plain[1:]
    run = tansaku.minimize(sphere, shape=5, k=5, algorithm="pso", max_generations=3)
    assert run.evaluations == 20


def test_a_function_may_reuse_the_tensor_that_it_returns_where_shapes_are_ambiguous() -> None:
    out = torch.empty(3)

    def reusing(x: Tensor) -> Tensor:
        out[: x.shape[0]] = sphere(x)
        return out[: x.shape[0]]

    x = torch.randn(3, 3)
    assert torch.equal(Objective(reusing)(Population({"x": x})).cost, sphere(x))


def test_rows_that_equal_features_do_not_hide_a_function_of_one_row() -> None:
    population = Population({"x": torch.randn(2, 3, 6)}, 1)
    with pytest.raises(ValueError, match="reduce over features only"):
        InputObjective(lambda rows: rows.square().sum(0))(population)
    assert InputObjective(sphere)(population).cost.shape == (2, 3)


# Functions that write into their argument.


def by_torch(x: Tensor) -> None:
    x.mul_(2.0)


def by_numpy(x: Tensor) -> None:
    x.numpy()[...] *= 2


def by_data(x: Tensor) -> None:
    x.data.mul_(2.0)


def by_view(x: Tensor) -> None:
    x[-1:].numpy()[...] += 1


def by_dlpack(x: Tensor) -> None:
    array = np.from_dlpack(x.detach())
    array.setflags(write=True) if not array.flags.writeable else None
    torch.from_dlpack(x.detach()).add_(1)


def by_storage(x: Tensor) -> None:
    x.untyped_storage().fill_(0)


WRITES = [by_torch, by_numpy, by_data, by_view, by_dlpack, by_storage]


def writing(write: Callable[[Tensor], None], call: int, calls: list[int]) -> Callable[[Tensor], Tensor]:
    """The cost of the genes as they are after a write that begins at this call."""

    def fn(x: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) >= call:
            write(x)
        return (x - 3).square().sum(-1)

    return fn


@pytest.mark.parametrize("call", [1, 2, 6])
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_write_at_any_call_is_refused(write: Callable[[Tensor], None], call: int, dtype: torch.dtype) -> None:
    calls: list[int] = []
    with pytest.raises(RuntimeError, match=CHANGED):
        tansaku.minimize(
            writing(write, call, calls), x0=torch.full((5,), 1.0, dtype=dtype), algorithm="pso", max_generations=8
        )
    assert len(calls) == call


@pytest.mark.parametrize("name", [name for name, kind in ALGORITHMS.items() if "real" in kind.needs.dtypes])
@pytest.mark.parametrize("write", [by_numpy, by_data])
def test_every_algorithm_refuses_a_late_write_and_keeps_its_genes(name: str, write: Callable[[Tensor], None]) -> None:
    needs, calls = ALGORITHMS[name].needs, list[int]()
    cost = writing(write, 4, calls)

    def fn(x: Tensor) -> dict[str, Tensor]:
        value = cost(x)
        value = torch.stack([value, -value], -1) if needs.objectives == "many" else value
        return {"value": value, **({"descriptor": torch.sigmoid(x[..., :2])} if needs.descriptor else {})}

    search = Search(name, Objective(fn), Individual({"x": torch.full((5,), 1.0)}), seed=1)
    for _ in range(2):
        search.step()
    asked = search.ask()
    kept = asked["x"].clone()
    with pytest.raises(RuntimeError, match=CHANGED):
        search.assess(asked)  # type: ignore[misc]
    assert torch.equal(asked["x"], kept)


def test_a_write_into_the_last_candidates_of_many_is_refused() -> None:
    def fn(x: Tensor) -> Tensor:
        x.numpy()[200:] += 1
        return sphere(x)

    with pytest.raises(RuntimeError, match=CHANGED):
        Objective(fn)(Population({"x": torch.randn(300, 4)}))


def test_genes_that_are_nan_are_not_taken_for_written() -> None:
    def reads(x: Tensor) -> Tensor:
        return torch.from_numpy(x.numpy().sum(-1))

    assert torch.isnan(Objective(reads)(Population({"x": torch.full((3, 2), torch.nan)})).assessment.value).all()  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", [torch.int64, torch.int32, torch.bool])
def test_a_write_into_discrete_genes_is_refused(kind: torch.dtype) -> None:
    def fn(x: Tensor) -> Tensor:
        np.sort(x.numpy())
        x.numpy()[:, 0] = 1 - x.numpy()[:, 0]
        return x.float().sum(-1)

    with pytest.raises(RuntimeError, match=CHANGED):
        Objective(fn)(Population({"x": torch.randint(0, 2, (9, 4)).to(kind)}))


@pytest.mark.parametrize("way", [True, "vmap"])
def test_a_write_into_one_of_several_tensors_is_refused(way: Any) -> None:
    def fn(genes: dict[str, Tensor]) -> Tensor:
        genes["b"].add_(1.0)
        return genes["a"].sum(-1) + genes["b"].sum(-1)

    with pytest.raises(RuntimeError, match=CHANGED):
        Objective(fn, vectorized=way)(Population({"a": torch.randn(9, 4), "b": torch.randn(9, 3)}))


def test_large_genes_cannot_be_reached_by_numpy_at_any_call() -> None:
    calls, genes = list[int](), torch.randn(600, 1000)
    population, kept = Population({"x": genes}), genes.clone()

    def fn(x: Tensor) -> Tensor:
        calls.append(1)
        array = x.numpy()
        if len(calls) > 2:
            array += 1
        return torch.from_numpy((array**2).sum(-1))

    objective = Objective(fn)
    for call in range(5):
        cost = objective(population).cost
        expected = genes + 1 if call >= 2 else genes
        torch.testing.assert_close(cost, expected.square().sum(-1))
    assert torch.equal(genes, kept)
    with pytest.raises(RuntimeError, match=CHANGED):
        Objective(fn)(population)
    assert torch.equal(genes, kept)


def test_a_function_that_calls_torch_only_gets_no_copy_even_if_it_returns_a_view() -> None:
    genes = torch.randn(600, 1000)
    address = torch._C._data_address(genes)  # type: ignore[attr-defined]
    seen: list[bool] = []

    def fn(x: Tensor) -> Tensor:
        seen.append(torch._C._data_address(x) == address)  # type: ignore[attr-defined]
        return x[:, 0] if len(seen) > 2 else sphere(x)

    objective = Objective(fn)
    for _ in range(5):
        objective(Population({"x": genes}))
    assert seen == [True] * 5
    assert genes.data_ptr() == address


def test_an_argument_that_the_function_keeps_is_its_own_for_good() -> None:
    genes, kept = torch.randn(5, 3), list[Tensor]()
    population, array = Population({"x": genes}), genes.numpy()
    objective = Objective(lambda x: (kept.append(x), sphere(x))[1])  # type: ignore[func-returns-value]
    before = genes.clone()
    objective(population)
    kept[0].numpy()[...] = 0
    assert torch.equal(genes, before)
    array += 1
    assert torch.equal(genes, before + 1)


def test_genes_in_numpys_memory_are_out_of_reach_too() -> None:
    genes = torch.from_numpy(np.ones((4, 3)))
    with pytest.raises(RuntimeError, match=CHANGED):
        Objective(writing(by_numpy, 1, []))(Population({"x": genes}))
    assert (genes == 1).all()


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("call", [1, 3])
def test_an_input_objective_refuses_writes_and_its_context_is_out_of_reach(
    write: Callable[[Tensor], None], call: int
) -> None:
    calls, genes, target = list[int](), torch.randn(4, 5, 3), torch.randn(5, 2)
    kept, aim = genes.clone(), target.clone()
    cost = writing(write, call, calls)
    objective = InputObjective(lambda x, t: (t.zero_(), cost(x))[1], {"t": target}, chunk=1)
    with pytest.raises(RuntimeError, match=CHANGED):
        objective(Population({"x": genes}, 1))
    assert len(calls) == call
    assert torch.equal(genes, kept)
    assert torch.equal(target, aim)


class Clipping(nn.Module):
    """Writes into its weight and counts its calls in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        with torch.no_grad():
            self.weight.mul_(0.5)
        return x @ self.weight + self.bias.sum()


def test_a_module_that_writes_into_its_genes_is_refused_and_all_else_of_it_is_out_of_reach() -> None:
    net, x = Clipping(), torch.randn(4, 3)
    objective = ModuleObjective(net, lambda run: run(x).square().mean())
    genes = Population({name: torch.randn(5, 3) for name in ("weight", "bias")})
    with pytest.raises(RuntimeError, match="expected the module to leave its parameters as they are"):
        objective(genes)
    assert objective(Individual.from_module(net, ["bias"]).populate(5)).cost.shape == (5,)
    assert (net.weight == 1).all()
    assert net.calls == 0


# Functions that raise.


def diverges(x: Tensor) -> Tensor:
    if bool((x[..., 0] > 0.5).any()):
        raise ArithmeticError("it diverged")
    return sphere(x)


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("way", [True, False])
@pytest.mark.parametrize("k", [2, 3, 16, 33])
def test_a_candidate_that_fails_gets_the_worst_value_and_no_other_does(maximize: bool, way: Any, k: int) -> None:
    x = torch.rand(k, 4)
    x[0, 0], x[-1, 0] = 0.0, 1.0
    objective = Objective(diverges, maximize, way, on_failure="worst")
    assessed = objective(Population({"x": x}))
    failed = x[:, 0] > 0.5
    assert torch.equal(assessed.cost == torch.inf, failed)
    assert torch.equal(assessed.cost[~failed], (-1 if maximize else 1) * sphere(x[~failed]))
    assert objective.failures.count == int(failed.sum())
    first = objective.failures.first[0]
    assert first.index == (int(failed.nonzero()[0]),)
    assert torch.equal(first.genes["x"], x[first.index])
    assert isinstance(first.error, ArithmeticError)
    assert "it diverged" in first.trace
    assert len(objective.failures.first) == min(10, objective.failures.count)


def test_few_failures_among_many_candidates_take_few_calls() -> None:
    calls: list[int] = []
    x = torch.zeros(1024, 4)
    x[300, 0] = x[777, 0] = 1.0
    Objective(lambda x: (calls.append(1), diverges(x))[1], on_failure="worst")(Population({"x": x}))  # type: ignore[func-returns-value]
    assert len(calls) < 45


@pytest.mark.parametrize("way", [False, "vmap"])
def test_a_failure_is_of_one_search_where_the_function_takes_one_candidate(way: Any) -> None:
    def cost(x: Tensor) -> Tensor:
        return torch.linalg.cholesky(torch.eye(2) * x[0]).sum()

    x = torch.ones(5, 3, 2)
    x[2, 1] = -1.0
    objective = Objective(cost, vectorized=way, on_failure="worst")
    failed = objective(Population({"x": x}, 1)).cost == torch.inf
    assert failed.nonzero().tolist() == [[2, 1]]
    assert objective.failures.first[0].index == (2, 1)


def test_a_failure_of_all_searches_together_is_the_candidates() -> None:
    x = torch.zeros(5, 3, 2)
    x[2, 1] = 1.0
    failed = Objective(diverges, on_failure="worst")(Population({"x": x}, 1)).cost == torch.inf
    assert failed.nonzero().tolist() == [[2, 0], [2, 1], [2, 2]]


@pytest.mark.parametrize("chunk", [None, 1, 2])
def test_a_failing_row_of_an_input_objective_gets_the_worst_value(chunk: int | None) -> None:
    def cost(rows: Tensor, target: Tensor) -> Tensor:
        return diverges(rows) + target

    x, target = torch.zeros(5, 3, 2), torch.arange(3.0)
    x[2, 1, 0] = x[4, 0, 0] = 1.0
    objective = InputObjective(cost, {"target": target}, chunk=chunk, on_failure="worst")
    assessed = objective(Population({"x": x}, 1)).cost
    assert (assessed == torch.inf).nonzero().tolist() == [[2, 1], [4, 0]]
    assert torch.equal(assessed[0], target)
    assert [failure.index for failure in objective.failures.first] == [(2, 1), (4, 0)]


@pytest.mark.parametrize("batch", [(), (3,)])
def test_a_failing_candidate_of_a_module_objective_gets_the_worst_value(batch: tuple[int, ...]) -> None:
    net = nn.Linear(2, 2)
    objective = ModuleObjective(net, lambda run: torch.linalg.cholesky(run(torch.eye(2))).sum(), on_failure="worst")
    weight = torch.eye(2).repeat(5, *batch, 1, 1)
    place = (2, *(1 for _ in batch))
    weight[place] *= -1
    bias = torch.zeros(5, *batch, 2)
    assessed = objective(Population({"weight": weight, "bias": bias}, len(batch)))
    assert (assessed.cost == torch.inf).nonzero().tolist() == [list(place)]
    assert objective.failures.first[0].index == place


def test_all_fields_of_a_failed_candidate_are_the_worst() -> None:
    def fn(x: Tensor) -> dict[str, Tensor]:
        return {"value": diverges(x), "cases": x, "violation": x[:, :1], "descriptor": x}

    x = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    found = Objective(fn, maximize=True, on_failure="worst")(Population({"x": x})).assessment
    assert found is not None
    assert found.value.tolist() == [1.0, -torch.inf]
    assert (found.cases[1] == -torch.inf).all()  # type: ignore[index]
    assert (found.violation[1] == torch.inf).all()  # type: ignore[index]
    assert torch.isnan(found.descriptor[1]).all()  # type: ignore[index]


@pytest.mark.parametrize("call", [tansaku.minimize, tansaku.maximize])
@pytest.mark.parametrize("way", [True, False])
def test_a_run_ends_with_a_summary_of_the_failures(call: Any, way: bool) -> None:
    with pytest.warns(
        RuntimeWarning, match=r"candidates failed and got the worst cost; .*ArithmeticError: it diverged"
    ):
        result = call(
            diverges,
            shape=3,
            bounds=(-1.0, 1.0),
            algorithm="pso",
            vectorized=way,
            on_failure="worst",
            max_generations=4,
        )
    assert result.failures.count > 0
    assert result.best["x"][0] <= 0.5
    assert np.isfinite(result.value)


@pytest.mark.parametrize("wrap", [lambda assess: assess, lambda assess: Constrained(assess, [LTE("x", 5.0)])])
def test_a_search_counts_its_own_failures_through_any_wrapper(wrap: Any) -> None:
    objective = Objective(diverges, on_failure="worst")
    for _ in range(2):
        search = Search(PSO(k=8), wrap(objective), Individual({"x": torch.zeros(3)}), seed=2)
        with pytest.warns(RuntimeWarning, match="candidates failed"):
            result = search.run(max_generations=3)
        assert result.failures.first[0].generation in (0, 1, 2)
    assert objective.failures.count == 2 * result.failures.count


def test_a_run_without_failures_ends_without_a_summary() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = tansaku.minimize(sphere, shape=3, on_failure="worst", max_generations=3)
    assert not result.failures


def test_what_the_function_raises_is_passed_on_by_default() -> None:
    with pytest.raises(ArithmeticError, match="it diverged"):
        tansaku.minimize(diverges, shape=3, bounds=(0.6, 1.0), max_generations=3)
    with pytest.raises(ArithmeticError, match="it diverged") as caught:
        tansaku.minimize(diverges, shape=3, bounds=(0.6, 1.0), max_generations=3, vectorized=False)
    assert caught.value.__notes__[0].startswith("fn raised this for candidate 0 of ")


@pytest.mark.parametrize("way", [True, "vmap", False])
@pytest.mark.parametrize("k", [1, 8])
def test_a_first_generation_of_failures_only_raises_with_the_cause(way: Any, k: int) -> None:
    def fails(x: Tensor) -> Tensor:
        raise ArithmeticError("always")

    search = Search(PSO(k=8), Objective(fails, vectorized=way, on_failure="worst"), Population({"x": torch.ones(k, 3)}))
    with pytest.raises(RuntimeError, match="expected fn to assess at least one candidate of the first generation, got"):
        search.run(max_generations=3)
    with pytest.raises(RuntimeError) as caught:
        search.run(max_generations=3)
    assert isinstance(caught.value.__cause__, ArithmeticError)


def test_a_start_that_fails_alone_does_not_end_the_search() -> None:
    search = Search(
        HillClimb(k=16, std=1.0), Objective(diverges, on_failure="worst"), Individual({"x": torch.full((3,), 0.6)})
    )
    with pytest.warns(RuntimeWarning, match="candidates failed"):
        assert np.isfinite(search.run(max_generations=20).value)


def test_a_later_generation_of_failures_only_goes_on() -> None:
    calls: list[int] = []

    def fn(x: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) > 2:
            raise ArithmeticError("from now on")
        return sphere(x)

    search = Search(PSO(k=4), Objective(fn, on_failure="worst"), Individual({"x": torch.ones(3)}))
    with pytest.warns(RuntimeWarning, match="8 candidates failed"):
        assert search.run(max_generations=3).failures.count == 8


@pytest.mark.parametrize("way", [True, "vmap", False])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_no_failure(error: type[BaseException], way: Any) -> None:
    def fn(x: Tensor) -> Tensor:
        raise error

    objective = Objective(fn, vectorized=way, on_failure="worst")
    with pytest.raises(error):
        objective(Population({"x": torch.ones(4, 3)}))
    assert objective.failures.count == 0


def test_a_wrong_answer_is_no_failure_of_a_candidate() -> None:
    with pytest.raises(ValueError, match=ONE):
        Objective(lambda x: x.sum(0), on_failure="worst")(Population({"x": torch.ones(4, 3)}))
    with pytest.raises(TypeError, match="expected fn to return a tensor as value, got str"):
        Objective(lambda x: "a", on_failure="worst")(Population({"x": torch.ones(4, 3)}))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Objective(sphere, on_failure="skip"),  # type: ignore[arg-type]
        lambda: InputObjective(sphere, on_failure="skip"),  # type: ignore[arg-type]
        lambda: ModuleObjective(nn.Linear(1, 1), sphere, on_failure="skip"),  # type: ignore[arg-type]
        lambda: tansaku.minimize(sphere, shape=2, on_failure="skip"),  # type: ignore[arg-type]
    ],
)
def test_on_failure_is_one_of_two_values(make: Any) -> None:
    with pytest.raises(ValueError, match="expected on_failure 'raise' or 'worst', got 'skip'; choose one of them"):
        make()


def test_objectives_with_failures_and_kept_memory_are_copied_and_pickled() -> None:
    objective = Objective(sphere, on_failure="worst")
    objective(Population({"x": torch.ones(4, 3)}))
    for again in (copy.deepcopy(objective), pickle.loads(pickle.dumps(objective))):
        assert again(Population({"x": torch.ones(4, 3)})).cost.tolist() == [3.0] * 4


# Functions that draw random numbers.


def network(layer: nn.Module) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(3, 6), layer, nn.Linear(6, 1))


class Noisy(nn.Module):
    """Draws in forward."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5) + torch.rand_like(x) + torch.randn(x.shape[-1])


LAYERS = [nn.Dropout(0.5), nn.AlphaDropout(0.5), nn.FeatureAlphaDropout(0.5), nn.Dropout1d(0.5), Noisy()]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
@pytest.mark.parametrize("chunk", [None, 3])
def test_masks_of_a_module_come_from_the_seed_of_the_search(layer: nn.Module, chunk: int | None) -> None:
    net, x = network(layer), torch.randn(8, 3)

    def found(seed: int) -> float:
        torch.rand(5)  # the global generator is elsewhere in every run
        before = torch.get_rng_state()
        objective = ModuleObjective(net, lambda run: run(x).square().mean(), chunk=chunk)
        value = Search(PSO(k=8), objective, Individual.from_module(net), seed=seed).run(max_generations=5).value
        assert torch.equal(torch.get_rng_state(), before)
        return float(value)

    assert found(1) == found(1)
    assert found(1) != found(2)


@pytest.mark.parametrize("layer", [*LAYERS, nn.RReLU()], ids=lambda layer: type(layer).__name__)
def test_masks_of_a_layer_whose_inputs_are_searched_come_from_the_seed(layer: nn.Module) -> None:
    net, x = network(layer), torch.randn(4, 3)

    def found(seed: int) -> list[float]:
        torch.rand(5)
        objective = InputObjective(lambda rows: net(rows).square().sum(-1))
        return Search(PSO(k=8), objective, Individual({"x": x}, 1), seed=seed).run(max_generations=5).value.tolist()  # type: ignore[union-attr]

    assert found(1) == found(1)
    assert found(1) != found(2)


def test_masks_differ_from_generation_to_generation_and_candidates_share_them() -> None:
    net, x, values = network(nn.Dropout(0.5)), torch.randn(8, 3), list[Tensor]()
    objective = ModuleObjective(net, lambda run: run(x).square().mean())
    search = Search(PSO(k=4), None, Individual.from_module(net).populate(4))
    for _ in range(4):
        asked = search.ask()
        start = Population({name: x[:1].expand_as(x) for name, x in search._pending.genes.items()})
        start.__dict__["_asked_by"] = search
        values.append(objective(start).cost)
        search.tell(objective(asked))
    assert all((value == value[0]).all() for value in values)
    assert len({float(value[0]) for value in values}) == 4


def test_masks_are_the_same_by_hand_and_in_a_resumed_search(tmp_path: Any) -> None:
    net, x = network(nn.Dropout(0.5)), torch.randn(8, 3)

    def loss(run: Any) -> torch.Tensor:
        return run(x).square().mean()

    objective = ModuleObjective(net, loss)

    def search(assess: Any = objective) -> Search[Any]:
        return Search(PSO(k=8), assess, Individual.from_module(net), seed=4)

    whole = search()
    whole.run(max_generations=6)
    hand = search(None)
    for _ in range(7):
        hand.tell(objective(hand.ask()))
    begun = search()
    begun.run(max_generations=3)
    begun.save(tmp_path / "search.pt")
    torch.manual_seed(99)
    again = search()
    again.load(tmp_path / "search.pt")
    again.run(max_generations=6)
    assert float(whole.value) == float(hand.value) == float(again.value)


# Functions that return arrays.


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, bool])
def test_a_function_of_all_candidates_may_return_an_array(dtype: Any) -> None:
    x = torch.arange(12.0).view(4, 3)
    answers = {
        "plain": lambda x: x.numpy().sum(-1).astype(dtype),
        "reversed": lambda x: x.numpy().sum(-1).astype(dtype)[::-1],
        "fields": lambda x: {"value": x.numpy().sum(-1).astype(dtype), "violation": x.numpy()[:, :1]},
    }
    expected = x.sum(-1).to(torch.bool if dtype is bool else torch.float32).float()
    for name, fn in answers.items():
        assessment = Objective(fn)(Population({"x": x})).assessment
        assert assessment is not None
        assert torch.equal(assessment.value.float(), expected.flip(0) if name == "reversed" else expected)
    assert tansaku.minimize(answers["plain"], shape=3, bounds=(0.0, 1.0), max_generations=2).evaluations > 0


def test_a_returned_array_may_be_used_again_by_the_function() -> None:
    out = np.zeros(4)

    def fn(x: Tensor) -> Any:
        out[:] = x.numpy().sum(-1)
        return out

    first = Objective(fn)(Population({"x": torch.ones(4, 3)})).cost
    Objective(fn)(Population({"x": torch.zeros(4, 3)}))
    assert first.tolist() == [3.0] * 4


def test_an_input_objective_takes_an_array_and_an_array_of_objects_is_refused() -> None:
    rows = Population({"x": torch.ones(4, 3, 2)}, 1)
    assert torch.equal(InputObjective(lambda x: x.numpy().sum(-1))(rows).cost, torch.full((4, 3), 2.0))
    with pytest.raises(TypeError, match="expected fn to return numbers as value, got an array of object"):
        Objective(lambda x: np.array([None] * 4))(Population({"x": torch.ones(4, 3)}))


# Candidates that are known.


@pytest.mark.parametrize("way", [True, False])
@pytest.mark.parametrize("kind", [torch.bool, torch.int64, torch.int32])
def test_no_discrete_candidate_is_evaluated_twice_and_the_run_is_the_same(way: Any, kind: torch.dtype) -> None:
    seen: list[tuple[Any, ...]] = []

    def fn(x: Tensor) -> Tensor:
        seen.extend(tuple(row) for row in x.view(-1, 5).tolist())
        return x.double().sum(-1)

    options: dict[str, Any] = {"shape": 5, "dtype": kind, "algorithm": "ga", "k": 20, "max_generations": 20}
    options |= {"bounds": None if kind == torch.bool else (0, 2), "vectorized": way}
    plain = tansaku.minimize(fn, **options)
    repeats = len(seen) - len(set(seen))
    seen.clear()
    known = tansaku.minimize(fn, cache=True, **options)
    assert repeats > 0
    assert len(seen) == len(set(seen))
    assert plain.value == known.value
    assert torch.equal(plain.best["x"], known.best["x"])
    assert plain.evaluations == known.evaluations == 420


def test_known_candidates_are_found_among_permutations_names_and_batches() -> None:
    def fn(genes: dict[str, Tensor]) -> Tensor:
        return genes["a"].double().sum() + genes["b"].double().sum()

    a, b = torch.randint(0, 2, (6, 4, 3)), torch.randint(0, 2, (6, 4, 2)) > 0
    population = Population({"a": a, "b": b}, 1)
    calls: list[int] = []
    for way in ("vmap", False):
        objective = Objective(lambda genes: (calls.append(1), fn(genes))[1], vectorized=way, cache=True)  # type: ignore[arg-type,func-returns-value]
        for _ in range(2):
            assert torch.equal(objective(population).cost, a.double().sum(-1) + b.double().sum(-1))
    distinct = {(*x, *y) for x, y in zip(a.flatten(0, 1).tolist(), b.flatten(0, 1).tolist(), strict=True)}
    assert len(calls) == 1 + len(distinct)
    tour = tansaku.minimize(
        lambda x: (x.diff().abs()).sum(-1).double(), shape=5, algorithm="permutation_ga", cache=True, max_generations=9
    )
    assert tour.value == 4.0


def test_a_known_failure_is_not_tried_again() -> None:
    calls: list[int] = []

    def fn(x: Tensor) -> float:
        calls.append(1)
        if x[0] == 2:
            raise ArithmeticError("two")
        return float(x.sum())

    objective = Objective(fn, vectorized=False, cache=True, on_failure="worst")
    population = Population({"x": torch.tensor([[0, 1], [2, 1], [2, 1]])})
    for _ in range(2):
        assert objective(population).cost.tolist() == [1.0, torch.inf, torch.inf]
    assert len(calls) == 2
    assert objective.failures.count == 1


def test_known_candidates_of_several_objectives_give_the_same_front() -> None:
    def fn(x: Tensor) -> Tensor:
        return torch.stack([x.double().sum(-1), (3 - x).double().square().sum(-1)], -1)

    fronts = []
    for cache in (False, True):
        start = Population({"x": torch.arange(24).view(8, 3) % 4})
        search = Search(NSGA2(k=8, bounds=tansaku.Bounds(0, 3)), Objective(fn, cache=cache), start, seed=1)
        fronts.append(search.run(max_generations=10).value)
    assert torch.equal(*fronts)


def test_a_resumed_search_does_not_depend_on_the_cache(tmp_path: Any) -> None:
    def total(x: torch.Tensor) -> torch.Tensor:
        return x.double().sum(-1)

    def search() -> Search[Any]:
        objective = Objective(total, cache=True)
        return Search(GA(k=6, bounds=tansaku.Bounds(0, 3)), objective, Individual({"x": torch.full((4,), 3)}), seed=1)

    whole, begun, again = search(), search(), search()
    whole.run(max_generations=12)
    begun.run(max_generations=5)
    begun.save(tmp_path / "search.pt")
    again.load(tmp_path / "search.pt")
    again.run(max_generations=12)
    assert torch.equal(whole.history.best, again.history.best)
    assert whole.evaluations == again.evaluations


def test_a_cache_refuses_real_genes_and_a_batch_that_it_cannot_take_apart() -> None:
    with pytest.raises(ValueError, match=r"expected integer or boolean genes with cache=True, got real \['x'\]"):
        tansaku.minimize(sphere, shape=3, cache=True)
    with pytest.raises(ValueError, match=r"expected batch_shape \(\) with cache=True and vectorized=True, got \(2,\)"):
        Objective(lambda x: x.sum(-1), cache=True)(Population({"x": torch.ones(3, 2, 4).long()}, 1))
    with pytest.raises(TypeError, match="expected cache True or False, got 10; choose one of them"):
        Objective(sphere, cache=10)  # type: ignore[arg-type]


def test_a_simulator_that_changes_its_array_is_refused_by_the_default_algorithm() -> None:
    def simulate(x: Tensor) -> Tensor:
        a = x.numpy()
        for _ in range(20):
            a += 0.05 * a
        return torch.from_numpy(((a - 1.0) ** 2).sum(-1))

    with pytest.raises(RuntimeError, match=CHANGED):
        tansaku.minimize(simulate, x0=torch.zeros(3), max_evaluations=2_000)


@pytest.mark.parametrize("options", [{}, {"on_failure": "worst"}])
def test_a_function_may_bind_other_tensors_to_the_names_in_its_dictionary(options: dict[str, Any]) -> None:
    def fn(genes: dict[str, Tensor]) -> Tensor:
        genes["b"] = genes.pop("a") * 2
        return sphere(genes["b"])

    genes = {"a": torch.ones(5, 3), "b": torch.ones(5, 2)}
    population = Population(genes)
    assert Objective(fn, **options)(population).cost.tolist() == [12.0] * 5
    assert dict(population.genes) == genes
