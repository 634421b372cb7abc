"""What `check_operator` asks an operator with: parents of every dtype and shape, and the call of its kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from tansaku.assessment import Assessment
from tansaku.draws import Noise
from tansaku.population import Population
from tansaku.testing.claims import require

Kind = Literal["selection", "crossover", "mutation", "sampling", "survival", "reduction"]

DTYPES = (torch.float32, torch.float64, torch.int64, torch.bool)


@dataclass(frozen=True)
class Subject:
    """An operator, and ways to call it."""

    operator: Any
    kind: Kind
    device: torch.device

    def noise(self, seed: int = 1) -> torch.Generator:
        """Random numbers."""
        return torch.Generator(self.device).manual_seed(seed)

    def call(self, case: Case, noise: Noise, operator: Any = None) -> Any:
        """What the operator makes of a case."""
        operate = self.operator if operator is None else operator
        match self.kind:
            case "selection":
                return operate(case.parents, case.parents.k, noise)
            case "crossover":
                return operate(case.parents, case.others, noise)
            case "mutation":
                return operate(case.parents, noise)
            case "sampling":
                return operate(case.parents.individual(), case.parents.k, noise)
            case "survival":
                return operate(case.parents, case.others)
            case _:
                return operate(case.parents)

    def case(
        self,
        dtype: torch.dtype,
        k: int = 8,
        event: tuple[int, ...] = (5,),
        batch_shape: tuple[int, ...] = (),
        several: bool = False,
        seed: int = 0,
    ) -> Case:
        """`Case.of` with genes of the kind that the operator is made for."""
        return Case.of(dtype, k, event, batch_shape, several, self.permutes, seed, self.device)

    @property
    def permutes(self) -> bool:
        """Whether its integers are permutations."""
        return bool(getattr(self.operator, "permutes", False))

    def dtypes(self) -> list[torch.dtype]:
        """Those that it does not refuse."""
        taken = []
        for dtype in DTYPES:
            try:
                self.call(self.case(dtype), self.noise())
            except TypeError:
                continue
            taken.append(dtype)
        require(len(taken) > 0, "it refuses genes of every dtype")
        return taken

    def sizes(self) -> list[int]:
        """Numbers of candidates to try: one, few, odd, even; where pairs are drawn, even ones."""
        try:
            self.call(self.case(self.dtypes()[0], k=3), self.noise())
        except ValueError:
            if self.kind == "sampling":
                return [2, 8]
            raise
        return [1, 2, 7, 8]


@dataclass(frozen=True)
class Case:
    """Parents, and others of the same shapes."""

    parents: Population
    others: Population

    @classmethod
    def of(
        cls,
        dtype: torch.dtype,
        k: int = 8,
        event: tuple[int, ...] = (5,),
        batch_shape: tuple[int, ...] = (),
        several: bool = False,
        permuted: bool = False,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> Case:
        """Random genes, costs and cases; the trait ``age`` tells all candidates of a search apart."""
        generator = torch.Generator().manual_seed(seed)

        def population(first: int) -> Population:
            events = {"x": event, "w": (*event, 2)} if several else {"x": event}
            genes = {
                name: _genes(torch.randn(k, *batch_shape, *size, generator=generator), dtype, permuted)
                for name, size in events.items()
            }
            age = torch.arange(first, first + k).view(k, *(1,) * len(batch_shape)).expand(k, *batch_shape)
            velocity = torch.randn(k, *batch_shape, 2, generator=generator)
            cases = torch.rand(k, *batch_shape, event[0], generator=generator, dtype=torch.float64)
            value = torch.rand(k, *batch_shape, generator=generator, dtype=torch.float64)
            genes = {name: x.to(device) for name, x in genes.items()}
            traits = {"age": age.contiguous().to(device), "velocity": velocity.to(device)}
            return Population(genes, len(batch_shape), traits, Assessment(value.to(device), cases=cases.to(device)))

        return cls(population(0), population(k))

    def search(self, where: tuple[int, ...]) -> Case:
        """The part of one search."""
        return Case(_search(self.parents, where), _search(self.others, where))


def _genes(drawn: Tensor, dtype: torch.dtype, permuted: bool) -> Tensor:
    if permuted and dtype == torch.int64:
        return drawn.argsort(-1)
    if dtype == torch.bool:
        return drawn > 0
    return (drawn if dtype.is_floating_point else drawn.round()).clamp(-3, 3).to(dtype)


def _search(population: Population, where: tuple[int, ...]) -> Population:
    index: tuple[slice | int, ...] = (slice(None), *where)
    assessment = population.assessment
    if assessment is None or assessment.cases is None:
        raise ValueError("expected an assessed population with cases, got one without; make it with Case.of")
    return Population(
        {name: x[index] for name, x in population.genes.items()},
        0,
        {name: x[index] for name, x in population.traits.items()},
        Assessment(assessment.value[index], assessment.maximize, cases=assessment.cases[index]),
    )
