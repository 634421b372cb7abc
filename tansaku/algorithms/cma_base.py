"""What CMA-ES and its separable form share: sampling, evolution paths, step size; the covariance is theirs.

N. Hansen, The CMA Evolution Strategy: A Tutorial, arXiv 1604.00772; numbers in brackets are its equations.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from tansaku import draws
from tansaku.algorithms.base import Algorithm, better, check_std, step_size
from tansaku.algorithms.sampled import hand_out, penalised_cost, ravel, unravel
from tansaku.algorithms.strategy import Strategy, candidate_weights, default_k
from tansaku.assessment import Assessment
from tansaku.draws import Noise
from tansaku.functional import centred_ranks
from tansaku.operators.bounds import Bounds
from tansaku.population import Individual, Population
from tansaku.states import state

_NORMAL = "normal"


@state
class CMAState:
    """The distribution and its paths; n genes of all names as one vector, see `ravel`.

    Candidates are mean + sigma * unit * y with y from N(0, C). The first C is the identity, so it, the paths and all
    limits are in units of the first standard deviations, and the genes may have any scales.

    Args:
        incumbent: the best ever assessed, k = 1.
        strategy: the constants.
        mean: [*batch_shape, n].
        sigma: [*batch_shape], and ``first_sigma`` the one it began with, the largest of the first standard deviations.
        unit: [*batch_shape, n] the first standard deviations over ``first_sigma``.
        cov: [*batch_shape, n, n], or its diagonal [*batch_shape, n].
        root: the symmetric root of ``cov`` as of the last decomposition.
        path_c, path_sigma: [*batch_shape, n].
        generation: [*batch_shape] complete generations, without those in which every candidate failed.
        stale: generations since the last decomposition.
    """

    incumbent: Population
    strategy: Strategy
    mean: Tensor
    sigma: Tensor
    first_sigma: Tensor
    unit: Tensor
    cov: Tensor
    root: Tensor
    path_c: Tensor
    path_sigma: Tensor
    generation: Tensor
    stale: int


class CovarianceAdaptation(Algorithm[CMAState]):
    """A normal distribution that learns its mean, its step size and its covariance from ranks."""

    k: int | None
    std: float | Tensor | Mapping[str, float | Tensor] | None

    def __post_init__(self) -> None:
        self.check_settings()
        check_std(self.std)

    @abstractmethod
    def _strategy(self, n: int, k: int, like: Tensor) -> Strategy:
        """The constants."""

    @abstractmethod
    def _diagonal(self, variance: Tensor) -> Tensor:
        """A covariance with this diagonal [*batch_shape, n]."""

    @abstractmethod
    def _variance(self, cov: Tensor) -> Tensor:
        """[*batch_shape, n] the diagonal."""

    @abstractmethod
    def _times(self, root: Tensor, z: Tensor) -> Tensor:
        """[k, *batch_shape, n] every z transformed."""

    @abstractmethod
    def _moment(self, w: Tensor, y: Tensor) -> Tensor:
        """The sum over candidates of w y y', w [k, *batch_shape, 1]."""

    @abstractmethod
    def _decomposed(self, cov: Tensor) -> tuple[Tensor, Tensor]:
        """The covariance, its condition limited, and its root."""

    @abstractmethod
    def _gap(self, s: Strategy, n: int) -> int:
        """Generations from one decomposition to the next."""

    @abstractmethod
    def _per_gene(self, x: Tensor) -> Tensor:
        """``x`` [*batch_shape] so that it broadcasts against a covariance."""

    def init(self, start: Population) -> CMAState:
        """The best of the start is the mean."""
        self.check_start(start)
        incumbent = start.best().without_traits()
        individual = incumbent.individual()
        mean = ravel(individual)
        mean = mean.to(torch.promote_types(mean.dtype, torch.float32))
        n = mean.shape[-1]
        std = first_std(self.std, self.bounds, individual, mean)
        sigma = std.amax(-1)
        unit = std / sigma[..., None]
        identity = self._diagonal(torch.ones_like(mean))
        zero = torch.zeros_like(mean)
        k = default_k(n) if self.k is None else self.k
        strategy = self._strategy(n, k, mean)
        generation = torch.zeros_like(sigma)
        return CMAState(incumbent, strategy, mean, sigma, sigma, unit, identity, identity, zero, zero, generation, 0)

    def next_k(self, state: CMAState) -> int:
        """``k``, or what the number of genes asks for."""
        return state.strategy.weights.shape[0]

    def ask(self, state: CMAState, noise: Noise) -> Population:
        """Samples of the distribution (38 - 40), with the symmetric root in place of B D."""
        mean = state.mean
        z = draws.normal((self.next_k(state),), tuple(mean.shape[:-1]), tuple(mean.shape[-1:]), mean, noise)
        raw = mean + state.sigma[..., None] * state.unit * self._times(state.root, z)
        return hand_out(raw, state.incumbent, self.bounds, **{_NORMAL: z})

    def tell(self, state: CMAState, asked: Population) -> CMAState:
        """Moves the mean, the paths, the covariance and the step size; a wholly failed generation moves nothing."""
        s, z = state.strategy, asked.traits[_NORMAL]
        n = z.shape[-1]
        scale = state.sigma[..., None] * state.unit
        cost = ranked_cost(asked, self.bounds, scale * self._variance(state.cov).sqrt())
        w = candidate_weights(cost, s.weights.to(z.dtype))[..., None]
        good = w.clamp(min=0)
        z_mean = (good * z).sum(0)  # the same as C^-1/2 <y>, since the root is symmetric
        y = self._times(state.root, z)
        y_mean = (good * y).sum(0)  # (41)
        mean = state.mean + scale * y_mean  # (42)
        step = (s.c_sigma * (2 - s.c_sigma) * s.mueff) ** 0.5
        path_sigma = (1 - s.c_sigma) * state.path_sigma + step * z_mean  # (43)
        generation = state.generation + 1
        length = path_sigma.square().sum(-1)
        unbiased = 1 - (1 - s.c_sigma) ** (2 * generation)
        moves = (length / n / unbiased < 2 + 4 / (n + 1)).to(z.dtype)  # h_sigma in pycma's form
        step = (s.c_c * (2 - s.c_c) * s.mueff) ** 0.5
        path_c = (1 - s.c_c) * state.path_c + moves[..., None] * step * y_mean  # (45)
        norm = z.square().sum(-1, keepdim=True)
        w_cov = torch.where(w < 0, w * (n / (norm.sqrt() + 1e-9).square()), w)  # (46)
        decay = 1 - s.c_1 * (1 - (1 - moves) * s.c_c * (2 - s.c_c)) - s.c_mu * w.sum(0)[..., 0]
        rank_one = self._moment(torch.ones_like(w[:1]), path_c[None])
        cov = self._per_gene(decay) * state.cov + s.c_1 * rank_one + s.c_mu * self._moment(w_cov, y)  # (47)
        growth = (s.c_sigma / s.damping * (length.sqrt() / s.chi - 1)).clamp(-1, 1)
        sigma = next_sigma(state.sigma, growth, state.first_sigma)  # (44)
        told = (cost < float("inf")).any(0) & torch.isfinite(mean).all(-1) & torch.isfinite(sigma)
        told = told & torch.isfinite(cov).flatten(told.ndim).all(-1)
        cov = torch.where(self._per_gene(told), cov, state.cov)
        stale, root = state.stale + 1, state.root
        if stale >= self._gap(s, n):
            stale, (cov, root) = 0, self._decomposed(cov)
        vector = told[..., None]
        return CMAState(
            better(asked, state.incumbent),
            s,
            torch.where(vector, mean, state.mean),
            torch.where(told, sigma, state.sigma),
            state.first_sigma,
            state.unit,
            cov,
            root,
            torch.where(vector, path_c, state.path_c),
            torch.where(vector, path_sigma, state.path_sigma),
            torch.where(told, generation, state.generation),
            stale,
        )

    def best(self, state: CMAState) -> Population:
        """The best candidate ever assessed."""
        return state.incumbent

    def estimate(self, state: CMAState) -> Individual:
        """The mean, inside the bounds."""
        return inside(state.mean, state.incumbent.individual(), self.bounds)

    def exhausted(self, state: CMAState) -> bool:
        """Criteria TolX, TolXUp and NoEffectCoord of the tutorial's appendix B.3; reads values on the host.

        TolX and TolXUp compare with the first standard deviation of the same gene.
        """
        std = state.sigma[..., None] * self._variance(state.cov).sqrt()
        path = state.sigma[..., None] * state.path_c.abs()
        first = state.first_sigma[..., None]
        small = (torch.maximum(std, path) < 1e-12 * first).all()
        wide = (std > 1e4 * first).any()
        no_effect = (state.mean == state.mean + 0.2 * std * state.unit).any()
        return bool(small | wide | no_effect)


