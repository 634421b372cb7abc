"""MAP-Elites: the best candidate of every kind, kept in an archive of cells.

J.-B. Mouret and J. Clune, Illuminating Search Spaces by Mapping Elites, 2015; with centroids V. Vassiliades,
K. Chatzilygeroudis and J.-B. Mouret, 2018 (CVT-MAP-Elites). A whole batch enters the archive at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from tansaku.algorithms.base import Algorithm, Assessor, Needs
from tansaku.algorithms.cells import Cells, Grid
from tansaku.algorithms.emitters import Emitter, IsoLineEmitter
from tansaku.assessment import Assessment
from tansaku.draws import Noise
from tansaku.functional import entering, put_rows
from tansaku.operators.bounds import Bounds
from tansaku.population import Population
from tansaku.states import state


@state
class MapElitesState:
    """The ``archive``, one candidate per cell, assessed, NaN in value where empty; and what each emitter has learnt."""

    archive: Population
    emitters: list[Any]

    @property
    def filled(self) -> Tensor:
        """[cells, *batch_shape] which cells have an elite."""
        return self.archive.cost < float("inf")

    @property
    def coverage(self) -> Tensor:
        """[*batch_shape] the share of cells that have an elite."""
        return self.filled.double().mean(0)

    def qd_score(self, worst: float = 0.0) -> Tensor:
        """[*batch_shape] by how much all elites together are better than ``worst``, in the user's own sign.

        Reference: J. K. Pugh et al., Confronting the Challenge of Quality Diversity, 2015.
        """
        sign = -1 if self.archive.assessment is not None and self.archive.assessment.maximize else 1
        return torch.where(self.filled, sign * worst - self.archive.cost, 0).sum(0)


@dataclass(frozen=True)
class MapElites(Algorithm[MapElitesState]):
    """Fills the cells of an archive with the best candidate of each; needs an assessment with a ``descriptor``.

    Args:
        k: candidates per generation, shared out among the emitters.
        cells: a `Grid` or `Centroids`; by default 16 x 16 boxes over descriptors in [0, 1].
        emitters: who makes the candidates.
        bounds: `Bounds` or (lower, upper).

    Example:
        >>> from tansaku import Individual, Objective, Search
        >>> task = Objective(lambda x: {"value": x.square().sum(-1), "descriptor": x[..., :2]})
        >>> search = Search(MapElites(bounds=(0.0, 1.0)), task, Individual({"x": torch.full((3,), 0.5)}))
        >>> _ = search.run(max_generations=50)
        >>> bool(search.state.coverage > 0.5)
        True
    """

    k: int = 64
    cells: Cells = field(default_factory=Grid)
    emitters: tuple[Emitter, ...] = (IsoLineEmitter(),)
    bounds: Bounds | None = None
    needs = Needs(dtypes=frozenset({"real", "integer", "boolean"}), descriptor=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "emitters", tuple(self.emitters))
        if not self.emitters or not all(isinstance(emitter, Emitter) for emitter in self.emitters):
            raise TypeError(f"expected at least one emitter, got {self.emitters!r}; pass e.g. (IsoLineEmitter(),)")
        rank_based = all(emitter.rank_based for emitter in self.emitters)
        dtypes = frozenset.intersection(*(emitter.dtypes for emitter in self.emitters))
        needs = replace(self.needs, min_k=len(self.emitters), rank_based=rank_based, dtypes=dtypes)
        object.__setattr__(self, "needs", needs)
        self.check_settings()

    def init(self, start: Population) -> MapElitesState:
        """The start, whatever its number, enters an empty archive."""
        self.check_start(start)
        size = _descriptor(start).shape[-1]
        if size != self.cells.dimensions:
            raise ValueError(
                f"expected a descriptor of {self.cells.dimensions} numbers, as the cells have, got {size}; "
                "give MapElites cells=Grid(...) of your descriptor"
            )
        archive = self._entered(_empty(start, self.cells.count), start.without_traits())
        return MapElitesState(
            archive, [e.init(start, k, self.bounds) for e, k in zip(self.emitters, self._shares(), strict=True)]
        )

    def ask(self, state: MapElitesState, noise: Noise) -> Population:
        """K candidates, the emitters' one after another."""
        parts = [
            emitter.emit(own, state.archive, k, self.bounds, noise)
            for emitter, own, k in zip(self.emitters, state.emitters, self._shares(), strict=True)
        ]
        genes = {name: torch.cat([part[name] for part in parts]) for name in state.archive.genes}
        traits = {}
        for i, part in enumerate(parts):  # an emitter's traits ride with its own candidates, zeros with the others
            for name, x in part.traits.items():
                rows = [x if j == i else x.new_zeros(other.k, *x.shape[1:]) for j, other in enumerate(parts)]
                traits[f"{i}.{name}"] = torch.cat(rows)
        candidates = Population(genes, state.archive.batch_ndim, traits)
        return candidates if self.bounds is None else self.bounds(candidates)

    def tell(self, state: MapElitesState, asked: Population) -> MapElitesState:
        """Each candidate that is better than its cell's elite takes its place; the emitters learn from it."""
        cell, cost = self._cell(asked)
        archive = state.archive
        held = archive.cost.gather(0, cell)
        number, enters = entering(archive.cost, cost, cell)
        every = torch.arange(self.k, device=asked.device)
        learnt, begin = [], 0
        for i, (emitter, own, k) in enumerate(zip(self.emitters, state.emitters, self._shares(), strict=True)):
            mine, prefix = slice(begin, begin + k), f"{i}."
            part = asked.without_traits().take(every[mine])
            traits = {name[len(prefix) :]: x[mine] for name, x in asked.traits.items() if name.startswith(prefix)}
            learnt.append(emitter.learn(own, part.with_traits(**traits), cost[mine], held[mine]))
            begin += k
        return MapElitesState(_written(archive, asked.without_traits(), cell, number, enters), learnt)

    def best(self, state: MapElitesState) -> Population:
        """The best elite."""
        return state.archive.best()

    def refresh(self, state: MapElitesState, assess: Assessor) -> MapElitesState:
        """All elites assessed again, each in the cell that its new descriptor says."""
        number = torch.arange(self.cells.count, device=state.archive.device)
        filled = state.filled
        number = number.view((-1,) + (1,) * (filled.ndim - 1)).expand(filled.shape)
        elites = assess(state.archive.take(torch.where(filled, number, state.archive.cost.argmin(0))))
        return MapElitesState(self._entered(_empty(elites, self.cells.count), elites), state.emitters)

    def _shares(self) -> list[int]:
        n = len(self.emitters)
        return [self.k // n + (i < self.k % n) for i in range(n)]

    def _cell(self, candidates: Population) -> tuple[Tensor, Tensor]:
        """[k, *batch_shape] the cell of each candidate, and its cost: +inf where the descriptor has a NaN."""
        descriptor = _descriptor(candidates)
        failed = torch.isnan(descriptor).any(-1)
        cell = self.cells.index(torch.nan_to_num(descriptor))
        return cell, torch.where(failed, float("inf"), candidates.cost)

    def _entered(self, archive: Population, candidates: Population) -> Population:
        cell, cost = self._cell(candidates)
        return _written(archive, candidates, cell, *entering(archive.cost, cost, cell))


def _written(archive: Population, candidates: Population, cell: Tensor, number: Tensor, enters: Tensor) -> Population:
    """The archive with the candidates that enter it, in one scatter: all that share a cell write the same row."""
    rows = candidates.take(number).where(enters, archive.take(cell))
    return Population(
        {name: put_rows(x, cell, rows[name]) for name, x in archive.genes.items()},
        archive.batch_ndim,
        {},
        _assessment(archive).zip(_assessment(rows), lambda x, new: put_rows(x, cell, new)),
    )


def _empty(like: Population, cells: int) -> Population:
    """Nothing but copies of the first candidate whose value is NaN."""
    copies = like.without_traits().take(torch.zeros(cells, dtype=torch.int64, device=like.device))
    value = torch.full_like(_assessment(copies).value, float("nan"))
    return copies.assessed(replace(_assessment(copies), value=value))


def _assessment(population: Population) -> Assessment:
    if population.assessment is None:
        raise ValueError("expected an assessed population, got one without an assessment; assess it first")
    return population.assessment


def _descriptor(population: Population) -> Tensor:
    descriptor = _assessment(population).descriptor
    if descriptor is None:
        raise ValueError("expected an assessment with a descriptor, got none; return it beside the value")
    return descriptor
