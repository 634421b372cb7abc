"""A process of `test_with_pytorch_distributed.py`: `python data_parallel.py RANK WORLD FILE`; prints JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

import tansaku
import zenkai_core as zk

SGD: dict[str, Any] = {"lr": 0.05, "momentum": 0.9}


def machine(module: nn.Module, theta: zk.StepTheta | None = None, x: zk.StepX | None = None, **kw: Any) -> zk.Machine:
    return zk.Machine(module, theta or zk.theta.Gradient(torch.optim.SGD, **SGD), x or zk.targets.Gradient(), **kw)


def layers() -> list[nn.Module]:
    return [nn.Sequential(nn.Linear(3, 4), nn.Tanh()), nn.Sequential(nn.Linear(4, 4), nn.Tanh()), nn.Linear(4, 2)]


def chain(theta: Callable[[], zk.StepTheta | None] = lambda: None, x: Callable[[], zk.StepX | None] = lambda: None):
    return zk.Chain(*(machine(m, theta(), x()) for m in layers()))


def graph() -> nn.Module:
    a, b, c = layers()
    nodes = {"a": zk.Node(machine(a), "x"), "b": zk.Node(machine(b), "a"), "c": zk.Node(machine(c), "b")}
    return zk.Graph(nodes, inputs=("x",), outputs=("c",))


def mixed() -> nn.Module:
    a, b, c = layers()
    return nn.Sequential(machine(a), b, machine(c))


def normalised() -> nn.Module:
    return zk.Chain(machine(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))), machine(nn.Linear(4, 2)))


def delta() -> zk.StepTheta:
    return zk.theta.Delta(torch.optim.SGD, **SGD)


ALIKE = {  # these equal the plain network
    "chain": chain,
    "delta": lambda: chain(delta),
    "graph": graph,
    "mixed": mixed,
}
EQUAL = {  # these have no plain network; ranks are equal
    "feedback": lambda: chain(x=zk.targets.FeedbackAlignment),
    "sign-symmetric feedback": lambda: chain(x=lambda: zk.targets.FeedbackAlignment("sign")),
    "fresh feedback": lambda: chain(delta, lambda: zk.targets.FeedbackAlignment("fresh")),
    "kolen-pollack": lambda: chain(x=lambda: zk.targets.KolenPollack(torch.optim.SGD, **SGD)),
    "direct feedback": lambda: zk.Chain(
        *(machine(m, x=zk.targets.Null(), y=zk.targets.DirectFeedback()) for m in layers()[:-1]),
        machine(layers()[-1], x=zk.targets.Null()),
    ),
    "postponed": lambda: chain(lambda: zk.theta.Postponed(zk.theta.Gradient(torch.optim.SGD, **SGD), every=2)),
    "filtered": lambda: chain(lambda: zk.theta.Filtered(delta(), lr=0.5)),
    "limited": lambda: zk.Chain(
        machine(
            nn.Linear(3, 4),
            zk.theta.Limited(delta(), lambda g: {"weight": torch.rand(4, 3, generator=g) < 0.5}),
        ),
        machine(nn.Linear(4, 2)),
    ),
    "normalised": normalised,
    "searched targets": lambda: chain(x=lambda: zk.targets.SearchX(tansaku.HillClimb(k=4, std=0.1))),
}


class Own(zk.LearningMachine):
    """A user's machine that keeps rows."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward_nn(self, x: zk.IO, state: zk.State) -> zk.IO:
        return zk.IO(self.linear(x.f))

    def accumulate(self, x: zk.IO, t: zk.IO, state: zk.State) -> None:
        self.rows = x, t


REFUSED = {
    "theta.LeastSquares": lambda: chain(zk.theta.LeastSquares),
    "theta.Search": lambda: chain(lambda: zk.theta.Search(tansaku.HillClimb(k=4, std=0.1))),
    "theta.Gradient": lambda: chain(lambda: zk.theta.Gradient(torch.optim.SGD, n=2, **SGD)),
    "theta.Fit": lambda: nn.Sequential(
        nn.Linear(3, 3), machine(zk.modules.Trees(3, 2), zk.theta.Fit(), zk.targets.Null())
    ),
    "theta.Filtered": lambda: chain(lambda: zk.theta.Filtered(zk.theta.LeastSquares(), lr=0.1)),
    "targets.Difference": lambda: zk.Chain(
        machine(nn.Linear(3, 4)),
        machine(nn.Linear(4, 2), x=zk.targets.Difference(nn.Linear(2, 4), torch.optim.SGD, lr=0.1)),
    ),
    "Own": Own,
    "lmode 'accumulate'": lambda: zk.Chain(*map(machine, layers()), lmode="accumulate step_x step"),
}


def trained(model: nn.Module, optimizer: torch.optim.Optimizer, rank: int, **kw: Any) -> list[float]:
    ddp = nn.parallel.DistributedDataParallel(model, **kw)
    for i in range(20):
        optimizer.zero_grad()
        generator = torch.Generator().manual_seed(10 * i + rank)
        x = torch.randn(8, 3, generator=generator)
        if i % 5 == 4:  # gradients of two passes, averaged once
            with ddp.no_sync():
                (ddp(x + 1) - 1).square().mean().backward()
        (ddp(x) - 1).square().mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return flat([p for m in model.modules() for p in m.parameters(recurse=False)])


def flat(values: list[Tensor]) -> list[float]:
    return torch.cat([v.detach().flatten().double() for v in values]).tolist()


def optimizer_of(model: nn.Module) -> zk.Optimizer:
    plain = zk.plain_parameters(model)
    return zk.Optimizer(model, torch.optim.SGD(plain, **SGD) if plain else None)


def main(rank: int, world: int, file: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=world)
    found: dict[str, Any] = {"equal": {}, "refused": {}}
    torch.manual_seed(0)
    plain = nn.Sequential(*layers())
    found["plain"] = trained(plain, torch.optim.SGD(plain.parameters(), **SGD), rank)
    for name, make in {**ALIKE, **EQUAL}.items():
        torch.manual_seed(0 if name in ALIKE else rank)
        model = make()
        kw = {"find_unused_parameters": name == "graph", "gradient_as_bucket_view": name == "mixed"}
        found["equal"][name] = trained(model, optimizer_of(model), rank, **kw)
    for name, make in REFUSED.items():
        ddp = nn.parallel.DistributedDataParallel(make())
        try:
            ddp(torch.ones(4, 3))
        except RuntimeError as error:
            found["refused"][name] = str(error)
    print(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
