"""Candidates for which a user's function raised: their worst cost, a record of them, and the search for them."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from tansaku.population import Population

OnFailure = Literal["raise", "worst"]
Fields = dict[str, Tensor]
"""Fields of an `Assessment`, without its direction."""
_KEPT = 10  # failures that a record holds in full


@dataclass(frozen=True)
class Failure:
    """One candidate for which the function raised.

    Args:
        index: (candidate,), or (candidate, *search) where the function is called per search.
        genes: name -> the candidate's genes, a copy.
        error: what the function raised, without its traceback, which would hold the tensors of the call.
        trace: the traceback as text.
        generation: of the search; None outside a search.
    """

    index: tuple[int, ...]
    genes: Mapping[str, Tensor]
    error: Exception
    trace: str = field(repr=False)
    generation: int | None = None


@dataclass
class Failures:
    """Counts the candidates for which a function raised, and keeps the first ten.

    Args:
        count: candidates that failed.
        assessed: candidates that did not fail, counted only under ``on_failure="worst"``.
        first: the first failures.
    """

    count: int = 0
    assessed: int = 0
    first: list[Failure] = field(default_factory=list)

    def __bool__(self) -> bool:
        return self.count > 0

    def add(self, failures: list[Failure], assessed: int) -> None:
        """Adds the failures of one call, and the number of the candidates that did not fail in it."""
        self.count += len(failures)
        self.assessed += assessed
        self.first += failures[: _KEPT - len(self.first)]

    def copied(self) -> Failures:
        """The same, unchanged by later failures."""
        return Failures(self.count, self.assessed, list(self.first))

    def warn(self, since: int, stacklevel: int) -> None:
        """Warns if there are more failures than ``since``, with their number and the first message."""
        if self.count > since:
            warnings.warn(
                f"{self.count - since} candidates failed and got the worst cost; the first of this search: "
                f"{described(self.first[0].error)} (candidate {list(self.first[0].index)}, "
                f"generation {self.first[0].generation}); see result.failures",
                RuntimeWarning,
                stacklevel + 1,
            )


def described(error: BaseException) -> str:
    """The type and the message of an error."""
    return f"{type(error).__name__}: {error}"


def check_on_failure(given: Any) -> None:
    """``given`` is one of the two settings, or a ValueError."""
    if given not in ("raise", "worst"):
        raise ValueError(f"expected on_failure 'raise' or 'worst', got {given!r}; choose one of them")


def failure_of(population: Population, index: tuple[int, ...], error: Exception, generation: int | None) -> Failure:
    """The record of one failed candidate. Tracebacks become text, because they keep the tensors of the call alive."""
    trace = "".join(traceback.format_exception(error))
    link: BaseException | None = error
    while link is not None:
        link.__traceback__, link = None, link.__cause__ or link.__context__
    genes = {name: x[index].detach().clone() for name, x in population.genes.items()}
    return Failure(index, genes, error, trace, generation)


def part_failures(
    ask: Callable[[int, int], Fields], stop: int, error: Exception, start: int = 0
) -> Iterable[tuple[int, int, Fields | Exception]]:
    """Finds the failing candidates of a call that raised, by halving the range of candidates.

    Args:
        ask: (start, stop) -> the fields of these candidates; raises what the function raised.
        stop: one after the last candidate.
        error: what the call for ``start`` .. ``stop`` raised.
        start: the first candidate.

    Yields:
        (start, stop, fields), or (start, start + 1, exception) for a failing candidate, in ascending order.
    """
    if stop - start == 1:
        yield start, stop, error
        return
    middle = (start + stop) // 2
    for low, high in ((start, middle), (middle, stop)):
        try:
            fields = ask(low, high)
        except Raised as raised:
            yield from part_failures(ask, high, raised.error, low)
        else:
            yield low, high, fields


class Raised(Exception):
    """Carries what the user's function raised, so that it is told apart from errors about its answer."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def with_worst(
    parts: Iterable[tuple[int, int, Fields | Exception]], like: Fields, maximize: bool
) -> tuple[Fields, list[tuple[int, Exception]]]:
    """The fields of all candidates, the failed ones with the worst of each field.

    The value (and each case) of a failed candidate is +inf, or -inf if higher is better; its violation is +inf and its
    descriptor NaN.

    Args:
        parts: see `part_failures`.
        like: fields of candidates that did not fail, for names, shapes and dtypes if all fail here.
        maximize: whether higher values are better.

    Returns:
        The fields, and (candidate, exception) of each failed candidate.

    Raises:
        ValueError: calls that returned different fields.
    """
    listed = list(parts)
    answered = [fields for *_, fields in listed if not isinstance(fields, Exception)]
    known = answered[0] if answered else like
    for fields in answered:
        if set(fields) != set(known):
            raise ValueError(
                f"expected fn to return {sorted(known)} at every call, got {sorted(fields)}; return the same keys"
            )
    worst = -torch.inf if maximize else torch.inf
    fill = {"value": worst, "cases": worst, "violation": torch.inf, "descriptor": torch.nan}
    rows = {name: _floating(x[:1]).new_full((1, *x.shape[1:]), fill[name]) for name, x in known.items()}
    joined = {
        name: torch.cat([rows[name] if isinstance(part, Exception) else _floating(part[name]) for *_, part in listed])
        for name in known
    }
    return joined, [(start, part) for start, _, part in listed if isinstance(part, Exception)]


def all_assessed(
    ask: Callable[[int, int], Fields], k: int, each: bool, like: Fields, maximize: bool
) -> tuple[Fields, list[tuple[int, Exception]]]:
    """The fields of ``k`` candidates, and (candidate, exception) of each that failed; see `with_worst`.

    Args:
        ask: see `part_failures`.
        k: number of candidates.
        each: whether to ask for the candidates one by one from the start.
        like: see `with_worst`.
        maximize: whether higher values are better.
    """
    if each:
        return with_worst([(i, i + 1, _fields_or_error(ask, i)) for i in range(k)], like, maximize)
    try:
        return ask(0, k), []
    except Raised as raised:
        error = raised.error
    return with_worst(part_failures(ask, k, error), like, maximize)


def _fields_or_error(ask: Callable[[int, int], Fields], i: int) -> Fields | Exception:
    try:
        return ask(i, i + 1)
    except Raised as raised:
        return raised.error


def placed(number: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The index into ``shape`` of entry ``number`` of a flattened tensor."""
    index: tuple[int, ...] = ()
    for size in reversed(shape):
        number, place = divmod(number, size)
        index = (place, *index)
    return index


def _floating(x: Tensor) -> Tensor:
    return x if x.is_floating_point() else x.to(torch.get_default_dtype())
