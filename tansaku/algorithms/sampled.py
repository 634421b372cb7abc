"""What algorithms share that sample candidates from a distribution over all genes as one vector.

Genes of several names are one vector, in the order of their names. Candidates are handed out inside the bounds, while
the distribution learns from the raw samples and pays for their distance to the box: of the repairs measured (learning
from clipped samples, from raw ones without a penalty, from reflected ones), this alone finds an optimum on the edge.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tansaku.operators.bounds import Bounds
from tansaku.population import Individual, Population

_RAW = "raw"


def ravel(x: Individual | Population) -> Tensor:
    """The genes of all names as one vector: [*batch_shape, n] of an individual, [k, *batch_shape, n] of a population.

    Names are taken in sorted order, each flattened.

    >>> ravel(Individual({"b": torch.ones(2), "a": torch.zeros(1, 2)}))
    tensor([0., 0., 1., 1.])
    """
    lead = x.batch_ndim + isinstance(x, Population)
    return torch.cat([x[name].reshape((*x[name].shape[:lead], -1)) for name in sorted(x.genes)], -1)


def unravel(vector: Tensor, like: Individual | Population) -> dict[str, Tensor]:
    """The genes that `ravel` would make into ``vector``: name -> [*lead, *event_shape].

    Args:
        vector: [*lead, n] for any leading dimensions.
        like: an individual or a population with the names, event shapes and dtypes.
    """
    lead = like.batch_ndim + isinstance(like, Population)
    names = sorted(like.genes)
    events = {name: like[name].shape[lead:] for name in names}
    parts = vector.split([math.prod(events[name]) for name in names], -1) if len(names) > 1 else [vector]
    return {
        name: part.reshape((*part.shape[:-1], *events[name])).to(like[name].dtype)
        for name, part in zip(names, parts, strict=True)
    }


def hand_out(raw: Tensor, like: Individual | Population, bounds: Bounds | None, **traits: Tensor) -> Population:
    """Candidates made of raw samples, inside the bounds; the raw ones ride along where they may differ.

    Args:
        raw: [k, *batch_shape, n].
        like: an individual or a population of the same search.
        bounds: the box, or None.
        traits: of the candidates, [k, *batch_shape, ...].
    """
    population = Population._made(unravel(raw, like), like.batch_ndim, {})
    if bounds is not None:
        population, traits = bounds(population), {**traits, _RAW: raw}
    return Population._made(population.genes, like.batch_ndim, traits)


def raw_samples(asked: Population) -> Tensor:
    """[k, *batch_shape, n] what `hand_out` was given."""
    return asked.traits[_RAW] if _RAW in asked.traits else ravel(asked)


def distance_outside(asked: Population, std: Tensor) -> Tensor | None:
    """[k, *batch_shape] mean squared distance of raw samples to the box, in standard deviations; None without bounds.

    Args:
        asked: from `hand_out`.
        std: broadcasts against [k, *batch_shape, n]: the standard deviation of each gene's samples.
    """
    if _RAW not in asked.traits:
        return None
    return ((asked.traits[_RAW] - ravel(asked)) / std).square().mean(-1)


def penalised_cost(asked: Population, std: Tensor) -> Tensor:
    """[k, *batch_shape] costs, plus what a sample outside the bounds pays.

    The price of a squared distance of one standard deviation is the spread of the costs between their quarters, so
    that it does not depend on the unit of the costs; inside the box nothing is paid.

    Args:
        asked: assessed, from `hand_out`.
        std: broadcasts against [k, *batch_shape, n]: the standard deviation of each gene's samples.
    """
    cost = asked.scaled_cost
    distance = distance_outside(asked, std)
    if distance is None:
        return cost
    finite = torch.isfinite(cost)
    ordered = torch.where(finite, cost, float("inf")).sort(0).values
    count = finite.sum(0, keepdim=True)
    low = ordered.gather(0, (count // 4).clamp(max=cost.shape[0] - 1))
    high = ordered.gather(0, ((3 * count) // 4).clamp(max=cost.shape[0] - 1))
    spread = torch.where(torch.isfinite(high - low), high - low, torch.ones_like(low))
    return cost + torch.where(distance > 0, distance * torch.where(spread > 0, spread, torch.ones_like(spread)), 0.0)
