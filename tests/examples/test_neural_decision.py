"""The experiment neural-decision: a convolutional network that learns through trees."""

from __future__ import annotations

import math

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


def passed(digits: data.Data, variant: str) -> tuple[Network, State]:
    """A network with some fitted trees, and its pass over 64 rows with all targets told, in double precision."""
    network = build(digits, variant)
    x, t = digits.train.x[:600], digits.train.t[:600]
    for i in range(0, 600, 150):
        network.machine.learn(IO(x[i : i + 150]), IO(t[i : i + 150]))
    network.machine.double().train()
    state = State()
    network.machine.remember(IO(x[:64].double()), state)
    network.machine.tell(IO(t[:64]), state)
    return network, state


def test_proposals_are_the_linear_layer_behind_channel_dropout_and_the_pass_itself_drops_nothing(
    digits: data.Data,
) -> None:
    network, state = passed(digits, "plain")
    parts, norm = state.sub("1").inputs.f.detach(), network.layers["linear"].module[1]  # type: ignore[index,union-attr]
    proposed = network.layers["linear"].propose(  # type: ignore[operator,union-attr]
        state.sub("1"), 200, torch.Generator().manual_seed(0)
    )
    whole = parts.sum(1)
    mean, std = whole.mean(0), (whole.var(0, correction=0) + norm.eps).sqrt()

    def normed(sums: torch.Tensor) -> torch.Tensor:
        return (sums - mean) / std * norm.weight + norm.bias

    assert torch.allclose(state.sub("1").outputs.f, normed(whole), atol=1e-9)
    generator, rate = torch.Generator().manual_seed(0), neural_decision.DROPOUT
    kept = torch.rand(64, 200, parts.shape[1], generator=generator) >= rate
    assert abs(kept.double().mean().item() - (1 - rate)) < 0.01
    for candidate in (0, 199):
        masked = parts * kept[:, candidate, :, None] / (1 - rate)
        assert torch.allclose(proposed.f[candidate], normed(masked.sum(1)), atol=1e-9)


def test_the_target_is_the_proposal_that_most_trees_class_rightly_and_a_tie_keeps_the_pass_itself(
    digits: data.Data,
) -> None:
    network, state = passed(digits, "plain")
    head, labels = network.layers["head"], digits.train.t[:64]
    assert isinstance(head, Machine)
    assert len(head.module) > 1
    below, own = state.sub("1"), state.sub("2")
    key, target = head.x.noise.key.clone(), below.t
    assert target is not None
    head.x.noise.key.copy_(key - torch.tensor([0, 1]))  # the draws of that call once more
    proposed = network.layers["linear"].propose(  # type: ignore[operator,union-attr]
        below, neural_decision.CANDIDATES, head.x.noise.next()
    )

    def right(features: torch.Tensor) -> torch.Tensor:
        return (head.module.votes(features).argmax(2) == labels).sum(0)

    before, counts = right(own.inputs.f), torch.stack([right(candidate) for candidate in proposed.f])
    moved = 0
    for row in range(64):
        best = int(counts[:, row].argmax())
        better = bool(counts[best, row] > before[row])
        expected = proposed.f[best, row] if better else own.inputs.f[row]
        moved += better
        assert torch.allclose(target.f[row], expected, atol=1e-12)
    assert 0 < moved < 64


def test_the_mean_of_the_candidates_points_to_where_the_trees_grow_surer(digits: data.Data) -> None:
    network, state = passed(digits, "mean")
    own, target = state.sub("2"), state.sub("1").t
    assert target is not None
    step = 0.3 * (target.f - own.inputs.f)
    labels, head = IO(digits.train.t[:64]), network.layers["head"]
    costs = [neural_decision.surprise(IO(head(own.inputs.f + sign * step)), labels).mean() for sign in (-1, 0, 1)]
    assert costs[0] > costs[1] > costs[2]


def test_surprise_is_the_negative_log_of_the_share_of_the_right_class() -> None:
    shares = torch.tensor([[0.25, 0.75], [1.0, 0.0]], dtype=torch.float64)
    cost = neural_decision.surprise(IO(shares), IO(torch.tensor([1, 1])))
    assert cost.tolist() == pytest.approx([-math.log(0.77), -math.log(0.02)], abs=1e-12)


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
