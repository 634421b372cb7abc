"""MAP-Elites: the best candidate of every kind, kept in an archive of cells.

J.-B. Mouret and J. Clune, Illuminating Search Spaces by Mapping Elites, 2015; with centroids V. Vassiliades,
K. Chatzilygeroudis and J.-B. Mouret, 2018 (CVT-MAP-Elites). A whole batch enters the archive at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from tansaku.algorithms.base import Algorithm, Assessor, Needs
from tansaku.algorithms.cells import Cells, Grid
from tansaku.algorithms.emitters import Emitter, IsoLineEmitter
from tansaku.assessment import Assessment
from tansaku.draws import Noise
from tansaku.functional import Shelf, Version, lowest
from tansaku.operators.bounds import Bounds
from tansaku.population import Population
from tansaku.states import state


@state
class MapElitesState:
    """The ``archive``, one candidate per cell, assessed, NaN in value where empty; what each emitter has learnt; and
    the ``order`` [cells, *batch_shape] in which cells were filled, as numbers of cells, then zeros.

    A generation writes its elites into the memory of the last archive (see `tansaku.functional.archive`), and
    ``archive`` is a copy of it, made when somebody reads it. A state that was followed by another stays as it was.
    """

    archive: Population
    emitters: list[Any]
    order: Tensor

    def __getattr__(self, name: str) -> Any:
        if name not in ("archive", "order") or "_version" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        shelf = self._version.shelf
        self.__dict__[name] = made = shelf.order if name == "order" else _population(shelf.copied(), self._maximize)
        return made

    @classmethod
    def _after(cls, version: Version, maximize: bool, emitters: list[Any]) -> MapElitesState:
        made = object.__new__(cls)
        made.__dict__.update(_version=version, _maximize=maximize, emitters=emitters)
        return made

    def _newest(self) -> Version:
        """What the next generation enters."""
        version = self.__dict__.get("_version")
        if version is None:
            version = self.__dict__["_version"] = Version(_shelf(self.archive, self.order))
            self.__dict__["_maximize"] = _assessment(self.archive).maximize
        return version

    @property
    def _elites(self) -> Population:
        """The archive, to read before anything enters it."""
        return _population(self._newest().shelf, self._maximize)

    def __reduce__(self) -> tuple[type[MapElitesState], tuple[Any, ...]]:
        return MapElitesState, (self.archive, self.emitters, self.order)

    @property
    def filled(self) -> Tensor:
        """[cells, *batch_shape] which cells have an elite."""
        return self._elites.cost < float("inf")

    @property
    def coverage(self) -> Tensor:
        """[*batch_shape] the share of cells that have a feasible elite."""
        return (_assessment(self._elites).feasible_cost < float("inf")).double().mean(0)

    def qd_score(self, worst: float = 0.0) -> Tensor:
        """[*batch_shape] by how much all feasible elites together are better than ``worst``, in the user's own sign.

        Reference: J. K. Pugh et al., Confronting the Challenge of Quality Diversity, 2015.
        """
        elites = self._elites
        sign = -1 if _assessment(elites).maximize else 1
        cost = _assessment(elites).feasible_cost
        return torch.where(cost < float("inf"), sign * worst - cost, 0).sum(0)


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
        shelf = self._entered(start)
        learnt = [e.init(start, k, self.bounds) for e, k in zip(self.emitters, self._shares, strict=True)]
        return MapElitesState(_population(shelf, _assessment(start).maximize), learnt, shelf.order)

    def ask(self, state: MapElitesState, noise: Noise) -> Population:
        """K candidates, the emitters' one after another."""
        archive = state._elites
        parts = [
            emitter.emit(own, archive, k, self.bounds, noise)
            for emitter, own, k in zip(self.emitters, state.emitters, self._shares, strict=True)
        ]
        candidates = parts[0] if len(parts) == 1 and not parts[0].traits else _joined(parts)
        return candidates if self.bounds is None else self.bounds(candidates)

    def tell(self, state: MapElitesState, asked: Population) -> MapElitesState:
        """Each candidate that is better than its cell's elite takes its place; the emitters learn from it."""
        cell, cost = self._cell(asked), asked.cost
        parts = self._parts(asked) if self._learning else []
        assessment = _assessment(asked)
        rows = _rows(asked.genes, assessment)
        if torch.compiler.is_dynamo_compiling():
            shelf = _shelf(state.archive, state.order)
            held = shelf.enter(cost, cell, rows, [])
            learnt = self._learnt(state, parts, cost, held)
            return MapElitesState(_population(shelf, assessment.maximize), learnt, shelf.order)
        version, held = state._newest().entered(cost, cell, rows)
        return MapElitesState._after(version, assessment.maximize, self._learnt(state, parts, cost, held))

    def best(self, state: MapElitesState) -> Population:
        """The best elite."""
        return state._elites.best()

    def refresh(self, state: MapElitesState, assess: Assessor) -> MapElitesState:
        """All elites assessed again, each in the cell that its new descriptor says."""
        archive = state.archive
        number = torch.arange(self.cells.count, device=archive.device)
        filled = state.filled
        number = number.view((-1,) + (1,) * (filled.ndim - 1)).expand(filled.shape)
        elites = assess(archive.take(torch.where(filled, number, lowest(archive.cost))))
        shelf = self._entered(elites)
        return MapElitesState(_population(shelf, _assessment(elites).maximize), state.emitters, shelf.order)

    def _parts(self, asked: Population) -> list[Population | None]:
        """What each emitter made, assessed; None for one that does not learn."""
        parts: list[Population | None] = []
        begin = 0
        for i, (emitter, k) in enumerate(zip(self.emitters, self._shares, strict=True)):
            mine, prefix = slice(begin, begin + k), f"{i}."
            begin += k
            if not _learns(emitter):
                parts.append(None)
                continue
            genes = {name: x[mine] for name, x in asked.genes.items()}
            traits = {name[len(prefix) :]: x[mine] for name, x in asked.traits.items() if name.startswith(prefix)}
            said: dict[str, Any] = {name: x[mine] for name, x in _fields(_assessment(asked)).items()}
            parts.append(Population(genes, asked.batch_ndim, traits, replace(_assessment(asked), **said)))
        return parts

    def _learnt(self, state: MapElitesState, parts: list[Population | None], cost: Tensor, held: Tensor) -> list[Any]:
        if not parts:
            return state.emitters
        learnt = []
        shares = self._shares
        costs, helds = cost.split(shares), held.split(shares)
        for emitter, own, part, now, met in zip(self.emitters, state.emitters, parts, costs, helds, strict=True):
            learnt.append(own if part is None else emitter.learn(own, part, now, met))
        return learnt

    def _cell(self, candidates: Population) -> Tensor:
        descriptor = _descriptor(candidates)
        if descriptor.shape[-1] != self.cells.dimensions:
            raise ValueError(
                f"expected a descriptor of {self.cells.dimensions} numbers, as the cells have, got "
                f"{descriptor.shape[-1]}; give MapElites cells=Grid(...) of your descriptor"
            )
        return self.cells.index(descriptor)

    @property
    def _learning(self) -> bool:
        return any(map(_learns, self.emitters))

    @property
    def _shares(self) -> list[int]:
        n = len(self.emitters)
        return [self.k // n + (i < self.k % n) for i in range(n)]

    def _entered(self, candidates: Population) -> Shelf:
        """The shelf of an archive of nothing but these."""
        cell = self._cell(candidates)
        shelf = _shelf(_empty(candidates, self.cells.count))
        shelf.enter(candidates.cost, cell, _rows(candidates.genes, _assessment(candidates)), [])
        return shelf


def _learns(emitter: Emitter) -> bool:
    return type(emitter).learn is not Emitter.learn


_FIELDS = tuple(field.name for field in fields(Assessment) if field.name != "maximize")
_GENE = "gene "  # before the name of genes, among which the fields of an assessment stand


def _rows(genes: Mapping[str, Tensor], assessment: Assessment) -> dict[str, Tensor]:
    return {**{_GENE + name: x for name, x in genes.items()}, **_fields(assessment)}


def _fields(assessment: Assessment) -> dict[str, Tensor]:
    return {name: x for name in _FIELDS if (x := getattr(assessment, name)) is not None}


def _shelf(archive: Population, order: Tensor | None = None) -> Shelf:
    """A copy of all that the archive holds."""
    return Shelf(archive.cost, _rows(archive.genes, _assessment(archive)), order)


def _joined(parts: list[Population]) -> Population:
    """All candidates one after another; the traits of a part ride with its own, zeros with the others."""
    genes = {name: torch.cat([part[name] for part in parts]) for name in parts[0].genes}
    traits = {}
    for i, part in enumerate(parts):
        for name, x in part.traits.items():
            rows = [x if j == i else x.new_zeros(other.k, *x.shape[1:]) for j, other in enumerate(parts)]
            traits[f"{i}.{name}"] = torch.cat(rows)
    return Population(genes, parts[0].batch_ndim, traits)


def _population(shelf: Shelf, maximize: bool) -> Population:
    """All that the shelf holds, as views, which need no check."""
    if shelf.made is None:
        genes = {name[len(_GENE) :]: x for name, x in shelf.rows.items() if name.startswith(_GENE)}
        assessment = Assessment._made(maximize, {n: x for n, x in shelf.rows.items() if not n.startswith(_GENE)})
        if not torch.compiler.is_dynamo_compiling():
            assessment.__dict__["_cost"] = shelf.cost
        shelf.made = genes, assessment
    archive = Population._made(shelf.made[0], len(shelf.shape) - 1, {}, shelf.made[1])
    if not torch.compiler.is_dynamo_compiling():
        archive.__dict__["_members"] = (shelf.members, shelf.filled)  # for `elites`
    return archive


def _empty(like: Population, cells: int) -> Population:
    """Nothing but copies of the first candidate whose value is NaN."""
    copies = like.without_traits().take(torch.zeros(cells, dtype=torch.int64, device=like.device))
    value = torch.full_like(_assessment(copies).value, float("nan"))
    violation, ranking = _assessment(copies).violation, _assessment(copies).ranking
    violation = None if violation is None else torch.zeros_like(violation)  # the cost of an empty cell is +inf
    ranking = None if ranking is None else torch.full_like(ranking, float("inf"))
    return copies.assessed(replace(_assessment(copies), value=value, violation=violation, ranking=ranking))


def _assessment(population: Population) -> Assessment:
    if population.assessment is None:
        raise ValueError("expected an assessed population, got one without an assessment; assess it first")
    return population.assessment


def _descriptor(population: Population) -> Tensor:
    descriptor = _assessment(population).descriptor
    if descriptor is None:
        raise ValueError("expected an assessment with a descriptor, got none; return it beside the value")
    return descriptor
