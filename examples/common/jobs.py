"""The work of a command: all its runs, one after another in this process, or several at once in processes."""

from __future__ import annotations

import multiprocessing
import queue
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import experiments
from common import data
from common.checkpoints import Run
from common.data import Data
from common.errors import UsageError
from common.experiment import Plan
from common.loop import train

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


def one_by_one(runs: Sequence[Run], place: Place, images: Data) -> None:
    """Train in order, entering into each run what came out."""
    for run in runs:
        _train(run, place, images)


def at_once(runs: Sequence[Run], place: Place, jobs: int) -> list[str]:
    """Train in processes of their own, `jobs` at once, which share torch's threads; enter into each run what came out.

    Where this process stops, by Ctrl-C for one, the others do, and the runs hold their finished epochs.

    Returns:
        The names of the runs whose processes broke; what happened stands on stderr.

    Raises:
        UsageError: one of them found a user's mistake.
    """
    context = multiprocessing.get_context("spawn")  # a fork would share the threads of torch that are running
    news: multiprocessing.Queue[tuple[int, Any]] = context.Queue()
    waiting = [(number, run) for number, run in enumerate(runs) if not run.finished]
    threads = max(1, torch.get_num_threads() // jobs)
    running: dict[int, Any] = {}
    broken = []
    with tqdm(total=sum(run.planned_epochs for run in runs), unit="epoch", mininterval=0.5) as bar:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    number, run = waiting.pop(0)
                    running[number] = context.Process(target=_work, args=(number, run, place, threads, news))
                    _start(running[number])
                _hear(news, runs)
                bar.n = sum(run.epochs for run in runs)
                bar.set_postfix_str(", ".join(runs[number].name for number in running))
                for number in [number for number, process in running.items() if not process.is_alive()]:
                    _hear(news, runs)  # what it said last
                    running.pop(number)
                    if not runs[number].finished:
                        broken.append(runs[number].name)
        finally:
            for process in running.values():
                process.terminate()
            with suppress(UsageError):
                while any(process.is_alive() for process in running.values()):
                    _hear(news, runs)  # a process does not end before it is heard
                _hear(news, runs)
    return broken


def _start(process: Any) -> None:
    """Start a process that is deaf to Ctrl-C: the one that started it hears it, and ends this one."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, before)


def _hear(news: multiprocessing.Queue[tuple[int, Any]], runs: Sequence[Run]) -> None:
    """Enter into the runs what the processes report, waiting a little for the first report."""
    wait = POLL
    with suppress(queue.Empty):
        while True:
            number, told = news.get(timeout=wait)
            if isinstance(told, str):
                raise UsageError(told)
            runs[number].enter(told)
            wait = POLL / 10


def _work(number: int, run: Run, place: Place, threads: int, news: multiprocessing.Queue[tuple[int, Any]]) -> None:
    """Train one network in a process of its own; report each epoch as a `Run`'s fields, a user's mistake as a text."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # half a file is removed on the way out
    torch.set_num_threads(threads)
    try:
        _train(run, place, place.images(), lambda: news.put((number, asdict(run))))
    except UsageError as error:
        news.put((number, str(error)))


def _train(run: Run, place: Place, images: Data, report: Any = None) -> None:
    experiment = experiments.get(run.experiment)
    variant = run.variant or next(iter(experiment.variants))
    plan = Plan(images, run.planned_epochs, run.seed, place.device, variant, run.search)
    train(experiment, run, plan, place.checkpoints / run.file, report)
