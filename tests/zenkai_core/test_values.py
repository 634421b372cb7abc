from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zenkai_core import IO, as_io


def test_an_index_gives_a_tensor_and_a_slice_an_io() -> None:
    a, b = torch.zeros(2, 3), torch.ones(2)
    io = IO(a, b)
    assert io[1] is b
    assert io.f is a
    assert isinstance(io[:1], IO)
    assert io[:1].f is a
    assert io.rows == 2


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (([1.0],), TypeError, "got list at position 0: write IO"),
        ((torch.zeros(2), 3), TypeError, "got int at position 1"),
        ((torch.tensor(1.0),), ValueError, "got a scalar at position 0"),
        ((torch.zeros(2), torch.zeros(3)), ValueError, "expected 2 rows in every tensor, got 3 at position 1"),
    ],
)
def test_only_tensors_with_common_rows_are_taken(values: tuple, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        IO(*values)


def test_an_empty_io_has_no_first_tensor() -> None:
    assert IO().rows == 0
    with pytest.raises(ValueError, match="no first tensor"):
        _ = IO().f


def test_clone_shares_no_storage_and_detach_does() -> None:
    io = IO(torch.zeros(2))
    io.clone().f.add_(1)
    assert io.f.tolist() == [0, 0]
    io.detach().f.add_(1)
    assert io.f.tolist() == [1, 1]


def test_leaves_never_make_the_callers_tensor_ask_for_a_gradient() -> None:
    io = IO(torch.zeros(2), torch.zeros(2, dtype=torch.int64))
    leaves = io.leaves(requires_grad=True)
    assert [v.requires_grad for v in leaves] == [True, False]
    assert not io.f.requires_grad


@given(st.integers(1, 5), st.integers(1, 4))
def test_row_r_of_a_tile_is_sample_r_modulo_n(k: int, n: int) -> None:
    io = IO(torch.randn(n, 2), torch.arange(n))
    for tiled, v in zip(io.tile(k), io, strict=True):
        assert all(torch.equal(tiled[r], v[r % n]) for r in range(k * n))


def test_copies_and_pickles_are_equal_ios() -> None:
    io = IO(torch.arange(3), torch.ones(3, 2))
    for other in (copy.deepcopy(io), pickle.loads(pickle.dumps(io))):
        assert isinstance(other, IO)
        assert all(torch.equal(a, b) for a, b in zip(io, other, strict=True))


def test_same_means_the_very_same_tensors() -> None:
    a = torch.zeros(2)
    assert IO(a).same(IO(a))
    assert not IO(a).same(IO(a.clone()))


def test_as_io_wraps_tensors_and_sequences_and_keeps_an_io() -> None:
    a = torch.zeros(2)
    io = IO(a)
    assert as_io(io) is io
    assert as_io(a).f is a
    assert as_io((a, a))[1] is a
    with pytest.raises(TypeError, match="got str"):
        as_io("x")  # type: ignore[arg-type]


def test_vmap_takes_and_returns_an_io() -> None:
    x = torch.randn(3, 2, 4)
    out = torch.func.vmap(lambda v: IO(v, v + 1))(x)
    assert isinstance(out, IO)
    assert torch.equal(out[1], x + 1)


def test_an_io_prints_its_dtypes_and_shapes() -> None:
    assert repr(IO(torch.zeros(2, 3), torch.arange(2))) == "IO(float32[2, 3], int64[2])"


def test_take_picks_rows_of_every_tensor() -> None:
    io = IO(torch.arange(4), torch.arange(8).view(4, 2)).take(torch.tensor([3, 0]))
    assert io[0].tolist() == [3, 0]
    assert io[1].tolist() == [[6, 7], [0, 1]]
