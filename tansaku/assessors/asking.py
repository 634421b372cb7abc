"""Which search asked for a population: assessors read its random numbers and report failed candidates to it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Protocol

import torch

from tansaku.assessors.failures import Failures, described, failure_of
from tansaku.population import Population


class Asking(Protocol):
    """What an assessor reads of a search."""

    generator: torch.Generator
    failures: Failures

    @property
    def generations(self) -> int:
        """Made after the start."""


current: ContextVar[Asking | None] = ContextVar("tansaku_asking", default=None)
"""The search whose assessor is running."""


def mark(population: Population, search: Asking) -> None:
    """Notes which search asked for ``population``, for callers that assess it outside `tansaku.Search.run`."""
    population.__dict__["_asked_by"] = search


def asking(population: Population) -> Asking | None:
    """The search that asked for ``population``, or that is assessing it through a wrapper."""
    known: Any = population.__dict__.get("_asked_by")
    return current.get() if known is None else known


def report(
    population: Population, own: Failures, failed: list[tuple[tuple[int, ...], Exception]], assessed: int
) -> None:
    """Records the failed candidates of one call with the assessor and with the search that asked.

    Args:
        population: that was assessed.
        own: the assessor's record.
        failed: (index, exception) of each failed candidate; see `Failure`.
        assessed: how many candidates did not fail.

    Raises:
        RuntimeError: more than one candidate was tried since the start, and all failed; from the first exception.
    """
    search = asking(population)
    record = own if search is None else search.failures
    tried = len(failed) + record.count
    if failed and assessed == 0 and record.assessed == 0 and tried > 1 and (search is None or search.generations == 0):
        raise RuntimeError(
            f"expected fn to assess at least one candidate of the first generation, got {tried} failures, the first: "
            f"{described(failed[0][1])}; correct fn or start elsewhere"
        ) from failed[0][1]
    generation = None if search is None else search.generations
    failures = [failure_of(population, index, error, generation) for index, error in failed]
    for kept in {id(own): own, id(record): record}.values():
        kept.add(failures, assessed)
