"""The command line of the main job: its options, what is checked before training, and the order of the work."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
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
    result.add_argument(
        "names", nargs="*", metavar="NAME", help=f"NAME, NAME:VARIANT or all, of {', '.join(experiments.known())}"
    )
    source = result.add_mutually_exclusive_group()
    source.add_argument("--data", choices=("digits", "openml"), default="digits", help="embedded 8x8 digits, or MNIST")
    source.add_argument("--data-dir", type=Path, metavar="DIR", help="MNIST's four IDX files, gzipped or not")
    result.add_argument("--epochs", type=positive, metavar="N", help="passes over the training images")
    result.add_argument("--seed", type=natural, default=0, metavar="S")
    result.add_argument("--search", metavar="NAME", help="the tansaku algorithm in place of an experiment's own")
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


def named(names: Sequence[str]) -> dict[str, tuple[Experiment, list[str]]]:
    """Return the experiments of these names, each once, with the variants asked for.

    A name is `NAME`, which means the first variant, `NAME:VARIANT`, or "all"; it is spelt with `-` or `_`.

    Raises:
        UsageError: there is no experiment or no variant of a name.
    """
    names = [name.replace("_", "-") for name in names]
    known = experiments.known()
    unknown = [name for name in names if name.split(":")[0] not in (*known, "all")]
    if unknown:
        raise UsageError(
            f"expected experiments among {', '.join(known)}, or all, got {', '.join(unknown)}; name one of those"
        )
    found: dict[str, tuple[Experiment, list[str]]] = {}
    for name in known if "all" in names else names:
        name, _, variant = name.partition(":")
        experiment = experiments.get(name)
        _, variants = found.setdefault(name, (experiment, []))
        if variant and variant not in experiment.variants:
            raise UsageError(
                f"expected a variant of {name} among {', '.join(experiment.variants)}, got {variant}; name one of those"
            )
        asked = list(experiment.variants) if "all" in names else [variant or next(iter(experiment.variants))]
        variants.extend(entry for entry in asked if entry not in variants)
    return found


def planned(
    chosen: Mapping[str, tuple[Experiment, Sequence[str]]], data: str, seed: int, epochs: int | None, search: str | None
) -> list[Run]:
    """Return the runs of all these variants and of their controls, in the order of training."""
    runs = []
    for name, (experiment, variants) in chosen.items():
        length = epochs or budget(name, experiment, data)
        for variant in variants:
            runs.append(Run(name, variant, None, data, seed, length, search))
            of = None if experiment.shared_controls else variant
            runs += [Run(name, of, control, data, seed, length) for control in experiment.controls]
    return list({run.file: run for run in runs}.values())


def budget(name: str, experiment: Experiment, data: str) -> int:
    """Return the default number of epochs of an experiment on these data, or else on MNIST."""
    for source in (data, "mnist"):
        if source in experiment.epochs:
            return experiment.epochs[source]
    raise UsageError(
        f"expected {name} to have a default number of epochs for {data} or mnist, got one for "
        f"{', '.join(experiment.epochs) or 'nothing'} only; give --epochs N, or enter it in "
        f"examples/experiments/{name.replace('-', '_')}.py"
    )


def check_search(search: str, chosen: Mapping[str, tuple[Experiment, Sequence[str]]]) -> None:
    """Raise a UsageError where an experiment does not search, or not by this algorithm."""
    for name, (experiment, _) in chosen.items():
        if search not in experiment.searches:
            possible = f"one of {', '.join(experiment.searches)}" if experiment.searches else "no --search"
            raise UsageError(f"expected {possible} for {name}, got {search}; leave --search out, or name another")


def say(line: str) -> None:
    """Print a remark on stderr."""
    print(f"mnist.py: {line}", file=sys.stderr)


def work(arguments: Sequence[str] | None = None) -> int:
    """Train what the options name and write what came out, after Ctrl-C too; return the exit code."""
    options = parser().parse_args(arguments)
    chosen = named(options.names or experiments.DEFAULT)
    if options.search:
        check_search(options.search, chosen)
    device = usable_device(options.device)
    images = data.load(options.data, options.data_dir).to(device)
    if images.name == "digits":
        torch.set_num_threads(1)  # matrices this small are not worth sharing: on busy cores threads wait for each other
    out: Path = options.out
    runs = planned(chosen, images.name, options.seed, options.epochs, options.search)
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
            experiment, _ = chosen[run.experiment]
            variant = run.variant or next(iter(experiment.variants))
            plan = Plan(images, run.planned_epochs, run.seed, device, variant, run.search)
            train(experiment, run, plan, out / "checkpoints" / run.file)
    except KeyboardInterrupt:
        code = INTERRUPTED
    if not any(run.epochs for run in runs):
        say("stopped by Ctrl-C before the end of the first epoch; nothing was written")
        return code
    kept = report.write(runs, out)
    console = Console(width=None if sys.stdout.isatty() else FILE_WIDTH)
    report.table(runs, {name: experiment.variants for name, (experiment, _) in chosen.items()}, console)
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
