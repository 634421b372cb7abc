"""`Limit`: only these genes may change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tansaku import checks
from tansaku.draws import Noise
from tansaku.operators.mutation import Mutation, mutation_of
from tansaku.population import Population, check_population


@dataclass(frozen=True)
class Limit(Mutation):
    """Lets a mutation change only the named genes, and of those only the named features.

    Args:
        mutation: what changes the genes; a dictionary gives each name its own.
        only: name -> features that may change: None for all of that name, a boolean mask that broadcasts against
            [*event_shape], or an integer index along the last event dimension. Names left out never change.

    Raises:
        TypeError: no mapping, or features that are neither None, a boolean nor an integer tensor.
        ValueError: a name or a feature that the population lacks, or a mask of another shape (at the call).

    Example:
        >>> from tansaku import Gaussian
        >>> first_two = Limit(Gaussian(1.0), {"x": torch.tensor([0, 1])})
        >>> changed = first_two(Population({"x": torch.zeros(4, 3)}), torch.Generator().manual_seed(0))
        >>> (changed["x"] != 0).any(0)
        tensor([ True,  True, False])
    """

    mutation: Mutation | Mapping[str, Mutation]
    only: Mapping[str, Tensor | None]
    _reach: ClassVar[Mapping[str, tuple[int, int]]]  # of an instance: the least and the greatest index of a name

    def __post_init__(self) -> None:
        checks.instance("only", self.only, Mapping, "pass names and their features, such as {'x': torch.tensor([0])}")
        reach = {}
        for name, features in self.only.items():
            if features is None:
                continue
            if not isinstance(features, Tensor) or features.is_floating_point() or features.is_complex():
                raise TypeError(
                    f"expected features of {name!r} as None, a mask or an index, got {features!r}; "
                    "pass a tensor of booleans or integers, such as torch.tensor([0])"
                )
            if features.dtype != torch.bool and features.numel():
                reach[name] = int(features.min()), int(features.max())
        object.__setattr__(self, "_reach", reach)  # known here, so that no generation has to look

    def mutate(self, name: str, x: Tensor, batch_ndim: int, noise: Noise) -> Tensor:
        """See `Mutation.mutate`."""
        mutation = self.mutation.get(name) if isinstance(self.mutation, Mapping) else self.mutation
        if name not in self.only or mutation is None:
            return x
        self._check(name, x, batch_ndim)
        return self._kept(name, x, mutation.mutate(name, x, batch_ndim, noise))

    def __call__(self, population: Population, noise: Noise) -> Population:
        """The population with changed genes; traits stay, the assessment is dropped."""
        check_population("population", population)
        unknown = sorted(set(self.only) - set(population.genes))
        if unknown:
            raise ValueError(f"expected names among {sorted(population.genes)}, got {unknown}; name existing genes")
        for name in self.only:
            self._check(name, population[name], population.batch_ndim)
        named = Population({name: population[name] for name in self.only}, population.batch_ndim)
        changed = mutation_of(self.mutation)(named, noise)
        return population.with_genes({name: self._kept(name, population[name], changed[name]) for name in self.only})

    def _check(self, name: str, x: Tensor, batch_ndim: int) -> None:
        """The features of ``name`` are among those of ``x`` [k, *batch_shape, *event_shape]."""
        event, features = x.shape[1 + batch_ndim :], self.only[name]
        if features is not None and features.dtype == torch.bool:
            checks.fits_event(f"the mask of {name!r}", features, event)
            return
        size = event[-1] if event else 0
        first, last = self._reach.get(name, (0, -1))
        if first < -size or last >= size:
            raise ValueError(
                f"expected features of {name!r} among its {size} along the last event dimension, "
                f"got index {first if first < -size else last}; count from 0"
            )

    def _kept(self, name: str, x: Tensor, changed: Tensor) -> Tensor:
        """``changed`` in the features of ``name``, ``x`` elsewhere."""
        features = self.only[name]
        if features is None:
            return changed
        if features.dtype != torch.bool:
            mask = torch.zeros(x.shape[-1], dtype=torch.bool, device=x.device)
            mask[features] = True
            features = mask
        return torch.where(features, changed, x)
