"""Two more ways through a module than its forward pass, for rules that ask "what if".

`replaying`: the same rows again, with fresh batch statistics of those rows and the pass's dropout masks; buffers stay.
`freezing`: any rows, under `vmap` too; BatchNorm is this pass's affine map and dropout is off, so that candidates and
samples do not vote on each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm


@dataclass(frozen=True)
class RandomState:
    """torch's global random state, on the CPU and on the device of a pass."""

    cpu: Tensor
    device: torch.device
    cuda: Tensor | None

    @staticmethod
    def now(device: torch.device) -> RandomState:
        """What the generators hold at this moment."""
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return RandomState(torch.get_rng_state(), device, cuda)


@dataclass(frozen=True)
class Statistics:
    """Mean and biased variance that one BatchNorm saw in a pass, each `[features]`."""

    module: _BatchNorm
    mean: Tensor
    var: Tensor


@contextmanager
def drawing_from(random: RandomState | None, device: torch.device) -> Iterator[None]:
    """The global generators start at `random` (None: where they are), and return to where they were."""
    before = RandomState.now(device)
    try:
        if random is not None:
            _restore(random)
        yield
    finally:
        _restore(before)


@contextmanager
def replaying(module: nn.Module, random: RandomState | None, device: torch.device) -> Iterator[None]:
    """Passes made inside draw the masks of `random` and write into copies of the module's buffers."""
    kept = [(m, name, b) for m in module.modules() for name, b in m.named_buffers(recurse=False)]
    try:
        for m, name, b in kept:
            setattr(m, name, b.clone())
        with drawing_from(random, device):
            yield
    finally:
        for m, name, b in kept:
            setattr(m, name, b)


@contextmanager
def watching(module: nn.Module) -> Iterator[list[tuple[_BatchNorm, Tensor]]]:
    """Notes what every BatchNorm in training mode is given inside: tensors that autograd keeps anyway."""
    seen: list[tuple[_BatchNorm, Tensor]] = []

    def watch(m: nn.Module, args: tuple[Tensor, ...]) -> None:
        if isinstance(m, _BatchNorm):
            seen.append((m, args[0].detach()))

    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.training]
    handles = [m.register_forward_pre_hook(watch) for m in norms]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def batch_statistics(seen: list[tuple[_BatchNorm, Tensor]]) -> list[Statistics]:
    """The statistics by which each BatchNorm normalised what it was given; the last time, where it was asked twice."""
    found: dict[_BatchNorm, Statistics] = {}
    with torch.no_grad():
        for m, value in seen:
            var, mean = torch.var_mean(value, [d for d in range(value.ndim) if d != 1], correction=0)
            found[m] = Statistics(m, mean, var)
    return list(found.values())


@contextmanager
def freezing(module: nn.Module, statistics: list[Statistics], *, stochastic: bool = False) -> Iterator[None]:
    """Passes made inside treat rows one by one: BatchNorm is an affine map, dropout is off unless `stochastic`."""
    modes = [(m, m.training) for m in module.modules()]
    kept = [(s.module, s.module.running_mean, s.module.running_var) for s in statistics]
    try:
        for m, mode in modes:
            if not isinstance(m, _InstanceNorm):  # it treats rows one by one in training, and only there uses the row
                m.training = mode and stochastic and not isinstance(m, _BatchNorm)
        for s in statistics:
            s.module.running_mean, s.module.running_var = s.mean, s.var
        yield
    finally:
        for m, mode in modes:
            m.training = mode
        for norm, mean, var in kept:
            norm.running_mean, norm.running_var = mean, var


@contextmanager
def mode(module: nn.Module, training: bool) -> Iterator[None]:
    """The module in training or evaluation mode; afterwards every submodule is as it was.

    A module already in training keeps the submodules that its user has set to evaluation.
    """
    if module.training is training and training:
        yield
        return
    modes = [(m, m.training) for m in module.modules()]
    module.train(training)
    try:
        yield
    finally:
        for m, before in modes:
            m.training = before


def _restore(random: RandomState) -> None:
    torch.set_rng_state(random.cpu)
    if random.cuda is not None:
        torch.cuda.set_rng_state(random.cuda, random.device)
