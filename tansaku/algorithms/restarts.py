"""Restarts: when a run cannot get further, another begins somewhere else; the best of all runs is kept.

The criteria are TolFun and Stagnation of N. Hansen, The CMA Evolution Strategy: A Tutorial, arXiv 1604.00772, appendix
B.3, with the tolerances of pycma, and what the algorithm says of its own state (`Algorithm.exhausted`). Decisions are
taken on the host, one search at a time.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tansaku import checks, draws
from tansaku.algorithms.base import Algorithm, Assessor, check_budget, step_size
from tansaku.draws import Noise
from tansaku.functional import jitter
from tansaku.operators.mutation import shapes
from tansaku.operators.sampling import UniformSampler
from tansaku.population import Individual, Population
from tansaku.states import state

_PLAN = "plan"
_LONGEST = 20_000  # generations of history


@state
class Run:
    """What a run is given.

    Args:
        k: its candidates; None for the algorithm's own number.
        scale: of its first standard deviation.
        limit: of its evaluations; 0 for none.
        large: whether it counts as one of the runs that grow.
        before: evaluations made in all earlier runs, which an algorithm that plans takes off its budget.
    """

    k: int | None
    scale: float = 1.0
    limit: int = 0
    large: bool = True
    before: int = 0


@state
class RestartsState:
    """The run that is on, and what was learnt in all of them.

    Args:
        inner: state of the algorithm; None where the next candidates are the start of a new run.
        run: what the run was given.
        incumbent: the best ever assessed, k = 1, and ``champion``, the estimate of the run that found it.
        holds: whether the run that is on found it.
        origin: where the first run began.
        first_k: candidates of the first run.
        runs: begun so far, of which ``grown`` with more candidates.
        spent: evaluations of this run; ``small_spent`` and ``large_spent`` those of the runs before it.
        history: [2, generations] best and median cost, on the host.
        generations: of this run.
    """

    inner: Any
    run: Run
    incumbent: Population
    champion: Individual
    holds: bool
    origin: Individual
    first_k: int
    runs: int
    grown: int
    spent: int
    small_spent: int
    large_spent: int
    history: Tensor
    generations: int


class Restarting(Algorithm[RestartsState]):
    """An algorithm that is run again and again; subclasses say which, and how every run differs from those before."""

    @abstractmethod
    def _algorithm(self, run: Run) -> Algorithm[Any]:
        """What does the run."""

    @abstractmethod
    def _next(self, state: RestartsState, u: list[float]) -> Run:
        """The run after those of ``state``, given two numbers uniform in [0, 1)."""

    def _start_k(self, run: Run) -> int:
        return 1

    def _begun(self, run: Run, start: Population) -> Any:
        """The algorithm's state at the start of a run."""
        return self._algorithm(run).init(start)

    def init(self, start: Population) -> RestartsState:
        """The first run begins with the start."""
        if start.batch_ndim:
            raise ValueError(
                f"expected batch_shape () for {type(self).__name__}, got {tuple(start.batch_shape)}; "
                "run one search at a time"
            )
        run = Run(self.k, large=False)
        algorithm = self._algorithm(run)
        inner = self._begun(run, start)
        best = start.best().without_traits()
        origin, history = best.individual(), torch.empty(2, 0, dtype=torch.float64)
        k = algorithm.next_k(inner)
        return RestartsState(inner, run, best, origin, True, origin, k, 1, 0, start.k, 0, 0, history, 0)

    def next_k(self, state: RestartsState) -> int:
        """Candidates of the run that is on, or of the start of the next."""
        if state.inner is None:
            return self._start_k(state.run)
        return self._algorithm(state.run).next_k(state.inner)

    def ask(self, state: RestartsState, noise: Noise) -> Population:
        """What the run asks for; or the start of a new one: uniform in finite bounds, else around the first start."""
        if state.inner is not None:
            return self._algorithm(state.run).ask(state.inner, noise)
        k = self._start_k(state.run)
        genes = {}
        for name, x in state.origin.genes.items():
            if not x.is_floating_point() or (self.bounds is not None and self.bounds.finite(name)):
                genes[name] = UniformSampler(self.bounds)(Individual({name: x}), k, noise)[name]
            else:
                many = x.expand(k, *x.shape)
                std = step_size(getattr(self._algorithm(state.run), "std", None), self.bounds, name, x)
                moved = jitter(many, draws.normal(*shapes(many, 0), x, noise), std)
                genes[name] = moved if self.bounds is None else self.bounds.repaired(name, moved)
        return Population(genes, traits={_PLAN: draws.uniform((k,), (), (2,), state.incumbent.cost, noise)})

    def tell(self, state: RestartsState, asked: Population) -> RestartsState:
        """Tells the run, and ends it where it cannot get further; begins the next with its assessed start."""
        child = asked.best().without_traits()
        better = bool(child.cost < state.incumbent.cost)
        state = replace(state, incumbent=child if better else state.incumbent)
        if state.inner is None:
            run = self._next(state, asked.traits[_PLAN][0].tolist())
            inner = self._begun(run, asked.without_traits())
            grown = state.grown + int(run.large)
            return replace(state, inner=inner, run=run, holds=better, grown=grown, runs=state.runs + 1, spent=asked.k)
        algorithm = self._algorithm(state.run)
        longest = min(_LONGEST, self._length(state.generations + 1, state, asked))
        told = replace(
            state,
            inner=algorithm.tell(state.inner, asked),
            holds=state.holds or better,
            spent=state.spent + asked.k,
            history=torch.cat([state.history.cpu(), _summary(asked.cost)], 1)[:, -longest:],
            generations=state.generations + 1,
        )
        return self._ended(told, algorithm) if self._over(told, asked, algorithm) else told

    def _over(self, state: RestartsState, asked: Population, algorithm: Algorithm[Any]) -> bool:
        if state.run.limit and state.spent + asked.k > state.run.limit:
            return True
        recent = state.history[0, -(10 + _window(state, asked)) :]
        if state.generations >= 10:
            still = _range(recent)
            if still < 1e-12 or (still < 1e-11 and _range(asked.cost.double()) < 1e-11):  # TolFun
                return True
        length = self._length(state.generations, state, asked)
        if state.generations >= length and _stagnates(state.history[:, -length:]):
            return True
        return algorithm.exhausted(state.inner)

    def _length(self, generations: int, state: RestartsState, asked: Population) -> int:
        """The number of generations that Stagnation looks at."""
        return max(generations // 5, 120 + _window(state, asked))

    def _ended(self, state: RestartsState, algorithm: Algorithm[Any]) -> RestartsState:
        champion = algorithm.estimate(state.inner) if state.holds else state.champion
        large = state.run.large
        return replace(
            state,
            inner=None,
            champion=champion,
            holds=False,
            small_spent=state.small_spent + (0 if large else state.spent),
            large_spent=state.large_spent + (state.spent if large else 0),
            spent=0,
            history=state.history[:, :0],
            generations=0,
        )

    def best(self, state: RestartsState) -> Population:
        """The best candidate of all runs."""
        return state.incumbent

    def estimate(self, state: RestartsState) -> Individual:
        """The estimate of the run that found the best candidate."""
        if state.inner is None or not state.holds:
            return state.champion
        return self._algorithm(state.run).estimate(state.inner)

    def refresh(self, state: RestartsState, assess: Assessor) -> RestartsState:
        """What the run remembers and the best candidate are assessed again."""
        best = assess(state.incumbent)
        if state.inner is None:
            return replace(state, incumbent=best)
        algorithm = self._algorithm(state.run)
        inner = algorithm.refresh(state.inner, assess)
        own = algorithm.best(inner).without_traits()
        better = bool(own.cost < best.cost)
        return replace(state, inner=inner, incumbent=own if better else best, holds=state.holds or better)


def _window(state: RestartsState, asked: Population) -> int:
    """30 n / k generations, for n genes and k candidates."""
    n = sum(math.prod(x.shape) for x in state.origin.genes.values())
    return math.ceil(30 * n / asked.k)


def _summary(cost: Tensor) -> Tensor:
    """[2, 1] the best and the median, on the host."""
    return torch.stack([cost.min(), cost.median()]).double().cpu()[:, None]


def _range(cost: Tensor) -> float:
    low, high = float(cost.min()), float(cost.max())
    return 0.0 if low == high else high - low  # equal infinities differ by nothing


def _stagnates(history: Tensor) -> bool:
    """Whether neither best nor median are better in the last 30 % than in the first."""
    part = max(1, 3 * history.shape[1] // 10)
    return bool((history[:, -part:].median(1).values >= history[:, :part].median(1).values).all())


@dataclass(frozen=True)
class Restarts(Restarting):
    """Any algorithm, begun again elsewhere whenever it cannot get further. One search, ``batch_shape = ()``.

    Args:
        algorithm: what is run; its bounds are those of the restarts.
        growth: the candidates of every run are this times as many as those of the run before (up to 512 times the
            first); 1 keeps the algorithm as it is.
        start_k: candidates that a new run starts with; by default those of a generation, or 1 where the algorithm
            has no number of its own.
        max_evaluations: evaluations of all runs together. Every run of an algorithm that plans its course is planned
            over what is left of them, unless the algorithm has its own ``max_evaluations``. If not given, a `Search`
            fills in the budget of its first run.

    Example:
        >>> from tansaku import PSO, Objective, Search
        >>> from tansaku.testing import rastrigin
        >>> start = Individual({"x": torch.ones(2)})
        >>> search = Search(Restarts(PSO(k=20, bounds=(-5.0, 5.0))), Objective(rastrigin), start)
        >>> search.run(max_evaluations=20_000, target=1e-4).stopped
        'target'
    """

    algorithm: Algorithm[Any]
    growth: float = 1.0
    start_k: int | None = None
    max_evaluations: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.algorithm, Algorithm):
            got = type(self.algorithm).__name__
            raise TypeError(f"expected algorithm to be an Algorithm, got {got}; make one, as tansaku.make does")
        self._plain_settings()
        checks.number("growth", self.growth, 1.0)
        if self.start_k is not None:
            object.__setattr__(self, "start_k", checks.count("start_k", self.start_k))
        check_budget(self)
        inner = self.algorithm
        needs = replace(inner.needs, batched=False, rank_based=False, on_host=True)  # TolFun reads costs
        for name, value in (("k", inner.k), ("bounds", inner.bounds), ("needs", needs)):
            object.__setattr__(self, name, value)

    def _algorithm(self, run: Run) -> Algorithm[Any]:
        algorithm = self.algorithm
        if run.k != algorithm.k:
            algorithm = replace(algorithm, k=run.k)  # type: ignore[type-var]
        if self.max_evaluations is None:
            return algorithm
        return algorithm.with_budget(max(1, self.max_evaluations - run.before))

    def evaluations_in(self, generations: int, start_k: int) -> int | None:
        """Those of the algorithm; a run that grows makes more."""
        return self.algorithm.evaluations_in(generations, start_k)

    def _start_k(self, run: Run) -> int:
        if self.start_k is not None:
            return self.start_k
        return 1 if self.k is None else int(self.k)

    def _next(self, state: RestartsState, u: list[float]) -> Run:
        before = state.small_spent + state.large_spent
        if self.growth == 1:
            return Run(self.k, before=before)
        multiple = self.needs.k_multiple
        k = state.first_k * min(self.growth**state.runs, 512.0)
        return Run(multiple * round(k / multiple), before=before)


def grown_k(state: RestartsState, more: int = 0) -> int:
    """Candidates after every run that grew has doubled them, at most nine times as in pycma."""
    return int(state.first_k * 2 ** min(9, state.grown + more))
