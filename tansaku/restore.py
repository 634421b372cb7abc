"""What a search reads back from a checkpoint: the moment of a run, checked before anything is changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tansaku import checkpoint, checks, settings
from tansaku.algorithms import Algorithm
from tansaku.assessment import Assessment
from tansaku.history import History
from tansaku.population import Individual, Population
from tansaku.states import unpack

_PARTS = ("algorithm", "k", "state", "asked", "start", "generator", "evaluations", "generations", "history")


class Moment(NamedTuple):
    """All that changes while a search runs, as one value that is replaced by a single assignment.

    A signal handler or another thread that reads it sees one complete generation.

    Args:
        state: of the algorithm; None before the start was assessed.
        asked: candidates that were asked for and whose costs have not come yet.
        pending: the start, until its costs have come.
        history: of the generations so far.
        evaluations: made so far, per search.
        generations: made after the start.
        noise: state of the random numbers before ``asked`` was drawn, from when the algorithm is asked until `tell`.
            None where the generator itself has the right state, as after `ask` by hand.
    """

    state: Any
    asked: Population | None
    pending: Population
    history: History | None
    evaluations: int = 0
    generations: int = 0
    noise: Tensor | None = None


def layout(start: Population) -> str:
    """Names, dtypes and shapes of a search: what two starts must share."""
    genes = ", ".join(f"{name}: {x.dtype} {checks.shape_text(x.shape[1:])}" for name, x in sorted(start.genes.items()))
    return f"{{{genes}}} with {start.batch_ndim} batch dimensions"


class DamagedState(ValueError, RuntimeError):
    """A state in which parts are missing or do not belong together; also a RuntimeError, as torch raises for one."""


def restored(
    state: Mapping[str, Any],
    algorithm: Algorithm[Any],
    described: Mapping[str, Any],
    start: Population,
    device: torch.device,
    replan: bool,
) -> tuple[Moment, Tensor]:
    """The moment and the state of the random numbers that ``state`` holds.

    Args:
        state: what `Search.state_dict` gave.
        algorithm: of the search that is to go on from there.
        described: its settings, as `tansaku.settings` describes them.
        start: its start.
        device: where its genes are.
        replan: see `Search.load_state_dict`.

    Raises:
        ValueError: see `Search.load_state_dict`.
    """
    missing = sorted(set(_PARTS) - set(state)) if isinstance(state, Mapping) else list(_PARTS)
    if missing:
        raise ValueError(f"expected what state_dict() gave, got a dictionary without {missing}; pass it whole")
    version = state.get("format", 1)
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= checkpoint.VERSION:
        raise ValueError(
            f"expected a state of version 1 to {checkpoint.VERSION}, got version {version!r}; "
            "load it with a newer version of the package"
        )
    planned = state.get("planned", 0)
    if version > 1 and planned is not None and (type(planned) is not int or planned < 1):
        raise ValueError(f"expected a planned budget >= 1 or None, got {planned!r}; use an undamaged checkpoint")
    own = (type(algorithm).__name__, algorithm.k)
    if [repr(state["algorithm"]), repr(state["k"])] != [repr(part) for part in own]:
        raise ValueError(
            f"expected the state of {own[0]} with k = {own[1]}, got {state['algorithm']} with k = {state['k']}; "
            "make the search with the settings it was saved with"
        )
    if version > 1:
        saved_settings, costs = state.get("settings"), state["history"]
        if isinstance(saved_settings, Mapping) and isinstance(costs, Mapping):
            saved_settings = {**saved_settings, "assess": costs.get("assess")}
        try:
            settings.check_same(saved_settings, described, algorithm.needs.plans, replan)
        except (KeyError, AttributeError, TypeError, RuntimeError) as error:
            raise damaged(error, version) from error
    if version == 1:
        state = _of_version_1(state)
    try:
        saved = unpack(state["start"], device)
        if not isinstance(saved, Population):
            raise TypeError(f"the start is a {type(saved).__name__}, not a population")
    except Exception as error:
        raise damaged(error, version) from error
    if layout(saved) != layout(start):
        raise ValueError(
            f"expected the state of a search over {layout(start)}, got {layout(saved)}; "
            "make the search with the start it was saved with"
        )
    try:
        return _checked(algorithm, state, saved, device)
    except Exception as error:
        raise damaged(error, version) from error


def _of_version_1(tree: Any) -> Any:
    """A tree of format 1 with the fields that assessments have had since."""
    if isinstance(tree, Mapping):
        changed = {key: _of_version_1(item) for key, item in tree.items()}
        if str(tree.get("kind")).endswith(".Assessment") and isinstance(changed.get("fields"), dict):
            changed["fields"].setdefault("ranking", None)
        return changed
    return [_of_version_1(item) for item in tree] if isinstance(tree, list) else tree


def damaged(error: Exception, version: int) -> DamagedState:
    """The error for a state that cannot be read, because of ``error``."""
    return DamagedState(
        f"expected a whole state, got a damaged one, or one of another version of the package, in format {version} "
        f"({type(error).__name__}: {error}); use an undamaged checkpoint, or the version that wrote it"
    )


def _checked(
    algorithm: Algorithm[Any], state: Mapping[str, Any], start: Population, device: torch.device
) -> tuple[Moment, Tensor]:
    """The moment in ``state``. Any exception means that the state is damaged."""
    evaluations, generations = state["evaluations"], state["generations"]
    for name in ("evaluations", "generations"):
        if type(state[name]) is not int or state[name] < 0:
            raise ValueError(f"{name} is {state[name]!r}")
    noise = state["generator"].cpu()
    generator = torch.Generator(device)
    generator.set_state(noise)
    told, asked = unpack(state["state"], device), unpack(state["asked"], device)
    history = None
    if state["history"] is not None:
        history = History()
        history.load_state_dict(unpack(state["history"], device))
    if (told is None) != (history is None) or len(history or ()) != (0 if told is None else generations + 1):
        raise ValueError(f"{len(history or ())} rows of history belong to {generations} generations")
    if asked is not None and (not isinstance(asked, Population) or layout(asked) != layout(start)):
        raise ValueError("the candidates that were asked for are not those of this search")
    if told is not None and history is not None:
        _try(algorithm, told, start, history, generator)
    return Moment(told, asked, start, history, evaluations, generations), noise


def _try(algorithm: Algorithm[Any], told: Any, start: Population, history: History, generator: torch.Generator) -> None:
    """One generation from ``told`` that is thrown away: a state of wrong types or shapes raises here.

    Also compares dtypes and dimensions with those of a new state.
    """
    several = history.median.shape[1 + start.batch_ndim :]
    known = algorithm.best(told).assessment

    def assessed(population: Population) -> Population:
        """With values of 0, and zeros in every other field that the saved assessments have."""
        lead = (population.k, *start.batch_shape)
        value = torch.zeros((*lead, *several), dtype=history.dtype, device=start.device)
        more = {} if known is None else {name: getattr(known, name) for name in ("cases", "violation", "ranking")}
        zeros = {
            name: x.new_zeros((*lead, *x.shape[1 + start.batch_ndim :])) for name, x in more.items() if x is not None
        }
        return population.assessed(Assessment(value, history.maximize, **zeros))

    if algorithm.needs.descriptor:
        _compare(told, None, start, "state")
        candidates = algorithm.ask(told, generator)
    else:
        new = algorithm.init(assessed(Population(dict(start.genes), start.batch_ndim, dict(start.traits))))
        _compare(told, new, start, "state")
        candidates = algorithm.ask(told, generator)
        algorithm.tell(told, assessed(candidates))
    if layout(candidates) != layout(start):
        raise ValueError("the algorithm asks for candidates of other names, dtypes or shapes than the start")
    best = algorithm.best(told)
    if layout(best) != layout(start) or best.assessment is None:
        raise ValueError("the best candidate has other names, dtypes or shapes than the start, or no assessment")


def _compare(told: Any, new: Any, start: Population, path: str) -> None:
    """Types, dtypes and numbers of dimensions of two states agree.

    Raises:
        ValueError: they differ.
    """
    if isinstance(told, Population):  # without the fixed genes, inside a `MovingState`
        expected = new if isinstance(new, Population) else start
        if set(told.genes) == set(expected.genes) and layout(told) != layout(expected):
            raise ValueError(f"{path} has other dtypes or shapes than the start")
    if new is None or told is None:
        return
    if type(told) is not type(new):
        if isinstance(told, list | tuple) and isinstance(new, list | tuple):
            return
        raise ValueError(f"{path} is a {type(told).__name__}, a new one is a {type(new).__name__}")
    if isinstance(told, Tensor):
        if told.dtype != new.dtype or told.ndim != new.ndim:
            raise ValueError(
                f"{path} is {told.dtype} {checks.shape_text(told.shape)}, a new one {new.dtype} "
                f"{checks.shape_text(new.shape)}"
            )
    elif isinstance(told, Population | Individual):
        if isinstance(told, Population) and isinstance(new, Population):
            for name in set(told.traits) & set(new.traits):
                _compare(told.traits[name], new.traits[name], start, f"{path}.traits[{name}]")
        if isinstance(told, Population) and (told.assessment is None) != (new.assessment is None):
            raise ValueError(f"{path} lacks an assessment")
        one, other = (getattr(getattr(x, "assessment", None), "maximize", None) for x in (told, new))
        if one is not other:
            raise ValueError(f"{path} has maximize={one!r}")
    elif isinstance(told, Mapping):
        for name in set(told) & set(new):
            _compare(told[name], new[name], start, f"{path}[{name}]")
    elif is_dataclass(told):
        for field in fields(told):
            _compare(getattr(told, field.name), getattr(new, field.name), start, f"{path}.{field.name}")
