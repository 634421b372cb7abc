"""`check_operator`: the published conformance suite for operators, tansaku's own and yours."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, get_args, get_type_hints

import torch
from torch import Tensor

from tansaku.assessment import Assessment
from tansaku.draws import Replay
from tansaku.operators import Bounds, Crossover, Mutation
from tansaku.population import Individual, Population
from tansaku.storage import Storages
from tansaku.testing.case import DTYPES, Case, Kind, Subject
from tansaku.testing.claims import Suite, close, fingerprint, nothing_drawn_elsewhere, refused, require

_ROUNDING = 32  # units in the last place: a mean over candidates may be taken in another order
_NAN = float("nan")
_PRECISIONS = (torch.float32, torch.float64)
_SIZES = (1 << 14, *[1 << 8] * 64)  # of calls whose answers are counted: many numbers may be drawn in another way
_RATES = (0.1, 0.5, 0.9)
_FALSE_ALARM = 1e-9  # the chance that a sound operator fails one comparison of frequencies


def check_operator(
    make: Callable[[], Any],
    *,
    kind: Kind | None = None,
    device: torch.device | str = "cpu",
    only: Iterable[str] = (),
) -> None:
    """Checks that an operator keeps what its kind promises.

    Operators are called with genes ``"x"`` [k, *batch_shape, *event_shape] with values in -3 .. 3, event_shape (5,) or
    (1,), sometimes beside a second tensor ``"w"`` (5, 2); an operator with an attribute ``permutes = True`` gets
    permutations along the last dimension for integers. Parents carry two traits and a cost, and a cost per case for
    each of the entries along the first dimension of event_shape. A field ``rate`` of a mutation or crossover is taken
    for the share of genes that change, a field ``points`` of a crossover for a number of cuts, equally likely at all
    places. Frequencies are held against theory so that a sound operator fails with a chance below one in a million.

    Args:
        make: builds the operator; called without arguments.
        kind: ``"selection"`` (population, count, noise) -> index, ``"crossover"`` (a, b, noise) -> children,
            ``"mutation"`` (population, noise) -> population, ``"sampling"`` (individual, k, noise) -> population,
            ``"survival"`` (parents, children) -> population or ``"reduction"`` (population) -> individual; read from
            the base class or from the annotations of ``__call__`` if not given.
        device: where the genes are.
        only: names of the checks to run; all of `OPERATOR_CHECKS` if not given.

    Raises:
        AssertionError: the first claim that does not hold, in words.
        TypeError: no kind was given and none can be told from the signature.

    Example:
        >>> from tansaku import Gaussian, Tournament
        >>> check_operator(lambda: Tournament(3))
        >>> check_operator(Gaussian, only=["traits_stay_with_their_candidate"])
    """
    operator = make()
    subject = Subject(operator, _kind_of(operator) if kind is None else kind, torch.device(device))
    if subject.kind not in get_args(Kind):
        raise ValueError(f"expected kind among {list(get_args(Kind))}, got {kind!r}; choose one")
    _suite.run(type(operator).__name__, subject, only)


def _kind_of(operator: Any) -> Kind:
    if isinstance(operator, Mutation):
        return "mutation"
    if isinstance(operator, Crossover):
        return "crossover"
    call = operator if inspect.isfunction(operator) else type(operator).__call__
    remedy = "annotate __call__ or pass kind="
    try:
        hints = get_type_hints(call)
    except NameError as error:
        raise TypeError(f"expected annotations that can be read, got {error}; {remedy}") from error
    takes = [hints.get(name) for name in inspect.signature(call).parameters if name != "self"]
    gives = hints.get("return")
    if takes[:1] == [Individual] and gives is Population:
        return "sampling"
    if takes[:1] == [Population] and gives is Tensor:
        return "selection"
    if takes == [Population] and gives is Individual:
        return "reduction"
    if takes[:2] == [Population, Population] and gives is Population:
        return "survival" if len(takes) == 2 else "crossover"
    if takes[:1] == [Population] and len(takes) == 2 and gives is Population:
        return "mutation"
    raise TypeError(f"expected the signature of an operator, got {inspect.signature(call)}; {remedy}")


def _rounding(x: Tensor) -> float:
    return _ROUNDING * torch.finfo(x.dtype).eps if x.is_floating_point() else 0.0


def _tensors(result: Any) -> dict[str, Tensor]:
    return {"index": result} if isinstance(result, Tensor) else dict(result.genes)


_suite: Suite[Subject] = Suite()


@_suite.claim("the answer has the right shape and dtype for every number of candidates, event_shape and batch_shape")
def _shapes_are_right(subject: Subject) -> None:
    for dtype in subject.dtypes():
        for k in subject.sizes():
            for event in ((5,), (1,)):
                for batch_shape in ((), (3,), (2, 2)):
                    for several in (False, True):
                        case = subject.case(dtype, k, event, batch_shape, several)
                        what = f"{dtype}, k = {k}, event_shape {event}, batch_shape {batch_shape}"
                        _fits(subject.kind, subject.call(case, subject.noise()), case.parents, what)


def _fits(kind: Kind, answer: Any, parents: Population, what: str) -> None:
    k, batch_shape = parents.k, tuple(parents.batch_shape)
    if kind == "selection":
        shape = tuple(answer.shape)
        require(shape == (k, *batch_shape), f"{what}: {k} indices came as {shape}")
        require(answer.dtype == torch.int64, f"{what}: indices of {answer.dtype}, not torch.int64")
        require(((answer >= 0) & (answer < k)).all(), f"{what}: indices outside 0 .. {k - 1}")
        return
    expected: type = Individual if kind == "reduction" else Population
    require(isinstance(answer, expected), f"{what}: it gave a {type(answer).__name__}, not a {expected.__name__}")
    require(answer.batch_ndim == len(batch_shape), f"{what}: batch_ndim {answer.batch_ndim}")
    require(set(answer.genes) == set(parents.genes), f"{what}: names {sorted(answer.genes)}")
    for name, x in answer.genes.items():
        own = parents[name].shape[1:]
        rows = () if kind == "reduction" else (answer.k if kind == "survival" else k,)
        require(x.shape == (*rows, *own), f"{what}: {name!r} has shape {tuple(x.shape)}")
        require(x.dtype == parents[name].dtype, f"{what}: {name!r} became {x.dtype}")
        require(torch.isfinite(x).all(), f"{what}: {name!r} is not finite")
    if kind in ("crossover", "mutation", "sampling"):
        require(answer.assessment is None, f"{what}: new genes kept an old assessment")
    if kind == "survival":
        require(answer.assessment is not None, f"{what}: survivors lost their assessment")


@_suite.claim("genes of a dtype that it cannot treat raise a TypeError that names the dtype and what to use instead")
def _other_dtypes_are_refused(subject: Subject) -> None:
    taken = subject.dtypes()
    for dtype in DTYPES:
        if dtype not in taken:
            refused(TypeError, lambda dtype=dtype: subject.call(subject.case(dtype), subject.noise()), str(dtype))  # type: ignore[misc]
            refused(TypeError, lambda dtype=dtype: subject.call(subject.case(dtype), subject.noise()), "use ")  # type: ignore[misc]


@_suite.claim("nothing that is passed in, and no answer given before, is written to")
def _inputs_stay_as_they_were(subject: Subject) -> None:
    dtypes = subject.dtypes()
    wide = (5, (1 << 20) // (5 * 64 * dtypes[0].itemsize) + 1)  # of a megabyte, where memory is handed out again
    for dtype, k, event in [(dtype, 8, (5,)) for dtype in dtypes] + [(dtypes[0], 64, wide)]:
        case = subject.case(dtype, k, event)
        before = fingerprint(case.parents), fingerprint(case.others)
        with Storages():
            first = subject.call(case, subject.noise())
            kept = fingerprint(first)
            for seed in range(3):
                subject.call(case, subject.noise(seed))
        after = fingerprint(case.parents), fingerprint(case.others)
        require(before == after, f"{dtype}, k = {k}, event_shape {event}: it wrote to its arguments")
        require(fingerprint(first) == kept, f"{dtype}, k = {k}, event_shape {event}: an earlier answer was written to")


@_suite.claim("the same noise gets the same answer, and nothing is drawn elsewhere")
def _noise_decides(subject: Subject) -> None:
    for dtype in subject.dtypes():
        case = subject.case(dtype, batch_shape=(2,))
        with nothing_drawn_elsewhere("it"):
            answers = {fingerprint(subject.call(case, subject.noise(5))) for _ in range(3)}
        require(len(answers) == 1, f"{dtype}: three calls with the same noise gave {len(answers)} answers")


@_suite.claim("a batch of searches is the same as separate searches on the same draws")
def _batch_equals_separate(subject: Subject) -> None:
    for dtype in subject.dtypes():
        for batch_shape in ((3,), (2, 2)):
            case = subject.case(dtype, batch_shape=batch_shape, several=True)
            tape = Replay(subject.noise())
            together = _tensors(subject.call(case, tape))
            for where in torch.cartesian_prod(*(torch.arange(n) for n in batch_shape)).view(-1, len(batch_shape)):
                at = tuple(where.tolist())
                alone = _tensors(subject.call(case.search(at), tape.search(*at)))
                for name, x in alone.items():
                    part = together[name][at if subject.kind == "reduction" else (slice(None), *at)]
                    require(
                        close(part, x, _rounding(x)),
                        f"{dtype}, batch_shape {batch_shape}: search {at} differs in {name!r}",
                    )


@_suite.claim("traits stay with their candidate: a child has its first parent's, a survivor its own")
def _traits_stay_with_their_candidate(subject: Subject) -> None:
    if subject.kind not in ("crossover", "mutation", "survival"):
        return
    for dtype in subject.dtypes():
        for batch_shape in ((), (3,)):
            case = subject.case(dtype, batch_shape=batch_shape)
            answer = subject.call(case, subject.noise())
            if subject.kind == "survival":
                _whole(answer, case)
                continue
            for name, trait in case.parents.traits.items():
                kept = name in answer.traits and torch.equal(answer.traits[name], trait)
                require(kept, f"{dtype}, batch_shape {batch_shape}: trait {name!r} changed")


def _whole(survivors: Population, case: Case) -> None:
    """Every survivor is a parent or a child with all that belongs to it."""
    both = case.parents.cat(case.others)
    source = both.take(survivors.traits["age"])
    own = replace(survivors, traits={name: survivors.traits[name] for name in source.traits})  # it may add some
    require(fingerprint(source) == fingerprint(own), "a survivor has genes, traits or costs of different candidates")
    ages = survivors.traits["age"].sort(0).values
    require((ages[1:] > ages[:-1]).all(), "a candidate survives twice")


@_suite.claim("a cost of NaN is never preferred, whatever the direction and if all are NaN")
def _nan_is_never_preferred(subject: Subject) -> None:
    case = subject.case(subject.dtypes()[0])
    hopeless = case.parents.assessed(_values([_NAN] * 8, case.parents, False))
    if subject.kind in ("selection", "survival", "reduction"):
        others = case.others.assessed(_values([_NAN] * 8, case.others, False))
        answer = subject.call(Case(hopeless, others), subject.noise())
        _fits(subject.kind, answer, case.parents, "all NaN")
    for maximize in (False, True):
        match subject.kind:
            case "selection":
                _selection_shuns_nan(subject, case.parents, maximize)
            case "survival":
                _survival_shuns_nan(subject, case, maximize)
            case "reduction":
                _reduction_shuns_nan(subject, case.parents, maximize)


def _values(costs: list[float], population: Population, maximize: bool) -> Assessment:
    """One search's costs in the sign of the direction, each case costing the same."""
    value = torch.tensor(costs, dtype=torch.float64, device=population.device)
    cases = None if population.assessment is None else population.assessment.cases
    width = 1 if cases is None else cases.shape[-1]
    return Assessment(-value if maximize else value, maximize, cases=value[:, None].expand(-1, width))


