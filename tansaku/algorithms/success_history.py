"""What SHADE and L-SHADE share: rates drawn around those that paid, and steps towards one of the best candidates.

R. Tanabe and A. Fukunaga, Success-History Based Parameter Adaptation for Differential Evolution, IEEE CEC 2013; the
mutation and the archive are those of J. Zhang and A. C. Sanderson, JADE: Adaptive Differential Evolution with Optional
External Archive, 2009.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tansaku import draws
from tansaku.algorithms.differential import binomial, trial
from tansaku.algorithms.sampled import ravel
from tansaku.draws import Noise
from tansaku.functional import align, cat_rows, take_rows
from tansaku.operators.bounds import Bounds
from tansaku.population import Population
from tansaku.states import state

_SPREAD = 0.1  # of the rates around their memory


@state
class SuccessHistory:
    """Rates that paid, and candidates that were replaced.

    ``crossover_rate`` and ``scale_factor`` [entries, *batch_shape] are the memories M_CR and M_F, the entry
    ``position`` [*batch_shape] of which is written next; a negative rate is L-SHADE's terminal value. The first
    ``archived`` [*batch_shape] rows of ``archive`` [capacity, *batch_shape, n] are in use.
    """

    crossover_rate: Tensor
    scale_factor: Tensor
    position: Tensor
    archive: Tensor
    archived: Tensor


def forgetful(start: Population, entries: int, capacity: int) -> SuccessHistory:
    """The history before the first generation: all rates 0.5, nothing archived."""
    x = ravel(start)
    half = x.new_full((entries, *start.batch_shape), 0.5, dtype=torch.promote_types(x.dtype, torch.float32))
    none = torch.zeros(start.batch_shape, dtype=torch.int64, device=x.device)
    return SuccessHistory(half, half, none, x.new_zeros((capacity, *x.shape[1:])), none)


def rates(history: SuccessHistory, k: int, noise: Noise) -> tuple[Tensor, Tensor]:
    """CR_i and F_i [k, *batch_shape] around a random entry of the memories (Tanabe & Fukunaga, equations 1 and 2).

    F_i is Cauchy, drawn again until it is positive; the inverse of the distribution's upper part does that in one draw.
    """
    entries, *batch = history.crossover_rate.shape
    batch_shape = tuple(batch)
    like = history.crossover_rate
    entry = draws.integers(entries, (k,), batch_shape, (), like, noise)
    normal = draws.normal((k,), batch_shape, (), like, noise)
    chance = draws.uniform((k,), batch_shape, (), like, noise)
    mean = take_rows(history.crossover_rate, entry)
    rate = torch.where(mean < 0, 0.0, (mean + _SPREAD * normal).clamp(0.0, 1.0))
    centre = take_rows(history.scale_factor, entry)
    below = 0.5 - torch.atan(centre / _SPREAD) / math.pi  # P(F <= 0)
    angle = math.pi * (below + (1 - below) * chance - 0.5)
    # a chance of 0 gives an F of 0 up to rounding, on either side
    factor = (centre + _SPREAD * torch.tan(angle)).clamp(torch.finfo(like.dtype).eps, 1.0)
    return rate, factor


def towards_the_best(
    history: SuccessHistory, targets: Population, top: Tensor, bounds: Bounds | None, noise: Noise
) -> Population:
    """Trials of current-to-pbest/1/bin with archive (Tanabe & Fukunaga, equation 6).

    They carry as traits what `learned` needs: ``crossover_rate``, ``scale_factor`` and ``lot``.

    Args:
        history: of the search.
        targets: assessed, [k, *batch_shape, *event_shape].
        top: [k, *batch_shape] how many of the best each target chooses from.
        bounds: the box, or None.
        noise: a generator or a `Replay`.
    """
    x, n, k, batch_shape = ravel(targets), targets.batch_ndim, targets.k, tuple(targets.batch_shape)
    rate, factor = rates(history, k, noise)
    double = x.new_empty((), dtype=torch.float64)  # a number below 1 times a count stays below the count
    chance = draws.uniform((2, k), batch_shape, (), double, noise)
    leader = take_rows(targets.cost.argsort(dim=0, stable=True), (chance[0] * top).long())
    (first,) = draws.others(1, k, batch_shape, x, noise)
    second = (chance[1] * (k + history.archived - 2)).long()  # of targets and archive, without the two that are taken
    own = torch.arange(k, device=x.device).view(k, *(1,) * n)
    second = second + (second >= torch.minimum(own, first))
    second = second + (second >= torch.maximum(own.expand_as(first), first))
    pool = cat_rows(x, history.archive)
    step = take_rows(x, leader).sub_(x).add_(take_rows(x, first)).sub_(take_rows(pool, second))
    mutant = step.mul_(factor.to(x.dtype)[..., None]).add_(x)
    children = trial(binomial(rate, x, n, noise), mutant, x, targets, bounds)
    rows = -(-(k + history.archive.shape[0]) // k)
    lot = draws.uniform((k,), batch_shape, (rows,), double, noise)
    return children.with_traits(crossover_rate=rate, scale_factor=factor, lot=lot)


def learned(history: SuccessHistory, targets: Population, asked: Population, lehmer: bool) -> SuccessHistory:
    """The history after a generation (Tanabe & Fukunaga, algorithm 1 and equations 3 to 5, 7 and 8).

    Args:
        history: before.
        targets: [k, *batch_shape, *event_shape] assessed.
        asked: their trials, from `towards_the_best`, assessed.
        lehmer: whether a crossover rate is remembered as a Lehmer mean, with the terminal value (L-SHADE).
    """
    success = asked.cost < targets.cost
    rate, factor = asked.traits["crossover_rate"], asked.traits["scale_factor"]
    weight = _gains(targets.feasible_cost, asked.feasible_cost, success).to(rate.dtype)
    any_success = success.any(0)
    mean_factor = _lehmer_mean(weight, factor)
    mean_rate = _lehmer_mean(weight, rate) if lehmer else (weight * rate).sum(0)
    if lehmer:
        old = take_rows(history.crossover_rate, history.position[None])[0]
        over = (old < 0) | (torch.where(success, rate, 0.0).amax(0) <= 0)
        mean_rate = torch.where(over, -1.0, mean_rate)
    entries = torch.arange(history.crossover_rate.shape[0], device=rate.device)
    written = (align(entries, history.crossover_rate) == history.position) & any_success
    return SuccessHistory(
        torch.where(written, mean_rate, history.crossover_rate),
        torch.where(written, mean_factor, history.scale_factor),
        torch.remainder(history.position + any_success, history.crossover_rate.shape[0]),
        *_archived(history, targets, asked.traits["lot"], success),
    )


def _gains(before: Tensor, after: Tensor, success: Tensor) -> Tensor:
    """What each success gained, as weights that sum to 1; a gain without end counts as the largest that has one."""
    gain = torch.where(success, before - after, 0.0)
    finite = torch.isfinite(gain)
    largest = torch.where(finite, gain, 0.0).amax(0, keepdim=True)
    largest = torch.where(largest > 0, largest, 1.0)
    share = torch.where(finite, gain / largest, 1.0)
    total = share.sum(0, keepdim=True)
    return share / torch.where(total > 0, total, 1.0)


def _lehmer_mean(weight: Tensor, x: Tensor) -> Tensor:
    """Sum of w x^2 / sum of w x (Tanabe & Fukunaga, equation 8); 0 where all are 0."""
    below = (weight * x).sum(0)
    return (weight * x * x).sum(0) / torch.where(below > 0, below, 1.0)


def _archived(history: SuccessHistory, targets: Population, lot: Tensor, success: Tensor) -> tuple[Tensor, Tensor]:
    """The archive with the targets that were replaced; when it is too full, a random part of both."""
    capacity = history.archive.shape[0]
    if capacity == 0:
        return history.archive, history.archived
    lots = lot.movedim(-1, 0).flatten(0, 1)[: capacity + targets.k]
    place = align(torch.arange(capacity, device=lots.device), lots)
    free = torch.cat([(place >= history.archived).expand(capacity, *success.shape[1:]), ~success])
    kept = torch.where(free, 2.0, lots).argsort(dim=0, stable=True)[:capacity]
    rows = take_rows(cat_rows(history.archive, ravel(targets)), kept)
    return rows, (history.archived + success.sum(0)).clamp(max=capacity)
