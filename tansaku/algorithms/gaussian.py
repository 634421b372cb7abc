"""What searches share that sample mean + std * noise, rank the samples and move the distribution.

They read the order of the costs and nothing else. The standard normal noise rides along as a trait, so that what is
learned from it stays exact when the samples themselves are rounded, far past convergence.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from tansaku import draws
from tansaku.algorithms.base import Algorithm, step_size
from tansaku.algorithms.sampled import distance_outside, hand_out, ravel, unravel
from tansaku.draws import Noise
from tansaku.functional import ranked_weights, ranks
from tansaku.operators.bounds import Bounds
from tansaku.population import Individual, Population

SMALLEST, LARGEST = 1e-30, 1e15
"""Limits of a standard deviation, in units of the first one of its gene."""

_LARGEST_MEAN = {dtype: torch.finfo(dtype).max ** 0.4 for dtype in (torch.float32, torch.float64)}

_NOISE = "noise"


class Distribution(Protocol):
    """What the states have in common: ``mean``, ``unit`` [*batch_shape, n], and ``best`` (k = 1, assessed)."""

    @property
    def mean(self) -> Tensor:
        """[*batch_shape, n] genes of all names as one vector, see `tansaku.ravel`."""

    @property
    def unit(self) -> Tensor:
        """[*batch_shape, n] the first standard deviations."""

    @property
    def best(self) -> Population:
        """The best candidate ever."""


S = TypeVar("S", bound=Distribution)


class GaussianSearch(Algorithm[S]):
    """An algorithm whose state has a mean, which begins at the best of the start, and a best candidate."""

    @abstractmethod
    def init(self, start: Population) -> S:
        """The distribution around the best of the start."""

    def best(self, state: S) -> Population:
        """The best candidate ever assessed."""
        return state.best

    def estimate(self, state: S) -> Individual:
        """The mean, inside the bounds."""
        like = state.best.individual()
        genes = unravel(state.mean, like)
        if self.bounds is not None:
            genes = {name: self.bounds.repaired(name, x) for name, x in genes.items()}
        return Individual(genes, like.batch_ndim)

    def _begin(self, start: Population) -> tuple[Tensor, Population]:
        """The mean and the best candidate of the start; half precision is too narrow for a mean."""
        self.check_start(start)
        best = start.without_traits().best()
        mean = ravel(best)[0]
        return mean.to(torch.promote_types(mean.dtype, torch.float32)), best


def first_std(
    std: float | Tensor | Mapping[str, float | Tensor] | None, bounds: Bounds | None, best: Population, mean: Tensor
) -> Tensor:
    """[*batch_shape, n] the standard deviations to begin with; see `step_size`.

    Args:
        std: as the algorithm was given it.
        bounds: as the algorithm was given them.
        best: a candidate (k = 1) of the search.
        mean: of the dtype wanted.
    """
    parts = []
    for name in sorted(best.genes):
        x = best[name][0]
        step = step_size(std, bounds, name, x)
        scale = step.to(mean.dtype) if isinstance(step, Tensor) else mean.new_full((), step)
        parts.append(scale.expand(x.shape).reshape(*best.batch_shape, -1))
    return torch.cat(parts, -1)


def limited(std: Tensor, unit: Tensor) -> Tensor:
    """Standard deviations [..., n], not too far from the first ones, ``unit`` [*batch_shape, n]."""
    return torch.clamp(std, unit * SMALLEST, unit * LARGEST)


def finite_mean(mean: Tensor) -> Tensor:
    """A mean [*batch_shape, n] within what its dtype can square, 2.6e15 in float32 and 1e123 in float64."""
    most = _LARGEST_MEAN[mean.dtype]
    return torch.clamp(mean, -most, most)


def draw(k: int, mean: Tensor, noise: Noise, kind: Callable[..., Tensor] = draws.normal) -> Tensor:
    """[k, *batch_shape, n] standard normal numbers for the ``mean``, or others of `draws`."""
    return kind((k,), tuple(mean.shape[:-1]), tuple(mean.shape[-1:]), mean, noise)


def hand_out_with(noise: Tensor, raw: Tensor, best: Population, bounds: Bounds | None, **traits: Tensor) -> Population:
    """See `hand_out`; the noise rides along for `noise_of`."""
    return hand_out(raw, best, bounds, **{_NOISE: noise}, **traits)


def noise_of(asked: Population) -> Tensor:
    """[k, *batch_shape, n] the standard normal noise of the samples."""
    return asked.traits[_NOISE]


def penalised_order(asked: Population, std: Tensor) -> Tensor:
    """[k, *batch_shape] numbers by which to rank: the costs; with bounds their ranks, plus what lies outside pays.

    The twin of `penalised_cost` for searches that only read ranks: the price of a squared distance of one standard
    deviation is k / 2, the spread of the ranks between their quarters. So any rising function of the cost gives the
    same run with bounds too.

    Args:
        asked: assessed, from `hand_out`.
        std: broadcasts against [k, *batch_shape, n]: the standard deviation of each gene's samples.
    """
    distance = distance_outside(asked, std)
    if distance is None:
        return asked.cost.to(torch.promote_types(asked.cost.dtype, std.dtype))
    return ranks(asked.cost).to(std.dtype) + distance * (asked.k / 2)


def shares(asked: Population, std: Tensor, count: int) -> Tensor:
    """[k, *batch_shape] equal weights of the ``count`` best, which sum to 1; ties for the last place share it.

    A failed evaluation has no weight; where all have failed, the weights sum to 0.

    Args:
        asked: assessed, from `hand_out`.
        std: see `penalised_order`.
        count: of the best.
    """
    best = (torch.arange(asked.k, device=std.device) < count).to(std.dtype)
    weights = ranked_weights(penalised_order(asked, std), best)
    weights = torch.where(asked.cost < float("inf"), weights, torch.zeros_like(weights))
    total = weights.sum(0)
    return weights / torch.where(total > 0, total, torch.ones_like(total))
