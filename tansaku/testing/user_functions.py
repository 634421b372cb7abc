"""Claims about objectives that misbehave: they write into their argument, or raise for some candidates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tansaku.assessors import Objective
from tansaku.population import Population
from tansaku.search import Search
from tansaku.testing.claims import fingerprint, refused, require
from tansaku.testing.problems import Problem
from tansaku.testing.subject import Subject

Genes = dict[str, Tensor]


def writes_are_refused(subject: Subject) -> None:
    """A write at a late call raises, and the run goes on as one without the write."""
    for kind in subject.kinds:
        problem = subject.problem(kind)
        writes: list[Callable[[Tensor], None]] = []

        def fn(genes: Genes, problem: Problem = problem, writes: list[Callable[[Tensor], None]] = writes) -> Genes:
            for write in writes:
                write(genes["x"])
            return _answer(problem, genes)

        def quiet(genes: Genes, problem: Problem = problem) -> Genes:
            return _answer(problem, genes)

        plain, disturbed = _search(subject, problem, quiet), _search(subject, problem, fn)
        for generation in range(6):
            if generation % 2:
                writes.append(_write)
                refused(RuntimeError, disturbed.step, "in place")
                writes.clear()
            for search in (plain, disturbed):
                search.step()
            same = fingerprint(plain.state) == fingerprint(disturbed.state)
            require(same, f"{kind} genes: another state after the write of generation {generation}")


def _write(x: Tensor) -> None:
    """By numpy, which torch does not count, where that is possible."""
    if x.device.type != "cpu":
        x.copy_(x.flip(0))
        return
    array: Any = x.numpy()
    array[...] = ~array if array.dtype == bool else array + 1


def failures_cost_the_worst(subject: Subject) -> None:
    """A run whose objective raises for some candidates equals the run in which they cost infinitely much."""
    for kind in subject.kinds:
        problem = subject.problem(kind)

        def failing(genes: Genes, problem: Problem = problem) -> tuple[Genes, Tensor]:
            answer = _answer(problem, genes)
            value = answer["value"] if problem.objectives == 1 else answer["value"][..., 0]
            return answer, (value * 7919).floor() % 3 == 1  # some candidates, whatever the others are

        def raising(genes: Genes, failing: Callable[[Genes], tuple[Genes, Tensor]] = failing) -> Genes:
            answer, failed = failing(genes)
            if bool(failed.any()):
                raise ArithmeticError("this candidate fails")
            return answer

        def infinite(genes: Genes, failing: Callable[[Genes], tuple[Genes, Tensor]] = failing) -> Genes:
            answer, failed = failing(genes)
            worst = {"value": torch.inf, "descriptor": torch.nan}
            return {n: torch.where(failed.view(-1, *(1,) * (x.ndim - 1)), worst[n], x) for n, x in answer.items()}

        raised, told = _search(subject, problem, raising), _search(subject, problem, infinite)
        for generation in range(8):
            for search in (raised, told):
                search.step()
            same = fingerprint(raised.state) == fingerprint(told.state)
            require(same, f"{kind} genes: another state after the failures of generation {generation}")
        require(raised.failures.count > 0, f"{kind} genes: no failure was recorded")


def _search(subject: Subject, problem: Problem, fn: Callable[[Genes], Genes]) -> Search[Any]:
    algorithm = subject.bounded(problem)
    return Search(algorithm, Objective(fn, named=True, on_failure="worst"), problem.start(algorithm.k), seed=3)


def _answer(problem: Problem, genes: Genes) -> Genes:
    assessment = problem.assess(Population(genes)).assessment
    if assessment is None:
        raise ValueError("expected a problem that assesses its population, got no assessment; see Problem.assess")
    fields = {"value": assessment.value, "descriptor": assessment.descriptor}
    return {name: x for name, x in fields.items() if x is not None}
