"""The constants of CMA-ES: recombination weights and learning rates as functions of the genes and the candidates.

N. Hansen, The CMA Evolution Strategy: A Tutorial, arXiv 1604.00772, table 1. The damping is that of pycma 4, which
damps more than the tutorial where the population is large: it is the tutorial's below 14 genes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tansaku.states import state


@state
class Strategy:
    """What stays the same during a run.

    Args:
        weights: [k] of the candidates from the best to the worst; those > 0 sum to 1.
        mueff: variance-effective selection mass (8).
        c_sigma, damping: of the step size (55).
        c_c: of the path of the covariance (56).
        c_1, c_mu: of the rank-one and the rank-mu update (57, 58).
        chi: the expected length of a standard normal vector.
    """

    weights: Tensor
    mueff: float
    c_sigma: float
    damping: float
    c_c: float
    c_1: float
    c_mu: float
    chi: float


def default_k(n: int) -> int:
    """Candidates for ``n`` genes, 4 + floor(3 ln n) (48).

    >>> [default_k(n) for n in (1, 2, 5, 10, 20, 40)]
    [4, 6, 8, 10, 12, 15]
    """
    return 4 + int(3 * math.log(n))


def strategy(n: int, k: int, like: Tensor, active: bool = True, rate: float = 1.0) -> Strategy:
    """The constants for ``n`` genes and ``k`` candidates; numbers in brackets are the tutorial's equations.

    Args:
        n: genes.
        k: candidates, at least 2.
        like: has the dtype and the device of the weights.
        active: whether the worst candidates get negative weights.
        rate: multiplies the learning rates of the covariance.
    """
    raw = [math.log((k + 1) / 2) - math.log(i) for i in range(1, k + 1)]  # (49)
    good, bad = [w for w in raw if w > 0], [-w for w in raw if w < 0]
    mueff, mueff_bad = _effective(good), _effective(bad)
    c_1 = rate * min(1.0, k / 6) * 2 / ((n + 1.3) ** 2 + mueff)  # (57)
    c_1 = min(1.0, c_1)
    c_mu = min(1 - c_1, rate * 2 * (0.25 + mueff + 1 / mueff - 2) / ((n + 2) ** 2 + mueff))  # (58)
    share = 0.0
    if active and c_mu > 0:  # (50 - 53)
        share = min(1 + c_1 / c_mu, 1 + 2 * mueff_bad / (mueff + 2), (1 - c_1 - c_mu) / (n * c_mu))
    weights = [w / sum(good) if w > 0 else share * w / sum(bad) for w in raw]
    c_sigma = min(0.5, (mueff + 2) / (n + mueff + 3))  # (55)
    inner = max(1.0, 3 * (1 - 0.5 ** (n / 9)))  # pycma; 1 in the tutorial
    damping = 1 + 2 * max(0.0, inner * math.sqrt((mueff - 1) / (n + 1)) - 1) + c_sigma
    c_c = (4 + mueff / n) / (n + 4 + 2 * mueff / n)  # (56)
    chi = math.sqrt(2) * math.exp(math.lgamma((n + 1) / 2) - math.lgamma(n / 2))
    return Strategy(
        torch.tensor(weights, dtype=like.dtype, device=like.device), mueff, c_sigma, damping, c_c, c_1, c_mu, chi
    )


def _effective(weights: list[float]) -> float:
    return sum(weights) ** 2 / sum(w * w for w in weights)


def candidate_weights(cost: Tensor, weights: Tensor) -> Tensor:
    """[k, *batch_shape] the weight of every candidate by its rank; ties in the order of the candidates.

    Failed candidates (+inf) get none, and the others' positive weights sum to 1 all the same; all are 0 where every
    candidate failed.

    Args:
        cost: [k, *batch_shape].
        weights: [k] from the best to the worst.
    """
    rank = cost.argsort(dim=0, stable=True).argsort(dim=0)
    worked = cost < float("inf")
    w = weights[rank] * worked
    total = w.clamp(min=0).sum(0)
    return w / torch.where(total > 0, total, torch.ones_like(total))
