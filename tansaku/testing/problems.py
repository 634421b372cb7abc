"""The small problems that the conformance suite of algorithms poses: a start, a box, and a cost with a known centre."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tansaku.assessment import Assessment
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
        return population.assessed(Assessment(self.value(population), self.maximize))

    def value(self, population: Population) -> Tensor:
        """[k, *batch_shape] in the sign that ``maximize`` asks for."""
        cost: Tensor | None = None
        for name, x in population.genes.items():
            if name in self.permuted:
                terms = (x - self.optimum(name, x)).abs().to(torch.float32)
            elif x.dtype == torch.bool:
                terms = (~x).to(torch.float32)
            elif x.is_floating_point():
                terms = (x - self.centre).square()
            else:
                terms = (x - 3).abs().to(torch.float32)
            for gene in terms.flatten(1 + population.batch_ndim).unbind(-1) if self._has_event(terms) else [terms]:
                cost = gene if cost is None else cost + gene
        if cost is None:
            raise ValueError("expected at least one tensor of genes, got none; name one in dtypes")
        cost = cost if self.change is None else self.change(cost)
        return -cost if self.maximize else cost

    def _has_event(self, x: Tensor) -> bool:
        return x.ndim > 1 + len(self.batch_shape)
