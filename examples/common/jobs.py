"""The work of a command: all its runs, one after another in this process, or several at once in processes."""

from __future__ import annotations

import functools
import multiprocessing
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

import experiments
from common import data
from common.checkpoints import Run
from common.data import Data
from common.errors import UsageError
from common.experiment import Plan
from common.loop import train

if TYPE_CHECKING:
    News = multiprocessing.Queue[tuple[int, dict[str, Any] | str]]  # number of a run -> its fields, or a user's mistake
    Tasks = multiprocessing.SimpleQueue[int | None]  # numbers of runs, and a None for each process

POLL = 0.2  # seconds between two looks at the processes


@dataclass(frozen=True)
class Place:
    """Where the images come from, on which device the networks stand, and where their checkpoints are kept."""

    source: str
    directory: Path | None
    device: torch.device
    checkpoints: Path

    def images(self) -> Data:
        """Return the data set on the device.

        Raises:
            UsageError: it cannot be read.
        """
        images = data.load(self.source, self.directory).to(self.device)
        if images.name == "digits":
            torch.set_num_threads(1)  # matrices this small are not worth sharing: on busy cores threads wait
        return images


def one_by_one(runs: Sequence[Run], place: Place, images: Data) -> list[str]:
    """Train in order, entering into each run what came out.

    Returns:
        The names of the runs that broke; what happened stands on stderr.

    Raises:
        UsageError: one of them found a user's mistake.
    """
    for run in runs:
        _try(run, place, images)
    return [run.name for run in runs if not run.finished]


def at_once(runs: Sequence[Run], place: Place, jobs: int) -> list[str]:
    """Train in `jobs` processes, which share torch's threads, entering into each run what came out.

    Where this process stops, by Ctrl-C for one, the others do, and the runs hold their finished epochs.

    Returns:
        The names of the runs that broke; what happened stands on stderr.

    Raises:
        UsageError: one of them found a user's mistake.
    """
    context = multiprocessing.get_context("spawn")  # a fork would share the threads of torch that are running
    tasks: Tasks = context.SimpleQueue()
    news: News = context.Queue()
    unfinished = [number for number, run in enumerate(runs) if not run.finished]
    jobs = min(jobs, len(unfinished))
    threads = max(1, torch.get_num_threads() // max(1, jobs))
    workers = [context.Process(target=_work, args=(list(runs), place, threads, tasks, news)) for _ in range(jobs)]
    with tqdm(total=sum(run.planned_epochs for run in runs), unit="epoch", mininterval=0.5) as bar:
        try:
            _start(workers)
            for task in (*unfinished, *[None] * jobs):
                tasks.put(task)
            while any(worker.is_alive() for worker in workers):
                _hear(news, runs)
                bar.update(sum(run.epochs for run in runs) - bar.n)
            _hear(news, runs)  # what they said last
            bar.update(sum(run.epochs for run in runs) - bar.n)
            killed = [worker.exitcode for worker in workers if worker.exitcode and worker.exitcode < 0]
            for code in killed:
                bar.write(f"a process was killed by signal {-code}, perhaps for want of memory", file=sys.stderr)
        finally:
            for worker in workers:
                if worker.is_alive():
                    worker.terminate()
            with suppress(UsageError):
                while any(worker.is_alive() for worker in workers):
                    _hear(news, runs)  # a process does not end before it is heard
                _hear(news, runs)
    return [run.name for run in runs if not run.finished]


def _start(workers: Sequence[BaseProcess]) -> None:
    """Start processes that are deaf to Ctrl-C: the one that starts them hears it, and ends them."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for worker in workers:
            worker.start()
    finally:
        signal.signal(signal.SIGINT, before)


def _hear(news: News, runs: Sequence[Run]) -> None:
    """Enter into the runs what the processes report, waiting a little for the first report."""
    wait = POLL
    with suppress(queue.Empty):
        while True:
            number, told = news.get(timeout=wait)
            if isinstance(told, str):
                raise UsageError(told)
            runs[number].enter(told)
            wait = POLL / 10


def _work(runs: Sequence[Run], place: Place, threads: int, tasks: Tasks, news: News) -> None:
    """Train one network after another; report each epoch as a `Run`'s fields, a user's mistake as a text."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # half a file is removed on the way out
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(threads)
    images = place.images()
    while (number := tasks.get()) is not None:
        run = runs[number]
        try:
            _try(run, place, images, functools.partial(_tell, news, number, run))
        except UsageError as error:
            news.put((number, str(error)))


def _tell(news: News, number: int, run: Run) -> None:
    news.put((number, asdict(run)))


def _end_with(parent: BaseProcess) -> None:
    """End this process when the one that started it has ended, killed perhaps: nobody would hear what it trains."""
    parent.join()
    os._exit(1)


def _try(run: Run, place: Place, images: Data, report: Callable[[], None] | None = None) -> None:
    """Train one network; an error that is no user's mistake is printed, for others can go on."""
    try:
        _train(run, place, images, report)
    except UsageError:
        raise
    except Exception:
        print(f"{run.name}, seed {run.seed}:\n{traceback.format_exc()}", file=sys.stderr)


def _train(run: Run, place: Place, images: Data, report: Callable[[], None] | None = None) -> None:
    experiment = experiments.get(run.experiment)
    variant = run.variant or next(iter(experiment.variants))
    plan = Plan(images, run.planned_epochs, run.seed, place.device, variant, run.search)
    train(experiment, run, plan, place.checkpoints / run.file, report)
