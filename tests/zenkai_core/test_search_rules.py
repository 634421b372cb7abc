"""Search as a rule: for a layer's inputs, its own outputs, and its parameters."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tansaku
from zenkai_core import IO, Chain, Machine, Optimizer, State, cross_entropy, modules, sse, targets, theta


def climb(k: int = 16, std: float = 0.5, **options: bool) -> tansaku.HillClimb:
    return tansaku.HillClimb(k=k, std=std, **options)


def told(machine: Machine, x: Tensor, t: Tensor) -> tuple[IO, IO, State]:
    """A pass of the machine in training mode, and its arguments."""
    machine.train()
    state = State()
    machine.remember(IO(x), state)
    return IO(x), IO(t), state


def cost_of(machine: Machine, x: IO, t: IO, state: State) -> Tensor:
    return machine.cost(machine.frozen(x, state), t, state)


ALGORITHMS: dict[str, Callable[[], tansaku.Algorithm]] = {
    "hill_climb": lambda: climb(),
    "ga": lambda: tansaku.GA(k=16, mutate=tansaku.Gaussian(0.3)),
    "pso": lambda: tansaku.PSO(k=16, std=1.5),
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_no_row_gets_a_worse_target_than_its_own_input_and_most_get_a_better_one(name: str) -> None:
    torch.manual_seed(0)
    rule = targets.SearchX(ALGORITHMS[name](), generations=5, seed=0)
    machine = Machine(nn.Sequential(nn.Linear(4, 3), modules.Sign(), nn.Linear(3, 2)), theta.Null(), rule)
    x, t, state = told(machine, torch.randn(30, 4), torch.randn(30, 2))
    before, target = cost_of(machine, x, t, state), machine.step_x(x, t, state)
    after = cost_of(machine, target, t, state)
    rounding = 1e-5 * before  # the search's products had the rows of all candidates, those here have 30
    better = float((after < before - rounding).float().mean())
    assert (after <= before + rounding).all()
    assert better > 0.5
    assert rule.moved is not None
    assert float(rule.moved) == float((target.f != x.f).any(1).float().mean()) >= better


def test_every_row_is_a_search_of_its_own() -> None:
    """What one row is told does not depend on the other rows' targets."""
    answers = []
    for other in (0.0, 100.0):
        torch.manual_seed(0)
        machine = Machine(nn.Linear(3, 2), theta.Null(), targets.SearchX(climb(), generations=4, seed=1))
        t = torch.zeros(5, 2)
        t[1:] = other
        answers.append(machine.step_x(*told(machine, torch.ones(5, 3), t)).f)
    assert torch.equal(answers[0][0], answers[1][0])
    assert not torch.equal(answers[0][1], answers[1][1])


