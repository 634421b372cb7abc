"""IPOP-CMA-ES: CMA-ES restarted with twice the candidates each time.

A. Auger and N. Hansen, A Restart CMA Evolution Strategy With Increasing Population Size, 2005. As in pycma, the number
of candidates doubles at most nine times; the paper sets no end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from tansaku.algorithms.base import Needs, check_std
from tansaku.algorithms.cma_es import CMAES
from tansaku.algorithms.restarts import Restarting, RestartsState, Run, grown_k
from tansaku.operators.bounds import Bounds


@dataclass(frozen=True)
class IPOPCMAES(Restarting):
    """CMA-ES that begins again with twice the candidates: for many local optima in a global structure.

    A new run begins at one candidate, uniform in finite bounds, else normal around the first start. One search,
    ``batch_shape = ()``.

    Args:
        k: candidates per generation of the first run, at least 2; 4 + floor(3 ln n) for n genes if not given.
        std: first standard deviation of every run, see `CMAES`.
        active: see `CMAES`.
        bounds: see `CMAES`.

    Example:
        >>> from tansaku import minimize
        >>> from tansaku.testing import rastrigin
        >>> minimize(rastrigin, shape=3, bounds=(-5.0, 5.0), algorithm="ipop_cma_es", target=1e-4).stopped
        'target'
    """

    k: int | None = None
    std: float | Tensor | Mapping[str, float | Tensor] | None = None
    active: bool = True
    bounds: Bounds | None = None
    needs = Needs(min_k=2, batched=False, rank_based=False, on_host=True)  # TolFun reads costs

    def __post_init__(self) -> None:
        self.check_settings()
        check_std(self.std)

    def _algorithm(self, run: Run) -> CMAES:
        return CMAES(run.k, self.std, self.active, self.bounds)

    def _next(self, state: RestartsState, u: list[float]) -> Run:
        return Run(grown_k(state, 1))
