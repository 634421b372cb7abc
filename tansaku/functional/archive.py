"""Archives of quality-diversity: who enters which cell, decided for a whole batch at once.

J.-B. Mouret and J. Clune, Illuminating Search Spaces by Mapping Elites, 2015, figure 2: a candidate enters its cell if
the cell is empty or if it is better than the cell's elite. No candidate is compared with any cell but its own.

An archive is far larger than a batch, so that it is not copied to change a few of its cells: the newest version of it
owns the memory, and an older one remembers what was overwritten since (H. G. Baker, Shallow Binding Makes Functional
Arrays Fast, 1991).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tansaku import host

_NOBODY = torch.iinfo(torch.int64).max


class Shelf:
    """The memory of an archive: what each cell holds of every search, in place.

    Args:
        cost: [cells, *batch_shape] of each cell's elite, +inf where there is none.
        rows: name -> [cells, *batch_shape, ...] what else is held; all are copied.
        order: [cells, *batch_shape] int64 the numbers of the filled cells, the first filled first, and then any; by
            number if not given.
    """

    def __init__(self, cost: Tensor, rows: Mapping[str, Tensor], order: Tensor | None = None) -> None:
        self.shape = cost.shape
        self.searches = cost[0].numel()
        filled = cost < float("inf")
        if order is None:
            order = filled.to(torch.uint8).argsort(dim=0, descending=True, stable=True)

        def copied(x: Tensor, aside: Tensor) -> Tensor:  # one row more: there goes what does not enter
            return torch.cat([x, aside]).reshape((x.shape[0] + 1) * self.searches, *x.shape[cost.ndim :])

        self._own(
            copied(cost, torch.full_like(cost[:1], -float("inf"))),
            {n: copied(x, x[:1]) for n, x in rows.items()},
            copied(order, order[:1]),
        )
        self.filled = filled.sum(0)

    def _own(self, cost: Tensor, rows: dict[str, Tensor], order: Tensor) -> None:
        cells = self.shape[0] * self.searches
        self._cost, self._rows, self._order = cost, rows, order
        self.cost = cost[:cells].view(self.shape)
        self.rows = {name: x[:cells].view(*self.shape, *x.shape[1:]) for name, x in rows.items()}
        self.members = order[:cells].view(self.shape)  # the first `filled` of each search
        self._numbers = torch.empty(0, dtype=torch.int64, device=cost.device)
        self._first = torch.full_like(cost, _NOBODY, dtype=torch.int64)
        self._arrays: _Arrays | None = None
        self.made: Any = None  # for whoever uses it: what was made of these very tensors

    @property
    def order(self) -> Tensor:
        """[cells, *batch_shape] the numbers of the filled cells, the first filled first, and then zeros."""
        place = torch.arange(self.shape[0], device=self.cost.device).view(-1, *(1,) * (len(self.shape) - 1))
        return self.members.masked_fill(place >= self.filled, 0)

    def __reduce__(self) -> tuple[type[Shelf], tuple[Any, ...]]:
        return Shelf, (self.cost, self.rows, self.order)

    def copied(self) -> Shelf:
        """The same in memory of its own."""
        copy = object.__new__(Shelf)
        copy.shape, copy.searches, copy.filled = self.shape, self.searches, self.filled
        copy._own(self._cost.clone(), {name: x.clone() for name, x in self._rows.items()}, self._order.clone())
        return copy

    def enter(self, cost: Tensor, cell: Tensor, rows: Mapping[str, Tensor], undo: list[Undo]) -> Tensor:
        """Lets each cell's best candidate in if it is below what the cell holds; of equal ones the first.

        Args:
            cost: [k, *batch_shape] without NaN.
            cell: [k, *batch_shape] int64; the number of cells for a candidate that belongs to none.
            rows: name -> [k, *batch_shape, ...].
            undo: gets what will be overwritten, always before it is.

        Returns:
            [k, *batch_shape] the cost that each candidate met in its cell, -inf for one that belongs to none.

        Example:
            >>> shelf = Shelf(torch.tensor([5.0, 1.0, float("inf")]), {"x": torch.zeros(3)})
            >>> cost, cell = torch.tensor([4.0, 3.0, 2.0, 3.0]), torch.tensor([0, 0, 1, 0])
            >>> shelf.enter(cost, cell, {"x": torch.arange(4.0)}, [])
            tensor([5., 5., 1., 5.])
            >>> shelf.rows["x"], shelf.cost
            (tensor([1., 0., 0.]), tensor([3., 1., inf]))
        """
        cost = _fitted(cost, self.cost.dtype)
        if cost.ndim == 1 and host.numeric(cost):
            return self._enter_here(host.array(cost), host.array(cell), rows, undo)
        now, place, number = cost.flatten(), cell.flatten(), self._numbers
        if number.shape != place.shape:
            self._numbers = number = torch.arange(place.shape[0], device=place.device)
            self._aside = self.shape[0] * self.searches + number.remainder(self.searches)
        if self.searches > 1:
            place = place * self.searches + number.remainder(self.searches)
        held = self._cost.index_select(0, place)
        undo.append(("", place, held))
        self._cost.scatter_reduce_(0, place, now, "amin")
        lowest = (now < held) & (now == self._cost.index_select(0, place))
        self._first.scatter_reduce_(0, place, torch.where(lowest, number, _NOBODY), "amin")
        enters = number == self._first.index_select(0, place)
        self._first.index_fill_(0, place, _NOBODY)
        into = torch.where(enters, place, self._aside)
        self._append(cell, (enters & (held == float("inf"))).view(cell.shape))
        for name, x in self._rows.items():
            undo.append((name, into, x.index_select(0, into)))
            x.index_copy_(0, into, _fitted(rows[name], x.dtype).reshape(into.shape[0], *x.shape[1:]))
        return held.view(cost.shape)

    def _enter_here(
        self, now: NDArray[Any], place: NDArray[Any], rows: Mapping[str, Tensor], undo: list[Undo]
    ) -> Tensor:
        """`enter` of one search in the host's memory, where it costs nothing to know who enters."""
        if place.dtype != np.int64 or place.min() < 0:
            raise IndexError(f"expected cells as int64 numbers from 0, got {place.dtype} from {place.min()}; see Cells")
        own = self._arrays
        if own is None:
            every = {name: host.array(x) for name, x in self._rows.items()}
            own = self._arrays = _Arrays(
                host.array(self._cost), every, host.array(self._order), host.array(self._first)
            )
        held = own.cost[place]
        undo.append(("", place, held))
        lower = (now < held).nonzero()[0]
        there = place[lower]
        np.minimum.at(own.cost, there, now[lower])
        lowest = lower[now[lower] == own.cost[there]]
        there = place[lowest]
        own.first[there[::-1]] = lowest[::-1]  # of several the first is written last
        enters = lowest[own.first[there] == lowest]
        own.first[there] = _NOBODY
        into = place[enters]
        for name, x in own.rows.items():
            old = x.take(into, 0)
            undo.append((name, into, old))
            x[into] = host.array(_fitted(rows[name], self._rows[name].dtype)).take(enters, 0).reshape(old.shape)
        new = into[held[enters] == np.inf]
        if len(new):
            begin = int(self.filled)
            own.order[begin : begin + len(new)] = new
            self.filled = self.filled + len(new)
        return torch.from_numpy(held)

    def _append(self, cell: Tensor, new: Tensor) -> None:
        """Cells that were empty, to the members: what stands there stays, so that an older version need not undo it."""
        rank = new.cumsum(0)
        place = torch.where(new, rank + (self.filled - 1), self.shape[0]).flatten()
        if self.searches > 1:
            place = place * self.searches + self._numbers.remainder(self.searches)
        self._order.index_copy_(0, place, cell.flatten())
        self.filled = self.filled + rank[-1]

    def restore(self, undo: list[Undo], filled: Tensor) -> None:
        """As it was, with so many members, before what ``undo`` tells of."""
        for name, place, held in reversed(undo):
            x = self._rows[name] if name else self._cost
            if isinstance(place, Tensor) and isinstance(held, Tensor):
                x.index_copy_(0, place, held)
            else:
                host.array(x)[place] = held
        self.filled = filled


