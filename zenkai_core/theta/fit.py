"""Fits of a scikit-learn estimator, on the rows collected since the last fit, or on more of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from zenkai_core.checks import check_whole
from zenkai_core.criteria import is_distance
from zenkai_core.describe import value_text
from zenkai_core.machine import Machine, StepTheta
from zenkai_core.modules.estimators import PerOutput, as_array
from zenkai_core.modules.voters import Sum
from zenkai_core.noise import NoiseKey
from zenkai_core.rates import Rate, check_rate, clock_for, rate_at, tick
from zenkai_core.state import State
from zenkai_core.values import IO

_CHUNK = 4096  # rows whose present outputs are asked for at once


class Fit(StepTheta):
    """Collects (input, target) rows and from time to time fits one member on them; only the newest is ever fitted.

    Args:
        factory: makes an unfitted estimator; by default `DecisionTreeRegressor(max_depth=11)`. One multi-output
            estimator is a member. An unset `random_state` is drawn from the rule's noise key.
        rows: how many new rows a fit waits for; a `step` with fewer keeps collecting. A callable (fits so far) -> rows
            makes the batch grow.
        window: how many of the most recent rows a fit is made on, older ones than the new ones too; None, the new ones.
        share: of these rows, drawn at random, that a fit is made on.
        partial: continue the newest member by its `partial_fit` instead of adding another, where the estimator has it.
        increments: a rate in (0, 1], or a `tansaku.Schedule` of it: a member is fitted on that share of what is
            missing from the outputs of those before, as in boosting, instead of on the targets. The module adds them up
            by `voters.Sum()`; a member that leaves takes its part away, so let it keep as many as there will be fits.
        calls: over which a schedule runs, from share 0 to 1: the number of fits. Needed where there is a schedule.
        limit: how many outputs, drawn anew, a fit renews in a copy of the newest member (a `PerOutput`); None, all.
        seed: of the noise key.

    Raises:
        TypeError: the factory is no callable; rows, window or limit is no whole number.
        ValueError: rows, window or limit below 1, a window shorter than rows, or share or increments
            outside (0, 1]; increments together with partial or limit, which go on from what a member has learnt; a
            limit, where the module answers out of bag.

    A module of kind "classification" is fitted on labels `[n]`, or on the argmax of real targets `[n, classes]`, which
    gives the labels back where the gradient of a loss made the targets.

    A fit lowers the estimator's own loss, whatever the machine's criterion is: give the machine the distance that its
    estimator follows, as `DecisionTreeRegressor(criterion="absolute_error")` does that one.

    The module takes the member: `modules.Trees` for scikit-learn's trees, `modules.Estimators` for any estimator, or
    one of your own with `add_member` (and `newest` and `replace_newest`, for `partial` and `limit`).

    Reference: Feng, Yu, Zhou (2018), Multi-layered gradient boosting decision trees, for increments as a layer.
    """

    requires = frozenset({"estimator"})
    delivers = True  # it adds no gradients
    takes_missing = True

    def __init__(
        self,
        factory: Callable[[], Any] | None = None,
        *,
        rows: int | Callable[[int], int] = 1024,
        window: int | None = None,
        share: float = 1.0,
        partial: bool = False,
        increments: Rate | None = None,
        calls: int | None = None,
        limit: int | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        if factory is not None and not callable(factory):
            made = type(factory).__name__
            raise TypeError(
                f"theta.Fit expected a factory, which makes an unfitted estimator for each fit, got {made} itself: "
                f"write lambda: {made}(...), or hand over the class"
            )
        check_whole("theta.Fit", rows=None if callable(rows) else rows, window=window, limit=limit)
        for name, value in (("rows", 1 if callable(rows) else rows), ("window", window), ("limit", limit)):
            if value is not None and value < 1:
                raise ValueError(f"theta.Fit expected {name} >= 1, got {value}: a fit needs rows and outputs")
        if window is not None and not callable(rows) and window < rows:
            raise ValueError(
                f"theta.Fit expected a window of at least rows={rows}, got {window}: new rows are used once"
            )
        if increments is not None:
            check_rate("theta.Fit", "increments", increments, most=1.0)
        self.clock = clock_for("theta.Fit", calls, increments=increments)
        if increments is not None and (partial or limit is not None):
            raise ValueError(
                f"theta.Fit expected increments alone, got them with {'partial' if partial else 'limit'}: the newest "
                "member would count twice, or unlearn what it adds; choose one of them"
            )
        if not 0 < share <= 1:
            raise ValueError(f"theta.Fit expected a share in (0, 1], got {share}: 1 fits on all the rows")
        self.factory = factory if factory is not None else _regression_tree
        self.rows, self.window, self.share, self.partial = rows, window, share, partial
        self.increments, self.limit = increments, limit
        self.noise = NoiseKey(seed)
        self.fits = 0
        self._pending: list[tuple[Tensor, Tensor]] = []
        self._old: list[tuple[Tensor, Tensor]] = []  # rows of earlier fits that are still in the window
        self._stepped = 0  # how many of the pending passes a step has seen

    @property
    def pending(self) -> int:
        """The rows collected since the last fit."""
        return _count(self._pending)

    def accumulate(self, machine: Machine, t: IO, state: State) -> None:
        """Keeps the pass's rows: the first input and the first target.

        Raises:
            ValueError: a target is NaN or infinite, or an input infinite; no later fit would succeed.
            TypeError: a criterion whose targets are no places among the outputs, for a module of kind "regression".
        """
        criterion = machine.local_criterion(state, t)
        if is_distance(criterion) is False and getattr(machine.module, "kind", None) == "regression":
            raise TypeError(
                f"theta.Fit expected a criterion whose target is a place among the outputs (sse, huber, "
                f"absolute_error), got {criterion} for a regressor: take a module of kind 'classification' for labels, "
                "or give the layer a y rule"
            )
        x, wanted = (_kept(v.f.detach()) for v in (state.inputs, t))
        if not bool(t.f.isfinite().all()):
            raise ValueError(
                "theta.Fit expected finite targets, got NaN or infinity: look at the loss, and at the rule above"
            )
        if bool(x.isinf().any()):
            raise ValueError(
                "theta.Fit expected inputs without infinity, got some: look at the layer below; NaN marks what is "
                "missing, where the estimator takes it"
            )
        self._pending.append((x.flatten(1).cpu().clone(), wanted.cpu().clone()))

    def step(self, machine: Machine) -> None:
        """Fits a member once there are rows enough; the rows stay where the fit fails."""
        if self.pending >= (self.rows(self.fits) if callable(self.rows) else self.rows):
            used = self._within(self._old + self._pending) if self.window else self._pending
            self._fit(machine, *(torch.cat(values) for values in zip(*used, strict=True)))
            self._old, self._pending = (used if self.window else []), []
            self.fits += 1
        self._stepped = len(self._pending)

    def forget(self) -> None:
        """Drops the rows of passes that no step has seen; those collected by earlier steps stay."""
        del self._pending[self._stepped :]

    def _within(self, passes: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
        """The last `window` rows, the new ones at least."""
        spare = min(_count(passes) - (self.window or 0), _count(self._old))
        kept = []
        for x, t in passes:
            drop = min(max(spare, 0), len(x))
            spare -= drop
            if drop < len(x):
                kept.append((x[drop:], t[drop:]))
        return kept

    def bind(self, machine: Machine) -> None:
        """As for every rule.

        Raises:
            ValueError: increments in a module that does not add its members up; a limit in one that answers out of
                bag.
        """
        super().bind(machine)
        voter = getattr(machine.module, "voter", None)
        if self.increments is not None and voter is not None and not isinstance(voter, Sum):
            raise ValueError(
                f"theta.Fit expected a module that adds its members up for increments, got the voter "
                f"{type(voter).__name__}: make it with voter=voters.Sum()"
            )
        if self.limit is not None and getattr(machine.module, "out_of_bag", False):
            raise ValueError(
                "theta.Fit expected no limit for a module with out_of_bag, got one: a member of which only some "
                "outputs are fitted anew has seen older rows too"
            )

    def _fit(self, machine: Machine, x: Tensor, t: Tensor) -> None:
        module: Any = machine.module
        if self.share < 1:
            chosen = torch.randperm(len(x), generator=self.noise.next())[: max(1, round(self.share * len(x)))]
            x, t = x[chosen], t[chosen]
        if self.increments is not None and len(module):
            with torch.no_grad():
                device = next(iter(module.buffers()), x).device
                y = torch.cat([module(rows.to(device)).cpu() for rows in x.split(_CHUNK)])
            t = rate_at(self.increments, self.clock) * (t - y)
        tick(self.clock)
        newest: Any = getattr(module, "newest", None)
        if self.limit is not None and newest is not None:
            order = torch.randperm(t.shape[1], generator=self.noise.next())
            module.add_member(copy.deepcopy(newest).fit(as_array(x), t.numpy(), limit=order[: self.limit].tolist()))
        elif self.partial and hasattr(newest, "partial_fit"):
            newest.partial_fit(as_array(x), _targets(module, newest, t))
            module.replace_newest(newest)
        else:
            module.add_member(self._first(module, x, t))
        if getattr(module, "out_of_bag", False):
            module.note_rows(x)

    def _first(self, module: Any, x: Tensor, t: Tensor) -> Any:
        """A member that knows these rows only."""
        estimator = self.factory()
        if estimator.get_params().get("random_state", 0) is None:
            seed = torch.randint(2**31 - 1, (), generator=self.noise.next())
            estimator.set_params(random_state=int(seed))
        rows, targets = as_array(x), _targets(module, estimator, t)
        _expect_outputs(estimator, targets)
        if not self.partial or not hasattr(estimator, "partial_fit"):
            return estimator.fit(rows, targets)
        if getattr(module, "kind", None) == "classification":  # the classes of batches to come are unknown to this one
            return estimator.partial_fit(rows, targets, classes=torch.arange(module.outputs).numpy())
        return estimator.partial_fit(rows, targets)

    def get_extra_state(self) -> dict[str, Any]:
        """The rows that steps have collected and the number of fits, so that a resumed run fits as the unbroken one."""
        seen = self._pending[: self._stepped]
        rows = {"x": [x for x, _ in seen], "t": [t for _, t in seen]}
        old = {"old_x": [x for x, _ in self._old], "old_t": [t for _, t in self._old]}
        return {**rows, **old, "fits": self.fits}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes the collected rows back."""
        self._pending = list(zip(state["x"], state["t"], strict=True))
        self._old = list(zip(state["old_x"], state["old_t"], strict=True))
        self.fits = state["fits"]
        self._stepped = len(self._pending)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pending": self._pending[: self._stepped]}  # a copy starts without a pass in flight

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{value_text(self.factory)}, rows={value_text(self.rows)}, pending={self.pending}"


