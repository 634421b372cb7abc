"""Population-based incremental learning for boolean genes.

S. Baluja, Population-Based Incremental Learning: A Method for Integrating Genetic Search Based Function Optimization
and Competitive Learning, CMU-CS-94-163, 1994: the algorithm of its figure 4 with learning from the worst sample and
mutation of the probabilities, and its parameters. Deviations: the probabilities begin at the start's frequencies, by
Laplace's rule of succession, and not at 0.5, so that the search begins where the user says; a generation in which all
failed teaches nothing, and one whose samples all cost the same teaches nothing either.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tansaku import checks, draws
from tansaku.algorithms.base import Algorithm, Needs, better
from tansaku.algorithms.sampled import ravel, unravel
from tansaku.draws import Noise
from tansaku.functional import align, lowest
from tansaku.operators.bounds import Bounds
from tansaku.population import Individual, Population
from tansaku.states import state

_UP, _DOWN = "mutated_up", "mutated_down"


@state
class PBILState:
    """The chance of True [*batch_shape, n] (names in sorted order), and the best candidate ever (k = 1, assessed)."""

    probability: Tensor
    best: Population


@dataclass(frozen=True)
class PBIL(Algorithm[PBILState]):
    """A probability per bit, drawn from, and moved towards the best sample and away from the worst.

    Args:
        k: samples per generation.
        rate: how far the probabilities move towards the best sample, in [0, 1].
        negative_rate: how much further they move where best and worst sample differ, in [0, 1].
        mutation: the chance that a probability is mutated, in [0, 1].
        shift: how far a mutation moves it towards 0 or 1, in [0, 1].
        bounds: none, for booleans have none; `Bounds` are accepted and have no effect.
    """

    k: int = 100
    rate: float = 0.1
    negative_rate: float = 0.075
    mutation: float = 0.02
    shift: float = 0.05
    bounds: Bounds | None = None
    needs = Needs(dtypes=frozenset({"boolean"}), translates=False)

    def __post_init__(self) -> None:
        self.check_settings()
        for name in ("rate", "negative_rate", "mutation", "shift"):
            checks.probability(name, getattr(self, name))

    def init(self, start: Population) -> PBILState:
        """The frequencies of the start, each value counted once more than it was seen."""
        self.check_start(start)
        bits = ravel(start).to(torch.float32)
        return PBILState((bits.sum(0) + 1) / (start.k + 2), start.best().without_traits())

    def ask(self, state: PBILState, noise: Noise) -> Population:
        """K samples, and beside them which probabilities are to mutate, and where to."""
        p = state.probability
        batch_shape, n = tuple(p.shape[:-1]), tuple(p.shape[-1:])
        bits = draws.uniform((self.k,), batch_shape, n, p, noise) < p
        mutates = draws.coins(self.mutation, (1,), batch_shape, n, p, noise)
        up = draws.coins(0.5, (1,), batch_shape, n, p, noise)
        traits = {_UP: mutates & up, _DOWN: mutates & ~up}
        return Population(
            unravel(bits, state.best),
            state.best.batch_ndim,
            {name: x.expand(self.k, *x.shape[1:]) for name, x in traits.items()},
        )

    def tell(self, state: PBILState, asked: Population) -> PBILState:
        """The probabilities learn from the best and the worst sample; the best so far is kept apart."""
        cost = asked.cost
        best = ravel(asked.best())[0]
        worst = ravel(asked.take(lowest(-cost)))[0]
        p = state.probability
        goal = best.to(p.dtype)
        learned = p * (1 - self.rate) + goal * self.rate
        further = learned * (1 - self.negative_rate) + goal * self.negative_rate
        learned = torch.where(best != worst, further, learned)
        least, most = cost.amin(0), cost.amax(0)
        learned = torch.where(align(least < most, p), learned, p)
        mutated = learned * (1 - self.shift)
        up, down = asked.traits[_UP][0], asked.traits[_DOWN][0]
        learned = torch.where(up, mutated + self.shift, torch.where(down, mutated, learned))
        return PBILState(learned, better(asked, state.best))

    def best(self, state: PBILState) -> Population:
        """The best candidate ever assessed."""
        return state.best

    def estimate(self, state: PBILState) -> Individual:
        """The more probable value of every bit."""
        like = state.best.individual()
        return Individual(unravel(state.probability > 0.5, like), like.batch_ndim)
