"""LM-MA-ES: matrix adaptation with a few vectors in place of a matrix, for thousands of genes.

I. Loshchilov, T. Glasmachers and H.-G. Beyer, Large Scale Black-Box Optimization by Limited-Memory Matrix Adaptation,
2018, algorithm 1. Deviations: learning rates end at 1/2, which they pass only with fewer than 4 k genes; failed
candidates have no weight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tansaku import checks, draws
from tansaku.algorithms.base import Algorithm, Needs, better, check_std
from tansaku.algorithms.cma_base import first_std, inside, next_sigma, ranked_cost
from tansaku.algorithms.sampled import hand_out, ravel
from tansaku.algorithms.strategy import candidate_weights, default_k
from tansaku.caching import cached
from tansaku.draws import Noise
from tansaku.operators.bounds import Bounds
from tansaku.population import Individual, Population
from tansaku.states import state

_NORMAL = "normal"


@state
class LMMAESState:
    """The distribution; n genes of all names as one vector, see `ravel`.

    Args:
        incumbent: the best ever assessed, k = 1.
        weights: [k] of the candidates from the best to the worst.
        mean: [*batch_shape, n].
        sigma: [*batch_shape], and ``first_sigma`` the one it began with, the largest of the first standard deviations.
        unit: [*batch_shape, n] the first standard deviations over ``first_sigma``.
        path: [*batch_shape, n] of the step size.
        memory: [m, *batch_shape, n] the vectors that stand for the matrix, the fastest first.
        generation: [*batch_shape] complete generations, without those in which every candidate failed.
    """

    incumbent: Population
    weights: Tensor
    mean: Tensor
    sigma: Tensor
    first_sigma: Tensor
    unit: Tensor
    path: Tensor
    memory: Tensor
    generation: Tensor


@dataclass(frozen=True)
class LMMAES(Algorithm[LMMAESState]):
    """Limited-memory matrix adaptation: time and memory grow with genes times their logarithm.

    A start of one candidate is the mean; of a larger one, the best is.

    Args:
        k: candidates per generation, at least 2; 4 + floor(3 ln n) for n genes if not given.
        m: vectors in memory; 4 + floor(3 ln n) if not given.
        std: first standard deviation, see `CMAES`.
        bounds: `Bounds` or (lower, upper), as for `CMAES`.

    Example:
        >>> from tansaku import Objective, Search
        >>> from tansaku.testing import sphere
        >>> start = Individual({"x": torch.ones(1000)})
        >>> Search(LMMAES(std=0.1), Objective(sphere), start).run(max_evaluations=10_000).value < 100
        True
    """

    k: int | None = None
    m: int | None = None
    std: float | Tensor | Mapping[str, float | Tensor] | None = None
    bounds: Bounds | None = None
    needs = Needs(min_k=2)

    def __post_init__(self) -> None:
        self.check_settings()
        check_std(self.std)
        if self.m is not None:
            checks.count("m", self.m)

    def init(self, start: Population) -> LMMAESState:
        """The best of the start is the mean."""
        self.check_start(start)
        incumbent = start.best().without_traits()
        individual = incumbent.individual()
        mean = ravel(individual)
        mean = mean.to(torch.promote_types(mean.dtype, torch.float32))
        n = mean.shape[-1]
        std = first_std(self.std, self.bounds, individual, mean)
        sigma = std.amax(-1)
        k = default_k(n) if self.k is None else self.k
        m = default_k(n) if self.m is None else self.m
        mu = k // 2
        raw = [max(0.0, math.log(mu + 0.5) - math.log(i)) for i in range(1, k + 1)]
        weights = torch.tensor([w / sum(raw) for w in raw], dtype=mean.dtype, device=mean.device)
        zero = torch.zeros_like(mean)
        memory = zero.expand(m, *mean.shape).clone()
        unit, generation = std / sigma[..., None], torch.zeros_like(sigma)
        return LMMAESState(incumbent, weights, mean, sigma, sigma, unit, zero, memory, generation)

    def next_k(self, state: LMMAESState) -> int:
        """``k``, or what the number of genes asks for."""
        return state.weights.shape[0]

    def ask(self, state: LMMAESState, noise: Noise) -> Population:
        """Samples of the distribution (lines 4 - 9)."""
        mean = state.mean
        z = draws.normal((self.next_k(state),), tuple(mean.shape[:-1]), tuple(mean.shape[-1:]), mean, noise)
        raw = mean + state.sigma[..., None] * state.unit * self._directions(state, z)
        return hand_out(raw, state.incumbent, self.bounds, **{_NORMAL: z})

    def _directions(self, state: LMMAESState, z: Tensor) -> Tensor:
        """[j, *batch_shape, n] every z [j, *batch_shape, n] transformed by the vectors learnt so far (lines 6 - 8).

        The product of the m matrices (1 - c) I + c v v' is share * (I + V' C V), V the vectors as rows: column j of C
        is r_j (e_j + C G_j) with r = c / (1 - c) and G_j the products of v_j with the vectors before it, which is one
        triangular system for C. So the samples are passed over twice in place of m times.
        """
        vectors = state.memory.movedim(0, -2)  # [*batch_shape, m, n]
        m, n = vectors.shape[-2:]
        order = torch.arange(m, dtype=z.dtype, device=z.device)
        # [*batch_shape, m] the c_d,j; vectors that were not written yet do nothing
        rates = (1.5**-order / n).clamp(max=0.5) * (order < state.generation[..., None])
        odds = rates / (1 - rates)
        system = torch.eye(m, dtype=z.dtype, device=z.device) - vectors @ vectors.mT * _above(m, z) * odds[..., None, :]
        inner = torch.linalg.solve_triangular(system, torch.diag_embed(odds), upper=True, left=False)
        samples = z.movedim(0, -2)
        share = (1 - rates).prod(-1)[..., None, None]
        return (share * (samples + samples @ vectors.mT @ inner @ vectors)).movedim(-2, 0)

    def tell(self, state: LMMAESState, asked: Population) -> LMMAESState:
        """Moves the mean, the path, the vectors and the step size.

        A search whose candidates all failed stays as it is.
        """
        z = asked.traits[_NORMAL]
        k, n, m = z.shape[0], z.shape[-1], state.memory.shape[0]
        spread = state.sigma[..., None] * state.unit
        cost = ranked_cost(asked, self.bounds, spread)
        w = candidate_weights(cost, state.weights)[..., None]
        mueff = 1 / state.weights.square().sum()
        z_mean = (w * z).sum(0)
        mean = state.mean + spread * self._directions(state, z_mean[None])[0]  # line 12: the transformation is linear
        rate = min(0.5, 2 * k / n)  # c_sigma
        path = (1 - rate) * state.path + (mueff * rate * (2 - rate)).sqrt() * z_mean  # line 13
        order = torch.arange(m, dtype=z.dtype, device=z.device).view(m, *[1] * z_mean.ndim)
        rates = (k / n * 4.0**-order).clamp(max=0.5)  # c_c,i
        memory = (1 - rates) * state.memory + (mueff * rates * (2 - rates)).sqrt() * z_mean  # line 15
        growth = (rate / 2 * (path.square().sum(-1) / n - 1)).clamp(-1, 1)
        sigma = next_sigma(state.sigma, growth, state.first_sigma)  # line 16
        told = (cost < float("inf")).any(0) & torch.isfinite(mean).all(-1) & torch.isfinite(memory).all(-1).all(0)
        vector = told[..., None]
        return LMMAESState(
            better(asked, state.incumbent),
            state.weights,
            torch.where(vector, mean, state.mean),
            torch.where(told, sigma, state.sigma),
            state.first_sigma,
            state.unit,
            torch.where(vector, path, state.path),
            torch.where(vector, memory, state.memory),
            state.generation + told,
        )

    def best(self, state: LMMAESState) -> Population:
        """The best candidate ever assessed."""
        return state.incumbent

    def estimate(self, state: LMMAESState) -> Individual:
        """The mean, inside the bounds."""
        return inside(state.mean, state.incumbent.individual(), self.bounds)


def _above(m: int, like: Tensor) -> Tensor:
    """[m, m] ones above the diagonal, zeros elsewhere; to multiply with is faster than `torch.triu`."""
    return _ones_above(m, like.dtype, like.device)


@cached(16)
def _ones_above(m: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.ones(m, m, dtype=dtype, device=device).triu(1)
