from __future__ import annotations

import copy
import io
import sys
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, Perceptron, Ridge, SGDClassifier, SGDRegressor
from sklearn.neighbors import KNeighborsRegressor
from sklearn.svm import SVR
from sklearn.tree import DecisionTreeRegressor
from torch import Tensor, nn

import zenkai_core as zk
from zenkai_core import Chain, Machine
from zenkai_core.modules import Estimators, PerOutput, Trees, voters
from zenkai_core.testing import check_machine


def batch(n: int = 60) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, 4)
    return x, torch.stack([x[:, 0] * x[:, 1], x[:, 2].abs(), x[:, 3]], 1)


def layer(rule: zk.theta.Fit, outputs: int = 3, **options: Any) -> Machine:
    criterion = zk.cross_entropy if options.get("kind") == "classification" else zk.sse
    return Machine(Estimators(4, outputs, trusted=True, **options), rule, zk.targets.Null(), criterion)


def test_a_regressor_of_all_outputs_predicts_as_scikit_learn_does() -> None:
    x, t = batch()
    m = layer(zk.theta.Fit(lambda: Ridge(alpha=0.5), rows=60))
    m.learn(x, t)
    assert np.allclose(m(x).detach(), Ridge(alpha=0.5).fit(x.numpy(), t.numpy()).predict(x.numpy()), atol=1e-5)


def test_until_the_first_fit_a_fixed_linear_surrogate_answers() -> None:
    module, x = Estimators(4, 3), torch.randn(5, 4)
    assert torch.allclose(module(x), x @ module.surrogate)
    head = Estimators(4, 3, kind="classification")
    assert torch.allclose(head(x), (x @ head.surrogate).softmax(1))
    module.add_member(Ridge().fit(np.eye(4), np.zeros((4, 3))))
    assert torch.equal(module(x), torch.zeros(5, 3))


def test_estimators_of_one_output_are_fitted_one_per_output() -> None:
    x, t = batch()
    m = layer(zk.theta.Fit(lambda: PerOutput(SVR()), rows=60))
    m.learn(x, t)
    each = [SVR().fit(x.numpy(), t[:, j].numpy()).predict(x.numpy()) for j in range(3)]
    assert np.allclose(m(x).detach(), np.stack(each, 1), atol=1e-5)


def test_a_single_output_is_fitted_as_a_vector() -> None:
    x, t = batch()
    m = layer(zk.theta.Fit(SVR, rows=60), outputs=1)
    m.learn(x, t[:, :1])  # a column would make scikit-learn warn
    assert np.allclose(m(x).detach()[:, 0], SVR().fit(x.numpy(), t[:, 0].numpy()).predict(x.numpy()), atol=1e-5)


def test_double_rows_are_fitted_in_double() -> None:
    x, t = (v.double() for v in batch())
    m = layer(zk.theta.Fit(LinearRegression, rows=60)).double()
    m.learn(x, t)
    assert torch.allclose(m(x), torch.as_tensor(LinearRegression().fit(x.numpy(), t.numpy()).predict(x.numpy())))
    assert m(x).dtype == torch.float64


def test_a_classifier_votes_with_shares_also_of_a_class_it_never_saw() -> None:
    x, labels = torch.randn(60, 4), torch.randint(2, (60,)) * 2  # 0 and 2, of three
    m = layer(zk.theta.Fit(LogisticRegression, rows=60), kind="classification")
    m.learn(x, labels)
    expected = LogisticRegression().fit(x.numpy(), labels.numpy()).predict_proba(x.numpy())
    assert np.allclose(m(x).detach()[:, [0, 2]], expected, atol=1e-6)
    assert m(x).detach()[:, 1].eq(0).all()
    assert m(x).is_floating_point()


def test_a_classifier_without_shares_votes_for_the_class_it_predicts() -> None:
    x, labels = torch.randn(60, 4), torch.randint(3, (60,))
    m = layer(zk.theta.Fit(Perceptron, rows=60, seed=0), kind="classification")
    m.learn(x, labels)
    assert m(x).detach().sum(1).tolist() == [1] * 60
    assert np.array_equal(m(x).argmax(1), m.module.newest.predict(x.numpy()))


