"""What an algorithm is: three short methods over an explicit state, and what it declares that it needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import wraps
from typing import Any, Generic, Literal, TypeVar

import torch
from torch import Tensor

from tansaku import checks, host
from tansaku.algorithms.moving import METHODS, leaving_out_fixed_genes
from tansaku.draws import Noise
from tansaku.operators.bounds import Bounds, OpenBounds
from tansaku.operators.mutation import BitFlip, Mutation, UniformReset
from tansaku.operators.permutation import check_permutations
from tansaku.population import Individual, Population

S = TypeVar("S")
_REDRAWS = 10
DEFAULT_BUDGET = 10_000
"""Evaluations of each search that an algorithm plans over where neither the user nor the run gives a number."""
Assessor = Callable[[Population], Population]


@dataclass(frozen=True)
class Needs:
    """What an algorithm asks of its problem; `tansaku.testing.check_algorithm` reads it.

    Args:
        min_k: the smallest number of candidates.
        k_multiple: k must be a multiple of this (2 for antithetic pairs).
        dtypes: kinds of genes, of ``"real"``, ``"integer"``, ``"boolean"`` and ``"permutation"``; ``"integer"`` with
            bounds; a permutation is an integer tensor that holds 0 .. n - 1, each once, along its last dimension.
        batched: whether a ``batch_shape`` other than () works.
        rank_based: whether only the order of the costs matters, so that any rising function of the cost gives the
            identical run.
        translates: whether a translated problem gives the translated run.
        scales: whether a problem whose genes are rescaled, together with the bounds and every standard deviation among
            the settings, gives the rescaled run.
        on_host: whether ``tell`` reads values to decide how to go on, or runs in another library; then it waits for
            the device and is no graph for `torch.compile`.
        plans: whether the algorithm plans its course over a budget, hot or wide at first, cold or narrow at the end. It
            then has a field ``max_evaluations: int | None = None``; None means not set by the user, and
            `Algorithm.with_budget` fills in the budget of the run. ``init`` must not read it, because a search calls
            ``init`` before the budget is known.
        objectives: ``"one"``, values [k, *batch_shape]; ``"many"``, values [k, *batch_shape, m], and `Algorithm.best`
            is the Pareto front of what is remembered.
        descriptor: whether an assessment must have a ``descriptor``.
    """

    min_k: int = 1
    k_multiple: int = 1
    dtypes: frozenset[str] = frozenset({"real"})
    batched: bool = True
    rank_based: bool = True
    translates: bool = True
    scales: bool = True
    on_host: bool = False
    plans: bool = False
    objectives: Literal["one", "many"] = "one"
    descriptor: bool = False


class Algorithm(ABC, Generic[S]):
    """A search algorithm: hyper-parameters only; everything that changes is in the state.

    A subclass is a frozen dataclass with ``k`` and ``bounds`` among its fields, and a state made with `tansaku.state`.
    It calls `check_settings` in ``__post_init__`` and `check_start` in ``init``, and `tansaku.testing.check_algorithm`
    says whether it keeps the promises of all algorithms. One of this package also gets a name in `ALGORITHMS`.

    Example:
        A random walk that keeps its best, whole:

        >>> from tansaku import Algorithm, Bounds, Gaussian, Individual, Objective, Population, Search, state
        >>> @state
        ... class WalkState:
        ...     place: Population
        ...     best: Population
        >>> @dataclass(frozen=True)
        ... class Walk(Algorithm[WalkState]):
        ...     k: int = 8
        ...     std: float = 0.3
        ...     bounds: Bounds | None = None
        ...     def __post_init__(self):
        ...         self.check_settings()
        ...     def init(self, start):
        ...         self.check_start(start)
        ...         return WalkState(start.best(), start.best())
        ...     def ask(self, state, noise):
        ...         steps = Gaussian(self.std)(state.place.individual().populate(self.k), noise)
        ...         return steps if self.bounds is None else self.bounds(steps)
        ...     def tell(self, state, asked):
        ...         place = asked.best()
        ...         return WalkState(place, place.where(place.cost < state.best.cost, state.best))
        ...     def best(self, state):
        ...         return state.best
        >>> search = Search(Walk(), Objective(lambda x: x.square().sum(-1)), Individual({"x": torch.ones(2)}))
        >>> search.run(max_generations=100).value < 0.1
        True
    """

    k: Any  # an int; None where the number of genes decides
    bounds: Bounds | None
    needs: Needs = Needs()

    def __init_subclass__(cls, **settings: Any) -> None:
        """Makes bounds that resample, and genes with equal bounds, work in every algorithm.

        `ask` is a query, so a candidate outside is drawn anew by asking again. Genes that cannot move are taken out of
        what the methods are given and put back into what they return, see `tansaku.algorithms.moving`.
        """
        super().__init_subclass__(**settings)
        if "ask" in cls.__dict__:
            cls.ask = _resampled(cls.__dict__["ask"])  # type: ignore[method-assign, assignment]
        for name in METHODS:
            if name in cls.__dict__:
                setattr(cls, name, leaving_out_fixed_genes(name, cls.__dict__[name]))

    @abstractmethod
    def init(self, start: Population) -> S:
        """The state before the first query.

        Args:
            start: assessed, [k0 >= 1, *batch_shape, *event_shape]; its best is never lost.
        """

    @abstractmethod
    def ask(self, state: S, noise: Noise) -> Population:
        """[next_k, *batch_shape, *event_shape] candidates to assess, within the bounds. The state is unchanged."""

    @abstractmethod
    def tell(self, state: S, asked: Population) -> S:
        """The next state. Draws nothing: what it needs at random, ``ask`` has drawn and put into traits.

        Args:
            state: what `ask` was called with.
            asked: what `ask` returned for it, assessed.
        """

    @abstractmethod
    def best(self, state: S) -> Population:
        """The best candidate ever assessed (k = 1), with its assessment; for several objectives the Pareto front."""

    def next_k(self, state: S) -> int:
        """How many candidates the next ``ask`` will give."""
        return int(self.k)

    def with_budget(self, max_evaluations: int) -> Algorithm[S]:
        """The algorithm, planned over ``max_evaluations`` of each search.

        Returns the algorithm itself if it does not plan (see `Needs`), or if the user set its ``max_evaluations``.
        """
        if not self.needs.plans or getattr(self, "max_evaluations", 0) is not None:
            return self
        planned: Any = replace(self, max_evaluations=checks.count("max_evaluations", max_evaluations))  # type: ignore[type-var]
        return planned

    def evaluations_in(self, generations: int, start_k: int) -> int | None:
        """Evaluations of each search after ``generations``, the ``start_k`` candidates of the start included.

        Returns None where the settings do not give the number: ``k`` is None, because the number of genes decides.
        """
        return None if self.k is None else start_k + int(self.k) * generations

    def exhausted(self, state: S) -> bool:
        """Whether the state alone says that the search cannot get further; reads values on the host."""
        return False

    def estimate(self, state: S) -> Individual:
        """What to write back under a noisy cost: the mean of a distribution where there is one, else the best."""
        return self.best(state).individual()

    def refresh(self, state: S, assess: Assessor) -> S:
        """The state for an objective that has changed: every remembered candidate is assessed again."""
        if not is_dataclass(state) or isinstance(state, type):
            raise TypeError(f"expected a state made with @tansaku.state, got {type(state).__name__}; override refresh")
        remembered: dict[str, Any] = {}
        for field in fields(state):
            value = getattr(state, field.name)
            if isinstance(value, Population) and value.assessment is not None:
                remembered[field.name] = assess(value)
        return replace(state, **remembered)

    def check_settings(self, min_k: int | None = None) -> None:
        """Checks ``k`` against `needs` and makes ``bounds`` a `Bounds`; for ``__post_init__``.

        Numbers of numpy among the settings become Python's, and ``std`` as a list or an array becomes a tensor.
        """
        self._plain_settings()
        if self.k is not None:
            checks.count("k", self.k, self.needs.min_k if min_k is None else min_k)
        if self.k is not None and self.k % self.needs.k_multiple:
            multiple = self.needs.k_multiple
            raise ValueError(
                f"expected k to be a multiple of {multiple} for {type(self).__name__}, got {self.k}; "
                f"use {-(-self.k // multiple) * multiple}"
            )
        object.__setattr__(self, "bounds", Bounds.of(self.bounds))

    def _plain_settings(self) -> None:
        own: Any = self
        for field in fields(own) if is_dataclass(own) else ():
            value = getattr(self, field.name)
            made = checks.limit(value) if field.name == "std" else checks.plain(value)
            if made is not value:
                object.__setattr__(self, field.name, made)

    def check_start(self, start: Population) -> None:
        """The start suits `needs`; for ``init``."""
        if start.assessment is None:
            raise ValueError("expected an assessed start, got one without an assessment; assess it first")
        several = start.assessment.value.ndim != 1 + start.batch_ndim
        if several != (self.needs.objectives == "many"):
            expected, remedy = (
                ("one objective", "return one cost per candidate and search, or use NSGA2")
                if several
                else ("several objectives", "return values [k, *batch_shape, m]")
            )
            raise ValueError(
                f"expected {expected} for {type(self).__name__}, got values of shape "
                f"{checks.shape_text(start.assessment.value.shape)}; {remedy}"
            )
        if self.needs.descriptor and start.assessment.descriptor is None:
            raise ValueError(
                f"expected an assessment with a descriptor for {type(self).__name__}, got none; "
                "return a dictionary with 'value' and 'descriptor'"
            )
        check_step(getattr(self, "std", None), start)
        for name, x in start.genes.items():
            kind = kind_of(x)
            if kind == "integer" and kind not in self.needs.dtypes and "permutation" in self.needs.dtypes:
                event_shape = start.event_shape(name)
                check_permutations(type(self).__name__, name, x if event_shape else x.unsqueeze(-1))
                continue
            if kind not in self.needs.dtypes:
                raise TypeError(
                    f"expected {' or '.join(sorted(self.needs.dtypes))} genes for {type(self).__name__}, "
                    f"got {name!r} of {x.dtype}; use an algorithm with operators, such as GA or HillClimb"
                )


for _name in ("next_k", "exhausted", "estimate", "refresh"):  # those that a subclass may leave as they are
    setattr(Algorithm, _name, leaving_out_fixed_genes(_name, getattr(Algorithm, _name)))


def _resampled(ask: Callable[[Any, Any, Noise], Population]) -> Callable[[Any, Any, Noise], Population]:
    """``ask`` that, under bounds with ``repair="resample"``, takes for each candidate the first draw inside."""

    @wraps(ask)
    def asked(self: Any, state: Any, noise: Noise) -> Population:
        bounds = self.bounds
        if bounds is None or bounds.repair != "resample":
            return ask(self, state, noise)
        if not any(field.name == "bounds" for field in fields(self)):  # they are those of an algorithm inside
            return ask(self, state, noise)
        free = replace(self, bounds=OpenBounds(bounds.lower, bounds.upper))
        population = ask(free, state, noise)
        for _ in range(_REDRAWS):  # always as many, for nobody waits to see whether all are inside
            population = population.where(bounds.inside(population), ask(free, state, noise))
        return bounds(population)

    return asked


def check_budget(algorithm: Algorithm[Any]) -> None:
    """The setting ``max_evaluations`` of an algorithm that plans is None or a count, made an int.

    Raises:
        TypeError, ValueError: it is neither.
    """
    given = getattr(algorithm, "max_evaluations")  # noqa: B009 (a field of subclasses that plan)
    if given is not None:
        object.__setattr__(algorithm, "max_evaluations", checks.count("max_evaluations", given))


def budget_spent(max_evaluations: int | None, evaluations: int) -> float:
    """The share of the budget, in [0, 1], that ``evaluations`` have used; None stands for `DEFAULT_BUDGET`."""
    return min(1.0, evaluations / (DEFAULT_BUDGET if max_evaluations is None else max_evaluations))


def better(asked: Population, best: Population) -> Population:
    """The best of ``asked`` where it costs less than ``best`` (k = 1), else ``best``, whose traits alone are kept."""
    here = asked.cost.ndim == 1 and host.numeric(asked.cost) and host.numeric(best.cost)
    if here and not host.array(asked.cost).min() < host.array(best.cost)[0]:
        return best  # as in most generations
    traits = {name: asked.traits[name] for name in best.traits}
    champion = Population._made(asked.genes, asked.batch_ndim, traits, asked.assessment).best()
    return champion.where(champion.cost < best.cost, best)


def kind_of(x: Tensor) -> str:
    """``"real"``, ``"integer"`` or ``"boolean"``."""
    if x.is_floating_point():
        return "real"
    return "boolean" if x.dtype == torch.bool else "integer"


def step_size(
    std: float | Tensor | Mapping[str, float | Tensor] | None, bounds: Bounds | None, name: str, x: Tensor
) -> float | Tensor:
    """The length scale for the genes ``name``: as given, else a fifth of the bounds' span if above 0, else 1."""
    if isinstance(std, Mapping):
        if name not in std:
            raise ValueError(f"expected std for {sorted(std)} and {name!r}, got none for the latter; name every gene")
        std = std[name]
    if std is None:
        if bounds is None:
            return 1.0
        numbers = bounds.numbers
        if numbers is not None and x.is_floating_point():
            return (numbers[1] - numbers[0]) / 5 if bounds.finite(name) and numbers[0] < numbers[1] else 1.0
        span = bounds.span(name, x)
        return 1.0 if span is None else torch.where(torch.isfinite(span) & (span > 0), span / 5, torch.ones_like(span))
    return std.to(x.device, x.dtype) if isinstance(std, Tensor) else float(std)


