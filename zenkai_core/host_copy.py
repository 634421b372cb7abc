"""`HostCopy`: the numbers of an integer buffer, read from its device only after the buffer has changed."""

from __future__ import annotations

from torch import Tensor


class HostCopy:
    """Keeps what was read, so that a rule that asks at every step does not wait for the device each time.

    >>> import torch
    >>> count, copy = torch.zeros((), dtype=torch.int64), HostCopy()
    >>> count += 1
    >>> copy.read(count), copy.read(count)
    (1, 1)
    """

    def __init__(self) -> None:
        self._held: Tensor | None = None
        self._version = -1
        self._value = 0

    def read(self, buffer: Tensor) -> int:
        """The first number of the buffer."""
        if buffer.is_inference():  # has no counter of its changes
            return int(buffer.flatten()[0])
        if self._held is not buffer or self._version != buffer._version:
            self._value = int(buffer.flatten()[0])
            self._held, self._version = buffer, buffer._version
        return self._value

    def add_one(self, buffer: Tensor) -> None:
        """One more in the buffer, and in what was read of it."""
        known = not buffer.is_inference() and self._held is buffer and self._version == buffer._version
        buffer += 1
        if known:
            self._value, self._version = self._value + 1, buffer._version

    def __getstate__(self) -> dict[str, object]:
        return {"_held": None, "_version": -1, "_value": 0}  # a copy has another buffer
