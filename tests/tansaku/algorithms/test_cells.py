"""Grids and centroids: which cell a descriptor belongs to."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tansaku import Centroids, Grid, host

NAN, INF = math.nan, math.inf


@pytest.mark.filterwarnings("error")
def test_a_grid_takes_one_descriptor_or_many_and_numbers_of_any_size() -> None:
    grid = Grid((2, 5))
    assert int(grid.index(torch.tensor([0.1, 0.9]))) == 4
    assert int(grid.index(torch.tensor([NAN, 0.9]))) == 10
    assert grid.index(torch.tensor([[1e308, -1e308]], dtype=torch.float64)).tolist() == [5]
    many = torch.rand(10_000, 2)
    assert torch.equal(grid.index(many)[:50], grid.index(many[:50]))


@given(st.lists(st.tuples(*[st.sampled_from([-7.0, 0.0, 0.3, 0.5, 0.75, 1.0, 9.0, NAN, INF, -INF])] * 2), min_size=1))
def test_a_grid_finds_the_same_cells_on_the_host_and_on_a_device(rows: list[Any]) -> None:
    grid = Grid((4, 3), (0.0, -1.0), (1.0, 2.0))
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        descriptor = torch.tensor(rows, dtype=dtype, requires_grad=True)
        here = grid.index(descriptor).tolist()
        with host.all_apart():
            assert grid.index(descriptor.detach()).tolist() == here


def test_a_grid_counts_its_boxes_with_the_last_dimension_fastest() -> None:
    grid = Grid((2, 3), (0.0, -1.0), (1.0, 2.0))
    descriptor = torch.tensor([[0.0, -1.0], [0.49, 1.99], [0.5, 0.0], [1.0, 2.0], [-INF, INF]])
    assert grid.index(descriptor).tolist() == [0, 2, 4, 5, 2]
    assert (grid.count, grid.dimensions) == (6, 2)


@pytest.mark.parametrize("make", [lambda: Grid((2,), 1.0, 0.0), lambda: Grid((2, 2), (0.0,), 1.0), lambda: Grid((0,))])
def test_a_wrong_grid_is_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        make()


def test_a_descriptor_belongs_to_the_nearest_centroid() -> None:
    generator = torch.Generator().manual_seed(0)
    cells = Centroids.spread(Grid((1, 1), -1.0, 1.0), 40, generator)
    descriptor = 3 * torch.rand(5, 300, 2, generator=generator) - 1.5
    distance = (descriptor[:, :, None] - cells.points).square().sum(-1)
    assert torch.equal(cells.index(descriptor), distance.argmin(-1))
    with pytest.raises(ValueError, match=r"expected points as real numbers \[cells, d\]"):
        Centroids(torch.zeros(3))


def test_spread_centroids_have_regions_of_about_one_size() -> None:
    generator = torch.Generator().manual_seed(0)
    cells = Centroids.spread(Grid((1, 1)), 25, generator)
    unit = torch.rand(20_000, 2, generator=generator)
    share = torch.bincount(cells.index(unit), minlength=25) / 20_000
    assert float(share.min()) > 0.5 / 25
    assert float(share.max()) < 1.7 / 25
    uniform = Centroids(torch.rand(25, 2, generator=generator))
    assert float(share.std()) < 0.5 * float((torch.bincount(uniform.index(unit), minlength=25) / 20_000).std())
