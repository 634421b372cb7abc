"""Who enters which cell of an archive, in what order, on the host and on a device."""

from __future__ import annotations

import contextlib
import copy
import math
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tansaku import host
from tansaku.functional import Shelf, Version, nth_member

NAN, INF = math.nan, math.inf


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.data())
def test_of_equal_candidates_the_first_enters(cells: list[int], data: st.DataObject) -> None:
    cost = data.draw(st.lists(st.sampled_from([1.0, 2.0, 3.0]), min_size=len(cells), max_size=len(cells)))
    held = [INF, 2.0, 1.0, 3.0, 0.0]
    shelf = Shelf(torch.tensor(held), {"x": torch.full((5,), -1)})
    met = shelf.enter(torch.tensor(cost), torch.tensor(cells), {"x": torch.arange(len(cells))}, [])
    assert met.tolist() == [held[cell] for cell in cells]
    for cell in range(5):
        rivals = [j for j, other in enumerate(cells) if other == cell and cost[j] < held[cell]]
        first = min(rivals, key=lambda j: (cost[j], j)) if rivals else -1
        assert int(shelf.rows["x"][cell]) == first
        assert float(shelf.cost[cell]) == (cost[first] if rivals else held[cell])


@given(st.lists(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=3), max_size=8))
def test_cells_are_listed_search_by_search_in_the_order_in_which_they_were_filled(batches: list[Any]) -> None:
    shelf = Shelf(torch.full((6, 2), INF), {})
    expected: tuple[list[int], list[int]] = ([], [])
    for i, batch in enumerate(batches):  # cell 6 is none; every generation is better than the last
        cell = torch.tensor(batch)
        shelf.enter(torch.full((3, 2), -float(i)), cell, {}, [])
        for pair in batch:
            for own, number in zip(expected, pair, strict=True):
                if number < 6 and number not in own:
                    own.append(number)
    assert shelf.filled.tolist() == [len(own) for own in expected]
    for search, own in enumerate(expected):
        assert shelf.order[:, search].tolist() == own + [0] * (6 - len(own))
    again = Shelf(shelf.cost, {}, shelf.order)
    assert torch.equal(again.order, shelf.order)
    assert [own[: len(e)] for own, e in zip(Shelf(shelf.cost, {}).order.T.tolist(), expected, strict=True)] == [
        sorted(own) for own in expected
    ]


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 6), st.sampled_from([0.0, 1.0, 2.0, -INF, INF])), max_size=9), max_size=5
    )
)
def test_looking_at_values_in_the_hosts_memory_gives_what_a_device_gives_without(batches: list[Any]) -> None:
    def run() -> list[Any]:
        version, met = Version(Shelf(torch.full((6,), INF), {"x": torch.zeros(6, 2, dtype=torch.bfloat16)})), []
        versions = [version]
        for i, batch in enumerate(batch for batch in batches if batch):
            cell, cost = torch.tensor([number for number, _ in batch]), torch.tensor([low for _, low in batch])
            rows = {"x": (torch.arange(2 * len(batch)).view(2, -1).T + 20 * i).to(torch.bfloat16)}
            version, held = version.entered(cost, cell, rows)
            versions.append(version)
            met.append(held.tolist())
        shelves = [each.shelf for each in versions[::-1]]  # the newest first: the others are made anew of it
        return [met, *([x.cost.tolist(), x.rows["x"].tolist(), x.order.tolist(), int(x.filled)] for x in shelves)]

    here = run()
    with host.all_apart():
        assert run() == here


EITHER = pytest.mark.parametrize("way", [contextlib.nullcontext, host.all_apart], ids=["host", "device"])


@EITHER
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.int32], ids=str)
def test_what_enters_takes_the_dtype_of_what_is_held(dtype: torch.dtype, way: Any) -> None:
    with way():
        shelf = Shelf(torch.full((2,), INF), {"x": torch.zeros(2, dtype=dtype)})
        cost = torch.tensor([0.1, 0.3], dtype=torch.float64)  # neither is a number of single precision
        shelf.enter(cost, torch.tensor([1, 0]), {"x": torch.tensor([3.0, 5.0], dtype=torch.float64)}, [])
    assert shelf.rows["x"].dtype == dtype
    assert shelf.rows["x"].tolist() == [5, 3]
    assert torch.equal(shelf.cost, cost.flip(0).float())
    assert int(shelf.filled) == 2


@EITHER
def test_rows_of_another_shape_and_cells_that_do_not_exist_are_refused(way: Any) -> None:
    with way():
        shelf = Shelf(torch.full((3,), INF), {"x": torch.zeros(3, 2)})
        with pytest.raises((ValueError, RuntimeError), match="shape"):
            shelf.enter(torch.zeros(2), torch.tensor([0, 1]), {"x": torch.zeros(2, 1)}, [])
        with pytest.raises(IndexError):
            shelf.enter(torch.zeros(1), torch.tensor([-2]), {"x": torch.zeros(1, 2)}, [])


def test_a_copy_of_a_shelf_is_a_shelf_of_its_own() -> None:
    shelf = Shelf(torch.full((3,), INF), {"x": torch.zeros(3)})
    shelf.enter(torch.tensor([1.0]), torch.tensor([2]), {"x": torch.ones(1)}, [])
    for copied in (copy.deepcopy(shelf), pickle.loads(pickle.dumps(shelf))):
        copied.enter(torch.tensor([2.0]), torch.tensor([0]), {"x": torch.full((1,), 4.0)}, [])
        assert copied.cost.tolist() == [2.0, INF, 1.0]
        assert copied.rows["x"].tolist() == [4.0, 0.0, 1.0]
        assert copied.order.tolist() == [2, 0, 0]
    assert shelf.cost.tolist() == [INF, INF, 1.0]


def test_the_nth_member_is_found_in_every_search() -> None:
    members = torch.tensor([[1, 0], [2, 1], [0, 2]])
    assert nth_member(members, torch.tensor([[0, 0], [1, 1]])).tolist() == [[1, 0], [2, 1]]
