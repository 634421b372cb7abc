from __future__ import annotations

import copy
import io
import weakref
from collections.abc import Callable

import pytest
import torch
from sklearn.tree import DecisionTreeRegressor
from torch import nn

import tansaku
import zenkai_core as zk
from zenkai_core import Chain, Machine, Recorder, targets, theta


def chain(dropout: float = 0.0, order: zk.chain.Order = "accumulate step_x step") -> Chain:
    torch.manual_seed(1)

    def layer(i: int, o: int, criterion: zk.Criterion = zk.sse) -> Machine:
        module = nn.Sequential(nn.Linear(i, o, bias=False), nn.BatchNorm1d(o), nn.Dropout(dropout))
        return Machine(module, zk.theta.Gradient(torch.optim.SGD, lr=0.05), zk.targets.Gradient(scale=0.1), criterion)

    return Chain(layer(6, 5), layer(5, 4), layer(4, 3, zk.cross_entropy), order=order)


@pytest.mark.parametrize("order", ["accumulate step_x step", "accumulate step step_x"])
def test_a_recorded_run_is_the_run(order: zk.chain.Order) -> None:
    ends = []
    for recorded in (False, True):
        net = chain(0.5, order)
        recorder = Recorder(net, every=2) if recorded else None
        torch.manual_seed(2)
        for _ in range(5):
            net.learn(torch.randn(8, 6), torch.randint(3, (8,)))
        ends.append((net.state_dict(), torch.get_rng_state()))
        if recorder is not None:
            assert len(recorder.rows()) == 9
    (a, random_a), (b, random_b) = ends
    assert all(torch.equal(a[k], b[k]) for k in a if isinstance(a[k], torch.Tensor))
    assert torch.equal(random_a, random_b)


def climb() -> tansaku.HillClimb:
    return tansaku.HillClimb(k=4, std=0.1)


def tree() -> DecisionTreeRegressor:
    return DecisionTreeRegressor(max_depth=2)


def by_gradient(**options: int) -> theta.Gradient:
    return theta.Gradient(torch.optim.SGD, lr=0.1, **options)


RULES: dict[str, Callable[[], Machine]] = {
    "searches": lambda: Machine(nn.Linear(4, 3), theta.Search(climb()), targets.SearchX(climb(), score="network")),
    "own search": lambda: Machine(nn.Linear(4, 3), by_gradient(), targets.Null(), y=targets.SearchY(climb())),
    "feedback": lambda: Machine(nn.Linear(4, 3), by_gradient(), targets.FeedbackAlignment("fresh")),
    "learned feedback": lambda: Machine(nn.Linear(4, 3), by_gradient(), targets.KolenPollack(torch.optim.SGD, lr=0.1)),
    "direct feedback": lambda: Machine(nn.Linear(4, 3), by_gradient(), targets.Null(), y=targets.DirectFeedback()),
    "learned inverse": lambda: Machine(nn.Linear(4, 3), by_gradient(), targets.Difference(nn.Linear(3, 4), lr=1e-3)),
    "local minibatches": lambda: Machine(
        nn.Linear(4, 3), by_gradient(n=2, batch_size=3), targets.Gradient(2, batch_size=3)
    ),
    "least squares": lambda: Machine(nn.Linear(4, 3), theta.LeastSquares(0.1), targets.LeastSquares(0.1)),
    "postponed": lambda: Machine(nn.Linear(4, 3), theta.Postponed(by_gradient(), every=2), targets.Gradient()),
    "trees": lambda: Machine(zk.modules.Trees(4, 3), theta.Fit(tree, rows=7), targets.SearchX(climb())),
    "out of bag": lambda: Machine(
        zk.modules.Trees(4, 3, out_of_bag=True), theta.Fit(tree, rows=1), targets.SearchX(climb())
    ),
    "proposals": lambda: Machine(nn.Linear(4, 3), by_gradient(), targets.Proposals(k=3)),
}


