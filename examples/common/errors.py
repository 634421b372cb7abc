"""The one kind of error that a user of the command can mend."""

from __future__ import annotations


class UsageError(Exception):
    """A wrong input, told in one line: what was expected, what came, the remedy."""
