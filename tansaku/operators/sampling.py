"""Sampling: new candidates from a distribution. Each operator is ``(individual, k, noise) -> population``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tansaku import checks, draws
from tansaku.draws import Noise
from tansaku.functional import jitter
from tansaku.operators.bounds import Bounds
from tansaku.operators.mutation import shapes, uniform_within
from tansaku.population import Individual, Population


def populated(individual: Individual, k: int) -> Population:
    """``k`` copies of an individual, or a TypeError that says how to make one."""
    checks.instance("individual", individual, Individual, "use Individual({'x': tensor}) or population.individual()")
    return individual.populate(k)


@dataclass(frozen=True)
class GaussianSampler:
    """Candidates x + std * N(0, 1) around an individual.

    Args:
        std: in units of the genes; a number, or a tensor that broadcasts against [*event_shape].
        antithetic: whether candidates come in pairs x + e, x - e (candidate i and i + k / 2).

    Raises:
        TypeError: genes that are not real (at the call).
        ValueError: an odd k for antithetic pairs, a std of another shape (at the call), or a negative std.
    """

    std: float | Tensor = 1.0
    antithetic: bool = False

    def __post_init__(self) -> None:
        checks.std("std", self.std)

    def __call__(self, individual: Individual, k: int, noise: Noise) -> Population:
        """[k, *batch_shape, *event_shape] candidates."""
        population = populated(individual, k)
        genes = {}
        for name, x in population.genes.items():
            checks.real("Gaussian sampling", name, x, "use UniformSampler")
            checks.fits_event("std", self.std, population.event_shape(name))
            draw = draws.normal_pairs if self.antithetic else draws.normal
            genes[name] = jitter(x, draw(*shapes(x, population.batch_ndim), x, noise), self.std)
        return population.with_genes(genes)


@dataclass(frozen=True)
class UniformSampler:
    """Candidates uniform within bounds; booleans are fair coins. Of the individual only the shapes matter.

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
            if x.dtype == torch.bool:
                genes[name] = draws.coins(0.5, *shapes(x, population.batch_ndim), x, noise)
            else:
                genes[name] = uniform_within(self.bounds, name, x, population.batch_ndim, noise)
        return population.with_genes(genes)


@dataclass(frozen=True)
class BernoulliSampler:
    """Boolean candidates that are True with a probability per gene. Of the individual only the shapes matter.

    Args:
        probability: of True, in [0, 1]: a number, a tensor that broadcasts against [*batch_shape, *event_shape], or a
            mapping from names to either.

    Raises:
        TypeError: genes that are not boolean (at the call).
        ValueError: a probability outside [0, 1], a name without one, or a tensor of another shape (at the call).
    """

    probability: float | Tensor | Mapping[str, float | Tensor] = 0.5

    def __post_init__(self) -> None:
        given = self.probability
        for value in given.values() if isinstance(given, Mapping) else [given]:
            if not isinstance(value, Tensor):
                checks.probability("probability", value)
            elif not bool(((value >= 0) & (value <= 1)).all()):
                raise ValueError("expected every probability in [0, 1], got others; clamp them")

    def __call__(self, individual: Individual, k: int, noise: Noise) -> Population:
        """[k, *batch_shape, *event_shape] candidates."""
        population = populated(individual, k)
        genes = {}
        for name, x in population.genes.items():
            if x.dtype != torch.bool:
                raise TypeError(
                    f"expected boolean genes for Bernoulli sampling, got {name!r} of {x.dtype}; use UniformSampler"
                )
            given = self.probability
            if isinstance(given, Mapping):
                if name not in given:
                    raise ValueError(f"expected a probability for {name!r}, got {sorted(given)}; name every gene")
                given = given[name]
            checks.fits_event("probability", given, x.shape[1:])
            like = torch.zeros((), dtype=torch.float64, device=x.device)
            genes[name] = draws.uniform(*shapes(x, population.batch_ndim), like, noise) < given
        return population.with_genes(genes)
