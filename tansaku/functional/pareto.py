"""Several objectives: who dominates whom, and how crowded a front is. Costs are [k, *batch_shape, m].

K. Deb, A. Pratap, S. Agarwal and T. Meyarivan, A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II, IEEE
Transactions on Evolutionary Computation 6(2), 2002. The ranks are those of its fast-non-dominated-sort, found in
another way: a candidate's rank is the length of the longest chain of candidates that dominate one another and end in
it, and chains are joined block by block, so that neither the number of fronts nor any value has to be known by the
host, and no matrix of all pairs is built. In the host's own memory a single search is ranked front by front: of two
objectives as M. Jensen, Reducing the Run-Time Complexity of Multiobjective EAs, IEEE Transactions on Evolutionary
Computation 7(5), 2003; of more by the matrix of all pairs, up to a size.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tansaku import host

_BLOCK = 8  # candidates ranked at once; the memory is this many squared times their number
_PAIRS = 1 << 12  # candidates of which all pairs make a matrix in the host's memory


def dominates(a: Tensor, b: Tensor) -> Tensor:
    """Whether ``a`` is nowhere worse than ``b`` and somewhere better.

    Args:
        a: [..., m] costs without NaN.
        b: [..., m], broadcasts against ``a``.

    Returns:
        [...] booleans.

    Example:
        >>> dominates(torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 3.0], [0.0, 3.0], [1.0, 2.0]]))
        tensor([ True, False, False])
    """
    pairs = list(zip(a.unbind(-1), b.unbind(-1), strict=True))
    nowhere_worse, somewhere_better = pairs[0][0] <= pairs[0][1], pairs[0][0] < pairs[0][1]
    for left, right in pairs[1:]:
        nowhere_worse, somewhere_better = nowhere_worse & (left <= right), somewhere_better | (left < right)
    return nowhere_worse & somewhere_better


def pareto_ranks(cost: Tensor) -> Tensor:
    """The number of the front that each candidate is in; 0 is the Pareto front. NaN is the worst possible cost.

    Args:
        cost: [k, *batch_shape, m], lower is better.

    Returns:
        [k, *batch_shape] int64; equal candidates are in the same front.

    Example:
        >>> pareto_ranks(torch.tensor([[1.0, 4.0], [2.0, 2.0], [3.0, 3.0], [4.0, 4.0], [2.0, 2.0]]))
        tensor([0, 0, 1, 2, 0])
    """
    lead, m = cost.shape[:-1], cost.shape[-1]
    k = lead[0]
    if cost.ndim == 2 and (m <= 2 or k <= _PAIRS) and host.numeric(cost):
        return torch.from_numpy(_ranks_here(host.array(cost)))
    cost = torch.where(torch.isnan(cost), float("inf"), cost).reshape(k, -1, m)
    order = _lexicographic(cost)  # who dominates stands before who is dominated
    ordered = cost.gather(0, order[..., None].expand_as(cost))
    missing = -k % _BLOCK
    ordered = torch.cat([ordered, ordered.new_full((missing, *ordered.shape[1:]), float("inf"))])
    blocks = ordered.view(-1, _BLOCK, *ordered.shape[1:])
    inner = _chains(dominates(blocks[:, :, None], blocks[:, None]))  # [blocks, from, to, searches]
    rank = torch.zeros(ordered.shape[:-1], dtype=torch.int32, device=cost.device)
    for block in range(blocks.shape[0]):
        begin, end = block * _BLOCK, (block + 1) * _BLOCK
        longest = rank[begin:end]
        if block:
            above = dominates(ordered[:begin, None], ordered[None, begin:end])
            longest = (above * (rank[:begin, None] + 1)).amax(0)
        rank[begin:end] = (longest[:, None] + inner[block]).amax(0)
    return torch.empty_like(order).scatter_(0, order, rank[:k].to(order.dtype)).view(lead)


def _lexicographic(cost: Tensor) -> Tensor:
    """[k, searches] the order by the first objective, ties by the second, and so on; of equals, the lower index."""
    order = cost[..., -1].argsort(dim=0, stable=True)
    for column in cost.unbind(-1)[-2::-1]:
        order = order.gather(0, column.gather(0, order).argsort(dim=0, stable=True))
    return order


def _chains(above: Tensor) -> Tensor:
    """Longest chains within each block, [blocks, from, to, searches]: hugely negative where there is none."""
    none = -(1 << 28)
    length = torch.where(above, 1, none).to(torch.int32)
    same = torch.eye(_BLOCK, dtype=torch.bool, device=above.device)[:, :, None]
    length = torch.where(same, 0, length)
    for _ in range((_BLOCK - 1).bit_length()):  # chains twice as long each time
        length = (length[:, :, :, None] + length[:, None]).amax(2)
    return length


def _ranks_here(cost: NDArray[Any]) -> NDArray[np.int64]:
    """`pareto_ranks` of one search, [k, m] -> [k]."""
    cost = np.where(np.isnan(cost), np.inf, cost)
    order = np.lexsort(cost.T[::-1])  # who dominates stands before who is dominated
    ordered = cost[order]
    new = np.ones(len(cost), dtype=bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(1)
    different = ordered[new]
    ranks = np.empty(len(cost), dtype=np.int64)
    of_two = different.shape[1] <= 2
    ranks[order] = (_by_last_of_front(different[:, -1]) if of_two else _by_pairs(different))[new.cumsum() - 1]
    return ranks


def _by_last_of_front(last: NDArray[Any]) -> NDArray[np.int64]:
    """Ranks of different candidates in lexicographic order, by the ``last`` of their one or two costs, [k].

    The lowest last cost of a front belongs to whoever came into it last: that one dominates the next candidate if any
    of the front does, and the fronts stand in the order of theirs.
    """
    lowest: list[float] = []
    ranks = []
    for value in last.tolist():
        rank = bisect_right(lowest, value)
        lowest[rank : rank + 1] = [value]
        ranks.append(rank)
    return np.array(ranks, dtype=np.int64)


def _by_pairs(cost: NDArray[Any]) -> NDArray[np.int64]:
    """Ranks of different candidates [k, m] in lexicographic order, one front after the other taken off."""
    first, *others = np.ascontiguousarray(cost.T)
    below = first[:, None] <= first  # who dominates whom
    for column in others:
        below &= column[:, None] <= column
    np.fill_diagonal(below, False)
    left = below.sum(0, dtype=np.int32)  # how many of those that are left dominate each
    ranks = np.empty(len(cost), dtype=np.int64)
    rank = 0
    while len(front := np.flatnonzero(left == 0)):
        ranks[front] = rank
        left -= below[front].sum(0, dtype=np.int32)
        left[front] = -1
        rank += 1
    return ranks


def crowding_distances(cost: Tensor, rank: Tensor) -> Tensor:
    """How far apart each candidate's neighbours in its own front are: crowding-distance-assignment for every front.

    The ends of a front in any objective are infinitely far apart. An objective's distances are divided by its range in
    the front; where that is 0 or infinite they count as 0, which keeps a failed objective from hiding the others. Of
    equal candidates the one of lower index comes first.

    Args:
        cost: [k, *batch_shape, m]; NaN is +inf.
        rank: [k, *batch_shape] the fronts, from `pareto_ranks`.

    Returns:
        [k, *batch_shape] in the dtype of ``cost``, >= 0.

    Example:
        >>> cost = torch.tensor([[0.0, 1.0], [0.25, 0.5], [1.0, 0.0], [2.0, 2.0]])
        >>> crowding_distances(cost, pareto_ranks(cost))
        tensor([inf, 2., inf, inf])
    """
    cost = torch.where(torch.isnan(cost), float("inf"), cost)
    k = cost.shape[0]
    place = torch.arange(k, device=cost.device).view((-1,) + (1,) * (rank.ndim - 1)).expand_as(rank)
    total = torch.zeros_like(cost[..., 0])
    for column in cost.unbind(-1):
        order = column.argsort(dim=0, stable=True)
        order = order.gather(0, rank.gather(0, order).argsort(dim=0, stable=True))
        front, value = rank.gather(0, order), column.gather(0, order)
        change = front[1:] != front[:-1]
        edge = torch.ones_like(front[:1], dtype=torch.bool)
        first, last = torch.cat([edge, change]), torch.cat([change, edge])
        lowest = value.gather(0, torch.where(first, place, 0).cummax(0).values)
        highest = value.gather(0, torch.where(last, place, k - 1).flip(0).cummin(0).values.flip(0))
        span = highest - lowest
        usable = torch.isfinite(span) & (span > 0)
        gap = (value.roll(-1, 0) - value.roll(1, 0)) / torch.where(usable, span, 1)
        distance = torch.where(first | last, float("inf"), torch.where(usable, gap, 0))
        total = total + torch.empty_like(distance).scatter_(0, order, distance)
    return total
