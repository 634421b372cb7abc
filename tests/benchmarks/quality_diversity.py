"""Coverage, QD-score and time of MAP-Elites and of pyribs on pyribs' sphere and arm benchmarks, with the same budget.

Run `python tests/benchmarks/quality_diversity.py [--evaluations N] [--batch K] [--seeds N] [--picture FILE]`; pyribs is
`pip install ribs` (or the extra `bench`). Both sides have the same archive, batch and emitter; the scores are pyribs'
own, objectives from 0 (worst) to 100 (best) added up over the archive. Time is a run less the objective's own.

Sphere: M. C. Fontaine et al., Covariance Matrix Adaptation for the Rapid Illumination of Behavior Space, 2020,
section IV. Arm: V. Vassiliades and J.-B. Mouret, Discovering the Elite Hypervolume, 2018.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tansaku import CMAEmitter, Emitter, GaussianEmitter, Grid, Individual, IsoLineEmitter, MapElites, Objective, Search
from tansaku.plots import plot_archive


@dataclass(frozen=True)
class Task:
    """An objective to maximise, in 0 .. 100, with its descriptor."""

    fn: Callable[[Tensor], dict[str, Tensor]]
    genes: int
    start: float
    low: float
    high: float
    reach: float  # descriptors lie in -reach .. reach


def sphere(x: Tensor) -> dict[str, Tensor]:
    """The sphere around 2.048; descriptors are sums of clipped genes, which crowd in the middle."""
    worst = (-5.12 - 2.048) ** 2 * x.shape[-1]
    clipped = torch.where(x.abs() > 5.12, 5.12 / x, x)
    first, second = clipped.chunk(2, -1)
    return {
        "value": (1 - (x - 2.048).square().sum(-1) / worst) * 100,
        "descriptor": torch.stack([first.sum(-1), second.sum(-1)], -1),
    }


def arm(x: Tensor) -> dict[str, Tensor]:
    """A planar arm of links of length 1: equal angles are good, the descriptor is where the hand is."""
    angles = x.cumsum(-1)
    return {
        "value": (1 - x.var(-1, correction=0)) * 100,
        "descriptor": torch.stack([angles.cos().sum(-1), angles.sin().sum(-1)], -1),
    }


TASKS = {
    "sphere": Task(sphere, 20, 0.0, -5.12, 5.12, 51.2),
    "arm": Task(arm, 12, 0.0, -math.pi, math.pi, 12.0),
}
EMITTERS: dict[str, dict[str, float]] = {
    "gaussian": {"std": 0.5, "arm": 0.1},
    "iso-line": {},
    "cma-me": {"std": 0.5, "arm": 0.1},  # four improvement emitters
}


def timed(fn: Callable[[Tensor], dict[str, Tensor]], clock: list[float]) -> Callable[[Tensor], dict[str, Tensor]]:
    """The same function, which adds up its own time."""

    def run(x: Tensor) -> dict[str, Tensor]:
        begun = time.perf_counter()
        answer = fn(x)
        clock[0] += time.perf_counter() - begun
        return answer

    return run


def ours(
    task: Task, emitter: str, std: float, generations: int, batch: int, seed: int
) -> tuple[float, float, float, Search[Any]]:
    """Coverage, QD-score and seconds."""
    cells = Grid((100, 100), -task.reach, task.reach)
    made: tuple[Emitter, ...] = (IsoLineEmitter(0.01, 0.2),)
    if emitter != "iso-line":
        made = (GaussianEmitter(std),) if emitter == "gaussian" else (CMAEmitter(std, distributions=4),)
    algorithm = MapElites(batch, cells, made, (task.low, task.high))  # type: ignore[arg-type]
    clock = [0.0]
    start = Individual({"x": torch.full((task.genes,), task.start, dtype=torch.float64)})
    begun = time.perf_counter()
    search: Search[Any] = Search(algorithm, Objective(timed(task.fn, clock), maximize=True), start, seed=seed)
    search.run(max_generations=generations)
    seconds = time.perf_counter() - begun - clock[0]
    return float(search.state.coverage), float(search.state.qd_score()), seconds, search


def theirs(task: Task, emitter: str, std: float, generations: int, batch: int, seed: int) -> tuple[float, float, float]:
    """Coverage, QD-score and seconds of pyribs."""
    from ribs.archives import GridArchive
    from ribs.emitters import EvolutionStrategyEmitter, GaussianEmitter, IsoLineEmitter
    from ribs.schedulers import Scheduler

    clock = [0.0]
    begun = time.perf_counter()
    ranges = [(-task.reach, task.reach)] * 2
    archive = GridArchive(solution_dim=task.genes, dims=(100, 100), ranges=ranges, seed=seed)
    options: dict[str, Any] = {
        "x0": [task.start] * task.genes, "batch_size": batch, "seed": seed,
        "lower_bounds": [task.low] * task.genes, "upper_bounds": [task.high] * task.genes,
    }  # fmt: skip
    if emitter == "gaussian":
        made = [GaussianEmitter(archive, sigma=std, **options)]
    elif emitter == "cma-me":
        settings = {"ranker": "2imp", "sigma0": std, "selection_rule": "filter", "restart_rule": "no_improvement"}
        own = ({**options, "batch_size": batch // 4, "seed": 10 * seed + i} for i in range(4))
        made = [EvolutionStrategyEmitter(archive, **settings, **each) for each in own]
    else:
        made = [IsoLineEmitter(archive, iso_sigma=0.01 * (task.high - task.low), line_sigma=0.2, **options)]
    scheduler = Scheduler(archive, made)
    fn = timed(task.fn, clock)
    for _ in range(generations):
        answer = fn(torch.from_numpy(scheduler.ask()))
        scheduler.tell(answer["value"].numpy(), answer["descriptor"].numpy())
    seconds = time.perf_counter() - begun - clock[0]
    return float(archive.stats.coverage), float(archive.stats.qd_score), seconds


def main() -> None:
    """Prints one line per task and emitter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluations", type=int, default=50_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--picture", help="where to draw the last archive of the arm")
    given = parser.parse_args()
    generations = given.evaluations // given.batch
    print(f"Means of {given.seeds} seeds with their standard errors; seconds: medians, and the median of the ratios.")
    print(f"{'task':8}{'emitter':10}{'':8}{'coverage':>10}{'QD-score':>22}{'seconds':>9}{'of pyribs':>11}")
    for name, task in TASKS.items():
        for emitter, settings in EMITTERS.items():
            std = settings.get(name, settings.get("std", 0.0))
            mine, its = [], []
            for seed in range(given.seeds):  # by turns, so that a busy machine slows both alike
                *row, search = ours(task, emitter, std, generations, given.batch, seed)
                mine.append(row)
                its.append(theirs(task, emitter, std, generations, given.batch, seed))
            ratio = statistics.median(a[2] / b[2] for a, b in zip(mine, its, strict=True))
            for who, rows, end in (("tansaku", mine, f"{ratio:11.2f}"), ("pyribs", its, "")):
                coverage, scores, seconds = zip(*rows, strict=True)
                error = statistics.stdev(scores) / math.sqrt(len(scores)) if len(scores) > 1 else math.nan
                score = f"{statistics.mean(scores):,.0f} +- {error:,.0f}"
                print(
                    f"{name:8}{emitter:10}{who:8}{statistics.mean(coverage):10.4f}{score:>22}"
                    f"{statistics.median(seconds):9.2f}{end}",
                    flush=True,
                )
    if given.picture:
        plot_archive(search.state.archive, search.algorithm.cells, given.picture, "arm, iso-line emitter")


if __name__ == "__main__":
    main()
