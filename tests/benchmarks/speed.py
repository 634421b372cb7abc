"""Time of one generation, less the objective's own time: tansaku, its peers, and the floor that nobody gets below.

    python tests/benchmarks/speed.py [--quick] [--device cuda] [--json FILE]

Genetic algorithm (against evotorch), particle swarm (against evox) and hill climbing at three sizes k x n, float32,
bounds (-5.12, 5.12), on the sphere, on Rastrigin and on "none", a fixed cost vector. All take turns in one run, so that
a busy machine slows them alike; the figures are medians. A turn is as many generations, at most 20, as make a million
genes, so that one finds in the caches what the one before it left there, as in use. What the objective takes is
measured inside the very calls that the libraries make, and subtracted.

The floor is tansaku's own draws of random numbers, as many of the same kind, plus one copy of the population, all of
it into memory that is kept. `memory` is the high-water mark of a process that runs a few generations, in populations.

A peer runs in the settings that suit it best: evotorch evaluates no parent twice. evox runs as it is, against tansaku
as it is, and compiled, against tansaku with ``compile=True``. A peer that is not installed is left out. On a GPU the
clock waits for the device before and after an objective and a turn. For `ga` all libraries select by tournament (two
compete in evotorch, four here), cross real parents and mutate nothing, which is tansaku's default; `ga+mutation` adds
Gaussian mutation to gene-wise (there: one-point) crossover and keeps the best of parents and children, as evotorch's
does by default.

In the file that `--json` writes, `milliseconds` is a generation's time less `objective_milliseconds`, and `ratio` is
tansaku's milliseconds divided by those of the library in that row (compiled tansaku's in a row of compiled evox).
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import multiprocessing
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import tansaku
from tansaku import GA, PSO, Gaussian, HillClimb, Objective, Plus, Population, Search, UniformCrossover, draws
from tansaku.storage import Storages

SIZES = [(100, 10), (1024, 100), (10_000, 1000)]
QUICK_SIZES = [(16, 4), (100, 10)]
LOW, HIGH = -5.12, 5.12
STD = 0.1
TURN = 1_000_000  # genes
LONGEST = 20  # generations of a turn

Function = Callable[[Tensor], Tensor]


def sphere(x: Tensor) -> Tensor:
    """[k, n] -> [k]."""
    return x.square().sum(-1)


def rastrigin(x: Tensor) -> Tensor:
    """[k, n] -> [k]."""
    return 10 * x.shape[-1] + (x.square() - 10 * torch.cos(2 * math.pi * x)).sum(-1)


def objective_of(name: str, k: int, device: str = "cpu") -> Function:
    """The objective of that name; "none" answers with a fixed cost vector, whatever it is asked."""
    if name == "none":
        costs = torch.rand(k, generator=torch.Generator().manual_seed(1)).to(device)
        return lambda x: costs
    return {"sphere": sphere, "rastrigin": rastrigin}[name]


def now(device: str) -> float:
    """Seconds, when the device has done all that it was asked to."""
    if device != "cpu":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class Clock:
    """An objective that sums up the time it takes."""

    def __init__(self, fn: Function, device: str) -> None:
        self._fn, self._device = fn, device
        self._calls = 0
        self._seconds = 0.0

    def __call__(self, x: Tensor) -> Tensor:
        begun = now(self._device)
        value = self._fn(x)
        self._seconds += now(self._device) - begun
        self._calls += 1
        return value

    def read(self) -> float:
        """Seconds of a call, on the average of those since the last reading."""
        seconds = self._seconds / max(1, self._calls)
        self._calls, self._seconds = 0, 0.0
        return seconds


@dataclass(frozen=True)
class Contender:
    """A library at one task: ``step`` makes a generation; ``objective_seconds`` says what the objective took of one,
    on the average of those since it was last asked.
    """

    library: str
    step: Callable[[], object]
    objective_seconds: Callable[[], float]


@dataclass(frozen=True)
class Case:
    """One line of the benchmark."""

    algorithm: str
    k: int
    n: int
    objective: str
    device: str = "cpu"

    def __str__(self) -> str:
        return f"{self.algorithm} {self.k} x {self.n} {self.objective}"

    @property
    def function(self) -> Function:
        """See `objective_of`."""
        return objective_of(self.objective, self.k, self.device)

    def generator(self) -> torch.Generator:
        """A new one on the device."""
        return torch.Generator(self.device).manual_seed(0)


@dataclass(frozen=True)
class Row:
    """One figure of the benchmark, as written to the file."""

    algorithm: str
    k: int
    n: int
    objective: str
    library: str
    milliseconds: float
    objective_milliseconds: float
    ratio: float


def timed(library: str, case: Case, make: Callable[[Function], Callable[[], object]]) -> Contender:
    """A contender whose objective carries a clock."""
    clock = Clock(case.function, case.device)
    return Contender(library, make(clock), clock.read)


def ours(case: Case, fn: Function, compiled: bool = False) -> Callable[[], object]:
    """A search of tansaku."""
    bounds = tansaku.Bounds(LOW, HIGH)
    algorithms: dict[str, Callable[[], Any]] = {
        "ga": lambda: GA(k=case.k, bounds=bounds),
        "ga+mutation": lambda: GA(
            k=case.k, crossover=UniformCrossover(0.5), mutate=Gaussian(STD), survive=Plus(), bounds=bounds
        ),
        "pso": lambda: PSO(k=case.k, bounds=bounds, neighbourhood="global", compile=compiled),
        "hill_climb": lambda: HillClimb(k=case.k, bounds=bounds),
    }
    start = torch.empty(case.k, case.n, device=case.device).uniform_(LOW, HIGH, generator=case.generator())
    return Search(algorithms[case.algorithm](), Objective(fn), Population({"x": start})).step


def floor(case: Case) -> Callable[[], object]:
    """The random numbers that `ours` draws in a generation, and one copy of the population, into kept memory."""
    k, n = case.k, case.n
    generator = case.generator()
    old, new = torch.ones(k, n, device=case.device), torch.ones(k, n, device=case.device)
    storages = Storages()

    def draw() -> None:
        with storages:
            if case.algorithm == "pso":
                draws.fractions((2, k), (), (n,), old, generator)
            elif case.algorithm == "hill_climb":
                draws.normal((k,), (), (n,), old, generator)
            else:
                draws.integers(k, (4, 2 * k), (), (), old, generator)
                if case.algorithm == "ga":
                    draws.weights((k,), (), (n,), old, generator)
                else:
                    draws.coins(0.5, (k,), (), (n,), old, generator)
                    draws.normal((k,), (), (n,), old, generator)
            new.copy_(old)

    return draw


def evotorch_ga(case: Case, fn: Function) -> Callable[[], object]:
    """A genetic algorithm of evotorch."""
    from evotorch import Problem
    from evotorch.algorithms import GeneticAlgorithm
    from evotorch.operators import GaussianMutation, OnePointCrossOver, SimulatedBinaryCrossOver

    logging.getLogger("evotorch").setLevel(logging.ERROR)
    problem = Problem(
        "min",
        fn,
        solution_length=case.n,
        bounds=(LOW, HIGH),
        dtype=torch.float32,
        vectorized=True,
        seed=0,
        device=case.device,
    )
    operators: list[Any] = [OnePointCrossOver(problem, tournament_size=2), GaussianMutation(problem, stdev=STD)]
    if case.algorithm == "ga":
        operators = [SimulatedBinaryCrossOver(problem, tournament_size=2, eta=5.0)]
    return GeneticAlgorithm(problem, operators=operators, popsize=case.k, re_evaluate=False).step


def evox_pso(case: Case, fn: Function) -> Any:
    """A particle swarm of evox: the workflow, after its first step."""
    import evox.algorithms
    import evox.core
    import evox.workflows

    class Task(evox.core.Problem):
        def evaluate(self, pop: Tensor) -> Tensor:
            return fn(pop)

    torch.manual_seed(0)
    ends = (torch.full((case.n,), end, device=case.device) for end in (LOW, HIGH))
    swarm = evox.algorithms.PSO(case.k, *ends, device=torch.device(case.device))
    workflow = evox.workflows.StdWorkflow(swarm, Task(), device=case.device)
    workflow.init_step()
    return workflow


def evox_compiled(case: Case, fn: Function) -> Contender:
    """The same, compiled with its objective, which cannot carry a clock there: its own time is that of the objective
    compiled alone, less that of a compiled function that computes nothing.

    Raises:
        RuntimeError: no compiler here.
    """
    torch.compiler.reset()  # what earlier cases compiled would count against its limit of recompilations
    workflow = evox_pso(case, fn)
    step, alone, nothing = (
        torch.compile(workflow.step),
        torch.compile(fn),
        torch.compile(replace(case, objective="none").function),
    )
    try:
        for _ in range(3):
            step()
            alone(workflow.algorithm.pop)
            nothing(workflow.algorithm.pop)
    except Exception as error:  # whatever a compiler may raise
        raise RuntimeError("torch.compile does not work here") from error

    def objective_seconds() -> float:
        begun = now(case.device)
        alone(workflow.algorithm.pop)
        middle = now(case.device)
        nothing(workflow.algorithm.pop)
        return max(0.0, 2 * middle - begun - now(case.device))

    return Contender("evox compiled", step, (lambda: 0.0) if case.objective == "none" else objective_seconds)


def contenders(case: Case, compiled: bool, missing: set[str]) -> list[Contender]:
    """Ours, the peers that are installed, and the floor, in the order in which they take turns."""
    found = [timed("tansaku", case, lambda clock: ours(case, clock))]
    try:
        if case.algorithm.startswith("ga"):
            found.append(timed("evotorch", case, lambda clock: evotorch_ga(case, clock)))
        elif case.algorithm == "pso":
            found.append(timed("evox", case, lambda clock: evox_pso(case, clock).step))
            if compiled:
                theirs = evox_compiled(case, case.function)
                found += [timed("tansaku compiled", case, lambda clock: ours(case, clock, True)), theirs]
    except ImportError as error:
        missing.add(str(error.name).split(".")[0])
    except RuntimeError as error:
        missing.add(f"evox compiled ({error})")
    return [*found, Contender("floor", floor(case), lambda: 0.0)]


def measure(case: Case, seconds: float, compiled: bool, missing: set[str]) -> list[Row]:
    """The figures of one case: at least 5 rounds, then as many as fit into ``seconds``."""
    turns = contenders(case, compiled, missing)
    spent: dict[str, list[float]] = {turn.library: [] for turn in turns}
    own: dict[str, list[float]] = {turn.library: [] for turn in turns}
    for _ in range(3):
        for turn in turns:
            turn.step()
            turn.objective_seconds()
    burst = max(1, min(LONGEST, TURN // (case.k * case.n)))
    begun = time.perf_counter()
    while len(own["floor"]) < 5 or time.perf_counter() - begun < seconds:
        for turn in turns:
            start = now(case.device)
            for _ in range(burst):
                turn.step()
            whole = (now(case.device) - start) / burst
            objective = turn.objective_seconds()
            spent[turn.library].append(1000 * (whole - objective))
            own[turn.library].append(1000 * objective)
    medians = {library: statistics.median(values) for library, values in spent.items()}
    return [
        Row(
            case.algorithm,
            case.k,
            case.n,
            case.objective,
            library=library,
            milliseconds=median,
            objective_milliseconds=statistics.median(own[library]),
            ratio=medians["tansaku compiled" if library.endswith("compiled") else "tansaku"] / median,
        )
        for library, median in medians.items()
    ]


def resident(key: str) -> int:
    """Bytes: VmRSS now, or VmHWM, the highest so far."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(key):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"expected {key} in the process's status, got none")


