"""What a run leaves behind: `results.json`, `curves.png`, a table."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from common.files import write_atomically
from common.loop import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Papers = Mapping[str, float | None]
STYLES = ("-", "--", ":", "-.")


def results(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return an object per experiment with at least one finished epoch; a control is its experiment's further entry."""
    begun = [run for run in runs if run.epochs]
    return [
        {
            "experiment": run.experiment,
            "data": run.data,
            "seed": run.seed,
            "epochs": run.epochs,
            "accuracy": run.test[-1],
            "validation": run.validation[-1],
            "seconds": round(run.seconds, 3),
            "parameters": run.parameters,
        }
        | {control.control: control.test[-1] for control in begun if control.control and _same(run, control)}
        for run in begun
        if run.control is None
    ]


def write(runs: Sequence[Run], out: Path) -> None:
    """Write `results.json` and `curves.png` into a directory, each whole or not at all."""
    write_atomically(out / "results.json", (json.dumps(results(runs), indent=2) + "\n").encode())
    write_atomically(out / "curves.png", picture(runs))


def table(runs: Sequence[Run], papers: Papers, console: Console) -> None:
    """Print a row per network; the paper's figure stands beside an MNIST run of an experiment that has one."""
    shown = Table("network", "data", "seed", "epochs", "validation", "test", "seconds", "parameters")
    for column in shown.columns[2:]:
        column.justify = "right"
    with_paper = any(run.data == "mnist" and papers.get(run.experiment) is not None for run in runs)
    if with_paper:
        shown.add_column("paper", justify="right")
    for run in runs:
        figures = [f"{run.validation[-1]:.4f}", f"{run.test[-1]:.4f}"] if run.epochs else ["-", "-"]
        epochs = str(run.epochs) if run.finished else f"{run.epochs} of {run.planned_epochs}"
        row = [run.name, run.data, str(run.seed), epochs, *figures, f"{run.seconds:.1f}", f"{run.parameters:,}"]
        paper = papers.get(run.experiment) if run.control is None else None
        shown.add_row(*row, *([f"{paper:.3f}" if paper is not None else "-"] if with_paper else []))
    console.print(shown)


def picture(runs: Sequence[Run]) -> bytes:
    """Draw test accuracy per epoch, and per layer the distance to the target and the local error reduction; a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 4.2), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3)
    colors = {name: f"C{i}" for i, name in enumerate(dict.fromkeys(run.experiment for run in runs))}
    for run in runs:
        epochs = range(1, run.epochs + 1)
        style = "-" if run.control is None else "--"
        left.plot(epochs, run.test, style, color=colors[run.experiment], marker=".", label=run.name)
    _decorate(left, "Test accuracy", "share of images classified rightly")
    for axes, quantity, title, unit in (
        (middle, "distance", "Distance from output to target", "root of the mean squared difference"),
        (right, "local_error_reduction", "Local error reduction (equation 5)", "share of the local cost removed by a step"),
    ):
        for run in runs:
            if run.control is None:
                _draw_layers(axes, run, quantity, colors[run.experiment])
        _decorate(axes, title, unit)
    buffer = io.BytesIO()
    canvas.print_png(buffer)
    return buffer.getvalue()


def _same(run: Run, control: Run) -> bool:
    return (run.experiment, run.data, run.seed) == (control.experiment, control.data, control.seed)


def _draw_layers(axes: Axes, run: Run, quantity: str, color: str) -> None:
    names = list(run.layers[0]) if run.layers else []
    for i, name in enumerate(names):
        points = [(epoch, layers[name][quantity]) for epoch, layers in enumerate(run.layers, 1) if quantity in layers[name]]
        if points:
            axes.plot(*zip(*points, strict=True), STYLES[i % len(STYLES)], color=color, label=f"{run.experiment}: {name}")


def _decorate(axes: Axes, title: str, unit: str) -> None:
    axes.set(title=title, xlabel="epoch", ylabel=unit)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize="small")
