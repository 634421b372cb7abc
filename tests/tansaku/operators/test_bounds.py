"""Bounds against a slow reference; what cannot be a box is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tansaku import Bounds, Individual, Population

REPAIRS = ("clip", "reflect", "wrap")


def slow_real(x: float, low: float, high: float, repair: str) -> float:
    if low <= x <= high:
        return x
    if repair == "clip" or low == high:
        return min(max(x, low), high)
    span = high - low
    if repair == "wrap":
        return low + math.fmod(math.fmod(x - low, span) + span, span)
    offset = math.fmod(math.fmod(x - low, 2 * span) + 2 * span, 2 * span)
    return low + min(offset, 2 * span - offset)


def slow_whole(x: int, low: int, high: int, repair: str) -> int:
    """Step by step."""
    if repair == "clip" or low == high:
        return min(max(x, low), high)
    at, way = low, 1
    if repair == "wrap":
        return low + (x - low) % (high - low + 1)
    for _ in range(abs(x - low)):
        if not low <= at + way <= high:
            way = -way
        at += way
    return at


@given(
    st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=8),
    st.integers(-10, 10),
    st.integers(0, 12),
    st.sampled_from(REPAIRS),
)
def test_real_genes_equal_the_slow_reference(x: list[float], low: int, span: int, repair: Any) -> None:
    genes = torch.tensor(x, dtype=torch.float64)
    repaired = Bounds(float(low), float(low + span), repair).repaired("x", genes)
    expected = torch.tensor([slow_real(v, low, low + span, repair) for v in x], dtype=torch.float64)
    assert torch.allclose(repaired, expected, atol=1e-9)
    assert bool(((repaired >= low) & (repaired <= low + span)).all())


@given(
    st.lists(st.integers(-100, 100), min_size=1, max_size=8),
    st.integers(-100, 90),
    st.integers(0, 37),
    st.sampled_from(REPAIRS),
    st.sampled_from([torch.int8, torch.int16, torch.int64]),
)
def test_whole_genes_equal_the_slow_reference(
    x: list[int], low: int, span: int, repair: Any, dtype: torch.dtype
) -> None:
    repaired = Bounds(low, low + span, repair).repaired("x", torch.tensor(x, dtype=dtype))
    assert repaired.dtype == dtype
    assert repaired.tolist() == [slow_whole(v, low, low + span, repair) for v in x]


def test_whole_genes_of_a_small_dtype_do_not_overflow() -> None:
    x = torch.tensor([127, -128, 50], dtype=torch.int8)
    assert Bounds(-100, 100, "reflect").repaired("x", x).tolist() == [73, -72, 50]


def test_genes_inside_stay_to_the_bit() -> None:
    x = torch.linspace(-0.3, 0.7, 101)
    for repair in REPAIRS:
        assert torch.equal(Bounds(-0.3, 0.7, repair).repaired("x", x), x)  # type: ignore[arg-type]


def test_nan_stays_nan() -> None:
    for repair in REPAIRS:
        repaired = Bounds(0.0, 1.0, repair).repaired("x", torch.tensor([math.nan, 0.5]))  # type: ignore[arg-type]
        assert math.isnan(repaired[0])
        assert repaired[1] == 0.5


@pytest.mark.parametrize("repair", REPAIRS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_an_infinite_gene_is_taken_to_the_end_that_it_passed(repair: Any, dtype: torch.dtype) -> None:
    x = torch.tensor([math.inf, -math.inf, 0.5, math.nan], dtype=dtype)
    for bounds in (Bounds(-1.0, 2.0, repair), Bounds(torch.tensor(-1.0), torch.tensor(2.0), repair)):
        repaired = bounds.repaired("x", x)
        assert repaired[:3].tolist() == [2.0, -1.0, 0.5]
        assert math.isnan(repaired[3])


@pytest.mark.parametrize("repair", REPAIRS)
def test_a_gene_as_far_as_its_dtype_reaches_comes_inside(repair: Any) -> None:
    most = torch.finfo(torch.float32).max
    repaired = Bounds(-most, most / 2, repair).repaired("x", torch.tensor([most, -most]))  # their distance is infinite
    assert bool(((repaired >= -most) & (repaired <= most / 2)).all())


def test_every_gene_may_have_its_own_ends() -> None:
    bounds = Bounds(torch.tensor([0.0, -1.0]), torch.tensor([0.0, 1.0]), "reflect")
    assert bounds.repaired("x", torch.tensor([[5.0, 1.5], [0.0, -3.0]])).tolist() == [[0.0, 0.5], [0.0, 1.0]]


def test_a_mapping_bounds_the_names_it_has() -> None:
    bounds = Bounds({"a": 0.0}, {"a": 1.0})
    repaired = bounds(Population({"a": torch.tensor([[5.0]]), "b": torch.tensor([[5.0]])}))
    assert (float(repaired["a"]), float(repaired["b"])) == (1.0, 5.0)
    assert (bounds.finite("a"), bounds.finite("b")) == (True, False)


def test_infinite_ends_leave_a_side_open() -> None:
    inf = math.inf
    assert Bounds(0.0, inf).repaired("x", torch.tensor([-5.0, 1024.0])).tolist() == [0.0, 1024.0]
    whole = Bounds(0.0, inf).repaired("x", torch.tensor([-5, 2**40]))
    assert whole.tolist() == [0, 2**40]
    assert Bounds(-inf, 3.0).repaired("x", torch.tensor([-(2**40), 7])).tolist() == [-(2**40), 3]
    assert Bounds(torch.tensor([0.0, -inf]), 1.0).repaired("x", torch.tensor([-2, -2])).tolist() == [0, -2]
    assert not Bounds(0.0, inf).finite("x")


def test_ends_of_whole_genes_are_rounded_inwards() -> None:
    low, high = Bounds(0.2, 3.7).ends("x", torch.zeros(1, dtype=torch.int64)) or (None, None)
    assert (int(low), int(high)) == (1, 3)  # type: ignore[arg-type]


def test_booleans_have_no_bounds() -> None:
    x = torch.tensor([True, False])
    bounds = Bounds(0.0, 1.0)
    assert bounds.repaired("x", x) is x
    assert bounds.ends("x", x) is None
    assert bounds.span("x", x) is None


def test_ends_given_as_numbers_are_as_exact_as_the_genes() -> None:
    box = Bounds(-5.12, 5.12)
    x = torch.tensor([-5.12, 5.12], dtype=torch.float64)
    box.check(Individual({"x": x}))  # single precision rounds 5.12 inwards
    low, high = box.ends("x", x)  # type: ignore[misc]
    assert [float(low), float(high)] == [-5.12, 5.12]
    huge = 2**24 + 1  # which single precision does not have
    assert int(Bounds(0.0, float(huge)).ends("n", torch.zeros(1, dtype=torch.int64))[1]) == huge  # type: ignore[index]
    with pytest.raises(ValueError, match="expected lower <= upper for all genes"):
        Bounds(1.0 + 1e-9, 1.0)


def test_an_end_that_the_dtype_cannot_hold_is_refused() -> None:
    x = Individual({"x": torch.zeros(2, dtype=torch.float16)})
    message = r"expected bounds of 'x' within 6.55e\+04, the largest torch.float16, got 70000; use a wider dtype"
    with pytest.raises(ValueError, match=message):
        Bounds(0.0, 70_000.0).check(x)
    Bounds(0.0, math.inf).check(x)
    Bounds(0, 2**70).check(Individual({"n": torch.zeros(2, dtype=torch.int64)}))


def test_span_is_the_width_of_the_box() -> None:
    assert float(Bounds(-1.0, 3.0).span("x", torch.zeros(1))) == 4.0  # type: ignore[arg-type]


def test_repair_drops_the_assessment() -> None:
    from tansaku import Assessment

    x = Population({"x": torch.zeros(2, 1)}, assessment=Assessment(torch.zeros(2)))
    assert Bounds(0.0, 1.0)(x).assessment is None


@pytest.mark.parametrize(
    ("lower", "upper", "repair", "message"),
    [
        (1.0, 0.0, "clip", "expected lower <= upper for all genes, got lower 1.0 and upper 0.0; swap them"),
        (math.nan, 0.0, "clip", "expected lower <= upper for all genes"),
        (torch.tensor([0.0, 2.0]), 1.0, "clip", "expected lower <= upper for all genes"),
        ({"x": 2.0}, {"x": 1.0}, "clip", "expected lower <= upper for 'x'"),
        ({"x": 2.0}, {"y": 1.0}, "clip", "expected lower and upper to name the same genes"),
        ({"x": 2.0}, 1.0, "clip", "expected lower and upper to name the same genes"),
        (
            torch.zeros(2),
            torch.ones(3),
            "clip",
            r"expected lower and upper of all genes to broadcast, got \[2\] and \[3\]",
        ),
        (0.0, math.inf, "wrap", "expected finite bounds to wrap at for all genes, got 0.0, inf; use 'clip'"),
        (0.0, 1.0, "bounce", "expected repair 'clip', 'reflect', 'wrap' or 'resample', got 'bounce'"),
    ],
)
def test_what_cannot_be_a_box_is_refused(lower: Any, upper: Any, repair: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Bounds(lower, upper, repair)


def test_bounds_are_made_of_pairs() -> None:
    assert Bounds.of(None) is None
    box = Bounds(0.0, 1.0)
    assert Bounds.of(box) is box
    assert Bounds.of((0.0, 1.0)) == box
    with pytest.raises(TypeError, match=r"expected bounds as \(lower, upper\) or Bounds, got 5; pass e.g."):
        Bounds.of(5)  # type: ignore[arg-type]


def test_check_finds_what_does_not_fit() -> None:
    x = Individual({"x": torch.tensor([0.0, 5.0, math.nan])})
    with pytest.raises(ValueError, match="expected the start of 'x' inside its bounds, got 2 genes outside or NaN"):
        Bounds(-1.0, 1.0).check(x)
    Bounds(-1.0, 1.0).check(x, inside=False)
    with pytest.raises(ValueError, match=r"expected bounds of 'x' to broadcast against event_shape \[3\], got \[2\]"):
        Bounds(torch.zeros(2), torch.ones(2)).check(x)
    with pytest.raises(ValueError, match=r"expected bounds for names among \['x'\], got \['y'\]; drop these"):
        Bounds({"y": 0.0}, {"y": 1.0}).check(x)
    with pytest.raises(ValueError, match="expected a whole number within the bounds of 'x', got none"):
        Bounds(0.2, 0.8).check(Individual({"x": torch.zeros(2, dtype=torch.int64)}))