@pytest.mark.parametrize("name", RULES)
@pytest.mark.filterwarnings("ignore:.*expected a target for every machine that learns")
def test_a_recorded_run_is_the_run_under_every_rule(name: str) -> None:
    ends = []
    for recorded in (False, True):
        torch.manual_seed(1)
        below = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        net = Chain(
            Machine(below, by_gradient(), targets.Null()),
            RULES[name](),
            Machine(nn.Linear(3, 3), by_gradient(), targets.Gradient(), zk.cross_entropy),
        )
        recorder = Recorder(net) if recorded else None
        torch.manual_seed(2)
        for _ in range(4):
            net.learn(torch.randn(6, 5), torch.randint(3, (6,)))
        saved = io.BytesIO()
        torch.save(net.state_dict(), saved)
        ends.append((saved.getvalue(), torch.get_rng_state().tolist()))
        assert recorder is None or recorder.read()
    assert ends[0] == ends[1]


def test_each_layer_and_step_has_its_costs_and_reductions() -> None:
    net = chain()
    with Recorder(net) as recorder:
        for _ in range(2):
            net.learn(torch.randn(8, 6), torch.randint(3, (8,)))
    rows = recorder.rows()
    assert [(r["step"], r["layer"]) for r in rows] == [(s, name) for s in (0, 1) for name in ("2", "1", "0")]
    for row in rows:
        assert row["local_theta"] > 0
        assert row["global_theta"] is not None
        assert (row["local_x"] is None) == (row["layer"] == "0")
        assert (row["distance"] is None) == (row["layer"] == "2")  # labels have no distance
    recorder.clear()
    assert recorder.rows() == []


def test_reductions_are_the_losses_before_less_the_losses_after() -> None:
    torch.manual_seed(0)
    first, last = nn.Linear(3, 4), nn.Linear(4, 2)
    net = Chain(
        Machine(first, zk.theta.Gradient(torch.optim.SGD, lr=0.1), zk.targets.Gradient()),
        Machine(last, zk.theta.Gradient(torch.optim.SGD, lr=0.1), zk.targets.Gradient()),
    )
    x, t = torch.randn(5, 3), torch.randn(5, 2)
    a, b = copy.deepcopy(first), copy.deepcopy(last)
    with Recorder(net) as recorder:
        net.learn(x, t)
    of = {row["layer"]: row for row in recorder.rows()}

    def loss(y: torch.Tensor, target: torch.Tensor) -> float:
        return float(0.5 * (y - target).square().sum(1).mean())

    with torch.no_grad():
        h = a(x)
        t_h = h - (b(h) - t) @ b.weight
        before = loss(b(h), t)
        assert of["1"]["cost"] == pytest.approx(before)
        assert of["1"]["distance"] == pytest.approx(float((b(h) - t).norm(dim=1).mean()))
        assert of["1"]["local_theta"] == pytest.approx(before - loss(last(h), t), rel=1e-4)
        assert of["1"]["global_theta"] == pytest.approx(of["1"]["local_theta"])
        assert of["1"]["local_x"] == pytest.approx(before - loss(b(t_h), t), rel=1e-4)
        assert of["0"]["distance"] == pytest.approx(float((h - t_h).norm(dim=1).mean()))
        assert of["0"]["local_theta"] == pytest.approx(loss(h, t_h) - loss(first(x), t_h), rel=1e-4)
        # the last layer has stepped before the first does
        assert of["0"]["global_theta"] == pytest.approx(loss(last(h), t) - loss(last(first(x)), t), rel=1e-4)


def test_machines_in_an_ordinary_loop_are_recorded() -> None:
    model = nn.Sequential(chain().machines[0], nn.ReLU(), chain().machines[1])
    optimizer = zk.Optimizer(model)
    with Recorder(model) as recorder:
        (model(torch.randn(8, 6)) - torch.randn(8, 4)).square().sum(1).mean().backward()
        optimizer.step()
    assert [r["layer"] for r in recorder.rows()] == ["2", "0"]
    assert all(r["local_theta"] > 0 for r in recorder.rows())


def test_a_closed_recorder_listens_no_more() -> None:
    net = chain()
    recorder = Recorder(net)
    recorder.close()
    net.learn(torch.randn(8, 6), torch.randint(3, (8,)))
    assert recorder.rows() == []
    assert all(not m._listeners for m in net.machines)


