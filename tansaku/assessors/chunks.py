"""How many candidates an assessor passes to one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from tansaku import checks
from tansaku.memory import chunk_within


def check_chunk(chunk: int | None, memory: int | None) -> None:
    """At most one of the two is given, and it is a positive integer.

    Raises:
        TypeError, ValueError: otherwise.
    """
    if chunk is not None:
        checks.count("chunk", chunk)
    if memory is not None:
        checks.count("memory", memory)
        if chunk is not None:
            raise ValueError("expected chunk or memory, got both; the chunk follows from the memory")


def chunk_of(memory: int | None, first: Callable[[], Any], genes: Mapping[str, Tensor]) -> int:
    """Candidates per call within the budget; all of them without one.

    Args:
        memory: the budget in bytes.
        first: assesses the first candidate.
        genes: name -> [k, *batch_shape, *event_shape] of all candidates.
    """
    if memory is None:
        return next(iter(genes.values())).shape[0]
    size = sum(x[:1].numel() * x.element_size() for x in genes.values())
    return chunk_within(memory, first, size)