def test_outputs_that_are_choices_are_predicted_as_the_numbers_they_are() -> None:
    x = torch.randn(80, 4)
    m = layer(zk.theta.Fit(lambda: PerOutput(LogisticRegression()), rows=80))
    m.learn(x, x[:, :3].sign())
    assert m(x).unique().tolist() == [-1, 1]
    assert (m(x) == x[:, :3].sign()).float().mean() > 0.9


def test_exactly_n_members_vote_the_fitted_ones_and_by_the_voter_asked_for() -> None:
    torch.manual_seed(0)
    rule = zk.theta.Fit(lambda: DecisionTreeRegressor(max_depth=1, splitter="random"), rows=10)
    m = layer(rule, members=3)
    parts = [batch(10) for _ in range(5)]
    for i, (x, t) in enumerate(parts):
        m.learn(x, t)
        assert len(m.module) == min(i + 1, 3) == len(m.module.votes(x))
    x = parts[0][0]
    assert torch.allclose(m(x), m.module.votes(x).mean(0), atol=1e-6)
    m.module.voter = voters.Sum()
    assert torch.allclose(m(x), m.module.votes(x).sum(0), atol=1e-5)


# ------------------------------------------------------------------------------------------------------ partial_fit
@pytest.mark.parametrize("per_output", [False, True])
def test_partial_fits_are_those_that_scikit_learn_would_make(per_output: bool) -> None:
    outputs = 3 if per_output else 1
    sgd = lambda: SGDRegressor(random_state=1, learning_rate="constant", eta0=0.01)  # noqa: E731
    m = layer(zk.theta.Fit(lambda: PerOutput(sgd()) if per_output else sgd(), rows=20, partial=True), outputs)
    theirs = [sgd() for _ in range(outputs)]
    for _ in range(5):
        x, t = batch(20)
        m.learn(x, t[:, :outputs])
        for j, each in enumerate(theirs):
            each.partial_fit(x.numpy(), t[:, j].numpy())
    assert len(m.module) == 1
    expected = np.stack([each.predict(x.numpy()) for each in theirs], 1)
    assert np.allclose(m(x).detach(), expected, atol=1e-6)
    one = np.stack([sgd().fit(x.numpy(), t[:, j].numpy()).predict(x.numpy()) for j in range(outputs)], 1)
    assert not np.allclose(expected, one, atol=1e-2)  # a fit of the last rows alone is something else


def test_partial_fits_of_a_classifier_know_the_classes_to_come() -> None:
    m = layer(zk.theta.Fit(lambda: SGDClassifier(random_state=0), rows=20, partial=True), kind="classification")
    theirs = SGDClassifier(random_state=0)
    for label in (0, 2, 1):
        x, labels = torch.randn(20, 4) + label, torch.full((20,), label)
        m.learn(x, labels)
        theirs.partial_fit(x.numpy(), labels.numpy(), classes=[0, 1, 2])
    x = torch.randn(50, 4)
    assert np.array_equal(m(x).argmax(1), theirs.predict(x.numpy()))


def test_where_there_is_no_partial_fit_a_member_is_fitted_anew() -> None:
    m = layer(zk.theta.Fit(lambda: PerOutput(SVR()), rows=10, partial=True), members=2)
    for _ in range(2):
        m.learn(*batch(10))
    assert len(m.module) == 2


# ------------------------------------------------------------------------------------------------- other modes of fit
def test_a_growing_batch_waits_for_more_rows_at_every_fit() -> None:
    m = layer(zk.theta.Fit(Ridge, rows=lambda fits: 10 * 2**fits), members=9)
    fitted = []
    for _ in range(15):
        m.learn(*batch(10))
        fitted.append(len(m.module))
    assert fitted == [1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 4]


