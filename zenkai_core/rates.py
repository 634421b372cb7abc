"""Rates and scales of rules: a number, or a `tansaku.Schedule` that runs over the calls of the rule."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

import tansaku
from zenkai_core.host_copy import HostCopy

Rate = float | tansaku.Schedule
"""A number, or a schedule from share 0 to 1 of the calls."""


class Clock(nn.Module):
    """Counts the calls over which the schedules of a rule run; a buffer, so that a resumed run goes on.

    Args:
        calls: how many there will be; from then on a schedule has its last value.
    """

    count: Tensor

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.calls = calls
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self._read = HostCopy()

    @property
    def share(self) -> float:
        """The share of the calls that is done, in [0, 1]."""
        return min(1.0, self._read.read(self.count) / self.calls)

    def tick(self) -> None:
        """One more call."""
        self._read.add_one(self.count)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{int(self.count)} of {self.calls} calls"


def check_rate(owner: str, name: str, value: Any, *, zero: bool = False, most: float = math.inf) -> Any:
    """A finite number above 0 (or from 0 on), or a schedule whose first and last values are such numbers.

    Args:
        owner: the rule, for the error.
        name: the argument.
        value: what was given.
        zero: whether 0 is allowed; a schedule may end at 0 in any case.
        most: the largest value allowed.

    Raises:
        TypeError: it is neither a number nor a schedule.
        ValueError: it is out of range.

    >>> check_rate("targets.Gradient", "scale", 0.5)
    0.5
    >>> check_rate("targets.Gradient", "scale", "high")
    Traceback (most recent call last):
    ...
    TypeError: targets.Gradient expected scale as a number or a tansaku.Schedule, got 'high': give for example 1.0
    """
    if isinstance(value, tansaku.Schedule):
        for share in (0.0, 1.0):
            check_rate(owner, name, value.at(share), zero=True, most=most)
        return value
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"{owner} expected {name} as a number or a tansaku.Schedule, got {value!r}: give for example 1.0"
        )
    number = float(value)
    if not (0 <= number <= most and math.isfinite(number)) or (number == 0 and not zero):
        least = ">= 0" if zero else "> 0"
        upper = "" if most == math.inf else f" and <= {most:g}"
        raise ValueError(f"{owner} expected {name} {least}{upper}, got {value}: give a finite number in this range")
    return value


def clock_for(owner: str, calls: int | None, **rates: Any) -> Clock | None:
    """The clock that the schedules among the rates run by; None where there is no schedule.

    Raises:
        TypeError: calls is no whole number.
        ValueError: calls < 1, or a schedule without calls.
    """
    if calls is not None and (isinstance(calls, bool) or not isinstance(calls, int)):
        raise TypeError(f"{owner} expected calls as a whole number, got {calls!r}: write an int")
    if calls is not None and calls < 1:
        raise ValueError(f"{owner} expected calls >= 1, got {calls}: give the number of steps of the training")
    for name, rate in rates.items():
        if isinstance(rate, tansaku.Schedule):
            if calls is None:
                raise ValueError(
                    f"{owner} expected calls with a schedule for {name}, got none: say calls=N, the number of calls "
                    "over which it runs (batches times epochs)"
                )
            return Clock(calls)
    return None


def rate_at(rate: Any, clock: Clock | None) -> float:
    """The number that a rate is at this call; a schedule without a clock has its first value."""
    if not isinstance(rate, tansaku.Schedule):
        return rate
    return float(rate.at(0.0 if clock is None else clock.share))


def tick(clock: Clock | None) -> None:
    """One more call of a rule; nothing for a rule without a schedule."""
    if clock is not None:
        clock.tick()
