"""CMA-ME's improvement emitter: CMA-ES that climbs towards what the archive still lacks.

M. C. Fontaine, J. Togelius, S. Nikolaidis and A. K. Hoover, Covariance Matrix Adaptation for the Rapid Illumination of
Behavior Space, 2020, algorithm 2; the update is that of N. Hansen, The CMA Evolution Strategy: A Tutorial, 2016
(numbers in brackets are its equations), without negative weights and without the correction of h_sigma for the first
generations. All candidates that improve on the archive as it was before their batch are parents. Candidates are
repaired by the bounds; the distribution learns from them as they were drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tansaku import checks, draws, host
from tansaku.algorithms.base import check_std, step_size
from tansaku.algorithms.emitters import Emitter, elites
from tansaku.algorithms.sampled import ravel, unravel
from tansaku.caching import cached
from tansaku.draws import Noise
from tansaku.operators.bounds import Bounds
from tansaku.population import Population
from tansaku.states import state


@state
class CMAEmitterState:
    """A normal distribution over all genes as one vector, and whether it begins anew at another elite.

    For d distributions ``mean``, ``path`` (of the mean), ``step_path`` [d, *batch_shape, n]; ``covariance``, its
    symmetric ``root`` and the ``inverse`` of that [d, *batch_shape, n, n]; ``step``, ``restart`` [d, *batch_shape];
    ``unit`` [*batch_shape, n], the length scale of each gene.
    """

    mean: Tensor
    path: Tensor
    step_path: Tensor
    covariance: Tensor
    root: Tensor
    inverse: Tensor
    step: Tensor
    restart: Tensor
    unit: Tensor


@dataclass(frozen=True)
class CMAEmitter(Emitter):
    """Samples by CMA-ES, ranked by improvement: new cells first, by cost, then better elites, by how much.

    When no candidate improves the archive, the distribution begins anew at an elite drawn at random.

    Args:
        std: of the first samples, in units of the genes: a number, a tensor that broadcasts against [*event_shape], or
            a mapping from names to either; a fifth of the bounds' span if not given, else 1.
        distributions: that search side by side, each with an equal share of the candidates: as many emitters as
            that, in the time of little more than one.

    Raises:
        ValueError: (at the start) candidates that cannot be shared out equally.
    """

    std: float | Tensor | Mapping[str, float | Tensor] | None = None
    distributions: int = 1
    rank_based = False  # improvements are differences of costs
    dtypes = frozenset({"real"})

    def __post_init__(self) -> None:
        check_std(self.std)
        checks.count("distributions", self.distributions)

    def init(self, start: Population, k: int, bounds: Bounds | None) -> CMAEmitterState:
        """The distribution around the best of the start."""
        if k % self.distributions:
            raise ValueError(
                f"expected candidates that {self.distributions} distributions can share equally, got {k}; "
                f"use {-(-k // self.distributions) * self.distributions}"
            )
        best = start.best().individual()
        unit = {}
        for name, x in best.genes.items():
            scale = torch.as_tensor(step_size(self.std, bounds, name, x), device=x.device, dtype=x.dtype)
            unit[name] = torch.where(scale > 0, scale, torch.ones_like(scale)).expand_as(x)
        units = ravel(Population({name: x[None] for name, x in unit.items()}, best.batch_ndim))[0]
        dtype = torch.promote_types(units.dtype, torch.float32)
        mean, units = ravel(best).to(dtype), units.to(dtype)
        mean = mean.expand(self.distributions, *mean.shape).contiguous()
        zero = torch.zeros_like(mean)
        eye = torch.eye(mean.shape[-1], dtype=dtype, device=mean.device).expand(*mean.shape, -1).clone()
        step = torch.ones_like(mean[..., 0])
        restart = torch.zeros_like(step, dtype=torch.bool)
        return CMAEmitterState(mean, zero, zero.clone(), eye, eye.clone(), eye.clone(), step, restart, units)

    def emit(self, state: Any, archive: Population, k: int, bounds: Bounds | None, noise: Noise) -> Population:
        """See `Emitter.emit`."""
        chosen = elites(archive, self.distributions, noise)
        now = _begun(state, ravel(chosen).to(state.mean.dtype))
        share, batch_shape, n = k // self.distributions, tuple(now.mean.shape[1:-1]), now.mean.shape[-1]
        z = draws.normal((share, self.distributions), batch_shape, (n,), now.mean, noise)
        away = (now.root @ z[..., None])[..., 0]
        raw = (now.mean + now.step[..., None] * now.unit * away).flatten(0, 1)
        traits = {"raw": raw, "centre": now.mean.expand(share, *now.mean.shape).flatten(0, 1)}
        return Population(unravel(raw, chosen), archive.batch_ndim, traits)

    def learn(self, state: Any, asked: Population, cost: Tensor, held: Tensor) -> CMAEmitterState:
        """See `Emitter.learn`."""
        each = (-1, self.distributions)
        raw, centre, cost, held = (
            x.unflatten(0, each) for x in (asked.traits["raw"], asked.traits["centre"], cost, held)
        )
        now = _begun(state, centre[0])
        n, dtype = now.mean.shape[-1], now.mean.dtype
        better = cost < held
        new = better & (held == float("inf"))
        order = torch.where(new, cost, cost - held).argsort(dim=0, stable=True)
        group = torch.where(new, 0, torch.where(better, 1, 2))
        order = order.gather(0, group.gather(0, order).argsort(dim=0, stable=True))
        away = (raw - now.mean) / (now.step[..., None] * now.unit)
        away = away.gather(0, order[..., None].expand_as(away))
        parents = better.sum(0)
        place, table = _settings(cost.shape[0], n, dtype, cost.device)
        rates = table[parents][..., None, :].unbind(-1)
        most, total, c_step, damping, c_path, c_one, c_mu, step_gain, path_gain = rates
        weight = (most - place).clamp(min=0).div_(total).movedim(-1, 0)  # as many as are better
        moved = (weight[..., None] * away).sum(0)  # (41)
        white = (now.inverse @ moved[..., None])[..., 0]
        step_path = (1 - c_step) * now.step_path + step_gain * white  # (43)
        expected = math.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n * n))
        length = step_path.norm(dim=-1, keepdim=True)
        step = now.step * torch.exp((c_step / damping * (length / expected - 1)).clamp(max=1.0))[..., 0]  # (44)
        short = (length < (1.4 + 2 / (n + 1)) * expected).to(dtype)
        path = (1 - c_path) * now.path + short * path_gain * moved  # (45)
        rank_mu = (weight[..., None] * away).movedim(0, -1) @ away.movedim(0, -2)
        one, mu, kept = c_one[..., None], c_mu[..., None], ((1 - short) * c_path * (2 - c_path))[..., None]
        covariance = (1 - one - mu + one * kept) * now.covariance  # (47)
        covariance = covariance + one * path[..., :, None] * path[..., None, :] + mu * rank_mu
        mean = now.mean + now.step[..., None] * now.unit * moved
        spread = covariance.diagonal(dim1=-2, dim2=-1)
        widest = spread.amax(-1)
        longest = step * widest.sqrt()
        sound = torch.isfinite(covariance.sum((-2, -1))) & torch.isfinite(mean).all(-1)
        sound = sound & (longest > 1e-11) & (longest < 1e11) & (widest < 1e14 * spread.amin(-1))
        restart = (parents == 0) | ~sound
        told = CMAEmitterState(mean, path, step_path, covariance, now.root, now.inverse, step, restart, now.unit)
        told = _begun(told, now.mean)  # where it restarts, nothing unsound is kept
        root, inverse = _roots(told.covariance)
        return replace(told, root=root, inverse=inverse, restart=restart)


@cached(8)
def _settings(k: int, n: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """The logarithms of 1 .. k, and for 0 .. k parents of n genes what `learn` reads [k + 1, 9].

    The weights of p parents are log(p + 1/2) - log(i) for i = 1 .. p, over their sum.
    """
    parents = torch.arange(k + 1, dtype=torch.float64)
    place = torch.arange(1, k + 1, dtype=torch.float64).log()
    most = (parents + 0.5).log()
    places, squares = (torch.cat([x.new_zeros(1), x.cumsum(0)]) for x in (place, place.square()))
    total = (parents * most - places).clamp(min=1e-30)
    square = (parents * most.square() - 2 * most * places + squares).clamp(min=1e-60)
    mass = torch.where(parents > 0, total.square() / square, 1)  # mu_eff, (8)
    c_step = (mass + 2) / (n + mass + 5)  # (55)
    damping = 1 + 2 * (((mass - 1) / (n + 1)).sqrt() - 1).clamp(min=0) + c_step
    c_path = (4 + mass / n) / (n + 4 + 2 * mass / n)  # (56)
    c_one = 2 / ((n + 1.3) ** 2 + mass)  # (57)
    c_mu = torch.minimum(1 - c_one, 2 * (mass - 2 + 1 / mass) / ((n + 2) ** 2 + mass)).clamp(min=0)  # (58)
    gains = ((rate * (2 - rate) * mass).sqrt() for rate in (c_step, c_path))
    table = torch.stack([most, total, c_step, damping, c_path, c_one, c_mu, *gains], -1)
    return place.to(device, dtype), table.to(device, dtype)


def _begun(state: CMAEmitterState, centre: Tensor) -> CMAEmitterState:
    """The distribution as it is, or anew around ``centre`` [*batch_shape, n] where it restarts."""
    if host.readable(state.restart) and not bool(state.restart.any()):
        return state
    fresh, vector = state.restart, state.restart[..., None]
    matrix = vector[..., None]
    eye = torch.eye(centre.shape[-1], dtype=centre.dtype, device=centre.device)
    return CMAEmitterState(
        torch.where(vector, centre, state.mean),
        torch.where(vector, 0, state.path),
        torch.where(vector, 0, state.step_path),
        torch.where(matrix, eye, state.covariance),
        torch.where(matrix, eye, state.root),
        torch.where(matrix, eye, state.inverse),
        torch.where(fresh, 1, state.step),
        torch.zeros_like(fresh),
        state.unit,
    )


def _roots(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """The symmetric square root and its inverse, of the positive part."""
    value, vector = torch.linalg.eigh((covariance + covariance.mT) / 2)
    length = value.clamp(min=torch.finfo(value.dtype).tiny).sqrt()[..., None, :]
    return (vector * length) @ vector.mT, (vector / length) @ vector.mT
