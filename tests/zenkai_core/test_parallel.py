"""Machines side by side: the layer that they are together, and whose target is whose."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tansaku
import zenkai_core as zk
from zenkai_core import IO, Chain, Machine, Parallel, State

GROUPS = [[0, 3], [1, 2, 4]]


def machine(module: nn.Module, **kw: zk.Criterion) -> Machine:
    return Machine(module, zk.theta.Gradient(torch.optim.SGD, lr=0.1), zk.targets.Gradient(), **kw)


class Plain(nn.Module):
    """The same blocks by hand."""

    def __init__(self, blocks: Sequence[nn.Module], groups: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.blocks, self.groups = nn.ModuleList(blocks), groups

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([block(x[:, group]) for block, group in zip(self.blocks, self.groups, strict=True)], 1)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("split", "groups"),
    [
        (None, [range(5), range(5)]),
        ((2, 3), [[0, 1], [2, 3, 4]]),
        (GROUPS, GROUPS),
        (([0, 1, 2], torch.tensor([2, 3])), [[0, 1, 2], [2, 3]]),  # feature 2 in both, 4 in none
    ],
)
@pytest.mark.parametrize("explicit", [True, False])
def test_a_parallel_is_the_dense_or_block_layer_by_backpropagation(split, groups, explicit: bool) -> None:
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(len(g), 3), nn.Tanh()) for g in groups]
    plain = nn.Sequential(nn.Linear(4, 5), Plain(blocks, groups), nn.Linear(6, 3))
    ours = copy.deepcopy(plain)
    middle = Parallel(*map(machine, ours[1].blocks), split=split)
    net = Chain(machine(ours[0]), middle, machine(ours[2], criterion=zk.cross_entropy))
    optimizer, steps = torch.optim.SGD(plain.parameters(), lr=0.1), zk.Optimizer(net)
    for _ in range(5):
        x, labels = torch.randn(8, 4), torch.randint(3, (8,))
        optimizer.zero_grad()
        F.cross_entropy(plain(x), labels).backward()
        optimizer.step()
        if explicit:
            net.learn(x, labels)
        else:
            F.cross_entropy(net(x), labels).backward()
            steps.step()
    for (name, p), q in zip(plain.named_parameters(), ours.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=0, atol=1e-14), name


@pytest.mark.usefixtures("float64")
def test_as_a_head_its_criterion_is_the_tasks_and_channels_are_split_too() -> None:
    torch.manual_seed(0)
    blocks = [nn.Conv2d(2, 2, 3), nn.Conv2d(1, 2, 3)]
    plain = Plain(copy.deepcopy(blocks), [[0, 1], [2]])
    head = Parallel(*map(machine, blocks), split=(2, 1), criterion=zk.cross_entropy)
    x, labels = torch.randn(4, 3, 5, 5, requires_grad=True), torch.randint(4, (4, 3, 3))
    loss = F.cross_entropy(plain(x), labels)
    loss.backward()
    state = State()
    head.remember(IO(x.detach()), state)
    assert torch.allclose(head.assess_y(state.outputs, IO(labels)).mean(), loss)
    told = head.tell(IO(labels), state)
    assert torch.allclose(x.detach() - head.step_x(*told).f, 4 * x.grad, rtol=0, atol=1e-14)
    for p, q in zip(plain.parameters(), nn.ModuleList(blocks).parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, rtol=0, atol=1e-14)


class Says(zk.LearningMachine):
    """Passes its input on, is told a target, and asks for one of its own."""

    def __init__(self, target: float) -> None:
        super().__init__()
        self.target = target
        self.told: list[IO] = []

    def forward_nn(self, x: IO, state: State) -> IO:
        return IO(x.f * 1.0)

    def accumulate(self, x: IO, t: IO, state: State) -> None:
        self.told.append(t)

    def step_x(self, x: IO, t: IO, state: State) -> IO:
        return IO(torch.full_like(x.f, self.target))


@pytest.mark.parametrize(
    ("split", "combine", "expected"),
    [
        ((1, 2), "sum", [4, 9, 9]),
        ([[1], [2, 0]], "sum", [9, 4, 9]),
        ([[1], [0]], "sum", [9, 4, 1]),
        ([[0, 1], [1, 2]], "sum", [4, 4 + 9 - 1, 9]),
        ([[0, 1], [1, 2]], "mean", [4, 6.5, 9]),
        (None, "sum", [12, 12, 12]),
        (None, "mean", [6.5, 6.5, 6.5]),
    ],
)
def test_absolute_targets_of_the_input_go_where_they_belong(split, combine, expected: list[float]) -> None:
    net, state = Parallel(Says(4.0), Says(9.0), split=split, combine=combine), State()
    net.remember(x := IO(torch.ones(2, 3)), state)
    told = net.tell(IO(torch.zeros_like(state.outputs.f)), state)
    assert net.step_x(*told).f.tolist() == [expected] * 2
    assert torch.equal(x.f, torch.ones(2, 3))


def test_each_machine_is_told_its_part_of_the_target() -> None:
    a, b = Says(0.0), Says(0.0)
    Parallel(a, b, split=(1, 2)).learn(torch.ones(1, 3), torch.tensor([[5.0, 6.0, 7.0]]))
    assert [m.told[0].f.tolist() for m in (a, b)] == [[[5.0]], [[6.0, 7.0]]]


def test_targets_may_be_asked_without_accumulating_and_again_after_a_step() -> None:
    net, x, t = (
        Parallel(machine(nn.Linear(3, 2)), machine(nn.Linear(3, 1))),
        IO(torch.randn(4, 3)),
        IO(torch.randn(4, 3)),
    )
    alone, state = State(), State()
    net.remember(x, alone)
    asked = net.step_x(x, t, alone)
    assert all(p.grad is None for p in net.parameters())
    net.remember(x, state)
    told = net.tell(t, state)
    assert torch.equal(net.step_x(*told).f, asked.f)
    net.step(*told)
    w = torch.cat([m.module.weight for m in net.machines])  # after the step, the moved parameters carry the error
    y = torch.cat([m.module(x.f) for m in net.machines], 1)
    assert torch.allclose(net.step_x(*told).f, x.f - (y - t.f) @ w, atol=1e-6)


def test_a_machine_side_by_side_with_itself_shares_its_weights_and_steps_once() -> None:
    m = machine(nn.Linear(2, 2))
    plain = copy.deepcopy(m.module)
    x, t = torch.randn(6, 4), torch.randn(6, 4)
    Parallel(m, m, split=(2, 2)).learn(x, t)
    (0.5 * (Plain([plain, plain], [[0, 1], [2, 3]])(x) - t).square().sum() / 6).backward()
    assert torch.allclose(m.module.weight, plain.weight - 0.1 * plain.weight.grad, atol=1e-6)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("split", [None, (2, 1)])
def test_each_machine_knows_the_networks_loss_what_is_beside_it_held(split) -> None:
    a, b = (machine(nn.Linear(i, 2)) for i in ((3, 3) if split is None else (2, 1)))
    head = machine(nn.Linear(4, 2), criterion=zk.cross_entropy)
    below, layer = machine(nn.Linear(3, 3)), Parallel(a, b, split=split)
    net, state = Chain(below, layer, head), State()
    x, labels = torch.randn(5, 3), torch.randint(2, (5,))
    net.remember(IO(x), state)
    net.tell(IO(labels), state)
    sub, other = state.sub("1").sub("0"), state.sub("1").sub("1").outputs.f
    moved = torch.randn(15, 2)
    expected = F.cross_entropy(
        head.module(torch.cat([moved, other.repeat(3, 1)], 1)), labels.repeat(3), reduction="none"
    )
    assert torch.allclose(sub.cost_above(IO(moved)), expected)
    assert torch.allclose(sub.output_error()[0], state.sub("2").outputs.f.softmax(1) - F.one_hot(labels, 2))
    assert (sub.incoming is None) if split else (sub.incoming[0] is below)


def test_rules_of_every_kind_learn_side_by_side() -> None:
    torch.manual_seed(0)
    climb = tansaku.HillClimb(k=8, std=0.1)
    parts: list[Callable[[], Machine]] = [
        lambda: machine(nn.Linear(4, 3)),
        lambda: Machine(nn.Linear(4, 3), zk.theta.Search(climb, seed=0), zk.targets.SearchX(climb, seed=0)),
        lambda: Machine(nn.Linear(4, 3), zk.theta.Delta(torch.optim.SGD, lr=0.1), zk.targets.Null()),
    ]
    net = Chain(
        Parallel(*(make() for make in parts)), Parallel(*(machine(nn.Linear(3, 1)) for _ in parts), split=(3, 3, 3))
    )
    x, t = torch.randn(20, 4), torch.randn(20, 3)
    first = net.learn(x, t)
    for _ in range(30):
        last = net.learn(x, t)
    assert last < 0.8 * first


def test_a_copied_pickled_or_saved_parallel_goes_on_alike() -> None:
    def make() -> Parallel:
        return Parallel(machine(nn.Linear(2, 2)), machine(nn.Linear(3, 1)), split=GROUPS)

    net, x, t = make(), torch.randn(4, 5), torch.randn(4, 3)
    net.learn(x, t)
    loaded = make()
    loaded.load_state_dict(net.state_dict())
    several = [net, loaded, copy.deepcopy(net), pickle.loads(pickle.dumps(net))]
    assert len({tuple(m.learn(x, t).item() for _ in range(3)) for m in several}) == 1
    assert (len(net), net[-1]) == (2, net.machines[1])


def test_a_recorder_listens_to_machines_side_by_side() -> None:
    net = Chain(Parallel(machine(nn.Linear(2, 2)), machine(nn.Linear(2, 1))), machine(nn.Linear(3, 1)))
    with zk.Recorder(net) as recorder:
        net.learn(torch.randn(4, 2), torch.randn(4, 1))
    assert [row["layer"] for row in recorder.rows()] == ["1", "0.0", "0.1"]
    assert all(row["global_theta"] > 0 for row in recorder.rows())


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ((2,), "a split for each of 2 machines, got 1"),
        ((2, 0), "sizes >= 1 or lists of feature indices >= 0"),
        ((2, [1]), "sizes >= 1 or lists"),
        (([0, 0], [1]), "sizes >= 1 or lists"),
        (([0], [-1]), "sizes >= 1 or lists"),
        (([0], []), "sizes >= 1 or lists"),
    ],
)
def test_a_split_that_cannot_be_is_refused(split, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Parallel(Says(0.0), Says(0.0), split=split)


def test_inputs_outputs_and_targets_that_do_not_fit_are_refused() -> None:
    x = torch.ones(2, 3)
    with pytest.raises(ValueError, match=r"an input of 4 features, got \[2, 3\]"):
        Parallel(Says(0.0), Says(0.0), split=(2, 2)).learn(x, x)
    with pytest.raises(ValueError, match=r"an input of 5 features, got \[2, 3\]"):
        Parallel(Says(0.0), Says(0.0), split=([4], [0])).learn(x, x)
    with pytest.raises(ValueError, match=r"one input \[n, features, ...\], got IO"):
        Parallel(Says(0.0), Says(0.0), split=(1, 2)).learn(IO(x, x), x)
    with pytest.raises(ValueError, match="the same number of tensors"):
        Parallel(Says(0.0), Says(0.0)).learn(torch.ones(2), torch.ones(2))
    with pytest.raises(ValueError, match="got 'max'"):
        Parallel(Says(0.0), combine="max")  # type: ignore[arg-type]
    net, state = Parallel(Says(0.0), Says(0.0), split=(1, 2)), State()
    net.remember(IO(x), state)
    with pytest.raises(ValueError, match=r"a target shaped as the output \[2, 3\], got \[2, 4\]"):
        net.accumulate(IO(x), IO(torch.ones(2, 4)), state)
    with pytest.raises(RuntimeError, match="a machine of a Parallel expected a target, got none"):
        net.step(IO(x), IO(x), state)
    with pytest.raises(TypeError, match="only a Machine takes candidate parameters"):
        net.frozen(IO(x), state, {"w": x})
