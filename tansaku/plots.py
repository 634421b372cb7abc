"""Pictures of a search. matplotlib loads on first use."""

from __future__ import annotations

import os

from tansaku.history import History


def plot_history(history: History, path: str | os.PathLike[str], title: str = "") -> None:
    """Draws best, median and spread against evaluations and writes the picture.

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
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    positive = True
    for name, colour in (("best", "tab:blue"), ("median", "tab:orange"), ("spread", "tab:green")):
        column = getattr(history, name).detach().double().cpu().reshape(len(history), -1)
        middle = column.median(1).values
        axes.plot(history.evaluations, middle, color=colour, label=name if name != "spread" else "spread (sd)")
        if column.shape[1] > 1:
            axes.fill_between(
                history.evaluations, column.quantile(0.25, 1), column.quantile(0.75, 1), color=colour, alpha=0.2
            )
        if name != "spread":
            positive = positive and bool((middle > 0).all())
    if positive:
        axes.set_yscale("log")
    axes.set_xlabel("evaluations per search")
    axes.set_ylabel("value")
    axes.set_title(title)
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
