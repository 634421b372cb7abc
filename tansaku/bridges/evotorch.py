"""To and from evotorch: its searchers as a tansaku algorithm, tansaku's objectives as its `Problem`.

`EvotorchSearcher` is an ordinary `Algorithm` with an explicit state, although a searcher of evotorch is mutable and
calls its problem in the middle of a step: the state holds the pickled searcher as it was before the step and the costs
told so far. `ask` lets a copy run until it wants costs that are not there; `tell` lets another copy run on with them.
So any searcher works, however often it evaluates within a step, and all that is paid is a copy per call.

evotorch is loaded when the first object is made, not on import.
"""

from __future__ import annotations

import io
import pickle
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tansaku import checks, draws
from tansaku.algorithms.base import Algorithm, Assessor, Needs, better, check_std
from tansaku.algorithms.gaussian import first_std
from tansaku.algorithms.sampled import hand_out, penalised_cost, ravel, raw_samples
from tansaku.draws import Noise
from tansaku.functional import finite_costs
from tansaku.operators.bounds import Bounds, Limits
from tansaku.population import Individual, Population
from tansaku.states import state

_EPOCH = datetime(1970, 1, 1)
_SEED = "seed"


class _Paused(Exception):
    """A step wants costs that are not there yet."""

    def __init__(self, values: Tensor) -> None:
        super().__init__("a step waits for costs")
        self.values = values


