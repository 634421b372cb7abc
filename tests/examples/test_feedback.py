"""Feedback alignment, direct feedback and least squares on the digits: each is what it says, and beats its control."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torch import Tensor

from common import data, loop
from common.experiment import Network, Plan
from experiments import direct_feedback, feedback_alignment, least_squares
from zenkai_core import IO, Machine, State, targets

EPOCHS = 6
RUNS = [
    (feedback_alignment, "plain"),
    (feedback_alignment, "sign-symmetric"),
    (direct_feedback, "noekland"),
    (direct_feedback, "local-readout"),
    (least_squares, "plain"),
]


def plan(variant: str) -> Plan:
    torch.manual_seed(0)
    return Plan(data.load(), EPOCHS, seed=0, device=torch.device("cpu"), variant=variant)


def trained(module: ModuleType, variant: str, control: str | None) -> float:
    """The accuracy on the validation images after a few epochs."""
    given = plan(variant)
    network, train = module.build(given, control), given.data.train
    for epoch in range(EPOCHS):
        network.schedule(epoch / EPOCHS)
        for rows in torch.randperm(len(train)).split(network.batch_size)[:-1]:
            network.machine.learn(IO(train.x[rows]), IO(train.t[rows]))
    return loop.accuracy(network.machine, given.data.validation)


def told(network: Network, variant: str) -> tuple[State, Tensor, Tensor]:
    """The pass of one batch that was told its labels, its rows and its labels."""
    train, state = plan(variant).data.train, State()
    network.machine.remember(IO(train.x[:32]), state)
    network.machine.tell(IO(train.t[:32]), state)
    return state, train.x[:32], train.t[:32]


@pytest.mark.parametrize(("module", "variant"), [RUNS[1], RUNS[3]])
def test_a_second_variant_learns_the_digits_and_beats_its_frozen_control(module: ModuleType, variant: str) -> None:
    accuracy = trained(module, variant, None)
    assert accuracy > 0.93
    assert accuracy > trained(module, variant, "frozen") + 0.03


@pytest.mark.parametrize(("module", "variant"), RUNS)
def test_the_frozen_control_trains_its_output_layer_only(module: ModuleType, variant: str) -> None:
    network = module.build(plan(variant), "frozen")
    before = {name: p.detach().clone() for name, p in network.machine.named_parameters()}
    given = plan(variant).data.train
    network.machine.learn(IO(given.x[:32]), IO(given.t[:32]))
    moved = {name for name, p in network.machine.named_parameters() if not torch.equal(p, before[name])}
    assert {name.rsplit(".", 1)[0] for name in moved} == {
        next(n for n, m in network.machine.named_modules() if m is network.layers["output"]) + ".module"
    }


@pytest.mark.parametrize(("module", "variant"), RUNS)
def test_the_backprop_control_is_backpropagation_through_the_same_modules(module: ModuleType, variant: str) -> None:
    network = module.build(plan(variant), "backprop")
    ours = module.build(plan(variant), None)
    assert [p.shape for p in ours.machine.parameters()] == [p.shape for p in network.machine.parameters()]
    machines = [m for m in network.machine.modules() if isinstance(m, Machine)]
    _, x, t = told(network, variant)
    grads = [p.grad.clone() for m in machines for p in m.module.parameters()]
    network.machine.forget()
    y = x
    for m in machines:
        y = m.module(y)
    torch.nn.functional.cross_entropy(y, t).backward()
    parameters = [p for m in machines for p in m.module.parameters()]
    for p, g in zip(parameters, grads, strict=True):
        torch.testing.assert_close(p.grad, g)


def test_sign_symmetric_feedback_has_the_signs_of_the_weights_and_plain_feedback_does_not() -> None:
    for variant, symmetric in (("plain", False), ("sign-symmetric", True)):
        output = feedback_alignment.build(plan(variant), None).layers["output"]
        (B,) = output.x.feedback(output).values()
        assert torch.equal(B.sign(), output.module.weight.sign()) == symmetric


def test_the_published_direct_feedback_is_the_output_error_through_fixed_weights() -> None:
    network = direct_feedback.build(plan("noekland"), None)
    state, _, t = told(network, "noekland")
    e = state.outputs.f.detach().softmax(1) - torch.nn.functional.one_hot(t, 10)
    for i in range(2):
        sub = state.sub(str(i))
        assert isinstance(network.machine[i].y, targets.DirectFeedback)
        torch.testing.assert_close(sub.outputs.f - sub.t.f, e @ network.machine[i].y.weights(sub).T, atol=1e-5, rtol=0)


def test_ridge_brings_every_linear_map_nearer_its_target_than_the_damping_allows() -> None:
    assert least_squares.DAMPING <= 10
    network = least_squares.build(plan("plain"), None)
    state, _, _ = told(network, "plain")
    for i, m in enumerate(network.machine):
        if isinstance(m.x, targets.LeastSquares) and i > 0:
            sub = state.sub(str(i))
            error = (sub.t.f - sub.outputs.f).double()
            W = m.module.weight.double()
            d = torch.linalg.solve(W.T @ W + least_squares.DAMPING * torch.eye(W.shape[1]).double(), W.T @ error.T).T
            torch.testing.assert_close(m.step_x(sub.inputs, sub.t, sub).f.double() - sub.inputs.f, d, atol=1e-5, rtol=0)
