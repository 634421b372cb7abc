"""The cells of an archive: a grid over the descriptors, or the regions nearest to given points.

Centroids are those of V. Vassiliades, K. Chatzilygeroudis and J.-B. Mouret, Using Centroidal Voronoi Tessellations to
Scale Up the Multidimensional Archive of Phenotypic Elites Algorithm, 2018.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tansaku import checks, host
from tansaku.draws import Noise, uniform

_DISTANCES = 1 << 22  # held at once
_FEW = 1 << 14  # numbers; from there on torch's larger price of a call is made up for


class Cells(Protocol):
    """Where a descriptor belongs."""

    @property
    def count(self) -> int:
        """How many cells there are."""

    @property
    def dimensions(self) -> int:
        """How many numbers a descriptor has."""

    def index(self, descriptor: Tensor) -> Tensor:
        """[...] int64 the number of the cell of each descriptor [..., d]; `count` where one has a NaN. In memory that
        nobody writes to afterwards.
        """


@dataclass(frozen=True)
class Grid:
    """Equal boxes; what lies outside belongs to the nearest box.

    Args:
        shape: boxes along each dimension of the descriptor.
        lower: one number for all dimensions, or one for each.
        upper: the other ends.

    Raises:
        ValueError: lower >= upper, or another number of ends than dimensions.

    Example:
        >>> Grid((2, 5)).index(torch.tensor([[0.1, 0.1], [0.9, 0.5], [7.0, -7.0]]))
        tensor([0, 7, 5])
    """

    shape: tuple[int, ...] = (16, 16)
    lower: float | tuple[float, ...] = 0.0
    upper: float | tuple[float, ...] = 1.0

    def __post_init__(self) -> None:
        shape = tuple(checks.count("every size of a grid", size) for size in self.shape)
        object.__setattr__(self, "shape", shape)
        for name in ("lower", "upper"):
            given = getattr(self, name)
            ends = tuple(given) if isinstance(given, tuple | list) else (given,) * len(shape)
            if len(ends) != len(shape) or not shape:
                raise ValueError(
                    f"expected {name} with {len(shape)} numbers, one per dimension, got {given!r}; give one for each"
                )
            object.__setattr__(self, name, tuple(checks.number(name, end) for end in ends))
        if any(low >= high or math.isinf(high - low) for low, high in zip(*self.ends, strict=True)):
            raise ValueError(f"expected finite lower < upper for a grid, got {self.lower} and {self.upper}; swap them")

    @property
    def ends(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Lower and upper end of every dimension."""
        return self.lower, self.upper  # type: ignore[return-value]

    @property
    def count(self) -> int:
        """How many boxes there are."""
        return math.prod(self.shape)

    @property
    def dimensions(self) -> int:
        """How many numbers a descriptor has."""
        return len(self.shape)

    def index(self, descriptor: Tensor) -> Tensor:
        """[...] the number of the box of each descriptor [..., d], the last dimension running fastest; see `Cells`."""
        if descriptor.numel() < _FEW and host.numeric(descriptor):
            return self._index_here(descriptor)
        low, high, scale, last, stride = self._table(descriptor.device)
        along = ((descriptor.to(torch.float64).clamp(low, high) - low) * scale).floor_().clamp_(max=last)
        return (along @ stride).nan_to_num_(nan=self.count).to(torch.int64)  # whole numbers, exact below 2^53

    def _index_here(self, descriptor: Tensor) -> Tensor:
        """`index` of few descriptors in the host's memory, for which numpy takes a quarter of the time."""
        low, high, scale, last, stride = self._arrays
        inside = np.minimum(np.maximum(host.array(descriptor), low), high)  # first, so that nothing overflows
        place = (inside - low) * scale
        np.minimum(np.floor(place, out=place), last, out=place)
        number = np.asarray(place @ stride)
        number[np.isnan(number)] = self.count
        return torch.from_numpy(number.astype(np.int64))

    @property
    def _numbers(self) -> list[list[float]]:
        """[5][d]: lower and upper end, boxes per unit, the last box, boxes to the next one along the dimension."""
        lower, upper = self.ends
        scale = [size / (high - low) for size, low, high in zip(self.shape, lower, upper, strict=True)]
        last = [size - 1.0 for size in self.shape]
        stride = [float(math.prod(self.shape[i + 1 :])) for i in range(len(self.shape))]
        return [list(lower), list(upper), scale, last, stride]

    @cached_property
    def _arrays(self) -> NDArray[np.float64]:
        return np.array(self._numbers, dtype=np.float64)

    def _table(self, device: torch.device) -> list[Tensor]:
        known: dict[torch.device, list[Tensor]] = self.__dict__.get("_tables", {})
        if device in known:
            return known[device]
        rows = [torch.tensor(row, dtype=torch.float64, device=device) for row in self._numbers]
        if not torch.compiler.is_dynamo_compiling():
            self.__dict__["_tables"] = {**known, device: rows}
        return rows