def check_step(std: float | Tensor | Mapping[str, float | Tensor] | None, start: Individual | Population) -> None:
    """The step size fits the genes.

    Raises:
        ValueError: a tensor that does not broadcast against the event shape, no step for a name, or one for a name
            that the genes lack.
    """
    checks.names("std", std, start.genes)
    for name, x in start.genes.items():
        event = x.shape[start.batch_ndim + isinstance(start, Population) :]
        checks.fits_event(f"std of {name!r}", step_size(std, None, name, x), event)


def check_std(std: object) -> None:
    """A step size that is None, a positive number, a tensor, or a mapping to either.

    Raises:
        TypeError, ValueError: anything else.
    """
    for value in std.values() if isinstance(std, Mapping) else [std]:
        if value is None:
            continue
        if isinstance(value, Tensor):
            if not bool(((value > 0) & torch.isfinite(value)).all()):
                raise ValueError(
                    "expected a finite std > 0 for every gene, got a value that is not; use Limit to hold genes fixed"
                )
        elif not 0.0 < checks.number("std", value, 0.0) < float("inf"):
            raise ValueError(
                f"expected a finite std > 0, got {value:g}; choose the distance that the search should look ahead at "
                "first"
            )


def check_operators(**given: Any) -> None:
    """Every setting is an operator, None, or a mapping from names to operators.

    Raises:
        TypeError: something else, such as the class of an operator.
    """
    for setting, operators in given.items():
        for operator in operators.values() if isinstance(operators, Mapping) else [operators]:
            if operator is not None and (isinstance(operator, type) or not callable(operator)):
                got = f"the class {operator.__name__}" if isinstance(operator, type) else repr(operator)
                raise TypeError(
                    f"expected {setting} to be an operator, got {got}; pass an instance, such as Gaussian(0.3)"
                )


def discrete_mutation(name: str, x: Tensor, batch_ndim: int, bounds: Bounds | None) -> Mutation:
    """The mutation for genes without a length scale: one gene per candidate on average changes.

    Raises:
        TypeError: integer genes without bounds.
    """
    rate = 1.0 / max(1, x[(0,) * (1 + batch_ndim)].numel())
    if x.dtype == torch.bool:
        return BitFlip(rate)
    if bounds is None:
        raise TypeError(f"expected bounds or a mutation for integer genes, got neither for {name!r}; give bounds=")
    return UniformReset(bounds, rate)
