"""SHADE: differential evolution that learns its rates from those that paid, with an archive of replaced candidates.

R. Tanabe and A. Fukunaga, Success-History Based Parameter Adaptation for Differential Evolution, IEEE CEC 2013. Two
deviations: bounds are kept by their own repair, not by the point between the bound and the target; the paper's k and H
of 100 are for 10,000 evaluations per gene, the defaults here did better on BBOB with 2,000.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tansaku import checks, draws
from tansaku.algorithms.base import Algorithm, Needs, check_std
from tansaku.algorithms.differential import around, at_most
from tansaku.algorithms.success_history import SuccessHistory, forgetful, learned, towards_the_best
from tansaku.draws import Noise
from tansaku.operators.bounds import Bounds
from tansaku.operators.survival import Greedy, Plus
from tansaku.population import Population
from tansaku.states import state


@state
class SHADEState:
    """The targets, assessed, and what their trials have taught."""

    population: Population
    history: SuccessHistory


@dataclass(frozen=True)
class SHADE(Algorithm[SHADEState]):
    """DE/current-to-pbest/1/bin with a memory of successful rates; there is no rate to choose.

    A start of fewer than ``k`` candidates is filled up with the best of a first generation around it.

    Args:
        k: candidates.
        memory: H, entries of the memory of rates.
        greatest_share: each target goes towards one of the best 2 / k to ``greatest_share`` of all.
        archive: how many replaced candidates are kept, as a multiple of ``k``.
        std: distance at which the first generation lies around a start of fewer than ``k`` candidates, in units of the
            genes; a fifth of the bounds' span if not given, else 1.
        bounds: `Bounds` or (lower, upper).

    Example:
        >>> from tansaku import minimize
        >>> minimize(lambda x: x.square().sum(-1), shape=3, bounds=(-5.0, 5.0), algorithm="shade").value < 1e-8
        True
    """

    k: int = 50
    memory: int = 10
    greatest_share: float = 0.2
    archive: float = 1.0
    std: float | Tensor | Mapping[str, float | Tensor] | None = None
    bounds: Bounds | None = None
    needs = Needs(min_k=4, rank_based=False)

    def __post_init__(self) -> None:
        self.check_settings()
        check_std(self.std)
        checks.count("memory", self.memory)
        checks.probability("greatest_share", self.greatest_share)
        checks.number("archive", self.archive, 0.0)

    def init(self, start: Population) -> SHADEState:
        """The start (its best k, if there are more) is the population."""
        self.check_start(start)
        population = at_most(start, self.k)
        return SHADEState(population, forgetful(population, self.memory, round(self.archive * self.k)))

    def ask(self, state: SHADEState, noise: Noise) -> Population:
        """One trial for every target; before that, what fills the population up."""
        targets = state.population
        if targets.k < self.k:
            return around(targets, self.k, self.std, self.bounds, noise)
        share = draws.uniform((self.k,), tuple(targets.batch_shape), (), state.history.scale_factor, noise)
        least = 2 / self.k
        share = least + max(0.0, self.greatest_share - least) * share  # section III.B: p_i
        return towards_the_best(state.history, targets, torch.floor(share * self.k).clamp(min=2), self.bounds, noise)

    def tell(self, state: SHADEState, asked: Population) -> SHADEState:
        """Every trial against its own target; the rates of those that were better are remembered."""
        targets, children = state.population, asked.without_traits()
        if targets.k < self.k:
            return SHADEState(Plus(self.k)(targets, children), state.history)
        return SHADEState(Greedy()(targets, children), learned(state.history, targets, asked, lehmer=False))

    def best(self, state: SHADEState) -> Population:
        """The best of the targets: none was ever replaced by a worse one."""
        return state.population.best()
