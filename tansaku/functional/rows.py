"""Gathering, replacing and choosing candidates: x is [k, *batch_shape, *event_shape] throughout."""

from __future__ import annotations

import torch
from torch import Tensor

from tansaku import host
from tansaku.storage import buffer, buffer_like

_LARGE = 1 << 14  # genes from which fewer passes over memory are worth more calls
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def align(x: Tensor, like: Tensor) -> Tensor:
    """``x`` with trailing dimensions of size 1, so that it broadcasts against ``like`` from the left."""
    missing = like.ndim - x.ndim
    return x if missing == 0 else x.view(x.shape + (1,) * missing)


def take_rows(x: Tensor, index: Tensor) -> Tensor:
    """Candidates by number.

    Args:
        x: [k, *batch_shape, *event_shape].
        index: [j] the same candidates for every search, or [j, *batch_shape] each search its own.

    Returns:
        [j, *batch_shape, *event_shape].
    """
    if index.ndim == 1:
        return torch.index_select(x, 0, index, out=buffer(index.shape + x.shape[1:], x.dtype, x.device))
    searches = index[0].numel()
    event = x.shape[index.ndim :]
    flat = x.reshape(x.shape[0] * searches, *event)
    rows = index.reshape(index.shape[0], searches) * searches + torch.arange(searches, device=index.device)
    out = torch.index_select(flat, 0, rows.flatten(), out=buffer((rows.numel(), *event), x.dtype, x.device))
    return out.view(index.shape + event)


def cat_rows(a: Tensor, b: Tensor) -> Tensor:
    """The candidates of ``a`` [j, ...], then those of ``b`` [k, ...]: [j + k, ...]."""
    shape = (a.shape[0] + b.shape[0], *a.shape[1:])
    return torch.cat([a, b], out=buffer(shape, a.dtype, a.device) if a.dtype == b.dtype else None)


def lowest(cost: Tensor) -> Tensor:
    """[1, *batch_shape] the number of each search's lowest ``cost`` [k, *batch_shape], of equal ones the first.

    `torch.argmin` along any dimension but the last takes up to ten times as long as `torch.min` on a CPU.
    """
    return cost.argmin(0, keepdim=True) if cost.ndim == 1 else cost.min(0, keepdim=True).indices


def put_rows(x: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    """A copy of ``x`` in which candidate ``index[i]`` of each search is ``rows[i]``.

    Args:
        x: [k, *batch_shape, *event_shape].
        index: [j, *batch_shape] without repetition along j.
        rows: [j, *batch_shape, *event_shape].
    """
    out = buffer_like(x)
    copy = x.clone(memory_format=torch.contiguous_format) if out is None else out.copy_(x)
    if index.ndim == 1:
        return copy.index_copy_(0, index, rows)
    searches = index[0].numel()
    event = x.shape[index.ndim :]
    places = index.reshape(index.shape[0], searches) * searches + torch.arange(searches, device=index.device)
    copy.view(x.shape[0] * searches, *event).index_copy_(0, places.flatten(), rows.reshape(places.numel(), *event))
    return copy


def select(mask: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """``a`` where ``mask``, else ``b``: `torch.where`, by bits where that is several times faster.

    Args:
        mask: boolean, broadcasts against a and b from the left (missing trailing dimensions are added).
        a: any tensor.
        b: of the shape and dtype of ``a``.
    """
    if a.numel() < _LARGE:
        return torch.where(align(mask, a), a, b)
    if mask.ndim < a.ndim and host.readable(mask):
        return _mixed_rows(mask, a, b)
    mask = align(mask, a)
    out = buffer_like(a) if a.is_contiguous() and b.is_contiguous() and a.shape == b.shape == mask.shape else None
    if out is None:
        return torch.where(mask, a, b)
    bits = _BITS[a.element_size()]  # torch.where is not vectorised for a boolean mask on a CPU
    left, right, result = a.view(bits), b.view(bits), out.view(bits)
    torch.bitwise_xor(left, right, out=result)
    result &= _negated(mask, bits)
    result ^= right
    return out


def _mixed_rows(mask: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """`select` of whole rows: a copy of ``b`` with the chosen rows of ``a``, each row one stretch of memory."""
    event = a.shape[mask.ndim :]
    chosen = mask.flatten().nonzero().squeeze(1)
    rows = a.reshape(mask.numel(), *event).index_select(0, chosen)
    out = buffer_like(b)
    copy = b.clone(memory_format=torch.contiguous_format) if out is None else out.copy_(b)
    copy.view(mask.numel(), *event).index_copy_(0, chosen, rows)
    return copy


def _negated(mask: Tensor, bits: torch.dtype) -> Tensor:
    """0 -> 0 and 1 -> all ones, in warm memory."""
    out = buffer(mask.shape, bits, mask.device)
    whole = mask.to(bits) if out is None else out.copy_(mask)
    return whole.neg_()
