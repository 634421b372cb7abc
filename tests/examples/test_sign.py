"""The sign network: trained without a gradient, and far better than with its hidden layer frozen."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from common import data
from common.experiment import Plan
from experiments import sign
from zenkai_core import IO

ROOT = Path(__file__).resolve().parents[2]


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


def test_signs_learn_the_digits_and_beat_their_frozen_control(tmp_path: Path) -> None:
    command = [sys.executable, "examples/mnist.py", "sign", "--out", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (result,) = json.loads((tmp_path / "results.json").read_text())
    assert result["accuracy"] > 0.95
    assert result["accuracy"] > result["frozen"] + 0.03
