"""Searches behind the interface of torch.optim, and memory budgets of assessors."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import tansaku
from tansaku import GA, PSO, HillClimb, Individual, InputObjective, ModuleObjective, Population, Search, optim

X = torch.linspace(-1, 1, 24).view(8, 3)
Y = X.sum(1, keepdim=True)


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Linear(3, 1)


def loss_of(net: nn.Module) -> Callable[[], Tensor]:
    return lambda: (net(X) - Y).square().mean()


@pytest.mark.parametrize("algorithm", [HillClimb(k=6, std=0.3), GA(k=8), PSO(k=6, std=0.3)])
def test_steps_of_the_optimiser_are_generations_of_the_search(algorithm: tansaku.Algorithm) -> None:
    net, twin = network(), network()
    optimizer = optim.SearchOptimizer(net.parameters(), algorithm, seed=5)
    names = dict(zip(("0", "1"), (name for name, _ in twin.named_parameters()), strict=True))
    own = Individual({i: dict(twin.named_parameters())[name].detach() for i, name in names.items()})

    def cost(genes: dict[str, Tensor]) -> Tensor:
        y = torch.func.functional_call(twin, {names[i]: g for i, g in genes.items()}, X)
        return (y - Y).square().mean()

    search = Search(algorithm, tansaku.Objective(cost, vectorized=False), own, seed=5)
    for _ in range(6):
        last = optimizer.step(loss_of(net))
        search.step()
    assert torch.equal(last, search.value)
    for i, name in names.items():
        assert torch.equal(search.best[i][0], dict(net.named_parameters())[name])


def test_every_real_algorithm_is_an_optimiser_under_its_own_name() -> None:
    for kind in tansaku.ALGORITHMS.values():
        if "real" in kind.needs.dtypes and kind.needs.objectives == "one" and not kind.needs.descriptor:
            net = network()
            optimizer = getattr(optim, kind.__name__)(net.parameters(), write="best", seed=1)
            before = loss_of(net)()
            for _ in range(3):
                optimizer.step(loss_of(net))
            assert isinstance(optimizer.algorithm, kind)
            assert loss_of(net)() <= before
    with pytest.raises(AttributeError, match="expected SearchOptimizer or one of"):
        optim.Adam  # noqa: B018


def test_a_frozen_parameter_is_left_alone() -> None:
    net = network()
    net.bias.requires_grad_(False)
    bias = net.bias.clone()
    optimizer = optim.HillClimb(net.parameters(), k=8)
    for _ in range(5):
        optimizer.step(loss_of(net))
    assert torch.equal(net.bias, bias)


def test_a_saved_optimiser_goes_on_bit_by_bit() -> None:
    net = network()
    optimizer = optim.PSO(net.parameters(), k=5, seed=2)
    for _ in range(3):
        optimizer.step(loss_of(net))
    twin = copy.deepcopy(net)
    other = optim.PSO(twin.parameters(), k=5, seed=99)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(4):
        assert torch.equal(optimizer.step(loss_of(net)), other.step(loss_of(twin)))
    assert torch.equal(net.weight, twin.weight)


def test_an_error_in_the_closure_leaves_the_parameters_as_they_were() -> None:
    net = network()
    optimizer = optim.GA(net.parameters(), k=4)
    before = copy.deepcopy(net.state_dict())
    calls = iter(range(100))

    def closure() -> Tensor:
        if next(calls) == 3:
            raise OSError("the simulator died")
        return loss_of(net)()

    with pytest.raises(OSError, match="the simulator died"):
        optimizer.step(closure)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert optimizer.step(loss_of(net)) <= loss_of(network())()


def test_refresh_assesses_what_is_remembered_on_the_new_data() -> None:
    net = network()
    optimizer = optim.HillClimb(net.parameters(), k=4, std=0.1, refresh=True)
    optimizer.step(loss_of(net))
    shifted = lambda: (net(X) - Y - 100.0).square().mean()  # noqa: E731
    assert optimizer.step(shifted) > 1000


def test_wrong_use_of_the_optimiser_says_the_remedy() -> None:
    net = network()
    with pytest.raises(TypeError, match="expected a tansaku Algorithm, got str"):
        optim.SearchOptimizer(net.parameters(), "pso")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected a closure that returns the loss, got none"):
        optim.PSO(net.parameters()).step()
    with pytest.raises(ValueError, match=r"expected the closure to return one number, got shape \[8, 1\]"):
        optim.PSO(net.parameters()).step(lambda: net(X))
    with pytest.raises(ValueError, match="expected parameters that require a gradient, got none"):
        optim.PSO(net.requires_grad_(False).parameters())


# ------------------------------------------------------------------------------------------------ memory budgets
def wide() -> tuple[nn.Module, ModuleObjective, Population]:
    net = nn.Sequential(nn.Linear(3, 50), nn.Tanh(), nn.Linear(50, 1))
    objective = ModuleObjective(net, lambda run: (run(X) - Y).square().mean())
    population = tansaku.GaussianSampler(0.1)(Individual.from_module(net), 20, torch.Generator().manual_seed(0))
    return net, objective, population


def test_a_memory_budget_changes_no_cost() -> None:
    net, objective, population = wide()
    tight = ModuleObjective(net, objective.fn, memory=20_000)
    torch.testing.assert_close(tight(population).cost, objective(population).cost)


def test_a_smaller_budget_means_smaller_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    net, objective, population = wide()
    chunks = []
    vmap = torch.func.vmap
    monkeypatch.setattr(
        torch.func, "vmap", lambda *args, **options: chunks.append(options.get("chunk_size")) or vmap(*args, **options)
    )
    for memory in (10_000, 20_000, 10**9):
        ModuleObjective(net, objective.fn, memory=memory)(population)
    sizes = [chunk for chunk in chunks if chunk]
    assert 1 <= sizes[0] < sizes[1] < 20 <= sizes[2]


def test_a_budget_below_one_candidate_is_refused_with_the_bytes_it_takes() -> None:
    net, objective, population = wide()
    parameters = sum(p.numel() * 4 for p in net.parameters())
    with pytest.raises(ValueError, match=r"expected memory >= (\d+) bytes") as error:
        ModuleObjective(net, objective.fn, memory=100)(population)
    assert int(str(error.value).split()[3]) > parameters
    with pytest.raises(ValueError, match="expected chunk or memory, got both"):
        ModuleObjective(net, objective.fn, memory=100, chunk=2)


def test_rows_are_searched_within_a_budget() -> None:
    rows: list[int] = []

    def cost(x: Tensor) -> Tensor:
        rows.append(x.shape[0])
        return x.square().sum(1)

    start = Population({"x": torch.randn(16, 10, 3)}, 1)
    whole = InputObjective(cost)(start).cost
    rows.clear()
    tight = InputObjective(cost, memory=1000)(start).cost
    torch.testing.assert_close(whole, tight)  # sums over other numbers of rows may round apart
    assert max(rows) < 160


def test_candidates_leave_buffers_and_other_state_of_modules_unchanged() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls, self.mean = 0, torch.zeros(())

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            self.mean = self.mean + x.mean()
            return x

    torch.manual_seed(0)
    normed = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 4))
    net = nn.Sequential(normed, nn.BatchNorm1d(4), Counts(), nn.Linear(4, 1))
    before = copy.deepcopy(dict(net.named_buffers()))
    optimizer = optim.PSO(net.parameters(), k=4)
    for _ in range(3):
        optimizer.step(loss_of(net))
    assert before
    assert all(torch.equal(value, before[name]) for name, value in net.named_buffers())
    assert net[2].calls == 0
    assert float(net[2].mean) == 0.0


@pytest.mark.parametrize(
    "scheduler",
    [
        lambda o: torch.optim.lr_scheduler.StepLR(o, 2, 0.5),
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 4),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 1.0, total_steps=8),
        lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda epoch: 0.5**epoch),
        lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o),
    ],
)
def test_schedulers_of_torch_take_these_optimisers(scheduler: Callable[[torch.optim.Optimizer], object]) -> None:
    net = network()
    optimizer = optim.HillClimb(net.parameters(), k=4)
    schedule: object = scheduler(optimizer)
    for _ in range(4):
        loss = optimizer.step(loss_of(net))
        plateau = isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau)
        schedule.step(*([loss] if plateau else []))  # type: ignore[attr-defined]


def test_lr_is_the_share_of_the_way_to_the_answer() -> None:
    net, half = network(), network()
    start = [p.detach().clone() for p in net.parameters()]
    optim.HillClimb(net.parameters(), k=6, seed=1).step(loss_of(net))
    optim.HillClimb(half.parameters(), k=6, seed=1, lr=0.5).step(loss_of(half))
    for first, whole, part in zip(start, net.parameters(), half.parameters(), strict=True):
        torch.testing.assert_close(part, (first + whole) / 2)


def test_a_state_of_other_settings_is_refused() -> None:
    net = network()
    optimizer = optim.PSO(net.parameters(), k=5, inertia=0.5)
    optimizer.step(loss_of(net))
    with pytest.raises(ValueError, match="inertia"):
        optim.PSO(net.parameters(), k=5, inertia=0.6).load_state_dict(optimizer.state_dict())
