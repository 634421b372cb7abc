"""Rules around rules: postponed, filtered and limited steps, limited targets, local minibatches."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import pytest
import torch
from sklearn.tree import DecisionTreeRegressor
from torch import Tensor, nn

import tansaku
import zenkai_core as zk
from zenkai_core import IO, Machine, State, StepTheta, targets, theta
from zenkai_core.testing import check_machine


def sgd(lr: float = 0.1) -> theta.Gradient:
    return theta.Gradient(torch.optim.SGD, lr=lr)


def linear(rule: StepTheta, loss: zk.learning.Loss = "mean") -> Machine:
    torch.manual_seed(0)
    return Machine(nn.Linear(4, 3).double(), rule, targets.Gradient(), loss=loss)


def batch(n: int = 12) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 4).double(), torch.randn(n, 3).double()


WRAPPED: dict[str, Callable[[], StepTheta]] = {
    "postponed": lambda: theta.Postponed(theta.Gradient(torch.optim.Adam, lr=0.01), every=3),
    "filtered": lambda: theta.Filtered(sgd(), torch.optim.SGD, lr=0.5, momentum=0.5),
    "filtered search": lambda: theta.Filtered(theta.Search(tansaku.HillClimb(k=8, std=0.3)), torch.optim.SGD, lr=0.5),
    "limited": lambda: theta.Limited(sgd(), {"weight": torch.ones(3, 1, dtype=torch.bool)}),
    "limited at random": lambda: theta.Limited(
        theta.Gradient(torch.optim.Adam, lr=0.01), lambda g: {"weight": torch.rand(3, 4, generator=g) < 0.5}
    ),
    "all three": lambda: theta.Limited(
        theta.Filtered(theta.Postponed(sgd(), every=2), torch.optim.SGD, lr=0.5),
        {"weight": torch.ones(1, dtype=torch.bool)},
    ),
    "minibatches": lambda: theta.Gradient(torch.optim.Adam, lr=0.01, n=2, batch_size=5),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_wrapped_rules_conform(name: str) -> None:
    def make() -> tuple[Machine, Tensor, Tensor]:
        module = nn.Linear(4, 3)
        return Machine(module, WRAPPED[name](), targets.Gradient()), torch.randn(12, 4), torch.randn(12, 3)

    check_machine(make)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (lambda: targets.Limited(targets.Gradient(), 2), lambda: None),
        (targets.Null, lambda: targets.LimitedY(targets.DirectFeedback(), 2)),
        (lambda: targets.Gradient(2, batch_size=5), lambda: None),
    ],
)
def test_wrapped_targets_conform(x: Callable[[], zk.StepX], y: Callable[[], zk.StepY | None]) -> None:
    check_machine(lambda: (Machine(nn.Linear(4, 3), sgd(), x(), y=y()), torch.randn(12, 4), torch.randn(12, 3)))


def test_postponed_steps_on_small_batches_are_one_step_on_the_large_one() -> None:
    x, t = batch(12)
    whole = linear(theta.Gradient(torch.optim.Adam, lr=0.1))
    parts = linear(theta.Postponed(theta.Gradient(torch.optim.Adam, lr=0.1), every=3))
    for _ in range(2):
        whole.learn(x, t)
        for a, b in zip(x.split(4), t.split(4), strict=True):
            before = parts.module.weight.detach().clone()
            parts.learn(a, b)
        assert not torch.equal(before, parts.module.weight)
    torch.testing.assert_close(parts.module.weight, whole.module.weight, rtol=1e-12, atol=1e-13)


def test_postponed_sums_stay_sums() -> None:
    x, t = batch(4)
    whole, parts = linear(sgd(0.01), "sum"), linear(theta.Postponed(sgd(0.01), every=2), "sum")
    whole.learn(x, t)
    for a, b in zip(x.split(2), t.split(2), strict=True):
        parts.learn(a, b)
    torch.testing.assert_close(parts.module.weight, whole.module.weight, rtol=1e-12, atol=1e-13)


def test_a_failed_learn_takes_only_its_own_gradient_from_a_postponed_rule() -> None:
    x, t = batch(4)
    runs = []
    for fails in (False, True):
        machine = linear(theta.Postponed(sgd(), every=2))
        machine.learn(x, t)
        if fails:
            handle = machine.register_hook("step", lambda call: 1 / 0, "before")
            with pytest.raises(ZeroDivisionError):
                machine.learn(-x, t)
            handle.remove()
        machine.learn(x, t)
        runs.append(machine.module.weight.detach())
    assert torch.equal(*runs)


def test_postponing_what_works_without_gradients_is_refused() -> None:
    with pytest.raises(TypeError, match=r"works by gradients, got Fit: theta\.Fit waits for its rows"):
        theta.Postponed(theta.Fit(lambda: DecisionTreeRegressor()), every=2)
    with pytest.raises(ValueError, match=r"every >= 1 and a rule of one update per step, got every=0 and n=1"):
        theta.Postponed(sgd(), every=0)
    with pytest.raises(ValueError, match="got every=2 and n=3"):
        theta.Postponed(theta.Gradient(n=3), every=2)
    with pytest.raises(TypeError, match="Postponed expected rule to be a StepTheta, got Gradient"):
        theta.Postponed(targets.Gradient(), every=2)  # type: ignore[arg-type]


def test_a_filter_takes_its_share_of_every_update() -> None:
    x, t = batch()
    plain, filtered = linear(sgd(0.4)), linear(theta.Filtered(sgd(0.4), torch.optim.SGD, lr=0.25))
    start = plain.module.weight.detach().clone()
    plain.learn(x, t)
    filtered.learn(x, t)
    torch.testing.assert_close(filtered.module.weight - start, (plain.module.weight - start) / 4)
    assert all(p.grad is None for p in filtered.parameters())


def test_a_filter_by_adam_bounds_an_update_by_its_rate() -> None:
    x, t = batch()
    machine = linear(theta.Filtered(sgd(100.0), torch.optim.Adam, lr=1e-3))
    start = machine.module.weight.detach().clone()
    machine.learn(x, t)
    assert (machine.module.weight - start).abs().max() <= 1e-3 * (1 + 1e-6)


def test_a_scheduler_reaches_both_optimisers_of_a_filtered_rule() -> None:
    machine = linear(theta.Filtered(sgd(0.4), torch.optim.SGD, lr=0.25))
    assert sorted(g["lr"] for g in zk.Optimizer(machine).param_groups) == [0.25, 0.4]


def test_limited_steps_move_what_the_mask_names_as_the_inner_rule_would() -> None:
    x, t = batch()
    mask = torch.rand(3, 4) < 0.5
    plain, limited = linear(sgd()), linear(theta.Limited(sgd(), {"weight": mask}))
    start = {name: p.detach().clone() for name, p in plain.module.named_parameters()}
    plain.learn(x, t)
    limited.learn(x, t)
    assert torch.equal(limited.module.weight, torch.where(mask, plain.module.weight, start["weight"]))
    assert torch.equal(limited.module.bias, start["bias"])


def test_masks_that_do_not_fit_are_refused_before_training() -> None:
    with pytest.raises(ValueError, match="expected masks for weight, bias, got one for 'w'"):
        linear(theta.Limited(sgd(), {"w": torch.ones(1, dtype=torch.bool)}))
    with pytest.raises(ValueError, match=r"broadcast to \[3, 4\] for 'weight', got torch.bool \[4, 4\]"):
        linear(theta.Limited(sgd(), {"weight": torch.ones(4, 4, dtype=torch.bool)}))
    with pytest.raises(ValueError, match=r"got torch\.float32"):
        linear(theta.Limited(sgd(), {"weight": torch.ones(3, 4)}))
    with pytest.raises(TypeError, match="expected masks by name or a callable"):
        theta.Limited(sgd(), 3)  # type: ignore[arg-type]


def test_a_refused_machine_frees_the_inner_rule() -> None:
    inner = sgd()
    with pytest.raises(TypeError):
        Machine(zk.modules.Sign(), theta.Filtered(inner), targets.Null())
    linear(theta.Filtered(inner))
    with pytest.raises(RuntimeError, match="to serve one machine, got a second"):
        linear(inner)


class Asked(zk.StepY):
    """The target that the layer is given."""

    def step_y(self, machine: Machine, t: IO, state: State) -> IO:
        return t


def limited_pass(slot: str, features: object, seed: int | None = None) -> tuple[Machine, State, IO]:
    """A pass of a layer of four inputs and outputs whose target for x, or for y, is limited."""
    if slot == "x":
        rules = {"x": targets.Limited(targets.Gradient(), features, seed=seed)}  # type: ignore[arg-type]
    else:
        rules = {"x": targets.Null(), "y": targets.LimitedY(Asked(), features, seed=seed)}  # type: ignore[arg-type,dict-item]
    machine, state = Machine(nn.Linear(4, 4).double(), theta.Null(), **rules), State()  # type: ignore[arg-type]
    machine.remember(IO(torch.randn(12, 4).double()), state)
    return machine, state, IO(torch.randn(12, 4).double())


def asked(slot: str, machine: Machine, state: State, t: IO) -> tuple[Tensor, Tensor]:
    """The limited target, and what it may differ from."""
    if slot == "x":
        return machine.step_x(state.inputs, t, state).f, state.inputs.f.detach()
    return machine.step_y(state.inputs, t, state).f, state.outputs.f.detach()


@pytest.mark.parametrize("slot", ["x", "y"])
def test_limited_targets_differ_in_the_named_features_only(slot: str) -> None:
    machine, state, t = limited_pass(slot, [1, -1])
    limited, values = asked(slot, machine, state, t)
    full = machine.x.rule.step_x(machine, t, state) if slot == "x" else t
    assert torch.equal(limited[:, [1, 3]], full.f[:, [1, 3]])
    assert torch.equal(limited[:, [0, 2]], values[:, [0, 2]])


@pytest.mark.parametrize("slot", ["x", "y"])
def test_drawn_features_are_as_many_as_asked_and_differ_between_calls(slot: str) -> None:
    machine, state, t = limited_pass(slot, 2, seed=0)
    moved = set()
    for _ in range(30):
        limited, values = asked(slot, machine, state, t)
        moved.add(tuple((limited != values).any(0).tolist()))
    assert {sum(m) for m in moved} == {2}
    assert len(moved) == 6  # all pairs of four


@pytest.mark.parametrize("slot", ["x", "y"])
def test_features_that_are_not_there_are_refused(slot: str) -> None:
    for none in ([], 0):
        with pytest.raises(ValueError, match=r"targets\.Limited.* at least one feature"):
            limited_pass(slot, none)
    for wrong in ([4], 5):
        with pytest.raises(ValueError, match=r"targets\.Limited.* features among 4, got"):
            asked(slot, *limited_pass(slot, wrong))


def test_a_layer_learns_from_the_named_features_of_its_own_target_alone() -> None:
    x, t = batch()
    machines = []
    for own in (None, targets.LimitedY(Asked(), [0, 2])):
        torch.manual_seed(0)
        machines.append(Machine(nn.Linear(4, 3).double(), sgd(), targets.Gradient(), y=own))
    start = machines[0].module.weight.detach().clone()
    for machine in machines:
        machine.learn(x, t)
    assert torch.equal(machines[1].module.weight[[0, 2]], machines[0].module.weight[[0, 2]])
    assert torch.equal(machines[1].module.weight[1], start[1])


def test_an_output_is_no_target_of_its_own_where_targets_are_labels() -> None:
    with pytest.raises(
        TypeError, match=r"LimitedY expected targets that are places .*, got those of cross_entropy: an"
    ):
        Machine(nn.Linear(4, 3), sgd(), targets.Null(), zk.cross_entropy, y=targets.LimitedY(Asked(), 2))
    found = targets.SearchY(tansaku.HillClimb(k=64, std=0.5), score="local", seed=0)  # a place, whatever it is given
    layer = Machine(nn.Linear(4, 3), sgd(1.0), targets.Null(), zk.cross_entropy, y=targets.LimitedY(found, [1]))
    before = layer.module.weight.detach().clone()
    layer.learn(torch.randn(12, 4), torch.randint(3, (12,)))
    assert (layer.module.weight != before).any(1).tolist() == [False, True, False]


def test_local_minibatches_are_the_plain_loop_over_them() -> None:
    x, t = batch(10)
    machine = linear(theta.Gradient(torch.optim.SGD, lr=0.1, n=2, batch_size=4, seed=3))
    plain = copy.deepcopy(machine.module)
    generator = copy.deepcopy(machine.theta.noise).next()
    machine.learn(x, t)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    for _ in range(2):
        for rows in torch.randperm(10, generator=generator).split(4):
            optimizer.zero_grad()
            (0.5 * (plain(x[rows]) - t[rows]).square().sum(1)).mean().backward()
            optimizer.step()
    torch.testing.assert_close(machine.module.weight, plain.weight, rtol=1e-12, atol=1e-13)


def test_iterations_over_minibatches_of_x_are_those_over_all_rows_where_rows_are_apart() -> None:
    x, t = batch(10)
    ends = []
    for size in (None, 3):
        rule = targets.Gradient(3, scale=0.1, batch_size=size)
        machine = Machine(nn.Sequential(nn.Linear(4, 3), nn.Tanh()).double(), theta.Null(), rule)
        torch.manual_seed(0)
        for p in machine.module.parameters():
            nn.init.normal_(p)
        state = State()
        machine.remember(IO(x), state)
        ends.append(machine.step_x(state.inputs, IO(t), state).f)
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-13)


def test_sizes_of_minibatches_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match=r"n >= 1 local updates and a batch_size >= 1, got n=1 and batch_size=0"):
        theta.Gradient(batch_size=0)
    with pytest.raises(ValueError, match=r"batch_size >= 1, got n=1 and batch_size=0"):
        targets.Gradient(batch_size=0)


INNER_X: dict[str, Callable[[], zk.StepX]] = {
    "a learned inverse": lambda: targets.Reverse(nn.Linear(3, 4), lr=0.1),
    "learned feedback": lambda: targets.KolenPollack(lr=0.1),
}


@pytest.mark.parametrize("name", INNER_X)
def test_holding_the_inner_rule_for_x_still_holds_it_within_a_wrapper(name: str) -> None:
    rule = INNER_X[name]()
    machine = Machine(nn.Linear(4, 3), sgd(), targets.Limited(rule, 2))
    rule.learning = False
    before = [p.detach().clone() for p in rule.parameters()]
    state = State()
    machine.remember(IO(torch.randn(5, 4)), state)
    machine.step(*machine.tell(IO(torch.randn(5, 3)), state))
    assert not machine.x.learning
    assert all(torch.equal(a, b) for a, b in zip(before, rule.parameters(), strict=True))
    machine.x.learning = True
    state = State()
    machine.remember(IO(torch.randn(5, 4)), state)
    machine.step(*machine.tell(IO(torch.randn(5, 3)), state))
    assert not any(torch.equal(a, b) for a, b in zip(before, rule.parameters(), strict=True))


@pytest.mark.parametrize("wrap", [lambda r: theta.Filtered(r, lr=0.5), lambda r: theta.Postponed(r, every=1)])
def test_holding_the_inner_rule_for_theta_still_holds_it_within_a_wrapper(
    wrap: Callable[[StepTheta], StepTheta],
) -> None:
    x, t = batch()
    inner = sgd()
    machine = linear(wrap(inner))
    inner.learning = False
    before = machine.module.weight.detach().clone()
    machine.learn(x, t)
    assert torch.equal(machine.module.weight, before)


def test_a_wrapper_names_what_it_asks_of_the_module_itself() -> None:
    with pytest.raises(TypeError, match=r"^theta\.Filtered expected a module that is 'parameters', got ReLU: no param"):
        Machine(nn.ReLU(), theta.Filtered(theta.Null()), targets.Null())


def test_a_postponed_rule_takes_over_gradients_of_another_dtype() -> None:
    x, t = batch(4)
    saved = linear(theta.Postponed(sgd(), every=2))
    saved.learn(x, t)
    machine = linear(theta.Postponed(sgd(), every=2)).float()
    machine.load_state_dict(saved.state_dict())
    machine.learn(x.float(), t.float())
    saved.learn(x, t)
    torch.testing.assert_close(machine.module.weight, saved.module.weight.float())


def test_limited_targets_are_as_exact_as_the_inner_rules() -> None:
    torch.manual_seed(0)
    machine, state = Machine(nn.Linear(3, 2), theta.Null(), targets.Limited(targets.Gradient(), [0, 2])), State()
    y = machine.remember(IO(torch.full((2, 3), 1e6)), state)
    t = zk.values.Target.away_from(y, [torch.full((2, 2), 1e-3)])
    target = machine.step_x(*machine.tell(t, state))
    (error,) = zk.values.errors_of(state.inputs, target)
    wanted = torch.full((2, 2), 1e-3) @ machine.module.weight.detach() * torch.tensor([1.0, 0.0, 1.0])  # type: ignore[operator]
    torch.testing.assert_close(error, wanted)


def test_limited_targets_of_no_rows_have_no_rows() -> None:
    machine, state = Machine(nn.Linear(3, 2), theta.Null(), targets.Limited(targets.Gradient(), 2)), State()
    machine.remember(IO(torch.zeros(0, 3)), state)
    assert machine.step_x(*machine.tell(IO(torch.zeros(0, 2)), state)).f.shape == (0, 3)


class Spy(nn.Module):
    """Dropout that notes what it has thinned."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout, self.seen = nn.Dropout(0.5), []

    def forward(self, x: Tensor) -> Tensor:
        y = self.dropout(x)
        self.seen.append(y == 0)
        return y


