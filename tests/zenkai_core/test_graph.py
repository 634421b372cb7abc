"""A graph of machines: fan-out, several inputs and outputs, whose target is whose."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from sklearn.tree import DecisionTreeRegressor
from torch import Tensor, nn

import zenkai_core as zk
from zenkai_core import IO, Chain, Graph, Machine, Node, Parallel, State, Swap


class Joined(nn.Module):
    """tanh(W [all inputs] + b)."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.linear = nn.Linear(i, o)

    def forward(self, *x: Tensor) -> Tensor:
        return self.linear(torch.cat(x, 1)).tanh()


class Halves(nn.Module):
    """Two outputs, [n, 2] and [n, 3]."""

    def __init__(self, i: int) -> None:
        super().__init__()
        self.linear = nn.Linear(i, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.linear(x).tanh().split([2, 3], 1)


def machine(module: nn.Module, criterion: zk.Criterion = zk.sse, kind: Callable = torch.optim.SGD) -> Machine:
    return Machine(module, zk.theta.Gradient(kind, lr=0.05), zk.targets.Gradient(), criterion)


class Network(nn.Module):
    """The plain counterpart of `graph`: skips over b, p takes the output o, the halves of c go different ways."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = Joined(3, 4), Joined(6, 5), Halves(9)
        self.o, self.p = Joined(7, 3), Joined(11, 2)

    def forward(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        a = self.a(u)
        b = self.b(a, v)
        first, second = self.c(torch.cat([a, b], 1))
        o = self.o(first, b)
        return o, self.p(o, second, b)


class Cat(nn.Module):
    def forward(self, *x: Tensor) -> Tensor:
        return torch.cat(x, 1)


def graph(net: Network, kind: Callable = torch.optim.SGD, **kw: str) -> Graph:
    return Graph(
        {
            "p": Node(machine(net.p, kind=kind), "o", "c.1", "b"),  # in any order
            "a": Node(machine(net.a, kind=kind), "u"),
            "b": Node(machine(net.b, kind=kind), "a", "v"),
            "ab": Node(Machine(Cat(), zk.theta.Null(), zk.targets.Gradient()), "a", "b"),
            "c": Node(machine(net.c, kind=kind), "ab"),
            "o": Node(machine(net.o, zk.cross_entropy, kind), "c.0", "b"),
        },
        inputs=("u", "v"),
        outputs=("o", "p"),
        **kw,  # type: ignore[arg-type]
    )


def batch(seed: int = 0) -> tuple[IO, IO]:
    torch.manual_seed(seed)
    return IO(torch.randn(7, 3), torch.randn(7, 2)), IO(torch.randint(3, (7,)), torch.randn(7, 2))


def plain_loss(o: Tensor, p: Tensor, t: IO) -> Tensor:
    return F.cross_entropy(o, t[0]) + 0.5 * (p - t[1]).square().sum() / len(p)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("explicit", [True, False])
def test_a_graph_of_gradient_machines_is_backpropagation(kind: Callable, explicit: bool) -> None:
    torch.manual_seed(1)
    plain = Network()
    ours = copy.deepcopy(plain)
    net, optimizer = graph(ours, kind), kind(plain.parameters(), lr=0.05)
    steps = zk.Optimizer(net)
    for i in range(20):
        x, t = batch(i)
        optimizer.zero_grad()
        loss = plain_loss(*plain(*x), t)
        loss.backward()
        optimizer.step()
        if explicit:
            assert net.learn(x, t).item() == pytest.approx(loss.item(), abs=1e-12)
        else:
            plain_loss(*net(*x), t).backward()
            steps.step()
    for (name, p), q in zip(plain.named_parameters(), ours.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=0, atol=1e-12), name


@pytest.mark.usefixtures("float64")
def test_the_inputs_of_a_graph_get_autograds_gradients() -> None:
    net = graph(plain := Network())
    x, t = batch()
    leaves = [v.clone().requires_grad_() for v in x]
    plain_loss(*plain(*leaves), t).backward()
    ours = [v.clone().requires_grad_() for v in x]
    plain_loss(*net(*ours), t).backward()
    state = State()
    net.remember(x, state)
    told = net.tell(t, state)
    for a, b, v, by_hand in zip(leaves, ours, x, net.step_x(*told), strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=0, atol=1e-14)
        assert torch.allclose(v - 7 * a.grad, by_hand, rtol=0, atol=1e-13)


@pytest.mark.parametrize("order", ["accumulate step_x step", "accumulate step step_x"])
def test_a_graph_in_a_row_is_the_chain(order: zk.container.Order) -> None:
    torch.manual_seed(0)
    layers = [machine(nn.Linear(3, 4)), machine(nn.Linear(4, 4)), machine(nn.Linear(4, 2))]
    chain = Chain(*layers, order=order)
    one, two, three = copy.deepcopy(chain).machines
    net = Graph(
        {"one": Node(one, "x"), "two": Node(two, "one"), "three": Node(three, "two")}, ("x",), ("three",), order=order
    )
    ends = []
    for model in (chain, net):
        torch.manual_seed(1)
        for _ in range(3):
            state, x, t = State(), IO(torch.randn(5, 3)), IO(torch.randn(5, 2))
            model.remember(x, state)
            told = model.tell(t, state)
            before = None if order == "accumulate step step_x" else model.step_x(*told)
            model.step(*told)
            after = model.step_x(*told)
        ends.append([*([] if before is None else before), *after, *model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


@pytest.mark.usefixtures("float64")
def test_in_the_second_order_a_fan_out_adds_the_errors_that_moved_parameters_carry() -> None:
    torch.manual_seed(0)
    a, b, c = nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(4, 2)
    net = Graph(
        {"a": Node(machine(a), "x"), "b": Node(machine(b), "a"), "c": Node(machine(c), "a")},
        outputs=("b", "c"),
        order="accumulate step step_x",
    )
    a, b, c = (copy.deepcopy(m) for m in (a, b, c))
    x, t = torch.randn(6, 3), IO(torch.randn(6, 2), torch.randn(6, 2))
    net.learn(x, t)
    with torch.no_grad():
        h, error = a(x), torch.zeros(6, 4)
        for m, t_m in zip((b, c), t, strict=True):
            e = m(h) - t_m
            m.weight -= 0.05 * e.T @ h / 6
            m.bias -= 0.05 * e.mean(0)
            error += (m(h) - t_m) @ m.weight
        a.weight -= 0.05 * error.T @ x / 6
    assert torch.allclose(net["a"].module.weight, a.weight, rtol=0, atol=1e-12)


class Says(zk.LearningMachine):
    """Passes its input on, and answers with a target of its own."""

    def __init__(self, target: float) -> None:
        super().__init__()
        self.target = target
        self.asked = 0
        self.told: list[IO] = []

    def forward_nn(self, x: IO, state: State) -> IO:
        return IO(x.f * 1.0)

    def accumulate(self, x: IO, t: IO, state: State) -> None:
        self.told.append(t)

    def step_x(self, x: IO, t: IO, state: State) -> IO:
        self.asked += 1
        return IO(torch.full_like(x.f, self.target))


@pytest.mark.parametrize(("combine", "expected"), [("sum", 1 + (4 - 1) + (9 - 1)), ("mean", (4 + 9) / 2)])
def test_absolute_targets_of_one_output_are_combined_as_said(combine: zk.container.Combine, expected: float) -> None:
    below, b, c = Says(0.0), Says(4.0), Says(9.0)
    net = Graph({"a": Node(below, "x"), "b": Node(b, "a"), "c": Node(c, "a")}, outputs=("b", "c"), combine=combine)
    net.learn(torch.ones(2, 1), IO(torch.zeros(2, 1), torch.zeros(2, 1)))
    assert below.told[0].f.tolist() == [[expected]] * 2


def test_what_one_taker_asks_is_handed_down_as_it_is() -> None:
    below, above = Says(0.0), Says(0.1)
    Graph({"a": Node(below, "x"), "b": Node(above, "a")}, outputs=("b",)).learn(
        torch.ones(1, 1) * 1e9, torch.ones(1, 1)
    )
    assert below.told[0].f.item() == torch.tensor(0.1).item()


def test_a_target_may_be_the_networks_or_another_nodes_and_nobody_is_asked_in_vain() -> None:
    a, b, c, out = (Says(5.0) for _ in range(4))
    net = Graph({"a": Node(a, "x", target="y"), "b": Node(b, "a", target="c"), "c": Node(c, "b"), "y": Node(out, "c")})
    t = torch.full((2, 1), 7.0)
    net.learn(torch.ones(2, 1), t)
    assert [m.told[0].f[0].item() for m in (a, b, c, out)] == [7.0, 5.0, 5.0, 7.0]
    assert [m.asked for m in (a, b, c, out)] == [0, 0, 0, 1]


@pytest.mark.usefixtures("float64")
def test_a_target_named_after_an_output_is_what_the_graph_was_told_though_others_take_that_output() -> None:
    told = []
    local = machine(nn.Linear(4, 2))
    local.register_hook("accumulate", lambda call: told.append(call.t.f))
    nodes = {
        "h": Node(machine(nn.Linear(3, 4)), "x"),
        "y": Node(machine(nn.Linear(4, 2)), "h"),
        "local": Node(local, "h", target="y"),
        "z": Node(machine(nn.Linear(2, 2)), "y"),
    }
    labels, t = torch.randn(5, 2), torch.randn(5, 2)
    Graph(nodes, ("x",), ("y", "z")).learn(torch.randn(5, 3), IO(labels, t))
    assert len(told) == 1
    assert torch.equal(told[0], labels)


@pytest.mark.usefixtures("float64")
def test_a_local_classifier_and_a_decoder_add_their_errors_below() -> None:
    torch.manual_seed(0)
    modules = nn.ModuleDict({"a": Joined(3, 4), "y": Joined(4, 2), "aux": Joined(4, 2), "decoder": Joined(4, 3)})
    x, labels = torch.randn(6, 3), torch.randint(2, (6,))
    m = copy.deepcopy(modules)
    h = m["a"](x)
    loss = F.cross_entropy(m["y"](h), labels) + F.cross_entropy(m["aux"](h), labels)
    (loss + 0.5 * (m["decoder"](h) - x).square().sum() / 6).backward()
    net = Graph(
        {
            "a": Node(machine(modules["a"]), "x"),
            "y": Node(machine(modules["y"], zk.cross_entropy), "a"),
            "aux": Node(machine(modules["aux"], zk.cross_entropy), "a", target="y"),
            "decoder": Node(machine(modules["decoder"]), "a", target="x"),
        }
    )
    state = State()
    net.remember(IO(x), state)
    net.tell(IO(labels), state)
    for p, q in zip(m.parameters(), modules.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, rtol=0, atol=1e-14)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("explicit", [True, False])
def test_every_node_knows_the_networks_loss_above_it_and_the_error_at_the_outputs(explicit: bool) -> None:
    net, (x, t), seen = graph(plain := Network()), batch(), {}
    for name, m in net.machines.items():
        m.register_hook("accumulate", lambda call, name=name: seen.update({name: call.state}))
    if explicit:
        state = State()
        net.remember(x, state)
        net.tell(t, state)
    else:
        plain_loss(*net(*x), t).backward()
    k, values = 3, {}
    with torch.no_grad():
        a = plain.a(x[0])
        for name, y in (("a", a), ("b", plain.b(a, x[1]))):
            values[name] = torch.cat([y + 0.1 * torch.randn_like(y) for _ in range(k)])
        for name, moved in values.items():
            a_ = moved if name == "a" else a.repeat(k, 1)
            b_ = moved if name == "b" else plain.b(a_, x[1].repeat(k, 1))
            first, second = plain.c(torch.cat([a_, b_], 1))
            o = plain.o(first, b_)
            p = plain.p(o, second, b_)
            if explicit:
                expected = F.cross_entropy(o, t[0].repeat(k), reduction="none")
                expected += 0.5 * (p - t[1].repeat(k, 1)).square().sum(1)
            else:  # the bridge sees gradients only: the change of the loss to first order
                y, e = [v.detach() for v in net(*x)], [v.repeat(k, 1) for v in seen[name].output_error()]
                pairs = zip((o, p), y, e, strict=True)
                expected = sum((g * (v - w.repeat(k, 1))).sum(1) for v, w, g in pairs)
            assert torch.allclose(seen[name].cost_above(IO(moved)), expected, atol=1e-12)
        o, p = plain(*x)
    labels = F.one_hot(t[0], 3)
    for state in seen.values():
        for error, expected in zip(state.output_error(), (o.softmax(1) - labels, p - t[1]), strict=True):
            assert torch.allclose(error, expected, atol=1e-12)


def test_the_incoming_machine_is_the_one_that_made_all_inputs() -> None:
    net = graph(Network())
    outer = Chain(machine(Halves(4)), Graph({"y": Node(machine(Joined(5, 2)), "u", "v")}, ("u", "v")))
    state = State()
    net.remember(batch()[0], state)
    below = {name: state.sub(name).incoming for name in net.machines}
    assert {name: found and found[0] for name, found in below.items()} == {
        **dict.fromkeys(("a", "b", "ab", "o", "p")),
        "c": net["ab"],
    }
    assert below["c"][1] is state.sub("ab")
    state = State()
    outer.remember(IO(torch.randn(3, 4)), state)
    assert state.sub("1").sub("y").incoming[0] is outer[0]


@pytest.mark.usefixtures("float64")
def test_graphs_chains_and_both_within_each_other_are_the_flat_network() -> None:
    torch.manual_seed(0)
    plain = Network()
    flat, nested = graph(copy.deepcopy(plain)), copy.deepcopy(plain)
    lower = Graph(
        {
            "a": Node(machine(nested.a), "u"),
            "b": Node(Chain(machine(nested.b)), "a", "v"),
            "ab": Node(Machine(Cat(), zk.theta.Null(), zk.targets.Gradient()), "a", "b"),
        },
        ("u", "v"),
        ("ab", "b"),
    )
    upper = Graph(
        {
            "c": Node(Chain(machine(nested.c)), "ab"),
            "o": Node(machine(nested.o, zk.cross_entropy), "c.0", "b"),
            "p": Node(machine(nested.p), "o", "c.1", "b"),
        },
        ("ab", "b"),
        ("o", "p"),
    )
    whole = Graph({"y": Node(Chain(lower, upper), "u", "v")}, ("u", "v"))
    for i in range(5):
        x, t = batch(i)
        assert torch.allclose(flat.learn(x, t), whole.learn(x, t))
    trained = {name.split(".", 1)[0]: None for name, _ in nested.named_parameters()}
    assert trained.keys() == {"a", "b", "c", "o", "p"}
    for name in trained:
        for p, q in zip(flat[name].parameters(), getattr(nested, name).parameters(), strict=True):
            assert torch.allclose(p, q, rtol=0, atol=1e-12)


def test_a_frozen_graph_is_its_pass_for_any_rows() -> None:
    net, (x, _), state = graph(Network()), batch(), State()
    y = net.remember(x, state)
    again = net.frozen(x.map(lambda v: v[2:4]), state)
    assert all(torch.allclose(a[2:4], b) for a, b in zip(y, again, strict=True))
    with pytest.raises(TypeError, match="only a Machine takes candidate parameters"):
        net.frozen(x, state, {"w": x.f})


def forest() -> Graph:
    trees = Machine(
        zk.modules.Trees(3, 2, members=2),
        zk.theta.Fit(lambda: DecisionTreeRegressor(max_depth=3), rows=14, seed=0),
        zk.targets.Null(),
    )
    return Graph(
        {
            "trees": Node(trees, "x"),
            "a": Node(machine(Joined(3, 4)), "x"),
            "y": Node(machine(Joined(6, 1)), "trees", "a"),
        }
    )


def test_a_saved_copied_or_pickled_graph_goes_on_as_the_unbroken_one_trees_included() -> None:
    net, x, t = forest(), torch.randn(7, 3), torch.randn(7, 1)
    for _ in range(3):
        net.learn(x, t)
    other = forest()
    other.load_state_dict(copy.deepcopy(net.state_dict()))
    several = [net, other, copy.deepcopy(net), pickle.loads(pickle.dumps(copy.deepcopy(net).apply(_without_factory)))]
    costs = [[m.learn(x, t).item() for _ in range(2)] for m in several[:3]]
    assert costs[0] == costs[1] == costs[2]
    with torch.no_grad():
        assert several[3](x).shape == (7, 1)


def _without_factory(module: nn.Module) -> None:
    if isinstance(module, zk.theta.Fit):
        module.factory = DecisionTreeRegressor


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("explicit", [False, True])
def test_a_recorder_knows_the_networks_loss_and_true_gradient_at_every_node(nested: bool, explicit: bool) -> None:
    net, (x, t) = graph(Network()), batch()
    model = Chain(Graph({"inner": Node(net, "u", "v")}, ("u", "v"), ("inner",))) if nested else net
    with zk.Recorder(model) as recorder:
        if explicit:
            model.learn(x, t)
        else:
            plain_loss(*model(*x), t).backward()
            zk.Optimizer(model).step()
    rows = {row["layer"].rpartition(".")[2]: row for row in recorder.rows()}
    assert rows.keys() == {"a", "b", "ab", "c", "o", "p"}
    for name in ("a", "b", "c", "o", "p"):
        assert rows[name]["global_theta"] > 0
        assert rows[name]["update_angle"] == pytest.approx(0, abs=1e-4)
        assert rows[name]["target_angle"] == pytest.approx(0, abs=1e-4) or (explicit and name == "o")  # labels: none


def test_a_recorder_takes_no_errors_of_one_machine_for_another_ones() -> None:
    layers = [machine(nn.Linear(2, 2)) for _ in range(5)]
    two = Chain(Parallel(*layers[:2]), machine(nn.Linear(4, 2)))
    net = Chain(two, Swap(layers[2], layers[3]), layers[4])  # all have outputs [n, 2], as the network has
    with zk.Recorder(net, gradients=True) as recorder:
        net.learn(torch.randn(6, 2), torch.randn(6, 2))
    known = {row["layer"]: row["update_angle"] for row in recorder.rows() if row["update_angle"] is not None}
    assert known.keys() == {"0.0.0", "0.0.1", "0.1", "1.first", "2"}
    assert max(known.values()) < 0.1


class Sum(nn.Module):
    def forward(self, *x: Tensor) -> Tensor:
        return torch.stack(x).sum(0)


def split_in_two() -> Parallel:
    return Parallel(machine(nn.Linear(3, 2)), machine(nn.Linear(3, 2)), split=([0, 1, 3], [1, 2, 3]))


BESIDE: dict[str, Callable[[], zk.LearningMachine]] = {
    "split": split_in_two,
    "whole": lambda: Parallel(machine(nn.Linear(4, 2)), machine(nn.Linear(4, 2))),
    "chains": lambda: Parallel(Chain(machine(nn.Linear(4, 3)), machine(nn.Linear(3, 1))), machine(nn.Linear(4, 3))),
    "split chains": lambda: Parallel(Chain(machine(nn.Linear(2, 3))), machine(nn.Linear(2, 1)), split=(2, 2)),
    "swap": lambda: Swap(machine(nn.Linear(4, 4)), machine(nn.Linear(4, 4))),
    "asks the sub": lambda: Swap(machine(nn.Linear(4, 4)), machine(nn.Linear(4, 4)), step_x="sub"),
    "trains the sub": lambda: Swap(machine(nn.Linear(4, 4)), machine(nn.Linear(4, 4)), train_main=False),
    "global": lambda: zk.GlobalTargets(machine(nn.Linear(4, 4)), machine(nn.Linear(4, 4)), x=zk.targets.Gradient()),
}
UNKNOWN = {"trains the sub"}  # where nobody says what the error at the inputs is


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", BESIDE)
def test_below_a_fan_out_into_containers_a_recorder_knows_the_whole_gradient_or_none(kind: str) -> None:
    torch.manual_seed(0)
    net = Graph(
        {
            "a": Node(machine(nn.Linear(3, 4)), "x"),
            "local": Node(machine(nn.Linear(4, 4)), "a", target="y"),  # not on the way to the network's loss
            "beside": Node(BESIDE[kind](), "a"),
            "b": Node(machine(nn.Linear(4, 4)), "a"),
            "y": Node(Machine(Sum(), zk.theta.Null(), zk.targets.Gradient()), "beside", "b"),
        },
        ("x",),
        ("y",),
    )
    plain, x, t = copy.deepcopy(net), torch.randn(6, 3), torch.randn(6, 4)
    with zk.Recorder(net) as recorder:
        net.learn(x, t)
    angles = {row["layer"]: row["update_angle"] for row in recorder.rows()}

    def through(m: zk.LearningMachine, h: Tensor) -> Tensor:
        if isinstance(m, Machine):
            return m.module(h)
        if isinstance(m, Swap):
            return through(m.main, h)
        if isinstance(m, Chain):
            for each in m.machines:
                h = through(each, h)
            return h
        seen = [h] * len(m) if m.columns is None else [h[:, c] for c in m.columns]
        return torch.cat([through(each, part) for each, part in zip(m.machines, seen, strict=True)], 1)

    first = plain["a"].module
    h = first(x)
    (0.5 * (through(plain["beside"], h) + plain["b"].module(h) - t).square().sum(1).mean()).backward()
    for part in ("a", "b", *(n for n in angles if n.startswith("beside") and angles[n] is not None)):
        if part == "a" and kind in UNKNOWN:
            assert angles["a"] is None
            continue
        old = plain.get_submodule(part).module
        moved = [
            (q - p).detach().flatten()
            for p, q in zip(old.parameters(), net.get_submodule(part).parameters(), strict=True)
        ]
        update, slope = torch.cat(moved), -torch.cat([p.grad.flatten() for p in old.parameters()])
        u, v = update / update.norm(), slope / slope.norm()
        expected = torch.rad2deg(2 * torch.atan2((u - v).norm(), (u + v).norm()))
        assert angles[part] == pytest.approx(float(expected), abs=1e-4)
    assert angles["local"] is None


def test_a_pass_is_freed_with_its_last_user() -> None:
    net, (x, t), state = graph(Network()), batch(), State()
    net.remember(x, state)
    net.step(*net.tell(t, state))
    held = [weakref.ref(s) for s in (state, *state.subs.values())]
    gc.disable()
    try:
        net._told = None
        del state
        assert all(ref() is None for ref in held)
    finally:
        gc.enable()


def nodes(**kw: Node | tuple) -> dict[str, Node]:
    return {name: node if isinstance(node, Node) else Node(Says(0.0), *node) for name, node in kw.items()}


@pytest.mark.parametrize(
    ("given", "options", "error", "message"),
    [
        ({}, {}, ValueError, "at least one machine, got none"),
        ({"y": nn.Linear(1, 1)}, {}, TypeError, "expected a Node for 'y', got Linear"),
        ({"y": Node(nn.Linear(1, 1), "x")}, {}, TypeError, "expected machines, got Linear"),  # type: ignore[arg-type]
        (
            nodes(a=("b",), b=("a", "x"), y=("b",)),
            {},
            ValueError,
            "without a cycle, got 'a' -> 'b' -> 'a'|'b' -> 'a' -> 'b'",
        ),
        (nodes(y=("z",)), {}, ValueError, r"node 'y' expected sources among \['x', 'y'\], got 'z'"),
        (nodes(y=()), {}, ValueError, "'y' to take something, got nothing"),
        (
            nodes(y=Node(Says(0.0), "x"), a=Node(Says(0.0), "x", target="z")),
            {},
            ValueError,
            "a target among .*, got 'z'",
        ),
        (nodes(y=Node(Says(0.0), "x", target="x")), {}, ValueError, "'y' expected no target of its own, got 'x'"),
        (
            nodes(y=("x",), a=("x",)),
            {},
            ValueError,
            "'a' expected a node that takes it, got none: .* make it an output",
        ),
        (nodes(y=("x",)), {"inputs": ("x", "z")}, ValueError, "'z' expected a node that takes it"),
        (nodes(y=("x",)), {"outputs": ("z",)}, ValueError, r"outputs among its nodes \['y'\], got 'z'"),
        (nodes(y=("x",)), {"outputs": "y"}, TypeError, "got the string 'y'"),
        (nodes(y=("x",)), {"outputs": ("y", "y")}, ValueError, "each once"),
        (nodes(y=("x",)), {"inputs": ()}, ValueError, "at least one name"),
        (nodes(x=("x",)), {"outputs": ("x",)}, ValueError, "'x' as an input and as a node"),
        (nodes(loss=("x",)), {"outputs": ("loss",)}, ValueError, "no use for itself, got 'loss'"),
        ({"a.b": Node(Says(0.0), "x")}, {"outputs": ("a.b",)}, ValueError, "without a dot, got 'a.b'"),
        (nodes(y=("x",)), {"combine": "max"}, ValueError, "combine 'sum' or 'mean', got 'max'"),
        (nodes(y=("x",)), {"order": "first"}, ValueError, "got 'first': choose which"),
        (
            nodes(a=("x",), b=Node(Says(0.0), "a", target="a"), y=("x",)),
            {},
            ValueError,
            "targets that become known one after another, got",
        ),
    ],
)
def test_a_graph_that_cannot_be_is_refused(given: dict, options: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        Graph(given, **options)


def test_inputs_outputs_and_targets_are_counted() -> None:
    net, (x, t) = graph(Network()), batch()
    with pytest.raises(ValueError, match=r"a target for each of its outputs \['o', 'p'\], got 1"):
        net.learn(x, t[:1])
    with pytest.raises(ValueError, match=r"a tensor for each of its inputs \['u', 'v'\], got 1"):
        net.learn(x[:1], t)
    with pytest.raises(ValueError, match=r"expected 'a' to put out a tensor 1, got 1"):
        Graph(nodes(a=("x",), y=("a.1",))).learn(torch.ones(1, 1), torch.ones(1, 1))
    two = Graph({"a": Node(machine(Halves(2)), "x"), "y": Node(Says(0.0), "x")}, outputs=("a", "y"))
    with pytest.raises(ValueError, match="one tensor of each, got 2 of 'a'"):
        two.learn(torch.ones(1, 2), torch.ones(1, 2))
    with pytest.raises(KeyError, match=r"a node among \['x0'\], got 'q'"):
        Graph(nodes(x0=("x",)), outputs=("x0",))["q"]
    with pytest.raises(RuntimeError, match="expected a pass that was accumulated"):
        net.step(x, t, State())
