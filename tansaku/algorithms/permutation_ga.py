"""A genetic algorithm for permutations: order crossover, swap and inversion.

L. Davis, Applying Adaptive Algorithms to Epistatic Domains, IJCAI 1985 (order crossover); P. Larrañaga et al., Genetic
Algorithms for the Travelling Salesman Problem: A Review of Representations and Operators, 1999 (the mutations).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from tansaku import checks, draws
from tansaku.algorithms.base import Needs
from tansaku.algorithms.ga import GA
from tansaku.draws import Noise
from tansaku.operators.crossover import Crossover
from tansaku.operators.mutation import Mutation, shapes
from tansaku.operators.permutation import Inversion, OrderCrossover, Swap
from tansaku.operators.survival import Comma
from tansaku.population import Population


@dataclass(frozen=True)
class SwapOrInversion(Mutation):
    """Permutations are mutated by one of `Inversion` and `Swap`.

    Args:
        probability: that a permutation is mutated, in [0, 1].
        inversion: that it is by the inversion, in [0, 1].
    """

    probability: float = 0.5
    inversion: float = 0.5
    permutes = True

    def __post_init__(self) -> None:
        checks.probability("probability", self.probability)
        checks.probability("inversion", self.inversion)

    def mutate(self, name: str, x: Tensor, batch_ndim: int, noise: Noise) -> Tensor:
        """See `Mutation.mutate`."""
        turned = Inversion(self.probability).mutate(name, x, batch_ndim, noise)
        swapped = Swap(self.probability).mutate(name, x, batch_ndim, noise)
        lead, batch_shape, event_shape = shapes(x, batch_ndim)
        coins = draws.coins(self.inversion, lead, batch_shape, event_shape[:-1], x, noise)
        return turned.where(coins.unsqueeze(-1) if event_shape else coins, swapped)


@dataclass(frozen=True)
class PermutationGA(GA):
    """`GA` with operators for permutations: integer tensors that hold 0 .. n - 1 along their last dimension.

    ``minimize(fn, shape=n, algorithm="permutation_ga")`` begins with random permutations. For permutations beside
    other genes, use `GA` with an operator per name.

    Args:
        k: children per generation.
        select: (population, count, noise) -> index.
        crossover: of permutations.
        mutate: of permutations.
        survive: (parents, children) -> the next parents.
        bounds: none, for a permutation has its own.

    Raises:
        ValueError: bounds are given.
    """

    crossover: Crossover | Mapping[str, Crossover] | None = field(default_factory=OrderCrossover)
    mutate: Mutation | Mapping[str, Mutation] | None = field(default_factory=SwapOrInversion)
    survive: Callable[[Population, Population], Population] = field(default_factory=lambda: Comma(50))
    needs = Needs(dtypes=frozenset({"permutation"}))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bounds is not None:
            raise ValueError("expected no bounds for permutations, which hold 0 .. n - 1, got some; leave them out")
        for name in ("crossover", "mutate"):
            if getattr(self, name) is None:
                raise ValueError(f"expected {name} of permutations, got None; leave it out or use GA")
