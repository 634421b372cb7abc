"""The experiments that promise to take no gradient take none."""

from __future__ import annotations

import pytest
import torch

import experiments
from common import data
from common.experiment import Plan
from zenkai_core import IO


@pytest.mark.parametrize("name", ["evolved", "searched-targets", "sign"])
def test_no_gradient_is_taken_anywhere(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("autograd was called")

    images = data.load()
    experiment = experiments.get(name)
    for variant in experiment.variants:
        torch.manual_seed(0)
        network = experiment.build(Plan(images, 2, 0, torch.device("cpu"), variant), None)
        network.schedule(0.0)
        x, t = IO(images.train.x[:128]), IO(images.train.t[:128])
        with monkeypatch.context() as patched:
            for module, function in ((torch.autograd, "grad"), (torch.autograd, "backward"), (torch.func, "vjp")):
                patched.setattr(module, function, refuse)
            before = [p.detach().clone() for p in network.machine.parameters()]
            for _ in range(3):
                network.learn(x, t, 0.0) if network.learn else network.machine.learn(x, t)
        assert not all(torch.equal(a, b) for a, b in zip(before, network.machine.parameters(), strict=True))
