"""A target made by a gradient keeps that gradient, whatever the dtype rounds away in y - gradient."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zenkai_core as zk
from zenkai_core import IO, Chain, Machine, State
from zenkai_core.criteria import output_gradient
from zenkai_core.values import Target


def test_sse_reads_the_error_of_a_target_that_was_made_from_this_y_and_subtracts_otherwise() -> None:
    y, error = IO(torch.full((3, 2), 1e8)), torch.ones(3, 2)
    t = Target.away_from(y, [error])
    assert torch.equal(output_gradient(zk.sse, y.detach(), t)[0], error)
    assert torch.equal(output_gradient(zk.sse, y.clone(), t)[0], torch.zeros(3, 2))
    assert torch.equal(output_gradient(zk.sse, y, t.detach())[0], torch.zeros(3, 2))


def test_an_integer_tensor_has_no_error_and_is_its_own_target() -> None:
    y = IO(torch.tensor([1, 2]), torch.ones(2))
    t = Target.away_from(y, [None, torch.ones(2)])
    assert t[0].tolist() == [1, 2]
    assert t.error_of(y)[0] is None


def test_a_copied_or_pickled_target_is_a_plain_io() -> None:
    t = Target.away_from(IO(torch.ones(2)), [torch.ones(2)])
    for other in (copy.deepcopy(t), pickle.loads(pickle.dumps(t))):
        assert type(other) is IO
        assert torch.equal(other.f, t.f)


@pytest.mark.parametrize("theta", [zk.theta.Gradient, zk.theta.Delta])
@pytest.mark.parametrize("drive", ["explicit", "bridge", "mixed"])
def test_in_float32_large_outputs_and_small_gradients_lose_nothing_but_rounding(theta: type, drive: str) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(20, 50), nn.Linear(50, 5))
    with torch.no_grad():
        plain[1].weight.mul_(1e-3)
    x, labels, ours = torch.randn(64, 20) * 1000, torch.randint(5, (64,)), copy.deepcopy(plain)
    F.cross_entropy(plain(x), labels).backward()
    head = zk.theta.Gradient(torch.optim.SGD)
    layers = (
        Machine(ours[0], theta(torch.optim.SGD), zk.targets.Gradient()),
        Machine(ours[1], head, zk.targets.Gradient(), zk.cross_entropy),
    )
    if drive == "explicit":
        net, state = Chain(*layers), State()
        net.remember(IO(x), state)
        net.tell(IO(labels), state)
    else:
        F.cross_entropy((Chain if drive == "bridge" else nn.Sequential)(*layers)(x), labels).backward()
    for a, b in zip(plain.parameters(), ours.parameters(), strict=True):
        assert (a.grad - b.grad).norm() <= 1e-6 * a.grad.norm()


def test_n_iterations_hand_down_the_whole_way() -> None:
    torch.manual_seed(0)
    layer = Machine(nn.Linear(3, 2), zk.theta.Null(), zk.targets.Gradient(3, scale=0.5))
    x, t, state = IO(torch.randn(4, 3)), IO(torch.randn(4, 2)), State()
    layer.remember(x, state)
    target = layer.step_x(x, t, state)
    (error,) = output_gradient(zk.sse, state.inputs, target)
    assert torch.allclose(error, x.f - target.f, atol=1e-6)
