"""How good the answers are: our algorithms and their references on the 24 noiseless BBOB functions.

    python tests/benchmarks/quality.py --dims 2 5 10 20 --jobs 16 --json quality.json --picture quality.png

A run is one algorithm on one instance of a function for 2,000 * D evaluations. It hits a target when it has seen a
value within 10^2, 10^1.8, ..., 10^-8 (51 targets) of the optimum; what counts is the share of (function, instance,
target) hit. A function is solved when most of its instances are, to 10^-8. The expected running time of a target is the
evaluations of all instances, up to its hit or the end, over the number of hits; ratios to a reference are the geometric
mean over the targets that both have hit. Our algorithms run all instances at once, as a batch of searches.

The answers are the same whatever ``--jobs``, the number of processes. With ``--keep FOLDER`` every finished part of the
work is written there, and the same command goes on where it was stopped. A part is an algorithm on one function, or on
all where they are a batch of searches.

Needs the package ``ioh`` or ``coco-experiment``; references whose packages are absent are left out.
N. Hansen, A. Auger, R. Ros, O. Mersmann, T. Tusar and D. Brockhoff, COCO: a platform for comparing continuous
optimizers in a black-box setting, 2021.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from tansaku import ALGORITHMS, Assessment, Bounds, Population, make

Floats = NDArray[np.float64]
K = TypeVar("K")
TARGETS: Floats = 10.0 ** np.linspace(2, -8, 51)
LOW, HIGH = -5.0, 5.0
GROUPS = {
    "separable": (1, 5),
    "moderate": (6, 9),
    "ill-conditioned": (10, 14),
    "multimodal": (15, 19),
    "weak": (20, 24),
}
SHOWN = {1: "sphere", 2: "ellipsoid", 10: "rotated ellipsoid", 8: "Rosenbrock"}
REFERENCES = {
    "bipop_cma_es": "pycma bipop",
    "cem": "evotorch CEM",
    "cma_es": "pycma",
    "de": "scipy DE",
    "ga": "pymoo GA",
    "ipop_cma_es": "pycma ipop",
    "lm_ma_es": "pycma",
    "lshade": "scipy DE",
    "pso": "plain PSO",
    "sep_cma_es": "pycma",
    "shade": "scipy DE",
    "snes": "evotorch SNES",
    "xnes": "evotorch XNES",
}
OTHER_GENES = ("map_elites", "nsga2", "pbil", "permutation_ga")


class Over(Exception):
    """The budget is used up, or the last target hit."""


class Done:
    """One algorithm on one instance: at which evaluation it hit each target, inf where it did not."""

    def __init__(self, function: int, instance: int, dim: int, budget: int, hits: Floats | None = None):
        self.function, self.instance, self.dim, self.budget = function, instance, dim, budget
        self.hits = np.full(len(TARGETS), np.inf) if hits is None else hits

    @property
    def solved(self) -> bool:
        return bool(np.isfinite(self.hits[-1]))


class Run(Done):
    """One that goes on: answers with errors above the optimum's value and notes when targets are hit."""

    def __init__(self, evaluate: Callable[[Floats], Floats], function: int, instance: int, dim: int, budget: int):
        super().__init__(function, instance, dim, budget)
        self.evaluate = evaluate
        self.used = 0

    def __call__(self, rows: Floats) -> Floats:
        """[m] errors of ``rows`` [m, dim]; those beyond the budget hit nothing."""
        if self.solved:
            return np.zeros(len(rows))
        errors = self.evaluate(rows)
        counted = np.minimum.accumulate(np.where(np.isnan(errors), np.inf, errors)[: self.budget - self.used])
        if len(counted):
            new = np.isinf(self.hits) & (counted[-1] <= TARGETS)
            self.hits[new] = self.used + 1 + np.searchsorted(-counted, -TARGETS[new])
        self.used += len(rows)
        return errors

    def strict(self, rows: Floats) -> Floats:
        """As a call, for references that run until they are stopped.

        Raises:
            Over: nothing is left to do.
        """
        if self.solved or self.used >= self.budget:
            raise Over
        return self(rows)

    def rng(self, seed: int) -> np.random.Generator:
        return np.random.default_rng([seed, self.dim, self.function, self.instance])


