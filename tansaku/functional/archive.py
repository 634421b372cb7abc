"""Archives of quality-diversity: who enters which cell, decided for a whole batch at once.

J.-B. Mouret and J. Clune, Illuminating Search Spaces by Mapping Elites, 2015, figure 2: a candidate enters its cell if
the cell is empty or if it is better than the cell's elite.
"""

from __future__ import annotations

import torch
from torch import Tensor


def entering(held: Tensor, cost: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Who stands in each candidate's cell once all of them have tried to enter it.

    The lowest cost of a cell's candidates enters if it is below what the cell holds; of equal ones the first. No
    candidate is compared with any cell but its own.

    Args:
        held: [cells, *batch_shape] cost of each cell's elite, +inf where there is none.
        cost: [k, *batch_shape] without NaN.
        cell: [k, *batch_shape] int64.

    Returns:
        [k, *batch_shape] the number of the candidate that enters the same cell, and whether there is one.

    Example:
        >>> held, inf = torch.tensor([5.0, 1.0, float("inf")]), float("inf")
        >>> entering(held, torch.tensor([4.0, 3.0, 2.0, inf]), torch.tensor([0, 0, 1, 2]))
        (tensor([1, 1, 3, 3]), tensor([ True,  True, False, False]))
    """
    k = cost.shape[0]
    lowest = held.scatter_reduce(0, cell, cost, "amin")
    enters = (cost < held.gather(0, cell)) & (cost == lowest.gather(0, cell))
    number = torch.arange(k, device=cost.device).view((-1,) + (1,) * (cost.ndim - 1)).expand_as(cell)
    nobody = torch.full(held.shape, k, dtype=torch.int64, device=cost.device)
    first = nobody.scatter_reduce(0, cell, torch.where(enters, number, k), "amin").gather(0, cell)
    return first.clamp(max=k - 1), first < k


def nth_member(member: Tensor, n: Tensor) -> Tensor:
    """The index of the n-th member (from 0), search by search; some index where there is none.

    Args:
        member: [cells, *batch_shape] booleans.
        n: [k, *batch_shape] int64.

    Returns:
        [k, *batch_shape] int64.

    Example:
        >>> nth_member(torch.tensor([False, True, True]), torch.tensor([1, 0]))
        tensor([2, 1])
    """
    counted = member.cumsum(0).movedim(0, -1).contiguous()
    found = torch.searchsorted(counted, (n + 1).movedim(0, -1).contiguous())
    return found.movedim(-1, 0).clamp(max=member.shape[0] - 1)
