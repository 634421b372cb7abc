"""What could only fail later is refused when it is given, with what was expected, what came, and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.tree import DecisionTreeRegressor
from torch import nn

import tansaku
import zenkai_core as zk
from zenkai_core import modules, targets, theta

CLIMB = tansaku.HillClimb(k=4, std=0.1)

WHOLE: dict[str, tuple[Callable[[Any], object], str, str]] = {  # (made with a number, owner, name)
    "theta.Gradient n": (lambda v: theta.Gradient(n=v), "theta.Gradient", "n"),
    "theta.Gradient batch_size": (lambda v: theta.Gradient(batch_size=v), "theta.Gradient", "batch_size"),
    "theta.Fit rows": (lambda v: theta.Fit(rows=v), "theta.Fit", "rows"),
    "theta.Fit window": (lambda v: theta.Fit(rows=1, window=v), "theta.Fit", "window"),
    "theta.Fit limit": (lambda v: theta.Fit(limit=v), "theta.Fit", "limit"),
    "theta.Search generations": (lambda v: theta.Search(CLIMB, generations=v), "theta.Search", "generations"),
    "theta.Search chunk": (lambda v: theta.Search(CLIMB, chunk=v), "theta.Search", "chunk"),
    "theta.Postponed": (lambda v: theta.Postponed(theta.Gradient(), every=v), "theta.Postponed", "every"),
    "targets.Gradient n": (lambda v: targets.Gradient(n=v), "targets.Gradient", "n"),
    "targets.Gradient batch_size": (lambda v: targets.Gradient(batch_size=v), "targets.Gradient", "batch_size"),
    "targets.Reverse": (lambda v: targets.Reverse(nn.Linear(1, 1), n=v), "targets.Reverse", "n"),
    "targets.Difference": (lambda v: targets.Difference(nn.Linear(1, 1), n=v), "targets.Difference", "n"),
    "targets.SearchX": (lambda v: targets.SearchX(CLIMB, generations=v), "targets.SearchX", "generations"),
    "targets.SearchY": (lambda v: targets.SearchY(CLIMB, calls=v), "targets.SearchY", "calls"),
    "targets.Proposals": (lambda v: targets.Proposals(v), "targets.Proposals", "k"),
    "Stochastic": (lambda v: modules.Stochastic(nn.Dropout(), v), "Stochastic", "k"),
    "Ensemble": (lambda v: modules.Ensemble(lambda: nn.Linear(1, 1), members=v), "Ensemble", "members"),
    "Trees": (lambda v: modules.Trees(2, 1, members=v), "Trees", "members"),
    "Estimators": (lambda v: modules.Estimators(v, 1), "Estimators", "inputs"),
    "MaxMin": (lambda v: modules.MaxMin(v, 1), "MaxMin", "inputs"),
    "Multiclass": (lambda v: modules.voters.Multiclass(v), "voters.Multiclass", "classes"),
    "minibatches": (lambda v: zk.parameters.minibatches(torch.ones(2), torch.ones(2), v), "minibatches", "size"),
}


@pytest.mark.parametrize("value", [1.5, 2.0, "2", True])
@pytest.mark.parametrize("setting", WHOLE)
def test_what_is_no_whole_number_is_refused_by_name(setting: str, value: object) -> None:
    make, owner, name = WHOLE[setting]
    with pytest.raises(TypeError, match=rf"^{owner} expected {name} as a whole number, got {value!r}: write an int$"):
        make(value)


@pytest.mark.parametrize("setting", WHOLE)
def test_a_whole_number_of_numpy_is_one(setting: str) -> None:
    WHOLE[setting][0](np.int64(2))


def test_a_batch_size_of_numpy_serves() -> None:
    size = np.int64(2)
    rules = theta.Gradient(batch_size=size), targets.Gradient(batch_size=size)  # type: ignore[arg-type]
    net = zk.Chain(zk.Machine(nn.Linear(2, 2), theta.Null(), targets.Null()), zk.Machine(nn.Linear(2, 1), *rules))
    assert net.learn(torch.ones(5, 2), torch.ones(5, 1)).isfinite()


@pytest.mark.parametrize("estimator", [DecisionTreeRegressor(max_depth=2), 3])
def test_an_estimator_in_place_of_its_factory_is_refused(estimator: object) -> None:
    made = type(estimator).__name__
    with pytest.raises(
        TypeError, match=rf"theta\.Fit expected a factory, .*, got {made} itself: write lambda: {made}\("
    ):
        theta.Fit(estimator)  # type: ignore[arg-type]


def test_an_estimators_class_is_a_factory() -> None:
    machine = zk.Machine(modules.Trees(2, 1), theta.Fit(DecisionTreeRegressor, rows=4), targets.Null())
    machine.learn(torch.randn(4, 2), torch.randn(4, 1))
    assert machine.theta.fits == 1


@pytest.mark.parametrize("rule", [targets.SearchX, targets.SearchY, theta.Search])
@pytest.mark.parametrize("algorithm", [tansaku.PSO, tansaku.HillClimb, tansaku.Schedule])
def test_a_class_of_algorithms_in_place_of_one_is_refused(rule: Callable[[Any], object], algorithm: type) -> None:
    with pytest.raises(
        TypeError, match=rf"or what makes one, .*, got the class {algorithm.__name__}: for example tansaku"
    ):
        rule(algorithm)


@pytest.mark.parametrize("reducer", [tansaku.WeightedMean, 3])
def test_what_is_no_reducer_is_refused(reducer: Any) -> None:
    got = "the class WeightedMean" if reducer is tansaku.WeightedMean else "int"
    for make in (
        lambda: targets.SearchX(CLIMB, reduce=reducer),
        lambda: targets.Proposals(4, reduce=reducer),
        lambda: theta.Search(CLIMB, write=reducer),
    ):
        with pytest.raises(
            TypeError, match=rf"expected (reduce|write) as a reducer, .*, got {got}: for example tansaku"
        ):
            make()


@pytest.mark.parametrize("hook", [3, None, "print"])
def test_a_hook_that_is_no_callable_is_refused_and_not_kept(hook: Any) -> None:
    machine = zk.Machine(nn.Linear(2, 1), theta.Null(), targets.Null())
    with pytest.raises(
        TypeError, match=f"a hook expected a callable that is told a Call, got {type(hook).__name__}: for"
    ):
        machine.register_hook("step", hook)
    machine.learn(torch.ones(3, 2), torch.ones(3, 1))
