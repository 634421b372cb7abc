"""What every rule that searches asks of its algorithm, and which algorithm, reducer or number holds at a call.

A setting of a rule may be a plan: `tansaku.Scheduled` makes an algorithm or a reducer with the values of the moment,
a `tansaku.Schedule` is a number of the moment, and a callable makes an algorithm from the number of calls so far.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

import tansaku
from zenkai_core.checks import check_whole

Score = Literal["local", "network"]
Algorithm = tansaku.Algorithm[Any]
Searcher = Algorithm | tansaku.Scheduled | Callable[[int], Algorithm]
Reduce = Callable[[tansaku.Population], tansaku.Individual]
Reducer = Reduce | tansaku.Scheduled


def check_score(rule: str, score: Score) -> None:
    """Refuses an unknown score.

    Raises:
        ValueError: it is one.
    """
    if score not in ("local", "network"):
        raise ValueError(f"{rule} expected score 'local' or 'network', got {score!r}: choose one of them")


def check_schedules(rule: str, calls: int | None, **settings: Any) -> None:
    """Refuses a setting that is a schedule where nobody says over how many calls it runs.

    Raises:
        ValueError: it is one, or there are no calls.
    """
    if calls is not None:
        check_count(rule, "calls", calls)
    for name, setting in settings.items():
        if isinstance(setting, tansaku.Scheduled | tansaku.Schedule) and calls is None:
            raise ValueError(
                f"{rule} expected calls with a schedule for {name}, got none: say calls=N, the number of calls over "
                "which it runs (batches times epochs)"
            )


def check_count(rule: str, name: str, value: int) -> None:
    """Refuses a number below 1.

    Raises:
        TypeError: it is no whole number.
        ValueError: it is one.
    """
    check_whole(rule, **{name: value})
    if value < 1:
        raise ValueError(f"{rule} expected {name} >= 1, got {value}: search at least once")


def check_algorithm(rule: str, algorithm: Searcher, calls: int | None, *, rows: bool) -> None:
    """Refuses, when a rule is made, an algorithm that no call of it could use; what a callable makes is seen later.

    With ``rows`` the rule runs one search per row of the mini-batch.

    Raises:
        TypeError: it is none, or searches no real genes.
        ValueError: it cannot serve the rule.
    """
    if isinstance(algorithm, tansaku.Algorithm | tansaku.Scheduled):
        algorithm_at(rule, algorithm, 0, calls, rows=rows)
    elif not _function(algorithm):
        raise TypeError(
            f"{rule} expected a tansaku algorithm or what makes one, a tansaku.Scheduled or a callable of the number "
            f"of calls, got {_named(algorithm)}: for example tansaku.HillClimb(k=32, std=0.5)"
        )


def check_reducer(rule: str, name: str, reduce: Reducer | None) -> None:
    """Refuses what is no reducer, nor a plan of one.

    Raises:
        TypeError: it is none.
    """
    if reduce is not None and not isinstance(reduce, tansaku.Scheduled) and not _function(reduce):
        raise TypeError(
            f"{rule} expected {name} as a reducer, a callable population -> individual, or None, got "
            f'{_named(reduce)}: for example tansaku.WeightedMean("standardised")'
        )


def _function(value: object) -> bool:
    """Whether it can be called for what it makes; a class of algorithms or reducers was not made yet."""
    return callable(value) and not isinstance(value, type)


def _named(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def algorithm_at(rule: str, algorithm: Searcher, count: int, calls: int | None, *, rows: bool) -> Algorithm:
    """The algorithm of the call number ``count``, if it can serve the rule.

    Raises:
        TypeError, ValueError: it cannot.
    """
    if isinstance(algorithm, tansaku.Algorithm):
        found: Any = algorithm
    else:
        found = at(algorithm, count, calls) if isinstance(algorithm, tansaku.Scheduled) else algorithm(count)
    if not isinstance(found, tansaku.Algorithm):
        raise TypeError(
            f"{rule} expected a tansaku algorithm at call {count}, got {type(found).__name__}: let the plan make one"
        )
    needs, name = found.needs, type(found).__name__
    if "real" not in needs.dtypes:
        raise TypeError(
            f"{rule} expected an algorithm for real genes, got {name} for {' or '.join(sorted(needs.dtypes))} ones: "
            "take HillClimb, GA or another whose needs name 'real'"
        )
    if needs.objectives != "one" or needs.descriptor:
        what = "several objectives" if needs.objectives != "one" else "a descriptor"
        raise ValueError(
            f"{rule} expected an algorithm for one cost per candidate, got {name}, which needs {what}: take GA or "
            "another for one objective"
        )
    if rows and not needs.batched:
        raise ValueError(
            f"{rule} expected an algorithm that runs one search per row, got {name}, which runs a single one: take "
            "CMAES, LSHADE or another whose needs are batched"
        )
    return found


def at(setting: Any, count: int, calls: int | None) -> Any:
    """What a setting is at the call number ``count`` of ``calls``: made by its plan, or itself where it has none."""
    if isinstance(setting, tansaku.Scheduled | tansaku.Schedule):
        return setting.at(count / calls if calls else 0.0)
    return setting


class Entries:
    """The entries of parameters that a search may move, as its genes: all, or those of masks, each name's as a vector.

    Args:
        parameters: by name.
        masks: name -> booleans that broadcast to the parameter; None: all. A parameter without a mask stays.

    >>> entries = Entries({"w": torch.zeros(2, 2)}, {"w": torch.tensor([True, False])})
    >>> entries.genes["w"], entries.whole({"w": torch.ones(2)})["w"].tolist()
    (tensor([0., 0.]), [[1.0, 0.0], [1.0, 0.0]])
    """

    def __init__(self, parameters: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None) -> None:
        self._values = {name: p.detach() for name, p in parameters.items()}
        self.masks: dict[str, Tensor] | None = None
        if masks is not None:
            fitting = {
                name: masks[name].to(p.device).expand(p.shape) for name, p in parameters.items() if name in masks
            }
            self.masks = {name: mask for name, mask in fitting.items() if bool(mask.any())}
            self._places = {name: mask.flatten().nonzero().squeeze(1) for name, mask in self.masks.items()}

    @property
    def genes(self) -> dict[str, Tensor]:
        """The entries as they are now, copied."""
        if self.masks is None:
            return {name: p.clone() for name, p in self._values.items()}
        return {name: self._values[name][mask] for name, mask in self.masks.items()}

    def whole(self, genes: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The parameters with these entries; works under `torch.func.vmap`, over the genes."""
        if self.masks is None:
            return dict(genes)
        values = {name: self._values[name] for name in genes}
        return {n: v.flatten().scatter(0, self._places[n], genes[n]).view(v.shape) for n, v in values.items()}

    def same(self, masks: Mapping[str, Tensor] | None) -> bool:
        """Whether these are the masks, wherever they are."""
        if masks is None or self.masks is None:
            return masks is self.masks
        return masks.keys() == self.masks.keys() and all(
            torch.equal(mask.to(self.masks[name].device), self.masks[name]) for name, mask in masks.items()
        )
