"""Train networks on handwritten digits, each layer by a rule of its own.

    python examples/mnist.py [NAMES] [--data-dir DIR | --data openml] [--epochs N] [--seed S] [--out DIR] [--resume]

Every name is a file in `examples/experiments/`. Results: `DIR/results.json`, `DIR/curves.png` and a table; an
experiment's controls (the same network, hidden layers frozen, for one) train beside it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import torch
from rich.console import Console

import experiments
from common import data, report
from common.errors import UsageError
from common.experiment import Plan
from common.loop import Run, restore, train

INTERRUPTED = 130
FILE_WIDTH = 120  # of the table where it goes to a file or a pipe


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage before the error."""
        raise UsageError(f"{message}; see {self.prog} --help")


def parser() -> Parser:
    """Return the command line's definition."""
    result = Parser(prog="mnist.py", description=(__doc__ or "").splitlines()[0])
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
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"expected a device that torch can use here, got {name!r} ({reason}); try --device cpu"
        ) from error
    return device


def usable_directory(path: Path) -> Path:
    """Return the directory for the results, made where it is missing."""
    try:
        (path / "checkpoints").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"expected a directory to write to, got {path} ({error.strerror}); give another --out"
        ) from error
    return path


def work(options: argparse.Namespace) -> int:
    """Train what the options name and write what came out, after Ctrl-C too; return the exit code."""
    names = list(dict.fromkeys(options.names or experiments.DEFAULT))
    known = experiments.known()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(f"expected experiments among {', '.join(known)}, got {', '.join(unknown)}; name one of those")
    device = usable_device(options.device)
    images = data.load(options.data, options.data_dir).to(device)
    if images.name == "digits":
        torch.set_num_threads(1)  # matrices this small are not worth sharing: on busy cores threads wait for each other
    out = usable_directory(options.out)
    chosen = {name: experiments.get(name) for name in names}
    runs = [
        Run(name, control, images.name, options.seed, options.epochs or experiment.epochs[images.name])
        for name, experiment in chosen.items()
        for control in (None, *experiment.controls)
    ]
    checkpoints = [out / "checkpoints" / f"{'-'.join(filter(None, (run.experiment, run.control)))}.pt" for run in runs]
    for run, checkpoint in zip(runs, checkpoints, strict=True):
        if options.resume:
            restore(run, checkpoint)
        else:
            checkpoint.unlink(missing_ok=True)
    code = 0
    try:
        for run, checkpoint in zip(runs, checkpoints, strict=True):
            plan = Plan(images, run.planned_epochs, run.seed, device)
            train(chosen[run.experiment], run, plan, checkpoint)
    except KeyboardInterrupt:
        code = INTERRUPTED
    report.write(runs, out)
    console = Console(width=None if sys.stdout.isatty() else FILE_WIDTH)
    report.table(runs, {name: experiment.paper for name, experiment in chosen.items()}, console)
    console.print(f"Wrote {out / 'results.json'} and {out / 'curves.png'}", soft_wrap=True, highlight=False)
    if code:
        print("mnist.py: stopped by Ctrl-C; the same command with --resume continues", file=sys.stderr)
    return code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; a user's mistake is one line on stderr and exit code 2."""
    try:
        return work(parser().parse_args(arguments))
    except UsageError as error:
        print(f"mnist.py: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
