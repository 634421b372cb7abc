"""Leaves genes that cannot move, those with equal bounds, out of a search.

An algorithm then sees a population without them. So a fixed gene has no influence on the number of genes that an
algorithm reads, on the random numbers of the other genes, or on the lengths that it measures. `tansaku.Algorithm` does
this for every algorithm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from tansaku import checks
from tansaku.algorithms.settings import Change, changed_fields, is_plain
from tansaku.operators.bounds import Bounds
from tansaku.operators.crossover import Crossover
from tansaku.operators.mutation import Mutation
from tansaku.population import Individual, Population
from tansaku.states import state


@state
class MovingGenes:
    """Which genes of a search can move. Tensors with a fixed gene become one row of the genes that are left.

    Args:
        names: of all tensors of genes, in the order of the start.
        values: name -> [*event_shape], for tensors with a fixed gene: the genes, right at the fixed places.
        places: name -> [moving] int64, for the same tensors: which of their genes, counted in one row, can move.
            A tensor with none is left out of the search.
    """

    names: list[str]
    values: Mapping[str, Tensor]
    places: Mapping[str, Tensor]

    def __reduce__(self) -> tuple[type[MovingGenes], tuple[Any, ...]]:
        return MovingGenes, (self.names, dict(self.values), dict(self.places))  # without the algorithm of `settings`

    @property
    def searched(self) -> list[str]:
        """The names of the tensors in which a gene can move."""
        return [name for name in self.names if name not in self.places or len(self.places[name])]

    def taken(self, name: str, x: Tensor, lead: int) -> Tensor:
        """The genes of ``name`` that can move: [*lead, moving] of ``x`` [*lead, *event_shape].

        Args:
            name: of the tensor.
            x: its genes.
            lead: how many dimensions stand before the event shape.
        """
        if name not in self.places:
            return x
        return x.reshape(*x.shape[:lead], -1).index_select(-1, self.places[name])

    def filled(self, name: str, x: Tensor) -> Tensor:
        """All genes of ``name``, [*lead, *event_shape], from those that can move, ``x`` [*lead, moving]."""
        if name not in self.places:
            return x
        value, lead = self.values[name], x.shape[:-1]
        row = value.reshape(-1).expand(*lead, -1).clone()
        return row.index_copy_(-1, self.places[name], x).view(*lead, *value.shape)

    def reduced(self, population: Population) -> Population:
        """The candidates without their fixed genes; traits and assessment stay."""
        lead = 1 + population.batch_ndim
        genes = {name: self.taken(name, population[name], lead) for name in self.searched if name in population.genes}
        return Population._made(genes, population.batch_ndim, population.traits, population.assessment)

    def expanded(self, population: Population) -> Population:
        """The candidates with their fixed genes; traits and assessment stay."""
        genes = self._expanded(population.genes, (population.k, *population.batch_shape))
        return Population._made(genes, population.batch_ndim, population.traits, population.assessment)

    def of_individual(self, individual: Individual) -> Individual:
        """The individual without its fixed genes."""
        lead = individual.batch_ndim
        return Individual({name: self.taken(name, individual[name], lead) for name in self.searched}, lead)

    def whole_individual(self, individual: Individual) -> Individual:
        """The individual with its fixed genes."""
        return Individual(self._expanded(individual.genes, tuple(individual.batch_shape)), individual.batch_ndim)

    def _expanded(self, genes: Mapping[str, Tensor], lead: tuple[int, ...]) -> dict[str, Tensor]:
        made = {}
        for name in self.names:
            if name in genes:
                made[name] = self.filled(name, genes[name])
            elif name in self.places and not len(self.places[name]):
                made[name] = self.values[name].expand(*lead, *self.values[name].shape).clone()
        return made

    def bounds(self, bounds: Bounds) -> Bounds:
        """The bounds of the genes that can move."""
        lower, upper = {}, {}
        for name in self.searched:
            limits = bounds.limits(name)
            if limits is not None:
                lower[name], upper[name] = (self.of_event(name, end) for end in limits)
        return type(bounds)(lower, upper, bounds.repair)

    def of_event(self, name: str, x: float | Tensor) -> float | Tensor:
        """The entries for genes that can move, of a number or of a tensor that broadcasts against [*event_shape]."""
        if not isinstance(x, Tensor) or x.ndim == 0 or name not in self.places:
            return x
        event = self.values[name].shape
        checks.fits_event(f"a setting for {name!r}", x, event)
        return self.taken(name, x.expand(event), 0)

    def steps(self, std: Any) -> Any:
        """The standard deviations of the genes that can move: None, a number, a tensor, or a mapping from names."""
        return _Reduction(self).steps(std)

    def settings(self, algorithm: Any) -> Any:
        """The algorithm with settings for the genes that can move; None if one of its settings needs all genes."""
        known = self.__dict__.get("_algorithm")
        if known is None or known[0] is not algorithm:
            try:
                known = algorithm, changed_fields(algorithm, _Reduction(self))
            except _NeedsAllGenesError:  # as it is then, it searches over all genes
                known = algorithm, None
            self.__dict__["_algorithm"] = known
        return known[1]


@state
class MovingState:
    """The state of a search some of whose genes are fixed; attributes of the algorithm's own state can be read.

    Populations and individuals are read with all genes; tensors, such as a mean, are those of the genes that can move.

    Args:
        inner: the algorithm's own state, without the fixed genes.
        moving: which genes can move.
    """

    inner: Any
    moving: MovingGenes

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "inner" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        value = getattr(self.inner, name)
        if isinstance(value, Population):
            return self.moving.expanded(value)
        return self.moving.whole_individual(value) if isinstance(value, Individual) else value


def moving_genes(bounds: Bounds | None, start: Individual | Population) -> MovingGenes | None:
    """Which genes can move within the bounds; None if all can.

    If no gene can move, the first one counts as one that can, since a search needs a gene. The answer is read from the
    device once and remembered by the bounds.

    Args:
        bounds: the box, or None.
        start: candidates of the search.
    """
    if not isinstance(bounds, Bounds):
        return None
    lead = start.batch_ndim + isinstance(start, Population)
    layout = tuple((name, x.dtype, x.shape[lead:], x.device) for name, x in start.genes.items())
    known: dict[Any, MovingGenes | None] = bounds.__dict__.setdefault("_moving_genes", {})
    if layout not in known:
        genes = {name: x[(0,) * lead] for name, x in start.genes.items()}
        known[layout] = _moving_genes(bounds, genes)
    return known[layout]


def _moving_genes(bounds: Bounds, genes: Mapping[str, Tensor]) -> MovingGenes | None:
    """See `moving_genes`; ``genes`` are [*event_shape]."""
    values, places = {}, {}
    for name, x in genes.items():
        ends = bounds.ends(name, x)
        if ends is None:
            continue
        checks.fits_event(f"bounds of {name!r}", ends[0], x.shape)
        checks.fits_event(f"bounds of {name!r}", ends[1], x.shape)
        moving = (ends[0] != ends[1]).expand(x.shape).reshape(-1)
        if not bool(moving.all()):
            values[name], places[name] = ends[0].expand(x.shape).clone(), moving.nonzero().squeeze(-1)
    if not values:
        return None
    if len(values) == len(genes) and not any(len(place) for place in places.values()):
        first = next((name for name, x in genes.items() if x.is_floating_point()), next(iter(genes)))
        if len(genes) == 1 and genes[first].numel() == 1:
            return None
        places[first] = torch.zeros_like(places[first].new_empty(1))
    return MovingGenes(list(genes), values, places)


class _NeedsAllGenesError(Exception):
    """A setting works on all genes, and cannot be changed."""


class _Reduction(Change):
    """Settings for the genes that can move."""

    def __init__(self, moving: MovingGenes) -> None:
        self.moving = moving

    def keeps(self, name: str) -> bool:
        return name not in self.moving.places or len(self.moving.places[name]) > 0

    def bounds(self, bounds: Bounds) -> Bounds:
        return self.moving.bounds(bounds)

    def step(self, std: Any, name: str | None) -> Any:
        if not isinstance(std, Tensor) or std.ndim == 0:
            return std
        if name is not None:
            return self.moving.of_event(name, std)
        searched = self.moving.searched
        if len(searched) == 1:
            return self.moving.of_event(searched[0], std)
        return {other: self.moving.of_event(other, std) for other in searched}

    def features(self, only: Mapping[str, Any]) -> Mapping[str, Any]:
        made = {}
        for name, features in only.items():
            if not self.keeps(name):
                continue
            if features is None or name not in self.moving.places:
                made[name] = features
                continue
            event = self.moving.values[name].shape
            if features.dtype != torch.bool:
                mask = torch.zeros(event[-1] if event else 0, dtype=torch.bool, device=features.device)
                mask[features] = True
                features = mask
            checks.fits_event(f"the mask of {name!r}", features, event)
            made[name] = self.moving.taken(name, features.expand(event), 0)
        return made

    def operator(self, operator: Any, name: str | None) -> Any:
        try:
            return super().operator(operator, name)
        except (_NeedsAllGenesError, TypeError) as error:  # a TypeError: no standard deviations by name
            if not isinstance(operator, Mutation | Crossover):
                raise _NeedsAllGenesError from error
            return _OnAllGenes(operator, self.moving, name)

    def other(self, value: Any, name: str | None) -> Any:
        if isinstance(value, Mutation | Crossover) and all(map(is_plain, vars(value).values())):
            return value
        if callable(value):
            return _OnAllGenes(value, self.moving, name)
        raise _NeedsAllGenesError


class _OnAllGenes:
    """A user's operator, which takes and returns populations with all genes, in a search without the fixed ones.

    Args:
        operator: (population, ..., noise) -> population or index.
        moving: which genes can move.
        name: of the only tensor that the populations hold; None if they hold all.
    """

    def __init__(self, operator: Callable[..., Any], moving: MovingGenes, name: str | None) -> None:
        self.operator, self.name = operator, name
        self.moving = moving if name is None else replace(moving, names=[name])

    def __call__(self, *given: Any) -> Any:
        """What the operator returns, without the fixed genes."""
        whole = [self.moving.expanded(x) if isinstance(x, Population) else x for x in given]
        made = self.operator(*whole)
        return self.moving.reduced(made) if isinstance(made, Population) else made


def leaving_out_fixed_genes(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of `Algorithm` as it works on populations with fixed genes.

    Args:
        name: of the method.
        method: as the algorithm defines it.
    """
    if name == "init":

        @wraps(method)
        def init(self: Any, start: Any) -> Any:
            moving = moving_genes(self.bounds, start) if isinstance(start, Population) else None
            algorithm = None if moving is None else moving.settings(self)
            if moving is None or algorithm is None:
                return method(self, start)
            return MovingState(algorithm.init(moving.reduced(start)), moving)

        return init

    follow = _FOLLOWED[name]

    @wraps(method)
    def followed(self: Any, state: Any, *given: Any, **named: Any) -> Any:
        if type(state) is not MovingState:
            return method(self, state, *given, **named)
        return follow(state.moving.settings(self), state.inner, state.moving, *given, **named)

    return followed


