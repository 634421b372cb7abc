"""Pictures of a search. matplotlib loads on first use."""

from __future__ import annotations

import os
from typing import Any

from torch import Tensor

from tansaku.algorithms.cells import Cells, Centroids, Grid
from tansaku.history import History
from tansaku.population import Population


def plot_history(history: History, path: str | os.PathLike[str], title: str = "") -> None:
    """Draws best, median and spread against evaluations, or the hypervolume if there is one, and writes the picture.

    Several searches are drawn as their median, with the range between the quarters shaded. With violations the share
    of feasible candidates is drawn too, on an axis of its own at the right; the other curves have gaps where no
    candidate was feasible.

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
        middle = column.nanmedian(1).values  # NaN where no candidate was feasible
        axes.plot(history.evaluations, middle, color=colour, label=name if name != "spread" else "spread (sd)")
        if column.shape[1] > 1:
            axes.fill_between(
                history.evaluations, column.nanquantile(0.25, 1), column.nanquantile(0.75, 1), color=colour, alpha=0.2
            )
        if name in ("best", "median"):
            known = middle[~middle.isnan()]
            positive = positive and len(known) > 0 and bool((known > 0).all())
    if positive and not volume:
        axes.set_yscale("log")
    axes.set_xlabel("evaluations per search")
    axes.set_ylabel("hypervolume" if volume else "value")
    axes.set_title(title)
    if history.constrained:
        share = history.feasible.detach().double().cpu().reshape(len(history), -1).mean(1)
        right = axes.twinx()
        right.set_ylim(-0.02, 1.02)
        right.set_ylabel("share of feasible candidates")
        axes.plot([], [], color="tab:grey", linestyle=":", label="feasible (share)")
        right.plot(history.evaluations, share, color="tab:grey", linestyle=":")
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


def plot_archive(
    archive: Population, cells: Cells, path: str | os.PathLike[str], title: str = "", search: int = 0
) -> None:
    """Draws a heat map of an archive: every cell in the colour of its elite's value.

    Cells that are empty or whose elite is infeasible are white.

    Args:
        archive: one candidate per cell, such as ``search.state.archive`` of `MapElites`.
        cells: its `Grid` or `Centroids`, of one or two dimensions.
        path: where to write; the ending says the format (png, pdf, svg).
        title: above the picture.
        search: which search's archive, counted through a flattened ``batch_shape``.

    Raises:
        ValueError: cells of more dimensions, or an archive without values.
    """
    if cells.dimensions > 2 or archive.assessment is None:
        raise ValueError(
            f"expected an assessed archive with one or two dimensions, got {cells.dimensions}; draw another descriptor"
        )
    figure, axes = _axes()
    known = archive.assessment.feasible_cost
    value, cost = (x.reshape(x.shape[0], -1)[:, search] for x in (archive.assessment.value, known))
    value = value.masked_fill(cost == float("inf"), float("nan")).detach().double().cpu()
    if isinstance(cells, Grid):
        low, high = ([*end, float(i)][:2] for i, end in enumerate(cells.ends))  # one dimension is a band from 0 to 1
        table = value.reshape(*cells.shape, *([1] if cells.dimensions == 1 else []))
        drawn = axes.imshow(
            table.T.numpy(),
            origin="lower",
            aspect="auto",
            interpolation="nearest",
            extent=(low[0], high[0], low[1], high[1]),
        )
    elif isinstance(cells, Centroids):
        points = cells.points.double().cpu()
        upright = points[:, 1] if cells.dimensions == 2 else points[:, 0] * 0
        axes.scatter(points[:, 0], upright, s=4, color="lightgrey")
        drawn = axes.scatter(points[:, 0], upright, c=value, s=24)
    else:
        raise ValueError(f"expected a Grid or Centroids to draw, got {type(cells).__name__}; draw its points yourself")
    figure.colorbar(drawn, label="value")
    axes.set_xlabel("descriptor 1")
    axes.set_ylabel("descriptor 2" if cells.dimensions == 2 else "")
    axes.set_title(title)
    figure.savefig(path, dpi=120)


def _axes() -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()