def first_std(
    std: float | Tensor | Mapping[str, float | Tensor] | None,
    bounds: Bounds | None,
    individual: Individual,
    like: Tensor,
) -> Tensor:
    """[*batch_shape, n] the first standard deviations as one vector, of the dtype of ``like``; see `step_size`."""
    stds = {}
    for name, x in individual.genes.items():
        step = step_size(std, bounds, name, x)
        stds[name] = step.expand_as(x) if isinstance(step, Tensor) else torch.full_like(x, step)
    return ravel(Individual(stds, individual.batch_ndim)).to(like.dtype)


def next_sigma(sigma: Tensor, growth: Tensor, first: Tensor) -> Tensor:
    """[*batch_shape] ``sigma`` times exp(``growth``), not so far from the ``first`` one that squares overflow."""
    limits = torch.finfo(sigma.dtype)
    return torch.clamp(sigma * growth.exp(), first * limits.tiny**0.5, first * limits.max**0.4)


def ranked_cost(asked: Population, bounds: Bounds | None, std: Tensor) -> Tensor:
    """[k, *batch_shape] costs by which to rank; with bounds, ranks plus a penalty, which then knows no unit of cost.

    Args:
        asked: assessed, from `hand_out`.
        bounds: the box, or None.
        std: broadcasts against [k, *batch_shape, n]: the standard deviation of the samples.
    """
    if bounds is None:
        return asked.cost
    ranked = torch.where(asked.cost < float("inf"), -centred_ranks(asked.cost), asked.cost)
    return penalised_cost(asked.assessed(Assessment(ranked)), std)


def inside(mean: Tensor, like: Individual, bounds: Bounds | None) -> Individual:
    """The mean [*batch_shape, n] as an individual, within the bounds."""
    genes = unravel(mean, like)
    if bounds is not None:
        genes = {name: bounds.repaired(name, x) for name, x in genes.items()}
    return Individual(genes, like.batch_ndim)