def test_batch_norm_is_frozen_so_that_candidates_do_not_vote_on_each_other() -> None:
    """With the incumbent as every candidate, every cost is exactly that of the pass."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)).double()
    seen: list[Tensor] = []

    def criterion(y: IO, t: IO) -> Tensor:
        seen.append(sse(y, t))
        return seen[-1]

    class Stay(tansaku.Mutation):
        def mutate(self, name: str, x: Tensor, batch_ndim: int, noise: tansaku.Noise) -> Tensor:
            return x

    machine = Machine(module, theta.Null(), targets.SearchX(tansaku.HillClimb(k=3, mutate=Stay()), seed=0), criterion)
    x, t, state = told(machine, torch.randn(7, 3, dtype=torch.float64), torch.zeros(7, 2, dtype=torch.float64))
    buffers = {name: b.clone() for name, b in module.named_buffers()}
    machine.step_x(x, t, state)
    expected = sse(state.outputs, t).detach()
    for cost in seen:
        torch.testing.assert_close(cost.view(-1, 7), expected.expand(cost.numel() // 7, 7), rtol=0, atol=1e-12)
    assert all(torch.equal(b, buffers[name]) for name, b in module.named_buffers())


def test_the_standardised_mean_points_against_the_gradient_of_a_smooth_cost() -> None:
    torch.manual_seed(0)
    reduce = tansaku.WeightedMean("standardised")
    rule = targets.SearchX(climb(k=512, std=0.05, adapt=False, antithetic=True), reduce=reduce, seed=0)
    machine = Machine(nn.Linear(6, 4), theta.Null(), rule)
    x, t, state = told(machine, torch.randn(20, 6), torch.randn(20, 4))
    step = machine.step_x(x, t, state).f - x.f
    leaf = x.f.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(sse(IO(machine.module(leaf)), t).sum(), leaf)
    assert (torch.cosine_similarity(step, -gradient, dim=1) > 0.9).all()


def test_local_and_network_scores_differ_by_the_layers_above() -> None:
    """By the local score the target follows t, by the network's it follows the labels."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    try:
        labels = torch.randint(3, (40,))
        found = {}
        for score in ("local", "network"):
            torch.manual_seed(1)
            low = Machine(nn.Linear(5, 4), theta.Null(), targets.Null())
            mid = Machine(nn.Linear(4, 4), theta.Null(), targets.SearchX(climb(), score=score, generations=10, seed=0))
            top = Machine(nn.Linear(4, 3), theta.Null(), targets.Null(), cross_entropy)
            chain, state = Chain(low, mid, top), State()
            y = chain.remember(IO(torch.randn(40, 5)), state)
            chain.accumulate(state.inputs, IO(labels), state)
            told_low = state.sub("0").t
            assert told_low is not None
            found[score] = cross_entropy(top.frozen(mid.frozen(told_low, state.sub("1")), state.sub("2")), IO(labels))
            before = cross_entropy(y, IO(labels))
        assert torch.equal(found["local"], before)  # top.x is Null: mid is told that its output was right
        assert (found["network"] < before).all()
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("reduce", [None, tansaku.WeightedMean("standardised")], ids=["best", "mean"])
def test_signs_learn_by_searches_that_the_network_scores_in_an_ordinary_loop_too(reduce: Any) -> None:
    torch.manual_seed(0)
    x = torch.randn(512, 8)
    t = (x[:, :4].sum(1) > 0).long() + 2 * (x[:, 4:].sum(1) > 0).long()
    own = targets.SearchY(climb(32, 1.0), reduce=reduce)
    net = Chain(
        Machine(nn.Linear(8, 32), theta.Delta(torch.optim.Adam, lr=1e-2), targets.Null(), y=own),
        Machine(modules.Sign(), theta.Null(), targets.Null()),
        Machine(nn.Linear(32, 4), theta.Gradient(torch.optim.Adam, lr=1e-2), targets.Null(), cross_entropy),
    )
    before, optimizer = net[0].module.weight.detach().clone(), Optimizer(net)
    for _ in range(15):
        for rows in torch.randperm(512).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[rows]), t[rows]).backward()
            optimizer.step()
    net.eval()
    learnt = (net(x).argmax(1) == t).double().mean()
    with torch.no_grad():
        net[0].module.weight.copy_(before)
    assert learnt > 0.9
    assert learnt > (net(x).argmax(1) == t).double().mean() + 0.2


def test_a_layers_own_target_replaces_the_one_from_above() -> None:
    torch.manual_seed(0)
    rule = targets.SearchY(climb(), score="local", generations=30, seed=0)
    machine = Machine(nn.Linear(4, 3), theta.Delta(torch.optim.SGD, lr=0.0), targets.Null(), cross_entropy, y=rule)
    x, labels = torch.randn(12, 4), torch.randint(3, (12,))
    _, t, state = told(machine, x, labels)
    machine.tell(t, state)
    assert state.t is not None
    assert state.t.f.shape == (12, 3)
    assert (cross_entropy(state.t, t) < cross_entropy(state.outputs.detach(), t)).all()
    expected = (state.outputs.f.detach() - state.t.f).T @ x / 12
    torch.testing.assert_close(machine.module.weight.grad, expected)


def test_relative_steps_are_in_units_of_the_batchs_spread() -> None:
    """Outputs 1,000 times as large get steps 1,000 times as large."""
    moves = []
    for size in (1.0, 1000.0):
        rule = targets.SearchX(climb(std=0.1), relative=True, seed=0)
        machine = Machine(nn.Linear(3, 1), theta.Null(), rule)
        nn.init.constant_(machine.module.weight, 1 / size)
        nn.init.zeros_(machine.module.bias)
        x = torch.linspace(-1, 1, 24).view(8, 3) * size
        moves.append((machine.step_x(*told(machine, x, torch.full((8, 1), 5.0))).f - x) / size)
    torch.testing.assert_close(moves[0], moves[1], rtol=1e-3, atol=1e-5)


