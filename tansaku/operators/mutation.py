"""Mutation: small random changes, one candidate at a time. Each operator is ``(population, noise) -> population``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tansaku import checks, draws
from tansaku.draws import Noise
from tansaku.functional import flip, jitter, select
from tansaku.operators.bounds import Bounds, fits
from tansaku.population import Population, check_population


class Mutation:
    """Base of all mutations: `mutate` says what happens to one tensor, the call does it for all of them.

    Random numbers come from `tansaku.draws`, which takes a generator or, in the conformance suites, a recording of
    one; genes of a dtype that the mutation cannot change are refused with a TypeError that names the dtype.

    Example:
        >>> class Shrink(Mutation):
        ...     def mutate(self, name, x, batch_ndim, noise):
        ...         if not x.is_floating_point():
        ...             raise TypeError(f"expected real genes for Shrink, got {x.dtype}; use BitFlip")
        ...         return x * draws.uniform(*shapes(x, batch_ndim), x, noise)
        >>> Shrink()(Population({"x": torch.ones(3, 2)}), torch.Generator().manual_seed(0))["x"].amax() < 1
        tensor(True)
    """

    def mutate(self, name: str, x: Tensor, batch_ndim: int, noise: Noise) -> Tensor:
        """Changed genes of the shape and dtype of ``x`` [k, *batch_shape, *event_shape]."""
        raise TypeError(f"expected a mutation with a method mutate, got {type(self).__name__}; define it")

    def __call__(self, population: Population, noise: Noise) -> Population:
        """The population with changed genes; traits stay, the assessment is dropped.

        Raises:
            TypeError: no population.
        """
        check_population("population", population)
        return population.with_genes(
            {name: self.mutate(name, x, population.batch_ndim, noise) for name, x in population.genes.items()}
        )


def shapes(x: Tensor, batch_ndim: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """(k,), batch_shape and event_shape of ``x``, as the functions of `tansaku.draws` take them."""
    return tuple(x.shape[:1]), tuple(x.shape[1 : 1 + batch_ndim]), tuple(x.shape[1 + batch_ndim :])


@dataclass(frozen=True)
class Gaussian(Mutation):
    """Adds normal noise: x + std * N(0, 1), to each gene with probability ``rate``.

    Args:
        std: the noise's standard deviation in units of the genes; a number, or a tensor that broadcasts against
            [*event_shape].
        rate: the share of genes that change, in [0, 1].

    Raises:
        TypeError: genes that are not real (at the call).
        ValueError: a negative std, one of another shape (at the call), or a rate outside [0, 1].
    """

    std: float | Tensor = 0.1
    rate: float = 1.0

    def __post_init__(self) -> None:
        checks.std("std", self.std)
        checks.probability("rate", self.rate)

    def mutate(self, name: str, x: Tensor, batch_ndim: int, noise: Noise) -> Tensor:
        """See `Mutation.mutate`."""
        checks.real("Gaussian mutation", name, x, "use BitFlip for booleans or UniformReset for integers")
        checks.fits_event("std", self.std, shapes(x, batch_ndim)[2])
        moved = jitter(x, draws.normal(*shapes(x, batch_ndim), x, noise), self.std)
        if self.rate == 1.0:
            return moved
        return select(draws.coins(self.rate, *shapes(x, batch_ndim), x, noise), moved, x)


@dataclass(frozen=True)
class Cauchy(Mutation):
    """Adds Cauchy noise, x + scale * C(0, 1), to each gene with probability ``rate``: mostly short steps, some far.

    Args:
        scale: in units of the genes: half of the steps are shorter. A number, or a tensor that broadcasts against
            [*event_shape].
        rate: the share of genes that change, in [0, 1].

    Raises:
        TypeError: genes that are not real (at the call).
        ValueError: a negative scale, one of another shape (at the call), or a rate outside [0, 1].

    Reference: X. Yao, Y. Liu and G. Lin, Evolutionary Programming Made Faster, 1999.
    """

    scale: float | Tensor = 0.1
    rate: float = 1.0

    def __post_init__(self) -> None:
        checks.std("scale", self.scale)
        checks.probability("rate", self.rate)

    def mutate(self, name: str, x: Tensor, batch_ndim: int, noise: Noise) -> Tensor:
        """See `Mutation.mutate`."""
        checks.real("Cauchy mutation", name, x, "use BitFlip for booleans or Creep for integers")
        checks.fits_event("scale", self.scale, shapes(x, batch_ndim)[2])
        moved = jitter(x, draws.cauchy(*shapes(x, batch_ndim), x, noise), self.scale)
        if self.rate == 1.0:
            return moved
        return select(draws.coins(self.rate, *shapes(x, batch_ndim), x, noise), moved, x)


@dataclass(frozen=True)
class Creep(Mutation):
    """Integer creep: each gene, with probability ``rate``, moves by 1 .. ``step`` up or down, all equally likely.

    Args:
        step: the longest move, >= 1.
        rate: the share of genes that move, in [0, 1]. A move beyond the range of the dtype ends at its end.

    Raises:
        TypeError: genes that are not integers (at the call).
        ValueError: a step below 1 or a rate outside [0, 1].

    Reference: L. Davis, Handbook of Genetic Algorithms, 1991.
    """

    step: int = 1
    rate: float = 0.1

    def __post_init__(self) -> None:
        checks.count("step", self.step)
        checks.probability("rate", self.rate)

    def mutate(self, name: str, x: Tensor, batch_ndim: int, noise: Noise) -> Tensor:
        """See `Mutation.mutate`."""
        checks.whole("Creep", name, x, "use Gaussian for real genes or BitFlip for booleans")
        drawn = draws.integers(2 * self.step, *shapes(x, batch_ndim), x, noise) - self.step
        drawn += drawn >= 0  # -step .. -1, 1 .. step
        moving = draws.coins(self.rate, *shapes(x, batch_ndim), x, noise)
        ends, whole = torch.iinfo(x.dtype), x.long()
        start = torch.where(drawn > 0, torch.minimum(whole, ends.max - drawn), torch.maximum(whole, ends.min - drawn))
        return select(moving, (start + drawn).to(x.dtype), x)


@dataclass(frozen=True)
class UniformReset(Mutation):
    """Uniform mutation: each gene, with probability ``rate``, is drawn anew from the whole of its bounds.

    Args:
        bounds: the finite box to draw from, `Bounds` or (lower, upper), both ends included for integers.
        rate: the share of genes drawn anew, in [0, 1].

    Raises:
        TypeError: no bounds, or boolean genes (at the call).
        ValueError: genes without finite bounds that fit them (at the call), or a rate outside [0, 1].

    Reference: Z. Michalewicz, Genetic Algorithms + Data Structures = Evolution Programs, 1992.
    """

    bounds: Bounds
    rate: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "bounds", Bounds.needed("UniformReset", self.bounds))
        checks.probability("rate", self.rate)

    def mutate(self, name: str, x: Tensor, batch_ndim: int, noise: Noise) -> Tensor:
        """See `Mutation.mutate`."""
        if x.dtype == torch.bool:
            raise TypeError(f"expected real or integer genes for UniformReset, got {name!r} of {x.dtype}; use BitFlip")
        fresh = uniform_within(self.bounds, name, x, batch_ndim, noise)
        return select(draws.coins(self.rate, *shapes(x, batch_ndim), x, noise), fresh, x)


def uniform_within(bounds: Bounds | None, name: str, x: Tensor, batch_ndim: int, noise: Noise) -> Tensor:
    """Genes of the shape of ``x`` drawn uniformly from the bounds of ``name``.

    Raises:
        ValueError: the genes have no finite bounds that fit them.
    """
    like = x if x.is_floating_point() else torch.zeros((), dtype=torch.float64, device=x.device)
    ends = finite_ends(bounds, name, x, batch_ndim)
    return place_within(ends, x, draws.uniform(*shapes(x, batch_ndim), like, noise))


def finite_ends(bounds: Bounds | None, name: str, x: Tensor, batch_ndim: int) -> tuple[Tensor, Tensor]:
    """Lower and upper end for the genes ``name`` [k, *batch_shape, *event_shape].

    Raises:
        ValueError: the genes have no finite bounds, or ends that do not broadcast against [*event_shape].
    """
    ends = None if bounds is None else bounds.ends(name, x)
    if bounds is None or ends is None or not bounds.finite(name):
        raise ValueError(f"expected finite bounds for {name!r} to draw from, got none; give lower and upper")
    fits(name, ends, x.shape[1 + batch_ndim :])
    return ends


def place_within(ends: tuple[Tensor, Tensor], x: Tensor, unit: Tensor) -> Tensor:
    """Genes of the dtype of ``x`` at ``unit`` of the way between their ends; ``unit``, in [0, 1), is overwritten."""
    low, high = ends
    if x.is_floating_point():
        return unit.mul_(high - low).add_(low).clamp_(low, high).to(x.dtype)
    first = low.to(torch.float64)  # the number of choices may not fit into the genes' own dtype
    choices = high.to(torch.float64) - first + 1
    return unit.mul_(choices).floor_().add_(first).to(x.dtype).clamp_(low, high)


@dataclass(frozen=True)
class BitFlip(Mutation):
    """Inverts each boolean gene with probability ``rate``.

    Args:
        rate: the share of genes flipped, in [0, 1].

    Raises:
        TypeError: genes that are not boolean (at the call).
        ValueError: a rate outside [0, 1].
    """

    rate: float = 0.05

    def __post_init__(self) -> None:
        checks.probability("rate", self.rate)

    def mutate(self, name: str, x: Tensor, batch_ndim: int, noise: Noise) -> Tensor:
        """See `Mutation.mutate`."""
        if x.dtype != torch.bool:
            raise TypeError(
                f"expected boolean genes for BitFlip, got {name!r} of {x.dtype}; "
                "use Gaussian for real or UniformReset for integer genes"
            )
        return flip(x, draws.coins(self.rate, *shapes(x, batch_ndim), x, noise))


@dataclass(frozen=True)
class PerName(Mutation):
    """One mutation per name; genes that are not named stay as they are.

    A dictionary of mutations means the same wherever a mutation is expected.

    Args:
        mutations: name -> mutation.

    Raises:
        ValueError: a name that the population lacks (at the call).

    Example:
        >>> mutate = PerName({"w": Gaussian(0.1), "mask": BitFlip(0.01)})
    """

    mutations: Mapping[str, Mutation]

    def __call__(self, population: Population, noise: Noise) -> Population:
        """The population with changed genes; traits stay, the assessment is dropped."""
        check_population("population", population)
        unknown = sorted(set(self.mutations) - set(population.genes))
        if unknown:
            raise ValueError(f"expected names among {sorted(population.genes)}, got {unknown}; name existing genes")
        return population.with_genes(
            {
                name: mutation(Population({name: population[name]}, population.batch_ndim), noise)[name]
                for name, mutation in self.mutations.items()
            }
        )


def mutation_of(given: Mutation | Mapping[str, Mutation]) -> Mutation:
    """``given`` itself, or a dictionary of mutations as one."""
    return PerName(given) if isinstance(given, Mapping) else given
