"""Random numbers of an optimiser's closure, batch norm under vmap, and callbacks of generation 0."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import tansaku
from tansaku import Individual, ModuleObjective, Objective, Population, Search


def sphere(x: Tensor) -> Tensor:
    return x.square().sum(-1)


@pytest.mark.parametrize("name", ["PSO", "CMAES", "SNES", "OpenAIES", "LSHADE"])
def test_dropout_under_an_optimiser_draws_from_its_seed(name: str) -> None:
    x = torch.linspace(-1.0, 1.0, 24).reshape(8, 3)

    def losses(global_seed: int, seed: int) -> list[float]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        optimizer = getattr(tansaku.optim, name)(net.parameters(), std=0.3, seed=seed)
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        found = [float(optimizer.step(lambda: (net(x) - 1).square().mean())) for _ in range(3)]
        assert torch.equal(torch.get_rng_state(), before)
        return found

    assert losses(1, seed=5) == losses(2, seed=5)
    assert losses(1, seed=5) != losses(1, seed=6)


def test_all_candidates_of_an_optimisers_generation_get_the_same_random_numbers_and_the_next_one_others() -> None:
    parameter, drawn = nn.Parameter(torch.ones(2)), []

    def closure() -> Tensor:
        drawn.append(float(torch.rand(())))
        return parameter.square().sum()

    optimizer = tansaku.optim.SearchOptimizer([parameter], tansaku.PSO(k=4))
    for _ in range(3):
        optimizer.step(closure)
    start, *rest = drawn
    assert [len(set(rest[i : i + 4])) for i in (0, 4, 8)] == [1, 1, 1]
    assert len({start, *rest}) == 4


@pytest.mark.parametrize("on_failure", ["raise", "worst"])
def test_batch_norm_in_training_mode_is_refused_with_the_remedy(on_failure: tansaku.assessors.OnFailure) -> None:
    net, x = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), torch.randn(8, 3)
    objective = ModuleObjective(net, lambda run: run(x).square().mean(), on_failure=on_failure)
    with pytest.raises(RuntimeError, match=r"expected batch norm in evaluation mode.*call module\.eval\(\)"):
        objective(Individual.from_module(net).populate(4))


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_callbacks_see_generation_0_after_the_start_failed_once(error: type[BaseException]) -> None:
    calls, seen = [], []

    def fn(x: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) == 1:
            raise error
        return sphere(x)

    search = Search(
        "pso", Objective(fn), Individual({"x": torch.ones(3)}), callbacks=[lambda s: seen.append(s.generations)]
    )
    with pytest.raises(error):
        search.run(max_generations=3)
    search.run(max_generations=3)
    assert seen == [0, 1, 2, 3]


def test_a_callback_interrupted_at_generation_0_is_not_called_for_it_again() -> None:
    seen = []

    def callback(search: Search[object]) -> None:
        seen.append(search.generations)
        if len(seen) == 1:
            raise KeyboardInterrupt

    search = Search("pso", Objective(sphere), Individual({"x": torch.ones(3)}), callbacks=[callback])
    assert search.run(max_generations=3).stopped == "interrupted"
    search.run(max_generations=3)
    assert seen == [0, 1, 2, 3]


@pytest.mark.parametrize("by_step", [True, False])
def test_callbacks_see_an_assessed_start_once_by_step_and_by_run(by_step: bool) -> None:
    seen: list[int] = []
    start = Objective(sphere)(Population({"x": torch.ones(4, 3)}))
    search = Search("pso", Objective(sphere), start, callbacks=[lambda s: seen.append(s.generations)])
    if by_step:
        search.step()
        search.step()
    search.run(max_generations=3)
    assert seen == [0, 1, 2, 3]
