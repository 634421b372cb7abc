"""Samplers that fill a box more evenly than independent draws do.

M. D. McKay, R. J. Beckman and W. J. Conover, A Comparison of Three Methods for Selecting Values of Input Variables in
the Analysis of Output from a Computer Code, 1979 (Latin hypercube); I. M. Sobol, On the distribution of points in a
cube, 1967, made random by a digital shift: P. L'Ecuyer and C. Lemieux, Recent Advances in Randomized Quasi-Monte Carlo
Methods, 2002, section 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tansaku import draws
from tansaku.draws import Noise
from tansaku.operators.bounds import Bounds
from tansaku.operators.mutation import finite_ends, place_within, shapes
from tansaku.operators.sampling import populated
from tansaku.population import Individual, Population

_BITS = 30  # of the numbers of torch's Sobol engine
_UNIT = torch.float64


def _placed(bounds: Bounds | None, name: str, x: Tensor, batch_ndim: int, unit: Tensor) -> Tensor:
    """Genes of the dtype of ``x`` at ``unit`` in [0, 1) of their range; booleans are True in its upper half."""
    if x.dtype == torch.bool:
        return unit >= 0.5
    return place_within(finite_ends(bounds, name, x, batch_ndim), x, unit)


@dataclass(frozen=True)
class LatinHypercubeSampler:
    """Every gene's range is cut into k equal parts, and each part holds the gene of exactly one candidate.

    Of the individual only the shapes matter. Booleans are True in half of the candidates (of an odd number, one more
    or less).

    Args:
        bounds: `Bounds` or (lower, upper), finite for every gene that is not boolean.

    Raises:
        ValueError: genes without finite bounds that fit them (at the call).
    """

    bounds: Bounds | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "bounds", Bounds.of(self.bounds))

    def __call__(self, individual: Individual, k: int, noise: Noise) -> Population:
        """[k, *batch_shape, *event_shape] candidates."""
        population = populated(individual, k)
        genes = {}
        for name, x in population.genes.items():
            like = torch.zeros((), dtype=_UNIT, device=x.device)
            part = draws.uniform(*shapes(x, population.batch_ndim), like, noise).argsort(0)
            within = draws.uniform(*shapes(x, population.batch_ndim), like, noise)
            genes[name] = _placed(self.bounds, name, x, population.batch_ndim, within.add_(part).div_(k))
        return population.with_genes(genes)


@dataclass(frozen=True)
class SobolSampler:
    """The first k points of a Sobol sequence, one dimension per gene, shifted at random for every search.

    The shift exchanges halves, quarters and so on of every gene's range, so that all that makes the sequence even
    stays. Best with k a power of two: then each k-th part of a gene's range holds one candidate. Of the individual
    only the shapes matter.

    Args:
        bounds: `Bounds` or (lower, upper), finite for every gene that is not boolean.

    Raises:
        ValueError: genes without finite bounds that fit them, or more than 21,201 of them in all (at the call).
    """

    bounds: Bounds | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "bounds", Bounds.of(self.bounds))

    def __call__(self, individual: Individual, k: int, noise: Noise) -> Population:
        """[k, *batch_shape, *event_shape] candidates."""
        population = populated(individual, k)
        names = sorted(population.genes)
        sizes = [math.prod(population.event_shape(name)) for name in names]
        most = torch.quasirandom.SobolEngine.MAXDIM
        if sum(sizes) > most:
            raise ValueError(f"expected at most {most} genes, got {sum(sizes)}; use LatinHypercubeSampler")
        engine = torch.quasirandom.SobolEngine(sum(sizes))
        points = (engine.draw(k, dtype=_UNIT) * 2**_BITS).to(population.device, torch.int64).split(sizes, -1)
        genes = {}
        for name, point in zip(names, points, strict=True):
            x = population[name]
            lead, batch_shape, event_shape = shapes(x, population.batch_ndim)
            shift = draws.integers(2**_BITS, (), batch_shape, event_shape, x, noise)
            shifted = point.view(*lead, *(1,) * len(batch_shape), *event_shape) ^ shift
            genes[name] = _placed(self.bounds, name, x, population.batch_ndim, shifted.to(_UNIT) / 2**_BITS)
        return population.with_genes(genes)
