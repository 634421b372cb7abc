"""Ranks, crowding, hypervolume and the real-coded kernels against slow, obvious references."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tansaku import host
from tansaku.functional import crowding_distances, hypervolume, pareto_ranks, polynomial, sbx

INF, NAN = math.inf, math.nan
numbers = st.sampled_from([0.0, 1.0, 2.0, 2.5, 3.0, -1.0, INF, -INF, NAN])
finite = st.sampled_from([0.0, 0.25, 1.0, 2.0, 2.5, 3.0, 4.0, 5.0])


@st.composite
def costs(draw: st.DrawFn, values: st.SearchStrategy[float] = numbers, most: int = 3) -> list[list[float]]:
    m = draw(st.integers(1, most))
    row = st.lists(values, min_size=m, max_size=m)
    return draw(st.lists(row, min_size=1, max_size=30))


def slow_dominates(a: list[float], b: list[float]) -> bool:
    a, b = ([INF if math.isnan(v) else v for v in row] for row in (a, b))
    return all(p <= q for p, q in zip(a, b, strict=True)) and any(p < q for p, q in zip(a, b, strict=True))


def slow_ranks(rows: list[list[float]]) -> list[int]:
    """Peels front after front."""
    rank, left, front = [0] * len(rows), set(range(len(rows))), 0
    while left:
        best = {i for i in left if not any(slow_dominates(rows[j], rows[i]) for j in left)}
        for i in best:
            rank[i] = front
        left -= best
        front += 1
    return rank


def slow_crowding(rows: list[list[float]], rank: list[int]) -> list[float]:
    """The paper's crowding-distance-assignment, front by front."""
    distance = [0.0] * len(rows)
    for front in set(rank):
        members = [i for i in range(len(rows)) if rank[i] == front]
        for j in range(len(rows[0])):
            value = {i: INF if math.isnan(rows[i][j]) else rows[i][j] for i in members}
            order = sorted(members, key=lambda i: value[i])
            span = value[order[-1]] - value[order[0]]
            for p in range(1, len(order) - 1):
                if math.isfinite(span) and span > 0:
                    distance[order[p]] += (value[order[p + 1]] - value[order[p - 1]]) / span
            distance[order[0]] = distance[order[-1]] = INF
    return distance


def slow_volume(rows: list[list[float]], reference: list[float]) -> float:
    """Adds the boxes of the grid that all coordinates make, where a candidate dominates them."""
    axes = [sorted({r, *(row[j] for row in rows if row[j] < r)}) for j, r in enumerate(reference)]
    total = 0.0
    for corner in itertools.product(*(range(len(axis) - 1) for axis in axes)):
        low = [axis[c] for axis, c in zip(axes, corner, strict=True)]
        if any(all(v <= p for v, p in zip(row, low, strict=True)) for row in rows):
            total += math.prod(axis[c + 1] - axis[c] for axis, c in zip(axes, corner, strict=True))
    return total


def ranks(cost: torch.Tensor) -> torch.Tensor:
    """Found in the host's memory, and the same by blocks, as on a device."""
    rank = pareto_ranks(cost)
    with host.all_apart():
        assert torch.equal(pareto_ranks(cost), rank)
    return rank


@given(costs())
def test_ranks_and_crowding_are_those_of_the_obvious_way(rows: list[list[float]]) -> None:
    cost = torch.tensor(rows, dtype=torch.float64)
    rank = ranks(cost)
    assert rank.tolist() == slow_ranks(rows)
    assert crowding_distances(cost, rank).tolist() == pytest.approx(slow_crowding(rows, rank.tolist()))


@pytest.mark.parametrize("m", [1, 2, 3, 5])
def test_ranks_of_many_candidates_are_those_of_the_obvious_way(m: int) -> None:
    generator = torch.Generator().manual_seed(m)
    for cost in (torch.rand(150, m, generator=generator), torch.randint(6, (150, m), generator=generator).float()):
        rank = ranks(cost)
        assert rank.tolist() == slow_ranks(cost.tolist())
        assert crowding_distances(cost, rank).tolist() == pytest.approx(
            slow_crowding(cost.double().tolist(), rank.tolist()), rel=1e-5
        )


def test_a_chain_of_candidates_has_as_many_fronts() -> None:
    chain = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ranks(chain[:, None].expand(-1, 2).double()), chain)


def test_a_batch_is_ranked_search_by_search() -> None:
    cost = torch.randint(5, (37, 3, 2, 2), generator=torch.Generator().manual_seed(0)).double()
    rank, volume = pareto_ranks(cost), hypervolume(cost, torch.tensor([6.0, 5.0]))
    crowding = crowding_distances(cost, rank)
    for i, j in itertools.product(range(3), range(2)):
        assert torch.equal(rank[:, i, j], pareto_ranks(cost[:, i, j]))
        assert torch.equal(crowding[:, i, j], crowding_distances(cost[:, i, j], rank[:, i, j]))
        assert volume[i, j] == hypervolume(cost[:, i, j], torch.tensor([6.0, 5.0]))


def test_ranks_and_crowding_compile_to_one_graph() -> None:
    cost = torch.rand(20, 2, generator=torch.Generator().manual_seed(0))

    def both(cost: torch.Tensor) -> torch.Tensor:
        return crowding_distances(cost, pareto_ranks(cost))

    try:
        assert torch.equal(torch.compile(both, fullgraph=True, backend="eager")(cost), both(cost))
    finally:
        torch._dynamo.reset()


