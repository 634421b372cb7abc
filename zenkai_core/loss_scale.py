"""`LossScale`: a factor that the user puts on the loss, which learning rules must not see.

Rules that solve, search or fit learn from targets, so a factor on the loss would move the targets by it. A machine
divides the gradients that arrive by the factor, and multiplies those that it returns, so that every `.grad` stays
scaled as in a plain network.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable

import torch
from torch import Tensor, nn

Scale = float | torch.amp.GradScaler


class LossScale:
    """The present factor on the loss.

    Args:
        scale: the factor, a finite number other than 0, or the GradScaler whose `scale(loss)` puts it there.

    Attributes:
        scaler: the GradScaler; None for a number.
        marker: a parameter for the scaler to look at, whose gradient is NaN once a gradient that is not finite has
            arrived at a machine that keeps none in `.grad`.

    Raises:
        TypeError: scale is something else.
        ValueError: the number is 0 or not finite.

    >>> LossScale(0.25).factor(torch.ones(1))
    0.25
    """

    def __init__(self, scale: Scale) -> None:
        if not isinstance(scale, torch.amp.GradScaler) and (
            isinstance(scale, bool) or not isinstance(scale, numbers.Real)
        ):
            raise TypeError(
                f"Optimizer expected grad_scale as a number or a torch.amp.GradScaler, got {type(scale).__name__}: "
                "give the factor on the loss, 0.25 for loss / 4"
            )
        if isinstance(scale, numbers.Real) and (not math.isfinite(scale) or scale == 0):
            raise ValueError(
                f"Optimizer expected grad_scale as a finite number other than 0, got {scale}: give the factor on the "
                "loss, 0.25 for loss / 4"
            )
        self.scaler = scale if isinstance(scale, torch.amp.GradScaler) else None
        self.number = float(scale) if isinstance(scale, numbers.Real) else 1.0
        self.marker = nn.Parameter(torch.zeros(()))
        self.clear()

    def factor(self, g: Tensor) -> Tensor | float:
        """The factor, for gradients like g: the number, or what the scaler uses now, `[]` on the device of g."""
        if self.scaler is None:
            return self.number
        one = torch.ones((), dtype=torch.float32, device=g.device)
        return self.scaler.scale(one) if self.scaler.is_enabled() else 1.0

    def overflowed(self) -> None:
        """Lets the scaler skip the step: a gradient that arrived is not finite."""
        self.marker.grad = torch.full_like(self.marker, math.nan)

    def clear(self) -> None:
        """Forgets an overflow."""
        self.marker.grad = torch.zeros_like(self.marker)


def divided(grads: Iterable[Tensor | None], factor: Tensor | float) -> list[Tensor | None]:
    """The gradients over the factor, in float32 at least, so that half precision does not round them to zero."""
    return [None if g is None else g.to(torch.promote_types(g.dtype, torch.float32)) / factor for g in grads]
