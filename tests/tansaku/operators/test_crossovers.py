"""SBX, cuts at points, arithmetic and order crossover: exact values, slow references, frequencies against theory."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor

from tansaku import (
    SBX,
    ArithmeticCrossover,
    Blend,
    NPointCrossover,
    OnePointCrossover,
    OrderCrossover,
    PerNameCrossover,
    Population,
    TwoPointCrossover,
    UniformCrossover,
)
from tansaku.operators.permutation import order_crossover
from tansaku.operators.points import segments
from tansaku.operators.sbx import spread_factor

N = 60_000


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def near(share: Tensor | float, expected: float, n: int = N) -> bool:
    return abs(float(share) - expected) <= 5 * (expected * (1 - expected) / n) ** 0.5 + 1e-12


def two(n: int, k: int = N, dtype: torch.dtype = torch.float64) -> tuple[Population, Population]:
    zero, one = (Population({"x": torch.full((k, n), value).to(dtype)}) for value in (0, 1))
    return zero, one


def test_the_spread_factor_has_the_papers_density() -> None:
    """Contracting, the density is (eta + 1) / 2 * beta^eta; expanding, (eta + 1) / 2 / beta^(eta + 2)."""
    assert spread_factor(torch.tensor([0.0, 0.5, 0.875]), 1.0).tolist() == pytest.approx([0.0, 1.0, 2.0])
    u = torch.rand(N, dtype=torch.float64, generator=noise())
    for eta in (0.0, 2.0, 15.0):
        beta = spread_factor(u, eta)
        assert near((beta < 1).double().mean(), 0.5)
        assert near((beta < 0.8).double().mean(), 0.5 * 0.8 ** (eta + 1))
        assert near((beta > 1.5).double().mean(), 0.5 / 1.5 ** (eta + 1))


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("swap", [0.0, 0.3, 1.0])
def test_sbx_crosses_and_swaps_as_often_as_it_says(probability: float, swap: float) -> None:
    a, b = two(1)
    child = SBX(2.0, probability, swap)(a, b, noise())["x"]
    assert near((child != 0).double().mean(), probability)
    crossed = child[child != 0]
    if probability:
        assert near((crossed > 0.5).double().mean(), swap, crossed.numel())
        spread = (2 * crossed - 1).abs()
        assert near((spread < 1).double().mean(), 0.5, crossed.numel())


def test_a_pair_of_sbx_children_keeps_the_parents_middle() -> None:
    a, b = (Population({"x": torch.randn(50, 3, dtype=torch.float64, generator=noise(seed))}) for seed in (1, 2))
    one, other = SBX(5.0, 1.0, 0.0)(a, b, noise()), SBX(5.0, 1.0, 1.0)(a, b, noise())
    assert torch.allclose(one["x"] + other["x"], a["x"] + b["x"])


@pytest.mark.parametrize("points", [1, 2, 3, 5, 9])
def test_every_set_of_cuts_is_equally_likely_and_the_last_gene_may_be_cut_off(points: int) -> None:
    n = 6
    a, b = two(n)
    child = NPointCrossover(points)(a, b, noise())["x"].long()
    assert bool((child[:, 0] == 0).all())
    cuts = (child[:, 1:] != child[:, :-1]).long()
    sets = list(combinations(range(n - 1), min(points, n - 1)))
    number = (cuts * 2 ** torch.arange(n - 1)).sum(1)
    for chosen in sets:
        assert near((number == sum(2**i for i in chosen)).double().mean(), 1 / len(sets))


def test_segments_take_turns_at_every_cut() -> None:
    assert segments(torch.tensor([1]), 4).long().tolist() == [0, 1, 1, 1]
    assert segments(torch.tensor([3]), 4).long().tolist() == [0, 0, 0, 1]
    assert segments(torch.tensor([[4, 1], [2, 3]]), 5).long().tolist() == [[0, 1, 1, 1, 0], [0, 0, 1, 0, 0]]


def test_one_and_two_points_are_n_points_by_name() -> None:
    a, b = two(7, 50)
    for named, points in ((OnePointCrossover(), 1), (TwoPointCrossover(), 2)):
        assert torch.equal(named(a, b, noise())["x"], NPointCrossover(points)(a, b, noise())["x"])
    one = Population({"x": torch.zeros(3)}), Population({"x": torch.ones(3)})
    assert OnePointCrossover()(*one, noise())["x"].tolist() == [0.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="expected points >= 1, got 0"):
        NPointCrossover(0)


def test_arithmetic_children_share_one_weight_between_all_genes() -> None:
    a, b = two(4)
    child = ArithmeticCrossover()(a, b, noise())["x"]
    assert bool((child == child[:, :1]).all())
    for quarter in (0.25, 0.5, 0.75):
        assert near((child[:, 0] < quarter).double().mean(), quarter)
    assert bool((ArithmeticCrossover(0.25)(a, b, noise())["x"] == 0.25).all())
    with pytest.raises(ValueError, match=r"expected weight in \[0, 1\], got 2"):
        ArithmeticCrossover(2)


def slow_order_crossover(a: list[int], b: list[int], first: int, last: int) -> list[int]:
    n = len(a)
    child: list[int | None] = [None] * n
    child[first:last] = a[first:last]
    place = last % n
    for i in range(n):
        gene = b[(last + i) % n]
        if gene in child:
            continue
        child[place] = gene
        place = (place + 1) % n
    return child  # type: ignore[return-value]


def test_order_crossover_equals_a_slow_reference() -> None:
    for n in (1, 2, 5, 8):
        a, b = (torch.rand(200, n, generator=noise(seed)).argsort(-1) for seed in (1, 2))
        first = torch.randint(n, (200,), generator=noise(3))
        last = first + 1 + (torch.rand(200, generator=noise(4)) * (n - first)).long()
        child = order_crossover(a, b, first, last)
        for i in range(200):
            expected = slow_order_crossover(a[i].tolist(), b[i].tolist(), int(first[i]), int(last[i]))
            assert child[i].tolist() == expected


def test_order_crossover_keeps_every_piece_of_the_first_parent_equally_often() -> None:
    n, k = 4, N
    a = Population({"x": torch.arange(n).expand(k, n)})
    b = Population({"x": torch.tensor([1, 0, 3, 2]).expand(k, n)})
    child = OrderCrossover()(a, b, noise())["x"]
    pieces = [(i, j) for i in range(n) for j in range(i + 1, n + 1)]
    made = [tuple(slow_order_crossover(list(range(n)), [1, 0, 3, 2], i, j)) for i, j in pieces]
    for row in set(made):
        share = (child == torch.tensor(row)).all(1).double().mean()
        assert near(share, made.count(row) / len(pieces))


def test_wrong_dtypes_are_met_by_the_name_of_another_operator() -> None:
    whole, real = (Population({"x": torch.zeros(2, 3, dtype=dtype)}) for dtype in (torch.int64, torch.float32))
    with pytest.raises(TypeError, match=r"expected real genes for SBX, got 'x' of torch.int64; use UniformCrossover"):
        SBX()(whole, whole, noise())
    with pytest.raises(TypeError, match=r"expected real genes for ArithmeticCrossover.*use UniformCrossover"):
        ArithmeticCrossover()(whole, whole, noise())
    with pytest.raises(TypeError, match=r"expected integer genes for order crossover.*torch.float32; use Uniform"):
        OrderCrossover()(real, real, noise())


def test_each_name_may_have_its_own_crossover() -> None:
    a = Population({n: torch.zeros(500, 3) for n in ("w", "m", "kept")})
    b = Population({n: torch.ones(500, 3) for n in ("w", "m", "kept")})
    child = PerNameCrossover({"w": Blend(0.0), "m": UniformCrossover(1.0)})(a, b, noise())
    assert 0.4 < float(child["w"].mean()) < 0.6
    assert bool((child["m"] == 1).all())
    assert bool((child["kept"] == 0).all())
    with pytest.raises(ValueError, match=r"expected names among \['kept', 'm', 'w'\], got \['z'\]"):
        PerNameCrossover({"z": Blend()})(a, b, noise())
