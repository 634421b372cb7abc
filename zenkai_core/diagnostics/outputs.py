"""Where figures go: a picture, a pandas frame, TensorBoard. Each library loads on first use."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
_KEYS = ("step", "layer")
_COLUMNS = 3  # panels side by side


def quantities(rows: Sequence[Row]) -> list[str]:
    """The names of what was measured anywhere, in the order of their first appearance.

    >>> quantities([{"step": 0, "layer": "0", "cost": 1.0, "distance": None}])
    ['cost']
    """
    return list(dict.fromkeys(k for row in rows for k, v in row.items() if k not in _KEYS and v is not None))


def plot(rows: Sequence[Row], path: str | os.PathLike[str], title: str = "") -> None:
    """Draws every quantity in a panel of its own, a line for each layer.

    Raises:
        ValueError: no rows.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = quantities(rows)
    if not names:
        raise ValueError("plot expected recorded rows, got none: train the model while the Recorder listens")
    lines = -(-len(names) // _COLUMNS)
    figure = Figure(figsize=(4.2 * _COLUMNS, 2.6 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(lines, _COLUMNS, squeeze=False).flat
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    for panel, name in zip(panels, names, strict=False):
        for number, layer in enumerate(layers):
            points = [(row["step"], row[name]) for row in rows if row["layer"] == layer and row.get(name) is not None]
            if points:
                panel.plot(*zip(*points, strict=True), label=layer, color=f"C{number}", linewidth=1)
        panel.set_title(name.replace("_", " "), fontsize=9)
        panel.grid(alpha=0.3)
    for panel in figure.axes[len(names) :]:
        panel.set_axis_off()
    handles = {label: h for axes in figure.axes for h, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside right upper", fontsize=8)
    figure.supxlabel("update of the layer", fontsize=9)
    if title:
        figure.suptitle(title)
    figure.savefig(path, dpi=120)


def frame(rows: Sequence[Row]) -> Any:
    """The rows as a `pandas.DataFrame`.

    Raises:
        ImportError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError(
            "frame expected pandas, got no such package: pip install pandas, or take Recorder.rows()"
        ) from error
    return pandas.DataFrame(list(rows), columns=[*_KEYS, *quantities(rows)])


def to_tensorboard(rows: Sequence[Row], writer: Any) -> None:
    """Writes every quantity as the scalar "layer/quantity" at the layer's count of updates.

    Raises:
        ImportError: a directory is given and tensorboard is not installed.
    """
    own = isinstance(writer, (str, os.PathLike))
    if own:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "to_tensorboard expected tensorboard, got no such package: pip install tensorboard, or give a writer "
                "that has add_scalar(tag, value, step)"
            ) from error
        writer = SummaryWriter(os.fspath(writer))
    for row in rows:
        for name in quantities([row]):
            writer.add_scalar(f"{row['layer']}/{name}", row[name], row["step"])
    writer.flush()
    if own:
        writer.close()
