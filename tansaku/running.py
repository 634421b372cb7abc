"""What a run has beside its search: Ctrl-C held back while books are kept, standstill counted, a bar."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Any, Protocol

from torch import Tensor


class Runs(Protocol):
    """What is read of a search."""

    generations: int
    evaluations: int
    state: Any

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
    """Ctrl-C while a search changes is held back until the change is whole, so that no generation is half told.

    ``with interrupts:`` listens, in the main thread and where Python's own handler would raise KeyboardInterrupt;
    between `hold` and `release` nothing is raised.
    """

    def __init__(self) -> None:
        self._holding = self._waiting = self._listening = False

    def __enter__(self) -> Interrupts:
        self._listening = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if self._listening:
            signal.signal(signal.SIGINT, self._heard)
        return self

    def __exit__(self, *error: object) -> None:
        if self._listening:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if not self._holding:
            raise KeyboardInterrupt
        self._waiting = True

    def hold(self) -> None:
        """From here on Ctrl-C waits."""
        self._holding = True

    def release(self) -> None:
        """Raises KeyboardInterrupt if one has come since `hold`."""
        self._holding = False
        if self._waiting:
            self._waiting = False
            raise KeyboardInterrupt


class Standstill:
    """Counts generations without a better value in any search.

    Args:
        patience: how many end the run; None for any number.
    """

    def __init__(self, patience: int | None) -> None:
        self._patience = patience
        self._lowest: Tensor | None = None
        self._since = 0

    def reached(self, search: Runs) -> str:
        """``"patience"`` if it has come to an end, else nothing."""
        if self._patience is None:
            return ""
        cost = -search.merit if search.rises else search.merit
        if self._lowest is None or bool((cost < self._lowest).any()):
            self._lowest, self._since = cost, search.generations
        return "patience" if search.generations - self._since >= self._patience else ""


class Bar:
    """A tqdm bar over generations or evaluations; the best value is read a few times a second, when it is shown.

    Args:
        search: what runs.
        max_generations: the bar's length if given.
        max_evaluations: else this.
        shown: True, False, or None for on a terminal only.
    """

    def __init__(
        self, search: Runs, max_generations: int | None, max_evaluations: int | None, shown: bool | None
    ) -> None:
        self._search, self._bar = search, None
        if shown is False:
            return
        from tqdm import tqdm

        self._by_generation = max_generations is not None
        self._bar = tqdm(
            total=max_generations if self._by_generation else max_evaluations,
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