@cache
def _problem_kind(name: str) -> type:
    """The subclass of evotorch's `Problem` of that name, as if it stood in this module, for pickling."""
    try:
        from evotorch.core import Problem
    except ImportError as error:
        raise ImportError(
            "expected evotorch to be installed, got none; pip install 'tansaku-zenkai[evotorch]'"
        ) from error

    class StartedProblem(Problem):
        """A problem whose first solutions are those of a start; any others lie around the first of them."""

        def __init__(self, sense: str, start: Tensor, std: Tensor, **options: Any) -> None:
            n, kind, device = start.shape[-1], start.dtype, start.device
            super().__init__(sense, solution_length=n, dtype=kind, eval_dtype=kind, device=device, **options)
            self.start, self.std = start, std

        def _fill(self, values: Tensor) -> None:
            given = self.start[: values.shape[0]]
            values.normal_(generator=self.generator).mul_(self.std).add_(self.start[0])
            values[: given.shape[0]] = given

    class PausingProblem(StartedProblem):
        """Answers with the costs that it was given, and pauses when there are too few; it asks for ``k`` at a time."""

        def __init__(self, start: Tensor, std: Tensor, k: int) -> None:
            super().__init__("min", start, std, seed=0)
            self.k, self.answers = k, start.new_zeros(0, k)

        def _evaluate_batch(self, batch: Any) -> None:
            size, parts = len(batch), -(-len(batch) // self.k)
            if self.answers.shape[0] < parts:  # the last part is filled up with the last solution
                begin = self.answers.shape[0] * self.k
                wanted = torch.arange(begin, begin + self.k, device=batch.values.device).clamp(max=size - 1)
                raise _Paused(batch.values[wanted].clone())
            batch.set_evals(self.answers[:parts].flatten()[:size])
            self.answers = self.answers[parts:]

    class ObjectiveProblem(StartedProblem):
        """See `problem`."""

        def __init__(self, objective: Assessor, like: Individual, bounds: Bounds | None, std: Any, **options: Any):
            self.objective, self.like, self.box = objective, like, bounds
            self.maximize = bool(getattr(objective, "maximize", False))
            start = ravel(like)[None]
            super().__init__(
                "max" if self.maximize else "min", start, first_std(std, bounds, like.populate(1), start[0]), **options
            )

        def _evaluate_batch(self, batch: Any) -> None:
            cost = _costs(self.objective(hand_out(batch.values, self.like, self.box)), self.std)
            batch.set_evals(-cost if self.maximize else cost)

        def individual(self, values: Tensor) -> Individual:
            """The genes that a solution's values stand for, inside the bounds."""
            return hand_out(values[None], self.like, self.box).individual()

    made: type = {"PausingProblem": PausingProblem, "ObjectiveProblem": ObjectiveProblem}[name]
    made.__module__, made.__qualname__ = __name__, name
    return made


def __getattr__(name: str) -> Any:
    """The two kinds of problems, so that pickle finds them in a fresh process."""
    if name in ("PausingProblem", "ObjectiveProblem"):
        return _problem_kind(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _costs(assessed: Population, std: Tensor) -> Tensor:
    """[k] finite costs of what `hand_out` gave, since evotorch takes no others, with the price of leaving the box."""
    return finite_costs(penalised_cost(assessed, std))


def problem(
    objective: Assessor,
    start: Individual,
    *,
    bounds: Bounds | tuple[Limits, Limits] | None = None,
    std: float | Tensor | Mapping[str, float | Tensor] | None = None,
    **options: Any,
) -> Any:
    """A tansaku objective as a `Problem` of evotorch: its searchers, loggers and actors then work.

    Failed evaluations count as the worst of their batch. Within ``bounds`` the objective is called with repaired genes,
    and pays for what was repaired as in `tansaku`; evotorch's own searchers see a problem without bounds.

    Args:
        objective: population -> assessed population, such as `Objective`; picklable where actors are used.
        start: [*event_shape] the first solution of an initial population, the centre of a distribution.
        bounds: `Bounds` or (lower, upper).
        std: how far the other initial solutions lie from the start; a fifth of the bounds' span if not given, else 1.
        options: of evotorch's `Problem`, such as ``num_actors`` and ``seed``.

    Returns:
        The problem; its ``individual(values)`` turns a solution's values into named genes.

    Raises:
        ImportError: evotorch is not installed.
        ValueError: a start with a batch_shape, or outside its bounds.
    """
    if start.batch_ndim:
        raise ValueError(
            f"expected batch_shape () for evotorch, got {checks.shape_text(start.batch_shape)}; "
            "make a problem for each search"
        )
    box = Bounds.of(bounds)
    check_std(std)
    if box is not None:
        box.check(start)
    return _problem_kind("ObjectiveProblem")(objective, start, box, std, **options)


@state
class EvotorchState:
    """A searcher between two evaluations.

    Args:
        searcher: its pickle, uint8, before the step that is under way.
        seed: [] of that step.
        answers: [j, k] costs that the step was told already.
        best: the best candidate (k = 1, assessed).
    """

    searcher: Tensor
    seed: Tensor
    answers: Tensor
    best: Population


@dataclass(frozen=True)
class EvotorchSearcher(Algorithm[EvotorchState]):
    """Any search algorithm of evotorch for real genes and one objective.

    Genes within ``bounds`` are handed out repaired, and the searcher learns from its own samples with a price for what
    was repaired, as tansaku's own algorithms do. A state holds a pickle: load only states that you trust.

    Args:
        make: problem -> searcher.
        k: candidates handed out at once, best the size of the searcher's population. A searcher that evaluates others,
            as a genetic algorithm with its first parents does, is asked part by part, the last filled up.
        bounds: `Bounds` or (lower, upper).

    Raises:
        ImportError: evotorch is not installed (at ``init``).

    Example:
        >>> def snes(problem):
        ...     from evotorch.algorithms import SNES
        ...     return SNES(problem, popsize=20, stdev_init=1.0)
        >>> EvotorchSearcher(snes, k=20).k
        20
    """

    make: Callable[[Any], Any]
    k: int = 20
    bounds: Bounds | None = None
    # the widths of its steps are in ``make``, in units of the genes
    needs = Needs(min_k=2, batched=False, rank_based=False, scales=False, on_host=True)

    def __post_init__(self) -> None:
        self.check_settings()

    def init(self, start: Population) -> EvotorchState:
        """A searcher whose problem fills populations with the start, its best first."""
        self.check_start(start)
        start = start.without_traits()
        best = start.best()
        values = ravel(start.take(start.cost.argsort(dim=0, stable=True)))
        values = values.to(torch.promote_types(values.dtype, torch.float32))
        with _random_states(values.device, 0):
            searcher = self.make(_problem_kind("PausingProblem")(values, self._std(best, values[0]), self.k))
        none = torch.zeros((), dtype=torch.int64, device=start.device)
        return EvotorchState(_pickled(searcher), none, values.new_zeros(0, self.k), best)

    def ask(self, state: EvotorchState, noise: Noise) -> Population:
        """What the searcher wants to be evaluated next."""
        seed = state.seed
        if not state.answers.shape[0]:
            seed = draws.integers(2**31 - 1, (), (), (), state.answers, noise)
        _, values = self._run(state, seed, state.answers)
        if values is None:
            raise RuntimeError(
                "expected the searcher to evaluate in every step, got a step that evaluates nothing; wrap another one"
            )
        return hand_out(values, state.best, self.bounds, **{_SEED: seed.expand(self.k)})

    def tell(self, state: EvotorchState, asked: Population) -> EvotorchState:
        """The searcher goes on with the costs, to the end of its step or to its next question."""
        raw = raw_samples(asked)
        cost = _costs(asked, self._std(state.best, raw[0])).to(state.answers.dtype)
        answers = torch.cat([state.answers, cost[None]])
        seed, best = asked.traits[_SEED][0], better(asked, state.best)
        searcher, paused = self._run(state, seed, answers)
        if paused is not None:
            return EvotorchState(state.searcher, seed, answers, best)
        return EvotorchState(_pickled(searcher), torch.zeros_like(seed), answers[:0], best)

    def best(self, state: EvotorchState) -> Population:
        """The best candidate ever assessed."""
        return state.best

    def estimate(self, state: EvotorchState) -> Individual:
        """The searcher's centre where it has one, inside the bounds, else the best."""
        status = _unpickled(state.searcher).status
        if "center" not in status:
            return super().estimate(state)
        centre = status["center"].to(state.answers.device, state.answers.dtype)
        return hand_out(centre[None], state.best, self.bounds).individual()

    def _std(self, best: Population, like: Tensor) -> Tensor:
        return first_std(None, self.bounds, best, like)

    def _run(self, state: EvotorchState, seed: Tensor, answers: Tensor) -> tuple[Any, Tensor | None]:
        """A copy of the searcher after a step with these answers; or in the middle of it, and what it asks for."""
        searcher = _unpickled(state.searcher)
        searcher.problem.answers = answers
        with _random_states(answers.device, int(seed)):
            searcher.problem.manual_seed(int(seed))
            try:
                searcher.step()
            except _Paused as paused:
                return searcher, paused.values
        return searcher, None


class _Pickler(pickle.Pickler):
    """Pickles tensors by their bytes alone: torch writes addresses too, so that equal states would differ."""

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, torch.storage.TypedStorage):
            return NotImplemented
        octets = torch.empty(0, dtype=torch.uint8).set_(obj._untyped_storage.cpu())
        return _storage, (octets.numpy().tobytes(), obj.dtype, str(obj._untyped_storage.device))


def _storage(data: bytes, dtype: torch.dtype, device: str) -> torch.storage.TypedStorage:
    octets = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
    untyped = octets.to(device).untyped_storage()
    return torch.storage.TypedStorage(wrap_storage=untyped, dtype=dtype, _internal=True)


def _pickled(searcher: Any) -> Tensor:
    searcher._first_step_datetime = _EPOCH  # the time of day is no part of a state
    data = io.BytesIO()
    _Pickler(data).dump(searcher)
    return torch.frombuffer(bytearray(data.getvalue()), dtype=torch.uint8)


def _unpickled(data: Tensor) -> Any:
    return pickle.loads(data.cpu().numpy().tobytes())


@contextmanager
def _random_states(device: torch.device, seed: int) -> Iterator[None]:
    """Within, the global random numbers begin at ``seed``; afterwards they are where they were."""
    before = random.getstate(), np.random.get_state()  # noqa: NPY002 - the searchers draw from the global one
    with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002
