"""Target propagation on the digits: who learns when, and that it leads beyond the frozen network."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from common import data
from common.experiment import Network, Plan
from common.loop import accuracy
from experiments import target_prop
from zenkai_core import IO, State

VARIANTS = list(target_prop.EXPERIMENT.variants)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return Plan(data.load(), epochs=12, seed=0, device=torch.device("cpu"))


def train(plan: Plan, control: str | None) -> Network:
    torch.manual_seed(0)
    network = target_prop.build(plan, control)
    train = plan.data.train
    for epoch in range(plan.epochs):
        for at, rows in enumerate(batches := torch.randperm(len(train)).split(network.batch_size)[:-1]):
            network.schedule((epoch + at / len(batches)) / plan.epochs)
            network.machine.learn(IO(train.x[rows]), IO(train.t[rows]))
    return network


@pytest.mark.parametrize("variant", VARIANTS)
def test_inverses_learn_on_even_epochs_and_layers_on_odd_ones(plan: Plan, variant: str) -> None:
    network = target_prop.build(dataclasses.replace(plan, variant=variant), None)
    rows = slice(0, network.batch_size)
    for epoch in range(4):
        for share in (0.0, 0.99):
            network.schedule((epoch + share) / plan.epochs)
            before = {name: p.detach().clone() for name, p in network.machine.named_parameters()}
            network.machine.learn(IO(plan.data.train.x[rows]), IO(plan.data.train.t[rows]))
            moved = {
                name.split(".")[1] for name, p in network.machine.named_parameters() if not torch.equal(p, before[name])
            }
            assert moved == ({"module"} if epoch % 2 else {"x"})


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_frozen_control_trains_its_output_layer_only(plan: Plan, variant: str) -> None:
    network = target_prop.build(dataclasses.replace(plan, variant=variant), "frozen")
    rows = slice(0, network.batch_size)
    before = {name: p.detach().clone() for name, p in network.machine.named_parameters()}
    network.schedule(0.0)
    network.machine.learn(IO(plan.data.train.x[rows]), IO(plan.data.train.t[rows]))
    moved = {name.split(".")[0] for name, p in network.machine.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"3"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_backprop_control_has_the_gradients_of_the_task(plan: Plan, variant: str) -> None:
    network = target_prop.build(dataclasses.replace(plan, variant=variant), "backprop")
    x, t = plan.data.train.x[:32], plan.data.train.t[:32]
    chain = network.machine
    loss = torch.nn.functional.cross_entropy(torch.nn.Sequential(*(m.module for m in chain.machines))(x), t)
    wanted = torch.autograd.grad(loss, list(chain.parameters()))
    state = State()
    chain.remember(IO(x), state)
    chain.tell(IO(t), state)
    for p, gradient in zip(chain.parameters(), wanted, strict=True):
        torch.testing.assert_close(p.grad, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_learned_inverses_lead_beyond_the_frozen_network(plan: Plan, variant: str) -> None:
    plan = dataclasses.replace(plan, variant=variant)
    found = {control: accuracy(train(plan, control).machine, plan.data.validation) for control in (None, "frozen")}
    assert found[None] > 0.85
    assert found[None] > found["frozen"] + 0.03