def test_a_window_fits_on_older_rows_too() -> None:
    m, parts = layer(zk.theta.Fit(Ridge, rows=20, window=50)), [batch(20) for _ in range(4)]
    for i, (x, t) in enumerate(parts):
        m.learn(x, t)
        seen_x, seen_t = (torch.cat(v)[-50:] for v in zip(*parts[: i + 1], strict=True))
        expected = Ridge().fit(seen_x.numpy(), seen_t.numpy()).predict(x.numpy())
        assert np.allclose(m(x).detach(), expected, atol=1e-5)


def test_increments_are_fitted_on_what_is_missing_and_added_up() -> None:
    make = lambda: DecisionTreeRegressor(max_depth=2)  # noqa: E731
    m = layer(zk.theta.Fit(make, rows=60, increments=0.5, seed=0), members=4, voter=voters.Sum())
    x, t = batch()
    keys, slow = zk.NoiseKey(0), torch.zeros(60, 3)
    for i in range(4):
        m.learn(x, t)
        tree = make().set_params(random_state=int(torch.randint(2**31 - 1, (), generator=keys.next())))
        missing = t if i == 0 else 0.5 * (t - slow)
        slow = slow + torch.as_tensor(tree.fit(x.numpy(), missing.numpy()).predict(x.numpy())).float()
        assert torch.allclose(m(x), slow, atol=1e-5)


def test_a_limit_refits_some_outputs_of_a_copy_and_leaves_the_others() -> None:
    m, (x, t) = layer(zk.theta.Fit(lambda: PerOutput(Ridge()), rows=60, limit=1, seed=0)), batch()
    m.learn(x, t)
    before, first = m(x).detach(), m.module.newest
    m.learn(x, -t)
    changed = (m(x).detach() != before).any(0)
    assert changed.sum() == 1
    assert m.module.newest is not first
    j = int(changed.nonzero())
    assert np.allclose(m(x).detach()[:, j], Ridge().fit(x.numpy(), -t[:, j].numpy()).predict(x.numpy()), atol=1e-5)


def test_a_limit_before_all_outputs_were_fitted_is_refused() -> None:
    x, t = (v.numpy() for v in batch())
    with pytest.raises(RuntimeError, match=r"fitted once before a limit, got limit=\[0\]"):
        PerOutput(Ridge()).fit(x, t, limit=[0])
    fitted = PerOutput(Ridge()).fit(x, t)
    with pytest.raises(ValueError, match=r"expected 3 outputs and a limit within them, got 3 and \[3\]"):
        fitted.fit(x, t, limit=[3])
    with pytest.raises(ValueError, match=r"expected targets \[n, outputs\], got \[60\]"):
        fitted.fit(x, t[:, 0])
    with pytest.raises(ValueError, match="got 'depth'"):
        fitted.set_params(depth=1)
    assert not hasattr(PerOutput(SVR()), "partial_fit")


def test_an_ordinary_loop_trains_a_classifier_as_a_head() -> None:
    torch.manual_seed(0)
    x = torch.randn(200, 4)
    labels = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    head = layer(zk.theta.Fit(lambda: LogisticRegression(), rows=200), kind="classification")
    optimizer, expected = zk.Optimizer(head), LogisticRegression().fit(x.numpy(), labels.numpy())
    for _ in range(2):  # from the surrogate, and from a fitted member
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(x), labels).backward()
        optimizer.step()
        assert np.allclose(head(x).detach(), expected.predict_proba(x.numpy()), atol=1e-6)


# -------------------------------------------------------------------------------------------------------------- saving
@pytest.fixture
def skops() -> None:
    pytest.importorskip("skops")


def saved_and_loaded(module: Estimators, **options: Any) -> Estimators:
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    other = Estimators(module.inputs, module.outputs, members=module.members, kind=module.kind, **options)
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


