"""Emitters: how candidates are made from the elites of an archive."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tansaku import checks, draws
from tansaku.algorithms.base import check_std, discrete_mutation, step_size
from tansaku.caching import cached
from tansaku.draws import Noise
from tansaku.functional import Shelf, align, exchange, jitter, nth_member
from tansaku.operators.bounds import Bounds
from tansaku.operators.mutation import shapes
from tansaku.population import Population


class Emitter(ABC):
    """Makes candidates; hyper-parameters only; what it learns is a state of its own, or None."""

    rank_based: bool = True
    dtypes: frozenset[str] = frozenset({"real", "integer", "boolean"})

    def init(self, start: Population, k: int, bounds: Bounds | None) -> Any:
        """The state before the first candidates; ``start`` is assessed."""
        return None

    @abstractmethod
    def emit(self, state: Any, archive: Population, k: int, bounds: Bounds | None, noise: Noise) -> Population:
        """[k, *batch_shape, *event_shape] candidates; out of bounds they are repaired by the caller.

        The archive is there to be read: nothing of its memory may be written to, or kept for later.
        """

    def learn(self, state: Any, asked: Population, cost: Tensor, held: Tensor) -> Any:
        """The next state.

        Args:
            state: what `emit` was called with.
            asked: what `emit` returned, repaired and assessed.
            cost: [k, *batch_shape] of each.
            held: [k, *batch_shape] cost of the elite that each candidate met in its cell, +inf where there was none;
                -inf for a candidate that belongs to no cell, as its descriptor has a NaN. Nobody may write to it.
        """
        return state


def elites(archive: Population, count: int, noise: Noise) -> Population:
    """``count`` of the archive's elites, drawn uniformly with replacement, without assessment."""
    cost = archive.cost
    known = archive.__dict__.get("_members")  # a search keeps count of the cells that it fills
    if known is None:
        shelf = Shelf(cost, {})
        known = archive.__dict__["_members"] = (shelf.members, shelf.filled)
    members, filled = known
    like = cost if cost.dtype == torch.float64 else _like(torch.float64, cost.device)
    unit = draws.uniform((count,), tuple(cost.shape[1:]), (), like, noise)
    return archive.unassessed().take(nth_member(members, unit.mul_(filled).to(torch.int64)))


@cached(8)
def _like(dtype: torch.dtype, device: torch.device) -> Tensor:
    """What a draw may be like."""
    return torch.empty((), dtype=dtype, device=device)


def _steps(x: Tensor, batch_ndim: int, noise: Noise) -> Tensor:
    """Normal numbers of single precision, which is as fine as a random step needs to be, at a quarter of the price."""
    like = _like(torch.float32, x.device) if x.dtype == torch.float64 else x
    return draws.normal(*shapes(x, batch_ndim), like, noise).to(x.dtype)


@dataclass(frozen=True)
class GaussianEmitter(Emitter):
    """An elite plus normal noise (J.-B. Mouret and J. Clune, 2015); genes that are not real mutate one per candidate.

    Args:
        std: of the noise, in units of the genes: a number, a tensor that broadcasts against [*event_shape], or a
            mapping from names to either; a fifth of the bounds' span if not given, else 1.
    """

    std: float | Tensor | Mapping[str, float | Tensor] | None = None

    def __post_init__(self) -> None:
        check_std(self.std)

    def emit(self, state: Any, archive: Population, k: int, bounds: Bounds | None, noise: Noise) -> Population:
        """See `Emitter.emit`."""
        parents = elites(archive, k, noise)
        n = parents.batch_ndim
        genes = {}
        for name, x in parents.genes.items():
            if x.is_floating_point():
                genes[name] = jitter(x, _steps(x, n, noise), step_size(self.std, bounds, name, x))
            else:
                genes[name] = discrete_mutation(name, x, n, bounds).mutate(name, x, n, noise)
        return parents.with_genes(genes)


@dataclass(frozen=True)
class IsoLineEmitter(Emitter):
    """An elite plus round noise plus noise along the line to another elite, which shares what elites have in common.

    Genes that are not real are taken from either elite, and mutate one per candidate.

    Args:
        iso: standard deviation of the round noise, as a share of the bounds' span (of 1 where there is none).
        line: standard deviation of the step along the line, as a share of the way to the other elite.

    Reference: V. Vassiliades and J.-B. Mouret, Discovering the Elite Hypervolume by Leveraging Interspecies
    Correlation, 2018, equation 2 (sigma_1 and sigma_2).
    """

    iso: float = 0.01
    line: float = 0.2

    def __post_init__(self) -> None:
        checks.number("iso", self.iso, 0.0)
        checks.number("line", self.line, 0.0)

    def emit(self, state: Any, archive: Population, k: int, bounds: Bounds | None, noise: Noise) -> Population:
        """See `Emitter.emit`."""
        both = elites(archive, 2 * k, noise)
        n, batch_shape = both.batch_ndim, tuple(both.batch_shape)
        like = next((x for x in both.genes.values() if x.is_floating_point()), archive.cost)
        along = self.line * draws.normal((k,), batch_shape, (), like, noise)  # one number for all genes of a candidate
        genes = {}
        for name, pair in both.genes.items():
            x, other = pair.chunk(2)
            if x.is_floating_point():
                between = torch.lerp(x, other, align(along.to(x.dtype), x))
                genes[name] = jitter(between, _steps(x, n, noise), self.iso * _span(bounds, name, x))
            else:
                mixed = exchange(x, other, draws.coins(0.5, *shapes(x, n), x, noise))
                genes[name] = discrete_mutation(name, mixed, n, bounds).mutate(name, mixed, n, noise)
        return Population._made(genes, n, {})


def _span(bounds: Bounds | None, name: str, x: Tensor) -> float | Tensor:
    if bounds is None or not bounds.finite(name):
        return 1.0
    return 5 * step_size(None, bounds, name, x)
