"""Compare searches on the experiments that search: the same network and budget, another of tansaku's algorithms.

    python examples/searches.py [NAME ...] [--epochs N] [--seed S]

Prints a table in markdown: accuracy on the test images of scikit-learn's digits, a row for each experiment and a
column for each search. `docs/searches.md` shows it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

import experiments
from common import data
from common.checkpoints import Run
from common.experiment import Plan
from common.loop import train

OWN = "own"
NAMES: Mapping[str, tuple[str, ...]] = {  # experiment -> the searches compared
    "evolved": (OWN, "hill_climb", "snes", "cem"),
    "searched-targets": (OWN, "hill_climb", "snes", "cem"),
    "sign": (OWN, "hill_climb", "snes", "cem"),
    "fuzzy": (OWN, "hill_climb", "snes", "cem"),
    "black-box": (OWN, "hill_climb", "snes", "cem"),
}


def accuracy(name: str, search: str, images: data.Data, seed: int = 0, epochs: int | None = None) -> float:
    """Return the test accuracy of an experiment's first variant with this search, after its budget on the digits."""
    experiment = experiments.get(name)
    variant = next(iter(experiment.variants))
    wanted = None if search == OWN else search
    run = Run(name, variant, None, "digits", seed, epochs or experiment.epochs["digits"], search=wanted)
    plan = Plan(images, run.planned_epochs, seed, torch.device("cpu"), variant, wanted)
    with tempfile.TemporaryDirectory() as folder:
        train(experiment, run, plan, Path(folder) / run.file, report=lambda: None)
    return run.test[-1]


def table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Return the table: experiment -> search -> accuracy.

    >>> print(table({"sign": {"own": 0.95, "snes": 0.9}}))
    | experiment | own | `snes` |
    |---|---|---|
    | `sign` | 0.950 | 0.900 |
    """
    searches = list(dict.fromkeys(search for found in rows.values() for search in found))
    names = [search if search == OWN else f"`{search}`" for search in searches]
    lines = [f"| experiment | {' | '.join(names)} |", "|---" * (len(searches) + 1) + "|"]
    for name, found in rows.items():
        cells = [f"{found[search]:.3f}" if search in found else "" for search in searches]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what the command names, and print the table."""
    parser = argparse.ArgumentParser(description="Compare searches on the experiments that search.")
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    images = data.load()
    rows: dict[str, dict[str, float]] = {}
    for name in options.names or NAMES:
        rows[name] = {}
        for search in NAMES[name]:
            rows[name][search] = accuracy(name, search, images, options.seed, options.epochs)
            print(f"{name}, {search}: {rows[name][search]:.3f}", flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