@dataclass(frozen=True)
class Centroids:
    """The regions of space that are nearest to one of several points.

    Args:
        points: [cells, d].

    Raises:
        ValueError: no such tensor.

    Example:
        >>> Centroids(torch.tensor([[0.0], [1.0]])).index(torch.tensor([[0.2], [0.7]]))
        tensor([0, 1])
    """

    points: Tensor

    def __post_init__(self) -> None:
        if self.points.ndim != 2 or not self.points.numel() or not self.points.is_floating_point():
            raise ValueError(
                f"expected points as real numbers [cells, d], got {self.points.dtype} of shape "
                f"{checks.shape_text(self.points.shape)}; give one row per cell"
            )

    @classmethod
    def spread(cls, grid: Grid, count: int, noise: Noise, samples: int | None = None, steps: int = 50) -> Centroids:
        """Points spread evenly over a grid's box: k-means of uniform samples (algorithm 1 of the paper).

        Args:
            grid: whose ends are the box; its shape has no effect.
            count: points.
            noise: random numbers.
            samples: uniform samples of the box; 25 per point if not given.
            steps: of Lloyd's iteration.
        """
        samples = checks.count("samples", 25 * count if samples is None else samples, checks.count("count", count))
        like = torch.zeros((), device=getattr(noise, "device", None))
        low, high = (like.new_tensor(end) for end in grid.ends)
        drawn = low + (high - low) * uniform((samples,), (), (grid.dimensions,), like, noise)
        points = drawn[:count].clone()
        for _ in range(steps):
            nearest = cls(points).index(drawn)
            number = torch.zeros_like(points[:, 0]).index_add_(0, nearest, torch.ones_like(drawn[:, 0]))[:, None]
            total = torch.zeros_like(points).index_add_(0, nearest, drawn)
            points = torch.where(number > 0, total / number.clamp(min=1), points)
        return cls(points)

    @property
    def count(self) -> int:
        """How many regions there are."""
        return self.points.shape[0]

    @property
    def dimensions(self) -> int:
        """How many numbers a descriptor has."""
        return self.points.shape[1]

    def index(self, descriptor: Tensor) -> Tensor:
        """[...] the number of the point nearest to each descriptor [..., d], of equal ones the first; see `Cells`."""
        failed = torch.isnan(descriptor).any(-1)
        flat = torch.nan_to_num(descriptor).reshape(-1, descriptor.shape[-1])
        points = self.points.to(flat.device, flat.dtype)
        chunks = flat.split(max(1, _DISTANCES // self.count))
        exact = "donot_use_mm_for_euclid_dist"  # the other way rounds differently for one row and for many
        nearest = torch.cat([torch.cdist(x, points, compute_mode=exact).argmin(-1) for x in chunks])
        return nearest.view(failed.shape).masked_fill(failed, self.count)
