"""One check per step that the inputs, the target and the cost of a network are finite."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from zenkai_core.values import IO

_WIDE = {torch.float16: torch.float32, torch.bfloat16: torch.float32}


def check_finite_pass(x: IO, t: IO, cost: Tensor | None, *, missing: bool = False) -> None:
    """Refuses NaN and infinity, before any parameter moves.

    All tensors are added up to one number, which is read once: a sum is finite only if every term is. Only if it is not
    are the tensors looked at one by one.

    Args:
        x: the inputs of the network.
        t: its target, or the gradient of the loss at its outputs.
        cost: `[n]` of its outputs, if it is known.
        missing: whether NaN in x marks a missing value, which the first layer takes; infinity is refused all the same.

    Raises:
        ValueError: naming the first tensor, and its first row, that has NaN or infinity.
    """
    looked_at = list(_floating(x, t, cost))
    if missing:
        looked_at = [(name, v.where(v == v, torch.zeros_like(v)) if name[0] == "x" else v) for name, v in looked_at]
    if not looked_at:
        return
    sums = [torch.sum(v, dtype=_WIDE.get(v.dtype, v.dtype)) for _, v in looked_at]
    total = sum((s.to(sums[0].device) for s in sums[1:]), sums[0])
    if math.isfinite(float(total)):
        return
    for name, v in looked_at:
        wrong = ~torch.isfinite(v)
        if bool(wrong.any()):
            row = int(wrong.reshape(len(wrong), -1).any(1).nonzero()[0]) if v.ndim else 0
            value = float(v[wrong][0]) if v.ndim else float(v)
            raise ValueError(
                f"a network expected finite numbers, got {value} in {name}, row {row}, and nothing was moved: look at "
                f"{_REMEDIES[name.split('[')[0]]}"
            )


_REMEDIES = {
    "x": "the data, and leave such rows out or fill them in",
    "t": "the targets, and leave such rows out",
    "cost": "the outputs of the layers: a rate may be too high",
}


def _floating(x: IO, t: IO, cost: Tensor | None) -> Iterator[tuple[str, Tensor]]:
    for name, values in (("x", x), ("t", t), ("cost", () if cost is None else (cost,))):
        for i, v in enumerate(values):
            if v.is_floating_point() and v.numel():
                yield (name if len(values) == 1 else f"{name}[{i}]"), v.detach()
