"""Loading fitted members checks their number, features, fittedness and type, and that indices are in range."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.tree import DecisionTreeRegressor
from torch import nn

from zenkai_core.modules import Estimators, Trees, saved


def trees(members: int = 3, inputs: int = 4, outputs: int = 2) -> Trees:
    made = Trees(inputs, outputs, members=members)
    x = torch.randn(20, inputs).numpy()
    for _ in range(members):
        made.add_member(DecisionTreeRegressor(max_depth=3).fit(x, torch.randn(20, outputs).numpy()))
    return made


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("branches", lambda v: v + 1000, r"saved branches in \[0, "),
        ("branches", lambda v: v - 1000, r"saved branches in \[0, "),
        ("feature", lambda v: v + 4, r"saved feature in \[0, 4\)"),
        ("depth", lambda v: v + 1000, "saved depths in"),
        ("threshold", lambda v: v[:, :-1], "saved threshold of shape"),
        ("value", lambda v: v[..., :1], "saved value of shape"),
        ("weight", lambda v: v[:-1], "saved weight of shape"),
    ],
)
def test_trees_refuse_what_cannot_be_theirs_and_stay_as_they_were(name: str, change: Any, message: str) -> None:
    good, own = trees().state_dict(), trees()
    before = {key: v.clone() for key, v in own.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        own.load_state_dict({**good, name: change(good[name])})
    assert all(torch.equal(v, own.state_dict()[key]) for key, v in before.items())


def test_trees_refuse_more_members_than_they_keep_and_other_sizes() -> None:
    with pytest.raises(ValueError, match="at most 2 saved members, got 3"):
        Trees(4, 2, members=2).load_state_dict(trees(3).state_dict())
    with pytest.raises(ValueError, match=r"saved feature in \[0, 2\)|size mismatch"):
        Trees(2, 2, members=3).load_state_dict(
            {**trees(3).state_dict(), "surrogate": torch.zeros(2, 2), "feature": trees(3).feature * 0 + 3}
        )


def fitted(**options: Any) -> Any:
    return Ridge(**options).fit(torch.randn(9, 4).numpy(), torch.randn(9, 2).numpy())


@pytest.mark.parametrize(
    ("members", "error", "message"),
    [
        ([Ridge()], TypeError, "expected a fitted scikit-learn estimator, got Ridge"),
        ([fitted(), fitted()], ValueError, "expected 1 to 1 fitted members, got 2"),
        ([Ridge().fit([[0.0, 1.0]], [[1.0, 2.0]])], ValueError, "4 features and 2 outputs, got 2 and 2"),
        (
            [LogisticRegression().fit([[0.0] * 4, [1.0] * 4], [0, 1])],
            TypeError,
            "of kind 'regression' got LogisticRegression",
        ),
    ],
)
def test_estimators_refuse_members_that_cannot_be_theirs(
    members: list[Any], error: type[Exception], message: str
) -> None:
    layer = Estimators(4, 2, members=1, trusted=True)
    layer.add_member(fitted())
    kept = layer.newest
    with pytest.raises(error, match=message):
        layer.set_extra_state(saved.dumps(members))
    assert layer.newest is kept


def test_estimators_refuse_what_are_no_bytes() -> None:
    with pytest.raises(TypeError, match="expected its members as bytes, a uint8 tensor, got dict"):
        Estimators(4, 2, trusted=True).set_extra_state({"lr": 0.1})  # type: ignore[arg-type]


def test_what_was_saved_is_loaded() -> None:
    own, other = trees(), trees()
    own.load_state_dict(other.state_dict())
    x = torch.randn(5, 4)
    assert torch.equal(own(x), other(x))
    layer, again = Estimators(4, 2, trusted=True), Estimators(4, 2, trusted=True)
    layer.add_member(fitted())
    again.load_state_dict(layer.state_dict())
    assert torch.allclose(layer(x), again(x))


@pytest.mark.parametrize("name", ["weight", "branches", "feature", "threshold", "missing_left", "value", "depth"])
def test_trees_refuse_a_part_of_the_saved_trees_also_within_a_network_and_without_strict(name: str) -> None:
    own, x = nn.Sequential(trees()), torch.randn(5, 4)
    state, before = nn.Sequential(trees()).state_dict(), own(x)
    del state[f"0.{name}"]
    with pytest.raises(ValueError, match=f"Trees expected all saved entries of its trees, got none for {name}: "):
        own.load_state_dict(state, strict=False)
    assert torch.equal(own(x), before)


def test_estimators_refuse_damaged_bytes() -> None:
    layer = Estimators(4, 2, trusted=True)
    layer.add_member(fitted())
    state = layer.state_dict()
    state["_extra_state"] = state["_extra_state"][: len(state["_extra_state"]) // 2]
    with pytest.raises(ValueError, match=r"expected the bytes that were saved, got .* the file is damaged"):
        layer.load_state_dict(state)
