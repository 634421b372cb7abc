"""Equal candidates within a population, found by keys of their genes, without host synchronisation."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

_WORD = 8  # bytes
_ODD = (-7046029254386353131, -4658895280553007687, -7723592293110705685)  # the constants of splitmix64


def keys(tensors: Iterable[Tensor], lead: int) -> Tensor:
    """A 64-bit key per candidate: equal for candidates with equal values, different for others.

    Two candidates that differ have the same key with a chance of about 2^-60, so that even a population of a million
    is expected to have no such pair. 0.0 and -0.0 are equal.

    Args:
        tensors: each [*lead dimensions, ...] of any dtype, in the same order for all populations that are compared.
        lead: how many dimensions stand for candidates and searches.

    Returns:
        int64 of the leading dimensions.

    Example:
        >>> key = keys([torch.tensor([[1, 2], [3, 4], [1, 2]])], 1)
        >>> key[0] == key[2], key[0] == key[1]
        (tensor(True), tensor(False))
    """
    parts = []
    for i, x in enumerate(tensors):
        words = _words(x.reshape(*x.shape[:lead], -1))
        place = torch.arange(1, words.shape[-1] + 1, device=words.device) + (i << 32)
        parts.append((_mixed(words) * (_mixed(place) | 1)).sum(-1))
    return sum(parts[1:], parts[0])


def _words(x: Tensor) -> Tensor:
    """The bytes of ``x`` [..., n] as words of 64 bits, filled up with zeros."""
    x = x + 0.0 if x.is_floating_point() else x
    share = _WORD // x.element_size()
    missing = -x.shape[-1] % share if x.shape[-1] else share
    if missing:
        x = torch.cat([x, x.new_zeros((*x.shape[:-1], missing))], -1)
    x = x.contiguous()
    aligned = not torch.compiler.is_dynamo_compiling() and x.storage_offset() % share == 0
    return (x if aligned else x.clone()).view(torch.int64)


def _mixed(words: Tensor) -> Tensor:
    """A hash of each word. Reference: G. Steele, D. Lea and C. Flood, Fast Splittable Pseudorandom Generators, 2014."""
    for odd, shift in zip(_ODD, (30, 27, 31), strict=True):
        words = words * odd
        words = words ^ (words >> shift)
    return words


def repeats(key: Tensor) -> Tensor:
    """Whether an earlier candidate of the same search has the same key.

    Args:
        key: [k, *batch_shape] from `keys`.

    Returns:
        [k, *batch_shape] boolean.

    Example:
        >>> repeats(torch.tensor([7, 5, 7, 7]))
        tensor([False, False,  True,  True])
    """
    ordered, order = key.sort(dim=0, stable=True)
    same = ordered[1:] == ordered[:-1]
    same = torch.cat([torch.zeros_like(ordered[:1], dtype=torch.bool), same])
    return torch.empty_like(same).scatter_(0, order, same)