def test_a_users_own_machine_has_its_cost_and_distance() -> None:
    class Own(zk.LearningMachine):
        def forward_nn(self, x: zk.IO, state: zk.State) -> zk.IO:
            return zk.IO(x.f * 2)

    own = Own()
    with Recorder(own) as recorder:
        own.learn(torch.ones(4, 1), torch.ones(4, 1) * 5)
    measured = {k: v for k, v in recorder.rows()[0].items() if v is not None}
    assert measured == {
        "step": 0,
        "layer": "Own",
        "cost": 4.5,
        "distance": 3.0,
        "relative": 1.5,
        "error": 1.5,
        "dead": 1.0,
        "target_angle": 0.0,
    }


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="every >= 1, got 0"):
        Recorder(chain(), every=0)
    with pytest.raises(ValueError, match="model with machines, got a Linear"):
        Recorder(nn.Linear(1, 1))


def test_a_model_that_is_listened_to_can_be_copied_and_saved() -> None:
    net = Chain(*(Machine(nn.Linear(3, 3), theta.Gradient(torch.optim.SGD, lr=0.1), targets.Gradient()) for _ in "ab"))
    x, t = torch.randn(4, 3), torch.randn(4, 3)
    with Recorder(net) as recorder:
        net.learn(x, t)
        torch.save(net, io.BytesIO())
        copy.deepcopy(net).learn(x, t)
        assert len(recorder.rows()) == 2


def test_a_recorder_keeps_no_pass_alive() -> None:
    machine = Machine(nn.Linear(3, 3), theta.Gradient(torch.optim.SGD, lr=0.1), targets.Gradient())
    passes: list[weakref.ref] = []
    machine.register_hook("forward", lambda call: passes.append(weakref.ref(call.state)))
    with Recorder(machine):
        machine.learn(torch.randn(4, 3), torch.randn(4, 3))
        assert passes[0]() is None


