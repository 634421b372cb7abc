from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import zenkai_core as zk
from zenkai_core import Chain, Machine


def machine(i: int, o: int) -> Machine:
    return Machine(nn.Linear(i, o), zk.theta.Gradient(torch.optim.SGD, lr=0.1), zk.targets.Gradient())


def test_a_model_without_plain_parameters_needs_no_torch_optimiser() -> None:
    model = nn.Sequential(machine(2, 3), nn.ReLU(), machine(3, 1))
    optimizer = zk.Optimizer(model)
    before = [p.clone() for p in model.parameters()]
    model(torch.ones(4, 2)).square().mean().backward()
    optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(before[2:], list(model.parameters())[2:], strict=True))


def test_plain_parameters_are_those_outside_machines() -> None:
    plain = nn.Linear(3, 1)
    model = nn.Sequential(machine(2, 3), plain)
    assert zk.plain_parameters(model) == [plain.weight, plain.bias]


def test_parameters_that_nobody_moves_give_a_warning() -> None:
    model = nn.Sequential(machine(2, 3), nn.Linear(3, 1))
    with pytest.warns(UserWarning, match="nobody moves them"):
        zk.Optimizer(model)
    model[1].requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        zk.Optimizer(model)


def test_a_machines_parameter_in_the_torch_optimiser_is_refused() -> None:
    model = nn.Sequential(machine(2, 3), nn.Linear(3, 1))
    with pytest.raises(ValueError, match="they would move twice"):
        zk.Optimizer(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(TypeError, match="expected a torch optimiser or a callable"):
        zk.Optimizer(model, 0.1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"expected a model, got generator: .* not its parameters"):
        zk.Optimizer(model.parameters())  # type: ignore[arg-type]


def test_each_machine_steps_once_and_only_after_a_backward() -> None:
    chain = Chain(machine(2, 3), machine(3, 1))
    model = nn.ModuleDict({"a": chain, "b": chain})
    steps = []
    for m in chain.machines:
        m.register_hook("step", lambda call: steps.append(call.machine))
    optimizer = zk.Optimizer(model)
    optimizer.step()
    assert steps == []
    chain(torch.ones(4, 2)).mean().backward()
    optimizer.step()
    optimizer.step()
    assert steps == [chain.machines[1], chain.machines[0]]


def test_a_closure_is_called_once_with_gradients_on() -> None:
    model = machine(2, 1)
    optimizer = zk.Optimizer(model)
    before = model.module.weight.clone()

    def closure() -> torch.Tensor:
        loss = model(torch.ones(4, 2)).square().mean()
        loss.backward()
        return loss

    with torch.no_grad():
        assert optimizer.step(closure) > 0
    assert not torch.equal(before, model.module.weight)


def test_zero_grad_clears_gradients_and_keeps_the_rows_of_earlier_steps() -> None:
    trees = Machine(zk.modules.Trees(2, 3), zk.theta.Fit(), zk.targets.Null())
    model = nn.Sequential(trees, machine(3, 1))
    optimizer = zk.Optimizer(model)
    model(torch.ones(4, 2)).mean().backward()
    optimizer.step()
    model(torch.ones(3, 2)).mean().backward()
    assert model[1].module.weight.grad is not None
    optimizer.zero_grad()
    assert model[1].module.weight.grad is None
    assert trees.theta.pending == 4


def test_param_groups_are_those_of_the_optimisers_inside() -> None:
    model = nn.Sequential(machine(2, 3), nn.Linear(3, 1))
    plain = torch.optim.Adam(model[1].parameters(), lr=0.5)
    optimizer = zk.Optimizer(model, plain)
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.5]
    for group in optimizer.param_groups:
        group["lr"] = 7.0
    assert model[0].theta.optimizer.param_groups[0]["lr"] == 7.0
    assert plain.param_groups[0]["lr"] == 7.0


def test_state_dict_carries_the_torch_optimiser_and_the_model_the_machines() -> None:
    def make() -> tuple[nn.Module, zk.Optimizer]:
        model = nn.Sequential(
            Machine(nn.Linear(2, 3), zk.theta.Gradient(torch.optim.Adam, lr=0.1), zk.targets.Gradient()),
            nn.Linear(3, 1),
        )
        return model, zk.Optimizer(model, lambda params: torch.optim.Adam(params, lr=0.1))

    def train(model: nn.Module, optimizer: zk.Optimizer) -> None:
        for i in range(3):
            optimizer.zero_grad()
            model(torch.full((4, 2), float(i))).square().mean().backward()
            optimizer.step()

    model, optimizer = make()
    train(model, optimizer)
    other, resumed = make()
    other.load_state_dict(model.state_dict())
    resumed.load_state_dict(optimizer.state_dict())
    train(model, optimizer)
    train(other, resumed)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    with pytest.raises(ValueError, match="made alike"):
        zk.Optimizer(machine(2, 1)).load_state_dict(optimizer.state_dict())