def high_water(case: Case, library: str) -> float:
    """Populations of memory that five generations take at most; for a process of its own."""
    torch.ones(1000, 1000).square().sum()  # the threads' own memory is not counted
    small = Case(case.algorithm, 4, 2, case.objective)
    makers: dict[str, Callable[[Case, Function], Callable[[], object]]] = {
        "tansaku": ours,
        "evotorch": evotorch_ga,
        "evox": lambda case, fn: evox_pso(case, fn).step,
    }
    makers[library](small, small.function)()
    before = resident("VmRSS:")
    step = makers[library](case, case.function)
    for _ in range(5):
        step()
    return (resident("VmHWM:") - before) / (4 * case.k * case.n)


def memory(case: Case, library: str) -> float | None:
    """`high_water` in a new process; None where the system does not tell."""
    known = library in ("tansaku", "evotorch", "evox") and Path("/proc/self/status").exists()
    if not known or case.device != "cpu":
        return None
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(high_water, (case, library))


def cases(sizes: list[tuple[int, int]], device: str) -> Iterator[Case]:
    """Every case of the benchmark."""
    for algorithm in ("ga", "ga+mutation", "pso", "hill_climb"):
        for k, n in sizes:
            for objective in ("sphere", "rastrigin", "none"):
                yield Case(algorithm, k, n, objective, device)