def test_chunks_do_not_change_the_answer() -> None:
    answers = []
    for chunk in (None, 3):
        torch.manual_seed(0)
        machine = Machine(nn.Linear(3, 2), theta.Null(), targets.SearchX(climb(), generations=3, chunk=chunk, seed=0))
        answers.append(machine.step_x(*told(machine, torch.randn(6, 3), torch.zeros(6, 2))).f)
    torch.testing.assert_close(answers[0], answers[1])


def test_an_integer_input_stays_as_it_is_while_the_others_move() -> None:
    class Pick(nn.Module):
        def forward(self, x: Tensor, i: Tensor) -> Tensor:
            return x.gather(1, i)

    machine = Machine(Pick(), theta.Null(), targets.SearchX(climb(), generations=3, seed=0))
    x, i, state = torch.zeros(5, 2), torch.ones(5, 1, dtype=torch.int64), State()
    machine.remember(IO(x, i), state)
    moved, index = machine.step_x(IO(x, i), IO(torch.ones(5, 1)), state)
    assert torch.equal(index, i)
    assert (moved[:, 1] > 0).all()


def test_more_generations_find_better_targets() -> None:
    costs = []
    for generations in (1, 20):
        torch.manual_seed(0)
        rule = targets.SearchX(climb(std=0.2), generations=generations, seed=0)
        machine = Machine(nn.Linear(4, 2), theta.Null(), rule)
        x, t, state = told(machine, torch.randn(20, 4), torch.randn(20, 2))
        costs.append(cost_of(machine, machine.step_x(x, t, state), t, state).mean())
    assert costs[1] < 0.5 * costs[0]


@pytest.mark.parametrize("taken", ["copied", "saved"])
def test_a_search_that_moved_rows_before_it_was_resumed_does_not_say_that_it_moved_none(taken: str) -> None:
    def make(std: float) -> Machine:
        return Machine(nn.Linear(2, 1), theta.Null(), targets.SearchX(climb(std=std), seed=0))

    machine = make(0.3)
    pass_ = told(machine, torch.ones(3, 2), torch.zeros(3, 1))
    for _ in range(10):
        machine.step_x(*pass_)
    other = copy.deepcopy(machine) if taken == "copied" else make(1e-30)
    other.load_state_dict(machine.state_dict())
    other.x.algorithm = climb(std=1e-30)
    pass_ = told(other, torch.ones(3, 2), torch.zeros(3, 1))
    for _ in range(15):  # the calls 11 to 25: warnings are errors here
        other.step_x(*pass_)
    assert int(other.x.noise.key[1]) == 25


def test_a_search_that_moves_nothing_warns_once() -> None:
    machine = Machine(nn.Linear(2, 1), theta.Null(), targets.SearchX(climb(std=1e-30), seed=0))
    pass_ = told(machine, torch.ones(3, 2), torch.zeros(3, 1))
    for _ in range(19):
        machine.step_x(*pass_)
    with pytest.warns(UserWarning, match="moved no row in its first 20 calls"):
        machine.step_x(*pass_)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(25):
            machine.step_x(*pass_)


def test_a_search_below_a_layer_without_targets_is_told_that_nothing_can_move() -> None:
    lower = Machine(nn.Linear(2, 2), theta.Null(), targets.SearchX(climb(std=0.5), seed=0))
    upper = Machine(nn.Linear(2, 1), theta.Null(), targets.Null())
    below = Machine(nn.Linear(2, 2), theta.Null(), targets.Null())
    net = Chain(below, lower, upper)
    for _ in range(19):
        net.learn(torch.ones(3, 2), torch.zeros(3, 1))
    with pytest.warns(UserWarning, match=r"the layer above has targets\.Null\(\), the target equals the output"):
        net.learn(torch.ones(3, 2), torch.zeros(3, 1))


def test_an_annealed_algorithm_is_told_the_number_of_calls() -> None:
    calls: list[int] = []

    def anneal(count: int) -> tansaku.HillClimb:
        calls.append(count)
        return climb(std=1.0 / (1 + count))

    machine = Machine(nn.Linear(2, 1), theta.Null(), targets.SearchX(anneal, seed=0))
    for _ in range(3):
        machine.step_x(*told(machine, torch.ones(3, 2), torch.zeros(3, 1)))
    assert calls == [0, 1, 2]