def test_every_local_minibatch_has_dropout_masks_of_its_own() -> None:
    spy = Spy()
    rules = theta.Gradient(n=2, batch_size=4, seed=0), targets.Gradient(2, batch_size=4, seed=0)
    machine, state = Machine(nn.Sequential(spy, nn.Linear(16, 2)), *rules), State()
    machine.remember(IO(torch.ones(8, 16)), state)
    told = machine.tell(IO(torch.ones(8, 2)), state)
    machine.train()
    for act in (machine.step_x, machine.step):
        spy.seen.clear()
        act(*told)
        assert len({tuple(mask.flatten().tolist()) for mask in spy.seen}) == 4


def climbing(write: object = "best") -> theta.Search:
    return theta.Search(tansaku.HillClimb(k=8, std=0.3), write=write, seed=0)  # type: ignore[arg-type]


def begun(machine: Machine, monkeypatch: pytest.MonkeyPatch, steps: int = 6) -> int:
    """How many searches begin in so many steps on one batch."""
    torch.manual_seed(2)
    starts: list[int] = []
    init = tansaku.HillClimb.init

    def counted(self: tansaku.HillClimb, start: tansaku.Population) -> object:
        starts.append(1)
        return init(self, start)

    x, t = batch(40)
    with monkeypatch.context() as patched:
        patched.setattr(tansaku.HillClimb, "init", counted)
        for _ in range(steps):
            machine.learn(x, t)
    return len(starts)


