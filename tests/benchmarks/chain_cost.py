"""The cost of a step of a chain of gradient machines, as a multiple of the plain loop's.

    OMP_NUM_THREADS=1 python tests/benchmarks/chain_cost.py

784-128-32-10 (Linear, BatchNorm, ReLU; Linear at the end), batch 128, Adam 1e-3. The two take turns in one run, so that
a busy machine slows both; the figures are medians of the processor's time, which other programs hardly lengthen.
`learn` is the explicit call, `bridge` the ordinary training loop.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

import zenkai_core as zk


def layers() -> list[nn.Module]:
    """The three layers of the network, always from the same seed."""
    torch.manual_seed(0)
    hidden = [nn.Sequential(nn.Linear(i, o), nn.BatchNorm1d(o), nn.ReLU()) for i, o in ((784, 128), (128, 32))]
    return [*hidden, nn.Linear(32, 10)]


def chain() -> zk.Chain:
    """The network as a chain of gradient machines."""
    modules = layers()
    criteria = [zk.sse] * (len(modules) - 1) + [zk.cross_entropy]
    return zk.Chain(
        *(
            zk.Machine(m, zk.theta.Gradient(torch.optim.Adam, lr=1e-3), zk.targets.Gradient(), c)
            for m, c in zip(modules, criteria, strict=True)
        )
    )


def contenders(x: torch.Tensor, t: torch.Tensor) -> dict[str, Callable[[], object]]:
    """Name -> one training step on the batch."""
    plain = nn.Sequential(*layers())
    adam = torch.optim.Adam(plain.parameters(), lr=1e-3)
    explicit, bridged = chain(), chain()
    optimizer = zk.Optimizer(bridged)

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), t).backward()
        optimizer.step()

    return {
        "plain": lambda: step(plain, adam),
        "learn": lambda: explicit.learn(x, t),
        "bridge": lambda: step(bridged, optimizer),
    }


def main() -> None:
    """Prints milliseconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300, help="timed steps of each")
    steps = parser.parse_args().steps
    x, t = torch.randn(128, 784), torch.randint(10, (128,))
    runs = contenders(x, t)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(steps + 20):
        for name, run in runs.items():
            start = time.process_time()
            run()
            if i >= 20:
                times[name].append(time.process_time() - start)
    plain = statistics.median(times["plain"])
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(f"{name:8} {1000 * median:7.3f} ms   {median / plain:5.2f} of plain")


if __name__ == "__main__":
    main()
