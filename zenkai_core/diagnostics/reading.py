"""Figures read as a person would: which layer is unstable, starved or dead, by which figure, and what to try."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zenkai_core.diagnostics.measures import mean

Row = Mapping[str, Any]
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Finding:
    """What is said of one layer.

    Attributes:
        layer: its name in the model.
        verdict: "unstable", "starved", "dead", "misled" or "well".
        reason: by which figure, and what to try.
    """

    layer: str
    verdict: str
    reason: str

    def __str__(self) -> str:
        return f"{self.layer}: {self.verdict}: {self.reason}"


def read(rows: Sequence[Row], last: int | None = None) -> list[Finding]:
    """What is wrong with each layer; a layer may have several findings, one that has none is "well".

    - unstable: its cost is not a finite number; its own steps raised its own cost, and with it the network's loss where
      that is known, more often than not, or in a quarter of the updates by more than the others lowered it (rounding, a
      millionth of the cost, aside); or an update is longer than a tenth of the parameters, by the median.
    - starved: its target is its output (a relative distance below 1e-6); its parameters stand still though their rule
      should move them (an update below 1e-8 of the parameters); or a search accepted nothing. Updates at which the
      network's own error at the layer's output was below a millionth of it do not count: nothing was left to learn.
    - dead: more than half of its units say the same for every row.
    - misled: its update, or its target, lies more than 90 degrees away from steepest descent of the network's loss, by
      more than two standard errors of the mean.

    Args:
        rows: of a `Recorder`.
        last: only so many of each layer's newest rows; all if None.

    Raises:
        ValueError: no rows, or last < 1.

    >>> row = {"step": 0, "layer": "0", "cost": 1.0, "local_theta": -0.5}
    >>> print(read([row])[0])
    0: unstable: its steps raised its own cost in 100 % of updates: lower its learning rate
    """
    if not rows or (last is not None and last < 1):
        raise ValueError(
            f"read expected rows of a Recorder and last >= 1, got {len(rows)} rows and last={last}: train while it "
            "listens"
        )
    layers: dict[str, list[Row]] = {}
    for row in rows:
        layers.setdefault(row["layer"], []).append(row)
    found = []
    for layer, own in layers.items():
        own = own if last is None else own[-last:]
        of, of_asked = _columns(own), _columns([row for row in own if not _satisfied(row)])
        complaints = [
            Finding(layer, verdict, reason)
            for verdict, find in _COMPLAINTS
            if (reason := find(of_asked if verdict == "starved" else of)) is not None
        ]
        found += complaints or [Finding(layer, "well", _summary(of, all(map(_satisfied, own))))]
    return found


def _satisfied(row: Row) -> bool:
    """Whether the network asked nothing more of the layer, as far as is known."""
    error = row.get("error")
    return error is not None and error < _ROUNDING


Columns = Callable[[str], list[float]]
"""Name of a quantity -> what was measured of it."""


def _columns(rows: Sequence[Row]) -> Columns:
    rows = [{**row, "rise": _rise(row)} for row in rows]
    return lambda name: [row[name] for row in rows if row.get(name) is not None]


def _rise(row: Row) -> float | None:
    """By how much of its own cost a step raised it; 0 for one that only went beyond a near target, to a lower loss."""
    cost, fall, whole = row.get("cost"), row.get("local_theta"), row.get("global_theta")
    if fall is None or (whole is not None and whole >= 0):
        return None if fall is None else 0.0
    return -fall / abs(cost) if cost else -fall


def _not_finite(of: Columns) -> str | None:
    costs = of("cost")
    broken = sum(not math.isfinite(c) for c in costs)
    return (
        f"its cost was not a finite number in {broken} of {len(costs)} updates: lower the learning rates"
        if broken
        else None
    )


def _rising(of: Columns) -> str | None:
    rises = of("rise")
    share = sum(r > _ROUNDING for r in rises) / len(rises) if rises else 0.0
    return (
        f"its steps raised its own cost in {share:.0%} of updates: lower its learning rate".replace("%", " %")
        if share > 0.5 or (share > 0.25 and sum(rises) > 0)
        else None
    )


def _leaping(of: Columns) -> str | None:
    sizes = of("update_ratio")
    size = statistics.median(sizes) if sizes else 0.0  # the first updates of parameters that begin at zero are long
    if size <= 0.1:
        return None
    return f"an update is {size:.2g} of the parameters' length: lower its learning rate"


def _target_is_output(of: Columns) -> str | None:
    distance = mean(of("relative"))
    if distance is None or distance >= 1e-6:
        return None
    return f"its target lies {distance:.1g} of its output away: look at the rule above it, or raise its scale"


def _standing_still(of: Columns) -> str | None:
    size = mean(of("update_ratio"))
    return (
        f"an update is {size:.1g} of the parameters' length, so it stands still: raise its learning rate"
        if size is not None and 0 < size < 1e-8
        else None
    )


def _no_acceptance(of: Columns) -> str | None:
    for slot in ("x", "y", "theta"):
        share = mean(of(f"{slot}_acceptance"))
        if share == 0:
            return f"the search of its {slot} rule accepted nothing: widen its steps, or take a weighted mean"
    return None


def _dead(of: Columns) -> str | None:
    share = mean(of("dead"))
    if share is None or share <= 0.5:
        return None
    return f"{share:.0%} of its units say the same for every row: normalise its input, or lower the rate".replace(
        "%", " %"
    )


def _misled(of: Columns) -> str | None:
    for what, name in (("its update", "update_angle"), ("its target", "target_angle")):
        found = of(name)
        degrees = mean(found)
        error = statistics.stdev(found) / len(found) ** 0.5 if len(found) > 1 else 0.0
        if degrees is not None and degrees - 2 * error > 90:  # minibatches scatter around 90 where little is left
            return f"{what} lies {degrees:.0f} degrees from the network's steepest descent: look at the rules above it"
    return None


def _summary(of: Columns, satisfied: bool) -> str:
    angle, size = mean(of("update_angle")), mean(of("update_ratio"))
    parts = (
        (
            "nothing is left to learn: the network's error is {:.1g} of its output",
            mean(of("error")) if satisfied else None,
        ),
        ("a step takes {:.2g} of its own cost", _share(of("local_theta"), of("cost"))),
        ("its update lies {:.0f} degrees from the network's steepest descent", angle),
        ("and is {:.1g} of its parameters' length", None if angle is None else size),
        ("its update is {:.1g} of its parameters' length", size if angle is None else None),
        (
            "at an unknown angle (no gradient of the network's loss reaches it, or none was asked for)",
            _unknown(angle, size),
        ),
    )
    return ", ".join(text.format(value) for text, value in parts if value is not None) or "nothing to complain of"


def _unknown(angle: float | None, size: float | None) -> float | None:
    """The size of an update whose angle is not known; None where it is, or where nothing moved."""
    return size if angle is None and size else None


def _share(falls: list[float], costs: list[float]) -> float | None:
    fall, cost = mean(falls), mean(costs)
    return fall / cost if fall is not None and cost else None


_COMPLAINTS: tuple[tuple[str, Callable[[Columns], str | None]], ...] = (
    ("unstable", _not_finite),
    ("unstable", _rising),
    ("unstable", _leaping),
    ("starved", _target_is_output),
    ("starved", _standing_still),
    ("starved", _no_acceptance),
    ("dead", _dead),
    ("misled", _misled),
)
