"""`InputObjective`: assesses candidates that are a layer's inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Size, Tensor

from tansaku import checks, shapes
from tansaku.assessors import answers
from tansaku.assessors.asking import report
from tansaku.assessors.chunks import check_chunk, chunk_of
from tansaku.assessors.failures import Failures, Fields, OnFailure, Raised, all_assessed, check_on_failure, placed
from tansaku.assessors.randomness import seed_of, seeded
from tansaku.functional import lazy_copy
from tansaku.guard import Guard
from tansaku.population import Population
from tansaku.randomness import restored

_REMEDY = "reduce over features only, as for a function of all rows"


@dataclass(frozen=True)
class InputObjective:
    """Assesses candidates that are a layer's inputs: one forward pass over k * n rows, a search per row.

    ``fn`` receives copies of the rows, which take memory only if something writes into them; see `Objective`. What
    it draws from torch's global generator (dropout in training mode) comes from the seed of the search that asked for
    the candidates, and the global generator is restored. Without a search it comes from the global generator.

    Args:
        fn: [rows, *event_shape] -> cost per row [rows], a tensor or a numpy array, or a dictionary with ``"value"``
            [rows] and any of ``"cases"`` [rows, c], ``"violation"`` [rows] or [rows, v] and ``"descriptor"`` [rows, d];
            called with ``flatten(0, 1)`` of the candidates.
        context: name -> [n, ...] tensors that belong to the rows (targets, labels); repeated for every candidate and
            passed on by name.
        maximize: whether higher values are better.
        chunk: candidates per call; all if not given.
        memory: a budget in bytes for what one call writes, from which the chunk follows; instead of ``chunk``.
        on_failure: ``"raise"`` passes on what ``fn`` raises, ``"worst"`` gives the row the worst value; see
            `Objective`. A call that raises is repeated for halves of its rows until the failing ones are found.

    Attributes:
        failures: the candidates that failed under ``on_failure="worst"``.

    Raises:
        ValueError: both chunk and memory; or (at the call) ``batch_shape`` is not (n,), a budget that not even one
            candidate fits, or an ``fn`` that seems to take one row.
        RuntimeError: ``fn`` changed its argument, or all candidates of the first generation failed (at the call).
    """

    fn: Callable[..., Any]
    context: Mapping[str, Tensor] | None = None
    maximize: bool = False
    chunk: int | None = None
    memory: int | None = None
    on_failure: OnFailure = "raise"
    failures: Failures = field(default_factory=Failures, init=False, repr=False, compare=False)
    _guard: Guard = field(default_factory=Guard, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_chunk(self.chunk, self.memory)
        check_on_failure(self.on_failure)

    def __call__(self, population: Population) -> Population:
        """The same candidates with their assessment [k, n]."""
        if population.batch_ndim != 1 or len(population.genes) != 1:
            raise ValueError(
                f"expected one tensor [k, n, ...], a search per row, got {sorted(population.genes)} with "
                f"batch_shape {checks.shape_text(population.batch_shape)}; give the start batch_ndim=1"
            )
        x = next(iter(population.genes.values()))
        n, rows = x.shape[1], x.flatten(0, 1)
        failed: list[tuple[int, Exception]] = []
        parts: list[Fields] = []
        with torch.no_grad(), seeded(seed_of(population), x.device):
            chunk = self.chunk or self._fitting(population, rows[:n])
            for start in range(0, rows.shape[0], chunk * n):
                part = rows[start : start + chunk * n]
                if self.on_failure == "raise":
                    parts.append(self._ask(part, 0, n))
                    continue

                def ask(low: int, high: int, part: Tensor = part) -> Fields:
                    return self._ask(part[low:high], low, n)

                like = {"value": x.new_zeros(1)}
                fields, bad = all_assessed(ask, part.shape[0], False, like, self.maximize)
                parts.append(fields)
                failed += [(start + i, error) for i, error in bad]
        if self.on_failure == "worst":
            places = [(placed(i, (population.k, n)), error) for i, error in failed]
            report(population, self.failures, places, rows.shape[0] - len(failed))
        joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        joined = {name: y.reshape(*x.shape[:2], *y.shape[1:]) for name, y in joined.items()}
        return population.assessed(answers.assessment(joined, self.maximize))

    def _fitting(self, population: Population, first: Tensor) -> int:
        """The number of candidates per call."""
        try:
            return chunk_of(self.memory, lambda: self._call(first.clone(), 0, first.shape[0]), population.genes)
        except ValueError:
            raise
        except Exception:
            if self.on_failure == "raise":
                raise
            return 1  # the first candidate failed, so that what it needs is not known

    def _ask(self, rows: Tensor, first: int, n: int) -> Fields:
        """[rows, ...] what ``fn`` returned for each row.

        Args:
            rows: [rows, *event_shape], of which row i belongs to search (first + i) % n.
            first: the number of the first row.
            n: number of searches.

        Raises:
            Raised: ``fn`` raised, under ``on_failure="worst"``.
        """
        copies = self._guard.copies({"x": rows})
        try:
            answer = self._call(copies["x"], first, n)
        except Exception as error:
            if self.on_failure == "worst":
                raise Raised(error) from error
            raise
        fields = self._checked(answer, rows.shape[0], rows.device)
        del answer  # the guard looks for references to the copies
        if self._guard.changed(copies, {"x": rows}):
            raise RuntimeError(
                "expected fn to leave its argument as it is, got it changed in place; work on a copy, x.clone()"
            )
        if "_takes_rows" not in self.__dict__:
            fields = self._check_takes_rows(rows, n, fields)
        return fields

    def _call(self, rows: Tensor, first: int, n: int) -> Any:
        count = rows.shape[0]
        context = {}
        for name, x in (self.context or {}).items():
            if first % n or count % n:
                context[name] = x[torch.arange(first, first + count, device=x.device).remainder(n)]
            elif count == n:
                context[name] = lazy_copy(x)  # expand would return the user's own memory
            else:
                context[name] = x.expand(count // n, *x.shape).flatten(0, 1)
        return self.fn(rows, **context)

    def _checked(self, answer: Any, rows: int, device: torch.device) -> Fields:
        given = answers.by_name(answer)
        if not isinstance(given["value"], Tensor | np.ndarray):
            raise ValueError(
                f"expected fn to return one cost per row {checks.shape_text(Size((rows,)))}, got "
                f"{type(given['value']).__name__}; {_REMEDY}"
            )
        fields = answers.of_all(answer, device)
        for name, y in fields.items():
            if (y.shape if name == "value" else y.shape[:1]) != Size((rows,)):
                raise ValueError(
                    f"expected fn to return one {'cost' if name == 'value' else name} per row "
                    f"{checks.shape_text(Size((rows,)))}, got {checks.shape_text(y.shape)}; {_REMEDY}"
                )
        return fields

    def _check_takes_rows(self, rows: Tensor, n: int, fields: Fields) -> Fields:
        """Makes sure that the answer has one entry per row, where the shapes also allow one entry per feature."""
        count = rows.shape[0]
        if count <= n:
            return fields  # one candidate: there is no smaller call to compare with
        if count in rows.shape[1:]:
            fields = {name: y.clone() for name, y in fields.items()}  # fn may write the next answer over this one
            with restored():
                try:
                    answer = self._call(rows[:n].clone(), 0, n)
                except Exception as error:
                    if shapes.is_about_shapes(error):
                        raise shapes.shape_error(error, {"x": rows[:n]}, _REMEDY) from error
                else:
                    self._checked(answer, n, rows.device)
        self.__dict__["_takes_rows"] = True
        return fields
