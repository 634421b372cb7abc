"""`Search`: the one mutable object. It holds an algorithm's state, the random numbers, the history and the budget."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import FunctionType
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from tansaku import checkpoint, checks, settings
from tansaku.algorithms import Algorithm, Assessor, make
from tansaku.algorithms.base import DEFAULT_BUDGET
from tansaku.assessment import Assessment
from tansaku.assessors.asking import current, mark
from tansaku.assessors.failures import Failures
from tansaku.functional import hypervolume
from tansaku.history import History
from tansaku.population import Individual, Population
from tansaku.restore import Moment, layout, restored
from tansaku.result import Result
from tansaku.running import Bar, Budget, Interrupts, Standstill, inside, warn_if_infeasible
from tansaku.showing import shown
from tansaku.states import pack
from tansaku.storage import Storages

S = TypeVar("S")


class Search(Generic[S]):
    """Runs an algorithm on an objective, generation by generation.

    The start is assessed first (generation 0); then every generation asks the algorithm for candidates, assesses them
    and tells it. An exception or Ctrl-C in the objective loses nothing: the candidates that were asked for are asked
    for again.

    Args:
        algorithm: an `Algorithm` or the name of one.
        assess: population -> assessed population, such as `Objective`; None for ``ask`` and ``tell`` by hand.
        start: an individual, or a population of any number of candidates.
        seed: of the random numbers; the same seed gives the same run.
        callbacks: each called with the search after every generation, the start (generation 0) included; one that
            returns True ends the run. ``search.last`` is then the population of that generation, assessed: its
            candidates ``search.last["x"]`` and their values in the user's sign, ``search.last.assessment.value``.
        reference: for two or three objectives, a value that every good candidate beats in all of them, [m] in the
            user's own sign; then history has the hypervolume of every generation, and target and patience read it.
            Finding the front in every generation synchronises with the device.

    Raises:
        TypeError, ValueError: a start that does not suit the algorithm or lies outside its bounds.

    Example:
        >>> from tansaku import PSO, Objective
        >>> sphere = Objective(lambda x: x.square().sum(-1))
        >>> search = Search(PSO(k=20), sphere, Individual({"x": torch.ones(5)}), seed=1)
        >>> search.run(max_generations=200).value < 1e-6
        True
    """

    def __init__(
        self,
        algorithm: Algorithm[S] | str,
        assess: Assessor | None,
        start: Individual | Population,
        *,
        seed: int = 0,
        callbacks: Iterable[Callable[[Search[S]], bool | None]] = (),
        reference: Iterable[float] | Tensor | None = None,
    ) -> None:
        self._loaded = False  # whether ``_planned`` comes from a checkpoint
        self._planned: int | None = None  # the budget that the algorithm plans over, once it is known
        self.algorithm = make(algorithm) if isinstance(algorithm, str) else algorithm
        if not isinstance(self.algorithm, Algorithm):
            raise TypeError(f"expected an algorithm or its name, got {algorithm!r}; pass e.g. PSO(k=40) or 'pso'")
        if assess is not None and not callable(assess):
            raise TypeError(
                f"expected an assessor such as Objective(fn), got {type(assess).__name__}; wrap the function"
            )
        self.assess = assess
        if callable(callbacks) or not all(callable(callback) for callback in callbacks):
            raise TypeError(f"expected callbacks as a list of functions, got {callbacks!r}; pass [callback]")
        self.callbacks = list(callbacks)
        if not isinstance(start, Individual | Population):
            raise TypeError(
                f"expected a start as an Individual or a Population, got {type(start).__name__}; "
                "pass Individual({'x': tensor})"
            )
        start = start.populate(1) if isinstance(start, Individual) else start
        # a copy: what the caller writes into these tensors later is no part of the search
        genes = {name: x.detach().clone() for name, x in start.genes.items()}
        checks.start(genes)
        traits = {name: x.detach().clone() for name, x in start.traits.items()}
        assessment = None if start.assessment is None else start.assessment.copied()
        start = Population(genes, start.batch_ndim, traits, assessment)
        if start.batch_ndim and not self.algorithm.needs.batched:
            raise ValueError(
                f"expected batch_shape () for {type(self.algorithm).__name__}, got {tuple(start.batch_shape)}; "
                "run one search at a time"
            )
        if self.algorithm.bounds is not None:
            self.algorithm.bounds.check(start)
        many = self.algorithm.needs.objectives == "many"
        if reference is not None and not many:
            raise ValueError(
                f"expected no reference for {type(self.algorithm).__name__}, which has one objective, got "
                f"{reference!r}; leave it out, or use NSGA2"
            )
        self._many = many
        self.reference = None if reference is None else _point(reference, start.device)
        self.generator = torch.Generator(start.device).manual_seed(checks.seed(seed))
        self.last: Population | None = None
        self._now = Moment(None, None, start, None)
        self._handed_out = False  # whether `ask` has returned what is asked for
        self._start_reported = False  # whether the callbacks have seen generation 0
        self.failures = Failures()
        self._storages = Storages()
        self._interrupts = Interrupts()
        self._first_algorithm = self.algorithm
        self._settings: dict[str, Any] | None = None
        self._warned = False
        if start.assessment is not None:
            self._now = self._begun(self._now, start)

    @property
    def state(self) -> S | None:
        """The algorithm's state; None before the start was assessed."""
        state: S | None = self._now.state
        return state

    @state.setter
    def state(self, state: S | None) -> None:
        self._now = self._now._replace(state=state)

    @property
    def evaluations(self) -> int:
        """Evaluations so far, per search."""
        return self._now.evaluations

    @property
    def generations(self) -> int:
        """Generations so far, the start not counted."""
        return self._now.generations

    @property
    def _asked(self) -> Population | None:
        return self._now.asked

    @property
    def _pending(self) -> Population:
        return self._now.pending

    @property
    def _history(self) -> History | None:
        return self._now.history

    @property
    def algorithm(self) -> Algorithm[S]:
        """The algorithm. One that plans its course has its ``max_evaluations`` from the first generation on."""
        return self._algorithm

    @algorithm.setter
    def algorithm(self, algorithm: Algorithm[S]) -> None:
        self._unplanned = self._algorithm = algorithm
        if self._planned is not None:
            self._algorithm = algorithm.with_budget(self._planned)

    def _plan(self, max_evaluations: int | None) -> None:
        """Sets the budget that an algorithm plans over, at its first call; later calls change nothing.

        Args:
            max_evaluations: of the run; None takes `DEFAULT_BUDGET`.

        Raises:
            ValueError: more than the budget that a loaded search has planned over.
        """
        plans = self._algorithm is not self._unplanned
        if self._loaded and plans and max_evaluations is not None and max_evaluations > (self._planned or 0):
            raise ValueError(
                f"expected max_evaluations <= {self._planned}, the budget that the loaded "
                f"{type(self._algorithm).__name__} planned over, got {max_evaluations}; load with replan=True to plan "
                "the rest of the run over the new budget"
            )
        if self._planned is None:
            self._planned = max(1, DEFAULT_BUDGET if max_evaluations is None else int(max_evaluations))
            self._algorithm = self._unplanned.with_budget(self._planned)

    def ask(self) -> Population:
        """The candidates to assess next: first the start (unless it came assessed), then what the algorithm wants.

        After `load`, or after a step whose objective raised, these are the candidates that were asked for before.

        Raises:
            RuntimeError: asked twice without a tell between.
        """
        if self._asked is not None and self._handed_out:
            raise RuntimeError(
                "expected tell() after ask(), got a second ask(); tell the search what it asked for first"
            )
        owed = self._interrupts.listen()
        try:
            asked = self._ask()
            mark(asked, self)
            self._now = self._now._replace(noise=None)
        finally:
            self._interrupts.end(owed)
        self._handed_out = True
        return asked

    def _ask(self) -> Population:
        now = self._now
        if now.asked is not None:
            return now.asked
        if now.state is None:
            asked, noise = now.pending, None
        else:
            self._plan(None)
            noise = self.generator.get_state()
            # before the first draw; `_replace` takes several times as long as the constructor
            self._now = Moment(now.state, None, now.pending, now.history, now.evaluations, now.generations, noise)
            try:
                with self._storages:
                    asked = self.algorithm.ask(now.state, self.generator)
            except BaseException:
                self.generator.set_state(noise)
                self._now = now
                raise
        self._handed_out = False
        self._now = Moment(now.state, asked, now.pending, now.history, now.evaluations, now.generations, noise)
        return asked

    def tell(self, assessed: Population | Assessment | Tensor) -> None:
        """Takes the assessment of the candidates that were asked for.

        Args:
            assessed: them, assessed; or their `Assessment`; or their costs [k, *batch_shape].

        Raises:
            RuntimeError: nothing was asked for.
            ValueError: another population, or an assessment of a wrong shape or without a value.
        """
        asked = self._asked
        if asked is None:
            raise RuntimeError("expected ask() before tell(), got tell() alone; ask for candidates first")
        if isinstance(assessed, Population):
            same = assessed.genes is asked.genes or all(assessed.genes.get(n) is x for n, x in asked.genes.items())
            if not same:
                raise ValueError(
                    "expected the population that was asked for, got other genes; assess what ask() returned"
                )
            assessment = assessed.assessment
        else:
            assessment = Assessment(assessed) if isinstance(assessed, Tensor) else assessed
        if assessment is None:
            raise ValueError("expected an assessed population, got one without an assessment; use population.assessed")
        if not isinstance(assessment, Assessment):
            raise TypeError(
                f"expected an assessed population, an Assessment or a tensor of costs, got {type(assessed).__name__}; "
                "wrap a function of the genes in Objective"
            )
        if self._history is not None and assessment.maximize != self._history.maximize:
            raise ValueError(
                f"expected maximize={self._history.maximize} as before, got {assessment.maximize}; keep one direction"
            )
        if self.state is not None and assessment.value.ndim != 1 + asked.batch_ndim + self._many:
            raise ValueError(
                f"expected values {'[k, *batch_shape, m]' if self._many else '[k, *batch_shape]'} as before, got shape "
                f"{checks.shape_text(assessment.value.shape)}; let the objective answer every generation alike"
            )
        if isinstance(assessed, Population):
            assessed = asked.judged_as(assessed, self._dtype)
        else:
            assessed = asked.assessed(assessment.copied(self._dtype))
        owed = self._interrupts.listen()
        try:
            self._now = self._told(self._now, assessed)
        finally:
            self._interrupts.end(owed)

    def _told(self, now: Moment, assessed: Population) -> Moment:
        """The moment after a generation, or after the start."""
        if now.state is None:
            return self._begun(now, assessed)
        with self._storages:
            state = self.algorithm.tell(now.state, assessed)
        return self._recorded(now, state, assessed, now.generations + 1)

    def _begun(self, now: Moment, start: Population) -> Moment:
        return self._recorded(now, self.algorithm.init(start), start, 0)

    @property
    def _dtype(self) -> torch.dtype | None:
        """Of the values so far: an objective that changes it is cast."""
        return None if self._history is None else self._history.dtype

    def _recorded(self, now: Moment, state: S, assessed: Population, generations: int) -> Moment:
        evaluations = now.evaluations + assessed.k
        assessment = assessed.assessment
        maximize = assessment is not None and assessment.maximize
        history = History(maximize) if now.history is None else now.history.copied()
        volume = None
        if self.reference is not None:
            volume = _volume(self.algorithm.best(state).cost, self.reference, history.maximize)
        feasible = None
        if assessment is not None and (total := assessment.total_violation) is not None:
            feasible = total <= 0
        cost = assessed.cost if assessment is None else assessment.objective_cost
        history.record(cost, evaluations, volume, feasible)
        self.last = assessed
        return Moment(state, None, now.pending, history, evaluations, generations)

    def step(self) -> None:
        """One generation: ask, assess, tell (for the first time: the start, then a generation).

        Ctrl-C in the objective is raised at once, and the same candidates are assessed again by the next step. At any
        other moment it is raised once the generation is complete and the callbacks have run.

        Raises:
            RuntimeError: the search has no assessor.
        """
        owed = self._interrupts.listen()
        try:
            self._assess_start()
            self._advance()
            self._call()
        finally:
            self._interrupts.end(owed)

    def _assess_start(self) -> bool:
        """Assesses the start if it is not yet; calls the callbacks if they have not seen it; True ends the run."""
        if self.state is None:
            self._advance()
        if self._start_reported or self.generations:
            return False
        return self._call()

    def _advance(self) -> None:
        if self.assess is None:
            raise RuntimeError("expected an assessor, got None; give Search one, or use ask() and tell()")
        asked = self._ask()
        token, assessing = inside.set(True), current.set(self)
        try:
            self._interrupts.allow()
            assessed = self.assess(asked)
            self._interrupts.forbid()
        except (TypeError, AttributeError) as error:
            if self.state is None and isinstance(self.assess, FunctionType):
                error.add_note("A search hands its assessor a Population: wrap a function of tensors in Objective.")
            raise
        finally:
            self._interrupts.forbid()
            current.reset(assessing)
            inside.reset(token)
        self.tell(assessed)

    def _call(self) -> bool:
        self._start_reported = True
        if not self.callbacks:
            return False
        token = inside.set(True)
        self._interrupts.patient(False)
        try:
            answers = [callback(self) for callback in self.callbacks]  # every one of them is called
        finally:
            self._interrupts.patient(True)
            inside.reset(token)
        return any(answers)

    def __repr__(self) -> str:
        return f"Search({shown(self.algorithm)}, {layout(self._pending)}, generations={self.generations})"

    @property
    def best(self) -> Population:
        """The best candidate ever assessed (k = 1), with its assessment; for several objectives the Pareto front.

        Raises:
            RuntimeError: nothing was assessed yet.
        """
        if self.state is None:
            raise RuntimeError("expected an assessed start, got none yet; call step() or run() first")
        return self.algorithm.best(self.state)

    @property
    def value(self) -> Tensor:
        """[*batch_shape] the best value so far, in the user's own sign; [j, *batch_shape, m] of a front."""
        assessment = self.best.assessment
        if assessment is None:
            raise RuntimeError("expected best() to be assessed, got no assessment; keep it in the algorithm's state")
        return assessment.value if self._many else assessment.value[0]

    @property
    def merit(self) -> Tensor:
        """[*batch_shape] what target and patience read: the best value, or the hypervolume of a front.

        A search that has found no feasible candidate has the worst possible value, +inf or -inf, or a hypervolume of 0.

        Raises:
            ValueError: several objectives and no reference point.
        """
        if not self._many:
            violation = self.violation
            worst = -float("inf") if self._maximize else float("inf")
            return self.value if violation is None else torch.where(violation > 0, worst, self.value)
        if self.reference is None:
            raise ValueError(
                "expected a reference point to judge several objectives by, got none; give reference=, "
                "or leave out target and patience"
            )
        return _volume(self.best.cost, self.reference, self._maximize)

    @property
    def violation(self) -> Tensor | None:
        """[*batch_shape] the total violation of the best so far, 0 where it is feasible; None without violations.

        All candidates of a front violate the constraints equally.
        """
        assessment = self.best.assessment
        total = None if assessment is None else assessment.total_violation
        return None if total is None else total.amax(0)

    @property
    def _maximize(self) -> bool:
        return self._history is not None and self._history.maximize

    @property
    def judged(self) -> bool:
        """Whether there is a `merit`: one objective, or a reference point for several."""
        return not self._many or self.reference is not None

    @property
    def rises(self) -> bool:
        """Whether a higher `merit` is better."""
        return self._many or self._maximize

    @property
    def history(self) -> History:
        """Best, median, spread and feasible share of every generation so far, the start being generation 0."""
        return History() if self._history is None else self._history

    def run(
        self,
        *,
        max_generations: int | None = None,
        max_evaluations: int | None = None,
        max_seconds: float | None = None,
        target: float | None = None,
        patience: int | None = None,
        tolerance: float = 0.0,
        progress: bool | None = False,
    ) -> Result:
        """Generations until a budget is used up; Ctrl-C ends the run and keeps the best so far.

        Generations and evaluations count from the beginning of the search, so that a resumed one stops where an
        uninterrupted one would have. At least one budget is needed.

        An algorithm that plans its course (`Needs`), and whose ``max_evaluations`` the user did not set, plans over the
        ``max_evaluations`` of the first run; over 10,000 where that is not given, or where ``step()`` or ``ask()`` made
        the first generation. The search saves the number, and a resumed or second run keeps it.

        Args:
            max_generations: after the start.
            max_evaluations: per search, never exceeded.
            max_seconds: of this call.
            target: value that every search must reach by a feasible candidate, in the user's own sign, or hypervolume.
                Read every generation, which synchronises with the device; so does patience.
            patience: generations without a better feasible value, or a larger hypervolume, in any search. While
                every candidate violates a constraint, nothing counts as better.
            tolerance: with ``patience``: a value counts as better only if it is better by more than this, in units of
                the value, than the last one that counted.
            progress: whether to show a bar; None shows one on a terminal only.

        Raises:
            ValueError: no budget, or one that does not even allow the start; more evaluations than a loaded search has
                planned over, see `load`.
        """
        budget = Budget(max_generations, max_evaluations, max_seconds, target, patience, tolerance)
        budget.check(self, self._pending.k)
        self._plan(budget.max_evaluations)
        begun, failed = time.perf_counter(), self.failures.count
        bar = Bar(self, budget, progress)
        owed = self._interrupts.listen()
        try:
            stopped = self._generations(budget, Standstill(patience, tolerance), bar, begun)
            bar.close()
            self.failures.warn(failed, stacklevel=2)
            result = self._result(stopped, time.perf_counter() - begun)
            interrupted = replace(result, stopped="interrupted")
        except BaseException:
            self._interrupts.end(owed)
            raise
        return interrupted if owed and self._interrupts.leave() else result  # nothing may come after `leave`

    def _generations(self, budget: Budget, still: Standstill, bar: Bar, begun: float) -> str:
        """Runs until a budget is used up; returns why it stopped."""
        try:
            if self._assess_start():
                return "callback"
            while True:
                stopped = budget.reached(self, self._coming(), time.perf_counter() - begun) or still.reached(self)
                if stopped:
                    return stopped
                self._advance()
                bar.update()
                if self._call():
                    return "callback"
                if self._interrupts.pending:
                    self._interrupts.pending = False
                    return "interrupted"
        except KeyboardInterrupt:
            if self.state is None or inside.get():
                raise  # there is no result yet, or the run around this one has to end too
            return "interrupted"

    def _coming(self) -> int:
        """How many candidates the next generation has."""
        if self._asked is not None:
            return self._asked.k
        return self._pending.k if self.state is None else self.algorithm.next_k(self.state)

    def _result(self, stopped: str, seconds: float) -> Result:
        value, violation = self.value, self.violation
        single = not self._pending.batch_ndim
        feasible: bool | Tensor = True
        amount: float | Tensor = 0.0
        if violation is not None:
            feasible, amount = (not bool(violation > 0), float(violation)) if single else (violation <= 0, violation)
            champion = self.best.assessment
            warn_if_infeasible(violation, champion is not None and champion.ranking is not None)
        elif not single:
            amount = torch.zeros(self._pending.batch_shape, dtype=value.dtype, device=value.device)
            feasible = amount <= 0
        best = self.best if self._many else self.best.individual()
        estimate = None if self._many or self.state is None else self.algorithm.estimate(self.state)
        named = getattr(self.assess, "named", getattr(getattr(self.assess, "assess", None), "named", None))
        for found in (best, estimate):
            if found is not None:  # x0= reads it, so that the objective is called as before
                object.__setattr__(found, "_named", named)
        return Result(
            best,
            value if value.ndim else float(value),
            self.evaluations,
            self.generations,
            seconds,
            stopped,
            self.history,
            self.state,
            self.failures.copied(),
            feasible,
            amount,
            estimate,
        )

    def state_dict(self) -> dict[str, Any]:
        """All that the search needs to go on bit for bit: tensors, numbers and strings.

        A signal handler or another thread may call it at any time; it gives the last complete generation. Settings
        that change the run are part of it; a lambda has no name and is recorded as not comparable.
        """
        now, noise = self._moment()
        return {
            "format": checkpoint.VERSION,
            "algorithm": type(self.algorithm).__name__,
            "k": self.algorithm.k,
            "settings": {name: x for name, x in self._described().items() if name != "assess"},
            "state": pack(now.state),
            "asked": pack(now.asked if now.noise is None else None),  # else drawn again from the same random numbers
            "start": pack(now.pending),
            "generator": noise,
            "planned": None if self._algorithm is self._unplanned else self._planned,
            "evaluations": now.evaluations,
            "generations": now.generations,
            "history": None if now.history is None else self._costs(now.history),
        }

    def _costs(self, history: History) -> dict[str, Any]:
        """The history, and the settings of the objective that its costs came from."""
        return {**pack(history.state_dict()), "assess": self._described()["assess"]}

    def _moment(self) -> tuple[Moment, Tensor]:
        """The last complete generation and the state of the random numbers that belongs to it."""
        while True:
            now = self._now
            noise = self.generator.get_state() if now.noise is None else now.noise
            if self._now is now:  # else another thread began to draw between the two lines
                return now, noise

    def _described(self) -> dict[str, Any]:
        """The settings that change the run, as `tansaku.settings` describes them."""
        if self._settings is None:
            self._settings = {
                "algorithm": settings.describe(self._first_algorithm),
                "assess": settings.describe_assessor(self.assess),
                "reference": settings.describe(self.reference),
            }
        return self._settings

    def load_state_dict(self, state: Mapping[str, Any], *, replan: bool = False) -> None:
        """Goes on from what `state_dict` gave, in a search with the same algorithm, objective and settings.

        Budgets of a run, ``compile``, chunk sizes and the device may differ.

        Args:
            state: what `state_dict` gave.
            replan: accepts another ``max_evaluations`` of an algorithm that plans its course over it.

        Raises:
            ValueError: the state of another algorithm, of other settings or over other genes; a damaged state; one of
                a newer version. The search is then as before.
        """
        planned = state.get("planned") if isinstance(state, Mapping) and not replan else None
        planned = planned if type(planned) is int and planned > 0 else None
        algorithm = self._unplanned if planned is None else self._unplanned.with_budget(planned)
        now, noise = restored(state, algorithm, self._described(), self._pending, self.generator.device, replan)
        self.generator.set_state(noise)
        self._now, self._handed_out = now, False
        self._start_reported = now.state is not None
        self._planned, self._loaded = planned, planned is not None
        self.algorithm = self._unplanned

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes `state_dict` to a file, whole or not at all; see `tansaku.checkpoint`.

        Warns:
            UserWarning: once, where the objective or a setting is a lambda, which cannot be compared on load.
        """
        if not self._warned:
            self._warned = settings.warn_of_unnamed(self._described())
        checkpoint.save(self.state_dict(), path)

    def load(self, path: str | os.PathLike[str], *, replan: bool = False) -> None:
        """Goes on from a file that `save` wrote.

        Args:
            path: of the file.
            replan: see `load_state_dict`.

        Raises:
            FileNotFoundError, ValueError: see `tansaku.checkpoint.load` and `load_state_dict`.
        """
        self.load_state_dict(checkpoint.load(path), replan=replan)


def _volume(cost: Tensor, reference: Tensor, maximize: bool) -> Tensor:
    return hypervolume(cost, -reference if maximize else reference)


def _point(reference: Iterable[float] | Tensor, device: torch.device) -> Tensor:
    point = torch.as_tensor(reference if isinstance(reference, Tensor) else list(reference), dtype=torch.float64)
    if point.ndim != 1 or not bool(torch.isfinite(point).all()):
        raise ValueError(
            f"expected reference as finite numbers, one per objective, got {reference!r}; pass e.g. (1, 1)"
        )
    return point.to(device)