def _asked(algorithm: Any, inner: Any, moving: MovingGenes, noise: Any) -> Population:
    return moving.expanded(algorithm.ask(inner, noise))


def _told(algorithm: Any, inner: Any, moving: MovingGenes, asked: Population) -> MovingState:
    return MovingState(algorithm.tell(inner, moving.reduced(asked)), moving)


def _best(algorithm: Any, inner: Any, moving: MovingGenes) -> Population:
    return moving.expanded(algorithm.best(inner))


def _next_k(algorithm: Any, inner: Any, moving: MovingGenes) -> int:
    return int(algorithm.next_k(inner))


def _exhausted(algorithm: Any, inner: Any, moving: MovingGenes) -> bool:
    return bool(algorithm.exhausted(inner))


def _estimate(algorithm: Any, inner: Any, moving: MovingGenes) -> Individual:
    return moving.whole_individual(algorithm.estimate(inner))


def _refreshed(algorithm: Any, inner: Any, moving: MovingGenes, assess: Callable[[Population], Population]) -> Any:
    def reduced(population: Population) -> Population:
        return moving.reduced(assess(moving.expanded(population)))

    return MovingState(algorithm.refresh(inner, reduced), moving)


_FOLLOWED: Mapping[str, Callable[..., Any]] = {
    "ask": _asked,
    "tell": _told,
    "best": _best,
    "next_k": _next_k,
    "exhausted": _exhausted,
    "estimate": _estimate,
    "refresh": _refreshed,
}
METHODS = ("init", *_FOLLOWED)
"""The methods of `Algorithm` that take or return a state."""
