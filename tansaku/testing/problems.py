"""The small problems that the conformance suite of algorithms poses: a start, a box, and a cost with a known centre."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tansaku.assessment import Assessment
from tansaku.functional import hypervolume
from tansaku.operators import Bounds
from tansaku.operators.bounds import Repair
from tansaku.population import Population

_INTEGERS = (0, 9)


@dataclass(frozen=True)
class Problem:
    """Find the genes nearest to ``centre`` (real), 3 (integer), True (boolean) or 0, 1, .. n - 1 (permutation).

    The cost adds gene after gene, so that it is the same to the bit for one search and for a batch of them.

    Args:
        dtypes: name -> dtype of the genes.
        events: name -> event_shape of the genes.
        batch_shape: independent searches.
        permuted: the names whose integers are permutations along the last dimension.
        centre: of the cost, and ``low`` and ``high`` the box, of real genes.
        maximize: whether the value is the negated cost.
        change: of the cost before it becomes the value.
        objectives: 1, or 2: the second one draws towards other genes, so that no candidate is best in both.
        descriptor: whether the assessment has one: the mean of the first and of the second half of all genes, each
            brought into [0, 1] by the box.
    """

    dtypes: Mapping[str, torch.dtype] = field(default_factory=lambda: {"x": torch.float64})
    events: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: {"x": (4,)})
    batch_shape: tuple[int, ...] = ()
    permuted: frozenset[str] = frozenset()
    centre: float = 0.7
    low: float = -5.0
    high: float = 5.0
    maximize: bool = False
    change: Callable[[Tensor], Tensor] | None = None
    objectives: int = 1
    descriptor: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def ends(self, name: str) -> tuple[float, float]:
        """Lower and upper end of genes that are neither boolean nor permutations."""
        return (self.low, self.high) if self.dtypes[name].is_floating_point else _INTEGERS

    def bounds(self, repair: Repair = "clip") -> Bounds | None:
        """The box; None where all genes are boolean or permutations."""
        boxed = [name for name, dtype in self.dtypes.items() if dtype != torch.bool and name not in self.permuted]
        ends = {name: self.ends(name) for name in boxed}
        lower, upper = ({name: pair[i] for name, pair in ends.items()} for i in (0, 1))
        return Bounds(lower, upper, repair) if ends else None

    def start(self, k: int, seed: int = 0) -> Population:
        """``k`` candidates drawn uniformly, not assessed."""
        generator = torch.Generator().manual_seed(seed)
        genes = {}
        for name, dtype in self.dtypes.items():
            unit = torch.rand(k, *self.batch_shape, *self.events[name], generator=generator, dtype=torch.float64)
            if name in self.permuted:
                drawn = (unit if self.events[name] else unit[..., None]).argsort(-1).view(unit.shape)
            elif dtype == torch.bool:
                drawn = unit < 0.5
            elif dtype.is_floating_point:
                drawn = self.low + (self.high - self.low) * unit
            else:
                drawn = (unit * (_INTEGERS[1] + 1)).floor()
            genes[name] = drawn.to(self.device, dtype)
        return Population(genes, len(self.batch_shape))

    def optimum(self, name: str, x: Tensor) -> Tensor:
        """The genes of lowest cost, in the shape of ``x``."""
        if name in self.permuted:
            return torch.arange(x.shape[-1] if self.events[name] else 1, dtype=x.dtype, device=x.device).expand_as(x)
        best: float = self.centre if x.is_floating_point() else 1 if x.dtype == torch.bool else 3
        return torch.full_like(x, best)

    def assess(self, population: Population) -> Population:
        """The same candidates with their assessment."""
        return self.judged(population, self.value(population))

    def judged(self, population: Population, value: Tensor) -> Population:
        """The same candidates with this value."""
        descriptor = self._descriptor(population) if self.descriptor else None
        return population.assessed(Assessment(value, self.maximize, descriptor=descriptor))

    def value(self, population: Population) -> Tensor:
        """[k, *batch_shape] in the sign that ``maximize`` asks for, or [k, *batch_shape, 2] for two objectives."""
        costs = [self._cost(population, other=bool(i)) for i in range(self.objectives)]
        cost = costs[0] if self.objectives == 1 else torch.stack(costs, -1)
        cost = cost if self.change is None else self.change(cost)
        return -cost if self.maximize else cost

    def _cost(self, population: Population, other: bool) -> Tensor:
        lead = 1 + population.batch_ndim
        terms: list[Tensor] = []
        for name, x in population.genes.items():
            goals = self.optimum(name, x).reshape(*x.shape[:lead], -1).unbind(-1)
            for gene, goal in zip(x.reshape(*x.shape[:lead], -1).unbind(-1), goals, strict=True):
                if gene.dtype == torch.bool:
                    terms.append((gene if other and len(terms) % 2 else ~gene).to(torch.float32))
                elif gene.is_floating_point():
                    terms.append((gene - (self.centre + other)).square())
                else:
                    terms.append((gene - (goal + 2 * other)).abs().to(torch.float32))
        return _sum(terms)

    def _descriptor(self, population: Population) -> Tensor:
        units = []
        for x in self._genes(population):
            low, high = (
                (0, 1) if x.dtype == torch.bool else (self.low, self.high) if x.is_floating_point() else _INTEGERS
            )
            units.append((x.to(torch.float64) - low) / (high - low))
        half = (len(units) + 1) // 2
        halves = units[:half], units[half:] or units
        return torch.stack([_sum(part) / len(part) for part in halves], -1)

    def _genes(self, population: Population) -> list[Tensor]:
        """Every gene as a tensor [k, *batch_shape]."""
        lead = 1 + population.batch_ndim
        return [gene for x in population.genes.values() for gene in x.reshape(*x.shape[:lead], -1).unbind(-1)]

    def merit(self, population: Population) -> Tensor:
        """[*batch_shape] lower is better: the lowest cost, or less the hypervolume of several objectives."""
        if self.objectives == 1:
            return population.cost.amin(0)
        worst = 0.0
        for name, dtype in self.dtypes.items():
            low, high = (0.0, 1.0) if dtype == torch.bool else self.ends(name)
            worst += (high - low) ** 2 * math.prod(self.events[name])
        cost = population.cost.double()
        return -hypervolume(cost, cost.new_full((self.objectives,), worst))


def _sum(terms: list[Tensor]) -> Tensor:
    """Gene after gene."""
    if not terms:
        raise ValueError("expected at least one tensor of genes, got none; name one in dtypes")
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
