"""The sign network: trained without a gradient."""

from __future__ import annotations

from typing import NoReturn

import pytest
import torch

from common import data
from common.experiment import Plan
from experiments import sign
from zenkai_core import IO


@pytest.fixture(scope="module")
def plan() -> Plan:
    return Plan(data.load(), epochs=100, seed=0, device=torch.device("cpu"), variant="width-32")


def test_no_gradient_is_taken_anywhere(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> NoReturn:
        raise AssertionError("autograd was called")

    network = sign.build(plan, None)
    for name in ("grad", "backward"):
        monkeypatch.setattr(torch.autograd, name, refuse)
    monkeypatch.setattr(torch.Tensor, "backward", refuse)
    rows = slice(0, network.batch_size)
    before = [p.detach().clone() for p in network.machine.parameters()]
    network.schedule(0.0)
    network.machine.learn(IO(plan.data.train.x[rows]), IO(plan.data.train.t[rows]))
    assert all(not torch.equal(p, q) for p, q in zip(before, network.machine.parameters(), strict=True))


def test_the_frozen_control_trains_its_output_layer_only(plan: Plan) -> None:
    network = sign.build(plan, "frozen")
    rows = slice(0, network.batch_size)
    before = {name: p.detach().clone() for name, p in network.machine.named_parameters()}
    network.machine.learn(IO(plan.data.train.x[rows]), IO(plan.data.train.t[rows]))
    moved = {name.split(".")[0] for name, p in network.machine.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"2"}


def test_the_steps_shrink_as_training_goes_on(plan: Plan) -> None:
    network = sign.build(plan, None)
    own = network.layers["hidden"].y
    lengths = []
    for done in (0.0, 0.5, 1.0):
        network.schedule(done)
        lengths.append(own.algorithm.std)
        assert own.reduce.step == pytest.approx(own.algorithm.std**-2)
    assert lengths == pytest.approx([0.3, (0.3 * 0.15) ** 0.5, 0.15])


def test_candidates_are_counted(plan: Plan) -> None:
    network = sign.build(plan, None)
    assert network.evaluations is not None
    network.schedule(0.0)
    rows = slice(0, network.batch_size)
    for calls in (1, 2):
        network.machine.learn(IO(plan.data.train.x[rows]), IO(plan.data.train.t[rows]))
        assert network.evaluations() == calls * 2 * network.batch_size * (2 * sign.PAIRS["digits"] + 1)