def _selection_shuns_nan(subject: Subject, parents: Population, maximize: bool) -> None:
    costs = [3.0, _NAN, 0.0, 2.0, _NAN, 4.0, 1.0, _NAN]
    assessed = parents.assessed(_values(costs, parents, maximize))
    noise, calls, count = subject.noise(), 500, 4
    chosen = torch.cat([subject.operator(assessed, count, noise) for _ in range(calls)]).bincount(minlength=8).double()
    tolerance = 5 * (calls * count / 8) ** 0.5
    failed, good = chosen[[1, 4, 7]].mean(), chosen[[0, 2, 3, 5, 6]].mean()
    require(
        failed <= good + tolerance, f"NaN was chosen {failed:.0f} times, numbers {good:.0f} times (maximize={maximize})"
    )
    best, worst = chosen[2], chosen[5]
    require(best >= worst - tolerance, f"the best was chosen {best:.0f} times, the worst {worst:.0f} ({maximize=})")


def _survival_shuns_nan(subject: Subject, case: Case, maximize: bool) -> None:
    children = [0.5, _NAN, 9.0, 1.5, _NAN, 8.0, 7.0, 0.1]
    parents = case.parents.assessed(_values([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], case.parents, maximize))
    survivors = subject.operator(parents, case.others.assessed(_values(children, case.others, maximize)))
    ages = set(survivors.traits["age"].tolist())
    failed = [i for i in (1, 4) if 8 + i in ages]
    dropped = [i for i in (0, 2, 3, 5, 6, 7) if 8 + i not in ages]
    require(not (failed and dropped), f"children with NaN survive, children with numbers do not (maximize={maximize})")


