"""Parts of a run besides its search: the handling of Ctrl-C, budgets, patience and the progress bar."""

from __future__ import annotations

import importlib
import signal
import threading
import time
import warnings
from contextvars import ContextVar
from dataclasses import dataclass, fields
from types import FrameType
from typing import Any, Protocol

from torch import Tensor

from tansaku import checks

_SIGINT = int(signal.SIGINT)
_handlers: Any = importlib.import_module("_signal")  # what `signal` wraps; its enumerations take 20 us a generation


class Runs(Protocol):
    """What is read of a search."""

    @property
    def generations(self) -> int:
        """Made after the start."""

    @property
    def evaluations(self) -> int:
        """Made so far, per search."""

    @property
    def state(self) -> Any:
        """The algorithm's; None before the start was assessed."""

    @property
    def merit(self) -> Tensor:
        """See `Search.merit`."""

    @property
    def rises(self) -> bool:
        """See `Search.rises`."""

    @property
    def judged(self) -> bool:
        """See `Search.judged`."""


class Interrupts:
    """Ctrl-C during a run: kept until the generation is complete, raised at once only where the objective runs.

    `listen` installs a handler of SIGINT in place of Python's own, in the main thread only; any other handler of the
    user's is left alone. That handler sets a flag and never raises, except between `allow` and `forbid`, where the
    objective runs. `leave` gives Ctrl-C back to Python and says whether one is pending. While callbacks run, a second
    Ctrl-C raises, so that a callback that hangs can be ended.
    """

    def __init__(self) -> None:
        self._listening = self._allowed = self._impatient = False
        self.pending = False

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if self._allowed or (self._impatient and self.pending):
            self._allowed = self._impatient = False  # one interrupt is raised once
            raise KeyboardInterrupt
        self.pending = True

    def listen(self) -> bool:
        """Takes Ctrl-C over where Python's own handler has it; True if the caller must call `leave`."""
        if (
            self._listening
            or threading.current_thread() is not threading.main_thread()
            or _handlers.getsignal(_SIGINT) is not signal.default_int_handler
        ):
            return False
        self._allowed = self._impatient = self.pending = False
        _handlers.signal(_SIGINT, self._heard)  # an interrupt before this line is Python's, one after it sets the flag
        self._listening = True
        return True

    def leave(self) -> bool:
        """Gives Ctrl-C back to Python's handler; True if an interrupt came that nothing has raised yet."""
        self._listening = self._allowed = self._impatient = False
        try:
            _handlers.signal(_SIGINT, signal.default_int_handler)
        except KeyboardInterrupt:  # it came between the change of handlers and this line
            self.pending = True
        pending, self.pending = self.pending, False
        return pending

    def end(self, owed: bool) -> None:
        """Calls `leave` if `listen` returned True.

        Raises:
            KeyboardInterrupt: one is pending.
        """
        if owed and self.leave():
            raise KeyboardInterrupt

    def allow(self) -> None:
        """From here to `forbid`, Ctrl-C raises at once.

        Raises:
            KeyboardInterrupt: one came before.
        """
        if self._listening:
            self._allowed = True
            if self.pending:
                self._allowed = self.pending = False
                raise KeyboardInterrupt

    def forbid(self) -> None:
        """Ctrl-C is kept again."""
        self._allowed = False

    def patient(self, patient: bool) -> None:
        """Whether a second Ctrl-C is kept too."""
        self._impatient = self._listening and not patient


inside: ContextVar[bool] = ContextVar("tansaku_inside_a_run", default=False)
"""Whether an objective or a callback of a search is running: a search inside passes Ctrl-C on."""


