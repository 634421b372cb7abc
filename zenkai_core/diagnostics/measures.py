"""The measures that the recorder takes, each a function of tensors; nothing here knows machines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from zenkai_core.values import IO


def distance(y: IO, t: IO) -> Tensor:
    """`[]` mean over rows of the Euclidean distance between output and target, over all tensors together.

    >>> distance(IO(torch.tensor([[3.0, 4.0], [0.0, 0.0]])), IO(torch.zeros(2, 2))).item()
    2.5
    """
    return size(IO(*((a - b) for a, b in zip(y, t, strict=True))))


def size(y: IO) -> Tensor:
    """`[]` mean over rows of the Euclidean norm."""
    squares = [v.square().reshape(v.shape[0], -1).sum(1) for v in y]
    return torch.stack(squares).sum(0).sqrt().mean()


def comparable(y: IO, t: IO) -> bool:
    """Whether a distance between the two exists: the same shapes, of floating numbers."""
    return len(y) == len(t) and all(a.shape == b.shape and b.is_floating_point() for a, b in zip(y, t, strict=True))


def angle(a: Iterable[Tensor], b: Iterable[Tensor]) -> Tensor:
    """`[]` the angle between two vectors in degrees, each given as tensors to be joined; NaN where one is zero.

    By Kahan's formula, 2 atan2(|u - v|, |u + v|) of the unit vectors, which is exact for small angles too.

    >>> angle([torch.tensor([1.0, 0.0])], [torch.tensor([0.0, 2.0])]).item()
    90.0
    """
    u, v = (w / w.norm() for w in (flat(a), flat(b)))
    return torch.rad2deg(2 * torch.atan2((u - v).norm(), (u + v).norm()))


def ratio(a: Iterable[Tensor], b: Iterable[Tensor]) -> Tensor:
    """`[]` the norm of a over the norm of b, each given as tensors to be joined.

    >>> ratio([torch.tensor([3.0, 4.0])], [torch.tensor([10.0])]).item()
    0.5
    """
    return flat(a).norm() / flat(b).norm()


def flat(values: Iterable[Tensor]) -> Tensor:
    """All values as one vector of float64, so that no sum of squares overflows or cancels."""
    return torch.cat([v.detach().reshape(-1).double() for v in values])


def dead(y: IO) -> Tensor | None:
    """`[]` the share of output units that say the same for every row; None for fewer than two rows.

    A unit is a feature `[n, features]`, or a channel `[n, channels, ...]` over all its places.

    >>> dead(IO(torch.tensor([[0.0, 1.0], [0.0, 2.0]]))).item()
    0.5
    """
    if y.rows < 2:
        return None
    shares = [_constant(v) for v in y]
    return torch.cat(shares).double().mean()


def _constant(v: Tensor) -> Tensor:
    units = v.reshape(v.shape[0], -1) if v.ndim < 3 else v.transpose(0, 1).flatten(1).T
    return (units == units[:1]).all(0)


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of what is there; None where nothing is.

    >>> mean([1.0, None, 3.0]), mean([None])
    (2.0, None)
    """
    kept = [v for v in values if v is not None]
    return sum(kept) / len(kept) if kept else None