def pairs_of(rows: list[Row]) -> list[tuple[Row, Row | None]]:
    """Of the rows of one case: ours and a peer, as they are, and both compiled; ours alone where there is no peer."""
    by_library = {row.library: row for row in rows}
    peers = [row for row in rows if not row.library.startswith(("tansaku", "floor"))]
    found: list[tuple[Row, Row | None]] = [
        (by_library["tansaku compiled" if peer.library.endswith("compiled") else "tansaku"], peer) for peer in peers
    ]
    return found or [(rows[0], None)]


def missed(rows: list[Row]) -> list[str]:
    """The goals that the rows of one case miss."""
    lowest, complaints = rows[-1], []
    case = f"{rows[0].algorithm} {rows[0].k} x {rows[0].n} {rows[0].objective}"
    goal = 1.0 if rows[0].k < 1024 else 0.35
    for _, peer in pairs_of(rows):
        if peer is not None and peer.ratio > goal:
            complaints.append(f"{case}: {peer.ratio:.2f} of {peer.library}, the goal is {goal:g}")
    if rows[0].k >= 10_000 and lowest.ratio > 3:
        complaints.append(f"{case}: {lowest.ratio:.1f} times the floor, the goal is 3")
    return complaints


def table_of(results: list[list[Row]], used: dict[tuple[str, str], float], device: str) -> Table:
    """The figures for people."""
    title = f"One generation less its objective, milliseconds ({torch.get_num_threads()} threads, {device})"
    table = Table(title=title)
    columns = ["algorithm", "k x n", "objective", "alone", "tansaku", "peer", "", "of peer", "floor", "of floor"]
    for name in [*columns, "memory", "peer's"]:
        table.add_column(name, justify="left" if name in ("algorithm", "objective", "") else "right", no_wrap=True)

    def in_populations(row: Row | None) -> str:
        if row is None or row.k < 10_000 or row.objective != "none":
            return ""
        multiple = used.get((row.algorithm, row.library.split()[0]))
        return "" if multiple is None else f"{multiple:.1f}"

    for lowest, last, own, peer in [(rows[-1], rows[-2], *pair) for rows in results for pair in pairs_of(rows)]:
        table.add_row(
            own.algorithm,
            f"{own.k} x {own.n}",
            own.objective,
            f"{own.objective_milliseconds:.3g}",
            f"{own.milliseconds:.3g}",
            "-" if peer is None else f"{peer.milliseconds:.3g}",
            "" if peer is None else peer.library,
            "-" if peer is None else f"{peer.ratio:.2f}",
            f"{lowest.milliseconds:.3g}",
            f"{own.milliseconds / lowest.milliseconds:.2f}",
            in_populations(own),
            in_populations(peer),
            end_section=own.objective == "none" and peer in (None, last),
        )
    return table