def runs(functions: Sequence[int], instances: Sequence[int], dim: int, budget: int) -> list[Run]:
    """A fresh run of every instance, by whichever package is there."""
    package = _with_ioh if find_spec("ioh") else _with_coco
    return [Run(package(f, i, dim), f, i, dim, budget) for f in functions for i in instances]


def _with_ioh(function: int, instance: int, dim: int) -> Callable[[Floats], Floats]:
    import ioh

    problem = ioh.get_problem(function, instance, dim, ioh.ProblemClass.BBOB)
    optimum = problem.optimum.y
    return lambda rows: np.asarray(problem(rows.tolist())) - optimum


def _with_coco(function: int, instance: int, dim: int) -> Callable[[Floats], Floats]:
    import cocoex

    suite = cocoex.Suite("bbob", f"instances: {instance}", f"dimensions: {dim} function_indices: {function}")
    problem = suite.get_problem(0)
    optimum = problem.final_target_fvalue1 - 1e-8

    def evaluate(rows: Floats, suite: Any = suite) -> Floats:  # the problem lives as long as its suite
        return np.asarray([problem(row) for row in rows]) - optimum

    return evaluate


def ours(name: str, settings: Mapping[str, Any], todo: list[Run], seed: int) -> None:
    """All runs as one batch of searches, or one by one where the algorithm takes no batch."""
    algorithm = make(name, bounds=Bounds(LOW, HIGH), max_evaluations=todo[0].budget, **settings)
    if not algorithm.needs.batched and len(todo) > 1:
        for run in todo:
            ours(name, settings, [run], seed)
        return
    batched = algorithm.needs.batched
    noise = torch.Generator().manual_seed(seed)

    def assess(population: Population) -> Population:
        x = population["x"].numpy()
        x = x if batched else x[:, None]
        costs = torch.from_numpy(np.stack([run(x[:, i]) for i, run in enumerate(todo)], 1))
        return population.assessed(Assessment(costs if batched else costs[:, 0]))

    k = algorithm.k or 1
    start = np.stack([run.rng(seed).uniform(LOW, HIGH, (k, run.dim)) for run in todo], 1)
    x = torch.from_numpy(start if batched else start[:, 0])
    state = algorithm.init(assess(Population({"x": x}, int(batched))))
    used, budget = k, todo[0].budget
    while used + algorithm.next_k(state) <= budget and not all(run.solved for run in todo):
        asked = assess(algorithm.ask(state, noise))
        state, used = algorithm.tell(state, asked), used + asked.k


def each(search: Callable[[Run, np.random.Generator], None]) -> Callable[[list[Run], int], None]:
    """A reference that takes one run at a time."""

    def all_of_them(todo: list[Run], seed: int) -> None:
        for run in todo:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    search(run, run.rng(seed + 1))
                except Over:
                    continue

    return all_of_them


def random_search(run: Run, rng: np.random.Generator) -> None:
    while True:
        run.strict(rng.uniform(LOW, HIGH, (500, run.dim)))


def plain_pso(run: Run, rng: np.random.Generator) -> None:
    """Global best, 40 particles, constriction; a first velocity leads anywhere in the box, the box stops a particle."""
    x = rng.uniform(LOW, HIGH, (40, run.dim))
    own, cost, v = x.copy(), run.strict(x), rng.uniform(LOW, HIGH, x.shape) - x
    while True:
        leader = own[cost.argmin()]
        first, second = rng.random((2, *x.shape))
        v = 0.7298 * v + 1.49618 * first * (own - x) + 1.49618 * second * (leader - x)
        moved = x + v
        x = np.clip(moved, LOW, HIGH)
        v[x != moved] = 0.0
        now = run.strict(x)
        better = now < cost
        own[better], cost[better] = x[better], now[better]


