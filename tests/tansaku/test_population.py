"""Individuals, populations, assessments: one shape rule, nothing written, what does not fit refused in words."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tansaku import Assessment, Individual, Population
from tansaku.functional import cat_rows, put_rows, select, take_rows
from tansaku.storage import Storages
from tansaku.testing.claims import fingerprint


def population(k: int = 4, batch_shape: tuple[int, ...] = (3,), **fields: Any) -> Population:
    x = torch.arange(float(k * max(1, torch.Size(batch_shape).numel()) * 2)).view(k, *batch_shape, 2)
    return Population({"x": x}, len(batch_shape), **fields)


def test_the_shape_rule() -> None:
    p = Population({"w": torch.zeros(5, 3, 2, 4), "b": torch.zeros(5, 3)}, batch_ndim=1)
    assert (p.k, tuple(p.batch_shape)) == (5, (3,))
    assert (tuple(p.event_shape("w")), tuple(p.event_shape("b"))) == ((2, 4), ())
    assert p.individual(2)["w"].shape == (3, 2, 4)
    assert tuple(p.individual().batch_shape) == (3,)


def test_populate_is_a_view() -> None:
    one = Individual({"x": torch.zeros(3)})
    many = one.populate(1000)["x"]
    assert many.shape == (1000, 3)
    assert many.data_ptr() == one["x"].data_ptr()


def test_populations_are_read_only() -> None:
    p = population()
    with pytest.raises(TypeError):
        p.genes["x"] = torch.zeros(1)  # type: ignore[index]
    with pytest.raises(AttributeError):
        p.batch_ndim = 2  # type: ignore[misc]
    named = {"x": torch.zeros(2, 1)}
    p = Population(named)
    named["y"] = torch.zeros(2, 1)
    assert list(p.genes) == ["x"]


def test_a_changed_gene_drops_the_assessment_and_a_changed_trait_keeps_it() -> None:
    p = population(assessment=Assessment(torch.zeros(4, 3)))
    assert p.with_genes({"x": p["x"] + 1}).assessment is None
    assert p.with_traits(age=torch.zeros(4, 3)).assessment is p.assessment
    with pytest.raises(ValueError, match=r"expected genes among \['x'\], got \['y'\]; make a new Population"):
        p.with_genes({"y": p["x"]})
    with pytest.raises(RuntimeError, match="expected an assessed population, got one without an assessment"):
        _ = population().cost


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_hold_the_same_bits(clone: Any) -> None:
    for value in (
        population(assessment=Assessment(torch.zeros(4, 3), True), traits={"age": torch.ones(4, 3)}),
        population().individual(),
    ):
        other = clone(value)
        assert fingerprint(other) == fingerprint(value)
        assert other["x"].data_ptr() != value["x"].data_ptr()


@pytest.mark.parametrize(
    ("build", "kind", "message"),
    [
        (lambda: Population({}), ValueError, "expected at least one tensor in genes, got an empty mapping"),
        (lambda: Population(torch.zeros(2)), TypeError, "expected genes as a mapping of names to tensors, got Tensor"),
        (lambda: Population({"x": [1.0]}), TypeError, r"expected genes\['x'\] to be a tensor, got list"),
        (lambda: Population({"x": torch.zeros(2) + 1j}), TypeError, "got torch.complex64; search over torch.view_as"),
        (
            lambda: Population({"x": torch.zeros(())}),
            ValueError,
            "expected .* at least 1 leading dimensions, got shape",
        ),
        (lambda: Population({"x": torch.zeros(0, 3)}), ValueError, "expected at least one candidate, got k = 0"),
        (
            lambda: Population({"x": torch.zeros(2, 3), "y": torch.zeros(3, 3)}),
            ValueError,
            r"expected genes\['y'\] with leading dimensions \[2\] like the others, got shape \[3, 3\]",
        ),
        (
            lambda: Population({"x": torch.zeros(2, 3)}, traits={"age": torch.zeros(3)}),
            ValueError,
            r"expected trait 'age' with leading dimensions \[2\], got \[3\]",
        ),
        (
            lambda: population(assessment=Assessment(torch.zeros(4, 2))),
            ValueError,
            r"expected value with shape \[k, \*batch_shape\] = \[4, 3\], got \[4, 2\]",
        ),
        (
            lambda: population(assessment=Assessment(torch.zeros(4, 3), cases=torch.zeros(4, 3))),
            ValueError,
            r"expected cases with shape \[k, \*batch_shape, c\] = \[4, 3, c\], got \[4, 3\]",
        ),
        (
            lambda: Population({"x": torch.zeros(2, 3)}, traits={"age": [1.0, 2.0]}),
            TypeError,
            "expected trait 'age' of type Tensor, got list; use torch.as_tensor",
        ),
        (
            lambda: population(assessment=torch.zeros(4, 3)),
            TypeError,
            r"expected assessment of type Assessment, got Tensor; use Assessment\(costs\)",
        ),
        (lambda: Individual({"x": torch.zeros(3)}, -1), ValueError, "expected batch_ndim >= 0, got -1"),
        (lambda: Population({"x": torch.zeros(3)}, -1), ValueError, "expected batch_ndim >= 0, got -1"),
        (lambda: Population({"x": torch.zeros(3)}, True), TypeError, "expected batch_ndim to be an integer, got True"),
        (lambda: Individual({"x": torch.zeros(3)}).populate(0), ValueError, "expected k >= 1, got 0"),
        (lambda: Assessment([1.0]), TypeError, "expected value to be a tensor, got list; use torch.as_tensor"),
        (lambda: Assessment(torch.zeros(2) + 1j), TypeError, "expected value to be real, got torch.complex64"),
    ],
)
def test_what_does_not_fit_is_refused(build: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        build()


def test_two_populations_of_other_names_or_directions_do_not_join() -> None:
    p = population(assessment=Assessment(torch.zeros(4, 3)))
    with pytest.raises(ValueError, match=r"expected populations of the same names, got genes .* traits"):
        p.cat(population().with_traits(age=torch.zeros(4, 3)))
    with pytest.raises(ValueError, match="expected two assessments of one direction, got maximize=False and True"):
        p.cat(population(assessment=Assessment(torch.zeros(4, 3), True)))
    with pytest.raises(ValueError, match="expected two assessments with the same fields"):
        p.cat(population(assessment=Assessment(torch.zeros(4, 3), cases=torch.zeros(4, 3, 2))))
    with pytest.raises(
        ValueError, match=r"as many searches and objectives, got values of shape \[4, 3\] and \[4, 3, 2\]"
    ):
        p.cat(population(assessment=Assessment(torch.zeros(4, 3, 2))))
    assert p.cat(population()).assessment is None


# the best


def test_cost_is_the_only_reader_of_the_direction() -> None:
    inf, nan = float("inf"), float("nan")
    value = torch.tensor([1.0, nan, inf, -inf])
    assert Assessment(value).cost.tolist() == [1.0, inf, inf, -inf]
    assert Assessment(value, True).cost.tolist() == [-1.0, inf, -inf, inf]
    assert Assessment(torch.tensor([1, 2])).value.dtype == torch.get_default_dtype()
    assert Assessment(torch.tensor([True, False]), True).cost.tolist() == [-1.0, -0.0]


@given(
    st.lists(st.sampled_from([0.0, 1.0, 2.0, float("nan"), float("inf"), -float("inf")]), min_size=1, max_size=6),
    st.booleans(),
)
def test_best_is_the_first_of_the_best_and_never_nan(values: list[float], maximize: bool) -> None:
    p = Population(
        {"x": torch.arange(float(len(values)))[:, None]}, assessment=Assessment(torch.tensor(values), maximize)
    )
    costs = [float("inf") if v != v else (-v if maximize else v) for v in values]
    assert int(p.best()["x"]) == costs.index(min(costs))


@pytest.mark.parametrize("maximize", [False, True])
def test_a_cost_that_was_carried_along_is_that_of_the_value(maximize: bool) -> None:
    value = torch.tensor([1.0, float("nan"), float("inf"), -float("inf"), 2.0, float("nan")])
    a, b = Assessment(value, maximize), Assessment(value.flip(0), maximize)
    mask = torch.tensor([True, False, True, False, True, True])
    for known in (False, True):
        if known:
            assert a.cost.shape == b.cost.shape
        both = a.zip(b, lambda mine, theirs: torch.where(mask, mine, theirs))
        assert ("_cost" in vars(both)) == known
        assert torch.equal(both.cost, Assessment(both.value, maximize).cost)


def test_several_objectives_have_no_best() -> None:
    p = Population({"x": torch.zeros(4, 2)}, assessment=Assessment(torch.zeros(4, 3)))
    with pytest.raises(ValueError, match=r"expected one objective, got 3; .* Pareto front"):
        p.best()
    assert p.cost.shape == (4, 3)
    with pytest.raises(ValueError, match=r"expected one objective, got 3; .*NSGA2, or one weighted sum"):
        _ = p.scalar_cost


def test_costs_may_be_attached_as_a_tensor() -> None:
    costs = torch.tensor([3, 1, 2])
    p = Population({"x": torch.arange(3)}).assessed(costs)
    assert p.cost.tolist() == p.scalar_cost.tolist() == [3.0, 1.0, 2.0]
    assert int(p.best()["x"]) == 1
    with pytest.raises(ValueError, match=r"expected value with shape \[k, \*batch_shape\] = \[3\], got \[2\]"):
        p.assessed(costs[:2])
    with pytest.raises(TypeError, match=r"expected value to be a tensor, got list; use torch\.as_tensor"):
        p.assessed([1.0, 2.0, 3.0])  # type: ignore[arg-type]


# rows, in ordinary memory and in memory used again


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.int16, torch.bool])
@pytest.mark.parametrize("large", [False, True])
def test_rows_equal_a_loop(dtype: torch.dtype, large: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    event = (300_000 if dtype.itemsize < 4 else 70_000) if large else 5
    a, b = (torch.randint(0, 100, (4, 2, event), generator=generator).to(dtype) for _ in "ab")
    index = torch.tensor([[3, 0], [1, 1], [0, 2]])
    mask = torch.tensor([[True, False], [False, False], [True, True], [False, True]])
    rows = b[:2]
    with Storages():
        for _ in range(3):  # the second time in used memory
            taken = take_rows(a, index)
            put = put_rows(a, index[:2], rows)
            chosen = select(mask, a, b)
            both = cat_rows(a, b)
            every = select(a > b, a, b)
    for search in range(2):
        for i in range(3):
            assert torch.equal(taken[i, search], a[index[i, search], search])
        for i in range(4):
            assert torch.equal(chosen[i, search], (a if mask[i, search] else b)[i, search])
            placed = index[:2, search].tolist()
            expected = rows[placed.index(i), search] if i in placed else a[i, search]
            assert torch.equal(put[i, search], expected)
    assert torch.equal(both, torch.cat([a, b]))
    assert torch.equal(every, torch.where(a > b, a, b))


def test_one_index_serves_every_search() -> None:
    p = population()
    assert torch.equal(p.take(torch.tensor([2, 0]))["x"], p["x"][[2, 0]])


@pytest.mark.parametrize(
    ("index", "kind", "message"),
    [
        ([0], TypeError, r"candidates' numbers, got list; use torch.as_tensor\(index\).long\(\)"),
        (torch.tensor([0.0]), TypeError, r"got torch.float32; use torch.as_tensor\(index\).long\(\)"),
        (torch.tensor([True]), TypeError, r"got torch.bool; use mask.nonzero\(\).squeeze\(1\)"),
        (torch.tensor(0), ValueError, r"\[j, \*batch_shape\] = \[j, 3\] and j >= 1, got \[\]"),
        (torch.zeros(2, 2, dtype=torch.int64), ValueError, r"= \[j, 3\] and j >= 1, got \[2, 2\]; give every search"),
        (torch.zeros(0, dtype=torch.int64), ValueError, r"and j >= 1, got \[0\]"),
    ],
)
def test_an_index_numbers_candidates(index: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        population().take(index)


def test_a_mask_says_yes_or_no_of_every_candidate() -> None:
    p = population()
    with pytest.raises(
        TypeError, match=r"expected mask as a boolean tensor, got torch\.float32; compare, as in mask > 0"
    ):
        p.where(torch.zeros(4, 3), p)
    with pytest.raises(TypeError, match="expected mask as a boolean tensor, got list"):
        p.where([True] * 4, p)  # type: ignore[arg-type]
    for wrong in ((5, 3), (4,), (4, 3, 2)):
        with pytest.raises(ValueError, match=r"expected mask with shape \[k, \*batch_shape\] = \[4, 3\], got"):
            p.where(torch.ones(wrong, dtype=torch.bool), p)


def test_populations_of_other_dtypes_or_shapes_do_not_join() -> None:
    p, mask = population(), torch.ones(4, 3, dtype=torch.bool)
    assert p.cat(population(5)).k == 9
    with pytest.raises(
        ValueError, match=r"expected 'x' of two populations alike, got .* \[4, 3, 2\] and .* \[5, 3, 2\]"
    ):
        p.where(mask, population(5))
    wide = p.with_genes({"x": p["x"].double()})
    for join in (p.cat, lambda other: p.where(mask, other)):
        with pytest.raises(
            ValueError, match=r"got torch.float32 \[4, 3, 2\] and torch.float64 .*; cast or reshape one"
        ):
            join(wide)
    with pytest.raises(ValueError, match=r"expected 'age' of two populations alike but for k, got torch\.float32"):
        p.with_traits(age=torch.zeros(4, 3)).cat(p.with_traits(age=torch.zeros(4, 3, dtype=torch.int64)))
    with pytest.raises(ValueError, match="expected populations of one batch_ndim, got 1 and 0; give both one"):
        p.cat(Population({"x": p["x"]}))


# modules


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 1))


def test_a_modules_parameters_become_genes_and_come_back() -> None:
    module = net()
    before = {name: x.detach().clone() for name, x in module.named_parameters()}
    genes = Individual.from_module(module)
    assert set(genes.genes) == set(before)
    moved = Individual({name: x + 1 for name, x in genes.genes.items()})
    assert all(torch.equal(x, before[name]) for name, x in module.named_parameters())  # untouched until asked
    moved.to_module(module)
    assert all(torch.equal(x, before[name] + 1) for name, x in module.named_parameters())


def test_frozen_layers_are_no_genes_and_stay() -> None:
    module = net()
    module[0].requires_grad_(False)
    frozen = module[0].weight.clone()
    genes = Individual.from_module(module)
    assert set(genes.genes) == {"2.weight", "2.bias"}
    Individual({name: torch.zeros_like(x) for name, x in genes.genes.items()}).to_module(module)
    assert torch.equal(module[0].weight, frozen)
    assert set(Individual.from_module(module, ["0.bias"]).genes) == {"0.bias"}


def test_what_a_module_cannot_give_or_take_is_refused() -> None:
    module = net()
    with pytest.raises(ValueError, match=r"expected names among .*, got 'colour'; see module.named_parameters"):
        Individual.from_module(module, ["colour"])
    with pytest.raises(ValueError, match="expected a module with trainable parameters, got none"):
        Individual.from_module(nn.Tanh())
    with pytest.raises(ValueError, match=r"expected a module with a parameter '0.bias' of shape \[3\], got \[2\]"):
        Individual({"0.bias": torch.zeros(3)}).to_module(module)
    with pytest.raises(ValueError, match="got no such parameter"):
        Individual({"colour": torch.zeros(3)}).to_module(module)
    with pytest.raises(ValueError, match="expected an individual without searches"):
        Individual({"0.bias": torch.zeros(4, 2)}, 1).to_module(module)