def _kept(values: Tensor) -> Tensor:
    """In a dtype that numpy has: under autocast, and in layers cast to it, there may be bfloat16."""
    return values.float() if values.dtype == torch.bfloat16 else values


def _count(passes: list[tuple[Tensor, Tensor]]) -> int:
    return sum(len(x) for x, _ in passes)


def _targets(module: Any, estimator: Any, t: Tensor) -> Any:
    """Targets as the estimator takes them: labels for a classifier, a vector for a single output."""
    if getattr(module, "kind", None) == "classification" and t.is_floating_point() and t.ndim == 2:
        return t.argmax(1).numpy()
    single = t.ndim == 2 and t.shape[1] == 1 and not isinstance(estimator, PerOutput)
    return (t[:, 0] if single else t).numpy()


def _regression_tree() -> Any:
    from sklearn.tree import DecisionTreeRegressor

    return DecisionTreeRegressor(max_depth=11)


def _expect_outputs(estimator: Any, targets: NDArray[Any]) -> None:
    """Refuses an estimator of one output for targets of several, before scikit-learn fails in its own words.

    Raises:
        TypeError: it says that it takes one output only.
    """
    tags = getattr(estimator, "__sklearn_tags__", None)
    if targets.ndim != 2 or targets.shape[1] < 2 or isinstance(estimator, PerOutput) or tags is None:
        return
    if not tags().target_tags.multi_output:
        name = type(estimator).__name__
        raise TypeError(
            f"theta.Fit expected an estimator of {targets.shape[1]} outputs, got {name}, which predicts one: wrap it, "
            f"factory=lambda: modules.PerOutput({name}()), which fits one for each output"
        )