def main(arguments: list[str] | None = None) -> None:
    """Prints the table; writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures, a list of objects")
    parser.add_argument("--quick", action="store_true", help="small sizes and few repetitions, to see that it runs")
    parser.add_argument("--only", metavar="TEXT", default="", help='cases that contain it, such as "pso 1024 x 100"')
    parser.add_argument("--device", default="cpu", help="where the populations are, such as cuda")
    parser.add_argument("--seconds", type=float, help="of each case (default 4, quick 0.02)")
    options = parser.parse_args(arguments)
    seconds = options.seconds if options.seconds is not None else (0.02 if options.quick else 4.0)
    warnings.filterwarnings("ignore", module="evotorch|evox|torch")
    console = Console()
    console = Console(width=max(console.width, 150))  # rather than cut figures
    results: list[list[Row]] = []
    missing: set[str] = set()
    used: dict[tuple[str, str], float] = {}
    for case in cases(QUICK_SIZES if options.quick else SIZES, options.device):
        if options.only not in str(case):
            continue
        with console.status(str(case)):
            rows = measure(case, seconds, not options.quick, missing)
            if case.k >= 10_000 and case.objective == "none":
                for row in rows:
                    multiple = memory(case, row.library)
                    if multiple is not None:
                        used[case.algorithm, row.library] = multiple
        results.append(rows)
    console.print(table_of(results, used, options.device))
    for name in sorted(missing):
        console.print(f"Left out, for it is not here: {name}. The extra 'bench' of this project installs the peers.")
    if not options.quick:
        complaints = [complaint for rows in results for complaint in missed(rows)]
        console.print("\n".join(complaints) or "Every goal is reached.")
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(row) for rows in results for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
