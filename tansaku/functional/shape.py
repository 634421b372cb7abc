"""Costs as weights: what a population's costs say about a direction. All along dimension 0.

Every function gives weights [k, *batch_shape] that favour low costs. Infinite costs (failed evaluations included) count
as the worst finite one, so that one of them does not erase what the others say.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tansaku import host


def finite_costs(cost: Tensor) -> Tensor:
    """``cost`` with +inf replaced by the worst finite cost of its search, and -inf by the best; zeros if none is."""
    finite = torch.isfinite(cost)
    worst = torch.where(finite, cost, -float("inf")).amax(0, keepdim=True)
    best = torch.where(finite, cost, float("inf")).amin(0, keepdim=True)
    filled = torch.where(finite, cost, torch.where(cost > 0, worst, best))
    return torch.where(finite.any(0, keepdim=True), filled, torch.sign(torch.nan_to_num(cost)))


def ranks(cost: Tensor) -> Tensor:
    """0 for the lowest cost of each search, k - 1 for the highest; ties share the mean of their ranks."""
    dtype = torch.promote_types(cost.dtype, torch.float32)
    order = _order_here(cost)
    if order is not None:
        place = torch.empty(cost.shape, dtype=dtype)
        host.array(place)[order] = np.arange(len(order))
        return place
    below, upto = _places(cost)
    return (below + upto - 1).to(dtype) / 2


def centred_ranks(cost: Tensor) -> Tensor:
    """Ranks spread evenly over [-0.5, 0.5], 0.5 for the lowest cost; ties share the mean of their ranks.

    Reference: T. Salimans et al., Evolution Strategies as a Scalable Alternative to Reinforcement Learning, 2017.
    """
    k = cost.shape[0]
    return torch.zeros_like(cost) if k == 1 else ranks(cost).to(cost.dtype) / (1 - k) + 0.5


def ranked_weights(cost: Tensor, weights: Tensor) -> Tensor:
    """The weights [k], best first, given to the candidates in the order of their costs; ties share the mean of theirs.

    >>> ranked_weights(torch.tensor([5.0, 1.0, 5.0]), torch.tensor([1.0, 0.5, 0.0]))
    tensor([0.2500, 1.0000, 0.2500])
    """
    order = _order_here(cost)
    if order is not None and host.readable(weights):
        given = torch.empty_like(weights)
        host.array(given)[order] = host.array(weights)
        return given
    below, upto = _places(cost)
    total = torch.cat([weights.new_zeros(1), weights.cumsum(0)])
    shared = (total[upto] - total[below]) / (upto - below)
    return torch.where(upto - below == 1, weights[below], shared)


def weighted_sum(weights: Tensor, x: Tensor) -> Tensor:
    """The sum of ``weights`` [k, *batch_shape] times ``x`` [k, *batch_shape, n] over the candidates."""
    if weights.ndim == 1 and x.ndim == 2:
        return weights @ x  # einsum takes a dozen operations to say so
    return torch.einsum("k...,k...n->...n", weights, x)


def _order_here(cost: Tensor) -> NDArray[np.int64] | None:
    """The candidates' numbers by cost, in the host's memory; None elsewhere, for several searches, or if two tie."""
    if cost.ndim != 1 or not host.numeric(cost):
        return None
    values = host.array(cost)
    order = values.argsort()
    ordered = values[order]
    return None if bool((ordered[1:] == ordered[:-1]).any()) else order


def _places(cost: Tensor) -> tuple[Tensor, Tensor]:
    """How many candidates of the same search cost less than each, and how many no more."""
    columns = cost.movedim(0, -1).contiguous()
    ordered = columns.sort(dim=-1).values
    below = torch.searchsorted(ordered, columns)
    upto = torch.searchsorted(ordered, columns, right=True)
    return below.movedim(-1, 0), upto.movedim(-1, 0)


def centred_costs(cost: Tensor) -> Tensor:
    """The mean less the cost, per search: they sum to 0."""
    cost = finite_costs(cost)
    return cost.mean(0, keepdim=True) - cost


def standardised_weights(cost: Tensor) -> Tensor:
    """(mean - cost) / standard deviation per search: they sum to 0, and are 0 where all costs are equal."""
    centred = centred_costs(cost.float() if cost.dtype in (torch.float16, torch.bfloat16) else cost)
    largest = centred.abs().amax(0, keepdim=True)
    unit = torch.where(largest > 0, centred / largest, torch.zeros_like(centred))  # squares neither overflow nor vanish
    scale = unit.square().mean(0, keepdim=True).sqrt()
    return torch.where(scale > 0, unit / scale, torch.zeros_like(unit)).to(cost.dtype)


def softmax_weights(cost: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """softmax(-cost / temperature) per search: they are positive and sum to 1."""
    return torch.softmax(-finite_costs(cost) / temperature, 0)
