"""Simulated binary crossover.

K. Deb and R. B. Agrawal, Simulated Binary Crossover for Continuous Search Space, Complex Systems 9, 1995. A child may
leave the bounds, whose repair then takes it back.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tansaku import checks, draws
from tansaku.draws import Noise
from tansaku.functional import blend, select
from tansaku.operators.crossover import Crossover
from tansaku.operators.mutation import shapes


def spread_factor(u: Tensor, eta: float) -> Tensor:
    """How far apart two children lie, in distances of their parents, from ``u`` uniform in [0, 1).

    Reference: Deb and Agrawal, 1995, equations 8 and 9, solved for the spread factor.
    """
    return 1 + spread_excess(u, eta)


def spread_excess(u: Tensor, eta: float) -> Tensor:
    """`spread_factor` less 1, without the rounding of that difference."""
    u = u.to(torch.promote_types(u.dtype, torch.float32))
    return torch.expm1(torch.where(u <= 0.5, torch.log(2 * u), -torch.log(2 * (1 - u))) / (eta + 1))


@dataclass(frozen=True)
class SBX(Crossover):
    """Simulated binary crossover: two children lie as far from their parents' middle as one-point crossover's would.

    A crossed gene of a pair of children is (a + b) / 2 + s * spread * (a - b) / 2, with s = 1 for the child of ``a``
    and s = -1 for the child of ``b``. Of the pair this operator makes the first; ``swap`` says how often it has the
    gene of the second, without which a child would have all its genes near one parent.

    Args:
        eta: the distribution index, >= 0; children of a large one lie near their parents.
        probability: that a gene is crossed; others are copies of the first parent's. The paper: 0.5.
        swap: that a crossed gene is that of the second child. The authors' later program: 0.5.

    Raises:
        TypeError: genes that are not real (at the call).
        ValueError: a negative eta, or a probability outside [0, 1].
    """

    eta: float = 15.0
    probability: float = 0.5
    swap: float = 0.5

    def __post_init__(self) -> None:
        checks.number("eta", self.eta, 0.0)
        checks.probability("probability", self.probability)
        checks.probability("swap", self.swap)

    def cross(self, name: str, a: Tensor, b: Tensor, batch_ndim: int, noise: Noise) -> Tensor:
        """See `Crossover.cross`."""
        checks.real("SBX", name, a, "use UniformCrossover or NPointCrossover, or OrderCrossover for permutations")
        excess = spread_excess(draws.uniform(*shapes(a, batch_ndim), a, noise), self.eta).to(a.dtype)
        swapped = draws.coins(self.swap, *shapes(a, batch_ndim), a, noise)
        near, far = torch.where(swapped, b, a), torch.where(swapped, a, b)
        # the paper's equation 4 as a step from the nearer parent, which keeps a child's precision beside a bound
        child = blend(near, far, excess / -2)
        if self.probability == 1.0:
            return child
        return select(draws.coins(self.probability, *shapes(a, batch_ndim), a, noise), child, a)
