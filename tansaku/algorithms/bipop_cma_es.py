"""BIPOP-CMA-ES: CMA-ES restarted by turns with ever more candidates, and with few candidates and small steps.

N. Hansen, Benchmarking a BI-Population CMA-ES on the BBOB-2009 Function Testbed, 2009, section 2. As in pycma, the
first run counts as a small one, a small run may spend half of what the large ones spent so far, and the number of
candidates doubles at most nine times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from tansaku.algorithms.base import Needs, check_std
from tansaku.algorithms.cma_base import CMAState
from tansaku.algorithms.cma_es import CMAES
from tansaku.algorithms.restarts import Restarting, RestartsState, Run, grown_k
from tansaku.operators.bounds import Bounds
from tansaku.population import Population


@dataclass(frozen=True)
class BIPOPCMAES(Restarting):
    """CMA-ES with two kinds of restarts, for functions of which nothing is known. One search, ``batch_shape = ()``.

    Args:
        k: candidates per generation of the first run, at least 2; 4 + floor(3 ln n) for n genes if not given.
        std: first standard deviation of the first and the large runs, see `CMAES`.
        active: see `CMAES`.
        bounds: see `CMAES`.

    Example:
        >>> from tansaku import minimize
        >>> from tansaku.testing import rastrigin
        >>> minimize(rastrigin, shape=3, bounds=(-5.0, 5.0), algorithm="bipop_cma_es", target=1e-4).stopped
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

    def _begun(self, run: Run, start: Population) -> CMAState:
        begun = self._algorithm(run).init(start)
        sigma = begun.sigma * run.scale
        return replace(begun, sigma=sigma, first_sigma=sigma)

    def _next(self, state: RestartsState, u: list[float]) -> Run:
        if state.small_spent >= state.large_spent:
            return Run(grown_k(state, 1))
        k = int(state.first_k * (0.5 * grown_k(state) / state.first_k) ** (u[0] ** 2))
        return Run(max(2, k), 10 ** (-2 * u[1]), state.large_spent // 2, large=False)