def test_what_is_no_state_of_an_optimizer_is_refused() -> None:
    for state, entries in (
        ({}, r"\[\]"),
        (torch.optim.SGD(nn.Linear(2, 1).parameters()).state_dict(), "'param_groups'"),
    ):
        with pytest.raises(
            ValueError, match=rf"with the entry 'torch_optimizer', got the entries .*{entries}.*: a torch"
        ):
            zk.Optimizer(machine(2, 1)).load_state_dict(state)


def test_torchs_schedulers_take_a_model_without_any_optimiser_inside() -> None:
    optimizer = zk.Optimizer(Machine(zk.modules.Trees(2, 1), zk.theta.Fit(), zk.targets.Null()))
    assert optimizer.param_groups == []
    optimizer.step()


class Own(zk.LearningMachine):
    """A user's layer that keeps its optimiser in an attribute, here under any name and in a dictionary."""

    def __init__(self, kept: str) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)
        adam = torch.optim.Adam(self.linear.parameters(), lr=0.5)
        if kept == "attribute":
            self.anything = adam
        elif kept == "dictionary":
            self.held = {"weights": adam}
        elif kept == "ours":
            self.held = zk.Optimizer(nn.Sequential(self.linear), adam)

    def forward_nn(self, x: zk.IO, state: zk.State) -> zk.IO:
        return zk.IO(self.linear(x.f))


@pytest.mark.parametrize("kept", ["attribute", "dictionary", "ours"])
def test_a_scheduler_reaches_the_optimiser_of_a_users_own_machine(kept: str) -> None:
    model = nn.Sequential(Own(kept), machine(1, 1))
    optimizer = zk.Optimizer(model)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.1)
    optimizer.step()
    scheduler.step()
    assert [round(g["lr"], 6) for g in optimizer.param_groups] == [0.05, 0.01]


def test_a_machine_that_no_group_belongs_to_warns_whoever_reads_the_groups() -> None:
    optimizer = zk.Optimizer(nn.Sequential(Own("nowhere"), machine(1, 1)))
    with pytest.warns(UserWarning, match="got none in Own, which no scheduler reaches: keep the torch optimiser as an"):
        torch.optim.lr_scheduler.StepLR(optimizer, step_size=1)
    assert len(optimizer.param_groups) == 1


def test_layers_whose_rule_needs_no_optimiser_give_no_warning() -> None:
    still = Machine(nn.Linear(2, 2), zk.theta.Null(), zk.targets.Null())
    assert len(zk.Optimizer(Chain(still, machine(2, 1))).param_groups) == 1


def test_further_parameters_join_the_torch_optimiser_and_a_machines_are_refused() -> None:
    learns, plain = machine(2, 2), nn.Linear(2, 2)
    plain.bias.requires_grad_(False)
    model = nn.Sequential(learns, plain)
    optimizer = zk.Optimizer(model, torch.optim.SGD([plain.weight], lr=0.1))
    plain.bias.requires_grad_()
    optimizer.add_param_group({"params": plain.bias, "lr": 1.0})
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.1, 1.0]
    before = plain.bias.detach().clone()
    model(torch.randn(4, 2)).sum().backward()
    optimizer.step()
    assert torch.allclose(plain.bias, before - 4)
    with pytest.raises(ValueError, match="got those of a machine: "):
        optimizer.add_param_group({"params": learns.parameters()})
    with pytest.raises(ValueError, match="got none: "):
        zk.Optimizer(learns).add_param_group({"params": [nn.Parameter(torch.zeros(1))]})


def test_a_data_loader_and_lightnings_order_of_calls_train_as_plain_torch_does() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    rules = [(zk.theta.Gradient(torch.optim.Adam, lr=0.01), zk.targets.Gradient()) for _ in range(2)]
    ours = zk.convert(copy.deepcopy(plain), lambda _: rules.pop(), group=True)
    pairs = [(plain, torch.optim.Adam(plain.parameters(), lr=0.01)), (ours, zk.Optimizer(ours))]
    data = TensorDataset(torch.randn(20, 3).double(), torch.randn(20, 1).double())
    losses = []
    for model, optimizer in pairs:
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
        for _ in range(2):
            for x, t in DataLoader(data, batch_size=8, shuffle=True, generator=torch.Generator().manual_seed(1)):

                def closure(x: torch.Tensor = x, t: torch.Tensor = t, model: nn.Module = model) -> torch.Tensor:
                    loss = nn.functional.mse_loss(model(x), t)
                    optimizer.zero_grad()  # noqa: B023 - Lightning clears between the forward and the backward pass
                    loss.backward()
                    return loss

                losses.append(optimizer.step(closure).item())
            schedule.step()
    assert losses[:6] == pytest.approx(losses[6:], rel=1e-12)
    for p, q in zip(plain.parameters(), ours.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=0, atol=1e-12)
