"""What a run leaves behind: `results.json`, `curves.png`, a table."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from common import checkpoints
from common.checkpoints import Run
from common.errors import UsageError
from common.experiment import PAPER, Figures
from common.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Variants = Mapping[str, Mapping[str, Figures]]  # experiment -> variant -> what is known of it
RESULTS, CURVES = FILES = ("results.json", "curves.png")
STYLES = ("-", "--", ":", "-.")


def results(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return an object per experiment with at least one finished epoch.

    A control with the experiment's whole budget behind it is a further entry of its experiment: its test accuracy.
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
            "evaluations": run.evaluations,
            "seconds": round(run.seconds, 3),
            "parameters": run.parameters,
        }
        | {other.control: other.test[-1] for other in runs if other.control and _controls(other, run)}
        for run in runs
        if run.control is None and run.epochs
    ]


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
        if not all(isinstance(row["experiment"], str) and {"data", "seed"} <= row.keys() for row in rows):
            raise ValueError("an object without data or seed")
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
    anew = {_key(run): f"{run.name} ({run.data}, seed {run.seed})" for run in begin}
    earlier = {_row_key(row) for row in rows} | {_key(run) for run in checkpoints.found(out / "checkpoints")}
    return sorted(name for key, name in anew.items() if key in earlier)


def write(runs: Sequence[Run], out: Path) -> list[str]:
    """Write `results.json` and `curves.png` into a directory, each whole or not at all.

    Earlier results there of networks that have not begun in `runs` stay: whole where their checkpoints are there, else
    their rows of `results.json`.

    Returns:
        The names of those networks.

    Raises:
        UsageError: a file cannot be written, or `results.json` is not one of this program.
    """
    begun = {run.file for run in runs if run.epochs}
    earlier = [run for run in checkpoints.found(out / "checkpoints") if run.file not in begun]
    shown = [run for run in runs if run.epochs]
    whole = [run for run in shown + earlier if run.control is None]
    shown += [run for run in earlier if run.control is None or any(_controls(run, other) for other in whole)]
    found = results(shown)
    keys = {_row_key(row) for row in found}
    found += [row for row in earlier_rows(out) if _row_key(row) not in keys]
    write_atomically(out / RESULTS, (json.dumps(found, indent=2) + "\n").encode())
    write_atomically(out / CURVES, picture(shown))
    now = {_key(run) for run in runs if run.epochs}
    return [str(row["experiment"]) for row in found if _row_key(row) not in now]


def table(runs: Sequence[Run], variants: Variants, console: Console) -> None:
    """Print a row per network; the paper's figure stands beside an MNIST run of a variant that has one."""
    title = ", ".join(dict.fromkeys(f"{run.data}, seed {run.seed}" for run in runs))
    columns = ["network", "epochs", "validation", "test", "training seconds", "parameters"]
    papers = {run.file: _paper(run, variants) for run in runs}
    with_paper = any(papers.values())
    if with_paper:
        columns.append("paper's test")
    shown = Table(*columns, title=title, box=box.SIMPLE_HEAD)
    for column in shown.columns[1:]:
        column.justify = "right"
    for run in runs:
        row = [run.name, str(run.epochs) if run.finished else f"{run.epochs} of {run.planned_epochs}"]
        if run.epochs:
            row += [f"{run.validation[-1]:.4f}", f"{run.test[-1]:.4f}", f"{run.seconds:.1f}", f"{run.parameters:,}"]
        else:
            row += ["-"] * 4
        if with_paper:
            paper = papers[run.file]
            row.append(f"{paper:.3f}" if paper else "-")
        shown.add_row(*row)
    console.print(shown)


def _paper(run: Run, variants: Variants) -> float | None:
    if run.data != "mnist" or run.control is not None or run.variant is None:
        return None
    return variants.get(run.experiment, {}).get(run.variant, Figures()).paper


def _controls(control: Run, run: Run) -> bool:
    """Return whether one run is a control of another, with the same budget, and at its end."""
    alike = (control.experiment, control.data, control.seed) == (run.experiment, run.data, run.seed)
    if not alike or control.variant not in (None, run.variant):
        return False
    return control.finished and control.planned_epochs == run.planned_epochs


def _key(run: Run) -> tuple[Any, ...]:
    return (run.experiment, run.variant, run.search, run.data, run.seed)


def _row_key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(entry) for entry in ("experiment", "variant", "search", "data", "seed"))


def picture(runs: Sequence[Run]) -> bytes:
    """Return `figure(runs)` as a PNG."""
    buffer = io.BytesIO()
    figure(runs).savefig(buffer, format="png")
    return buffer.getvalue()


def figure(runs: Sequence[Run]) -> Figure:
    """Draw test accuracy, and per layer the distance to the target and the error reductions, over each epoch.

    The horizontal axis is the share of a run's own training, for budgets differ.
    """
    from matplotlib.figure import Figure

    result = Figure(figsize=(12, 8), layout="constrained")
    accuracy, distance, local, whole = result.subplots(2, 2).flat
    local.set_yscale("symlog", linthresh=0.1)  # a step may overshoot a near target many times over
    colors = {name: f"C{i}" for i, name in enumerate(dict.fromkeys(run.experiment for run in runs))}
    for run in runs:
        style = "-" if run.control is None else "--"
        label = f"{run.name}, {run.planned_epochs} epochs"
        accuracy.plot(_shares(run), run.test, style, color=colors[run.experiment], marker=".", label=label)
        if run.control is None:
            _draw_layers(distance, run, "distance", colors[run.experiment])
            _draw_layers(local, run, "local", colors[run.experiment])
            _draw_layers(whole, run, "global", colors[run.experiment])
    _decorate(accuracy, "Test accuracy", "share of images classified rightly")
    _decorate(distance, "Distance from output to target", "Euclidean distance, mean over images")
    _decorate(local, "Local error reduction (equation 5 of the paper)", "share of the layer's cost removed by its step")
    _decorate(
        whole, "Global error reduction (equation 4 of the paper)", "fall of the network's cost by the layer's step"
    )
    result.supxlabel(f"The paper: {PAPER}", fontsize="small")
    return result


def _draw_layers(axes: Axes, run: Run, quantity: str, color: str) -> None:
    names = dict.fromkeys(name for layers in run.layers for name in layers)
    for style, name in zip(itertools.cycle(STYLES), names):
        layers = zip(_shares(run), run.layers, strict=True)
        points = [(share, found[name][quantity]) for share, found in layers if quantity in found.get(name, {})]
        if points:
            axes.plot(*zip(*points, strict=True), style, color=color, label=f"{run.experiment}: {name}")


def _shares(run: Run) -> list[float]:
    """Return the share of the planned training, in percent, that was done at the end of each finished epoch."""
    return [100.0 * epoch / run.planned_epochs for epoch in range(1, run.epochs + 1)]


def _decorate(axes: Axes, title: str, unit: str) -> None:
    axes.set(title=title, xlabel="share of the training done (%)", ylabel=unit, xlim=(0, 101))
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize="small")
