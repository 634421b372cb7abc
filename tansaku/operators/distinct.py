"""Elimination of duplicates among children whose genes are discrete.

An evolutionary algorithm over discrete genes makes many children that are equal to a parent or to one another. They
cost evaluations and crowd out other candidates. Reference: J. Blank and K. Deb, pymoo: Multi-Objective Optimization in
Python, IEEE Access 8, 2020, section IV (duplicate elimination at mating).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from tansaku import draws
from tansaku.draws import Noise
from tansaku.functional import align, repeats, select
from tansaku.operators.bounds import Bounds
from tansaku.operators.mutation import finite_ends, place_within, shapes
from tansaku.population import Population


def distinct_children(
    children: Population, parents: Population, replacements: Iterable[Callable[[Population], Population]]
) -> Population:
    """The children, where those equal to a parent or to an earlier child of their search are replaced.

    A child that is a duplicate after all replacements stays one, as where there are fewer different candidates than
    children. Children with real genes only are returned as they are: they are hardly ever equal.

    Args:
        children: [k, *batch_shape, *event_shape], not assessed.
        parents: of the same names and searches.
        replacements: one after the other, each children -> as many others. They are made for all children and in every
            generation, so that nothing waits for the device and the number of draws does not depend on the genes.
    """
    if all(x.is_floating_point() for x in children.genes.values()):
        return children
    known = parents.keys()
    for replacement in replacements:
        repeated = repeats(torch.cat([known, children.keys()]))[parents.k :]
        children = replacement(children).where(repeated, children)
    return children


def one_gene_changed(children: Population, bounds: Bounds | None, noise: Noise) -> Population:
    """Children of which one discrete gene, all equally likely, gets another value; real genes stay.

    Args:
        children: at least one name is boolean or integer; an integer gene whose bounds hold one value stays.
        bounds: of the integer genes.
        noise: a generator or a `Replay`.

    Raises:
        ValueError: integer genes without finite bounds.
    """
    n = children.batch_ndim
    discrete = {name: x for name, x in children.genes.items() if not x.is_floating_point()}
    sizes = {name: math.prod(children.event_shape(name)) for name in discrete}
    first = next(iter(discrete.values()))
    lead, batch_shape, _ = shapes(first, n)
    place = draws.integers(max(1, sum(sizes.values())), lead, batch_shape, (), first, noise)
    wide = torch.zeros((), dtype=torch.float64, device=first.device)
    unit = draws.uniform(lead, batch_shape, (), wide, noise)
    genes, before = {}, 0
    for name, x in discrete.items():
        number = torch.arange(before, before + sizes[name], device=x.device).view(children.event_shape(name))
        chosen = align(place, x) == number
        other = ~x if x.dtype == torch.bool else _another(name, x, n, bounds, unit)
        genes[name] = select(chosen, other, x)
        before += sizes[name]
    return children.with_genes(genes)


def _another(name: str, x: Tensor, batch_ndim: int, bounds: Bounds | None, unit: Tensor) -> Tensor:
    """Integers within their bounds that differ from ``x`` where the bounds hold two values or more."""
    ends = finite_ends(bounds, name, x, batch_ndim)
    drawn = place_within(ends, x, align(unit, x).repeat((1,) * unit.ndim + x.shape[unit.ndim :]))
    neighbour = torch.where(x < ends[1], x + 1, torch.maximum(x - 1, ends[0].expand_as(x)))
    return torch.where(drawn == x, neighbour, drawn)