FEW = {"weight": torch.tensor([[True, False, False, True]]), "bias": torch.tensor([True, False, False])}
AROUND: dict[str, Callable[[StepTheta], StepTheta]] = {
    "limited": lambda r: theta.Limited(r, FEW),
    "filtered": lambda r: theta.Filtered(r, torch.optim.SGD, lr=0.5, momentum=0.5),
    "limited filtered": lambda r: theta.Limited(theta.Filtered(r, torch.optim.SGD, lr=0.5), FEW),
    "filtered limited": lambda r: theta.Filtered(theta.Limited(r, FEW), torch.optim.SGD, lr=0.5),
    "limited limited": lambda r: theta.Limited(theta.Limited(r, FEW), {"weight": torch.ones(1, dtype=torch.bool)}),
}


@pytest.mark.parametrize("name", AROUND)
def test_a_wrapped_search_goes_on_from_step_to_step(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = linear(AROUND[name](climbing()))
    start = {n: p.detach().clone() for n, p in machine.module.named_parameters()}
    assert begun(machine, monkeypatch) == 1
    if "limited" in name:
        moved = machine.module.weight != start["weight"]
        assert moved.any(0).tolist() == [True, False, False, True]
        assert (machine.module.bias != start["bias"]).tolist() == [name != "limited limited", False, False]
        (search,) = (rule for rule in machine.theta.modules() if isinstance(rule, theta.Search))
        assert search._masks.keys() == ({"weight"} if name == "limited limited" else {"weight", "bias"})
    copied = copy.deepcopy(machine)
    fresh = linear(AROUND[name](climbing()))
    fresh.load_state_dict(machine.state_dict())
    for each in (machine, copied, fresh):
        torch.manual_seed(1)
        assert begun(each, monkeypatch, 2) == 0
    for other in (copied, fresh):
        assert all(torch.equal(a, b) for a, b in zip(machine.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("name", AROUND)
def test_weights_loaded_into_a_wrapped_search_begin_it_anew(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = linear(AROUND[name](climbing()))
    begun(machine, monkeypatch)
    with torch.no_grad():
        machine.module.weight.add_(1.0)
    assert begun(machine, monkeypatch) == 1


def test_a_limited_search_is_the_search_of_these_entries_alone() -> None:
    x, t = batch(40)

    class Few(nn.Module):
        """A linear layer whose first column is all that it has of parameters."""

        def __init__(self, whole: nn.Linear) -> None:
            super().__init__()
            self.weight = nn.Parameter(whole.weight.detach()[:, 0].clone())
            self.rest, self.bias = whole.weight.detach()[:, 1:].clone(), whole.bias.detach().clone()

        def forward(self, x: Tensor) -> Tensor:
            return x @ torch.cat([self.weight[:, None], self.rest], 1).T + self.bias

    limited = linear(theta.Limited(climbing(), {"weight": torch.tensor([True, False, False, False])}))
    few = Machine(Few(limited.module), climbing(), targets.Null())  # type: ignore[arg-type]
    for _ in range(10):
        torch.testing.assert_close(limited.learn(x, t), few.learn(x, t), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(limited.module.weight[:, 0], few.module.weight, rtol=1e-12, atol=1e-12)


def test_a_limited_search_never_makes_the_layer_worse() -> None:
    x, t = batch(40)
    machine = linear(theta.Limited(climbing(), FEW))
    costs = [machine.learn(x, t) for _ in range(20)]
    assert all(b <= a for a, b in itertools.pairwise(costs))
    assert costs[-1] < costs[0]


def test_masks_drawn_anew_begin_a_search_at_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = linear(theta.Limited(climbing(), lambda g: {"weight": torch.rand(3, 4, generator=g) < 0.5}, seed=0))
    torch.manual_seed(2)
    x, t = batch(40)
    first = machine.test(x, t)
    assert begun(machine, monkeypatch) == 6
    assert machine.test(x, t) < first
    nothing = linear(theta.Limited(climbing(), {"weight": torch.zeros(1, dtype=torch.bool)}))
    before = nothing.module.weight.detach().clone()
    assert begun(nothing, monkeypatch) == 0
    assert torch.equal(nothing.module.weight, before)


def test_a_filtered_search_follows_its_inertia_from_where_the_filter_left_the_weights() -> None:
    x, t = batch(40)
    follow = tansaku.Momentum(tansaku.Mean(), 0.5)
    machine = linear(theta.Filtered(climbing(follow), torch.optim.SGD, lr=0.5))
    for _ in range(3):
        machine.learn(x, t)
        memory = machine.theta.rule._memory
        assert torch.equal(memory.current["weight"], machine.module.weight)
    assert memory.velocity["weight"].abs().sum() > 0
