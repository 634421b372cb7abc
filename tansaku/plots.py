"""Pictures of a search. matplotlib loads on first use."""

from __future__ import annotations

import os
from typing import Any

from torch import Tensor

from tansaku.history import History


def plot_history(history: History, path: str | os.PathLike[str], title: str = "") -> None:
    """Draws best, median and spread against evaluations, or the hypervolume if there is one, and writes the picture.

    Several searches are drawn as their median, with the range between the quarters shaded.

    Args:
        history: of at least one generation.
        path: where to write; the ending says the format (png, pdf, svg).
        title: above the picture.

    Raises:
        ValueError: an empty history.
    """
    if not len(history):
        raise ValueError("expected a history of at least one generation, got an empty one; run the search first")
    figure, axes = _axes()
    positive = True
    volume = history.hypervolume is not None
    names = ["hypervolume"] if volume else ["best", "median", "spread"]
    for name, colour in zip(names, ("tab:blue", "tab:orange", "tab:green"), strict=False):
        column = getattr(history, name).detach().double().cpu().reshape(len(history), -1)
        middle = column.median(1).values
        axes.plot(history.evaluations, middle, color=colour, label=name if name != "spread" else "spread (sd)")
        if column.shape[1] > 1:
            axes.fill_between(
                history.evaluations, column.quantile(0.25, 1), column.quantile(0.75, 1), color=colour, alpha=0.2
            )
        if name in ("best", "median"):
            positive = positive and bool((middle > 0).all())
    if positive and not volume:
        axes.set_yscale("log")
    axes.set_xlabel("evaluations per search")
    axes.set_ylabel("hypervolume" if volume else "value")
    axes.set_title(title)
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def plot_front(value: Tensor, path: str | os.PathLike[str], title: str = "") -> None:
    """Draws a Pareto front: the second objective against the first, a third one as colour; every search its own marks.

    Args:
        value: [j, *batch_shape, m] values of the front's candidates, m >= 2.
        path: where to write; the ending says the format (png, pdf, svg).
        title: above the picture.

    Raises:
        ValueError: fewer than two objectives.
    """
    if value.shape[-1] < 2:
        raise ValueError(
            f"expected at least two objectives to draw a front of, got {value.shape[-1]}; plot the history"
        )
    figure, axes = _axes()
    columns = value.detach().double().cpu().reshape(value.shape[0], -1, value.shape[-1])
    for search, marker in zip(columns.unbind(1), "osD^v<>P*X" * columns.shape[1], strict=False):
        colour = {"c": search[:, 2]} if value.shape[-1] > 2 else {}
        drawn = axes.scatter(search[:, 0], search[:, 1], s=16, marker=marker, **colour)
    if value.shape[-1] > 2:
        figure.colorbar(drawn, label="objective 3")
    axes.set_xlabel("objective 1")
    axes.set_ylabel("objective 2")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def _axes() -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()
