from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeRegressor
from torch import nn

import zenkai_core as zk
from zenkai_core import IO, Machine, State
from zenkai_core.modules import Trees


def regression(seed: int = 0, n: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    x = torch.randn(n, 5)
    return x, torch.stack([x[:, 0] * x[:, 1], x[:, 2].sin(), x[:, 3].abs()], 1)


def fitted(seed: int, depth: int | None = 4) -> DecisionTreeRegressor:
    x, t = regression(seed)
    return DecisionTreeRegressor(max_depth=depth, random_state=seed).fit(x.numpy(), t.numpy())


def machine(rows: int = 100, members: int = 3, **kw: int) -> Machine:
    rule = zk.theta.Fit(lambda: DecisionTreeRegressor(max_depth=3, splitter="random"), rows=rows, seed=0)
    return Machine(Trees(5, 3, members=members, **kw), rule, zk.targets.Null())


@pytest.mark.parametrize("depth", [1, 4, None])
def test_tensors_predict_what_scikit_learn_predicts(depth: int | None) -> None:
    trees, members = Trees(5, 3), [fitted(i, depth) for i in range(4)]
    for m in members:
        trees.add_member(m)
    x = torch.randn(500, 5)
    expected = np.mean([m.predict(x.numpy()) for m in members], axis=0)
    assert np.allclose(trees(x).numpy(), expected, atol=1e-6)
    assert np.allclose(trees.votes(x)[2].numpy(), members[2].predict(x.numpy()), atol=1e-6)


def test_rows_on_a_threshold_go_the_way_of_scikit_learn() -> None:
    x = torch.randint(0, 4, (300, 5)).float() / 3
    tree = ExtraTreeRegressor(random_state=0).fit(x.numpy(), x[:, :3].numpy())
    trees = Trees(5, 3)
    trees.add_member(tree)
    assert np.allclose(trees(x).numpy(), tree.predict(x.numpy()), atol=1e-6)


def test_trees_of_unequal_sizes_walk_each_down_its_own_nodes_missing_features_too() -> None:
    torch.manual_seed(0)
    x = torch.randn(400, 5).masked_fill(torch.rand(400, 5) < 0.2, torch.nan)
    t = x.nan_to_num()[:, :3].sin() - x.isnan()[:, 1:4].float()
    trees = Trees(5, 3).double()
    members = [
        DecisionTreeRegressor(max_depth=depth, random_state=0).fit(x[:n].numpy(), t[:n].numpy())
        for depth, n in ((1, 50), (None, 400), (3, 200))
    ]
    for member in members:
        trees.add_member(member)
    votes = trees.votes(torch.cat([x] * 3)).numpy()
    for member, vote in zip(members, votes, strict=True):
        assert np.array_equal(vote, np.tile(member.predict(x.numpy()), (3, 1)))


def test_a_tree_that_is_one_leaf_predicts_its_mean() -> None:
    trees = Trees(2, 1)
    trees.add_member(DecisionTreeRegressor().fit([[0.0, 0.0]], [[3.0]]))
    assert trees(torch.randn(4, 2)).tolist() == [[3.0]] * 4


def test_classification_trees_vote_by_class_also_where_a_member_never_saw_one() -> None:
    x, labels = torch.randn(90, 4), torch.randint(3, (90,))
    all_classes = DecisionTreeClassifier(max_depth=4).fit(x.numpy(), labels.numpy())
    two = labels != 1
    part = DecisionTreeClassifier(max_depth=4).fit(x[two].numpy(), labels[two].numpy())
    trees = Trees(4, 3, kind="classification")
    trees.add_member(all_classes)
    trees.add_member(part)
    expected = all_classes.predict_proba(x.numpy())
    expected[:, [0, 2]] += part.predict_proba(x.numpy())
    assert np.allclose(trees(x).numpy(), expected / 2, atol=1e-6)
    assert trees(x).is_floating_point()


def test_the_oldest_member_leaves_and_never_more_than_n_vote() -> None:
    trees, members = Trees(5, 3, members=2), [fitted(i, depth=i + 1) for i in range(4)]
    x = torch.randn(50, 5)
    for i, m in enumerate(members):
        trees.add_member(m)
        assert len(trees) == min(i + 1, 2)
    expected = np.mean([m.predict(x.numpy()) for m in members[2:]], axis=0)
    assert np.allclose(trees(x).numpy(), expected, atol=1e-6)


def test_until_the_first_fit_a_fixed_linear_surrogate_answers_and_never_votes_after() -> None:
    trees, x = Trees(5, 3), torch.randn(6, 5)
    assert torch.allclose(trees(x), x @ trees.surrogate)
    assert torch.equal(trees(x), trees(x))
    trees.add_member(fitted(0))
    assert np.allclose(trees(x).numpy(), fitted(0).predict(x.numpy()), atol=1e-6)


def test_a_saved_ensemble_loads_without_pickle_into_a_fresh_module() -> None:
    trees, file = Trees(5, 3), io.BytesIO()
    for i in range(3):
        trees.add_member(fitted(i))
    torch.save(trees.state_dict(), file)
    file.seek(0)
    other = Trees(5, 3)
    other.load_state_dict(torch.load(file, weights_only=True))
    x = torch.randn(20, 5)
    assert torch.equal(trees(x), other(x))
    other.load_state_dict(Trees(5, 3).state_dict())
    assert len(other) == 0


@pytest.mark.parametrize(
    ("estimator", "error", "message"),
    [
        (DecisionTreeRegressor(), TypeError, "expected a fitted scikit-learn tree, got DecisionTreeRegressor"),
        (Ridge(), TypeError, "got Ridge"),
        (DecisionTreeClassifier().fit(np.eye(5), np.arange(5)), TypeError, "give a member of that kind"),
        (DecisionTreeRegressor().fit(np.eye(4), np.eye(4)), ValueError, "5 features and 3 outputs, got 4 and 4"),
    ],
)
def test_estimators_that_do_not_fit_the_module_are_refused(estimator: object, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        Trees(5, 3).add_member(estimator)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="got 0, 3 and 9"):
        Trees(0, 3)
    with pytest.raises(ValueError, match="got 'ranking'"):
        Trees(1, 1, kind="ranking")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected 5 features in a row, got 4"):
        Trees(5, 3)(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="labels below 2, got 2"):
        Trees(3, 2, kind="classification").add_member(DecisionTreeClassifier().fit(np.eye(3), np.arange(3)))
    with pytest.raises(ValueError, match="rows >= 1, got 0"):
        zk.theta.Fit(rows=0)


def test_a_fit_waits_for_rows_enough_and_uses_all_of_them() -> None:
    m = machine(rows=100)
    x, t = regression(n=120)
    for part in range(3):
        rows = slice(40 * part, 40 * part + 40)
        m.learn(x[rows], t[rows])
        assert (len(m.module), m.theta.pending) == ((0, 40 * part + 40) if part < 2 else (1, 0))
    seed = int(torch.randint(2**31 - 1, (), generator=zk.NoiseKey(0).next()))
    expected = DecisionTreeRegressor(max_depth=3, splitter="random", random_state=seed).fit(x.numpy(), t.numpy())
    assert np.allclose(m.module(x).numpy(), expected.predict(x.numpy()), atol=1e-6)


def test_each_fit_draws_its_own_random_state_unless_the_factory_set_one() -> None:
    m, (x, t) = machine(), regression()
    m.learn(x, t)
    m.learn(x, t)
    assert not torch.equal(m.module.votes(x)[0], m.module.votes(x)[1])
    rule = zk.theta.Fit(lambda: DecisionTreeRegressor(max_depth=3, splitter="random", random_state=1), rows=1)
    m = Machine(Trees(5, 3), rule, zk.targets.Null())
    m.learn(x, t)
    m.learn(x, t)
    assert torch.equal(m.module.votes(x)[0], m.module.votes(x)[1])


def test_the_default_is_one_multi_output_regression_tree() -> None:
    x, t = regression()
    m = Machine(Trees(5, 3), zk.theta.Fit(rows=1, seed=0), zk.targets.Null())
    m.learn(x, t)
    assert m.module.depth.tolist() == [min(11, int(m.module.depth[0]))]
    assert m.test(x, t) < 0.1 * (0.5 * (t - t.mean(0)).square().sum(1)).mean()


def test_collected_rows_are_part_of_the_state_dict() -> None:
    m, (x, t) = machine(), regression()
    m.learn(x[:60], t[:60])
    other = machine()
    other.load_state_dict(m.state_dict())
    assert other.theta.pending == 60
    for each in (m, other):
        each.learn(x[60:], t[60:])
    assert torch.equal(m.module(x), other.module(x))


def test_a_layer_of_trees_learns_below_a_gradient_machine() -> None:
    torch.manual_seed(0)
    x, t = regression(n=256)
    labels = (t[:, 0] > 0).long()
    trees = Machine(
        Trees(5, 8, members=5), zk.theta.Fit(lambda: DecisionTreeRegressor(max_depth=5), rows=256), zk.targets.Null()
    )
    rule = zk.theta.Gradient(torch.optim.Adam, lr=0.05)
    head = Machine(torch.nn.Linear(8, 2), rule, zk.targets.Gradient(40, scale=0.1), zk.cross_entropy)
    chain = zk.Chain(trees, head)
    first = chain.learn(x, labels)
    for _ in range(20):
        last = chain.learn(x, labels)
    assert last < 0.6 * first


def test_the_callers_rows_may_change_after_accumulate() -> None:
    m, (x, t) = machine(), regression()
    state = State()
    m.forward_nn(IO(x), state)
    m.accumulate(IO(x), IO(t), state)
    x.zero_()
    t.zero_()
    m.step(IO(x), IO(t), state)
    assert m.module.feature.any()


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_a_missing_feature_goes_where_the_fit_sent_it(side: float) -> None:
    torch.manual_seed(0)
    x = torch.randn(300, 3)
    t = torch.stack([torch.where(x[:, 0] * side > 0.5, 1.0, -1.0), x[:, 1]], 1)
    x[x[:, 0] * side < -0.3, 0] = torch.nan
    tree = DecisionTreeRegressor(max_depth=4, random_state=0).fit(x.numpy(), t.numpy())
    trees = zk.modules.Trees(3, 2)
    trees.add_member(tree)
    expected = torch.as_tensor(tree.predict(x.numpy())).float()
    assert torch.allclose(trees(x), expected, atol=1e-6)
    resumed = zk.modules.Trees(3, 2)
    resumed.load_state_dict(trees.state_dict())
    assert torch.equal(resumed(x), trees(x))


@pytest.mark.parametrize("labels", [[-1, 1], ["0", "1"], [0.0, 1.0]])
def test_classes_that_are_no_integers_from_0_are_refused(labels: list) -> None:
    tree = DecisionTreeClassifier().fit([[0.0], [1.0]], labels)
    with pytest.raises(ValueError, match="expected integer labels >= 0, got the classes"):
        zk.modules.Trees(1, 2, kind="classification").add_member(tree)


@pytest.mark.parametrize("cast", [nn.Module.half, nn.Module.bfloat16, nn.Module.float])
def test_a_cast_moves_no_threshold(cast: Callable[[nn.Module], nn.Module]) -> None:
    torch.manual_seed(0)
    x = torch.randn(500, 3)
    trees = zk.modules.Trees(3, 2)
    trees.add_member(DecisionTreeRegressor(max_depth=11, random_state=0).fit(x.numpy(), x[:, :2].numpy()))
    expected, exact = trees(x), trees.threshold.clone()
    cast(trees)
    assert trees.threshold.dtype == torch.float64
    assert torch.equal(trees.threshold, exact)
    assert torch.allclose(trees(x).float(), expected, atol=0.03)


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_targets_are_fitted(autocast: bool) -> None:
    trees = zk.modules.Trees(3, 2)
    layer = zk.Machine(trees if autocast else trees.bfloat16(), zk.theta.Fit(rows=4), zk.targets.Null())
    x, t = torch.randn(8, 3), torch.randn(8, 2)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        layer.learn(x, t.bfloat16())
    assert len(trees) == 1


def test_infinite_inputs_are_refused_before_they_spoil_every_later_fit() -> None:
    layer = zk.Machine(zk.modules.Trees(3, 2), zk.theta.Fit(rows=8), zk.targets.Null())
    x, t = torch.randn(8, 3), torch.randn(8, 2)
    with pytest.raises(ValueError, match=r"expected finite numbers, got inf in x, row 0, and nothing was moved"):
        layer.learn(torch.full((8, 3), torch.inf), t)
    layer.learn(x, t)
    assert len(layer.module) == 1  # type: ignore[arg-type]
