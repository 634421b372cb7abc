"""`Limit`: only these genes may change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tansaku.draws import Noise
from tansaku.operators.mutation import Mutation, mutation_of
from tansaku.population import Population


@dataclass(frozen=True)
class Limit(Mutation):
    """Lets a mutation change only the named genes, and of those only the named features.

    Args:
        mutation: what changes the genes; a dictionary gives each name its own.
        only: name -> features that may change: None for all of that name, a boolean mask that broadcasts against
            [*event_shape], or an integer index along the last dimension. Names left out never change.

    Raises:
        ValueError: a name that the population lacks (at the call).
        TypeError: features that are neither None, boolean nor integer.

    Example:
        >>> from tansaku import Gaussian
        >>> first_two = Limit(Gaussian(1.0), {"x": torch.tensor([0, 1])})
        >>> changed = first_two(Population({"x": torch.zeros(4, 3)}), torch.Generator().manual_seed(0))
        >>> (changed["x"] != 0).any(0)
        tensor([ True,  True, False])
    """

    mutation: Mutation | Mapping[str, Mutation]
    only: Mapping[str, Tensor | None]

    def __post_init__(self) -> None:
        for name, features in self.only.items():
            if features is not None and (not isinstance(features, Tensor) or features.is_floating_point()):
                raise TypeError(
                    f"expected features of {name!r} as None, a mask or an index, got {features!r}; see Limit"
                )

    def mutate(self, name: str, x: Tensor, batch_ndim: int, noise: Noise) -> Tensor:
        """See `Mutation.mutate`: for use in `PerName`."""
        if name not in self.only:
            return x
        mutation = self.mutation[name] if isinstance(self.mutation, Mapping) else self.mutation
        return _keep(x, mutation.mutate(name, x, batch_ndim, noise), self.only[name])

    def __call__(self, population: Population, noise: Noise) -> Population:
        """The population with changed genes; traits stay, the assessment is dropped."""
        unknown = sorted(set(self.only) - set(population.genes))
        if unknown:
            raise ValueError(f"expected names among {sorted(population.genes)}, got {unknown}; name existing genes")
        named = Population({name: population[name] for name in self.only}, population.batch_ndim)
        changed = mutation_of(self.mutation)(named, noise)
        return population.with_genes(
            {name: _keep(population[name], changed[name], features) for name, features in self.only.items()}
        )


def _keep(x: Tensor, changed: Tensor, features: Tensor | None) -> Tensor:
    if features is None:
        return changed
    if features.dtype != torch.bool:
        mask = torch.zeros(x.shape[-1], dtype=torch.bool, device=x.device)
        mask[features] = True
        features = mask
    return torch.where(features, changed, x)
