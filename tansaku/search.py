"""`Search`: the one mutable object. It holds an algorithm's state, the random numbers, the history and the budget."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from tansaku import checkpoint, checks
from tansaku.algorithms import Algorithm, Assessor, make
from tansaku.assessment import Assessment
from tansaku.assessors.asking import current, mark
from tansaku.assessors.failures import Failures
from tansaku.functional import hypervolume
from tansaku.history import History
from tansaku.population import Individual, Population
from tansaku.result import Result
from tansaku.running import Bar, Budget, Interrupts, Standstill, inside
from tansaku.states import pack, unpack
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
        callbacks: each called with the search after every generation; one that returns True ends the run.
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
        self.algorithm: Algorithm[S] = make(algorithm) if isinstance(algorithm, str) else algorithm
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
        self.state: S | None = None
        self.evaluations = 0
        self.generations = 0
        self.failures = Failures()
        self._asked: Population | None = None  # asked for and not told yet
        self._pending: Population = start  # the start, until it is told
        self._storages = Storages()
        self._interrupts = Interrupts()
        self._history: History | None = None
        if start.assessment is not None:
            self._begin(start)

    def ask(self) -> Population:
        """The candidates to assess next: first the start (unless it came assessed), then what the algorithm wants.

        Raises:
            RuntimeError: asked twice without a tell between.
        """
        if self._asked is not None:
            raise RuntimeError(
                "expected tell() after ask(), got a second ask(); tell the search what it asked for first"
            )
        asked = self._ask()
        mark(asked, self)
        return asked

    def _ask(self) -> Population:
        if self._asked is None:
            if self.state is None:
                self._asked = self._pending
            else:
                owed = self._interrupts.hold()
                try:
                    with self._storages:
                        self._asked = self.algorithm.ask(self.state, self.generator)
                finally:
                    self._interrupts.release(owed)
        return self._asked

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
        owed = self._interrupts.hold()
        try:
            if self.state is None:
                self._begin(assessed)
            else:
                with self._storages:
                    self.state = self.algorithm.tell(self.state, assessed)
                self.generations += 1
                self._record(assessed)
            self._asked = None
        finally:
            self._interrupts.release(owed)

    def _begin(self, start: Population) -> None:
        self.state = self.algorithm.init(start)
        self._record(start)

    @property
    def _dtype(self) -> torch.dtype | None:
        """Of the values so far: an objective that changes it is cast."""
        return None if self._history is None else self._history.dtype

    def _record(self, assessed: Population) -> None:
        self.evaluations += assessed.k
        if self._history is None:
            self._history = History(assessed.assessment is not None and assessed.assessment.maximize)
        self._history.record(assessed.cost, self.evaluations, None if self.reference is None else self.merit)

    def step(self) -> None:
        """One generation: ask, assess, tell (for the first time: the start, then a generation).

        Raises:
            RuntimeError: the search has no assessor.
        """
        owed = self._interrupts.listen()
        try:
            if self.state is None:
                self._advance()
            self._advance()
        finally:
            waiting = owed and self._interrupts.leave()
        if waiting:
            raise KeyboardInterrupt
        self._call()

    def _advance(self) -> None:
        if self.assess is None:
            raise RuntimeError("expected an assessor, got None; give Search one, or use ask() and tell()")
        asked = self._ask()
        token, assessing = inside.set(True), current.set(self)
        try:
            assessed = self.assess(asked)
        except (TypeError, AttributeError) as error:
            if self.state is None and isinstance(self.assess, FunctionType):
                error.add_note("A search hands its assessor a Population: wrap a function of tensors in Objective.")
            raise
        finally:
            current.reset(assessing)
            inside.reset(token)
        self.tell(assessed)

    def _call(self) -> bool:
        if not self.callbacks:
            return False
        token = inside.set(True)
        try:
            answers = [callback(self) for callback in self.callbacks]  # every one of them is called
        finally:
            inside.reset(token)
        return any(answers)

    def __repr__(self) -> str:
        return f"Search({self.algorithm}, {_layout(self._pending)}, generations={self.generations})"

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

        Raises:
            ValueError: several objectives and no reference point.
        """
        if not self._many:
            return self.value
        if self.reference is None:
            raise ValueError(
                "expected a reference point to judge several objectives by, got none; give reference=, "
                "or leave out target and patience"
            )
        return hypervolume(self.best.cost, -self.reference if self._maximize else self.reference)

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
        """Best, median and spread of every generation so far, the start being generation 0."""
        return History() if self._history is None else self._history

    def run(
        self,
        *,
        max_generations: int | None = None,
        max_evaluations: int | None = None,
        max_seconds: float | None = None,
        target: float | None = None,
        patience: int | None = None,
        progress: bool | None = False,
    ) -> Result:
        """Generations until a budget is used up; Ctrl-C ends the run and keeps the best so far.

        Generations and evaluations count from the beginning of the search, so that a resumed one stops where an
        uninterrupted one would have. At least one budget is needed.

        Args:
            max_generations: after the start.
            max_evaluations: per search, never exceeded.
            max_seconds: of this call.
            target: value that every search must reach, in the user's own sign, or hypervolume. Read every generation,
                which synchronises with the device; so does patience.
            patience: generations without a better value, or a larger hypervolume, in any search.
            progress: whether to show a bar; None shows one on a terminal only.

        Raises:
            ValueError: no budget, or one that does not even allow the start.
        """
        budget = Budget(max_generations, max_evaluations, max_seconds, target, patience)
        budget.check(self, self._pending.k)
        begun, failed = time.perf_counter(), self.failures.count
        bar = Bar(self, budget, progress)
        still = Standstill(patience)
        stopped = ""
        owed = self._interrupts.listen()
        try:
            if self.state is None:
                self._advance()
            while True:
                stopped = budget.reached(self, self._coming(), time.perf_counter() - begun) or still.reached(self)
                if stopped:
                    break
                self._advance()
                bar.update()
                if self._call():
                    stopped = "callback"
                    break
        except KeyboardInterrupt:
            if self.state is None or inside.get():
                raise  # nothing was found that could be returned, or the run around this one is meant too
            stopped = "interrupted"
        finally:
            if owed and self._interrupts.leave():
                stopped = "interrupted"  # too late to stop anything
            bar.close()
        self.failures.warn(failed, stacklevel=2)
        return self._result(stopped, time.perf_counter() - begun)

    def _coming(self) -> int:
        """How many candidates the next generation has."""
        if self._asked is not None:
            return self._asked.k
        return self._pending.k if self.state is None else self.algorithm.next_k(self.state)

    def _result(self, stopped: str, seconds: float) -> Result:
        value = self.value
        return Result(
            self.best if self._many else self.best.individual(),
            value if value.ndim else float(value),
            self.evaluations,
            self.generations,
            seconds,
            stopped,
            self.history,
            self.state,
            self.failures.copied(),
        )

    def state_dict(self) -> dict[str, Any]:
        """All that the search needs to go on bit for bit: tensors, numbers and nothing else."""
        return {
            "algorithm": type(self.algorithm).__name__,
            "k": self.algorithm.k,
            "state": pack(self.state),
            "asked": pack(self._asked),
            "start": pack(self._pending),
            "generator": self.generator.get_state(),
            "evaluations": self.evaluations,
            "generations": self.generations,
            "history": None if self._history is None else pack(self._history.state_dict()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` gave, in a search with the same algorithm and settings.

        Raises:
            ValueError: the state of another algorithm, of another k, or over other genes; the search is then as before.
        """
        missing = sorted(set(self.state_dict()) - set(state))
        if missing:
            raise ValueError(f"expected what state_dict() gave, got a dictionary without {missing}; pass it whole")
        own = (type(self.algorithm).__name__, self.algorithm.k)
        if (state["algorithm"], state["k"]) != own:
            raise ValueError(
                f"expected the state of {own[0]} with k = {own[1]}, got {state['algorithm']} with k = {state['k']}; "
                "make the search with the settings it was saved with"
            )
        device = self.generator.device
        start = unpack(state["start"], device)
        if _layout(start) != _layout(self._pending):
            raise ValueError(
                f"expected the state of a search over {_layout(self._pending)}, got {_layout(start)}; "
                "make the search with the start it was saved with"
            )
        history = None
        if state["history"] is not None:
            history = History()
            history.load_state_dict(unpack(state["history"], device))
        told, asked = unpack(state["state"], device), unpack(state["asked"], device)
        self.generator.set_state(state["generator"].cpu())
        self.state, self._asked, self._pending, self._history = told, asked, start, history
        self.evaluations, self.generations = state["evaluations"], state["generations"]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes `state_dict` to a file, whole or not at all; see `tansaku.checkpoint`."""
        checkpoint.save(self.state_dict(), path)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Goes on from a file that `save` wrote.

        Raises:
            FileNotFoundError, ValueError: see `tansaku.checkpoint.load` and `load_state_dict`.
        """
        self.load_state_dict(checkpoint.load(path))


def _layout(start: Population) -> str:
    """Names, dtypes and shapes of a search: what two starts must share."""
    genes = ", ".join(f"{name}: {x.dtype} {checks.shape_text(x.shape[1:])}" for name, x in sorted(start.genes.items()))
    return f"{{{genes}}} with {start.batch_ndim} batch dimensions"


def _point(reference: Iterable[float] | Tensor, device: torch.device) -> Tensor:
    point = torch.as_tensor(reference if isinstance(reference, Tensor) else list(reference), dtype=torch.float64)
    if point.ndim != 1 or not bool(torch.isfinite(point).all()):
        raise ValueError(
            f"expected reference as finite numbers, one per objective, got {reference!r}; pass e.g. (1, 1)"
        )
    return point.to(device)