def _fitted(x: Tensor, dtype: torch.dtype) -> Tensor:
    x = x.detach() if x.requires_grad else x
    return x if x.dtype == dtype else x.to(dtype)


class _Arrays(NamedTuple):
    """The memory of a shelf as numpy sees it."""

    cost: NDArray[Any]
    rows: dict[str, NDArray[Any]]
    order: NDArray[Any]
    first: NDArray[Any]


Undo = tuple[str, Tensor, Tensor] | tuple[str, NDArray[Any], NDArray[Any]]
"""Name of the rows ("" for the cost), where they stand, and what stood there."""


class Version:
    """One version of an archive: whoever is newest owns the shelf; one that is older and read gets a shelf of its own.

    Args:
        shelf: nobody else's.

    Example:
        >>> old = Version(Shelf(torch.tensor([5.0, 1.0]), {}))
        >>> new, _ = old.entered(torch.tensor([3.0]), torch.tensor([0]), {})
        >>> old.shelf.cost, new.shelf.cost
        (tensor([5., 1.]), tensor([3., 1.]))
    """

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._undo: list[Undo] = []
        self._filled = shelf.filled
        self._newer: Version | None = None

    @property
    def shelf(self) -> Shelf:
        """To read; what is read of it changes when something enters."""
        if self._newer is None:
            return self._shelf
        passed, version = [], self
        while version._newer is not None:
            passed.append(version)
            version = version._newer
        shelf = version.shelf.copied()
        for older in reversed(passed):
            shelf.restore(older._undo, older._filled)
        self._shelf, self._newer, self._undo = shelf, None, []
        return shelf

    def entered(self, cost: Tensor, cell: Tensor, rows: Mapping[str, Tensor]) -> tuple[Version, Tensor]:
        """The version after some candidates have tried to enter, and what each met; see `Shelf.enter`."""
        shelf = self.shelf
        self._undo = []
        self._newer = newer = Version(shelf)
        held = shelf.enter(cost, cell, rows, self._undo)
        newer._filled = shelf.filled
        return newer, held


def nth_member(members: Tensor, n: Tensor) -> Tensor:
    """Members by number, search by search.

    Args:
        members: [cells, *batch_shape] int64.
        n: [k, *batch_shape] int64.

    Returns:
        [k, *batch_shape] int64.

    Example:
        >>> nth_member(torch.tensor([4, 1, 0]), torch.tensor([1, 0]))
        tensor([1, 4])
    """
    return members.index_select(0, n) if n.ndim == 1 else members.gather(0, n)
