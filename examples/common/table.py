"""Table 1 of the paper with our figures beside it: over the seeds, next to the controls, with what they cost.

Every row of a table comes from the objects of `results.json`, one per experiment, variant and seed.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table

from common.experiment import Figures, name_of

Rows = Sequence[Mapping[str, Any]]
Variants = Mapping[str, Mapping[str, Figures]]  # experiment -> variant -> what is known of it
NONE = "-"


@dataclass(frozen=True)
class Line:
    """One variant of an experiment on one data set, over all seeds whose budgets are spent."""

    name: str
    data: str
    figures: Figures
    epochs: int
    accuracies: tuple[float, ...]  # on the test images, one per seed
    validations: tuple[float, ...]
    frozen: float | None  # means over the seeds
    backprop: float | None
    evaluations: float | None
    seconds: float | None
    backprop_seconds: float | None
    unfinished: int  # seeds whose budgets are not spent

    @property
    def accuracy(self) -> float | None:
        """Return the mean over the seeds."""
        return mean(self.accuracies)

    @property
    def gap(self) -> float | None:
        """Return the share of the gap between the controls that the rule closes."""
        return share_of_gap(self.accuracy, self.frozen, self.backprop)

    @property
    def multiple(self) -> float | None:
        """Return the training time as a multiple of backpropagation's."""
        return self.seconds / self.backprop_seconds if self.seconds and self.backprop_seconds else None


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean, None where a value is missing or there is none.

    >>> mean([1.0, 2.0]), mean([1.0, None]), mean([])
    (1.5, None, None)
    """
    found = list(values)
    present = [value for value in found if value is not None]
    return statistics.fmean(present) if present and len(present) == len(found) else None


def deviation(values: Sequence[float]) -> float | None:
    """Return the standard deviation of a sample, None where it is of one value.

    >>> deviation([1.0, 2.0, 3.0]), deviation([1.0])
    (1.0, None)
    """
    return statistics.stdev(values) if len(values) > 1 else None


def share_of_gap(accuracy: float | None, frozen: float | None, backprop: float | None) -> float | None:
    """Return (accuracy - frozen) / (backprop - frozen), None where a figure is missing or there is no gap.

    >>> round(share_of_gap(0.95, 0.90, 1.00), 12), share_of_gap(0.95, 0.95, 0.95)
    (0.5, None)
    """
    if accuracy is None or frozen is None or backprop is None or backprop <= frozen:
        return None
    return (accuracy - frozen) / (backprop - frozen)


def lines(rows: Rows, variants: Variants) -> list[Line]:
    """Return a line per experiment, variant, algorithm and data set, in the order of the registry, then of the rows."""
    order = {(name, variant): at for at, (name, variant) in enumerate((n, v) for n in variants for v in variants[n])}
    groups: dict[tuple[str, str, str | None, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        key = (row["experiment"], row["variant"], row.get("search"), row["data"])
        groups.setdefault(key, []).append(row)
    ranked = sorted(groups, key=lambda key: order.get(key[:2], len(order)))
    return [_line(key, groups[key], variants) for key in ranked]


def _line(key: tuple[str, str, str | None, str], rows: Rows, variants: Variants) -> Line:
    experiment, variant, search, data = key
    done = [row for row in rows if row["epochs"] == row["planned_epochs"]]

    def over_seeds(entry: str) -> float | None:
        return mean(row.get(entry) for row in done)

    own = variants.get(experiment, {}).get(variant, Figures())
    return Line(
        name=name_of(experiment, variant, search),
        data=data,
        figures=own if data == "mnist" and search is None else Figures(),
        epochs=max(row["planned_epochs"] for row in rows),
        accuracies=tuple(row["accuracy"] for row in done),
        validations=tuple(row["validation"] for row in done),
        frozen=over_seeds("frozen"),
        backprop=over_seeds("backprop"),
        evaluations=over_seeds("evaluations"),
        seconds=over_seeds("seconds"),
        backprop_seconds=over_seeds("backprop_seconds"),
        unfinished=len(rows) - len(done),
    )


def cells(shown: Sequence[Line]) -> tuple[list[str], list[list[str]]]:
    """Return the head and the cells of a table; the columns of paper and goal only where a line has such figures."""
    head = ["network", "validation", "test", "seeds", "frozen", "backprop", "gap closed", "epochs"]
    head += ["evaluations (M)", "x backprop", "seconds"]
    body = []
    for line in shown:
        accuracy, spread = line.accuracy, deviation(line.accuracies)
        test = _number(accuracy, 4) + (f" ± {spread:.4f}" if spread is not None else "")
        epochs = f"{line.epochs}" + (f" ({line.unfinished} unfinished)" if line.unfinished else "")
        evaluations = None if line.evaluations is None else line.evaluations / 1e6
        body.append(
            [
                line.name,
                _number(mean(line.validations), 4),
                test,
                str(len(line.accuracies)),
                _number(line.frozen, 4),
                _number(line.backprop, 4),
                _number(line.gap, 2),
                epochs,
                _number(evaluations, 1 if evaluations and evaluations > 10 else 3),
                _number(line.multiple, 1),
                _number(line.seconds, 1),
            ]
        )
    for title in ("goal", "paper"):
        values = [getattr(line.figures, title) for line in shown]
        if any(values):
            head.insert(1, title)
            for row, value in zip(body, values, strict=True):
                row.insert(1, _number(value, 3))
    return head, body


def _number(value: float | None, digits: int) -> str:
    return NONE if value is None else f"{value:,.{digits}f}"


def printed(shown: Sequence[Line], title: str) -> Table:
    """Return the table for a terminal."""
    head, body = cells(shown)
    table = Table(head[0], title=title, box=box.SIMPLE_HEAD)
    for name in head[1:]:
        table.add_column(name, justify="right")
    for row in body:
        table.add_row(*row)
    return table


def markdown(shown: Sequence[Line]) -> str:
    """Return the table for README."""
    head, body = cells(shown)
    rows = [head, ["---"] + ["---:"] * (len(head) - 1), *([f"`{row[0]}`", *row[1:]] for row in body)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
