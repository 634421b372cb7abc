"""The command line of the main job: its options, what is checked before training, and the order of the work."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import torch
from rich.console import Console

import experiments
from common import checkpoints, jobs, report, table
from common.checkpoints import Run
from common.errors import UsageError
from common.experiment import PAPER, Experiment
from common.files import check_writable
from common.jobs import Place

BROKEN, INTERRUPTED = 1, 130
Chosen = Mapping[str, tuple[Experiment, Sequence[str]]]  # name -> experiment, variants
DIFFERENCE = "target-prop:difference"
FILE_WIDTH = 150  # of the table where it goes to a file or a pipe


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
        epilog=f"The paper that the table, the pictures and the experiments speak of: {PAPER}.",
    )
    names = f"all, or NAME or NAME:VARIANT of {', '.join(experiments.known())}"
    result.add_argument("names", nargs="*", metavar="NAME", help=names)
    source = result.add_mutually_exclusive_group()
    source.add_argument(
        "--data",
        type=data_source,
        default="digits",
        metavar="DATA",
        help="digits, the embedded 8x8 images; openml, MNIST; or openml:NAME, another data set",
    )
    source.add_argument("--data-dir", type=Path, metavar="DIR", help="four IDX files in MNIST's format, gzipped or not")
    result.add_argument("--epochs", type=positive, metavar="N", help="passes over the training images")
    result.add_argument("--seed", type=natural, default=0, metavar="S", help="the first seed")
    result.add_argument("--seeds", type=positive, default=1, metavar="N", help="how many seeds, from the first one on")
    result.add_argument("--search", metavar="NAME", help="the tansaku algorithm in place of an experiment's own")
    result.add_argument("--difference", action="store_true", help=f"{DIFFERENCE}, in place of its first variant")
    result.add_argument("--jobs", type=positive, default=1, metavar="N", help="networks that train at once")
    result.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    result.add_argument("--out", type=Path, default=Path("runs/mnist"), metavar="DIR", help="where the results go")
    result.add_argument("--resume", action="store_true", help="continue after the last finished epoch found in --out")
    return result


def data_source(text: str) -> str:
    """Return "digits", "openml" or "openml:NAME"."""
    if not re.fullmatch("digits|openml(:.+)?", text):
        raise argparse.ArgumentTypeError(f"expected digits, openml or openml:NAME, got {text!r}")
    return text


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


def with_difference(names: Sequence[str]) -> list[str]:
    """Return the names with the variant that `--difference` means.

    Raises:
        UsageError: they name other experiments only.
    """
    experiment = DIFFERENCE.partition(":")[0]
    found = [DIFFERENCE if name.replace("_", "-") == experiment else name for name in names or [experiment]]
    if DIFFERENCE not in found and "all" not in found:
        raise UsageError(f"expected {experiment} for --difference, got {', '.join(names)}; name it, or leave that out")
    return found


def named(names: Sequence[str]) -> dict[str, tuple[Experiment, list[str]]]:
    """Return the experiments of these names, each once, with the variants asked for.

    A name is `NAME`, which means the first variant, `NAME:VARIANT`, or "all"; it is spelt with `-` or `_`.

    Raises:
        UsageError: there is no experiment or no variant of a name.
    """
    names = [name.replace("_", "-") for name in names]
    known = experiments.known()
    unknown = [name for name in names if name != "all" and name.split(":")[0] not in known]
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


def planned(chosen: Chosen, data: str, seeds: Iterable[int], epochs: int | None, search: str | None) -> list[Run]:
    """Return the runs of all these variants and of their controls, in the order of training: seed after seed."""
    runs = []
    for seed in seeds:
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


def check_search(search: str, chosen: Chosen) -> None:
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
    names = with_difference(options.names) if options.difference else options.names
    chosen = named(names or experiments.DEFAULT)
    if options.search is not None:
        check_search(options.search, chosen)
    out: Path = options.out
    place = Place(options.data, options.data_dir, usable_device(options.device), out / "checkpoints")
    images = place.images()
    seeds = range(options.seed, options.seed + options.seeds)
    runs = planned(chosen, images.name, seeds, options.epochs, options.search)
    check_writable(out, *report.FILES)
    check_writable(place.checkpoints, *(run.file for run in runs))
    rows = report.earlier_rows(out)
    if options.resume:
        resume(runs, out)
    replaced = report.replaced(runs, rows, out)
    if replaced:
        say(f"new results will replace earlier ones in {out}: {', '.join(replaced)}; another --out keeps them")
    code, remark = 0, ""
    try:
        one = options.jobs == 1
        if broken := jobs.one_by_one(runs, place, images) if one else jobs.at_once(runs, place, options.jobs):
            code, remark = BROKEN, f"{', '.join(broken)} broke, by the errors above"
    except KeyboardInterrupt:
        code, remark = INTERRUPTED, "stopped by Ctrl-C"
    if not any(run.epochs for run in runs):
        say(f"{remark} before the end of the first epoch; nothing was written")
        return code
    command = shlex.join(["python", "examples/mnist.py", *(sys.argv[1:] if arguments is None else arguments)])
    kept = report.write(runs, registered(), command, out)
    show(report.results(runs), out, kept)
    if code:
        say(f"{remark}; the same command with --resume continues")
    return code


def registered() -> table.Variants:
    """Return the variants of all experiments, with what is known of them."""
    return {name: experiments.get(name).variants for name in experiments.known()}


def show(rows: table.Rows, out: Path, kept: Sequence[str]) -> None:
    """Print the table, and where the files are."""
    console = Console(width=None if sys.stdout.isatty() else FILE_WIDTH)
    lines = table.lines(rows, registered())
    seeds = sorted({row["seed"] for row in rows})
    title = f"{', '.join({line.data for line in lines})}, seed {', '.join(map(str, seeds))}"
    console.print(table.printed(lines, title))
    written = f"Wrote {', '.join(report.FILES[:-1])} and {report.FILES[-1]} in {out}"
    if kept:
        written += f"; results.json keeps the earlier results of {', '.join(dict.fromkeys(kept))}"
    console.print(written, soft_wrap=True, highlight=False)


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