@pytest.mark.usefixtures("skops")
@pytest.mark.parametrize("estimator", [Ridge(), PerOutput(SVR()), PerOutput(SGDRegressor(random_state=0))])
def test_a_trusted_state_dict_brings_the_members_back_without_pickle(estimator: Any) -> None:
    module, (x, t) = Estimators(4, 3, members=2), batch()
    for _ in range(2):
        module.add_member(copy.deepcopy(estimator).fit(x.numpy(), t.numpy()), weight=2.0)
    other = saved_and_loaded(module, trusted=True)
    assert torch.equal(other(x), module(x))
    assert torch.equal(other.state_dict()["_extra_state"], module.state_dict()["_extra_state"])


@pytest.mark.usefixtures("skops")
def test_a_state_dict_with_estimators_is_refused_unless_it_is_trusted() -> None:
    module, (x, t) = Estimators(4, 3), batch()
    saved_and_loaded(module)  # nothing fitted, nothing to trust
    module.add_member(Ridge().fit(x.numpy(), t.numpy()))
    with pytest.raises(RuntimeError, match="expected to be trusted, got trusted=False: if you know who made"):
        saved_and_loaded(module)


@pytest.mark.usefixtures("skops")
@pytest.mark.parametrize(
    ("estimator", "unknown"),
    [
        (
            KNeighborsRegressor(),
            ["sklearn.metrics._dist_metrics.EuclideanDistance64", "sklearn.neighbors._kd_tree.KDTree"],
        ),
        (RandomForestRegressor(3), ["sklearn.tree._tree.Tree"]),
    ],
)
def test_types_that_skops_does_not_hold_safe_are_named_and_can_be_trusted(estimator: Any, unknown: list[str]) -> None:
    module, (x, t) = Estimators(4, 3), batch()
    module.add_member(estimator.fit(x.numpy(), t.numpy()))
    with pytest.raises(RuntimeError, match="got .*" + unknown[0]):
        saved_and_loaded(module, trusted=True)
    assert torch.equal(saved_and_loaded(module, trusted=unknown)(x), module(x))


def test_without_skops_saving_fitted_members_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skops.io", None)
    module = Estimators(4, 3)
    assert module.state_dict()["_extra_state"] is None
    module.add_member(Ridge().fit(np.eye(4), np.zeros((4, 3))))
    with pytest.raises(RuntimeError, match=r"skops to write it, got none: pip install 'tansaku-zenkai\[sklearn\]'"):
        module.state_dict()
    with pytest.raises(RuntimeError, match="skops to read it, got none"):
        Estimators(4, 3, trusted=True).set_extra_state(torch.zeros(3, dtype=torch.uint8))


# ---------------------------------------------------------------------------------------------------------- conformance
def made(rule: zk.theta.Fit, module: nn.Module, labels: bool = False) -> tuple[Machine, Tensor, Tensor]:
    criterion = zk.cross_entropy if labels else zk.sse
    t = torch.arange(12) % 3 if labels else torch.randn(12, 3)
    return Machine(module, rule, zk.targets.Null(), criterion), torch.randn(12, 4), t


def ridge() -> tuple[Machine, Tensor, Tensor]:
    return made(zk.theta.Fit(Ridge, rows=24, window=30), Estimators(4, 3, members=2, trusted=True))


def partial() -> tuple[Machine, Tensor, Tensor]:
    rule = zk.theta.Fit(lambda: PerOutput(SGDRegressor()), rows=12, partial=True)
    return made(rule, Estimators(4, 3, trusted=True))


def head() -> tuple[Machine, Tensor, Tensor]:
    module = Estimators(4, 3, kind="classification", trusted=True)
    return made(zk.theta.Fit(LogisticRegression, rows=24), module, labels=True)


@pytest.mark.usefixtures("skops")
@pytest.mark.parametrize("make", [ridge, partial, head])
def test_machines_of_estimators_conform(make: Any) -> None:
    check_machine(make)


def boosted() -> tuple[Machine, Tensor, Tensor]:
    rule = zk.theta.Fit(lambda: DecisionTreeRegressor(max_depth=2), rows=12, increments=0.5)
    return made(rule, Trees(4, 3, members=20, voter=voters.Sum()))


