"""Checks of what constructors are given that need to know of nothing else here."""

from __future__ import annotations

from numbers import Integral


def check_whole(owner: str, **values: object) -> None:
    """Refuses what is no whole number, before a range or a loop over it would fail later, in words of its own.

    Args:
        owner: of the arguments, for the error.
        values: by name; None passes, where an argument may be left out.

    Raises:
        TypeError: naming the first that is none.

    >>> check_whole("theta.Fit", rows=1024, window=None)
    >>> check_whole("theta.Fit", rows=1.5)
    Traceback (most recent call last):
    ...
    TypeError: theta.Fit expected rows as a whole number, got 1.5: write an int
    """
    for name, value in values.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, Integral)):
            raise TypeError(f"{owner} expected {name} as a whole number, got {value!r}: write an int")
