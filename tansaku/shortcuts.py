"""`minimize` and `maximize`: a search in one call."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from tansaku import checks
from tansaku.algorithms import Algorithm, make
from tansaku.algorithms.base import DEFAULT_BUDGET, Assessor, check_std, check_step, step_size
from tansaku.algorithms.moving import moving_genes
from tansaku.assessors import Objective, OnFailure, Vectorized
from tansaku.functional import jitter
from tansaku.operators import Bounds, GaussianSampler, PermutationSampler, UniformSampler
from tansaku.operators.bounds import Limits
from tansaku.operators.constraints import Constrained, Constraint, Feasibility, Rule
from tansaku.operators.permutation import check_permutations
from tansaku.population import Individual, Population
from tansaku.result import Result
from tansaku.search import Search

_MANY_GENES = 500  # beyond it a covariance matrix costs more than most objectives
Start = Tensor | Mapping[str, Tensor] | Individual | Population | Any  # Any: lists and arrays of numpy


def minimize(
    fn: Callable[..., Any],
    *,
    shape: int | Iterable[int] | None = None,
    x0: Start | None = None,
    std: float | Tensor | Mapping[str, float | Tensor] | None = None,
    bounds: Bounds | tuple[Limits, Limits] | None = None,
    algorithm: str | Algorithm[Any] | None = None,
    k: int | None = None,
    batch_shape: int | Iterable[int] = (),
    vectorized: Vectorized = True,
    on_failure: OnFailure = "raise",
    cache: bool = False,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    max_generations: int | None = None,
    max_evaluations: int | None = None,
    max_seconds: float | None = None,
    target: float | None = None,
    patience: int | None = None,
    tolerance: float = 0.0,
    progress: bool | None = None,
    callbacks: Iterable[Callable[[Search[Any]], bool | None]] = (),
    reference: Iterable[float] | Tensor | None = None,
    constraints: Sequence[Constraint] | Constraint = (),
    rule: Rule | None = None,
) -> Result:
    """Searches for the genes of the lowest value.

    Args:
        fn: the objective; what it takes and returns, see `Objective`. It takes one tensor where the search is over
            one (``shape=``, or ``x0=`` a tensor), else a dictionary.
        shape: event shape of one tensor named ``"x"``; or give ``x0``.
        x0: where to start: a tensor [*batch_shape, *event_shape] or [*event_shape] (or a list or an array of numpy), a
            dictionary of them, an `Individual` such as ``result.best``, or a `Population`. It is one of the candidates
            of the start; the others lie around it. Beside ``shape=``, a tensor [j, *batch_shape, *event_shape] is j
            candidates; without ``shape=``, all dimensions after ``batch_shape`` are one candidate's. ``fn`` takes for
            ``result.best`` and ``result.estimate`` what it took in their run; for any other `Individual` or
            `Population` it takes a dictionary, or a tensor if ``shape=`` is given.
        std: distance at which the others lie, and length of the first steps, in units of the genes; a fifth of the
            bounds' span if not given, else 1.
        bounds: `Bounds`, or (lower, upper) with numbers, tensors or mappings from names.
        algorithm: a name (see `tansaku.ALGORITHMS`) or an instance, which then has its own ``k`` and ``bounds``; by
            default ``"ipop_cma_es"`` for real genes (``"lshade"`` for a batch of searches, ``"lm_ma_es"`` for more than
            500 genes) and ``"ga"`` for all others.
        k: candidates per generation; the algorithm's default if not given.
        batch_shape: independent searches run at once.
        vectorized: how ``fn`` is called, see `Objective`.
        on_failure: ``"raise"`` passes on what ``fn`` raises; ``"worst"`` gives the candidate the worst value, and the
            run ends with a warning that counts them; see `Objective`.
        cache: whether discrete candidates that were assessed before are not evaluated again, see `Objective`.
        seed: the same seed gives the same run.
        dtype: of the genes, with ``shape``; by default torch's, or int64 for an algorithm of permutations. An ``x0``
            has its own.
        device: where the genes are, with ``shape``; an ``x0`` has its own.
        max_generations: after the start.
        max_evaluations: per search, never exceeded; 10,000 if no budget is given. An algorithm that plans its course,
            such as ``"lshade"`` or ``LSHADE()``, plans over it, or over the evaluations of ``max_generations`` if these
            are fewer. It plans over 10,000 if the call has neither, and over its own ``max_evaluations`` if it was set.
        max_seconds: of the run.
        target: value that every search must reach by a feasible candidate, in the user's own sign.
        patience: generations without a better feasible value in any search.
        tolerance: with ``patience``: how much better a value must be to count, see `Search.run`.
        progress: whether to show a bar; by default on a terminal only.
        callbacks: see `Search`.
        reference: for several objectives, see `Search`.
        constraints: such as ``[LTE("x", 2.0), GTE(lambda x: x.sum(-1), 1.0)]``, all of which must hold, beside the
            ``"violation"`` that ``fn`` may return (see `Constrained`). If no feasible candidate is found, a warning
            says so and the least violated one is returned.
        rule: how violations are ranked: `Feasibility()` by default, or `Penalty`, under which the best candidate may be
            infeasible.

    Returns:
        The best candidate, its value, and how it was found; for several objectives (``algorithm="nsga2"``, ``fn``
        returning [k, *batch_shape, m]) the Pareto front and its values.

    Raises:
        TypeError, ValueError: wrong input, before the first evaluation.

    Example:
        >>> result = minimize(lambda x: x.square().sum(-1), shape=3, bounds=(-5.0, 5.0), max_evaluations=4000)
        >>> result.value < 1e-8
        True
    """
    return _run(fn, False, locals())


def maximize(fn: Callable[..., Any], **options: Any) -> Result:
    """Searches for the genes of the highest value: `minimize` with the other direction and the same options."""
    return _run(fn, True, {**_DEFAULTS, **_known(options)})


_DEFAULTS: dict[str, Any] = dict(minimize.__kwdefaults__ or {})


def _known(options: dict[str, Any]) -> dict[str, Any]:
    unknown = sorted(set(options) - set(_DEFAULTS))
    if unknown:
        raise TypeError(f"expected options among {sorted(_DEFAULTS)}, got {unknown}; see minimize")
    return options


def _run(fn: Callable[..., Any], maximize: bool, options: dict[str, Any]) -> Result:
    o = {**options, "std": checks.limit(options["std"]), "k": checks.plain(options["k"])}
    batch_shape = _extents("batch_shape", o["batch_shape"])
    individual, named, rows = _given(o["shape"], o["x0"], batch_shape, o["dtype"], o["device"])
    bounds = Bounds.of(o["bounds"])
    check_std(o["std"])
    check_step(o["std"], individual)
    algorithm = o["algorithm"]
    if algorithm is None:
        if bounds is not None:
            bounds.check(individual, inside=False)
        moving = moving_genes(bounds, individual)
        algorithm = _suitable(individual if moving is None else moving.of_individual(individual))
    if isinstance(algorithm, str):
        algorithm = make(algorithm, k=o["k"], bounds=bounds, std=o["std"])
    elif not isinstance(algorithm, Algorithm):
        raise TypeError(f"expected an algorithm's name or an instance, got {algorithm!r}; pass e.g. 'pso' or PSO(k=40)")
    elif o["k"] is not None or o["bounds"] is not None:
        raise ValueError(
            "expected k and bounds in the algorithm's own arguments, got k= or bounds= beside an instance; "
            "give them to the instance"
        )
    if algorithm.bounds is not None:
        algorithm.bounds.check(individual if rows is None else rows, inside=o["x0"] is not None)
    if "permutation" in algorithm.needs.dtypes and o["shape"] is not None and o["dtype"] is None:
        individual = Individual({name: x.long() for name, x in individual.genes.items()}, individual.batch_ndim)
    generator = torch.Generator(next(iter(individual.genes.values())).device).manual_seed(checks.seed(o["seed"]))
    start = _start(individual, algorithm, o["std"], o["x0"] is not None, generator)
    if rows is not None:  # they come first; what is missing to k lies around the first of them
        genes = {name: torch.cat([x, start[name][x.shape[0] :]]) for name, x in rows.genes.items()}
        start = Population(genes, rows.batch_ndim)
    objective: Assessor = Objective(fn, maximize, o["vectorized"], named, o["on_failure"], o["cache"])
    if o["constraints"] or o["rule"] is not None:
        objective = Constrained(objective, o["constraints"], Feasibility() if o["rule"] is None else o["rule"])
    search: Search[Any] = Search(
        algorithm, objective, start, seed=o["seed"], callbacks=o["callbacks"], reference=o["reference"]
    )
    search.generator.set_state(generator.get_state())  # go on from the start's random numbers
    budgets = {name: o[name] for name in ("max_generations", "max_evaluations", "max_seconds", "target", "patience")}
    if all(budget is None for budget in budgets.values()):
        budgets["max_evaluations"] = DEFAULT_BUDGET
    search._plan(_budget(algorithm, o["max_evaluations"], o["max_generations"], start.k))
    return search.run(**budgets, tolerance=o["tolerance"], progress=o["progress"])


def _budget(
    algorithm: Algorithm[Any], max_evaluations: int | None, max_generations: int | None, start_k: int
) -> int | None:
    """Evaluations of each search that the call may make; None if it limits neither them nor the generations."""
    limits = [] if max_evaluations is None else [checks.count("max_evaluations", max_evaluations, 0)]
    if max_generations is not None:
        made = algorithm.evaluations_in(checks.count("max_generations", max_generations, 0), start_k)
        limits += [] if made is None else [made]
    return min(limits, default=None)


def _suitable(individual: Individual) -> str:
    """The name of the algorithm for a problem of which only the genes that can move are known.

    On the 24 noiseless BBOB functions CMA-ES with restarts hits the most targets, and L-SHADE nearly as many; restarts
    are one search's own, so that a batch of searches takes L-SHADE. A covariance matrix of thousands of genes is too
    large: LM-MA-ES keeps a few directions of it.
    """
    if not all(x.is_floating_point() for x in individual.genes.values()):
        return "ga"
    searches = max(1, math.prod(individual.batch_shape))
    genes = sum(x.numel() for x in individual.genes.values()) // searches
    if genes > _MANY_GENES:
        return "lm_ma_es"
    return "lshade" if individual.batch_ndim else "ipop_cma_es"


def _given(
    shape: int | Iterable[int] | None,
    x0: Start | None,
    batch_shape: tuple[int, ...],
    dtype: torch.dtype | None,
    device: torch.device | str | None,
) -> tuple[Individual, bool, Population | None]:
    """The start as an individual, whether the objective takes names, and all candidates if ``x0`` has several."""
    if isinstance(x0, Population):
        genes, ndim = {name: x.detach() for name, x in x0.genes.items()}, x0.batch_ndim
        rows = Population(genes, ndim)
        first = rows.individual()
        object.__setattr__(first, "_named", getattr(x0, "_named", None))
        individual, named = _individual(None, first, batch_shape, None, None)
    elif isinstance(x0, Mapping | Individual) or x0 is None:
        rows = None
        individual, named = _individual(None if isinstance(x0, Individual) else shape, x0, batch_shape, dtype, device)
    else:
        x = checks.limit(x0)
        if shape is None or not isinstance(x, Tensor):
            return *_individual(shape, x, batch_shape, dtype, device), None
        x = x.to(device, dtype)
        lead = (*batch_shape, *_extents("shape", shape))
        if tuple(x.shape[1:]) == lead and x.shape[0]:
            rows = Population({"x": x.detach()}, len(batch_shape))
            return rows.individual(), False, rows
        if tuple(x.shape) in (lead, lead[len(batch_shape) :]):
            raise ValueError("expected either shape= or x0=, got both; give one, or x0= with several candidates")
        raise ValueError(
            f"expected x0 as candidates [j, {checks.shape_text(lead)[1:]} beside shape=, "
            f"got {checks.shape_text(x.shape)}; reshape x0, or leave shape= out"
        )
    if isinstance(x0, Individual | Population) and shape is not None:
        lead = (*individual.batch_shape, *_extents("shape", shape))
        if [tuple(x.shape) for x in individual.genes.values()] != [lead]:
            raise ValueError(
                f"expected x0 with one tensor of shape {checks.shape_text(lead)} beside shape=, got {individual!r}; "
                "leave shape= out"
            )
        named = False
    return individual, named, rows


def _individual(
    shape: int | Iterable[int] | None,
    x0: Start | None,
    batch_shape: tuple[int, ...],
    dtype: torch.dtype | None,
    device: torch.device | str | None,
) -> tuple[Individual, bool]:
    """The start as an individual, and whether the objective takes names."""
    if (shape is None) == (x0 is None):
        raise ValueError(f"expected either shape= or x0=, got {'both' if shape is not None else 'neither'}; give one")
    if shape is not None:
        event = _extents("shape", shape)
        try:
            x = torch.zeros(batch_shape + event, dtype=dtype, device=device)
        except (AssertionError, RuntimeError) as error:  # what torch raises where a device is missing
            reason = str(error).splitlines()[0]
            raise ValueError(f"expected a device that is here, got {device}: {reason}; leave device out") from error
        return Individual({"x": x}, len(batch_shape)), False
    if isinstance(x0, Individual):
        if batch_shape not in ((), tuple(x0.batch_shape)):
            raise ValueError(
                f"expected x0 with batch_shape {checks.shape_text(batch_shape)}, got an Individual with "
                f"{checks.shape_text(x0.batch_shape)}; leave batch_shape out or expand the Individual"
            )
        return x0, getattr(x0, "_named", None) is not False
    if dtype is not None or device is not None:
        raise ValueError("expected dtype and device with shape=, got them with x0=, which has its own; use x0.to(...)")
    named = isinstance(x0, Mapping)
    given = {name: checks.limit(x) for name, x in x0.items()} if isinstance(x0, Mapping) else {"x": x0}
    genes = checks.tensors("x0", given, 0)
    expanded = {name: _with_batch(name, x.detach(), batch_shape) for name, x in genes.items()}
    return Individual(expanded, len(batch_shape)), named


def _extents(name: str, given: int | Iterable[int]) -> tuple[int, ...]:
    several: Iterable[Any] = (given,) if isinstance(given, Integral) else given  # type: ignore[assignment]
    if not isinstance(several, Iterable):
        raise TypeError(f"expected {name} as an integer or several, got {given!r}; pass e.g. 3 or (3, 4)")
    return tuple(checks.count(f"every size of {name}", extent) for extent in several)


def _with_batch(name: str, x: Tensor, batch_shape: tuple[int, ...]) -> Tensor:
    if x.numel() == 0:
        raise ValueError(f"expected x0 {name!r} with at least one gene, got shape {checks.shape_text(x.shape)}")
    if tuple(x.shape[: len(batch_shape)]) == batch_shape:
        return x
    return x.expand(*batch_shape, *x.shape)


def _start(
    individual: Individual, algorithm: Algorithm[Any], std: Any, given: bool, generator: torch.Generator
) -> Population:
    """K candidates (one if k is None): uniform within finite bounds, or the given one and others around it.

    Genes with equal bounds take no random numbers.
    """
    bounds = algorithm.bounds
    moving = moving_genes(bounds, individual)
    if bounds is None or moving is None:
        return _drawn(individual, algorithm, bounds, std, given, generator)
    searched, box, steps = moving.of_individual(individual), moving.bounds(bounds), moving.steps(std)
    return moving.expanded(_drawn(searched, algorithm, box, steps, given, generator))


def _drawn(
    individual: Individual,
    algorithm: Algorithm[Any],
    bounds: Bounds | None,
    std: Any,
    given: bool,
    generator: torch.Generator,
) -> Population:
    """See `_start`."""
    k = 1 if algorithm.k is None else algorithm.k
    genes = {}
    for name, x in individual.genes.items():
        one = Individual({name: x}, individual.batch_ndim)
        finite = bounds is not None and bounds.finite(name)
        if "permutation" in algorithm.needs.dtypes and "integer" not in algorithm.needs.dtypes:
            if given:
                check_permutations("x0", name, x if one.batch_ndim < x.ndim else x.unsqueeze(-1))
            drawn = PermutationSampler()(one, k, generator)[name]
        elif not x.is_floating_point() or (finite and not given):
            drawn = UniformSampler(bounds)(one, k, generator)[name]
        else:
            noise = GaussianSampler(1.0)(Individual({name: torch.zeros_like(x)}, one.batch_ndim), k, generator)[name]
            drawn = jitter(x.expand_as(noise), noise, step_size(std, bounds, name, x))
            drawn = drawn if bounds is None else bounds.repaired(name, drawn)
        genes[name] = torch.cat([x[None], drawn[1:]]) if given else drawn
    return Population(genes, individual.batch_ndim)
