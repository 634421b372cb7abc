"""`torch.compile` and `torch.export` of machines, and of modules inside; lines of docs/with_pytorch.md."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tansaku
import zenkai_core as zk
from zenkai_core import Chain, Machine

BACKENDS = ["eager", "aot_eager"]
pytestmark = [  # torch's own warnings: one that its compiler means to hide, and one at its import
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated"),
]


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    torch.compiler.reset()


def gradient(**kw: Any) -> zk.StepTheta:
    return zk.theta.Gradient(torch.optim.SGD, lr=0.05, momentum=0.9, **kw)


def compiled_whole(module: nn.Module, backend: str) -> nn.Module:
    return torch.compile(module, backend=backend)


def compiled_in_place(module: nn.Module, backend: str) -> nn.Module:
    module.compile(backend=backend)
    return module


def compiled_within(module: nn.Module, backend: str) -> nn.Module:
    assert isinstance(module, nn.Sequential)
    return nn.Sequential(torch.compile(module[0], backend=backend), *module[1:])


WAYS = [compiled_whole, compiled_in_place, compiled_within]
RULES: dict[str, Callable[[], tuple[zk.StepTheta, zk.StepX]]] = {
    "gradient": lambda: (gradient(), zk.targets.Gradient()),
    "three updates": lambda: (gradient(n=3), zk.targets.Gradient(n=2, scale=0.1)),
    "feedback": lambda: (gradient(), zk.targets.FeedbackAlignment(seed=0)),
    "fresh": lambda: (gradient(), zk.targets.FeedbackAlignment("fresh", seed=0)),
    "limited feedback": lambda: (gradient(), zk.targets.Limited(zk.targets.FeedbackAlignment(seed=0), [0, 1])),
    "kolen-pollack": lambda: (gradient(), zk.targets.KolenPollack(torch.optim.SGD, seed=0, lr=0.05)),
    "search": lambda: (
        zk.theta.Search(tansaku.HillClimb(k=4, std=0.1), seed=0),
        zk.targets.SearchX(tansaku.HillClimb(k=4, std=0.1), seed=0),
    ),
}


def trained(way: Callable[[nn.Module, str], nn.Module] | None, backend: str, rule: str, norm: bool) -> list[Tensor]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), *([nn.BatchNorm1d(4)] if norm else []), nn.Tanh())
    other = module if way is None else way(module, backend)
    net = Chain(
        Machine(nn.Linear(3, 3), gradient(), zk.targets.Gradient()),
        Machine(other, *RULES[rule]()),
        Machine(nn.Linear(4, 2), gradient(), zk.targets.Gradient()),
    )
    optimizer = zk.Optimizer(net)
    grads = []
    for i in range(6):
        optimizer.zero_grad()
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(i)).requires_grad_()
        (net(x) - 1).square().mean().backward()
        optimizer.step()
        grads.append(x.grad)
        net.learn(x.detach(), torch.ones(8, 2))
    return [*grads, *net.parameters(), *(b for b in module.buffers())]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("norm", [False, True])
def test_a_compiled_module_inside_a_machine_learns_as_the_module(
    way: Callable[[nn.Module, str], nn.Module], rule: str, norm: bool
) -> None:
    for a, b in zip(trained(None, "", rule, norm), trained(way, "eager", rule, norm), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-6)


def test_a_module_compiled_with_autograd_traced_learns_as_the_module() -> None:
    for a, b in zip(
        trained(None, "", "gradient", False), trained(compiled_whole, "aot_eager", "gradient", False), strict=True
    ):
        assert torch.allclose(a, b, rtol=0, atol=1e-6)


def test_a_module_inside_a_machine_does_run_compiled() -> None:
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    module = torch.compile(nn.Sequential(nn.Linear(3, 4), nn.Tanh()), backend=backend)
    net = Machine(module, gradient(), zk.targets.Gradient())
    net(torch.randn(8, 3)).sum().backward()
    assert len(graphs) == 1
    net.learn(torch.randn(8, 3), torch.randn(8, 4))
    assert len(graphs) >= 1


@pytest.mark.parametrize("rule", [zk.theta.Delta, zk.theta.LeastSquares])
def test_a_rule_for_linear_layers_takes_a_compiled_one(rule: Callable[[], zk.StepTheta]) -> None:
    linear = nn.Linear(3, 2)
    nets = [
        Machine(m, rule(), zk.targets.Gradient())
        for m in (copy.deepcopy(linear), torch.compile(linear, backend="eager"))
    ]
    x, t = torch.randn(8, 3), torch.randn(8, 2)
    assert nets[0].learn(x, t).item() == pytest.approx(nets[1].learn(x, t).item())
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.allclose(p, q)


def machines(feedback: bool = False) -> list[Machine]:
    torch.manual_seed(0)
    rule = (lambda: zk.targets.FeedbackAlignment(seed=0)) if feedback else zk.targets.Gradient
    return [
        Machine(m, gradient(), rule())
        for m in (nn.Sequential(nn.Linear(3, 4), nn.Tanh()), nn.Linear(4, 4), nn.Linear(4, 2))
    ]


NETWORKS: dict[str, Callable[[list[Machine]], nn.Module]] = {
    "a machine": lambda m: m[0],
    "a chain": lambda m: Chain(*m),
    "a chain in a chain": lambda m: Chain(Chain(m[0], m[1]), m[2]),
    "a graph": lambda m: zk.Graph({"a": zk.Node(m[0], "x"), "b": zk.Node(m[1], "a")}, outputs=("b",)),
    "machines and modules": lambda m: nn.Sequential(m[0], nn.ReLU(), m[1], nn.ReLU(), m[2]),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("feedback", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_compiled_network_of_machines_trains_as_itself(name: str, feedback: bool, backend: str) -> None:
    nets = [NETWORKS[name](machines(feedback)) for _ in range(2)]
    for net in (nets[0], torch.compile(nets[1], backend=backend)):
        optimizer = zk.Optimizer(net)
        for i in range(10):
            optimizer.zero_grad()
            (net(torch.randn(8, 3, generator=torch.Generator().manual_seed(i))) - 1).square().mean().backward()
            optimizer.step()
        with torch.no_grad():
            net(torch.zeros(1, 3))
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.allclose(p, q, rtol=0, atol=1e-6)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("training", [False, True])
def test_an_exported_network_gives_the_outputs_of_the_network(name: str, strict: bool, training: bool) -> None:
    net, x = NETWORKS[name](machines()).train(training), torch.randn(8, 3)
    exported = torch.export.export(net, (x,), strict=strict).module()
    assert torch.allclose(exported(x), net(x).detach(), atol=1e-6)
    net(x).sum().backward()  # the network itself still learns
    assert all(p.grad is not None for p in net.parameters())


def test_a_compiled_machine_in_a_container_is_refused_with_the_remedy() -> None:
    a, b, c = machines()
    with pytest.raises(TypeError, match=r"one that torch.compile has wrapped: compile the module inside the machine"):
        Chain(a, torch.compile(b), c)  # type: ignore[arg-type]