def scipy_de(run: Run, rng: np.random.Generator) -> None:
    from scipy.optimize import differential_evolution

    bounds = [(LOW, HIGH)] * run.dim
    while True:  # it stops when its population has converged; then again from the beginning
        differential_evolution(
            lambda x: float(run.strict(x[None])[0]), bounds, maxiter=10**6, polish=False, rng=rng, tol=0, atol=1e-14
        )


def pycma(**settings: Any) -> Callable[[Run, np.random.Generator], None]:
    def search(run: Run, rng: np.random.Generator) -> None:
        import cma

        while True:
            options = {"verbose": -9, "maxfevals": run.budget, "seed": int(rng.integers(1, 2**31))}
            cma.fmin2(
                lambda x: float(run.strict(np.asarray(x)[None])[0]),
                lambda: rng.uniform(LOW, HIGH, run.dim),
                2.0,
                options,
                **settings,
            )

    return search


def pymoo_ga(run: Run, rng: np.random.Generator) -> None:
    from pymoo.algorithms.soo.nonconvex.ga import GA
    from pymoo.core.problem import Problem
    from pymoo.optimize import minimize

    class Posed(Problem):  # type: ignore[misc]
        def _evaluate(self, x: Floats, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
            out["F"] = run.strict(x)[:, None]

    problem = Posed(n_var=run.dim, n_obj=1, xl=LOW, xu=HIGH)
    minimize(problem, GA(pop_size=100), ("n_eval", run.budget + 100), seed=int(rng.integers(2**31)))


def evotorchs(name: str, **settings: Any) -> Callable[[Run, np.random.Generator], None]:
    def search(run: Run, rng: np.random.Generator) -> None:
        import evotorch
        from evotorch import algorithms

        logging.getLogger("evotorch.core").setLevel(logging.WARNING)  # it tells of every problem that is made
        evaluate = evotorch.decorators.vectorized(lambda x: torch.from_numpy(run.strict(x.numpy())))
        problem = evotorch.Problem(
            "min",
            evaluate,
            solution_length=run.dim,
            initial_bounds=(LOW, HIGH),
            dtype=torch.float64,
            seed=int(rng.integers(2**31)),
        )
        searcher = getattr(algorithms, name)(problem, stdev_init=2.0, **settings)
        while True:
            searcher.step()

    return search


OTHERS: dict[str, tuple[str, Callable[[list[Run], int], None]]] = {
    "evotorch CEM": ("evotorch", each(evotorchs("CEM", popsize=100, parenthood_ratio=0.5))),
    "evotorch SNES": ("evotorch", each(evotorchs("SNES"))),
    "evotorch XNES": ("evotorch", each(evotorchs("XNES"))),
    "plain PSO": ("numpy", each(plain_pso)),
    "pycma": ("cma", each(pycma())),
    "pycma bipop": ("cma", each(pycma(restarts=9, bipop=True))),
    "pycma ipop": ("cma", each(pycma(restarts=9))),
    "pymoo GA": ("pymoo", each(pymoo_ga)),
    "random search": ("numpy", each(random_search)),
    "scipy DE": ("scipy", each(scipy_de)),
}


@dataclass(frozen=True)
class Part:
    """What one process does at a time: an algorithm or a reference on some functions."""

    name: str
    functions: tuple[int, ...]
    instances: tuple[int, ...]
    dim: int
    budget: int
    settings: str
    seed: int

    def run(self) -> list[Done]:
        torch.set_num_threads(1)
        todo = runs(self.functions, self.instances, self.dim, self.budget)
        if self.name in OTHERS:
            OTHERS[self.name][1](todo, self.seed)
        else:
            ours(self.name, json.loads(self.settings), todo, self.seed)
        return [Done(run.function, run.instance, run.dim, run.budget, run.hits) for run in todo]

    def kept(self, folder: str | None) -> tuple[list[Done], float]:
        """Its runs and the seconds that they took, read from ``folder`` if they are there, else written there."""
        key = blake2b(json.dumps(asdict(self)).encode(), digest_size=8).hexdigest()
        path = None if folder is None else Path(folder) / f"{self.name.replace(' ', '_')}-{self.dim}-{key}.json"
        if path is not None and path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            at = ((f, i) for f in self.functions for i in self.instances)
            hits = [np.asarray(row) for row in found["hits"]]
            done = [Done(f, i, self.dim, self.budget, row) for (f, i), row in zip(at, hits, strict=True)]
            return done, found["seconds"]
        begun = time.perf_counter()
        done = self.run()
        seconds = time.perf_counter() - begun
        if path is not None:
            whole = path.with_suffix(f".{os.getpid()}")
            whole.write_text(json.dumps({"seconds": seconds, "hits": [run.hits.tolist() for run in done]}))
            whole.replace(path)  # so that a file is whole or absent
        return done, seconds


def parts(name: str, dim: int, options: argparse.Namespace) -> list[Part]:
    """The work for one line of the report."""
    batch = name not in OTHERS and make(name).needs.batched
    functions = [tuple(options.functions)] if batch else [(function,) for function in options.functions]
    settings = json.dumps(options.settings, sort_keys=True)
    budget, instances = options.budget * dim, tuple(options.instances)
    return [Part(name, these, instances, dim, budget, settings, options.seed) for these in functions]


def share(done: Iterable[Done]) -> float:
    """Of all targets, those hit."""
    return float(np.mean([np.isfinite(run.hits).mean() for run in done]))


def functions_solved(done: Sequence[Done]) -> int:
    solved: dict[int, list[bool]] = {}
    for run in done:
        solved.setdefault(run.function, []).append(run.solved)
    return sum(2 * sum(instances) > len(instances) for instances in solved.values())


def running_times(done: Sequence[Done]) -> dict[int, Floats]:
    """Function -> expected running time of each target; inf where no instance has hit it."""
    times = {}
    for function in sorted({run.function for run in done}):
        hits = np.stack([run.hits for run in done if run.function == function])
        spent = np.where(np.isfinite(hits), hits, done[0].budget).sum(0)
        with np.errstate(divide="ignore"):
            times[function] = spent / np.isfinite(hits).sum(0)
    return times


def ratio(done: Sequence[Done], reference: Sequence[Done], functions: Iterable[int] = range(1, 25)) -> float:
    """Geometric mean of expected running times over the reference's; NaN where no target was hit by both."""
    mine, theirs = running_times(done), running_times(reference)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = [np.log(mine[f] / theirs[f]) for f in functions if f in mine]
    both = [log[np.isfinite(log)] for log in logs]
    return float(np.exp(np.concatenate(both).mean())) if any(len(log) for log in both) else float("nan")


def report(name: str, reference: str, done: list[Done], theirs: list[Done], floor: list[Done], seconds: float) -> None:
    print(
        f"D = {done[0].dim:2}  {name:14} {share(done):.3f}  solved {functions_solved(done):2}   "
        f"{reference:14} {share(theirs):.3f}  running time x {ratio(done, theirs):.2f}   {seconds:.0f} s",
        flush=True,
    )
    parts = []
    for group, (first, last) in GROUPS.items():
        mine, least = ([run for run in of if first <= run.function <= last] for of in (done, floor))
        if mine:
            below = "  BELOW RANDOM SEARCH" if share(mine) < share(least) else ""
            parts.append(f"{group} {share(mine):.2f} (random {share(least):.2f}){below}")
    print("        " + ", ".join(parts))
    own = {run.function for run in done}
    times = [f"{word} x {ratio(done, theirs, [f]):.2f}" for f, word in SHOWN.items() if f in own]
    if times:
        print("        running times: " + ", ".join(times), flush=True)


def picture(results: Mapping[int, Mapping[str, list[Done]]], path: Path) -> None:
    """The share of targets hit against evaluations / D, one panel a dimension."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(results), figsize=(6 * len(results), 5), squeeze=False, sharey=True)
    for axis, (dim, named) in zip(axes[0], results.items(), strict=True):
        for name, done in named.items():
            hits = np.sort(np.concatenate([run.hits for run in done]) / dim)
            reached = np.arange(1, len(hits) + 1) / len(hits)
            style = "--" if name in OTHERS else "-"
            axis.step(hits[np.isfinite(hits)], reached[np.isfinite(hits)], style, where="post", label=name)
        axis.set(xscale="log", xlabel="evaluations / D", title=f"BBOB, D = {dim}", ylim=(0, 1))
    axes[0][0].set_ylabel("share of targets hit")
    axes[0][-1].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path)


def available(names: Iterable[str]) -> Iterator[str]:
    """Those whose package is installed; a line for each of the others."""
    for name in names:
        if find_spec(OTHERS[name][0]) is None:
            print(f"Left out {name}: the package {OTHERS[name][0]} is not installed.")
        else:
            yield name


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Our algorithms and their references on the BBOB functions.")
    known = sorted(set(ALGORITHMS) - set(OTHER_GENES))
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 5, 10, 20])
    parser.add_argument("--instances", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--functions", type=int, nargs="+", default=list(range(1, 25)))
    parser.add_argument("--algorithms", nargs="*", default=known, choices=known)
    parser.add_argument("--budget", type=int, default=2000, help="evaluations per dimension")
    parser.add_argument("--settings", type=json.loads, default={}, help="for all algorithms, such as '{\"k\": 50}'")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-references", action="store_true", help="only ours, beside random search")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--keep", type=Path, help="a folder for what is finished, to go on from")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    return parser.parse_args()


def finished(work: Mapping[K, list[Part]], jobs: int, folder: str | None) -> Iterator[tuple[K, list[Done], float]]:
    """Every line's runs and seconds, in order."""
    if jobs == 1:
        for key, own in work.items():
            yield key, *_together(part.kept(folder) for part in own)
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        waiting = {key: [pool.submit(part.kept, folder) for part in own] for key, own in work.items()}
        for key, futures in waiting.items():
            yield key, *_together(future.result() for future in futures)


def _together(answers: Iterable[tuple[list[Done], float]]) -> tuple[list[Done], float]:
    every = list(answers)
    return [run for done, _ in every for run in done], sum(seconds for _, seconds in every)


def main() -> None:
    options = arguments()
    if find_spec("ioh") is None and find_spec("cocoex") is None:
        raise SystemExit("expected the package ioh or coco-experiment, got neither; pip install '.[bench]'")
    known = {} if options.no_references else REFERENCES
    reference_of = {name: known.get(name, "random search") for name in options.algorithms}
    references = list(available(["random search", *sorted({*reference_of.values()} - {"random search"})]))
    names = [*references, *options.algorithms]
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
    folder = None if options.keep is None else str(options.keep)
    results: dict[int, dict[str, list[Done]]] = {dim: {} for dim in options.dims}
    rows = []
    work = {(dim, name): parts(name, dim, options) for dim in options.dims for name in names}
    for (dim, name), done, seconds in finished(work, options.jobs, folder):
        named = results[dim]
        named[name] = done
        wanted = reference_of.get(name, "random search")
        reference = wanted if wanted in named else "random search"
        theirs, floor = named.get(reference, done), named.get("random search", done)
        report(name, reference, done, theirs, floor, seconds)
        rows.append(
            {
                "algorithm": name,
                "reference": reference,
                "dimension": dim,
                "share": share(done),
                "reference_share": share(theirs),
                "functions_solved": functions_solved(done),
            }
        )
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    if options.picture is not None:
        picture(results, options.picture)


if __name__ == "__main__":
    main()
