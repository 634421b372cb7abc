"""Other shapes and other codes for the same values, each with its inverse: what stands between layers of two kinds."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Reshape(nn.Module):
    """Another shape for each row: `[n, *before]` to `[n, *after]`.

    Args:
        before, after: event shapes of equally many elements.

    Raises:
        ValueError: they differ in their number of elements.

    >>> flatten = Reshape((2, 3), (6,))
    >>> flatten(torch.zeros(4, 2, 3)).shape, flatten.inverse(torch.zeros(4, 6)).shape
    (torch.Size([4, 6]), torch.Size([4, 2, 3]))
    """

    def __init__(self, before: tuple[int, ...], after: tuple[int, ...]) -> None:
        super().__init__()
        if math.prod(before) != math.prod(after) or min((*before, *after), default=0) < 0:
            raise ValueError(
                f"Reshape expected event shapes of equally many elements, got {tuple(before)} and {tuple(after)}: "
                "write every size, without the rows"
            )
        self.before, self.after = tuple(before), tuple(after)

    def forward(self, x: Tensor) -> Tensor:
        """`[n, *before]` -> `[n, *after]`, a view where torch can make one."""
        return x.reshape(x.shape[0], *self.after)

    def inverse(self, y: Tensor) -> Tensor:
        """`[n, *after]` -> `[n, *before]`."""
        return y.reshape(y.shape[0], *self.before)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{self.before}, {self.after}"


class Permute(nn.Module):
    """Another order of a row's dimensions, which count from 1.

    Args:
        dims: for each dimension of the output, the one of the input.

    Raises:
        ValueError: they are no permutation of 1, 2, ...

    >>> Permute(3, 1, 2)(torch.zeros(5, 8, 8, 3)).shape
    torch.Size([5, 3, 8, 8])
    """

    def __init__(self, *dims: int) -> None:
        super().__init__()
        if sorted(dims) != list(range(1, len(dims) + 1)):
            raise ValueError(f"Permute expected each of 1, 2, ... once, got {dims}: dimension 0, the row, stays")
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        """A view of x."""
        return x.permute(0, *self.dims)

    def inverse(self, y: Tensor) -> Tensor:
        """A view of y."""
        return y.permute(0, *(1 + self.dims.index(d) for d in range(1, len(self.dims) + 1)))

    def extra_repr(self) -> str:
        """What `print` shows."""
        return ", ".join(map(str, self.dims))


class BoolToSigned(nn.Module):
    """From 0 and 1 to -1 and 1: y = 2 x - 1, floating; booleans and integers become torch's default dtype.

    >>> BoolToSigned()(torch.tensor([True, False])).tolist()
    [1.0, -1.0]
    """

    def forward(self, x: Tensor) -> Tensor:
        """2 x - 1, shaped as x."""
        return 2 * _floating(x) - 1

    def inverse(self, y: Tensor) -> Tensor:
        """(y + 1) / 2, shaped as y; floating, so that a target between the two keeps its place."""
        return (_floating(y) + 1) / 2


class SignedToBool(nn.Module):
    """From -1 and 1 to 0 and 1: y = (x + 1) / 2, floating; the inverse of `BoolToSigned`.

    >>> SignedToBool()(torch.tensor([1.0, -1.0])).tolist()
    [1.0, 0.0]
    """

    def forward(self, x: Tensor) -> Tensor:
        """(x + 1) / 2, shaped as x."""
        return (_floating(x) + 1) / 2

    def inverse(self, y: Tensor) -> Tensor:
        """2 y - 1, shaped as y."""
        return 2 * _floating(y) - 1


def _floating(value: Tensor) -> Tensor:
    return value if value.is_floating_point() else value.to(torch.get_default_dtype())
