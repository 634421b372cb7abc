"""`check_algorithm`: the published conformance suite for search algorithms, tansaku's own and yours."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from tansaku import host
from tansaku.algorithms import Algorithm
from tansaku.draws import Replay
from tansaku.functional import dominates
from tansaku.operators import Bounds
from tansaku.operators.bounds import Repair
from tansaku.population import Population
from tansaku.search import Search
from tansaku.states import pack, unpack
from tansaku.storage import Storages
from tansaku.testing.claims import Suite, close, fingerprint, nothing_drawn_elsewhere, refused, require, tensors_of
from tansaku.testing.constrained import AtLeast, OnlyViolations, obeys_debs_order
from tansaku.testing.problems import Problem
from tansaku.testing.reachable import reachable
from tansaku.testing.resume import importable, imported, in_fresh_process, outcome, resumed
from tansaku.testing.subject import DTYPES, OTHER_DTYPES, Subject, genes_of, inside, run
from tansaku.testing.units import fixed_genes_give_the_same_run, rescaled_genes_give_the_same_run
from tansaku.testing.user_functions import failures_cost_the_worst, writes_are_refused
from tansaku.testing.watch import Called, Dispatched

_HELD = 12  # times the state and one generation's genes: how much memory a search may keep
_CLOSE = 1e-9  # of the largest gene: sums may be taken in another order


def check_algorithm(
    make: Callable[..., Algorithm[Any]] | str, *, device: torch.device | str = "cpu", only: Iterable[str] = ()
) -> None:
    """Checks that an algorithm keeps what `Algorithm` promises and what it declares in `Needs`.

    Args:
        make: builds the algorithm; called with none, either or both of the settings ``k=`` and ``bounds=`` (and, if its
            `Needs` say that it plans, ``max_evaluations=``), all others being up to it: the class itself, a function,
            or ``"module:name"`` of either. A state that is saved is taken up in a fresh process where ``make`` has a
            name that can be imported there; in this process where it has none (a lambda, a function inside another,
            something from ``__main__``). For the claim on rescaled genes, bounds and every setting named ``std`` or
            ``scale``, of the algorithm and of its operators, are replaced by values per gene (`dataclasses.replace`),
            so ``make`` need not take a standard deviation; `Needs` with ``scales=False`` leaves this claim out.
        device: where the genes are.
        only: names of the checks to run; all of `ALGORITHM_CHECKS` if not given.

    Raises:
        AssertionError: the first claim that does not hold, in words.
        TypeError: ``make`` does not build an `Algorithm`.

    Example:
        >>> from tansaku import HillClimb
        >>> check_algorithm(HillClimb, only=["same_seed_same_run", "bounds_hold"])
        >>> check_algorithm(lambda **settings: HillClimb(**settings, std=0.1), only=["same_seed_same_run"])
    """
    subject = Subject(imported(make) if isinstance(make, str) else make, torch.device(device))
    _suite.run(type(subject.algorithm()).__name__, subject, only)


_suite: Suite[Subject] = Suite()


@_suite.claim("it finds better candidates than as many random ones")
def _beats_random_search(subject: Subject) -> None:
    seeds = 5
    generations = 240 if subject.algorithm().needs.descriptor else 60  # an archive spreads them over its cells
    for kind in subject.kinds:
        problem = subject.problem(
            kind, event=(40,) if kind in ("boolean", "permutation") else (8,), dtype=OTHER_DTYPES[kind][0]
        )
        algorithm = subject.bounded(problem, generations=generations)
        better = 0
        for seed in range(seeds):
            start = problem.start(algorithm.k, seed)
            *_, (state, _) = run(algorithm, problem.assess, start, subject.noise(seed), generations)
            random = problem.assess(problem.start(algorithm.k * (generations + 1), seed + 100))
            better += int(problem.merit(algorithm.best(state)) < problem.merit(random))
        require(better >= seeds - 1, f"with {kind} genes it was better for {better} seeds of {seeds}")


@_suite.claim("a translated problem gets the translated answer on the same noise")
def _translates(subject: Subject) -> None:
    if "real" not in subject.kinds or not subject.needs.translates:
        return
    shift = 20.0
    here = subject.problem("real")
    there = replace(here, centre=here.centre + shift, low=here.low + shift, high=here.high + shift)
    start = here.start(subject.k())
    moved = start.with_genes({name: x + shift for name, x in start.genes.items()})
    for boxed in (True, False):
        first = run(
            subject.algorithm(subject.k(), here.bounds() if boxed else None), here.assess, start, subject.noise(), 20
        )
        second = run(
            subject.algorithm(subject.k(), there.bounds() if boxed else None), there.assess, moved, subject.noise(), 20
        )
        for generation, ((_, a), (_, b)) in enumerate(zip(first, second, strict=True)):
            apart = float((b["x"] - shift - a["x"]).abs().max())
            box = "with" if boxed else "without"
            require(apart <= 1e-6, f"{box} bounds, genes differ by {apart:.3g} in generation {generation}")


_suite.claim("genes rescaled together with their bounds and standard deviations give the same run up to rounding")(
    rescaled_genes_give_the_same_run
)
_suite.claim("genes with equal bounds, single ones and whole tensors, leave the run of the other genes unchanged")(
    fixed_genes_give_the_same_run
)


@_suite.claim("where it is rank-based, any rising function of the cost gives the identical run")
def _only_ranks_matter(subject: Subject) -> None:
    if not subject.needs.rank_based:
        return
    changes: dict[str, Callable[[Tensor], Tensor]] = {
        "100 * cost + 3": lambda cost: 100 * cost + 3,
        "cost / 1000": lambda cost: cost / 1000,
        "cost ** 3": lambda cost: cost * cost * cost,
    }
    for kind in subject.kinds:
        problem = subject.problem(kind)
        for words, change in changes.items():
            _identical(subject, problem, replace(problem, change=change), f"{kind} genes, {words}")


@_suite.claim("maximising the negated cost is the same run as minimising the cost")
def _both_directions_agree(subject: Subject) -> None:
    for kind in subject.kinds:
        problem = subject.problem(kind)
        _identical(subject, problem, replace(problem, maximize=True), f"{kind} genes, maximised")


def _identical(subject: Subject, one: Problem, other: Problem | OnlyViolations, what: str) -> None:
    algorithm = subject.bounded(one)
    start = one.start(algorithm.k)
    first = run(algorithm, one.assess, start, subject.noise(), 15)
    second = run(algorithm, other.assess, start, subject.noise(), 15)
    for generation, ((left, a), (right, b)) in enumerate(zip(first, second, strict=True)):
        same = fingerprint(dict(a.genes)) == fingerprint(dict(b.genes))
        require(same, f"{what}: other candidates in generation {generation}")
        bests = {fingerprint(dict(algorithm.best(state).genes)) for state in (left, right)}
        require(len(bests) == 1, f"{what}: another best candidate in generation {generation}")


@_suite.claim("a batch of searches is the same as separate searches on the same draws")
def _batch_equals_separate(subject: Subject) -> None:
    if not subject.needs.batched:
        return
    for kind in subject.kinds:
        for batch_shape in ((3,), (2, 2)):
            problem = subject.problem(kind, batch_shape=batch_shape)
            algorithm = subject.bounded(problem)
            start = problem.start(subject.k(5))  # another number than k
            tape = Replay(subject.noise())
            together = list(run(algorithm, problem.assess, start, tape, 6))
            alone = replace(problem, batch_shape=())
            for index in torch.cartesian_prod(*(torch.arange(size) for size in batch_shape)).view(-1, len(batch_shape)):
                where = tuple(index.tolist())
                own = Population({name: x[(slice(None), *where)] for name, x in start.genes.items()})
                separate = run(algorithm, alone.assess, own, tape.search(*where), 6)
                for generation, ((_, batched), (_, single)) in enumerate(zip(together, separate, strict=True)):
                    same = close(batched["x"][(slice(None), *where)], single["x"], _CLOSE)
                    require(
                        same,
                        f"{kind} genes, batch_shape {batch_shape}: search {where} differs in generation {generation}",
                    )


@_suite.claim("NaN and infinite values in any share, up to all, do no harm and never count as best")
def _failed_evaluations_do_no_harm(subject: Subject) -> None:
    for kind in subject.kinds:
        for maximize in (False, True):
            for bad in (float("nan"), float("inf"), -float("inf")):
                for share in (0.3, 1.0):
                    what = f"{kind} genes, {'maximised' if maximize else 'minimised'}, {share:.0%} of {bad}"
                    _survives(subject, subject.problem(kind, maximize=maximize), bad, share, what)


def _survives(subject: Subject, problem: Problem, bad: float, share: float, what: str) -> None:
    algorithm = subject.bounded(problem)
    spoil = torch.Generator().manual_seed(7)
    turn = 0

    def assess(population: Population) -> Population:
        nonlocal turn
        turn += 1
        value = problem.value(population)
        if turn <= 6:  # then the objective recovers
            mask = (torch.rand(value.shape, generator=spoil) < share).to(value.device)
            value = torch.where(mask, bad, value)
        return problem.judged(population, value)

    lowest = torch.full((), float("inf"))
    for state, asked in run(algorithm, assess, problem.start(algorithm.k), subject.noise(), 8):
        finite = all(bool(torch.isfinite(x).all()) for x in genes_of(asked))
        require(finite, f"{what}: candidates that are not finite")
        lowest = torch.minimum(lowest, _lowest(asked).cpu())
        found = _lowest(algorithm.best(state)).cpu()
        require(
            torch.equal(found, lowest), f"{what}: best() costs {found.tolist()}, the lowest seen was {lowest.tolist()}"
        )
        estimate = algorithm.estimate(state)
        finite = all(bool(torch.isfinite(x).all()) for x in estimate.genes.values())
        require(finite, f"{what}: an estimate that is not finite")


@_suite.claim("violations affect the ranking: best() is the first in Deb's order, no feasible candidate is lost")
def _violations_affect_the_ranking(subject: Subject) -> None:
    for kind in subject.kinds:
        for batch_shape in ((), (2,)) if subject.needs.batched else ((),):
            for boxed in (True, False):
                if not boxed and kind == "integer":
                    continue  # which may need bounds
                for maximize in (False, True):
                    problem = subject.problem(kind, batch_shape=batch_shape, maximize=maximize)
                    algorithm = subject.algorithm(subject.k(), problem.bounds() if boxed else None)
                    limits = (2.0, 1e6)  # at the second no candidate is feasible
                    for limit in limits:
                        what = f"{kind} genes, batch_shape {batch_shape}, cost >= {limit:g}" + ", bounds" * boxed
                        posed = AtLeast(problem, limit, flat=maximize)
                        obeys_debs_order(subject, algorithm, posed, problem.start(subject.k(5)), what)
        if subject.needs.rank_based:
            # float64 as the ranking costs are: the dtype of the costs may be that of the noise for discrete genes
            problem = replace(subject.problem(kind), change=lambda cost: cost.double())
            _identical(subject, problem, OnlyViolations(problem), f"{kind} genes, the cost given as a violation")


@_suite.claim("no candidate leaves the bounds, however given and whatever the repair; permutations stay permutations")
def _bounds_hold(subject: Subject) -> None:
    for kind in subject.kinds:
        problem = subject.problem(kind, centre=6.0)  # the optimum lies outside
        if kind == "permutation":
            algorithm = subject.bounded(problem)
            for generation, (_, asked) in enumerate(
                run(algorithm, problem.assess, problem.start(algorithm.k), subject.noise(), 20)
            ):
                x = asked["x"]
                each_once = x.sort(-1).values == torch.arange(x.shape[-1], device=x.device)
                require(each_once.all(), f"candidates that are no permutations in generation {generation}")
        if kind in ("boolean", "permutation"):
            continue
        for repair in get_args(Repair):
            mapping = problem.bounds(repair)
            if mapping is None:
                continue
            low, high = problem.ends("x")
            per_gene = torch.tensor([low, low, high, low + 1], dtype=torch.float64)  # the third gene is held
            forms = [mapping, Bounds(low, high, repair), Bounds(per_gene, high, repair)]
            if repair == "clip" and kind == "real":
                forms.append(Bounds(low, float("inf")))
            for bounds in forms:
                algorithm = subject.algorithm(subject.k(), bounds)
                start = bounds(problem.start(algorithm.k))
                for generation, (_, asked) in enumerate(run(algorithm, problem.assess, start, subject.noise(), 20)):
                    require(
                        inside(asked, bounds),
                        f"{kind} genes outside {bounds.lower} .. {bounds.upper} ({repair}) in generation {generation}",
                    )


@_suite.claim("it works with few and with odd numbers of candidates, one gene, and genes of any event_shape")
def _any_size_works(subject: Subject) -> None:
    sizes = {subject.k(1), subject.k(3), subject.k(7)}
    for kind in subject.kinds:
        for k in sorted(sizes):
            for event in ((), (1,), (2, 3)):
                problem = subject.problem(kind, event=event)
                algorithm = subject.bounded(problem, k)
                for start_k in (1, k):
                    *before, (state, asked) = run(algorithm, problem.assess, problem.start(start_k), subject.noise(), 4)
                    what = f"{kind} genes, k = {k}, start of {start_k}, event_shape {event}"
                    expected = (algorithm.next_k(before[-1][0]), *event)
                    require(asked["x"].shape == expected, f"{what}: asked for {tuple(asked['x'].shape)}")
                    best = algorithm.best(state)
                    size = best.k if problem.objectives > 1 else 1  # a front has any size
                    require(best["x"].shape == (size, *event), f"{what}: best() has shape {tuple(best['x'].shape)}")
                    lowest = torch.stack([_lowest(seen) for _, seen in [*before, (state, asked)]]).amin(0)
                    require(torch.equal(_lowest(best), lowest), f"{what}: best() is not the best")


@_suite.claim("several named tensors are searched together, each with its own event_shape and dtype")
def _several_tensors_work(subject: Subject) -> None:
    kinds = subject.kinds
    dtypes = {name: DTYPES[kinds[i % len(kinds)]] for i, name in enumerate(("w", "b", "m", "scalar"))}
    events = {"w": (2, 3), "b": (3,), "m": (1,), "scalar": ()}
    for batch_shape in ((), (2,)) if subject.needs.batched else ((),):
        permuted = [name for i, name in enumerate(events) if kinds[i % len(kinds)] == "permutation"]
        problem = subject.posed(dtypes, events, batch_shape=batch_shape, permuted=frozenset(permuted))
        algorithm = subject.bounded(problem, generations=15)
        costs, k = [], algorithm.k
        for state, asked in run(algorithm, problem.assess, problem.start(algorithm.k), subject.noise(), 15):
            costs.append(problem.merit(algorithm.best(state)))
            for name, event in events.items():
                x = asked[name]
                require(
                    x.shape == (k, *batch_shape, *event) and x.dtype == dtypes[name],
                    f"{name!r} came back as {tuple(x.shape)} of {x.dtype}",
                )
            k = algorithm.next_k(state)
        perfect = costs[-1] == 0  # as the best of a start may be where there are few permutations
        require(((costs[-1] < costs[0]) | perfect).all(), "15 generations did not improve on the start")


@_suite.claim("what it cannot do is refused with an error that says so")
def _unmet_needs_are_refused(subject: Subject) -> None:
    needs, wrong = subject.needs, (TypeError, ValueError)
    refused(wrong, lambda: subject.algorithm(needs.min_k - 1), "k")
    refused(wrong, lambda: subject.algorithm(2.5), "k")  # type: ignore[arg-type]
    if needs.k_multiple > 1:
        refused(wrong, lambda: subject.algorithm(subject.k() + 1), "k")
    algorithm = subject.bounded(subject.problem())
    for kind, dtype in DTYPES.items():
        if kind not in needs.dtypes and not (kind == "permutation" and "integer" in needs.dtypes):
            problem = subject.problem(kind)
            assessed = problem.assess(problem.start(algorithm.k))
            refused(TypeError, lambda assessed=assessed: algorithm.init(assessed), str(dtype))  # type: ignore[misc]
    problem = subject.problem()
    start = problem.start(algorithm.k)
    refused(wrong, lambda: algorithm.init(start), "assess")
    other = replace(problem, objectives=1 if needs.objectives == "many" else 2)
    refused(wrong, lambda: algorithm.init(other.assess(start)), "objective")
    if needs.descriptor:
        plain = replace(problem, descriptor=False)
        refused(wrong, lambda: algorithm.init(plain.assess(start)), "descriptor")
    refused(TypeError, lambda: subject.make(bounds="everywhere"), "bounds")
    if not needs.batched:
        batched = subject.problem(batch_shape=(2,)).start(algorithm.k)
        refused(ValueError, lambda: Search(algorithm, problem.assess, batched), "batch_shape")


@_suite.claim("no start, no state and no population that was handed out is written to")
def _inputs_stay_as_they_were(subject: Subject) -> None:
    for kind in subject.kinds:
        problem = subject.problem(kind)
        algorithm = subject.bounded(problem)
        start = problem.assess(problem.start(algorithm.k))
        kept: list[tuple[str, Any, str]] = [("the start", start, fingerprint(start))]
        noise = subject.noise()
        state = algorithm.init(start)
        for generation in range(5):
            kept.append((f"the state of generation {generation}", state, fingerprint(state)))
            asked = problem.assess(algorithm.ask(state, noise))
            kept.append((f"the population of generation {generation}", asked, fingerprint(asked)))
            best = algorithm.best(state)
            kept.append((f"the best of generation {generation}", best, fingerprint(best)))
            state = algorithm.tell(state, asked)
            for what, value, before in kept:
                require(fingerprint(value) == before, f"{kind} genes: {what} changed by generation {generation + 1}")


@_suite.claim("populations kept for 50 generations of a large search keep every bit")
def _large_populations_stay_as_they_were(subject: Subject) -> None:
    megabyte, generations = 1 << 20, 50
    k = subject.k() if subject.needs.batched else subject.k(1 << 13)
    dtype = OTHER_DTYPES[subject.kinds[0]][0]
    genes = -(-megabyte // (k * dtype.itemsize)) + 1  # storages are handed out again from a megabyte on
    if subject.needs.batched:
        problem = subject.problem(dtype=dtype, batch_shape=(-(-genes // 4),))
    else:
        problem = subject.problem(dtype=dtype, event=(genes,))
    kept: list[tuple[Population, str]] = []

    def assess(population: Population) -> Population:
        assessed = problem.assess(population)
        kept.append((assessed, fingerprint(assessed)))
        return assessed

    search = Search(subject.bounded(problem, k), assess, problem.start(k))
    for _ in range(generations):
        search.step()
    for generation, (population, before) in enumerate(kept):
        require(fingerprint(population) == before, f"the population of generation {generation} was overwritten")


@_suite.claim("genes keep their dtype and their device")
def _dtype_and_device_are_kept(subject: Subject) -> None:
    for kind in subject.kinds:
        for dtype in OTHER_DTYPES[kind]:
            problem = subject.problem(kind, dtype=dtype)
            algorithm = subject.bounded(problem)
            for state, asked in run(algorithm, problem.assess, problem.start(algorithm.k), subject.noise(), 3):
                for what, genes in (
                    ("a candidate", asked["x"]),
                    ("the best", algorithm.best(state)["x"]),
                    ("the estimate", algorithm.estimate(state)["x"]),
                ):
                    require(genes.dtype == dtype, f"{what} of {dtype} genes has {genes.dtype}")
                    require(
                        genes.device.type == subject.device.type, f"{what} on {subject.device} is on {genes.device}"
                    )


@_suite.claim("the same seed gives the same run, and another seed another")
def _same_seed_same_run(subject: Subject) -> None:
    problem = subject.problem(event=(40,))
    algorithm = subject.bounded(problem)

    def run(seed: int) -> str:
        search = Search(algorithm, problem.assess, problem.start(algorithm.k), seed=seed)
        search.run(max_generations=5)
        return fingerprint(search.state)

    with nothing_drawn_elsewhere("a search"):
        require(run(3) == run(3), "two runs with seed 3 differ")
    require(run(3) != run(4), "seeds 3 and 4 give the same run")


@_suite.claim("best() is the best candidate ever assessed: it never gets worse, and the start's best is never lost")
def _best_is_never_lost(subject: Subject) -> None:
    for kind in subject.kinds:
        problem = subject.problem(kind)
        algorithm = subject.bounded(problem)
        for start_k in (1, max(1, algorithm.k // 2), 2 * algorithm.k + 1):
            what = f"{kind} genes, a start of {start_k}"
            lowest = torch.full((), float("inf"), device=subject.device)
            for state, asked in run(algorithm, problem.assess, problem.start(start_k), subject.noise(), 12):
                best = algorithm.best(state)
                lowest = torch.minimum(lowest, _lowest(asked))
                found = _lowest(best)
                if problem.objectives == 1:
                    require(best.k == 1, f"{what}: best() has k = {best.k}")
                else:
                    _is_front(best, asked, what)
                require(
                    torch.equal(found, lowest),
                    f"{what}: best() costs {found.tolist()}, the lowest assessed was {lowest.tolist()}",
                )
                again = problem.assess(best).cost
                require(torch.equal(again, best.cost), f"{what}: best() says {best.cost}, its genes cost {again}")
            perfect = _perfect(problem.start(start_k), problem)
            *_, (state, _) = run(algorithm, problem.assess, perfect, subject.noise(), 12)
            kept = float(_lowest(algorithm.best(state)).flatten()[0])
            require(kept == 0, f"{what}: its best candidate cost 0, after 12 generations best() costs {kept}")


def _is_front(best: Population, asked: Population, what: str) -> None:
    """No member is dominated by another, nor by a candidate of the same generation."""
    for others, whose in ((best, "another member"), (asked, "a candidate of its generation")):
        beaten = dominates(others.cost[:, None], best.cost[None]).any()
        require(not bool(beaten), f"{what}: a member of the front best() is dominated by {whose}")


def _lowest(population: Population) -> Tensor:
    """The lowest cost: [*batch_shape], or [*batch_shape, m] of every objective."""
    return population.cost.amin(0)


def _perfect(start: Population, problem: Problem) -> Population:
    """The start with the optimum as its last candidate."""
    genes = {name: torch.cat([x[:-1], problem.optimum(name, x[-1:])]) for name, x in start.genes.items()}
    return start.with_genes(genes)


@_suite.claim("ask() is a query: the state stays, the same noise gets the same k candidates, which are not assessed")
def _ask_is_a_query(subject: Subject) -> None:
    for kind in subject.kinds:
        problem = subject.problem(kind)
        algorithm = subject.bounded(problem)
        for state, _ in run(algorithm, problem.assess, problem.start(subject.k(3)), subject.noise(), 3):
            before = fingerprint(state)
            with nothing_drawn_elsewhere("ask()"):
                answers = [algorithm.ask(state, subject.noise(5)) for _ in range(2)]
            require(fingerprint(state) == before, f"{kind} genes: ask() changed the state")
            same = fingerprint(answers[0]) == fingerprint(answers[1])
            require(same, f"{kind} genes: the same noise got two answers")
            k = algorithm.next_k(state)
            require(answers[0].k == k, f"next_k is {k}, but ask() gave {answers[0].k} candidates")
            require(answers[0].assessment is None, "ask() gave candidates with an assessment")


@_suite.claim("tell() is deterministic, draws nothing, and is one graph for torch.compile with the same answer")
def _tell_is_deterministic_and_compiles(subject: Subject) -> None:
    for kind in subject.kinds:
        problem = subject.problem(kind)
        algorithm = subject.bounded(problem)
        *_, (state, _) = run(algorithm, problem.assess, problem.start(algorithm.k), subject.noise(), 2)
        asked = problem.assess(algorithm.ask(state, subject.noise(5)))
        with nothing_drawn_elsewhere("tell()"):
            told = fingerprint(algorithm.tell(state, asked))
            require(fingerprint(algorithm.tell(state, asked)) == told, f"{kind} genes: tell() gave two answers")
        if subject.needs.on_host:
            continue
        compiled = torch.compile(algorithm.tell, fullgraph=True, backend="eager")
        try:
            same = fingerprint(compiled(state, asked)) == told
        finally:
            torch._dynamo.reset()
        require(same, f"{kind} genes: compiled, tell() gave another answer")


@_suite.claim("refresh() assesses everything remembered again, for an objective that has changed")
def _refresh_assesses_what_is_remembered(subject: Subject) -> None:
    for kind in subject.kinds:
        problem = subject.problem(kind)
        algorithm = subject.bounded(problem)
        *_, (state, _) = run(algorithm, problem.assess, problem.start(algorithm.k), subject.noise(), 6)
        changed = replace(problem, change=lambda cost: 40 - cost)
        seen: list[Tensor] = []

        def assess(population: Population, changed: Problem = changed, seen: list[Tensor] = seen) -> Population:
            assessed = changed.assess(population)
            seen.append(_lowest(assessed))
            return assessed

        before = fingerprint(state)
        fresh = algorithm.refresh(state, assess)
        require(fingerprint(state) == before, f"{kind} genes: refresh() wrote to the old state")
        require(len(seen) > 0, f"{kind} genes: refresh() assessed nothing")
        best = algorithm.best(fresh)
        require(torch.equal(best.cost, changed.assess(best).cost), f"{kind} genes: best() still has its old cost")
        found, lowest = _lowest(best), torch.stack(seen).amin(0)
        require(
            torch.equal(found, lowest),
            f"{kind} genes: best() costs {found.tolist()} now, a remembered candidate {lowest.tolist()}",
        )
        algorithm.tell(fresh, changed.assess(algorithm.ask(fresh, subject.noise(5))))


@_suite.claim("a search that was saved goes on bit for bit, in a fresh process too")
def _saved_searches_continue_exactly(subject: Subject) -> None:
    for kind in subject.kinds:
        problem = subject.problem(kind)
        algorithm = subject.bounded(problem)
        state = algorithm.init(problem.assess(problem.start(algorithm.k)))
        same = fingerprint(unpack(pack(state))) == fingerprint(state)
        require(same, f"{kind} genes: a state is not itself after pack and unpack")
        with tempfile.TemporaryDirectory() as folder:
            saved, ended = Path(folder) / "saved", Path(folder) / "ended"
            search = Search(algorithm, problem.assess, problem.start(algorithm.k), seed=9)
            search.run(max_generations=3)
            search.ask()  # candidates asked for and not told are saved too
            search.save(saved)
            search.run(max_generations=6)
            search.ask()
            expected = outcome(search)
            again = resumed(subject, kind, saved)
            require(outcome(again) == expected, f"{kind} genes: loaded, it went on in another way")
            name = importable(subject.make)
            if name is not None and kind == subject.kinds[0] and in_fresh_process(name, kind, subject, saved, ended):
                again.load(ended)
                require(outcome(again) == expected, f"{kind} genes: a fresh process went on in another way")


@_suite.claim("a state read while the objective runs is the last complete generation and goes on bit for bit")
def _states_are_complete_generations(subject: Subject) -> None:
    for kind in subject.kinds:
        _goes_on_from_the_middle(subject, subject.problem(kind))


def _goes_on_from_the_middle(subject: Subject, problem: Problem) -> None:
    algorithm = subject.bounded(problem)
    read: list[Any] = []

    def reading(population: Population) -> Population:
        read.append(search.state_dict())
        return problem.assess(population)

    search = Search(algorithm, reading, problem.start(algorithm.k), seed=9)
    search.run(max_generations=4)
    again = Search(algorithm, None, problem.start(algorithm.k), seed=1)
    again.load_state_dict(read[3])
    require(again.generations == 2, f"read in generation 3, it says {again.generations} are complete, not 2")
    while again.generations < 4:
        again.tell(problem.assess(again.ask()))
    same = torch.equal(again.history.median, search.history.median)
    require(same and outcome(again) == outcome(search), "it went on in another way")


@_suite.claim("a state saved under other bounds is refused with both shown, and changes nothing")
def _other_settings_are_refused(subject: Subject) -> None:
    for kind in subject.kinds:
        problem = subject.problem(kind)
        bounds = problem.bounds()
        if bounds is None:
            continue
        low, high = problem.ends("x")
        algorithms = [subject.algorithm(subject.k(), box) for box in (bounds, Bounds(low - 1, high + 1))]
        saved, other = (Search(each, problem.assess, problem.start(each.k), seed=3) for each in algorithms)
        saved.run(max_generations=1)
        before = outcome(other)
        try:
            other.load_state_dict(saved.state_dict())
        except ValueError as error:
            require("bounds" in str(error), f"{kind} genes: the error does not name the bounds: {error}")
        else:
            require(False, f"{kind} genes: a state saved with other bounds was loaded without an error")
        require(outcome(other) == before, f"{kind} genes: the refused state changed the search")


@_suite.claim("it goes on far past convergence, in float32 too, without an error or a candidate that is not finite")
def _convergence_does_no_harm(subject: Subject) -> None:
    for kind in subject.kinds:
        problem = subject.problem(kind, dtype=OTHER_DTYPES[kind][0], event=(2,))
        for bounds in (problem.bounds(), None) if kind == "real" else (problem.bounds(),):
            algorithm = subject.algorithm(subject.k(), bounds)
            *_, (state, asked) = run(algorithm, problem.assess, problem.start(algorithm.k), subject.noise(), 500)
            finite = all(bool(torch.isfinite(x).all()) for x in [*genes_of(asked), *genes_of(algorithm.best(state))])
            require(finite, f"{kind} genes {'without' if bounds is None else 'with'} bounds: not finite at the end")


@_suite.claim("a flat or a badly scaled objective does no harm")
def _flat_objectives_do_no_harm(subject: Subject) -> None:
    changes: dict[str, Callable[[Tensor], Tensor]] = {
        "a constant cost": torch.zeros_like,
        "costs up to 1e30": lambda cost: cost * 1e30,
        "costs down to 1e-30": lambda cost: cost * 1e-30,
        "steps": lambda cost: cost.floor(),
    }
    for kind in subject.kinds:
        for words, change in changes.items():
            problem = subject.problem(kind, dtype=OTHER_DTYPES[kind][0], change=change)
            algorithm = subject.bounded(problem)
            bounds = problem.bounds()
            for _, asked in run(algorithm, problem.assess, problem.start(algorithm.k), subject.noise(), 60):
                finite = all(bool(torch.isfinite(x).all()) for x in genes_of(asked))
                require(finite, f"{kind} genes, {words}: candidates that are not finite")
                require(bounds is None or inside(asked, bounds), f"{kind} genes, {words}: candidates out of bounds")


@_suite.claim("a generation that nobody listens to waits for no value from the device")
def _no_hidden_synchronisation(subject: Subject) -> None:
    if subject.needs.on_host:
        return
    for kind in subject.kinds:
        problem = subject.problem(kind)
        search = Search(subject.bounded(problem), problem.assess, problem.start(subject.k()))
        search.step()
        with host.all_apart(), Dispatched() as dispatched, Called() as called:
            search.step()
        waits = dispatched.waits + called.waits
        require(not waits, f"{kind} genes: a step calls {', '.join(sorted(set(waits)))}, {len(waits)} times in all")


@_suite.claim("a generation builds no tensor of more than 8 times its population or of more than genes x genes")
def _memory_is_a_multiple_of_the_population(subject: Subject) -> None:
    k, genes = subject.k(64), 64
    problem = subject.problem(event=(genes,))
    algorithm = subject.bounded(problem, k)
    *_, (state, _) = run(algorithm, problem.assess, problem.start(k), subject.noise(), 1)
    with Dispatched() as seen:
        asked = algorithm.ask(state, subject.noise())
        algorithm.tell(state, problem.assess(asked))
    limit = max(8 * k * genes, genes * genes)
    if subject.needs.descriptor:  # an archive has a size of its own, and a generation one more of it
        limit = max(limit, *(x.numel() for x in tensors_of(pack(state))))
    require(seen.largest <= limit, f"k = {k} and {genes} genes: a tensor of {seen.largest} numbers, over {limit}")


@_suite.claim("memory is flat over 1,000 generations, however the number of candidates changes")
def _memory_is_flat(subject: Subject) -> None:
    kind = subject.kinds[0]
    dtype = OTHER_DTYPES[kind][0]
    _keeps_no_generation(subject, subject.problem(kind, event=(16,), dtype=dtype), 1000, "one tensor")
    permuted = frozenset({"w", "b"} if kind == "permutation" else ())
    batch_shape = (3,) if subject.needs.batched else ()
    posed = subject.posed(
        {"w": dtype, "b": dtype}, {"w": (2, 4), "b": (5,)}, batch_shape=batch_shape, permuted=permuted
    )
    _keeps_no_generation(subject, posed, 250, f"two tensors, batch_shape {batch_shape}")


_RECENT = 1024  # bytes of a record of the last generations, such as costs, that is still filling up


def _keeps_no_generation(subject: Subject, problem: Problem, generations: int, what: str) -> None:
    """Neither the state nor the pool of storages grows, but with the number of candidates.

    What the search refers to is counted, which is the same on every machine. `History` is left out: it keeps three
    numbers of each generation and search.
    """
    k = subject.k(32)
    algorithm = subject.bounded(problem, k, generations=generations)
    search = Search(algorithm, problem.assess, problem.start(k))
    search._storages = Storages(smallest=1)  # all memory from the pool, as for large populations
    one = sum(x[0].nbytes for x in problem.start(1).genes.values())
    early = (0, 0)  # the most in the first fifth: bytes and objects of the state
    for generation in range(1, generations + 1):
        search.step()
        if generation % (generations // 25) and generation != generations:
            continue
        state, objects = reachable(search.state)
        most_k = max(k, algorithm.next_k(search.state))
        if generation <= generations // 5:
            early = max(early[0], state), max(early[1], objects)
        where = f"{what}, generation {generation}"
        allowed = 2 * early[0] * most_k // k + _RECENT
        require(state <= allowed, f"{where}: a state of {state} bytes, at most {early[0]} in the first generations")
        require(
            objects <= 2 * early[1] + 32, f"{where}: a state of {objects} objects, at most {early[1]} in the first ones"
        )
        held, _ = reachable(search, without=[search.history, problem])
        limit = _HELD * (state + one * algorithm.next_k(search.state))
        require(held <= limit, f"{where}: the search keeps {held} bytes, {_HELD} times its state and genes are {limit}")


@_suite.claim("a Pareto front has distinct candidates, where there are fewer of them than k, too")
def _fronts_are_distinct(subject: Subject) -> None:
    if subject.needs.objectives != "many":
        return
    for kind in subject.kinds:
        for genes in (2, 12):
            problem = subject.problem(kind, event=(genes,))
            algorithm = subject.bounded(problem)
            start = problem.start(1)
            for generation, (state, _) in enumerate(run(algorithm, problem.assess, start, subject.noise(), 20)):
                x = algorithm.best(state)["x"]
                copies = len(x) - len(x.unique(dim=0))
                require(copies == 0, f"{kind} genes: {copies} copies in a front of {len(x)} in generation {generation}")


_suite.claim("an objective that writes into its argument is refused at any call, and the search is as if it had not")(
    writes_are_refused
)
_suite.claim("candidates for which an objective raises count as the worst, and all else of the run is the same")(
    failures_cost_the_worst
)

ALGORITHM_CHECKS: tuple[str, ...] = tuple(_suite.checks)
"""Names of the checks, as ``only=`` takes them; handy for ``pytest.mark.parametrize``."""