def test_every_is_a_whole_number() -> None:
    machine = Machine(nn.Linear(3, 3), theta.Gradient(torch.optim.SGD, lr=0.1), targets.Gradient())
    with pytest.raises(ValueError, match=r"expected a whole number every >= 1, got 1\.5"):
        Recorder(machine, every=1.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("order", ["accumulate step_x step", "accumulate step step_x"])
@pytest.mark.parametrize("training", [True, False])
def test_the_update_of_backpropagation_is_steepest_descent_in_every_layer(
    order: zk.chain.Order, training: bool
) -> None:
    net = chain(0.5, order).double()
    net.train(training)
    if order == "accumulate step step_x":  # whoever steps first changes what the layers below descend
        for m in net.machines:
            m.theta = theta.Gradient(torch.optim.SGD, lr=1e-7)
            m.theta.bind(m)
    with Recorder(net) as recorder:
        state = zk.State()
        y = net.remember(zk.IO(torch.randn(8, 6).double()), state)
        told = net.tell(zk.IO(torch.randint(3, (y.rows,))), state)
        net.step(*told)
    for row in recorder.rows():
        assert row["update_angle"] == pytest.approx(0, abs=1e-3)
        assert row["target_angle"] is None or row["target_angle"] == pytest.approx(0, abs=1e-3)
    assert [row["target_angle"] is None for row in recorder.rows()] == [True, False, False]


def test_the_angle_is_that_of_the_update_to_autograds_gradient() -> None:
    class Skewed(zk.StepTheta):
        def accumulate(self, machine: Machine, t: zk.IO, state: zk.State) -> None: ...

        def step(self, machine: Machine) -> None:
            with torch.no_grad():
                machine.module.weight.sub_(torch.ones(2, 3))

    torch.manual_seed(0)
    first, last = nn.Linear(3, 2, bias=False), nn.Linear(2, 2)
    net = Chain(
        Machine(first, Skewed(), targets.Null()),
        Machine(last, theta.Gradient(torch.optim.SGD, lr=0.1), targets.Gradient(), zk.cross_entropy),
    )
    x, t = torch.randn(5, 3), torch.randint(2, (5,))
    plain = nn.Sequential(copy.deepcopy(first), copy.deepcopy(last))
    nn.functional.cross_entropy(plain(x), t).backward()
    g = plain[0].weight.grad
    assert g is not None
    expected = torch.rad2deg(torch.acos(g.sum() / g.norm() / 6**0.5))
    with Recorder(net) as recorder:
        net.learn(x, t)
    row = recorder.rows()[1]
    assert row["update_angle"] == pytest.approx(float(expected), rel=1e-4)
    assert row["update_ratio"] == pytest.approx(float(6**0.5 / plain[0].weight.detach().norm()), rel=1e-4)


@pytest.mark.filterwarnings("ignore:.*expected a target for every machine that learns")
def test_below_a_layer_without_gradient_there_is_no_steepest_descent() -> None:
    net = Chain(
        Machine(nn.Linear(3, 3), theta.Gradient(), targets.Null()),
        Machine(zk.modules.Sign(), theta.Null(), targets.Null()),
        Machine(nn.Linear(3, 3), theta.Gradient(), targets.Gradient()),  # shaped as the layers below
    )
    with Recorder(net) as recorder:
        net.learn(torch.randn(4, 3), torch.randn(4, 3))
    assert [row["target_angle"] is None for row in recorder.rows()] == [False, False, True]
    assert [row["update_angle"] is None for row in recorder.rows()] == [False, True, True]


def test_without_gradients_autograd_is_never_called(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("autograd was called")

    net = Chain(Machine(nn.Linear(3, 2), theta.Delta(torch.optim.SGD, lr=0.1), targets.Null()))
    monkeypatch.setattr(torch.autograd, "grad", refuse)
    monkeypatch.setattr(torch.autograd, "backward", refuse)
    with Recorder(net, gradients=False) as recorder:
        net.learn(torch.randn(4, 3), torch.randn(4, 2))
    assert recorder.rows()[0]["update_angle"] is None
    assert recorder.rows()[0]["local_theta"] > 0


def test_attained_is_the_share_of_the_distance_that_a_step_closed() -> None:
    layer = Machine(nn.Linear(1, 1, bias=False), theta.Gradient(torch.optim.SGD, lr=0.25), targets.Null())
    with torch.no_grad():
        layer.module.weight.fill_(2.0)  # y = 2 towards t = 0: the weight goes to 1.5
    with Recorder(layer) as recorder:
        layer.learn(torch.ones(3, 1), torch.zeros(3, 1))
    row = recorder.rows()[0]
    assert (row["distance"], row["relative"], row["attained"], row["update_ratio"]) == (2.0, 1.0, 0.25, 0.25)


def test_units_that_say_the_same_for_every_row_are_dead() -> None:
    y = zk.IO(torch.tensor([[0.0, 1.0, 5.0], [0.0, 2.0, 5.0]]), torch.zeros(2, 2, 3, 3))
    y[1][0, 1, 2, 2] = 1.0  # the second channel speaks once
    assert zk.diagnostics.measures.dead(y) == pytest.approx(3 / 5)
    assert zk.diagnostics.measures.dead(zk.IO(torch.zeros(1, 3))) is None


@pytest.mark.filterwarnings("ignore:.*expected a target for every machine that learns")
def test_rules_note_figures_for_the_recorder_alone() -> None:
    class Noting(targets.Null):
        def step_x(self, machine: Machine, t: zk.IO, state: zk.State) -> zk.IO:
            self.note(state, gain=torch.tensor(0.5), evaluations=3)
            seen.append(state.notes)
            return super().step_x(machine, t, state)

    seen: list[object] = []
    net = Chain(
        Machine(nn.Linear(3, 3), theta.Gradient(), targets.Null()), Machine(nn.Linear(3, 3), theta.Null(), Noting())
    )
    x, t = torch.randn(4, 3), torch.randn(4, 3)
    net.learn(x, t)
    assert seen == [None]
    with Recorder(net, every=2) as recorder:
        net.learn(x, t)
        net.learn(x, t)
    row = recorder.rows()[0]
    assert (row["x_gain"], row["x_evaluations"]) == (0.5, 3)
    assert len(recorder.rows()) == 2
    assert seen[2] is None


def test_a_cost_without_gradient_breaks_no_run() -> None:
    net = Chain(Machine(nn.Linear(3, 3), theta.Null(), targets.Null(), zk.criteria.zero_one))
    with Recorder(net) as recorder:
        net.learn(torch.randn(4, 3), torch.randint(3, (4,)))
    assert recorder.rows()[0]["update_angle"] is None


def test_the_round_trip_is_what_the_layers_target_below_leaves_of_the_distance() -> None:
    layer = Machine(nn.Linear(1, 1, bias=False), theta.Null(), targets.Gradient(scale=0.25))
    with torch.no_grad():
        layer.module.weight.fill_(1.0)  # y = x = 2 towards t = 0: the target below is 2 - 0.25 * 2
    net = Chain(Machine(nn.Identity(), theta.Null(), targets.Null()), layer)
    with Recorder(net) as recorder:
        net.learn(torch.full((3, 1), 2.0), torch.zeros(3, 1))
    row = recorder.rows()[0]
    assert (row["distance"], row["round_trip"]) == (2.0, 1.5)


def test_an_exact_inverse_makes_the_round_trip_and_a_search_notes_what_it_won() -> None:
    torch.manual_seed(0)
    exact = Machine(zk.modules.InvertibleLinear(3).double(), theta.Null(), targets.Reverse())
    search = targets.SearchX(tansaku.HillClimb(k=16, std=0.5), generations=3, seed=0)
    net = Chain(
        Machine(nn.Linear(3, 3).double(), theta.Null(), targets.Null()),
        Machine(nn.Linear(3, 3).double(), theta.Null(), search),
        exact,
    )
    with Recorder(net) as recorder:
        net.learn(torch.randn(5, 3).double(), torch.randn(5, 3).double())
    top, middle, _ = recorder.rows()
    assert top["round_trip"] < 1e-10 < top["distance"]
    assert top["x_reconstruction"] < 1e-10
    assert middle["x_gain"] == pytest.approx(middle["local_x"], rel=1e-5)
    assert middle["x_evaluations"] == 1 + 3 * 16
    assert 0 < middle["x_acceptance"] <= 1
    assert middle["x_diversity"] > 0


def test_feedback_equal_to_the_weights_has_no_angle_to_them() -> None:
    rule = targets.FeedbackAlignment("random", seed=0)
    layer = Machine(nn.Linear(4, 3), theta.Null(), rule)
    with torch.no_grad():
        layer.module.weight.copy_(2 * rule.feedback_0)
    net = Chain(Machine(nn.Linear(2, 4), theta.Null(), targets.Null()), layer)
    with Recorder(net) as recorder:
        net.learn(torch.randn(5, 2), torch.randn(5, 3))
    row = recorder.rows()[0]
    assert row["x_angle"] == pytest.approx(0, abs=1e-2)
    assert row["x_ratio"] == pytest.approx(0.5)


def test_a_users_machine_of_labels_in_an_ordinary_loop_is_recorded_by_what_it_is_given() -> None:
    class Own(zk.LearningMachine):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 2)

        def forward_nn(self, x: zk.IO, state: zk.State) -> zk.IO:
            return zk.IO(self.linear(x.f))

        def assess_y(self, y: zk.IO, t: zk.IO) -> torch.Tensor:
            return -y.f.gather(1, t.f[:, None])[:, 0]  # of labels alone

    machine = Own()
    with Recorder(machine) as recorder:
        machine(torch.randn(4, 3)).square().sum(1).mean().backward()
    assert recorder.rows()[0]["cost"] > 0


def test_a_layers_own_target_asked_again_after_accumulating_keeps_the_rules_notes() -> None:
    def layer(rule: zk.StepX) -> Machine:
        return Machine(nn.Linear(3, 3), theta.Gradient(torch.optim.SGD, lr=0.1), rule)

    swap = zk.Swap(layer(targets.SearchX(tansaku.HillClimb(k=4))), layer(targets.Null()), main_mix=0.5, x_mix=0.2)
    net = Chain(layer(targets.Null()), swap)
    with Recorder(net) as recorder:
        net.learn(torch.randn(4, 3), torch.randn(4, 3))
    (row,) = (r for r in recorder.rows() if r["layer"] == "1.first")
    assert row["x_gain"] >= 0
