"""Differential evolution: steps are differences of candidates, so that they have the scale of the population.

R. Storn and K. Price, Differential Evolution - A Simple and Efficient Heuristic for Global Optimization over
Continuous Spaces, Journal of Global Optimization 11, 1997. Two deviations: a trial as good as its target replaces it
(the paper: only a better one), without which a population stands still on a plateau; the default CR is the paper's
choice for fast convergence, its first choice being 0.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from tansaku import checks, draws
from tansaku.algorithms.base import Algorithm, Needs, check_std
from tansaku.algorithms.differential import around, at_most, binomial, exponential, trial
from tansaku.algorithms.sampled import ravel
from tansaku.draws import Noise
from tansaku.functional import lowest, take_rows
from tansaku.operators.bounds import Bounds
from tansaku.operators.survival import Greedy, Plus
from tansaku.population import Population
from tansaku.states import state


@state
class DEState:
    """The targets, assessed: k of them once the first generation has been told."""

    population: Population


@dataclass(frozen=True)
class DE(Algorithm[DEState]):
    """DE/rand/1 or DE/best/1: every candidate is the target of one trial, which replaces it unless it is worse.

    A trial takes genes of the target and of a mutant, ``base + scale_factor * (x2 - x3)``, with x2 and x3 (and the
    base, if random) different candidates and none of them the target. A start of fewer than ``k`` candidates is filled
    up with the best of a first generation around it.

    Args:
        k: candidates.
        scale_factor: F, what multiplies the difference, in [0, 2].
        crossover_rate: CR, share of a trial's genes that are the mutant's, in [0, 1]; one gene always is.
        base: ``"rand"``, a random candidate, or ``"best"``, the best one, which is faster and more easily trapped.
        crossover: ``"binomial"``, gene by gene, or ``"exponential"``, a run of neighbouring genes.
        std: distance at which the first generation lies around a start of fewer than ``k`` candidates, in units of the
            genes; a fifth of the bounds' span if not given, else 1.
        bounds: `Bounds` or (lower, upper).

    Example:
        >>> from tansaku import minimize
        >>> minimize(lambda x: x.square().sum(-1), shape=3, bounds=(-5.0, 5.0), algorithm="de").value < 1e-8
        True
    """

    k: int = 50
    scale_factor: float = 0.5
    crossover_rate: float = 0.9
    base: Literal["rand", "best"] = "rand"
    crossover: Literal["binomial", "exponential"] = "binomial"
    std: float | Tensor | Mapping[str, float | Tensor] | None = None
    bounds: Bounds | None = None
    needs = Needs(min_k=4)

    def __post_init__(self) -> None:
        self.check_settings()
        check_std(self.std)
        checks.number("scale_factor", self.scale_factor, 0.0, 2.0)
        checks.probability("crossover_rate", self.crossover_rate)
        for name, known in (("base", ("rand", "best")), ("crossover", ("binomial", "exponential"))):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"expected {name} {known[0]!r} or {known[1]!r}, got {getattr(self, name)!r}; choose one"
                )

    def init(self, start: Population) -> DEState:
        """The start (its best k, if there are more) is the population."""
        self.check_start(start)
        return DEState(at_most(start, self.k))

    def ask(self, state: DEState, noise: Noise) -> Population:
        """One trial for every target; before that, what fills the population up."""
        targets = state.population
        if targets.k < self.k:
            return around(targets, self.k, self.std, self.bounds, noise)
        x, n = ravel(targets), targets.batch_ndim
        *base, second, third = draws.others(2 + (self.base == "rand"), self.k, targets.batch_shape, x, noise)
        difference = take_rows(x, second).sub_(take_rows(x, third))
        first = base[0] if base else lowest(targets.cost)
        mutant = difference.mul_(self.scale_factor).add_(take_rows(x, first))  # equation 2
        cross = binomial if self.crossover == "binomial" else exponential
        return trial(cross(self.crossover_rate, x, n, noise), mutant, x, targets, self.bounds)  # equations 3 and 4

    def tell(self, state: DEState, asked: Population) -> DEState:
        """Every trial against its own target, search by search."""
        targets = state.population
        survive = Greedy() if targets.k == self.k else Plus(self.k)
        return DEState(survive(targets, asked.without_traits()))

    def best(self, state: DEState) -> Population:
        """The best of the targets: none was ever replaced by a worse one."""
        return state.population.best()
