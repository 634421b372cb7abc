"""The claims that an algorithm knows no unit of length, and that a gene with equal bounds is no part of the search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from tansaku.algorithms import Algorithm
from tansaku.algorithms.settings import Change, changed_fields
from tansaku.operators import Bounds
from tansaku.population import Population
from tansaku.testing.claims import close, require
from tansaku.testing.problems import Problem
from tansaku.testing.subject import Subject, run

_GENERATIONS = 12
_EVENTS: dict[str, dict[str, tuple[int, ...]]] = {"one tensor": {"x": (4,)}, "two tensors": {"b": (), "w": (2, 2)}}
_FIXED: dict[str, int] = {"x": 5, "a": 2, "z": 7}  # where the fixed genes of each tensor are held


class _Rescaled(Change):
    """Bounds and standard deviations for genes that were multiplied by ``scale``, name -> [*event_shape]."""

    def __init__(self, scale: Mapping[str, Tensor]) -> None:
        self.scale = scale

    def bounds(self, bounds: Bounds) -> Bounds:
        lower, upper = {}, {}
        for name, scale in self.scale.items():
            limits = bounds.limits(name)
            if limits is not None:
                lower[name], upper[name] = (torch.as_tensor(end, dtype=scale.dtype) * scale for end in limits)
        return type(bounds)(lower, upper, bounds.repair)

    def step(self, std: Any, name: str | None) -> Any:
        if std is None:
            return None
        if name is not None:
            return std * self.scale[name]
        if len(self.scale) == 1:
            return std * next(iter(self.scale.values()))
        return {other: std * scale for other, scale in self.scale.items()}


def rescaled_genes_give_the_same_run(subject: Subject) -> None:
    """See `check_algorithm`."""
    if "real" not in subject.kinds or not subject.needs.scales:
        return
    for dtype, ratio in ((torch.float32, 2.0**20), (torch.float64, 2.0**30), (torch.float64, 1e9)):
        for words, events in _EVENTS.items():
            problem = subject.posed(dict.fromkeys(events, dtype), events)
            scale = _scales(events, ratio, dtype, subject.device)
            for boxed, start_k in ((True, subject.k()), (True, 1), (False, 1)):
                algorithm = subject.algorithm(subject.k(), problem.bounds() if boxed else None)
                if not boxed:
                    if not any(field.name == "std" for field in fields(algorithm)):  # type: ignore[arg-type]
                        continue
                    algorithm = replace(algorithm, std=0.5)  # type: ignore[type-var]
                try:
                    other = changed_fields(algorithm, _Rescaled(scale))
                except TypeError:
                    require(len(events) > 1, "its settings take no standard deviation per gene")
                    continue  # an operator whose standard deviation is one tensor for all names
                what = f"{dtype}, {words}, scales up to {ratio:g}, {'with' if boxed else 'without'} bounds"
                _agree(subject, problem, algorithm, other, start_k, scale, what)


def _scales(
    events: Mapping[str, tuple[int, ...]], ratio: float, dtype: torch.dtype, device: torch.device
) -> dict[str, Tensor]:
    """The scale of every gene, from 1 to ``ratio``, neighbours far apart."""
    steps = iter((0.0, 1.0, 0.35, 0.65, 0.5))
    scale = {}
    for name, event in events.items():
        exponents = torch.tensor([next(steps) for _ in range(torch.Size(event).numel())], dtype=torch.float64)
        scaled = torch.tensor(ratio, dtype=torch.float64) ** exponents
        if ratio != 1e9:  # powers of 2 scale without rounding
            scaled = 2.0 ** scaled.log2().round()
        scale[name] = scaled.reshape(event).to(device, dtype)
    return scale


def _agree(
    subject: Subject,
    problem: Problem,
    algorithm: Algorithm[Any],
    other: Algorithm[Any],
    start_k: int,
    scale: Mapping[str, Tensor],
    what: str,
) -> None:
    """Two runs, the second one in other units, ask for the same candidates up to rounding."""

    def back(population: Population) -> Population:
        return population.unassessed().with_genes({name: x / scale[name] for name, x in population.genes.items()})

    def assess(population: Population) -> Population:
        assessment = problem.assess(back(population)).assessment
        require(assessment is not None, "the problem gave no assessment")
        return population.assessed(assessment)  # type: ignore[arg-type]

    start = problem.start(start_k)
    there = start.with_genes({name: x * scale[name] for name, x in start.genes.items()})
    first = run(algorithm, problem.assess, start, subject.noise(), _GENERATIONS)
    second = run(other, assess, there, subject.noise(), _GENERATIONS)
    for generation, ((_, a), (_, b)) in enumerate(zip(first, second, strict=True)):
        for name, x in back(b).genes.items():
            tolerance = 1e-3 if x.dtype == torch.float32 else 1e-6
            require(close(a[name], x, tolerance), f"{what}: {name!r} differs in generation {generation}")


def fixed_genes_give_the_same_run(subject: Subject) -> None:
    """See `check_algorithm`."""
    for kind in subject.kinds:
        if kind == "permutation":
            continue
        layouts = ["tensors"] if kind == "boolean" else ["tensors", "genes", "genes and tensors"]
        for layout in layouts:
            for batch_shape in ((), (2,)) if subject.needs.batched else ((),):
                _same_without(
                    subject, subject.problem(kind, batch_shape=batch_shape), layout, f"{kind} genes, {layout}"
                )


def _same_without(subject: Subject, problem: Problem, layout: str, what: str) -> None:
    """A run with fixed genes asks for the candidates of the run without them."""
    dtype, real = problem.dtypes["x"], problem.dtypes["x"].is_floating_point
    held: dict[str, Tensor] = {}
    if layout != "genes":
        held["a"] = torch.full((2,), _FIXED["a"], dtype=torch.int64, device=subject.device)
        held["z"] = torch.full((), _FIXED["z"], dtype=torch.float64, device=subject.device)
    moving = torch.arange(4, device=subject.device)
    if "genes" in layout:
        moving = torch.tensor([0, 1, 3, 4], device=subject.device)  # of six genes
    count = 6 if "genes" in layout else 4

    def widened(x: Tensor) -> Tensor:
        """[..., 4] as [..., count], the fixed genes between and behind them."""
        row = x.new_full((*x.shape[:-1], count), bool(_FIXED["x"]) if x.dtype == torch.bool else _FIXED["x"])
        return row.index_copy(-1, moving, x)

    narrow: dict[str, tuple[Tensor, Tensor]] = {}
    if dtype != torch.bool:
        low, high = (torch.full((4,), end, dtype=dtype, device=subject.device) for end in problem.ends("x"))
        if real:
            low = low - torch.arange(4, dtype=dtype, device=subject.device)  # a box of unequal widths
        narrow["x"] = low, high
    wide = {name: (widened(low), widened(high)) for name, (low, high) in narrow.items()}
    wide |= {name: (x, x) for name, x in held.items()}
    k = None if subject.algorithm().k is None else subject.k()  # a number that the genes decide stays theirs
    one = subject.algorithm(k, _box(narrow) if narrow else None)
    other = subject.algorithm(k, _box(wide))

    def wider(population: Population) -> Population:
        lead = (population.k, *population.batch_shape)
        genes = {"x": widened(population["x"])} | {n: x.expand(*lead, *x.shape) for n, x in held.items()}
        return Population({name: genes[name] for name in sorted(genes)}, population.batch_ndim)

    def narrower(population: Population) -> Population:
        return Population({"x": population["x"][..., moving]}, population.batch_ndim)

    def assess(population: Population) -> Population:
        for name, x in (wider(narrower(population))).genes.items():
            require(torch.equal(x, population[name]), f"{what}: a fixed gene of {name!r} moved")
        assessment = problem.assess(narrower(population)).assessment
        require(assessment is not None, "the problem gave no assessment")
        return population.assessed(assessment)  # type: ignore[arg-type]

    for start_k in (subject.k(), 1):
        start = problem.start(start_k)
        if narrow:
            start = _box(narrow)(start)
        first = run(one, problem.assess, start, subject.noise(), _GENERATIONS)
        second = run(other, assess, wider(start), subject.noise(), _GENERATIONS)
        for generation, ((before, a), (after, b)) in enumerate(zip(first, second, strict=True)):
            require(a.k == b.k, f"{what}: {b.k} candidates, {a.k} without them, in generation {generation}")
            same = close(a["x"], narrower(b)["x"], 1e-9)
            require(same, f"{what}: other genes differ in generation {generation}")
            same = close(one.best(before)["x"], narrower(other.best(after))["x"], 1e-9)
            require(same, f"{what}: another best candidate in generation {generation}")


def _box(ends: Mapping[str, tuple[Tensor, Tensor]]) -> Bounds:
    """Bounds by name."""
    return Bounds({name: pair[0] for name, pair in ends.items()}, {name: pair[1] for name, pair in ends.items()})