@pytest.mark.parametrize("rule", [targets.SearchX, targets.SearchY])
def test_wrong_arguments_of_a_target_search_say_the_remedy(rule: type) -> None:
    with pytest.raises(TypeError, match=r"expected a tansaku algorithm .* got str"):
        rule("pso")
    with pytest.raises(ValueError, match="expected score 'local' or 'network', got 'global'"):
        rule(climb(), score="global")
    with pytest.raises(ValueError, match="expected generations >= 1, got 0"):
        rule(climb(), generations=0)


# ------------------------------------------------------------------------------------------------------ parameters
@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_search_of_parameters_learns_without_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(2, 6), modules.Sign(), nn.Linear(6, 1))
    machine = Machine(module, theta.Search(ALGORITHMS[name](), generations=3, seed=0), targets.Null())
    x, t = torch.randn(40, 2), torch.randn(40, 1)
    first = machine.learn(x, t)
    for _ in range(30):
        last = machine.learn(x, t)
    assert last < 0.8 * first


def test_the_search_begins_with_the_layers_own_weights_and_never_loses_them() -> None:
    """At the optimum nothing better exists, so the weights stay bit by bit."""
    torch.manual_seed(0)
    machine = Machine(nn.Linear(3, 2), theta.Search(climb(), generations=5, seed=0), targets.Null())
    x = torch.randn(10, 3)
    before = copy.deepcopy(machine.module.state_dict())
    machine.learn(x, machine.module(x).detach())
    assert all(torch.equal(before[name], p) for name, p in machine.module.state_dict().items())


def test_candidates_cost_what_a_loop_over_functional_calls_says() -> None:
    torch.manual_seed(0)
    seen: list[tansaku.Population] = []

    class Spy(tansaku.HillClimb):
        def tell(self, state: tansaku.HillClimbState, asked: tansaku.Population) -> tansaku.HillClimbState:
            seen.append(asked)
            return super().tell(state, asked)

    rule = theta.Search(Spy(k=5, std=0.3), chunk=2, seed=0)
    machine = Machine(nn.Linear(3, 2).double(), rule, targets.Null())
    x, t = torch.randn(7, 3, dtype=torch.float64), torch.randn(7, 2, dtype=torch.float64)
    machine.learn(x, t)
    (asked,) = seen
    for i in range(5):
        y = torch.func.functional_call(machine.module, {name: g[i] for name, g in asked.genes.items()}, x)
        torch.testing.assert_close(asked.cost[i], sse(IO(y), IO(t)).mean())


def test_remembered_weights_are_assessed_again_on_every_batch() -> None:
    torch.manual_seed(0)
    machine = Machine(nn.Linear(2, 1), theta.Search(climb(), seed=0), targets.Null())
    for target in (0.0, 50.0):
        x = torch.randn(6, 2)
        t = torch.full((6, 1), target)
        machine.learn(x, t)
        found = machine.theta._state.incumbent
        y = torch.func.functional_call(machine.module, {n: g[0] for n, g in found.genes.items()}, x)
        torch.testing.assert_close(found.cost[0], sse(IO(y), IO(t)).mean())


def test_a_frozen_parameter_is_not_searched() -> None:
    torch.manual_seed(0)
    module = nn.Linear(2, 1)
    module.bias.requires_grad_(False)
    bias = module.bias.clone()
    machine = Machine(module, theta.Search(climb(), seed=0), targets.Null())
    weight = module.weight.detach().clone()
    for _ in range(5):
        machine.learn(torch.randn(9, 2), torch.ones(9, 1))
    assert torch.equal(module.bias, bias)
    assert not torch.equal(module.weight, weight)


def test_all_accumulated_passes_count() -> None:
    """One step on two halves is one step on the whole, cost summed over equally large passes."""
    weights = []
    for halves in (False, True):
        torch.manual_seed(0)
        machine = Machine(nn.Linear(3, 1).double(), theta.Search(climb(), generations=4, seed=0), targets.Null())
        x, t = torch.randn(8, 3, dtype=torch.float64), torch.randn(8, 1, dtype=torch.float64)
        for part in (slice(0, 4), slice(4, 8)) if halves else (slice(0, 8),):
            state = State()
            machine.remember(IO(x[part]), state)
            machine.accumulate(IO(x[part]), IO(t[part]), state)
        machine.step(IO(x), IO(t), state)
        weights.append(machine.module.weight.detach().clone())
    torch.testing.assert_close(weights[0], weights[1])


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_saved_search_goes_on_bit_by_bit(name: str) -> None:
    def make() -> Machine:
        torch.manual_seed(0)
        return Machine(nn.Linear(3, 2), theta.Search(ALGORITHMS[name](), seed=0), targets.Null())

    x, t = torch.randn(3, 10, 3), torch.randn(3, 10, 2)
    whole, first = make(), make()
    for i in range(3):
        whole.learn(x[i], t[i])
    first.learn(x[0], t[0])
    second = make()
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for i in (1, 2):
        second.learn(x[i], t[i])
    assert torch.equal(whole.module.weight, second.module.weight)


