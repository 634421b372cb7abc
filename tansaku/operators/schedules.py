"""Schedules: a hyper-parameter as a function of how much of a search is done.

A schedule is a value with ``at(share)``; operators stay immutable, and `Scheduled` makes the operator of the moment.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from tansaku import checks

Share = TypeVar("Share", float, Tensor)


class Schedule(ABC):
    """A number that depends on the share of the search that is done."""

    @abstractmethod
    def at(self, share: Share) -> Share:
        """The value at ``share``, a number or a tensor; below 0 it is the first value, above 1 the last."""


def _within(share: Share) -> Share:
    return share.clamp(0.0, 1.0) if isinstance(share, Tensor) else min(max(float(share), 0.0), 1.0)


@dataclass(frozen=True)
class ConstantSchedule(Schedule):
    """The same value all along.

    >>> ConstantSchedule(0.3).at(0.9)
    0.3
    """

    value: float

    def __post_init__(self) -> None:
        checks.number("value", self.value)

    def at(self, share: Share) -> Share:
        """See `Schedule.at`."""
        return torch.full_like(share, self.value) if isinstance(share, Tensor) else self.value


@dataclass(frozen=True)
class LinearSchedule(Schedule):
    """From ``first`` to ``last`` in equal steps.

    >>> LinearSchedule(1.0, 0.0).at(0.25)
    0.75
    """

    first: float
    last: float

    def __post_init__(self) -> None:
        checks.number("first", self.first)
        checks.number("last", self.last)

    def at(self, share: Share) -> Share:
        """See `Schedule.at`."""
        share = _within(share)
        return (1 - share) * self.first + share * self.last


@dataclass(frozen=True)
class CosineSchedule(Schedule):
    """From ``first`` to ``last`` along half a cosine: slow, fast, slow.

    >>> CosineSchedule(1.0, 0.0).at(0.5)
    0.5

    Reference: I. Loshchilov and F. Hutter, SGDR, 2017, equation 5 without restarts.
    """

    first: float
    last: float

    def __post_init__(self) -> None:
        checks.number("first", self.first)
        checks.number("last", self.last)

    def at(self, share: Share) -> Share:
        """See `Schedule.at`."""
        angle = math.pi * _within(share)
        half = (1 + (angle.cos() if isinstance(angle, Tensor) else math.cos(angle))) / 2
        return half * self.first + (1 - half) * self.last


@dataclass(frozen=True)
class ExponentialSchedule(Schedule):
    """From ``first`` to ``last``, both positive, by equal factors.

    >>> round(ExponentialSchedule(1.0, 0.01).at(0.5), 6)
    0.1
    """

    first: float
    last: float

    def __post_init__(self) -> None:
        for name in ("first", "last"):
            if checks.number(name, getattr(self, name), 0.0) == 0.0:
                raise ValueError(
                    f"expected {name} > 0 for an exponential schedule, got 0; use LinearSchedule or CosineSchedule"
                )

    def at(self, share: Share) -> Share:
        """See `Schedule.at`."""
        rate, share = math.log(self.last / self.first), _within(share)
        return self.first * ((rate * share).exp() if isinstance(share, Tensor) else math.exp(rate * share))


class Scheduled:
    """A plan for an operator, an algorithm or anything else that is made of settings, some of which are schedules.

    ``at(share)`` makes one with the values of that moment; plans inside plans are followed too, and so are those in
    dictionaries.

    Args:
        make: what is built, such as a class.
        settings: its arguments: values, schedules and plans.

    Example:
        >>> from tansaku import GA, Gaussian, Search
        >>> plan = Scheduled(GA, k=20, mutate=Scheduled(Gaussian, std=ExponentialSchedule(1.0, 0.01)))
        >>> round(plan.at(0.5).mutate.std, 6)
        0.1
        >>> def follow(search: Search) -> None:  # a callback of a search of 100 generations
        ...     search.algorithm = plan.at(search.generations / 100)
    """

    def __init__(self, make: Callable[..., Any], **settings: Any) -> None:
        if not callable(make):
            raise TypeError(f"expected make to be callable, got {type(make).__name__}; pass a class such as Gaussian")
        self.make, self.settings = make, settings
        self.at(0.0)  # wrong settings raise here and not in the middle of a search
        self.at(1.0)

    def at(self, share: float) -> Any:
        """What is made with the values at ``share``, a number in [0, 1]."""
        return self.make(**{name: _value(setting, share) for name, setting in self.settings.items()})


def _value(setting: Any, share: float) -> Any:
    if isinstance(setting, Schedule | Scheduled):
        return setting.at(share)
    if isinstance(setting, dict):
        return {name: _value(one, share) for name, one in setting.items()}
    return setting