@dataclass(frozen=True)
class Budget:
    """When a run ends; see `Search.run`."""

    max_generations: int | None
    max_evaluations: int | None
    max_seconds: float | None
    target: float | None
    patience: int | None
    tolerance: float = 0.0

    def check(self, search: Runs, start: int) -> None:
        """At least one of them is given, each is a number of its kind, and the start fits.

        Args:
            search: what is to run.
            start: candidates of its start.

        Raises:
            TypeError, ValueError: otherwise.
        """
        if all(getattr(self, field.name) is None for field in fields(self) if field.name != "tolerance"):
            raise ValueError(
                "expected at least one of max_generations, max_evaluations, max_seconds, target and patience, "
                "got none; say when to stop"
            )
        for name in ("max_generations", "max_evaluations"):
            if getattr(self, name) is not None:
                checks.count(name, getattr(self, name), 0)
        if self.patience is not None:
            checks.count("patience", self.patience)
        if checks.number("tolerance", self.tolerance, 0.0) and self.patience is None:
            raise ValueError(f"expected tolerance with patience, got {self.tolerance} alone; give patience=")
        if self.max_seconds is not None:
            checks.number("max_seconds", self.max_seconds, 0.0)
        if self.target is not None:
            checks.number("target", self.target)
        if not search.judged and (self.target is not None or self.patience is not None):
            raise ValueError(
                "expected a reference point with target or patience for several objectives, got none; give reference="
            )
        if self.max_evaluations is not None and search.state is None and self.max_evaluations < start:
            raise ValueError(
                f"expected max_evaluations >= {start}, the candidates of the start, got {self.max_evaluations}; "
                "allow more or start with fewer"
            )

    def reached(self, search: Runs, coming: int, seconds: float) -> str:
        """The name of the budget that is used up, or nothing.

        Args:
            search: what runs.
            coming: evaluations that its next generation would make.
            seconds: since the run began.
        """
        if self.target is not None:
            merit = search.merit
            if bool((merit >= self.target if search.rises else merit <= self.target).all()):
                return "target"
        if self.max_generations is not None and search.generations >= self.max_generations:
            return "max_generations"
        if self.max_evaluations is not None and search.evaluations + coming > self.max_evaluations:
            return "max_evaluations"
        return "max_seconds" if self.max_seconds is not None and seconds >= self.max_seconds else ""


class Standstill:
    """Counts generations without a better value in any search.

    Args:
        patience: how many end the run; None for any number.
        tolerance: a value counts as better if it is better by more than this, in units of the value.
    """

    def __init__(self, patience: int | None, tolerance: float = 0.0) -> None:
        self._patience, self._tolerance = patience, tolerance
        self._lowest: Tensor | None = None
        self._since = 0

    def reached(self, search: Runs) -> str:
        """``"patience"`` if it has come to an end, else nothing."""
        if self._patience is None:
            return ""
        cost = -search.merit if search.rises else search.merit
        if self._lowest is None or bool((cost < self._lowest - self._tolerance).any()):
            self._lowest, self._since = cost, search.generations
        return "patience" if search.generations - self._since >= self._patience else ""


def warn_if_infeasible(violation: Tensor, penalised: bool) -> None:
    """Warns if the best candidate of any search violates a constraint.

    Args:
        violation: [*batch_shape] the total violation of each search's best candidate.
        penalised: whether the candidates were ranked by another rule than Deb's, under which an infeasible candidate
            can be the best although a feasible one was found.
    """
    infeasible = violation > 0
    count = int(infeasible.sum())
    if not count:
        return
    where = "" if violation.ndim == 0 else f" in {count} of {violation.numel()} searches"
    least = float(violation[infeasible].min())
    if penalised:
        message = (
            f"the best candidate is infeasible{where}: it violates the constraints by {least:.6g} in total; "
            "see Result.violation, give Penalty a larger weight, or use Feasibility"
        )
    else:
        message = (
            f"no feasible candidate was found{where}: the best one violates the constraints by {least:.6g} in total; "
            "see Result.violation, allow more evaluations, or check the constraints"
        )
    warnings.warn(
        message,
        UserWarning,
        stacklevel=4,
    )


class Bar:
    """A tqdm bar over generations or evaluations; the best value is read a few times a second, when it is shown.

    Args:
        search: what runs.
        budget: its generations are the bar's length if given, else its evaluations.
        shown: True, False, or None for on a terminal only.
    """

    def __init__(self, search: Runs, budget: Budget, shown: bool | None) -> None:
        self._search, self._bar = search, None
        if shown is False:
            return
        from tqdm import tqdm

        self._by_generation = budget.max_generations is not None
        self._bar = tqdm(
            total=budget.max_generations if self._by_generation else budget.max_evaluations,
            initial=self._done(),
            unit="generation" if self._by_generation else "evaluation",
            disable=None if shown is None else False,
            dynamic_ncols=True,
        )
        self._last = 0.0

    def _done(self) -> int:
        return self._search.generations if self._by_generation else self._search.evaluations

    def update(self) -> None:
        """After every generation; draws at most five times a second."""
        if self._bar is None or self._bar.disable:
            return
        now = time.monotonic()
        if now - self._last > 0.2:
            self._last = now
            self._refresh()

    def _refresh(self) -> None:
        if self._bar is not None and self._search.state is not None:
            if self._search.judged:
                self._bar.set_postfix(best=f"{float(self._search.merit.double().mean()):.6g}", refresh=False)
            self._bar.update(self._done() - self._bar.n)

    def close(self) -> None:
        """Shows the end and leaves the bar."""
        if self._bar is not None:
            if not self._bar.disable:
                self._refresh()
            self._bar.close()
