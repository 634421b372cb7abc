"""What a layer's steps do: its distance to its target, and the error reductions of the paper (equations 4 and 5)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from zenkai_core import Machine
from zenkai_core.hooks import Call

Means = dict[str, dict[str, float]]
Record = defaultdict[str, list[Tensor]]


@contextmanager
def watch(layers: Mapping[str, Machine], every: int) -> Iterator[Callable[[], Means]]:
    """Listen to every `every`-th step of each layer while the block runs.

    Yields a function that returns layer -> quantity -> mean over the steps so far:

    - "distance": root mean square of output minus target, where the target is shaped as the output;
    - "local_error_reduction": the share of the layer's own cost that its step removed (equation 5, relative);
    - "global_error_reduction": the same of the network's cost, the layers above as they stand (equation 4).
    """
    records: dict[str, Record] = {name: defaultdict(list) for name in layers}
    with ExitStack() as stack:
        for name, machine in layers.items():
            stack.enter_context(machine.register_hook("step", _listener(machine, records[name], every)))
        yield lambda: {
            name: {quantity: torch.stack(values).mean().item() for quantity, values in record.items()}
            for name, record in records.items()
        }


def _listener(machine: Machine, record: Record, every: int) -> Callable[[Call], None]:
    steps = 0

    def listen(call: Call) -> None:
        nonlocal steps
        steps += 1
        if (steps - 1) % every == 0 and call.t is not None and call.state is not None:
            with torch.no_grad():
                before, after = call.state.outputs.detach(), machine.replay(call.x, call.state).detach()
                y, t = before.f, call.t.f
                if y.shape == t.shape and t.is_floating_point():
                    record["distance"].append((y - t).square().mean().sqrt())
                local = [machine.cost(of, call.t, call.state).mean() for of in (before, after)]
                whole = [call.state.cost_above(of).mean() for of in (before, after)]
                record["local_error_reduction"].append(_share(*local))
                record["global_error_reduction"].append(_share(*whole))

    return listen


def _share(before: Tensor, after: Tensor) -> Tensor:
    """Return (before - after) / before, `[]`; 0 where there was no cost."""
    return torch.where(before > 0, (before - after) / before, torch.zeros_like(before))