def _reduction_shuns_nan(subject: Subject, parents: Population, maximize: bool) -> None:
    costs = [2.0, 1.0, 3.0, 2.5, 1.5, 2.0, 3.0, 1.2]

    def apart(cost: float) -> float:
        answer = subject.operator(parents.assessed(_values([*costs[:4], cost, *costs[5:]], parents, maximize)))
        require(torch.isfinite(answer["x"]).all(), f"with one cost of {cost} the answer is not finite")
        return float((answer["x"].double() - parents["x"][4].double()).square().sum())

    require(apart(_NAN) >= apart(1.0) - 1e-6, f"NaN drew the answer nearer than the lowest cost ({maximize=})")


def _has(operator: Any, setting: str) -> bool:
    return is_dataclass(operator) and any(field.name == setting for field in fields(operator))


def _counted(subject: Subject, cases: Mapping[int, Case], operator: Any, seed: int) -> Tensor:
    """The genes that calls of all `_SIZES` make, one after the other."""
    calls = enumerate(_SIZES, seed * len(_SIZES))
    return torch.cat([subject.call(cases[k], subject.noise(i), operator)["x"] for i, k in calls])


def _stray(width: float) -> float:
    """How far a mean over all candidates may lie from its expectation, each of them in an interval of this width.

    The genes of one candidate may depend on each other, candidates may not. Reference: W. Hoeffding, Probability
    Inequalities for Sums of Bounded Random Variables, 1963, theorem 2.
    """
    return width * math.sqrt(math.log(2 / _FALSE_ALARM) / (2 * sum(_SIZES)))


