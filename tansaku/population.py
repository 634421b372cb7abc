"""`Individual` and `Population`: named tensors under one shape rule.

Every tensor of a population is ``[k, *batch_shape, *event_shape]``: k candidates, always dimension 0; ``batch_shape``
independent searches, the same for all names; ``event_shape`` the genes of one candidate under that name. An individual
is one candidate per search, ``[*batch_shape, *event_shape]``. ``batch_shape = ()`` is ordinary search; ``(n,)`` is
one search per row of a mini-batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from tansaku import checks
from tansaku.assessment import Assessment, check_assessment
from tansaku.functional import cat_rows, keys, lowest, pareto_ranks, repeats, select, take_rows
from tansaku.showing import shown


@dataclass(frozen=True)
class Individual:
    """One candidate per search.

    Args:
        genes: name -> [*batch_shape, *event_shape].
        batch_ndim: how many leading dimensions are searches.

    Raises:
        TypeError, ValueError: see `tansaku.checks.tensors`.

    Example:
        >>> Individual({"x": torch.zeros(3)}).populate(5)["x"].shape
        torch.Size([5, 3])
    """

    genes: Mapping[str, Tensor]
    batch_ndim: int = 0

    def __post_init__(self) -> None:
        checks.count("batch_ndim", self.batch_ndim, 0)
        object.__setattr__(self, "genes", MappingProxyType(checks.tensors("genes", self.genes, self.batch_ndim)))

    @classmethod
    def from_module(cls, module: nn.Module, names: Iterable[str] | None = None) -> Individual:
        """A network's parameters as genes; the network is not changed.

        Args:
            module: any module.
            names: the parameters to search over; all that require a gradient if not given.

        Raises:
            ValueError: a name that the module does not have, or no parameter at all.
        """
        own = dict(module.named_parameters())
        chosen = [name for name, parameter in own.items() if parameter.requires_grad] if names is None else list(names)
        for name in chosen:
            if name not in own:
                raise ValueError(f"expected names among {sorted(own)}, got {name!r}; see module.named_parameters()")
        if not chosen:
            raise ValueError("expected a module with trainable parameters, got none; name those to search over")
        return cls({name: own[name].detach().clone() for name in chosen})

    def to_module(self, module: nn.Module) -> None:
        """Writes the genes into the parameters of the same names; all others stay as they are.

        Raises:
            ValueError: searches in the individual, a name that the module lacks, or another shape.
        """
        if self.batch_ndim:
            raise ValueError(f"expected an individual without searches, got batch_shape {self.batch_shape}; pick one")
        own = dict(module.named_parameters())
        for name, value in self.genes.items():
            if name not in own or own[name].shape != value.shape:
                had = checks.shape_text(own[name].shape) if name in own else "no such parameter"
                raise ValueError(
                    f"expected a module with a parameter {name!r} of shape {checks.shape_text(value.shape)}, "
                    f"got {had}; write into the module that the genes came from"
                )
        with torch.no_grad():
            for name, value in self.genes.items():
                own[name].copy_(value)

    def __repr__(self) -> str:
        return f"Individual({shown(self.genes)}, batch_ndim={self.batch_ndim})"

    def __getitem__(self, name: str) -> Tensor:
        return self.genes[name]

    def __reduce__(self) -> tuple[type[Individual], tuple[Any, ...]]:
        return Individual, (dict(self.genes), self.batch_ndim)  # a read-only view of a mapping cannot be pickled

    @property
    def batch_shape(self) -> torch.Size:
        """The shape of the searches."""
        return next(iter(self.genes.values())).shape[: self.batch_ndim]

    def populate(self, k: int) -> Population:
        """``k`` copies, as views of this individual's memory: [k, *batch_shape, *event_shape]."""
        checks.count("k", k)
        return Population({name: x.expand(k, *x.shape) for name, x in self.genes.items()}, self.batch_ndim)


_NONE: Mapping[str, Tensor] = MappingProxyType({})
_WHOLE = (torch.int64, torch.int32)  # what numbers a candidate


def _alike(x: Tensor, other: Tensor) -> bool:
    """Whether ``x`` fits wherever ``other`` did."""
    return isinstance(x, Tensor) and x.dtype == other.dtype and x.shape == other.shape


