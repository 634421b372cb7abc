"""The two pictures of a command: the curves of its training, and its table."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from common.checkpoints import Run
from common.experiment import PAPER
from common.table import Line, deviation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLES = ("-", "--", ":", "-.")
CONTROLS = {"frozen": "0.6", "backprop": "0.2"}  # greys
FEW = 2  # networks whose layers one picture can show
PER_ROW = 3
TICKS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
LEAST_ERROR = 1e-4  # one image of MNIST's test images: a logarithm needs more than 0
OURS = "ours, ± sd over seeds"


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def curves(runs: Sequence[Run]) -> Figure:
    """Draw what happened in training: few networks in detail, of many the accuracies, a panel for each experiment."""
    networks = {(run.experiment, run.variant, run.search) for run in runs if run.control is None}
    seeds = {run.seed for run in runs}
    return _detailed(runs) if len(networks) <= FEW and len(seeds) == 1 else _panels(runs)


def _detailed(runs: Sequence[Run]) -> Figure:
    """Draw test accuracy, and per layer the distance to the target and the error reductions, over each epoch."""
    from matplotlib.figure import Figure

    result = Figure(figsize=(12, 8), layout="constrained")
    accuracy, distance, local, whole = result.subplots(2, 2).flat
    local.set_yscale("symlog", linthresh=0.1)  # a step may overshoot a near target many times over
    colors = {name: f"C{i}" for i, name in enumerate(dict.fromkeys(run.experiment for run in runs))}
    for run in runs:
        style = "-" if run.control is None else "--" if run.control == "frozen" else ":"
        accuracy.plot(_epochs(run), run.test, style, color=colors[run.experiment], marker=".", label=run.name)
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


def _panels(runs: Sequence[Run]) -> Figure:
    """Draw test accuracy, a panel for each experiment: a colour for each variant, a line for each seed."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(run.experiment for run in runs))
    columns = min(PER_ROW, len(names))
    rows = math.ceil(len(names) / columns)
    result = Figure(figsize=(4.5 * columns, 3.5 * rows), layout="constrained")
    panels = list(result.subplots(rows, columns, squeeze=False).flat)
    for panel, name in itertools.zip_longest(panels, names):
        if name is None:
            panel.remove()
            continue
        shown = [run for run in runs if run.experiment == name]
        labels = dict.fromkeys(run.name for run in shown if run.control is None)
        colors = {label: f"C{i}" for i, label in enumerate(labels)}
        told = set()
        for run in shown:
            label = run.control or run.name
            color = CONTROLS.get(run.control, "0.8") if run.control else colors[label]
            style = "--" if run.control else "-"
            panel.plot(_epochs(run), run.test, style, color=color, label=None if label in told else label)
            told.add(label)
        _decorate(panel, name, "test accuracy")
    return result


def table(lines: Sequence[Line]) -> Figure:
    """Draw a table: for each network its error, with its deviation over seeds, beside controls, paper and goal.

    The axis is logarithmic in the error, since most of the table is within some percent of 1.
    """
    from matplotlib.figure import Figure

    result = Figure(figsize=(9, 1.5 + 0.4 * len(lines)), layout="constrained")
    axes = result.subplots()
    heights = range(len(lines), 0, -1)
    figures: Mapping[str, tuple[str, str, list[float | None]]] = {
        "frozen": ("<", "0.6", [line.frozen for line in lines]),
        "backprop": (">", "0.2", [line.backprop for line in lines]),
        "paper": ("x", "C3", [line.figures.paper for line in lines]),
        "goal": ("|", "C2", [line.figures.goal for line in lines]),
    }
    ours = [line.accuracy for line in lines]
    errors = [_error(v) for _, _, values in figures.values() for v in values if v is not None]
    errors += [_error(v) for v in ours if v is not None]
    axes.set_xscale("log")
    for label, (marker, color, values) in figures.items():
        points = [(_error(value), y) for value, y in zip(values, heights, strict=True) if value is not None]
        if points:
            axes.plot(*zip(*points, strict=True), marker, color=color, label=label, markersize=8)
    for line, value, y in zip(lines, ours, heights, strict=True):
        if value is not None:
            spread = deviation(line.accuracies) or 0.0
            axes.errorbar(_error(value), y, xerr=spread, fmt="o", color="C0", capsize=3, label=OURS)
    axes.set_xticks(TICKS, [f"{100 * tick:g}%" for tick in TICKS])
    axes.minorticks_off()
    axes.set_xlim(max(errors, default=1.0) * 1.5, min(errors, default=0.01) / 1.5)  # better is further right
    axes.set_yticks(list(heights), [line.name for line in lines])
    axes.set(xlabel="share of test images classified wrongly", ylim=(0.4, len(lines) + 0.6))
    axes.grid(alpha=0.3)
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    result.legend(once.values(), once.keys(), loc="outside upper center", ncols=5, fontsize="small")
    result.supxlabel(f"The paper: {PAPER}", fontsize="small")
    return result


def _error(accuracy: float) -> float:
    return max(1.0 - accuracy, LEAST_ERROR)


def _draw_layers(axes: Axes, run: Run, quantity: str, color: str) -> None:
    names = dict.fromkeys(name for layers in run.layers for name in layers)
    for style, name in zip(itertools.cycle(STYLES), names):
        layers = zip(_epochs(run), run.layers, strict=True)
        points = [(epoch, found[name][quantity]) for epoch, found in layers if quantity in found.get(name, {})]
        if points:
            axes.plot(*zip(*points, strict=True), style, color=color, label=f"{run.experiment}: {name}")


def _epochs(run: Run) -> range:
    return range(1, run.epochs + 1)


def _decorate(axes: Axes, title: str, unit: str) -> None:
    axes.set(title=title, xlabel="epoch", ylabel=unit)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize="small")
