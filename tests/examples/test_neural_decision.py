"""The experiment neural-decision: a convolutional network that learns through trees."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from common import data
from common.experiment import Network, Plan
from experiments import neural_decision
from zenkai_core import IO, Machine, State


@pytest.fixture(scope="module")
def digits() -> data.Data:
    return data.load()


def build(digits: data.Data, variant: str = "mean", control: str | None = None) -> Network:
    torch.manual_seed(0)
    plan = Plan(digits, epochs=10, seed=0, device=torch.device("cpu"), variant=variant)
    return neural_decision.build(plan, control)


def test_parts_that_channels_add_sum_up_to_a_linear_layer_behind_channel_dropout() -> None:
    parts, kept = neural_decision.Parts(6, 4, 3).double(), torch.randint(2, (5, 6, 1)).double()
    x = torch.randn(5, 6, 4, dtype=torch.float64)
    linear = nn.Linear(24, 3, bias=False).double()
    with torch.no_grad():
        linear.weight.copy_(parts.weight.permute(2, 0, 1).flatten(1))
    assert torch.allclose((parts(x) * kept).sum(1), linear((x * kept).flatten(1)), atol=1e-12)


def test_the_target_is_the_pass_that_most_trees_class_rightly_and_a_tie_keeps_the_pass_itself(
    digits: data.Data,
) -> None:
    network = build(digits, "plain")
    x, t = digits.train.x[:600], digits.train.t[:600]
    for i in range(0, 600, 150):
        network.machine.learn(IO(x[i : i + 150]), IO(t[i : i + 150]))
    head = network.layers["head"]
    assert isinstance(head, Machine)
    assert len(head.module) > 0
    network.machine.train()
    state = State()
    network.machine.remember(IO(x[:64]), state)
    network.machine.tell(IO(t[:64]), state)
    below, own = state.sub("1"), state.sub("2")
    own_key, target = head.x.noise.key.clone(), below.t
    assert target is not None
    head.x.noise.key.copy_(own_key - torch.tensor([0, 1]))  # the draws of that call once more
    proposed = network.layers["linear"].propose(below, neural_decision.CANDIDATES, head.x.noise.next())

    def gain(features: torch.Tensor) -> torch.Tensor:
        votes = head.module(features)
        wrong = votes.scatter(1, t[:64, None], -torch.inf).amax(1)
        return votes.gather(1, t[:64, None])[:, 0] - wrong

    before, gains = gain(own.inputs.f), torch.stack([gain(candidate) for candidate in proposed.f])
    moved = 0
    for row in range(64):
        best = int(gains[:, row].argmax())
        better = bool(gains[best, row] > before[row])
        expected = proposed.f[best, row] if better else own.inputs.f[row]
        moved += better
        assert torch.allclose(target.f[row], expected, atol=1e-6)
    assert 0 < moved < 64


@pytest.mark.parametrize("control", ["frozen", "backprop"])
def test_the_controls_train_what_they_should(digits: data.Data, control: str) -> None:
    network = build(digits, control=control)
    before = {name: p.detach().clone() for name, p in network.machine.named_parameters()}
    for _ in range(3):
        network.machine.learn(IO(digits.train.x[:150]), IO(digits.train.t[:150]))
    moved = {name for name, p in network.machine.named_parameters() if not torch.equal(p, before[name])}
    assert moved == (set() if control == "frozen" else set(before))
    assert control == "backprop" or len(network.layers["head"].module) > 0


def test_the_first_fits_wait_for_fewer_rows() -> None:
    assert [neural_decision.waits(1200, fits) for fits in range(6)] == [150, 300, 600, 1200, 1200, 1200]


def test_a_network_learns_through_the_trees(digits: data.Data) -> None:
    right = {}
    for control in (None, "frozen"):
        network = build(digits, control=control)
        network.schedule(0.0)
        for epoch in range(2):
            order = torch.randperm(len(digits.train), generator=torch.Generator().manual_seed(epoch))
            for rows in order.split(64)[:-1]:
                network.machine.learn(IO(digits.train.x[rows]), IO(digits.train.t[rows]))
        machine = network.machine.eval()
        right[control] = (machine(digits.validation.x).argmax(1) == digits.validation.t).float().mean()
    assert right[None] > right["frozen"] + 0.05