@_suite.claim("a rate of 0 changes nothing, a rate of 1 everything, and a rate between the share that it says")
def _rates_are_what_they_say(subject: Subject) -> None:
    if subject.kind not in ("crossover", "mutation") or not _has(subject.operator, "rate"):
        return
    for dtype in subject.dtypes():
        case = subject.case(dtype, k=64)
        x = case.parents["x"]
        never = subject.call(case, subject.noise(), replace(subject.operator, rate=0.0))["x"]
        require(
            torch.equal(never, x), f"{dtype}: rate 0 changes {float((never != x).double().mean()):.0%} of the genes"
        )
        always = subject.call(case, subject.noise(), replace(subject.operator, rate=1.0))["x"]
        if subject.kind == "crossover":
            require(torch.equal(always, case.others["x"]), f"{dtype}: rate 1 is not the second parent")
        elif dtype == torch.bool or dtype.is_floating_point:
            changed = float((always != x).double().mean())
            require(changed == 1.0, f"{dtype}: rate 1 changes {changed:.0%} of the genes")
        cases = {k: subject.case(dtype, k) for k in set(_SIZES)}
        before = torch.cat([cases[k].parents["x"] for k in _SIZES])

        def share(rate: float, seed: int, cases: Mapping[int, Case] = cases, before: Tensor = before) -> float:
            made = _counted(subject, cases, replace(subject.operator, rate=rate), seed)
            return float((made != before).double().mean())

        most = share(1.0, 0)  # not all genes: what is drawn anew may be drawn the same
        for seed, rate in enumerate(_RATES, 1):
            seen, expected = share(rate, seed), rate * most
            holds = abs(seen - expected) <= _stray(math.hypot(1, rate))
            require(holds, f"{dtype}: rate {rate} changes {seen:.1%} of the genes, not {expected:.1%}")


