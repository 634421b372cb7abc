"""What an epoch's updates did in each layer: its distance to its target, the error reductions of the paper."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from common.experiment import Network
from zenkai_core import Recorder

Means = dict[str, dict[str, float]]


@contextmanager
def watch(network: Network, every: int) -> Iterator[Callable[[], Means]]:
    """Record every `every`-th update of the network's layers while the block runs.

    Yields a function that returns layer -> quantity -> mean so far, without the quantities that a layer has not:

    - "distance": the Euclidean distance of a row's output to its target, where the two are of one shape;
    - "local": the share of the layer's own cost that its step removed (equation 5, divided by the cost);
    - "global": the fall of the network's cost by the layer's step (equation 4).
    """
    names = {machine: name for name, machine in network.machine.named_modules()}
    with Recorder(network.machine, every=every, gradients=False) as recorder:

        def means() -> Means:
            rows = recorder.rows()
            return {
                name: _summary([row for row in rows if row["layer"] == names[machine]])
                for name, machine in network.layers.items()
            }

        yield means


def _summary(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    def mean(field: str) -> float | None:
        values = [row[field] for row in rows if row[field] is not None]
        return sum(values) / len(values) if values else None

    cost, local = mean("cost"), mean("local_theta")
    found = {
        "distance": mean("distance"),
        "local": local / cost if local is not None and cost else None,
        "global": mean("global_theta"),
    }
    return {quantity: value for quantity, value in found.items() if value is not None}
