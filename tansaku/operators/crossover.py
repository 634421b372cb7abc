"""Crossover: two parents, one child. Each operator is ``(a, b, noise) -> children``.

Candidate i of ``a`` and candidate i of ``b`` make child i. A child's traits are those of its first parent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from tansaku import checks, draws
from tansaku.draws import Noise
from tansaku.functional import align, blend, exchange
from tansaku.operators.mutation import shapes
from tansaku.population import Population, check_population


class Crossover:
    """Base of all crossovers: `cross` says what happens to one tensor, the call does it for all of them."""

    def cross(self, name: str, a: Tensor, b: Tensor, batch_ndim: int, noise: Noise) -> Tensor:
        """Children of the shape and dtype of ``a`` and ``b`` [k, *batch_shape, *event_shape]."""
        raise TypeError(f"expected a crossover with a method cross, got {type(self).__name__}; define it")

    def __call__(self, a: Population, b: Population, noise: Noise) -> Population:
        """Children of ``a`` and ``b``, with the traits of ``a``, not assessed.

        Raises:
            TypeError: parents that are no populations.
            ValueError: parents of different number, names, dtypes or shapes.
        """
        check_population("a", a)
        check_population("b", b)
        if a.k != b.k or set(a.genes) != set(b.genes):
            raise ValueError(
                f"expected parents of one number and the same names, got {a.k} of {sorted(a.genes)} and "
                f"{b.k} of {sorted(b.genes)}; take the same number of both"
            )
        for name, x in a.genes.items():
            checks.alike(name, x, b[name])
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


@dataclass(frozen=True)
class ArithmeticCrossover(Crossover):
    """Whole arithmetical crossover: a point between the parents, (1 - w) a + w b, one w for all genes of a name.

    Args:
        weight: w, the share of the second parent, in [0, 1]; drawn uniformly for every child if not given.

    Raises:
        TypeError: genes that are not real (at the call).
        ValueError: a weight outside [0, 1].

    Reference: Z. Michalewicz, Genetic Algorithms + Data Structures = Evolution Programs, 1992.
    """

    weight: float | None = None

    def __post_init__(self) -> None:
        if self.weight is not None:
            checks.probability("weight", self.weight)

    def cross(self, name: str, a: Tensor, b: Tensor, batch_ndim: int, noise: Noise) -> Tensor:
        """See `Crossover.cross`."""
        checks.real("ArithmeticCrossover", name, a, "use UniformCrossover")
        lead, batch_shape, _ = shapes(a, batch_ndim)
        if self.weight is None:
            weight = draws.uniform(lead, batch_shape, (), a, noise)
        else:
            weight = a.new_tensor(self.weight).expand(*lead, *batch_shape)
        return blend(a, b, align(weight, a).expand_as(a))


@dataclass(frozen=True)
class PerNameCrossover(Crossover):
    """One crossover per name; genes that are not named are the first parent's.

    A dictionary of crossovers means the same wherever a crossover is expected.

    Args:
        crossovers: name -> crossover.

    Raises:
        ValueError: a name that the parents lack (at the call).

    Example:
        >>> cross = PerNameCrossover({"w": Blend(0.5), "mask": UniformCrossover()})
    """

    crossovers: Mapping[str, Crossover]

    def __call__(self, a: Population, b: Population, noise: Noise) -> Population:
        """Children of ``a`` and ``b``, with the traits of ``a``, not assessed."""
        check_population("a", a)
        check_population("b", b)
        unknown = sorted(set(self.crossovers) - set(a.genes))
        if unknown:
            raise ValueError(f"expected names among {sorted(a.genes)}, got {unknown}; name existing genes")
        children = {}
        for name, crossover in self.crossovers.items():
            mothers, fathers = (Population({name: parent[name]}, parent.batch_ndim) for parent in (a, b))
            children[name] = crossover(mothers, fathers, noise)[name]
        return a.with_genes(children)


def crossover_of(given: Crossover | Mapping[str, Crossover]) -> Crossover:
    """``given`` itself, or a dictionary of crossovers as one."""
    return PerNameCrossover(given) if isinstance(given, Mapping) else given