@_suite.claim("a crossover that takes each gene from one of the parents may change over between any two neighbours")
def _every_place_may_be_cut(subject: Subject) -> None:
    if subject.kind != "crossover" or subject.permutes:
        return
    for dtype in subject.dtypes():
        cases = {k: _zeros_and_ones(subject.case(dtype, k)) for k in set(_SIZES)}
        made = _counted(subject, cases, None, 0)
        if not ((made == 0) | (made == 1)).all():
            continue  # it makes genes of its own
        parted = (made[:, 1:] != made[:, :-1]).double().mean(0)
        (most, often), (least, seldom) = ((float(x), int(i) + 1) for x, i in (parted.max(0), parted.min(0)))
        require(
            least > 0 or most * len(made) < 100,
            f"{dtype}: of {len(made)} children {most:.1%} change over before gene {often}, none before gene {seldom}",
        )
        require(
            most - least <= _stray(2.0) or not _has(subject.operator, "points"),
            f"{dtype}: {most:.1%} of the cuts fall before gene {often}, {least:.1%} before gene {seldom}",
        )


def _zeros_and_ones(case: Case) -> Case:
    """All genes of the parents 0, all of the others 1."""
    pairs = ((case.parents, 0), (case.others, 1))
    return Case(*(replace(p, genes={n: torch.full_like(x, v) for n, x in p.genes.items()}) for p, v in pairs))


@_suite.claim("what is made of permutations are permutations")
def _permutations_stay_permutations(subject: Subject) -> None:
    if not subject.permutes or subject.kind not in ("crossover", "mutation", "sampling"):
        return
    dtypes = subject.dtypes()
    require(dtypes == [torch.int64], f"of {DTYPES} it takes {dtypes}, not integers alone")
    for n in (1, 2, 9):
        for seed in range(20):
            made = subject.call(subject.case(torch.int64, event=(3, n), seed=seed), subject.noise(seed))["x"]
            each_once = made.sort(-1).values == torch.arange(n, device=made.device)
            require(each_once.all(), f"n = {n}: rows that are not 0 .. {n - 1}")


@_suite.claim("beside a bound, float32 genes become what float64 genes become on the same draws, rounded")
def _precision_is_kept_near_a_bound(subject: Subject) -> None:
    if subject.kind not in ("crossover", "mutation") or torch.float32 not in subject.dtypes():
        return
    bounded = _has(subject.operator, "bounds")
    operator = replace(subject.operator, bounds=Bounds(0.0, 1.0)) if bounded else subject.operator
    near = torch.logspace(-9, -3, 7, device=subject.device).repeat(32, 1)
    for mate in (1.5 * near, torch.full_like(near, 0.5)):
        tape = Replay(subject.noise())
        pairs = [Case(Population({"x": near.to(t)}), Population({"x": mate.to(t)})) for t in _PRECISIONS]
        single = subject.call(pairs[0], tape, operator)["x"]
        double = subject.call(pairs[1], _Widened(tape), operator)["x"]
        tolerance = _ROUNDING * torch.finfo(torch.float32).eps * (double.abs() + near)
        apart = (single.double() - double).abs()
        require(
            (apart <= tolerance).all(),
            f"a gene at {float(near.flatten()[(apart / tolerance).argmax()]):.0e} of [0, 1] is off by "
            f"{float((apart / (double.abs() + near)).max()):.1e} of its size",
        )
        inside = ((single >= 0) & (single <= 1)).all()
        require(not bounded or inside, "a gene beside a bound left it")


class _Widened(Replay):
    """The recorded draws once more, real ones in float64."""

    def __init__(self, tape: Replay) -> None:
        self._taken = tape.search()

    def take(self, lead: int, draw: Callable[[torch.Generator], Tensor]) -> Tensor:
        drawn = self._taken.take(lead, draw)
        return drawn.double() if drawn.is_floating_point() else drawn


OPERATOR_CHECKS: tuple[str, ...] = tuple(_suite.checks)
"""Names of the checks, as ``only=`` takes them."""
