"""Assessors: a user's function becomes ``population -> assessed population``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor

from tansaku import checks, host
from tansaku.assessment import Assessment
from tansaku.memory import chunk_within
from tansaku.population import Population

Vectorized = Literal["vmap"] | bool
_FIELDS = tuple(field.name for field in fields(Assessment) if field.name not in ("maximize", "ranking"))
_SOME = 64  # candidates that are looked at
# what `torch.no_grad` calls in the end; the object itself takes a tenth of a small generation
_record: Any = getattr(torch._C, "_set_grad_enabled", torch.set_grad_enabled)


@dataclass(frozen=True)
class Objective:
    """Assesses a population by a function of its genes. No gradient is recorded.

    Args:
        fn: called with the genes: a tensor where there is one name and ``named`` is False, else a dictionary of
            tensors. It returns the value, or a dictionary with ``"value"`` and any of ``"cases"``, ``"violation"``,
            ``"descriptor"`` (shapes: see `Assessment`).
        maximize: whether higher values are better.
        vectorized: True, ``fn`` takes all candidates [k, *batch_shape, *event_shape]; ``"vmap"``, it takes one
            candidate [*event_shape] and torch maps it over all; False, it takes one candidate and is called in a
            plain loop, for numpy, scikit-learn or a simulator inside.
        named: whether ``fn`` takes a dictionary even if there is one name.

    Raises:
        TypeError: ``fn`` is not callable, or returns something else (at the call).
        ValueError: values of a wrong shape or on another device (at the call).

    Example:
        >>> sphere = Objective(lambda x: x.square().sum(-1))
        >>> sphere(Population({"x": torch.eye(3)})).cost
        tensor([1., 1., 1.])
    """

    fn: Callable[..., Any]
    maximize: bool = False
    vectorized: Vectorized = True
    named: bool = False

    def __post_init__(self) -> None:
        if not callable(self.fn):
            raise TypeError(f"expected fn to be callable, got {type(self.fn).__name__}; pass a function of the genes")
        if self.vectorized is not True and self.vectorized is not False and self.vectorized != "vmap":
            raise ValueError(f"expected vectorized True, False or 'vmap', got {self.vectorized!r}; choose one of them")

    def __call__(self, population: Population) -> Population:
        """The same candidates with their assessment."""
        views = {name: x.detach() for name, x in population.genes.items()}  # theirs to mark, not the genes
        versions = _versions(views)
        sample = None if "_harmless" in self.__dict__ else _sample(views)
        genes: Any = views
        if len(views) == 1 and not self.named:
            (genes,) = views.values()
        recording = torch.is_grad_enabled()
        _record(False)
        try:
            if self.vectorized is True:
                answer = self.fn(genes)
            elif self.vectorized == "vmap":
                mapped = self.fn
                for _ in range(1 + population.batch_ndim):
                    mapped = torch.func.vmap(mapped, randomness="different")
                answer = mapped(genes)
            else:
                answer = self._loop(genes, population)
        finally:
            _record(recording)
        if versions != _versions(population.genes) or (sample is not None and _changed(sample, population.genes)):
            raise RuntimeError(
                "expected fn to leave its argument as it is, got it changed in place; work on a copy, x.clone()"
            )
        self.__dict__["_harmless"] = True  # numpy writes where no version tells, so the first call looks
        return population.assessed(_assessment(answer, self.maximize))

    def _loop(self, genes: Any, population: Population) -> dict[str, Tensor]:
        lead = (population.k, *population.batch_shape)
        flat = {name: x.reshape(-1, *population.event_shape(name)) for name, x in population.genes.items()}
        answers = []
        for row in range(next(iter(flat.values())).shape[0]):
            one: Any = {name: x[row].clone() for name, x in flat.items()}  # its own, to write to
            answers.append(_fields(self.fn(one if isinstance(genes, dict) else next(iter(one.values())))))
            if set(answers[-1]) != set(answers[0]):
                raise ValueError(
                    f"expected fn to return {sorted(answers[0])} for every candidate, got {sorted(answers[-1])} for "
                    f"candidate {row}; return the same keys"
                )
        rows = {name: torch.stack([_as_tensor(answer[name], population) for answer in answers]) for name in answers[0]}
        return {name: x.reshape(lead + x.shape[1:]) for name, x in rows.items()}


def _fields(answer: Any) -> dict[str, Any]:
    """The answer of a user's function by the names of an assessment's fields.

    Raises:
        ValueError: a dictionary without a value, or with other keys.
    """
    if not isinstance(answer, Mapping):
        return {"value": answer}
    unknown = sorted(set(answer) - set(_FIELDS))
    if unknown or "value" not in answer:
        raise ValueError(
            f"expected a dictionary with 'value' and any of {list(_FIELDS[1:])}, got {sorted(answer)}; rename its keys"
        )
    return dict(answer)


def _assessment(answer: Any, maximize: bool) -> Assessment:
    """The assessment that a user's function returned: a tensor of values, or a dictionary.

    Raises:
        TypeError: something that is no tensor.
        ValueError: see `_fields`.
    """
    if isinstance(answer, Tensor):
        value = answer.detach() if answer.requires_grad else answer
        if value.is_floating_point():
            return Assessment._made(maximize, {"value": value})
        return Assessment(value, maximize)
    given = _fields(answer)
    for name, tensor in given.items():
        if not isinstance(tensor, Tensor) and (tensor is not None or name == "value"):
            raise TypeError(
                f"expected fn to return a tensor as {name}, got {type(tensor).__name__}; "
                "return a tensor, or set vectorized=False for plain numbers"
            )
    given = {name: x.detach() if x.requires_grad else x for name, x in given.items() if x is not None}
    if given["value"].is_floating_point() and not any(x.is_complex() for x in given.values()):
        return Assessment._made(maximize, given)
    return Assessment(maximize=maximize, **given)


def _as_tensor(answer: Any, population: Population) -> Tensor:
    """One candidate's answer; a plain float is as exact as the genes, and at least float32.

    Raises:
        TypeError: it is no number and no array of numbers.
    """
    genes = next(iter(population.genes.values()))
    exact = torch.promote_types(genes.dtype, torch.float32)
    try:
        return torch.as_tensor(answer, dtype=exact if isinstance(answer, float) else None, device=genes.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"expected fn to return a number for each candidate, got {answer!r}; return its cost as a float"
        ) from error


def _versions(genes: Mapping[str, Tensor]) -> list[int]:
    """How often each was written to; a tensor of inference mode does not count."""
    return [0 if x.is_inference() else x._version for x in genes.values()]


def _sample(genes: Mapping[str, Tensor]) -> list[Tensor]:
    """Copies of the genes of some candidates, where the host can read them."""
    return [x[:_SOME].clone() for x in genes.values() if host.readable(x)]


def _changed(sample: list[Tensor], genes: Mapping[str, Tensor]) -> bool:
    now = (x[:_SOME] for x in genes.values() if host.readable(x))
    return not all(bool(((a == b) | (a != a)).all()) for a, b in zip(sample, now, strict=True))  # NaN is itself


@dataclass(frozen=True)
class ModuleObjective:
    """Assesses candidates that are parameters of a module; the module itself is not changed.

    Every candidate is run by `torch.func.functional_call` under vmap, with the module's other parameters and its
    buffers as they are: batch norm in evaluation mode uses its running statistics, and none are updated.

    Args:
        module: the network; in evaluation mode where it has batch norm or dropout, which vmap cannot run in training.
        fn: called with a function that stands for the module with one candidate's parameters, returns that
            candidate's value [], or a dictionary of it and more as for `Objective`.
        maximize: whether higher values are better.
        chunk: candidates per vmapped call; all if not given.
        memory: a budget in bytes for what one call writes, from which the chunk follows; instead of ``chunk``.

    Raises:
        ValueError: both chunk and memory; or (at the call) a budget that not even one candidate fits.

    Example:
        >>> net, x, y = torch.nn.Linear(3, 1), torch.ones(8, 3), torch.ones(8, 1)
        >>> loss = ModuleObjective(net, lambda run: (run(x) - y).square().mean())
    """

    module: torch.nn.Module
    fn: Callable[[Callable[..., Any]], Any]
    maximize: bool = False
    chunk: int | None = None
    memory: int | None = None

    def __post_init__(self) -> None:
        _check_chunk(self.chunk, self.memory)

    def __call__(self, population: Population) -> Population:
        """The same candidates with their assessment.

        Raises:
            ValueError: genes that are no parameter or buffer of the module, or of another shape.
        """
        own = {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}
        for name in population.genes:
            if name not in own or own[name].shape != population.event_shape(name):
                had = checks.shape_text(own[name].shape) if name in own else f"none among {sorted(own)}"
                raise ValueError(
                    f"expected a parameter {name!r} of shape {checks.shape_text(population.event_shape(name))}, "
                    f"got {had}; take the genes from the module with Individual.from_module"
                )

        def one(genes: dict[str, Tensor]) -> Any:
            return self.fn(lambda *inputs: torch.func.functional_call(self.module, genes, inputs))

        with torch.no_grad():
            mapped = one
            for _ in range(population.batch_ndim):
                mapped = torch.func.vmap(mapped, randomness="same")
            first = {name: x[:1] for name, x in population.genes.items()}
            run = torch.func.vmap(mapped, randomness="same")
            chunk = self.chunk or _chunk(self.memory, lambda: run(first), population)
            answer = torch.func.vmap(mapped, chunk_size=chunk, randomness="same")(dict(population.genes))
        return population.assessed(_assessment(answer, self.maximize))


@dataclass(frozen=True)
class InputObjective:
    """Assesses candidates that are a layer's inputs: one forward pass over k * n rows, a search per row.

    Args:
        fn: [rows, *event_shape] -> cost per row [rows], or a dictionary with ``"value"`` [rows] and any of ``"cases"``
            [rows, c], ``"violation"`` [rows] or [rows, v] and ``"descriptor"`` [rows, d]; called with
            ``flatten(0, 1)`` of the candidates, a view.
        context: name -> [n, ...] tensors that belong to the rows (targets, labels); repeated for every candidate and
            passed on by name.
        maximize: whether higher values are better.
        chunk: candidates per call; all if not given.
        memory: a budget in bytes for what one call writes, from which the chunk follows; instead of ``chunk``.

    Raises:
        ValueError: both chunk and memory; or (at the call) ``batch_shape`` is not (n,), or a budget that not even one
            candidate fits.
    """

    fn: Callable[..., Any]
    context: Mapping[str, Tensor] | None = None
    maximize: bool = False
    chunk: int | None = None
    memory: int | None = None

    def __post_init__(self) -> None:
        _check_chunk(self.chunk, self.memory)

    def __call__(self, population: Population) -> Population:
        """The same candidates with their assessment [k, n]."""
        if population.batch_ndim != 1 or len(population.genes) != 1:
            raise ValueError(
                f"expected one tensor [k, n, ...], a search per row, got {sorted(population.genes)} with "
                f"batch_shape {checks.shape_text(population.batch_shape)}; give the start batch_ndim=1"
            )
        x = next(iter(population.genes.values()))
        with torch.no_grad():
            chunk = self.chunk or _chunk(self.memory, lambda: self._rows(x[:1]), population)
            parts = [self._rows(part) for part in x.split(chunk)]
            answer = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return population.assessed(_assessment(answer, self.maximize))

    def _rows(self, x: Tensor) -> dict[str, Tensor]:
        """What ``fn`` returned for the candidates ``x`` [k, n, ...], each [k, n, ...]."""
        context = {
            name: rows.expand(x.shape[0], *rows.shape).flatten(0, 1) for name, rows in (self.context or {}).items()
        }
        rows = x.flatten(0, 1)
        given = {name: y for name, y in _fields(self.fn(rows, **context)).items() if y is not None or name == "value"}
        for name, y in given.items():
            if not isinstance(y, Tensor) or (y.shape if name == "value" else y.shape[:1]) != rows.shape[:1]:
                got = checks.shape_text(y.shape) if isinstance(y, Tensor) else type(y).__name__
                what = "cost" if name == "value" else name
                raise ValueError(
                    f"expected fn to return one {what} per row {checks.shape_text(rows.shape[:1])}, got {got}; "
                    "reduce over features only"
                )
        return {name: y.reshape(*x.shape[:2], *y.shape[1:]) for name, y in given.items()}


def _check_chunk(chunk: int | None, memory: int | None) -> None:
    if chunk is not None:
        checks.count("chunk", chunk)
    if memory is not None:
        checks.count("memory", memory)
        if chunk is not None:
            raise ValueError("expected chunk or memory, got both; the chunk follows from the memory")


def _chunk(memory: int | None, first: Callable[[], Any], population: Population) -> int:
    """Candidates per call within the budget; all of them without one."""
    if memory is None:
        return population.k
    size = sum(x[:1].numel() * x.element_size() for x in population.genes.values())
    return chunk_within(memory, first, size)
