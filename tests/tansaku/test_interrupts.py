"""Ctrl-C at any moment: no handler stays, no result is lost, every callback runs, and the run is unchanged."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
import torch

from tansaku import GA, Individual, Objective, Search, running

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
START = Individual({"x": torch.ones(4)})


def sphere(x: torch.Tensor) -> torch.Tensor:
    return x.square().sum(-1)


@pytest.fixture(autouse=True)
def _pythons_own_handler() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def fresh(seen: list[int]) -> Search[Any]:
    return Search(GA(k=6), Objective(sphere), START, seed=1, callbacks=[lambda s: seen.append(s.generations)])


def by_step(search: Search[Any], generations: int) -> None:
    search.step()


def by_run(search: Search[Any], generations: int) -> None:
    assert search.run(max_generations=generations).stopped in ("interrupted", "max_generations")


@pytest.mark.parametrize("advance", [by_step, by_run])
def test_sixty_interrupts_change_nothing(advance: Callable[[Search[Any], int], None]) -> None:
    """Real signals of a timer, which arrive in the search and between its calls."""
    generations, seen, expected = 1500, [], []
    whole, search = fresh(expected), fresh(seen)
    whole.run(max_generations=generations)
    sent, ended = 0, threading.Event()

    def press() -> None:
        nonlocal sent
        while sent < 60 and not ended.wait(0.004):
            os.kill(os.getpid(), signal.SIGINT)
            sent += 1

    presser = threading.Thread(target=press)
    presser.start()
    while search.generations < generations:
        try:
            advance(search, generations)
        except KeyboardInterrupt:
            continue
    ended.set()
    while presser.is_alive():
        try:
            presser.join()
        except KeyboardInterrupt:
            continue
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert sent > 10
    assert seen == expected
    assert torch.equal(search.history.median, whole.history.median)
    assert torch.equal(search.generator.get_state(), whole.generator.get_state())
    assert search.evaluations == whole.evaluations


def interrupted_at_line(moment: int, work: Callable[[], Any]) -> tuple[bool, bool]:
    """Runs ``work`` and sends SIGINT at the n-th line of search.py or running.py; whether it was sent, and raised."""
    count, sent = 0, False
    files = (running.__file__, sys.modules[Search.__module__].__file__)

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count, sent
        if frame.f_code.co_filename not in files:
            return None
        if event == "line":
            count += 1
            if count == moment:
                sent = True
                signal.raise_signal(signal.SIGINT)
        return trace

    raised = False
    try:
        sys.settrace(trace)
        work()
    except KeyboardInterrupt:
        raised = True
    finally:
        sys.settrace(None)
    return sent, raised


@pytest.mark.parametrize("kind", ["step", "run", "hand"])
def test_an_interrupt_at_any_line_changes_nothing(kind: str) -> None:
    expected: list[int] = []
    whole = fresh(expected)
    whole.run(max_generations=3)
    moment = 0
    while True:
        moment += 1
        seen: list[int] = []
        search = fresh(seen)
        search.run(max_generations=1)

        def work(search: Search[Any] = search) -> None:
            if kind == "step":
                search.step()
            elif kind == "run":
                search.run(max_generations=3)
            else:
                search.tell(search.assess(search.ask()))  # type: ignore[misc]

        sent, _ = interrupted_at_line(moment, work)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, moment
        if kind == "hand":
            if search.generations == 1:
                search.tell(sphere(search.ask()["x"]) if search._asked is None else sphere(search._asked["x"]))
            seen.append(2)
        search.run(max_generations=3)
        assert seen == expected, moment
        assert torch.equal(search.history.median, whole.history.median), moment
        assert torch.equal(search.generator.get_state(), whole.generator.get_state()), moment
        if not sent:
            break
    assert moment > 20


def test_an_interrupt_between_the_last_generation_and_the_return_keeps_the_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = running._handlers

    class Late:
        getsignal = staticmethod(real.getsignal)

        @staticmethod
        def signal(number: int, handler: Any) -> Any:
            old = real.signal(number, handler)
            if handler is signal.default_int_handler:
                monkeypatch.setattr(running, "_handlers", real)
                os.kill(os.getpid(), signal.SIGINT)
            return old

    monkeypatch.setattr(running, "_handlers", Late)
    seen: list[int] = []
    search = fresh(seen)
    result = search.run(max_generations=5)
    assert (result.stopped, result.generations, seen) == ("interrupted", 5, [0, 1, 2, 3, 4, 5])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert search.run(max_generations=7).stopped == "max_generations"


def test_an_interrupt_in_a_callback_lets_the_other_callbacks_run() -> None:
    seen: list[str] = []
    search = fresh([])
    search.callbacks = [
        lambda s: signal.raise_signal(signal.SIGINT) if s.generations == 2 else None,
        lambda s: seen.append(f"first {s.generations}"),
        lambda s: seen.append(f"second {s.generations}"),
    ]
    assert search.run(max_generations=4).stopped == "interrupted"
    assert seen == [f"{name} {generation}" for generation in (0, 1, 2) for name in ("first", "second")]
    search.callbacks[0] = lambda s: signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        search.step()
    assert seen[-1] == "second 3"


def test_a_second_interrupt_ends_a_callback_that_hangs() -> None:
    def hang(search: Search[Any]) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the second interrupt was kept")

    search = fresh([])
    search.callbacks = [hang]
    assert search.run(max_generations=4).stopped == "interrupted"


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda number, frame: None])
def test_a_handler_of_the_user_stays(handler: Any) -> None:
    signal.signal(signal.SIGINT, handler)
    search = fresh([])
    search.callbacks = [lambda s: signal.raise_signal(signal.SIGINT)]
    assert search.run(max_generations=3).stopped == "max_generations"
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_run_in_another_thread_leaves_the_handler_alone() -> None:
    stopped: list[str] = []
    thread = threading.Thread(target=lambda: stopped.append(fresh([]).run(max_generations=3).stopped))
    thread.start()
    thread.join()
    assert stopped == ["max_generations"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
