"""The experiment decision-linear: trees that learn under a linear layer, and controls that do not."""

from __future__ import annotations

import pytest
import torch

from common import data
from common.experiment import Plan
from experiments import decision_linear
from zenkai_core import IO, State


@pytest.fixture(scope="module")
def digits() -> data.Data:
    return data.load()


def plan(digits: data.Data, variant: str = "plain") -> Plan:
    return Plan(digits, epochs=12, seed=0, device=torch.device("cpu"), variant=variant)


def test_the_batch_grows_from_128_to_the_full_set_and_is_small_again_at_the_end(digits: data.Data) -> None:
    batches = decision_linear.build(plan(digits), None).batches
    assert batches is not None
    full, end = decision_linear.GROWING, decision_linear.SETTLING
    sizes = [batches(done) for done in (0.0, 0.4 * full, 0.8 * full, full, (full + end) / 2, end - 0.01)]
    assert sizes[0] == 128
    assert sizes == sorted(sizes)
    assert sizes[3:] == [len(digits.train)] * 3
    assert batches(end) == batches(0.99) == 128
    assert all(size % 128 == 0 for size in sizes[:3])  # a minibatch of one row has no spread to normalise by


@pytest.mark.parametrize(("variant", "trees"), [("plain", 32), ("multi-output", 1)])
def test_every_step_adds_a_member_of_shallow_trees_and_nine_stay(digits: data.Data, variant: str, trees: int) -> None:
    network = decision_linear.build(plan(digits, variant), None)
    module = network.layers["trees"].module
    assert network.learn is not None
    for i in range(11):
        rows = torch.arange(128 * i, 128 * i + 128) % len(digits.train)
        network.learn(IO(digits.train.x[rows]), IO(digits.train.t[rows]), 0.1)
        assert len(module) == min(i + 1, 9)
    assert len(module.depth) == 9 * trees
    assert module.depth.max() <= 11


def test_at_the_end_only_the_output_layer_learns(digits: data.Data) -> None:
    network = decision_linear.build(plan(digits), None)
    rows = slice(0, 128)
    x, t = IO(digits.train.x[rows]), IO(digits.train.t[rows])
    assert network.learn is not None
    network.learn(x, t, 0.0)
    trees = network.layers["trees"].module.value.clone()
    weight = network.layers["output"].module[1].weight.detach().clone()
    network.learn(x, t, 0.95)
    assert torch.equal(network.layers["trees"].module.value, trees)
    assert not torch.equal(network.layers["output"].module[1].weight, weight)


def test_forty_iterations_move_the_targets_of_the_trees_much_further_than_one(
    digits: data.Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, t, distances = IO(digits.train.x[:128]), IO(digits.train.t[:128]), {}
    for n in (1, 40):
        monkeypatch.setattr(decision_linear, "ITERATIONS", n)
        torch.manual_seed(0)
        machine, state = decision_linear.build(plan(digits), None).machine, State()
        machine.remember(x, state)
        machine.tell(t, state)
        below = state.sub("0")
        assert below.t is not None
        distances[n] = float((below.t.f - below.outputs.f).norm())
    assert distances[40] > 5 * distances[1] > 0


def test_the_frozen_control_keeps_its_first_layer(digits: data.Data) -> None:
    network = decision_linear.build(plan(digits), "frozen")
    network.machine.learn(IO(digits.train.x[:128]), IO(digits.train.t[:128]))
    assert len(network.layers["trees"].module) == 0


def test_a_few_large_batches_beat_the_frozen_control(digits: data.Data) -> None:
    torch.manual_seed(0)
    right = {}
    for control in (None, "frozen"):
        network = decision_linear.build(plan(digits, "multi-output"), control)
        network.schedule(0.0)
        for _ in range(10):
            x, t = IO(digits.train.x), IO(digits.train.t)
            network.learn(x, t, 0.5) if network.learn else network.machine.learn(x, t)
        machine = network.machine.eval()
        right[control] = (machine(digits.validation.x).argmax(1) == digits.validation.t).float().mean()
    assert right[None] > 0.9
    assert right[None] > right["frozen"] + 0.1