@given(costs(finite))
def test_hypervolume_is_that_of_the_boxes_of_a_grid(rows: list[list[float]]) -> None:
    reference = [4.0, 3.5, 4.5][: len(rows[0])]
    volume = hypervolume(torch.tensor(rows, dtype=torch.float64), torch.tensor(reference))
    assert float(volume) == pytest.approx(slow_volume(rows, reference))


@given(costs())
def test_hypervolume_is_never_nan_and_grows_with_candidates(rows: list[list[float]]) -> None:
    cost = torch.tensor(rows, dtype=torch.float64)
    reference = torch.full((cost.shape[1],), 2.7)
    whole, part = hypervolume(cost, reference), hypervolume(cost[: 1 + len(rows) // 2], reference)
    assert bool(whole >= part)
    assert bool(part >= 0)


def test_a_large_set_in_three_objectives_is_swept_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    import tansaku.functional.volume as module

    cost = torch.rand(40, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = hypervolume(cost, torch.ones(3))
    monkeypatch.setattr(module, "_PAIRS", 300)
    assert torch.allclose(hypervolume(cost, torch.ones(3)), whole, rtol=1e-14)


def test_a_hypervolume_that_cannot_be_computed_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one to three objectives for the exact hypervolume, got 4"):
        hypervolume(torch.zeros(2, 4), torch.ones(4))
    with pytest.raises(ValueError, match=r"expected a reference point with one number per objective, \[2\], got \[3\]"):
        hypervolume(torch.zeros(2, 2), torch.ones(3))


ENDLESS = torch.tensor(-INF, dtype=torch.float64), torch.tensor(INF, dtype=torch.float64)


def test_sbx_without_bounds_spreads_as_its_density_says() -> None:
    n, eta = 200_000, 3.0
    a, b = torch.zeros(n, dtype=torch.float64), torch.ones(n, dtype=torch.float64)
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    c1, c2 = sbx(b, a, u, eta, *ENDLESS)
    assert torch.allclose(c1 + c2, torch.ones_like(a))
    beta = c2 - c1
    # P(beta <= 1) = 0.5 and P(beta <= t) = 0.5 t^(eta + 1) for t <= 1, 1 - 0.5 t^-(eta + 1) beyond
    for t, expected in ((0.5, 0.5**5), (0.8, 0.5 * 0.8**4), (1.0, 0.5), (1.5, 1 - 0.5 * 1.5**-4)):
        assert float((beta <= t).double().mean()) == pytest.approx(expected, abs=2 / n)


def test_sbx_equals_debs_formula_within_bounds() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b, u = (torch.rand(50, generator=generator, dtype=torch.float64) for _ in range(3))
    c1, c2 = sbx(a, b, u, 15.0, torch.tensor(-0.1), torch.tensor(1.0))
    for i in range(50):
        y1, y2, r = min(float(a[i]), float(b[i])), max(float(a[i]), float(b[i])), float(u[i])
        for child, sign, room in ((c1[i], -1, y1 + 0.1), (c2[i], 1, 1.0 - y2)):
            alpha = 2 - (1 + 2 * room / (y2 - y1)) ** -16
            q = (r * alpha) ** (1 / 16) if r <= 1 / alpha else (1 / (2 - r * alpha)) ** (1 / 16)
            expected = 0.5 * (y1 + y2 + sign * q * (y2 - y1))
            assert float(child) == pytest.approx(expected, rel=1e-6)


def test_equal_parents_have_equal_children() -> None:
    a = torch.tensor([0.3, 0.0, 1.0])
    for child in sbx(a, a, torch.tensor([0.0, 0.5, 0.99]), 20.0, torch.tensor(0.0), torch.tensor(1.0)):
        assert torch.equal(child, a)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_children_of_sbx_and_polynomial_mutation_stay_in_the_box(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    low, high = torch.tensor(2.0, dtype=dtype), torch.tensor(5.0, dtype=dtype)
    a, b, u = (torch.rand(20_000, generator=generator, dtype=dtype) for _ in range(3))
    u[:3] = torch.tensor([0.0, 0.5, 1 - torch.finfo(dtype).eps / 2], dtype=dtype)
    a, b = 2 + 3 * a, 2 + 3 * b
    for child in (*sbx(a, b, u, 2.0, low, high), polynomial(a, u, 2.0, low, high)):
        assert bool(((child >= low - 1e-6) & (child <= high + 1e-6)).all())


def test_polynomial_mutation_equals_debs_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    x, u = (torch.rand(60, generator=generator, dtype=torch.float64) for _ in range(2))
    moved = polynomial(x, u, 20.0, torch.tensor(0.0), torch.tensor(2.0))
    for y, r, child in zip(x.tolist(), u.tolist(), moved.tolist(), strict=True):
        if r < 0.5:
            step = (2 * r + (1 - 2 * r) * (1 - y / 2) ** 21) ** (1 / 21) - 1
        else:
            step = 1 - (2 * (1 - r) + 2 * (r - 0.5) * (1 - (2 - y) / 2) ** 21) ** (1 / 21)
        assert child == pytest.approx(y + 2 * step, abs=1e-12)


def test_a_gene_without_room_does_not_move() -> None:
    x = torch.tensor([3.0, 3.0])
    assert torch.equal(polynomial(x, torch.tensor([0.1, 0.9]), 20.0, x, x), x)
    assert torch.equal(polynomial(x, torch.tensor([0.1, 0.1]), 20.0, x, x + 1), x)
