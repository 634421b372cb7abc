"""`Result`: what a run found."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tansaku.assessors.failures import Failures
from tansaku.history import History
from tansaku.plots import plot_front, plot_history
from tansaku.population import Individual, Population
from tansaku.showing import shown


@dataclass(frozen=True)
class Result:
    """What a run found.

    Args:
        best: the best candidate ever assessed, of each search; for several objectives the Pareto front, a population
            [j, *batch_shape, *event_shape] of candidates that do not dominate each other.
        value: its value in the user's own sign: a float, or a tensor [*batch_shape]; of a front [j, *batch_shape, m].
            It is what the objective returned, also where no feasible candidate was found.
        evaluations: made, per search.
        generations: made, the start not counted.
        seconds: this run took.
        stopped: why it ended: ``"max_generations"``, ``"max_evaluations"``, ``"max_seconds"``, ``"target"``,
            ``"patience"``, ``"callback"`` or ``"interrupted"``.
        history: best, median and spread of every generation, and the share of feasible candidates.
        state: the algorithm's at the end: the archive of `MapElites`, the distribution of others.
        failures: of candidates for which the objective raised, under ``on_failure="worst"``.
        feasible: whether ``best`` violates no constraint: a bool, or booleans [*batch_shape]. True without constraints.
        violation: the total violation of ``best``: a float, or a tensor [*batch_shape]; 0 where it is feasible.
        estimate: what the algorithm estimates the optimum to be (`Algorithm.estimate`): the mean of its distribution
            where it has one, else the best candidate. Under a noisy cost it is better than ``best``, which was lucky.
            None for several objectives.
    """

    best: Individual | Population
    value: float | Tensor
    evaluations: int
    generations: int
    seconds: float
    stopped: str
    history: History
    state: Any = None
    failures: Failures = field(default_factory=Failures)
    feasible: bool | Tensor = True
    violation: float | Tensor = 0.0
    estimate: Individual | None = None

    def __repr__(self) -> str:
        feasible = shown(self.feasible) if isinstance(self.feasible, Tensor) else self.feasible
        return (
            f"Result(best={self.best!r}, value={shown(self.value) if isinstance(self.value, Tensor) else 'float'}, "
            f"evaluations={self.evaluations}, generations={self.generations}, seconds={self.seconds:.3g}, "
            f"stopped={self.stopped!r}, feasible={feasible}, "
            f"history={self.history!r}, state={type(self.state).__name__})"
        )

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draws the history, or a front of several objectives; the ending of ``path`` says the format."""
        title = f"stopped by {self.stopped} after {self.evaluations} evaluations"
        if isinstance(self.best, Population):
            plot_front(torch.as_tensor(self.value), path, title)
        else:
            plot_history(self.history, path, title)