def test_wrong_arguments_of_a_parameter_search_say_the_remedy() -> None:
    with pytest.raises(TypeError, match=r"theta\.Search expected a tansaku algorithm .* got str"):
        theta.Search("pso")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected write 'estimate', 'best' or a reducer, got 'mean'"):
        theta.Search(climb(), write="mean")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="parameters"):
        Machine(nn.ReLU(), theta.Search(climb()), targets.Null())


def searching(**options: object) -> Machine:
    torch.manual_seed(0)
    return Machine(nn.Linear(4, 2), theta.Search(climb(std=0.01), seed=0, **options), targets.Null())  # type: ignore[arg-type]


def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(8, 4), torch.randn(8, 2)


def test_a_parameter_frozen_later_stays_where_it_is() -> None:
    machine = searching()
    machine.learn(*batch())
    machine.module.bias.requires_grad_(False)
    bias, weight = machine.module.bias.detach().clone(), machine.module.weight.detach().clone()
    for _ in range(10):
        machine.learn(*batch())
    assert torch.equal(bias, machine.module.bias)
    assert not torch.equal(weight, machine.module.weight)
    machine.module.weight.requires_grad_(False)
    machine.learn(*batch())


def test_weights_written_from_outside_are_where_the_search_goes_on() -> None:
    machine = searching()
    for _ in range(3):
        machine.learn(*batch())
    with torch.no_grad():
        machine.module.weight.fill_(7.0)
    machine.learn(*batch())
    assert (machine.module.weight - 7).abs().max() < 0.1


def test_a_search_goes_on_in_another_dtype() -> None:
    machine = searching()
    machine.learn(*batch())
    before = machine.module.weight.detach().clone()
    machine.double()
    x, t = batch()
    machine.learn(x.double(), t.double())
    assert machine.module.weight.dtype == torch.float64
    assert (machine.module.weight - before).abs().max() < 0.1


def test_the_state_of_another_algorithm_is_refused() -> None:
    state = searching().state_dict()
    for other in (tansaku.PSO(k=16), climb(k=8)):
        machine = Machine(nn.Linear(4, 2), theta.Search(other), targets.Null())
        with pytest.raises(ValueError, match="got that of HillClimb with k=16: make the rule with the algorithm"):
            machine.load_state_dict(state)


class Recurrent(nn.Module):
    """A GRU over the steps of each row, its last output."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(x)[0][:, -1]


def test_a_module_that_vmap_does_not_take_is_searched_in_a_loop_with_one_warning() -> None:
    machine = Machine(Recurrent(), theta.Search(climb(), seed=0), targets.SearchX(climb(), seed=0))
    x, t = torch.randn(8, 5, 3), torch.zeros(8, 2)
    with pytest.warns(UserWarning, match="candidates of Recurrent one after another"):
        first = machine.learn(x, t)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(10):
            last = machine.learn(x, t)
        assert last < first
        Machine(Recurrent(), theta.Search(climb(), loop=True), targets.Null()).learn(x, t)


def test_the_loop_over_candidates_is_the_vmap() -> None:
    machines = [searching(), searching(loop=True)]
    x, t = batch()
    for machine in machines:
        for _ in range(3):
            machine.learn(x, t)
    assert torch.allclose(machines[0].module.weight, machines[1].module.weight, atol=1e-6)


def test_rows_that_a_search_in_relative_units_leaves_are_the_rows_of_the_pass() -> None:
    torch.manual_seed(0)
    rule = targets.SearchX(tansaku.HillClimb(k=1, std=5.0), relative=True, seed=0)
    machine, state = Machine(nn.Linear(3, 2), theta.Null(), rule), State()
    y = machine.remember(IO(torch.randn(200, 3) * 3), state)
    target = machine.step_x(*machine.tell(y.detach(), state))  # nothing can be better
    assert torch.equal(target.f, state.inputs.f)
    assert rule.moved == 0