def one_tree_per_output() -> tuple[Machine, Tensor, Tensor]:
    rule = zk.theta.Fit(lambda: PerOutput(DecisionTreeRegressor(max_depth=2)), rows=lambda fits: 12 * (fits + 1))
    return made(rule, Trees(4, 3, members=2, per_output=True))


@pytest.mark.parametrize("make", [boosted, one_tree_per_output])
def test_machines_of_trees_fitted_otherwise_conform(make: Any) -> None:
    check_machine(make)


def test_estimators_learn_below_a_gradient_machine() -> None:
    torch.manual_seed(0)
    x, t = batch(256)
    labels = (t[:, 0] > 0).long()
    below = Machine(
        Estimators(4, 6), zk.theta.Fit(lambda: KNeighborsRegressor(3, n_jobs=1), rows=256), zk.targets.Null()
    )
    rule = zk.theta.Gradient(torch.optim.Adam, lr=0.05)
    net = Chain(below, Machine(nn.Linear(6, 2), rule, zk.targets.Gradient(10, scale=0.3), zk.cross_entropy))
    costs = [net.learn(x, labels) for _ in range(12)]
    assert costs[-1] < 0.5 * costs[0]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Estimators(4, 3).add_member(Ridge()), TypeError, "a fitted scikit-learn estimator, got Ridge"),
        (lambda: Estimators(4, 3).add_member(3), TypeError, "got int"),
        (
            lambda: Estimators(4, 3).add_member(LogisticRegression().fit(np.eye(4), np.arange(4))),
            TypeError,
            "of kind 'regression' got LogisticRegression",
        ),
        (
            lambda: Estimators(4, 3, kind="classification").add_member(Ridge().fit(np.eye(4), np.eye(4))),
            TypeError,
            "of kind 'classification' got Ridge",
        ),
        (
            lambda: Estimators(4, 3, kind="classification").add_member(
                LogisticRegression().fit(np.eye(4), np.arange(4))
            ),
            ValueError,
            "labels below 3, got 3",
        ),
        (
            lambda: Estimators(5, 3).add_member(Ridge().fit(np.eye(4), np.eye(4)[:, :3])),
            ValueError,
            "member of 5 features and 3 outputs, got 4 and 3",
        ),
        (lambda: Estimators(4, 0), ValueError, "got 4, 0 and 1"),
        (lambda: zk.theta.Fit(window=0), ValueError, "window >= 1, got 0"),
        (lambda: zk.theta.Fit(rows=20, window=10), ValueError, "a window of at least rows=20, got 10"),
        (lambda: zk.theta.Fit(limit=0), ValueError, "limit >= 1, got 0"),
        (
            lambda: zk.theta.Fit(increments=0.5, partial=True),
            ValueError,
            "increments alone, got them with partial",
        ),
        (
            lambda: zk.theta.Fit(increments=0.5, limit=1),
            ValueError,
            "increments alone, got them with limit",
        ),
        (lambda: zk.theta.Fit(increments=1.5), ValueError, "increments > 0 and <= 1, got 1.5"),
    ],
)
def test_wrong_arguments_are_refused(make: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_fitted_estimators_answer_a_batch_without_rows() -> None:
    layer = zk.modules.Estimators(2, 1)
    layer.add_member(Ridge().fit(np.eye(2), np.ones((2, 1))))
    assert layer(torch.zeros(0, 2)).shape == (0, 1)


def test_increments_that_nobody_adds_up_are_refused() -> None:
    rule = zk.theta.Fit(increments=0.5)
    with pytest.raises(
        ValueError, match=r"adds its members up for increments, got the voter Mean: make it with voter="
    ):
        Machine(Trees(4, 3), rule, zk.targets.Null())
    assert Machine(Trees(4, 3, voter=voters.Sum()), rule, zk.targets.Null()).theta is rule
