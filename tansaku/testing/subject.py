"""What a conformance suite asks an algorithm with: its maker, its problems, its runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tansaku.algorithms import Algorithm, Needs
from tansaku.draws import Noise
from tansaku.operators import Bounds
from tansaku.operators.bounds import Repair
from tansaku.population import Population
from tansaku.testing.problems import Problem

DTYPES = {"real": torch.float64, "integer": torch.int64, "boolean": torch.bool, "permutation": torch.int64}
OTHER_DTYPES = {
    "real": (torch.float32, torch.float64),
    "integer": (torch.int32, torch.int64),
    "boolean": (torch.bool,),
    "permutation": (torch.int32, torch.int64),
}


@dataclass(frozen=True)
class Subject:
    """An algorithm's maker, and problems of the kinds that the algorithm declares."""

    make: Callable[..., Algorithm[Any]]
    device: torch.device

    def algorithm(
        self, k: int | None = None, bounds: Bounds | None = None, generations: int | None = None
    ) -> Algorithm[Any]:
        """One with these settings, or its own where None is given; told how long the run is, if it plans."""
        given: dict[str, Any] = {"k": k, "bounds": bounds}
        if generations is not None and self.needs.plans:
            given["max_evaluations"] = (self.k() if k is None else k) * (generations + 1)
        made = self.make(**{name: value for name, value in given.items() if value is not None})
        if not isinstance(made, Algorithm):
            raise TypeError(f"expected make to build an Algorithm, got {type(made).__name__}; subclass Algorithm")
        return made

    @property
    def needs(self) -> Needs:
        """What it declares."""
        return self.algorithm().needs

    @property
    def kinds(self) -> list[str]:
        """The kinds of genes that it searches over, real ones first."""
        return [kind for kind in DTYPES if kind in self.needs.dtypes]

    def k(self, least: int = 16) -> int:
        """The smallest number of candidates that it takes, from ``least`` on."""
        least, multiple = max(least, self.needs.min_k), self.needs.k_multiple
        return -(-least // multiple) * multiple

    def problem(self, kind: str | None = None, **settings: Any) -> Problem:
        """A problem of one tensor ``"x"``, by default of the first kind."""
        kind = kind or self.kinds[0]
        dtype = settings.pop("dtype", DTYPES[kind])
        permuted = frozenset({"x"} if kind == "permutation" else ())
        return self.posed({"x": dtype}, {"x": settings.pop("event", (4,))}, permuted=permuted, **settings)

    def posed(self, dtypes: dict[str, torch.dtype], events: dict[str, tuple[int, ...]], **settings: Any) -> Problem:
        """A problem of any tensors, with the objectives and the descriptor that the algorithm needs."""
        needs = self.needs
        objectives = 2 if needs.objectives == "many" else 1
        return Problem(
            dtypes, events, objectives=objectives, descriptor=needs.descriptor, device=self.device, **settings
        )

    def bounded(
        self, problem: Problem, k: int | None = None, repair: Repair = "clip", generations: int | None = None
    ) -> Algorithm[Any]:
        """With the problem's box."""
        return self.algorithm(self.k() if k is None else k, problem.bounds(repair), generations)

    def noise(self, seed: int = 1) -> torch.Generator:
        """Random numbers."""
        return torch.Generator(self.device).manual_seed(seed)


def run(
    algorithm: Algorithm[Any],
    assess: Callable[[Population], Population],
    start: Population,
    noise: Noise,
    generations: int,
) -> Iterator[tuple[Any, Population]]:
    """The state after the start, with the start; then after every generation, with what was asked for in it."""
    assessed = assess(start)
    state = algorithm.init(assessed)
    yield state, assessed
    for _ in range(generations):
        asked = assess(algorithm.ask(state, noise))
        state = algorithm.tell(state, asked)
        yield state, asked


def genes_of(x: Population) -> list[Tensor]:
    """Its tensors of genes."""
    return list(x.genes.values())


def inside(population: Population, bounds: Bounds) -> bool:
    """Whether no gene is outside or NaN."""
    for name, x in population.genes.items():
        ends = bounds.ends(name, x)
        if ends is not None and not bool(((x >= ends[0]) & (x <= ends[1])).all()):
            return False
    return True
