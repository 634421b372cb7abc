"""Polynomial mutation.

K. Deb and M. Goyal, A Combined Genetic Adaptive Search (GeneAS) for Engineering Design, 1996; the form that never
leaves the bounds is that of the authors' NSGA-II program, K. Deb and D. Deb, Analysing mutation schemes for real-
parameter genetic algorithms, 2014, equations 1 to 3 with the distances to both ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tansaku import checks, draws
from tansaku.draws import Noise
from tansaku.functional import select
from tansaku.operators.bounds import Bounds
from tansaku.operators.mutation import Mutation, finite_ends, shapes


def polynomial_step(place: Tensor, u: Tensor, eta: float) -> Tensor:
    """The step of a gene as a share of its span, from ``u`` uniform in [0, 1).

    Args:
        place: where the gene lies between its bounds, in [0, 1].
        u: of the same shape.
        eta: the distribution index.
    """
    power = eta + 1
    down = (2 * u + (1 - 2 * u) * (1 - place) ** power).clamp(min=0) ** (1 / power) - 1
    up = 1 - (2 * (1 - u) + (2 * u - 1) * place**power).clamp(min=0) ** (1 / power)
    return torch.where(u < 0.5, down, up)


@dataclass(frozen=True)
class Polynomial(Mutation):
    """Polynomial mutation: each gene, with probability ``rate``, takes a step of about span / eta within its bounds.

    Args:
        bounds: the finite box.
        eta: the distribution index, >= 0; the steps of a large one are short.
        rate: the share of genes that change, in [0, 1]; one gene of the name on average (1 / n) if not given.

    Raises:
        TypeError: genes that are not real (at the call).
        ValueError: genes without finite bounds (at the call), a negative eta or a rate outside [0, 1].
    """

    bounds: Bounds
    eta: float = 20.0
    rate: float | None = None

    def __post_init__(self) -> None:
        checks.number("eta", self.eta, 0.0)
        if self.rate is not None:
            checks.probability("rate", self.rate)

    def mutate(self, name: str, x: Tensor, batch_ndim: int, noise: Noise) -> Tensor:
        """See `Mutation.mutate`."""
        checks.real("Polynomial mutation", name, x, "use BitFlip for booleans or Creep for integers")
        low, high = finite_ends(self.bounds, name, x)
        rate = 1 / max(1, math.prod(x.shape[1 + batch_ndim :])) if self.rate is None else self.rate
        changed = draws.coins(rate, *shapes(x, batch_ndim), x, noise)
        u = draws.uniform(*shapes(x, batch_ndim), x, noise)
        span = high - low
        place = ((x - low) / torch.where(span > 0, span, torch.ones_like(span))).clamp(0, 1)
        moved = (x + polynomial_step(place, u, self.eta) * span).clamp(low, high)
        return select(changed, moved, x)
