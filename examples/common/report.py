"""What a command leaves behind: `results.json`, `curves.png`, `table.json`, `table.png`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common import checkpoints, pictures, table
from common.checkpoints import Run
from common.errors import UsageError
from common.files import write_atomically

RESULTS, CURVES, TABLE, CHART = FILES = ("results.json", "curves.png", "table.json", "table.png")


def results(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return an object per experiment, variant and seed with at least one finished epoch.

    `frozen` and `backprop` are the controls' test accuracies, None where there is no such control that has trained to
    the end on the same budget, data and seed.
    """
    return [
        {
            "experiment": run.experiment,
            "variant": run.variant,
            "search": run.search,
            "data": run.data,
            "seed": run.seed,
            "epochs": run.epochs,
            "planned_epochs": run.planned_epochs,
            "accuracy": run.test[-1],
            "validation": run.validation[-1],
            "frozen": _of_control(runs, run, "frozen", "accuracy"),
            "backprop": _of_control(runs, run, "backprop", "accuracy"),
            "evaluations": run.evaluations,
            "seconds": round(run.seconds, 3),
            "backprop_seconds": _of_control(runs, run, "backprop", "seconds"),
            "parameters": run.parameters,
            "commit": run.commit,
        }
        for run in runs
        if run.control is None and run.epochs
    ]


def _of_control(runs: Sequence[Run], run: Run, name: str, entry: str) -> float | None:
    for other in runs:
        if other.control == name and _controls(other, run):
            return other.test[-1] if entry == "accuracy" else round(other.seconds, 3)
    return None


def _controls(control: Run, run: Run) -> bool:
    """Return whether one run is a control of another, with the same budget, and at its end."""
    alike = (control.experiment, control.data, control.seed) == (run.experiment, run.data, run.seed)
    if not alike or control.variant not in (None, run.variant):
        return False
    return control.finished and control.planned_epochs == run.planned_epochs


def earlier_rows(out: Path) -> list[dict[str, Any]]:
    """Return what `results.json` of a directory holds, nothing where there is none.

    Raises:
        UsageError: the file holds something else.
    """
    path = out / RESULTS
    if not path.exists():
        return []
    try:
        rows = json.loads(path.read_bytes())
        if not all({"experiment", "variant", "data", "seed"} <= row.keys() for row in rows):
            raise ValueError("an object without variant, data or seed")
    except OSError as error:
        raise UsageError(f"{path}: expected a readable file, got {error.strerror}; give another --out") from error
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise UsageError(
            f"{path}: expected the results of an earlier command, got another kind of file; "
            "move it, or give another --out"
        ) from error
    return list(rows)


def replaced(runs: Sequence[Run], rows: Sequence[Mapping[str, Any]], out: Path) -> list[str]:
    """Return the names, with data and seed, of the networks that start again and have earlier rows or checkpoints."""
    begin = [run for run in runs if not run.epochs and run.control is None]
    anew = {_key(vars(run)): f"{run.name} ({run.data}, seed {run.seed})" for run in begin}
    earlier = {_key(row) for row in rows}
    earlier |= {_key(vars(run)) for run in checkpoints.found(out / "checkpoints") if run.control is None}
    return sorted(name for key, name in anew.items() if key in earlier)


def write(runs: Sequence[Run], variants: table.Variants, command: str, out: Path) -> list[str]:
    """Write all `FILES` into a directory, each whole or not at all; the table is of `runs` alone.

    Earlier results there of networks that have not begun in `runs` stay in `results.json`: as their checkpoints have
    them, else as their rows. The curves show those of the same data and seeds.

    Returns:
        The names of those networks.

    Raises:
        UsageError: a file cannot be written, or `results.json` is not one of this program.
    """
    begun = {run.file for run in runs if run.epochs}
    earlier = [run for run in checkpoints.found(out / "checkpoints") if run.file not in begun]
    all_runs = [run for run in runs if run.epochs]
    networks = [run for run in all_runs + earlier if run.control is None]
    all_runs += [run for run in earlier if run.control is None or any(_controls(run, other) for other in networks)]
    found = results(all_runs)
    keys = {_key(row) for row in found}
    found += [row for row in earlier_rows(out) if _key(row) not in keys]
    now = {_key(vars(run)) for run in runs if run.epochs and run.control is None}
    own = [row for row in found if _key(row) in now]
    seeds = {(run.data, run.seed) for run in runs}
    drawn = [run for run in all_runs if (run.data, run.seed) in seeds]
    commits = sorted({row["commit"] for row in own if row["commit"]})
    made = {"command": command, "commit": ", ".join(commits) or None, "results": own}
    write_atomically(out / RESULTS, _json(found))
    write_atomically(out / CURVES, pictures.png(pictures.curves(drawn)))
    write_atomically(out / TABLE, _json(made))
    write_atomically(out / CHART, pictures.png(pictures.table(table.lines(own, variants))))
    return [str(row["experiment"]) for row in found if _key(row) not in now]


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(entry) for entry in ("experiment", "variant", "search", "data", "seed"))
