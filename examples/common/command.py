"""The command line of the main job: its options, what is checked before training, and the order of the work."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import torch
from rich.console import Console

import experiments
from common import checkpoints, data, report
from common.checkpoints import Run
from common.errors import UsageError
from common.experiment import PAPER, Experiment, Plan
from common.files import check_writable
from common.loop import train

INTERRUPTED = 130
FILE_WIDTH = 120  # of the table where it goes to a file or a pipe


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage before the error."""
        raise UsageError(f"{message}; see {self.prog} --help")


def parser() -> Parser:
    """Return the command line's definition."""
    result = Parser(
        prog="mnist.py",
        description="Train networks on handwritten digits, each layer by a rule of its own.",
        epilog=f"The paper that the table, the picture and the experiments speak of: {PAPER}.",
    )
    result.add_argument("names", nargs="*", metavar="NAME", help=f"experiments: {', '.join(experiments.known())}")
    source = result.add_mutually_exclusive_group()
    source.add_argument("--data", choices=("digits", "openml"), default="digits", help="embedded 8x8 digits, or MNIST")
    source.add_argument("--data-dir", type=Path, metavar="DIR", help="MNIST's four IDX files, gzipped or not")
    result.add_argument("--epochs", type=positive, metavar="N", help="passes over the training images")
    result.add_argument("--seed", type=natural, default=0, metavar="S")
    result.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    result.add_argument("--out", type=Path, default=Path("runs/mnist"), metavar="DIR", help="where the results go")
    result.add_argument("--resume", action="store_true", help="continue after the last finished epoch found in --out")
    return result


def natural(text: str) -> int:
    """Return a whole number from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, got {text!r}")
    return int(text)


def positive(text: str) -> int:
    """Return a whole number from 1."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text!r}")
    return int(text)


def usable_device(name: str) -> torch.device:
    """Return the device of this name, tried out."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).add(1).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = " ".join(str(error).split()).split(". ")[0].rstrip(".")  # torch goes on for a page
        raise UsageError(
            f"expected a device that torch can use here, got {name!r} ({reason}); try --device cpu"
        ) from error
    return device


def named(names: Sequence[str]) -> dict[str, Experiment]:
    """Return the experiments of these names, each once, spelt with `-` or `_`."""
    names = list(dict.fromkeys(name.replace("_", "-") for name in names))
    known = experiments.known()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(f"expected experiments among {', '.join(known)}, got {', '.join(unknown)}; name one of those")
    return {name: experiments.get(name) for name in names}


def budget(name: str, experiment: Experiment, data_name: str) -> int:
    """Return the default number of epochs of an experiment on these data."""
    if data_name not in experiment.epochs:
        raise UsageError(
            f"expected {name} to have a default number of epochs for {data_name}, got one for "
            f"{', '.join(experiment.epochs) or 'nothing'} only; give --epochs N, or enter it in "
            f"examples/experiments/{name.replace('-', '_')}.py"
        )
    return experiment.epochs[data_name]


def say(line: str) -> None:
    """Print a remark on stderr."""
    print(f"mnist.py: {line}", file=sys.stderr)


def work(arguments: Sequence[str] | None = None) -> int:
    """Train what the options name and write what came out, after Ctrl-C too; return the exit code."""
    options = parser().parse_args(arguments)
    chosen = named(options.names or experiments.DEFAULT)
    device = usable_device(options.device)
    images = data.load(options.data, options.data_dir).to(device)
    if images.name == "digits":
        torch.set_num_threads(1)  # matrices this small are not worth sharing: on busy cores threads wait for each other
    out: Path = options.out
    runs = [
        Run(name, control, images.name, options.seed, options.epochs or budget(name, experiment, images.name))
        for name, experiment in chosen.items()
        for control in (None, *experiment.controls)
    ]
    check_writable(out, *report.FILES)
    check_writable(out / "checkpoints", *(run.file for run in runs))
    rows = report.earlier_rows(out)
    if options.resume:
        resume(runs, out)
    replaced = report.replaced(runs, rows, out)
    if replaced:
        say(f"new results will replace earlier ones in {out}: {', '.join(replaced)}; another --out keeps them")
    code = 0
    try:
        for run in runs:
            plan = Plan(images, run.planned_epochs, run.seed, device)
            train(chosen[run.experiment], run, plan, out / "checkpoints" / run.file)
    except KeyboardInterrupt:
        code = INTERRUPTED
    if not any(run.epochs for run in runs):
        say("stopped by Ctrl-C before the end of the first epoch; nothing was written")
        return code
    kept = report.write(runs, out)
    console = Console(width=None if sys.stdout.isatty() else FILE_WIDTH)
    report.table(runs, {name: experiment.paper for name, experiment in chosen.items()}, console)
    written = f"Wrote {out / 'results.json'} and {out / 'curves.png'}"
    if kept:
        written += f", which keep the earlier results of {', '.join(kept)}"
    console.print(written, soft_wrap=True, highlight=False)
    if code:
        say("stopped by Ctrl-C; the same command with --resume continues")
    return code


def resume(runs: Sequence[Run], out: Path) -> None:
    """Enter into the runs what their checkpoints hold, in the order of training.

    Behind a network that continues, a checkpoint with other settings is of a command before the one resumed, which
    had not come so far: that network starts again.

    Raises:
        UsageError: a checkpoint is damaged; the first one was made with other settings.
    """
    for number, run in enumerate(runs):
        path = out / "checkpoints" / run.file
        try:
            checkpoints.restore(run, path)
        except checkpoints.OtherSettings as error:
            if not any(earlier.epochs for earlier in runs[:number]):
                raise
            say(f"{run.name} starts again: {error.found}")
    if not any(run.epochs for run in runs):
        say(f"nothing to resume in {out}; starting with the first epoch")
