"""Genes beside a bound in single precision: every kernel gives the answer of double precision, rounded."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tansaku import NSGA2, SBX, Bounds, Objective, Polynomial, Population, Search
from tansaku.functional import hypervolume, polynomial, sbx
from tansaku.testing import ackley, dtlz2, rastrigin, zdt3, zdt4, zdt6

EPS = torch.finfo(torch.float32).eps
BOXES = [(0.0, 1.0), (1.0, 1.001), (-1e6, 1e6), (-1.0, 0.0), (-3.0, 5.0)]
DRAWS = torch.cat(
    [
        torch.tensor([0.0, 1e-7, 1e-3, 0.1, 0.4999, 0.5 - 2**-25, 0.5, 0.5 + 2**-24, 0.9, 0.999, 1 - 1e-6, 1 - 2**-24]),
        torch.rand(200, generator=torch.Generator().manual_seed(0)),
    ]
)


def places(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """[places, draws] genes beside both ends and between."""
    share = torch.tensor([0.0, 1e-9, 1e-7, 1e-6, 1e-3, 0.3, 0.5, 0.7])[:, None]
    x = torch.cat([low + share * (high - low), high - share * (high - low)]).clamp(low, high)
    return x.expand(len(x), len(DRAWS)).contiguous()


@pytest.mark.parametrize("eta", [0.0, 2.0, 20.0, 100.0])
@pytest.mark.parametrize("box", BOXES)
def test_polynomial_mutation_in_single_precision_is_that_of_double_rounded(
    box: tuple[float, float], eta: float
) -> None:
    low, high = torch.tensor(box[0]), torch.tensor(box[1])
    x = places(low, high)
    u = DRAWS.expand_as(x)
    single = polynomial(x, u, eta, low, high)
    double = polynomial(x.double(), u.double(), eta, low.double(), high.double())
    assert bool(((single >= low) & (single <= high)).all())
    assert bool(((double >= low) & (double <= high)).all())
    excess = (single - double).abs() / (double.abs() + x.abs() + 1e-30)
    assert float(excess.max()) <= 4 * EPS


@pytest.mark.parametrize("eta", [0.0, 2.0, 20.0, 100.0])
@pytest.mark.parametrize("box", BOXES)
def test_sbx_in_single_precision_is_that_of_double_rounded(box: tuple[float, float], eta: float) -> None:
    low, high = torch.tensor(box[0]), torch.tensor(box[1])
    x = places(low, high)
    u = DRAWS.expand_as(x)
    for other in (torch.full_like(x, box[0] + (box[1] - box[0]) / 2), (low + 1.5 * (x - low)).clamp(low, high)):
        singles = sbx(x, other, u, eta, low, high)
        doubles = sbx(x.double(), other.double(), u.double(), eta, low.double(), high.double())
        parents = torch.minimum(x, other), torch.maximum(x, other)
        for single, double, parent in zip(singles, doubles, parents, strict=True):
            assert bool(((single >= low) & (single <= high)).all())
            gap = torch.where(parent == 0, (x - other).abs(), 0)  # a parent at 0 has no digits of its own
            assert bool(((single - double).abs() <= 4 * EPS * (double.abs() + parent.abs() + gap)).all())


@pytest.mark.parametrize("x", [1e-3, 1e-5, 1e-6, 1e-7, 1e-9])
def test_children_beside_zero_have_all_their_digits(x: float) -> None:
    u = DRAWS[1:]
    gene, zero, one = torch.full_like(u, x), torch.zeros(()), torch.ones(())
    double = polynomial(gene.double(), u.double(), 20.0, zero.double(), one.double())
    assert torch.allclose(polynomial(gene, u, 20.0, zero, one).double(), double, rtol=1e-6, atol=0.0)
    single, _ = sbx(gene, torch.full_like(u, 0.5), u, 20.0, zero, one)
    double, _ = sbx(gene.double(), torch.full_like(u, 0.5).double(), u.double(), 20.0, zero.double(), one.double())
    assert torch.allclose(single.double(), double, rtol=1e-6, atol=0.0)


def test_bounds_per_gene_are_kept_apart() -> None:
    low, high = torch.tensor([0.0, 1.0, -1e6]), torch.tensor([1.0, 1.001, 1e6])
    x = (low + 1e-6 * (high - low)).expand(len(DRAWS), 3)
    u = DRAWS[:, None].expand_as(x)
    whole = polynomial(x, u, 20.0, low, high)
    for gene in range(3):
        alone = polynomial(x[:, gene], u[:, gene], 20.0, low[gene], high[gene])
        assert torch.allclose(whole[:, gene], alone, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("repair", ["reflect", "wrap"])
def test_a_short_way_outside_is_folded_with_its_precision(repair: Any) -> None:
    for low, high in ((0.0, 1.0), (-1e6, 1e-3), (-1e-3, 1e6)):
        box = Bounds(low, high, repair)
        outside = torch.tensor([low - 1e-7 * abs(low or 1e-2), high + 1e-7 * high, high + 1e-3, low - 1e-3])
        single, double = box.repaired("x", outside), box.repaired("x", outside.double())
        ends = box.ends("x", outside)
        assert ends is not None
        exact = Bounds(ends[0].double(), ends[1].double(), repair).repaired("x", outside.double())
        assert bool(((single - exact).abs() <= 2 * EPS * exact.abs()).all()), (low, high, single, exact)
        assert bool(((double >= low) & (double <= high)).all())
    tiny = Bounds(0.0, 1.0, repair).repaired("x", torch.tensor([-1e-9]))
    assert float(tiny) == pytest.approx(1e-9 if repair == "reflect" else 1.0)


@pytest.mark.parametrize("name", ["polynomial", "sbx"])
def test_the_operators_never_leave_a_box_beside_its_bounds(name: str) -> None:
    x = torch.logspace(-9, -3, 64).repeat(512, 1)
    noise = torch.Generator().manual_seed(0)
    start = Population({"x": x})
    box = Bounds(0.0, 1.0)
    made = Polynomial(box, rate=1.0)(start, noise) if name == "polynomial" else box(SBX()(start, start, noise))
    assert bool(((made["x"] >= 0) & (made["x"] <= 1)).all())


@pytest.mark.parametrize("seed", range(2))
def test_nsga2_in_single_precision_reaches_the_front_of_zdt6(seed: int) -> None:
    start = torch.rand(100, 10, generator=torch.Generator().manual_seed(seed))
    search: Search[Any] = Search(
        NSGA2(k=100, bounds=Bounds(0.0, 1.0)), Objective(zdt6), Population({"x": start}), seed=seed
    )
    search.run(max_evaluations=20_000)
    assert search.best["x"].dtype == torch.float32
    assert float(hypervolume(search.value.double(), torch.tensor([11.0, 11.0]))) >= 117.1


@pytest.mark.parametrize("function", [rastrigin, ackley, zdt3, zdt4, zdt6, dtlz2])
def test_trigonometric_problems_compute_in_double_and_answer_in_the_genes_dtype(function: Any) -> None:
    x = torch.rand(64, 10, generator=torch.Generator().manual_seed(0))
    assert function(x).dtype == torch.float32
    assert torch.equal(function(x), function(x.double()).float())
    assert torch.equal(torch.stack([function(row) for row in x]), function(x))
    assert function(x.double()).dtype == torch.float64


def test_the_fronts_of_zdt4_and_zdt6_are_where_the_paper_says() -> None:
    first = torch.linspace(0, 1, 9, dtype=torch.float64)[:, None]
    x = torch.cat([first, torch.zeros(9, 4, dtype=torch.float64)], -1)
    assert torch.allclose(zdt4(x)[:, 1], 1 - first[:, 0].sqrt())
    f = zdt6(x)
    assert torch.allclose(f[:, 1], 1 - f[:, 0] ** 2)
    assert float(zdt6(torch.full((5,), 0.5, dtype=torch.float64))[1]) > 8  # far from the front: g = 1 + 9 * 0.5^0.25
