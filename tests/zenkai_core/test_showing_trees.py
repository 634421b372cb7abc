from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, export_text

from zenkai_core.modules import PerOutput, Tree, Trees

SMALL = """\
|--- width <= 1.50
|   |--- red: 1.00, blue: 5.00
|--- width >  1.50
|   |--- length <= 0.50
|   |   |--- red: 2.00, blue: 5.00
|   |--- length >  0.50
|   |   |--- red: 3.00, blue: 9.00"""


def test_a_small_tree_reads_exactly_so_also_after_it_was_saved_and_loaded() -> None:
    tree, other = Tree(2, 2), Tree(2, 2)
    x = np.array([[0, 0], [1, 1], [2, 0], [2, 1]], dtype=np.float32)
    tree.add_member(DecisionTreeRegressor(random_state=0).fit(x, [[1, 5], [1, 5], [2, 5], [3, 9]]))
    other.load_state_dict(tree.state_dict())
    for each in (tree, other):
        assert each.text(features=["width", "length"], outputs=["red", "blue"]) == SMALL


@pytest.mark.parametrize("max_depth", [None, 0, 1, 3])
@pytest.mark.parametrize("outputs", [1, 3])
def test_a_regression_tree_reads_as_scikit_learn_writes_it(outputs: int, max_depth: int | None) -> None:
    x = torch.randn(80, 4)
    fitted = DecisionTreeRegressor(max_depth=6).fit(x.numpy(), x[:, :outputs].square().numpy())
    trees = Trees(4, outputs)
    trees.add_member(fitted)
    theirs = export_text(fitted, max_depth=10 if max_depth is None else max_depth, decimals=3)
    assert trees.text(decimals=3, max_depth=max_depth) == theirs.rstrip("\n")


def test_a_classification_tree_reads_as_scikit_learn_writes_it() -> None:
    x, labels = torch.randn(80, 4), torch.randint(3, (80,))
    fitted = DecisionTreeClassifier(max_depth=5).fit(x.numpy(), labels.numpy())
    tree = Tree(4, 3, kind="classification")
    tree.add_member(fitted)
    names = {"feature_names": ["a", "b", "c", "d"], "class_names": ["x", "y", "z"]}
    expected = export_text(fitted, **names).rstrip("\n")
    assert tree.text(features=names["feature_names"], outputs=names["class_names"]) == expected
    assert tree.text() == export_text(fitted).rstrip("\n")


def test_members_and_the_trees_of_single_outputs_are_shown_by_number() -> None:
    x = torch.randn(40, 2)
    fitted = [PerOutput(DecisionTreeRegressor(max_depth=2)).fit(x.numpy(), (i * x).numpy()) for i in (1, 2, 3)]
    trees = Trees(2, 2, members=2, per_output=True)
    for member in fitted:
        trees.add_member(member)
    for i, member in ((0, fitted[1]), (1, fitted[2]), (-1, fitted[2])):
        for j in (0, 1):
            assert trees.text(i, output=j) == export_text(member.estimators_[j]).rstrip("\n")
    assert trees.text(output=1, outputs=["red", "blue"]).count("blue: ") == 4


def test_the_picture_says_what_the_text_says() -> None:
    x = torch.randn(80, 4)
    tree = Tree(4, 2)
    tree.add_member(DecisionTreeRegressor(max_depth=3).fit(x.numpy(), x[:, :2].numpy()))
    figure = tree.draw(features=["a", "b", "c", "d"], max_depth=None)
    drawn = [text.get_text() for text in figure.axes[0].texts]
    lines = [line.rsplit("|--- ", 1)[1] for line in tree.text(features=["a", "b", "c", "d"]).splitlines()]
    expected = [line for line in lines if ">" not in line]
    assert sorted(word for word in drawn if word not in ("yes", "no")) == sorted(expected)
    assert drawn.count("yes") == drawn.count("no") == sum("<=" in line for line in expected)
    cut = [text.get_text() for text in tree.draw(max_depth=1).axes[0].texts]
    assert any("levels" in word for word in cut)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    assert file.getvalue().startswith(b"\x89PNG")


def test_what_cannot_be_shown_is_refused() -> None:
    tree = Tree(2, 1)
    with pytest.raises(ValueError, match=r"expected a fitted member to show, got none: theta\.Fit waits"):
        tree.text()
    tree.add_member(DecisionTreeRegressor().fit([[0.0, 0.0]], [[3.0]]))
    assert tree.text() == "|--- value: [3.00]"
    with pytest.raises(ValueError, match="expected 2 names of features, got 1"):
        tree.text(features=["a"])
    with pytest.raises(ValueError, match="expected 1 names of outputs, got 2"):
        tree.draw(outputs=["a", "b"])
    with pytest.raises(ValueError, match="an output among 1 trees of each, got 0 and 1"):
        tree.text(0, output=1)
