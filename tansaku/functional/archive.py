"""Archives of quality-diversity: who enters which cell, decided for a whole batch at once.

J.-B. Mouret and J. Clune, Illuminating Search Spaces by Mapping Elites, 2015, figure 2: a candidate enters its cell if
the cell is empty or if it is better than the cell's elite. No candidate is compared with any cell but its own.

An archive is far larger than a batch, so that it is not copied to change a few of its cells: the newest version of it
owns the memory, and an older one remembers what was overwritten since (H. G. Baker, Shallow Binding Makes Functional
Arrays Fast, 1991).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Shelf:
    """The memory of an archive: what each cell holds of every search, in place.

    Args:
        cost: [cells, *batch_shape] of each cell's elite, +inf where there is none.
        rows: name -> [cells, *batch_shape, ...] what else is held; all are copied.
    """

    def __init__(self, cost: Tensor, rows: Mapping[str, Tensor]) -> None:
        self.shape = cost.shape
        self.searches = cost[0].numel()

        def copied(x: Tensor, aside: Tensor) -> Tensor:  # one row more: there goes what does not enter
            return torch.cat([x, aside]).reshape((x.shape[0] + 1) * self.searches, *x.shape[cost.ndim :])

        self._own(
            copied(cost, torch.full_like(cost[:1], -float("inf"))), {n: copied(x, x[:1]) for n, x in rows.items()}
        )

    def _own(self, cost: Tensor, rows: dict[str, Tensor]) -> None:
        cells = self.shape[0] * self.searches
        self._cost, self._rows = cost, rows
        self.cost = cost[:cells].view(self.shape)
        self.rows = {name: x[:cells].view(*self.shape, *x.shape[1:]) for name, x in rows.items()}
        self._numbers = torch.empty(0, dtype=torch.int64, device=cost.device)

    def copied(self) -> Shelf:
        """The same in memory of its own."""
        copy = object.__new__(Shelf)
        copy.shape, copy.searches = self.shape, self.searches
        copy._own(self._cost.clone(), {name: x.clone() for name, x in self._rows.items()})
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
        nobody = torch.full_like(self._cost, place.shape[0], dtype=torch.int64)
        first = nobody.scatter_reduce_(0, place, number.masked_fill(~lowest, place.shape[0]), "amin")
        into = torch.where(number == first.index_select(0, place), place, self._aside)
        for name, x in self._rows.items():
            undo.append((name, into, x.index_select(0, into)))
            x.index_copy_(0, into, rows[name].reshape(into.shape[0], *x.shape[1:]))
        return held.view(cost.shape)

    def restore(self, undo: list[Undo]) -> None:
        """As it was before what ``undo`` tells of."""
        for name, place, held in reversed(undo):
            (self._rows[name] if name else self._cost).index_copy_(0, place, held)


Undo = tuple[str, Tensor, Tensor]
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
        self._newer: Version | None = None

    @property
    def shelf(self) -> Shelf:
        """To read; what is read of it changes when something enters."""
        if self._newer is None:
            return self._shelf
        passed, version = [], self
        while version._newer is not None:
            passed.append(version._undo)
            version = version._newer
        shelf = version.shelf.copied()
        for undo in reversed(passed):
            shelf.restore(undo)
        self._shelf, self._newer, self._undo = shelf, None, []
        return shelf

    def entered(self, cost: Tensor, cell: Tensor, rows: Mapping[str, Tensor]) -> tuple[Version, Tensor]:
        """The version after some candidates have tried to enter, and what each met; see `Shelf.enter`."""
        shelf = self.shelf
        self._newer, self._undo = Version(shelf), []
        held = shelf.enter(cost, cell, rows, self._undo)
        return self._newer, held


def nth_member(counted: Tensor, n: Tensor) -> Tensor:
    """The index of the n-th member (from 0), search by search; some index where there is none.

    Args:
        counted: [cells, *batch_shape] int64, how many members there are up to each cell.
        n: [k, *batch_shape] int64.

    Returns:
        [k, *batch_shape] int64.

    Example:
        >>> nth_member(torch.tensor([False, True, True]).cumsum(0), torch.tensor([1, 0]))
        tensor([2, 1])
    """
    if counted.ndim > 1:
        found = torch.searchsorted(counted.movedim(0, -1).contiguous(), n.movedim(0, -1).contiguous(), right=True)
        found = found.movedim(-1, 0)
    else:
        found = torch.searchsorted(counted, n, right=True)
    return found.clamp(max=counted.shape[0] - 1)
