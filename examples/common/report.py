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

from common.files import write_atomically
from common.loop import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
        | {other.control: other.test[-1] for other in begun if other.control and other.experiment == run.experiment}
        for run in begun
        if run.control is None
    ]


def write(runs: Sequence[Run], out: Path) -> None:
    """Write `results.json` and `curves.png` into a directory, each whole or not at all."""
    write_atomically(out / "results.json", (json.dumps(results(runs), indent=2) + "\n").encode())
    write_atomically(out / "curves.png", picture(runs))


def table(runs: Sequence[Run], papers: Papers, console: Console) -> None:
    """Print a row per network; the paper's figure stands beside an MNIST run of an experiment that has one."""
    title = ", ".join(dict.fromkeys(f"{run.data}, seed {run.seed}" for run in runs))
    shown = Table("network", "epochs", "validation", "test", "seconds", "parameters", title=title, box=box.SIMPLE_HEAD)
    with_paper = any(run.data == "mnist" and papers.get(run.experiment) for run in runs)
    if with_paper:
        shown.add_column("paper")
    for column in shown.columns[1:]:
        column.justify = "right"
    for run in runs:
        row = [run.name, str(run.epochs) if run.finished else f"{run.epochs} of {run.planned_epochs}"]
        row += [f"{run.validation[-1]:.4f}", f"{run.test[-1]:.4f}"] if run.epochs else ["-", "-"]
        row += [f"{run.seconds:.1f}", f"{run.parameters:,}"]
        if with_paper:
            paper = papers.get(run.experiment) if run.control is None else None
            row.append(f"{paper:.3f}" if paper else "-")
        shown.add_row(*row)
    console.print(shown)


def picture(runs: Sequence[Run]) -> bytes:
    """Return `figure(runs)` as a PNG."""
    buffer = io.BytesIO()
    figure(runs).savefig(buffer, format="png")
    return buffer.getvalue()


def figure(runs: Sequence[Run]) -> Figure:
    """Draw test accuracy per epoch, and per layer the distance to the target and the error reductions."""
    from matplotlib.figure import Figure

    result = Figure(figsize=(12, 8), layout="constrained")
    accuracy, distance, local, whole = result.subplots(2, 2).flat
    colors = {name: f"C{i}" for i, name in enumerate(dict.fromkeys(run.experiment for run in runs))}
    for run in runs:
        epochs = range(1, run.epochs + 1)
        style = "-" if run.control is None else "--"
        accuracy.plot(epochs, run.test, style, color=colors[run.experiment], marker=".", label=run.name)
        if run.control is None:
            _draw_layers(distance, run, "distance", colors[run.experiment])
            _draw_layers(local, run, "local", colors[run.experiment])
            _draw_layers(whole, run, "global", colors[run.experiment])
    _decorate(accuracy, "Test accuracy", "share of images classified rightly")
    _decorate(distance, "Distance from output to target", "Euclidean distance, mean over images")
    _decorate(local, "Local error reduction (equation 5)", "share of the layer's cost removed by its step")
    _decorate(whole, "Global error reduction (equation 4)", "fall of the network's cost by the layer's step")
    local.set_yscale("symlog", linthresh=0.1)  # a step may overshoot a near target many times over
    return result


def _draw_layers(axes: Axes, run: Run, quantity: str, color: str) -> None:
    names = dict.fromkeys(name for layers in run.layers for name in layers)
    for style, name in zip(itertools.cycle(STYLES), names):
        points = [(i, layers[name][quantity]) for i, layers in enumerate(run.layers, 1) if quantity in layers[name]]
        if points:
            axes.plot(*zip(*points, strict=True), style, color=color, label=f"{run.experiment}: {name}")


def _decorate(axes: Axes, title: str, unit: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set(title=title, xlabel="epoch", ylabel=unit)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize="small")
