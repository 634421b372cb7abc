"""Each line of docs/with_pytorch.md: networks of machines against the plain modules, over 20 steps."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import zenkai_core as zk
from zenkai_core import Chain, Graph, Machine, Node, Parallel

STEPS = 20
SGD = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}


def sgd(params: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, **SGD)


def by_gradient(module: nn.Module) -> Machine:
    theta = zk.theta.Gradient(torch.optim.SGD, **SGD) if any(True for _ in module.parameters()) else zk.theta.Null()
    return Machine(module, theta, zk.targets.Gradient())


def by_delta(module: nn.Module) -> Machine:
    return Machine(module, zk.theta.Delta(torch.optim.SGD, **SGD), zk.targets.Gradient())


def layer(i: int, o: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(i, o), nn.Tanh())


class Add(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


class Two(nn.Module):
    """Two inputs, a skip connection, and two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = layer(3, 4), layer(3, 4)
        self.a, self.b = nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        h = self.first(x) + self.second(z)
        return self.a(h), self.b(h)


class Sides(nn.Module):
    """Two halves of a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.top = layer(3, 2), layer(3, 2), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.top(torch.cat([self.left(x), self.right(x)], 1))


def plain_layers() -> list[nn.Module]:
    return [layer(3, 4), layer(4, 4), nn.Linear(4, 2)]


def a_chain() -> tuple[nn.Module, nn.Module]:
    layers = plain_layers()
    return nn.Sequential(*layers), Chain(*map(by_gradient, copy.deepcopy(layers)))


def a_chain_of_delta_rules() -> tuple[nn.Module, nn.Module]:
    layers = plain_layers()
    return nn.Sequential(*layers), Chain(*map(by_delta, copy.deepcopy(layers)))


def a_chain_in_a_chain() -> tuple[nn.Module, nn.Module]:
    layers = plain_layers()
    a, b, c = map(by_gradient, copy.deepcopy(layers))
    return nn.Sequential(*layers), Chain(Chain(a, b), c)


def machines_between_plain_modules() -> tuple[nn.Module, nn.Module]:
    layers = plain_layers()
    a, b, c = copy.deepcopy(layers)
    return nn.Sequential(*layers), nn.Sequential(by_gradient(a), b, by_gradient(c))


def a_converted_model() -> tuple[nn.Module, nn.Module]:
    plain = nn.Sequential(
        *(m for part in plain_layers() for m in (part if isinstance(part, nn.Sequential) else [part]))
    )
    rules = lambda m: (zk.theta.Gradient(torch.optim.SGD, **SGD), zk.targets.Gradient())  # noqa: E731
    return plain, zk.convert(copy.deepcopy(plain), rules, group=True)


def machines_side_by_side() -> tuple[nn.Module, nn.Module]:
    plain = Sides()
    ours = copy.deepcopy(plain)
    return plain, Chain(Parallel(by_gradient(ours.left), by_gradient(ours.right)), by_gradient(ours.top))


def a_graph() -> tuple[nn.Module, nn.Module]:
    plain = Two()
    ours = copy.deepcopy(plain)
    nodes = {
        "first": Node(by_gradient(ours.first), "x"),
        "second": Node(by_gradient(ours.second), "z"),
        "sum": Node(by_gradient(Add()), "first", "second"),
        "a": Node(by_gradient(ours.a), "sum"),
        "b": Node(by_gradient(ours.b), "sum"),
    }
    return plain, Graph(nodes, inputs=("x", "z"), outputs=("a", "b"))


def a_swap() -> tuple[nn.Module, nn.Module]:
    layers = plain_layers()
    a, b, c = map(by_gradient, copy.deepcopy(layers))
    other = Machine(nn.Linear(4, 4), zk.theta.Null(), zk.targets.Null())
    return nn.Sequential(*layers), Chain(a, zk.Swap(b, other, train_sub=False), c)


class OneModule(nn.Module):
    """A machine whose module has two outputs, of which some parameters serve one alone."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = by_gradient(Two())

    def forward(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.machine(x, z)


def one_module_with_two_heads() -> tuple[nn.Module, nn.Module]:
    ours = OneModule()
    return copy.deepcopy(ours.machine.module), ours


ONE_INPUT = [
    a_chain,
    a_chain_of_delta_rules,
    a_chain_in_a_chain,
    machines_between_plain_modules,
    a_converted_model,
    machines_side_by_side,
    a_swap,
]
TWO_HEADS = [a_graph, one_module_with_two_heads]
NETWORKS = ONE_INPUT + TWO_HEADS
Make = Callable[[], tuple[nn.Module, nn.Module]]


class Run:
    """One of two models, with its optimiser: plain torch's, or ours."""

    def __init__(self, model: nn.Module, ours: bool, **kw: Any) -> None:
        self.model, self.ours = model, ours
        if ours:
            plain = zk.plain_parameters(model)
            self.optimizer: torch.optim.Optimizer = zk.Optimizer(model, sgd(plain) if plain else None, **kw)
        else:
            self.optimizer = sgd(model.parameters())

    def inputs(self, i: int, requires_grad: bool = False) -> list[Tensor]:
        generator = torch.Generator().manual_seed(i)
        count = 2 if takes_two(self.model) else 1
        return [torch.randn(6, 3, generator=generator).requires_grad_(requires_grad) for _ in range(count)]

    def outputs(self, x: list[Tensor]) -> tuple[Tensor, ...]:
        y = self.model(*x)
        return y if isinstance(y, tuple) else (y,)

    def loss(self, i: int, x: list[Tensor] | None = None) -> Tensor:
        y = self.outputs(self.inputs(i) if x is None else x)
        return sum(((v - 1).square().mean() for v in y), torch.zeros(()))


def takes_two(model: nn.Module) -> bool:
    return isinstance(model, (Two, Graph, OneModule))


def both(make: Make, train: Callable[[Run], None], **kw: Any) -> tuple[Run, Run]:
    """Trains the plain network and ours alike, and claims that they end alike."""
    torch.manual_seed(0)
    plain, ours = make()
    runs = Run(plain, False), Run(ours, True, **kw)
    for run in runs:
        torch.manual_seed(1)
        train(run)
    expect_alike(*runs)
    return runs


def expect_alike(plain: Run, ours: Run) -> None:
    a, b = list(plain.model.parameters()), learned(ours.model)
    assert len(a) == len(b)
    for p, q in zip(a, b, strict=True):
        assert torch.allclose(p, q, rtol=0, atol=1e-6), float((p - q).abs().max())


def learned(model: nn.Module) -> list[nn.Parameter]:
    """All parameters but those of a swap's other machine, which does not learn."""
    left_out = {p for m in model.modules() if isinstance(m, zk.Swap) for p in m.sub.parameters()}
    return [p for p in model.parameters() if p not in left_out]


def usual(run: Run) -> None:
    for i in range(STEPS):
        run.optimizer.zero_grad()
        run.loss(i).backward()
        run.optimizer.step()


@pytest.mark.parametrize("make", NETWORKS)
def test_an_ordinary_loop_trains_as_the_plain_network(make: Make) -> None:
    both(make, usual)


@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize("call", ["grad", "inputs"])
def test_asking_for_the_gradient_of_the_input_alone_changes_no_parameter_and_no_gradient(make: Make, call: str) -> None:
    answers: dict[bool, list[Tensor]] = {False: [], True: []}

    def train(run: Run) -> None:
        for i in range(STEPS):
            run.optimizer.zero_grad()
            run.loss(i).backward()
            before = [p.grad.clone() for p in learned(run.model)]
            x = run.inputs(i + 100, requires_grad=True)
            if call == "grad":
                answers[run.ours] += torch.autograd.grad(run.loss(i, x), x)
            else:
                run.loss(i, x).backward(inputs=x)
                answers[run.ours] += [v.grad for v in x]
            assert all(torch.equal(a, p.grad) for a, p in zip(before, learned(run.model), strict=True))
            run.optimizer.step()

    both(make, train)
    for a, b in zip(*answers.values(), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize("make", NETWORKS)
def test_a_backward_may_follow_the_gradient_of_the_input_on_one_graph(make: Make) -> None:
    def train(run: Run) -> None:
        for i in range(STEPS):
            run.optimizer.zero_grad()
            x = run.inputs(i, requires_grad=True)
            loss = run.loss(i, x)
            torch.autograd.grad(loss * 3, x, retain_graph=True)
            torch.autograd.grad(loss, x, retain_graph=True)
            loss.backward()
            run.optimizer.step()

    both(make, train)


@pytest.mark.parametrize("make", NETWORKS)
def test_backward_to_some_parameters_moves_these_alone(make: Make) -> None:
    def train(run: Run) -> None:
        for i in range(STEPS):
            run.optimizer.zero_grad()
            run.loss(i).backward(inputs=learned(run.model)[i % 3 :: 3])
            run.optimizer.step()

    both(make, train)


@pytest.mark.parametrize("make", NETWORKS)
def test_gradients_that_autograd_returns_may_be_set_by_hand(make: Make) -> None:
    def train(run: Run) -> None:
        for i in range(STEPS):
            run.optimizer.zero_grad()
            params = learned(run.model)
            for p, g in zip(params, torch.autograd.grad(run.loss(i), params), strict=True):
                assert p.grad is None
                p.grad = g
            run.optimizer.step()

    both(make, train)


@pytest.mark.parametrize("make", TWO_HEADS)
@pytest.mark.parametrize("set_to_none", [True, False])
def test_an_output_that_the_loss_does_not_use_causes_no_update(make: Make, set_to_none: bool) -> None:
    def train(run: Run) -> None:
        for i in range(STEPS):
            run.optimizer.zero_grad(set_to_none)
            y = run.outputs(run.inputs(i))
            y[1 if i == 7 else 0].square().mean().backward()
            run.optimizer.step()

    both(make, train)


@pytest.mark.parametrize("make", TWO_HEADS)
def test_several_backwards_of_different_heads_make_one_step(make: Make) -> None:
    def train(run: Run) -> None:
        for i in range(STEPS):
            run.optimizer.zero_grad()
            for part in (1, 0):
                run.outputs(run.inputs(2 * i + part))[part].square().mean().backward()
            run.optimizer.step()

    both(make, train)


def test_a_tree_gets_no_rows_from_an_output_that_the_loss_does_not_use() -> None:
    def tree() -> Machine:
        return Machine(zk.modules.Trees(3, 2), zk.theta.Fit(rows=8, seed=0), zk.targets.Null())

    graph = Graph({"a": Node(tree(), "x"), "b": Node(tree(), "x")}, inputs=("x",), outputs=("a", "b"))
    optimizer = zk.Optimizer(graph)
    graph(torch.randn(4, 3))[0].square().mean().backward()
    optimizer.step()
    assert graph["a"].theta.pending == 4
    assert graph["b"].theta.pending == 0
    x = torch.randn(4, 3, requires_grad=True)
    torch.autograd.grad(graph(x)[0].sum(), x)
    assert graph["a"].theta.pending == 4


@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize("clip", [False, True])
def test_several_backwards_and_clipping_are_as_in_the_plain_network(make: Make, clip: bool) -> None:
    def train(run: Run) -> None:
        for i in range(STEPS):
            run.optimizer.zero_grad()
            for part in range(3):
                (run.loss(3 * i + part) / 3).backward()
            if clip:
                nn.utils.clip_grad_norm_(learned(run.model), 0.1)
            run.optimizer.step()

    both(make, train)


@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_is_as_in_the_plain_network(make: Make, reentrant: bool) -> None:
    def train(run: Run) -> None:
        for i in range(STEPS):
            run.optimizer.zero_grad()
            x = run.inputs(i, requires_grad=True)
            y = checkpoint(run.model, *x, use_reentrant=reentrant)
            y = y if isinstance(y, tuple) else (y,)
            sum(((v - 1).square().mean() for v in y), torch.zeros(())).backward()
            run.optimizer.step()

    both(make, train)


@pytest.mark.parametrize("make", NETWORKS)
def test_hooks_on_parameters_change_gradients_and_run_once(make: Make) -> None:
    counts: dict[bool, list[int]] = {False: [], True: []}

    def train(run: Run) -> None:
        calls = [0, 0]

        def before(g: Tensor) -> Tensor:
            calls[0] += 1
            return g * 0.5

        def after(p: Tensor) -> None:
            calls[1] += 1
            assert p.grad is not None
            p.grad.clamp_(-0.1, 0.1)

        for p in learned(run.model):
            p.register_hook(before)
            p.register_post_accumulate_grad_hook(after)
        for i in range(STEPS):
            run.optimizer.zero_grad()
            y = run.outputs(run.inputs(i))
            y[0].square().mean().backward()  # the other head's hooks are not called
            run.optimizer.step()
        counts[run.ours] = calls

    both(make, train)
    assert counts[False] == counts[True]


@pytest.mark.parametrize("make", ONE_INPUT)
def test_frozen_parameters_stay_and_others_learn_as_in_the_plain_network(make: Make) -> None:
    def train(run: Run) -> None:
        for i, p in enumerate(learned(run.model)):
            p.requires_grad_(i % 3 != 0)
        usual(run)
        for p in learned(run.model):
            p.requires_grad_(True)

    if make is not a_chain_of_delta_rules:
        both(make, train)


@pytest.mark.parametrize("make", NETWORKS)
def test_passes_without_gradient_leave_no_trace(make: Make) -> None:
    def train(run: Run) -> None:
        for i in range(STEPS):
            run.optimizer.zero_grad()
            with torch.no_grad():
                assert not run.loss(i).requires_grad
            run.loss(i).backward()
            with torch.inference_mode():
                run.loss(i)
            run.optimizer.step()

    both(make, train)


@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize("kind", ["one cycle", "cyclic"])
def test_schedulers_that_read_defaults_cycle_the_momentum_of_all_machines(make: Make, kind: str) -> None:
    def train(run: Run) -> None:
        if kind == "one cycle":
            scheduler: Any = torch.optim.lr_scheduler.OneCycleLR(run.optimizer, max_lr=0.1, total_steps=STEPS)
        else:
            scheduler = torch.optim.lr_scheduler.CyclicLR(run.optimizer, 0.01, 0.1, step_size_up=4)
        for i in range(STEPS):
            run.optimizer.zero_grad()
            run.loss(i).backward()
            run.optimizer.step()
            scheduler.step()

    both(make, train)


@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_a_copy_of_model_and_optimizer_goes_on_alone(make: Make, how: str) -> None:
    def train(run: Run) -> None:
        usual(run)
        pair = {"model": run.model, "optimizer": run.optimizer}
        other = copy.deepcopy(pair) if how == "deepcopy" else pickle.loads(pickle.dumps(pair))
        left = [p.detach().clone() for p in run.model.parameters()]
        first = run.model
        run.model, run.optimizer = other["model"], other["optimizer"]
        usual(run)
        assert all(torch.equal(a, b) for a, b in zip(left, first.parameters(), strict=True))

    both(make, train)


@pytest.mark.parametrize("make", NETWORKS)
def test_a_scaler_whose_factor_changes_trains_as_without(make: Make) -> None:
    norms: dict[bool, list[float]] = {False: [], True: []}

    def train(run: Run) -> None:
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, growth_interval=3) if not run.ours else SCALER[0]
        for i in range(STEPS):
            run.optimizer.zero_grad()
            loss = run.loss(i) * (float("inf") if i == 9 else 1.0)
            scaler.scale(loss).backward()
            if i % 2:
                scaler.unscale_(run.optimizer)
                norms[run.ours].append(float(nn.utils.clip_grad_norm_(learned(run.model), 0.5)))
            scaler.step(run.optimizer)
            scaler.update()
        assert scaler.get_scale() != 2.0**12

    SCALER = [torch.amp.GradScaler("cpu", init_scale=2.0**12, growth_interval=3)]
    both(make, train, grad_scale=SCALER[0])
    assert norms[True] == pytest.approx(norms[False], rel=1e-5, nan_ok=True)
