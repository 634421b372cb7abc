"""What the differential evolutions share: the first generation, and crossover of a mutant with its target.

All genes of a candidate are one vector here, see `tansaku.ravel`, so that the gene that is surely the mutant's is one
of all names'.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from tansaku import draws
from tansaku.algorithms.base import step_size
from tansaku.algorithms.sampled import unravel
from tansaku.draws import Noise
from tansaku.functional import jitter, select
from tansaku.operators.bounds import Bounds
from tansaku.operators.mutation import shapes
from tansaku.population import Population


def at_most(start: Population, k: int) -> Population:
    """The best ``k`` of the start, without traits; all of it if it has no more."""
    start = start.without_traits()
    return start if start.k <= k else start.take(start.cost.argsort(dim=0, stable=True)[:k])


def around(
    start: Population,
    k: int,
    std: float | Tensor | Mapping[str, float | Tensor] | None,
    bounds: Bounds | None,
    noise: Noise,
) -> Population:
    """``k`` candidates around those of a start that is too small to make differences of.

    Args:
        start: [k0, *batch_shape, *event_shape]; each has its turn as the centre.
        k: how many.
        std: distance, as `step_size` takes it.
        bounds: the box, or None.
        noise: a generator or a `Replay`.
    """
    centres = start.unassessed().take(torch.arange(k, device=start.device) % start.k)
    genes = {}
    for name, x in centres.genes.items():
        genes[name] = jitter(x, draws.normal(*shapes(x, centres.batch_ndim), x, noise), step_size(std, bounds, name, x))
    children = centres.with_genes(genes)
    return children if bounds is None else bounds(children)


def binomial(rate: float | Tensor, x: Tensor, batch_ndim: int, noise: Noise) -> Tensor:
    """Where a trial takes the mutant's gene: each with probability ``rate``, one surely (Storn & Price, equation 4).

    Args:
        rate: CR, a number or [k, *batch_shape].
        x: [k, *batch_shape, n] the targets.
        batch_ndim: how many dimensions are searches.
        noise: a generator or a `Replay`.

    Returns:
        Boolean, of the shape of ``x``.
    """
    lead, batch_shape, event_shape = shapes(x, batch_ndim)
    if isinstance(rate, Tensor):
        wide = x.new_empty((), dtype=torch.promote_types(x.dtype, torch.float32))
        mask = draws.uniform(lead, batch_shape, event_shape, wide, noise) < rate[..., None]
    else:
        mask = draws.coins(rate, lead, batch_shape, event_shape, x, noise)
    sure = draws.integers(x.shape[-1], lead, batch_shape, (1,), x, noise)
    return mask.scatter_(-1, sure, True)


def exponential(rate: float, x: Tensor, batch_ndim: int, noise: Noise) -> Tensor:
    """Where a trial takes the mutant's gene: a run from a random gene on, each further one with probability ``rate``.

    The run wraps around after the last gene. Arguments and answer as in `binomial`.

    Reference: R. Storn and K. Price, Technical Report TR-95-012, 1995.
    """
    lead, batch_shape, _ = shapes(x, batch_ndim)
    n = x.shape[-1]
    begin = draws.integers(n, lead, batch_shape, (1,), x, noise)
    chance = draws.uniform(lead, batch_shape, (1,), x.new_empty((), dtype=torch.float64), noise)
    if rate == 0.0 or rate == 1.0:
        length = torch.full_like(chance, 1.0 if rate == 0.0 else n)
    else:
        length = 1 + (torch.log1p(-chance) / math.log(rate)).floor()  # P(length > m) = CR^m
    return torch.remainder(torch.arange(n, device=x.device) - begin, n) < length


def trial(mask: Tensor, mutant: Tensor, target: Tensor, like: Population, bounds: Bounds | None) -> Population:
    """The mutant's genes where ``mask``, the target's elsewhere, inside the bounds.

    A gene that overflowed, as differences may on an objective without any slope, stays the target's.

    Args:
        mask: [k, *batch_shape, n] boolean.
        mutant: [k, *batch_shape, n].
        target: [k, *batch_shape, n].
        like: a population with the names, event shapes and dtypes.
        bounds: the box, or None.
    """
    genes = select(mask & (mutant.abs() < float("inf")), mutant, target)
    children = Population._made(unravel(genes, like), like.batch_ndim, {})
    return children if bounds is None else bounds(children)
