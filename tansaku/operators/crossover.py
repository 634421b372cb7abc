"""Crossover: two parents, one child. Each operator is ``(a, b, noise) -> children``.

Candidate i of ``a`` and candidate i of ``b`` make child i. A child's traits are those of its first parent.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tansaku import checks, draws
from tansaku.draws import Noise
from tansaku.functional import blend, exchange
from tansaku.operators.mutation import shapes
from tansaku.population import Population


class Crossover:
    """Base of all crossovers: `cross` says what happens to one tensor, the call does it for all of them."""

    def cross(self, name: str, a: Tensor, b: Tensor, batch_ndim: int, noise: Noise) -> Tensor:
        """Children of the shape and dtype of ``a`` and ``b`` [k, *batch_shape, *event_shape]."""
        raise TypeError(f"expected a crossover with a method cross, got {type(self).__name__}; define it")

    def __call__(self, a: Population, b: Population, noise: Noise) -> Population:
        """Children of ``a`` and ``b``, with the traits of ``a``, not assessed.

        Raises:
            ValueError: parents of different number or names.
        """
        if a.k != b.k or set(a.genes) != set(b.genes):
            raise ValueError(
                f"expected parents of one number and the same names, got {a.k} of {sorted(a.genes)} and "
                f"{b.k} of {sorted(b.genes)}; take the same number of both"
            )
        return a.with_genes({name: self.cross(name, x, b[name], a.batch_ndim, noise) for name, x in a.genes.items()})


@dataclass(frozen=True)
class UniformCrossover(Crossover):
    """Each gene comes from the second parent with probability ``rate``, from the first otherwise.

    Args:
        rate: in [0, 1]; 0 copies the first parent, 1 the second.

    Reference: G. Syswerda, Uniform Crossover in Genetic Algorithms, 1989.
    """

    rate: float = 0.5

    def __post_init__(self) -> None:
        checks.probability("rate", self.rate)

    def cross(self, name: str, a: Tensor, b: Tensor, batch_ndim: int, noise: Noise) -> Tensor:
        """See `Crossover.cross`."""
        return exchange(a, b, draws.coins(self.rate, *shapes(a, batch_ndim), a, noise))


@dataclass(frozen=True)
class Blend(Crossover):
    """BLX-alpha: each gene is uniform on the parents' interval, widened by ``alpha`` of its length on both sides.

    Args:
        alpha: 0 stays between the parents; 0.5 keeps a population's spread from shrinking by chance alone.

    Raises:
        TypeError: genes that are not real (at the call).

    Reference: L. J. Eshelman and J. D. Schaffer, Real-coded genetic algorithms and interval-schemata, 1993.
    """

    alpha: float = 0.5

    def __post_init__(self) -> None:
        checks.number("alpha", self.alpha, 0.0)

    def cross(self, name: str, a: Tensor, b: Tensor, batch_ndim: int, noise: Noise) -> Tensor:
        """See `Crossover.cross`."""
        checks.real("Blend crossover", name, a, "use UniformCrossover")
        return blend(a, b, draws.weights(*shapes(a, batch_ndim), a, noise, -self.alpha, 1 + self.alpha))
