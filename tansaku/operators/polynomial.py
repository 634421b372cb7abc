"""Polynomial mutation.

K. Deb and M. Goyal, A Combined Genetic Adaptive Search (GeneAS) for Engineering Design, 1996; the form that never
leaves the bounds is that of the authors' NSGA-II program, K. Deb and D. Deb, Analysing mutation schemes for real-
parameter genetic algorithms, 2014, equations 1 to 3 with the distances to both ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from tansaku import checks, draws
from tansaku.draws import Noise
from tansaku.functional import polynomial, select
from tansaku.operators.bounds import Bounds
from tansaku.operators.mutation import Mutation, finite_ends, shapes


@dataclass(frozen=True)
class Polynomial(Mutation):
    """Polynomial mutation: each gene, with probability ``rate``, takes a step of about span / eta within its bounds.

    Args:
        bounds: the finite box, `Bounds` or (lower, upper).
        eta: the distribution index, >= 0; the steps of a large one are short.
        rate: the share of genes that change, in [0, 1]; one gene on average, of the n of a name whose bounds
            differ (1 / n), if not given.

    Raises:
        TypeError: no bounds, or genes that are not real (at the call).
        ValueError: genes without finite bounds that fit them (at the call), a negative eta or a rate outside [0, 1].
    """

    bounds: Bounds
    eta: float = 20.0
    rate: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "bounds", Bounds.needed("Polynomial", self.bounds))
        checks.number("eta", self.eta, 0.0)
        if self.rate is not None:
            checks.probability("rate", self.rate)

    def mutate(self, name: str, x: Tensor, batch_ndim: int, noise: Noise) -> Tensor:
        """See `Mutation.mutate`."""
        checks.real("Polynomial mutation", name, x, "use BitFlip for booleans or Creep for integers")
        low, high = finite_ends(self.bounds, name, x, batch_ndim)
        rate = self.rate
        if rate is None:  # one gene of those that can move
            rate = 1 / max(1.0, math.prod(x.shape[1 + batch_ndim :]) * self.bounds.moving_share(name))
        changed = draws.coins(rate, *shapes(x, batch_ndim), x, noise)
        u = draws.uniform(*shapes(x, batch_ndim), x, noise)
        return select(changed, polynomial(x, u, self.eta, low, high).clamp(low, high), x)