@dataclass(frozen=True)
class Population:
    """Candidates: genes that evolve, traits that travel with them, and what they cost once assessed.

    Immutable: every method returns a new population and shares memory with the old one where it can. Not a mapping,
    whose ``len()`` would count names; ``population["x"]`` reads genes.

    Args:
        genes: name -> [k, *batch_shape, *event_shape].
        batch_ndim: how many dimensions after the first are searches.
        traits: name -> [k, *batch_shape, ...], per-candidate memory that no mutator touches (velocity, age).
        assessment: the cost of every candidate, or None.

    Raises:
        TypeError: a trait that is no tensor, an assessment that is none; see `tansaku.checks.tensors`.
        ValueError: shapes that do not agree, or batch_ndim < 0; see `check_assessment`.
    """

    genes: Mapping[str, Tensor]
    batch_ndim: int = 0
    traits: Mapping[str, Tensor] = field(default_factory=dict)
    assessment: Assessment | None = None

    def __post_init__(self) -> None:
        if type(self.batch_ndim) is not int or self.batch_ndim < 0:
            checks.count("batch_ndim", self.batch_ndim, 0)
        lead = 1 + self.batch_ndim
        genes = checks.tensors("genes", self.genes, lead)
        first = next(iter(genes.values()))
        if first.shape[0] == 0:
            raise ValueError("expected at least one candidate, got k = 0; see Individual.populate")
        object.__setattr__(self, "genes", MappingProxyType(genes))
        traits = dict(self.traits)
        if traits:
            for name, trait in traits.items():
                checks.instance(f"trait {name!r}", trait, Tensor, "use torch.as_tensor")
                if trait.shape[:lead] != first.shape[:lead]:
                    raise ValueError(
                        f"expected trait {name!r} with leading dimensions {checks.shape_text(first.shape[:lead])}, "
                        f"got {checks.shape_text(trait.shape)}; a trait has one entry per candidate and search"
                    )
        object.__setattr__(self, "traits", MappingProxyType(traits))
        if self.assessment is not None:
            checks.instance("assessment", self.assessment, Assessment, "use Assessment(costs)")
            check_assessment(self.assessment, first.shape[0], first.shape[1:lead], first.device)
            object.__setattr__(self, "assessment", self.assessment.per_constraint(lead))

    def __repr__(self) -> str:
        traits = f", traits={shown(self.traits)}" if self.traits else ""
        return f"Population({shown(self.genes)}, batch_ndim={self.batch_ndim}{traits}, assessment={self.assessment!r})"

    def __getitem__(self, name: str) -> Tensor:
        return self.genes[name]

    @classmethod
    def _made(
        cls,
        genes: Mapping[str, Tensor],
        batch_ndim: int,
        traits: Mapping[str, Tensor],
        assessment: Assessment | None = None,
    ) -> Population:
        """A population whose parts came out of others, row by row: nothing to check."""
        if torch.compiler.is_dynamo_compiling():
            return cls(genes, batch_ndim, traits, assessment)
        made = object.__new__(cls)
        own = made.__dict__
        own["genes"] = MappingProxyType(genes) if type(genes) is dict else genes
        own["batch_ndim"] = batch_ndim
        own["traits"] = MappingProxyType(traits) if type(traits) is dict else traits
        own["assessment"] = assessment
        return made

    def __reduce__(self) -> tuple[type[Population], tuple[Any, ...]]:
        return Population, (dict(self.genes), self.batch_ndim, dict(self.traits), self.assessment)

    @property
    def k(self) -> int:
        """The number of candidates."""
        return self._first.shape[0]

    @property
    def batch_shape(self) -> torch.Size:
        """The shape of the searches."""
        return self._first.shape[1 : 1 + self.batch_ndim]

    @property
    def device(self) -> torch.device:
        """Where the genes are."""
        return self._first.device

    @property
    def cost(self) -> Tensor:
        """[k, *batch_shape], or [k, *batch_shape, m] of m objectives: lower is better, NaN is +inf.

        Violations are taken into account, see `Assessment.cost`.

        Raises:
            RuntimeError: not assessed yet.
        """
        if self.assessment is None:
            raise RuntimeError("expected an assessed population, got one without an assessment; assess it first")
        return self.assessment.cost

    @property
    def scalar_cost(self) -> Tensor:
        """[k, *batch_shape] the cost of one objective, by which candidates have an order.

        Raises:
            RuntimeError: not assessed yet.
            ValueError: several objectives.
        """
        cost = self.cost
        if cost.ndim != 1 + self.batch_ndim:
            raise ValueError(
                f"expected one objective, got {cost.shape[-1]}; a population with several has a Pareto front, no best: "
                "use front(), NSGA2, or one weighted sum of them"
            )
        return cost

    @property
    def feasible_cost(self) -> Tensor:
        """`cost` for algorithms that subtract costs: +inf for infeasible ones, see `Assessment.feasible_cost`."""
        return self.cost if self.assessment is None else self.assessment.feasible_cost

    @property
    def scaled_cost(self) -> Tensor:
        """`scalar_cost` for operators that average costs, see `Assessment.scaled_cost`."""
        cost = self.scalar_cost
        return cost if self.assessment is None else self.assessment.scaled_cost

    @property
    def _first(self) -> Tensor:
        return next(iter(self.genes.values()))

    def event_shape(self, name: str) -> torch.Size:
        """The shape of one candidate's genes under ``name``."""
        return self.genes[name].shape[1 + self.batch_ndim :]

    def with_genes(self, genes: Mapping[str, Tensor], **traits: Tensor) -> Population:
        """The same candidates with other genes (those named) and traits; the assessment is dropped.

        Raises:
            ValueError: a name that the population does not have.
        """
        unknown = sorted(set(genes) - set(self.genes))
        if unknown:
            raise ValueError(
                f"expected genes among {sorted(self.genes)}, got {unknown}; make a new Population for others"
            )
        if not traits and all(map(_alike, genes.values(), map(self.genes.__getitem__, genes))):
            return Population._made({**self.genes, **genes}, self.batch_ndim, self.traits)
        return Population({**self.genes, **genes}, self.batch_ndim, {**self.traits, **traits})

    def with_traits(self, **traits: Tensor) -> Population:
        """The same candidates with these traits added or replaced; the assessment stays."""
        return replace(self, traits={**self.traits, **traits})

    def without_traits(self) -> Population:
        """The same candidates with nothing but their genes and their assessment."""
        return Population._made(self.genes, self.batch_ndim, _NONE, self.assessment)

    def unassessed(self) -> Population:
        """The same candidates with their assessment dropped."""
        return Population._made(self.genes, self.batch_ndim, self.traits)

    def assessed(self, assessment: Assessment | Tensor) -> Population:
        """The same candidates with their assessment attached.

        Args:
            assessment: of all of them; or their costs [k, *batch_shape].

        Raises:
            TypeError: neither.
            ValueError: an assessment of another shape or on another device.

        Example:
            >>> population = Population({"x": torch.eye(3)})
            >>> population.assessed(population["x"].sum(-1)).cost
            tensor([1., 1., 1.])
        """
        if not isinstance(assessment, Assessment):
            assessment = Assessment(assessment)
        first = self._first
        check_assessment(assessment, first.shape[0], first.shape[1 : 1 + self.batch_ndim], first.device)
        if assessment.violation is not None:
            assessment = assessment.per_constraint(1 + self.batch_ndim)
        return Population._made(self.genes, self.batch_ndim, self.traits, assessment)

    def judged_as(self, other: Population, dtype: torch.dtype | None) -> Population:
        """The same candidates with a copy of the assessment of ``other``, which holds the same genes.

        Args:
            other: assessed, and checked when it was.
            dtype: of the value; None keeps it.
        """
        assessment = None if other.assessment is None else other.assessment.copied(dtype)
        return Population._made(self.genes, self.batch_ndim, self.traits, assessment)

    def take(self, index: Tensor) -> Population:
        """The candidates at ``index``, genes, traits and assessment together.

        Args:
            index: [j] the same candidates for every search, or [j, *batch_shape] each search its own; j >= 1.

        Raises:
            TypeError: an index that is no tensor of torch.int64 or torch.int32.
            ValueError: an index of another shape.
        """
        if not isinstance(index, Tensor) or index.dtype not in _WHOLE:
            got = index.dtype if isinstance(index, Tensor) else type(index).__name__
            remedy = "mask.nonzero().squeeze(1)" if got == torch.bool else "torch.as_tensor(index).long()"
            raise TypeError(f"expected index as a tensor of candidates' numbers, got {got}; use {remedy}")
        if index.numel() == 0 or (index.ndim != 1 and (index.ndim == 0 or index.shape[1:] != self.batch_shape)):
            each = "".join(f", {size}" for size in self.batch_shape)
            raise ValueError(
                f"expected index with shape [j] or [j, *batch_shape] = [j{each}] and j >= 1, "
                f"got {checks.shape_text(index.shape)}; give every search as many candidates"
            )
        return Population._made(
            {name: take_rows(x, index) for name, x in self.genes.items()},
            self.batch_ndim,
            {name: take_rows(x, index) for name, x in self.traits.items()},
            None if self.assessment is None else self.assessment.take(index, take_rows),
        )

    def cat(self, other: Population) -> Population:
        """The candidates of both, mine first; assessed if both are.

        Raises:
            ValueError: another population of other names, dtypes or shapes, or assessed in another way.
        """
        return self._zip(other, cat_rows, 1)

    def where(self, mask: Tensor, other: Population) -> Population:
        """Candidate by candidate: mine where ``mask``, else the other's; assessed if both are.

        Args:
            mask: [k, *batch_shape] booleans.
            other: as many candidates.

        Raises:
            TypeError: a mask that is no boolean tensor.
            ValueError: a mask of another shape; another population of other names, dtypes or shapes, or assessed in
                another way.
        """
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            got = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
            raise TypeError(f"expected mask as a boolean tensor, got {got}; compare, as in mask > 0")
        lead = self._first.shape[: 1 + self.batch_ndim]
        if mask.shape != lead:
            raise ValueError(
                f"expected mask with shape [k, *batch_shape] = {checks.shape_text(lead)}, "
                f"got {checks.shape_text(mask.shape)}; give one boolean per candidate and search"
            )
        return self._zip(other, lambda a, b: select(mask, a, b), 0)

    def best(self) -> Population:
        """The candidate of lowest cost of each search, k = 1; ties keep the lower index, NaN is never preferred.

        Raises:
            RuntimeError: not assessed.
            ValueError: several objectives, which have no single best; see `front`.
        """
        return self.take(lowest(self.scalar_cost))

    def front(self) -> Population:
        """The candidates that no other dominates, in their order; with one objective, all that tie for the best.

        Of candidates with equal genes only the first is in the front. Two of them stay if their costs differ and one
        of the costs is not finite: then each of two failed evaluations may know the lowest cost of one objective.

        Fronts of several searches differ in size: the smaller ones are filled up with their own members again, from
        the first on. Reads the size of the largest front, which synchronises with the device.

        Raises:
            RuntimeError: not assessed.

        Example:
            >>> from tansaku import Assessment
            >>> value = torch.tensor([[1.0, 2.0], [2.0, 2.0], [2.0, 1.0]])
            >>> Population({"x": torch.arange(3)}, assessment=Assessment(value)).front()["x"]
            tensor([0, 2])
        """
        cost = self.cost if self.cost.ndim > 1 + self.batch_ndim else self.cost[..., None]
        member = (pareto_ranks(cost) == 0) & ~repeats(self.keys(cost))
        size = member.sum(0, keepdim=True)
        members_first = member.to(torch.uint8).argsort(dim=0, descending=True, stable=True)
        place = torch.arange(int(size.max()), device=cost.device).view((-1,) + (1,) * self.batch_ndim)
        return self.take(members_first.gather(0, place % size))

    def keys(self, cost: Tensor | None = None) -> Tensor:
        """[k, *batch_shape] int64, equal for candidates with equal genes; see `tansaku.functional.keys`.

        Args:
            cost: [k, *batch_shape, m], by which candidates are told apart, too, if one of their costs is not finite.
        """
        lead = 1 + self.batch_ndim
        own = keys([self.genes[name] for name in sorted(self.genes)], lead)
        if cost is None:
            return own
        failed = ~torch.isfinite(cost).all(-1)
        return torch.where(failed, own ^ keys([cost], lead), own)

    def individual(self, i: int = 0) -> Individual:
        """Candidate ``i`` of every search."""
        return Individual({name: x[i] for name, x in self.genes.items()}, self.batch_ndim)

    def _zip(self, other: Population, join: Callable[[Tensor, Tensor], Tensor], free: int) -> Population:
        """Both populations joined tensor by tensor, which may differ in the first ``free`` dimensions."""
        if self.genes.keys() != other.genes.keys() or self.traits.keys() != other.traits.keys():
            raise ValueError(
                f"expected populations of the same names, got genes {sorted(self.genes)} and {sorted(other.genes)}, "
                f"traits {sorted(self.traits)} and {sorted(other.traits)}"
            )
        if self.batch_ndim != other.batch_ndim:
            raise ValueError(
                f"expected populations of one batch_ndim, got {self.batch_ndim} and {other.batch_ndim}; give both one"
            )
        for mine, theirs in ((self.genes, other.genes), (self.traits, other.traits)):
            for name, x in mine.items():
                y = theirs[name]
                if x.shape != y.shape or x.dtype != y.dtype:
                    checks.alike(name, x, y, free)
        assessment = None
        if self.assessment is not None and other.assessment is not None:
            assessment = self.assessment.zip(other.assessment, join)
        return Population._made(
            {name: join(x, other.genes[name]) for name, x in self.genes.items()},
            self.batch_ndim,
            {name: join(x, other.traits[name]) for name, x in self.traits.items()},
            assessment,
        )


def check_population(what: str, given: Any) -> None:
    """``given`` is a population, or a TypeError that says how to make one."""
    checks.instance(what, given, Population, "make one with individual.populate(k) or Population({'x': tensor})")
