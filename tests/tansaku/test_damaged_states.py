"""Every damaged part of a state raises one ValueError, for searches and optimisers, and changes nothing."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tansaku
from tansaku import Individual, Objective, Search

OTHERS = {"none": None, "text": "zz", "number": -7, "tensor": torch.full((3,), float("nan"))}


def sphere(x: Tensor) -> Tensor:
    return x.square().sum(-1)


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def damaged(tree: Any, path: tuple[Any, ...], how: str) -> Any:
    changed = copy.deepcopy(tree)
    part = changed
    for key in path[:-1]:
        part = part[key]
    if how == "missing":
        del part[path[-1]]
    else:
        part[path[-1]] = OTHERS[how]
    return changed


@pytest.mark.parametrize("how", ["missing", *OTHERS])
@pytest.mark.parametrize("part", ["settings", "history"])
def test_damaged_settings_in_a_state_raise_a_value_error_or_are_settings(part: str, how: str) -> None:
    def search() -> Search[Any]:
        return Search(
            tansaku.PSO(k=4, bounds=tansaku.Bounds(-1.0, 1.0)), Objective(sphere), Individual({"x": torch.ones(2)})
        )

    saved = search()
    saved.run(max_generations=2)
    state, refused = saved.state_dict(), []
    for path in places(state[part]):
        try:
            search().load_state_dict(damaged(state, (part, *path), how))
        except ValueError as error:
            refused.append(str(error))
    assert len(refused) >= 4
    assert all("expected" in message for message in refused)


@pytest.mark.parametrize("wrong", ["zz", 1, True])
def test_a_state_of_another_direction_is_refused(wrong: Any) -> None:
    saved: Search[Any] = Search("cma_es", Objective(sphere), Individual({"x": torch.ones(2)}))
    saved.run(max_generations=2)
    path = ("state", "fields", "incumbent", "fields", "assessment", "fields", "maximize")
    state = damaged(saved.state_dict(), path, "none")
    state["state"]["fields"]["incumbent"]["fields"]["assessment"]["fields"]["maximize"] = wrong
    with pytest.raises(ValueError, match="expected a whole state"):
        Search("cma_es", Objective(sphere), Individual({"x": torch.ones(2)})).load_state_dict(state)


@pytest.mark.parametrize("how", ["missing", *OTHERS])
def test_a_damaged_state_of_an_optimiser_raises_a_value_error_and_changes_nothing(how: str) -> None:
    def optimizer() -> tuple[nn.Parameter, Any]:
        parameter = nn.Parameter(torch.ones(2))
        return parameter, tansaku.optim.SearchOptimizer([parameter], tansaku.PSO(k=4))

    parameter, saved = optimizer()
    saved.step(lambda: parameter.square().sum())
    state = saved.state_dict()
    refused = 0
    for name in ("search", "generator", "settings", "param_groups", "state"):
        for path in [(), *(places(state[name]) if name in ("search", "settings") else ())]:
            own, loaded = optimizer()
            before = loaded.state_dict()["generator"].clone()
            try:
                loaded.load_state_dict(damaged(state, (name, *path), how))
            except ValueError:
                refused += 1
                assert torch.equal(loaded.state_dict()["generator"], before)
                loaded.step(lambda own=own: own.square().sum())
    assert refused > 5


def test_the_state_of_an_optimiser_of_other_parameters_is_refused() -> None:
    parameter, other = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    saved = tansaku.optim.SearchOptimizer([parameter], tansaku.PSO(k=4))
    saved.step(lambda: parameter.square().sum())
    with pytest.raises(ValueError, match="load it into the optimiser of the same parameters"):
        tansaku.optim.SearchOptimizer([other], tansaku.PSO(k=4)).load_state_dict(saved.state_dict())
