"""Particle swarms: neighbourhoods against a slow reference, inertia and constriction against the papers' numbers."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
import torch._inductor
from torch import Tensor

from tansaku import PSO, Bounds, Objective, Population, Search, compiling, host
from tansaku.testing import rastrigin, sphere

ASSESS = Objective(sphere)


def start(k: int, batch_shape: tuple[int, ...] = (), n: int = 2, seed: int = 0) -> Population:
    genes = torch.randn(k, *batch_shape, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return ASSESS(Population({"x": genes}, len(batch_shape)))


def informants(neighbourhood: str, i: int, k: int) -> list[int]:
    if neighbourhood == "global":
        return list(range(k))
    if neighbourhood == "ring":
        return [i, (i + 1) % k, (i - 1) % k]
    columns = round(math.sqrt(k))
    return [i, (i + 1) % k, (i - 1) % k, (i + columns) % k, (i - columns) % k]


@pytest.mark.parametrize("neighbourhood", ["global", "ring", "von_neumann"])
@pytest.mark.parametrize("k", [2, 5, 12, 16])
def test_a_particle_follows_the_best_of_its_neighbours_in_every_search(neighbourhood: str, k: int) -> None:
    pso = PSO(k=k, inertia=0.0, cognitive=0.0, social=2.0, neighbourhood=neighbourhood)  # type: ignore[arg-type]
    begun = start(k, (3,))
    x = begun["x"]
    moved = pso.ask(pso.init(begun), torch.Generator().manual_seed(1))["x"]
    for search in range(3):
        for i in range(k):
            leader = min(informants(neighbourhood, i, k), key=lambda j: float(begun.cost[j, search]))
            towards = x[leader, search] - x[i, search]
            share = (moved[i, search] - x[i, search]) / torch.where(towards == 0, 1.0, towards)
            assert bool(((share >= 0) & (share <= 2)).all())
            assert bool((share > 0).any()) == (leader != i)
            assert torch.allclose(x[i, search] + share * towards, moved[i, search])


def test_news_travels_one_particle_a_generation_around_a_ring() -> None:
    k, generations = 12, 4
    begun = Population({"x": torch.full((k, 1), 5.0, dtype=torch.float64)})
    begun["x"][0] = 0.0
    pso = PSO(k=k, neighbourhood="ring")
    search = Search(pso, ASSESS, begun, seed=0)
    for _ in range(generations):
        search.step()
    assert search.state is not None
    moved = [i for i in range(k) if float(search.state.personal["x"][i]) != float(begun["x"][i])]
    assert set(moved) <= {1, 2, 3, 4, 8, 9, 10, 11}


def test_inertia_falls_in_a_line_over_the_budget_and_stays_down() -> None:
    pso = PSO(k=4, inertia=0.9, last_inertia=0.4, cognitive=0.0, social=0.0, max_evaluations=40)
    state = pso.init(start(4))
    state = type(state)(state.swarm.with_traits(**{"velocity.x": torch.ones(4, 2).double()}), state.personal, 4)
    for evaluations in range(4, 60, 4):
        asked = pso.ask(state, torch.Generator())
        kept = asked.traits["velocity.x"] / state.swarm.traits["velocity.x"]
        expected = 0.9 - 0.5 * min(1.0, evaluations / 40)
        assert kept.flatten().tolist() == pytest.approx([expected] * 8)
        state = pso.tell(state, ASSESS(asked))


def test_constriction_has_the_published_coefficients() -> None:
    pso = PSO.constricted(2.05, 2.05, k=7)
    assert pso.inertia == pytest.approx(0.72984, abs=1e-5)
    assert pso.cognitive == pso.social == pytest.approx(1.49618, abs=1e-5)
    assert pso.k == 7
    other = PSO.constricted(2.8, 1.3)
    assert (other.cognitive / other.inertia, other.social / other.inertia) == pytest.approx((2.8, 1.3))
    with pytest.raises(ValueError, match=r"expected cognitive \+ social > 4 for constriction, got 4; use PSO"):
        PSO.constricted(2.0, 2.0)


@pytest.mark.parametrize("neighbourhood", ["ring", "von_neumann"])
@pytest.mark.parametrize("shape", [(2,), (7,), (30,), (7, 3)], ids=str)
def test_of_equal_neighbours_the_first_leads_on_the_host_and_on_a_device(
    neighbourhood: Literal["ring", "von_neumann"], shape: tuple[int, ...]
) -> None:
    pso = PSO(k=shape[0], neighbourhood=neighbourhood)
    columns = round(math.sqrt(pso.k))
    steps = [0, 1, -1] if neighbourhood == "ring" else [0, 1, -1, columns, -columns]
    cost = torch.randint(0, 3, shape, generator=torch.Generator().manual_seed(0)).float()
    rows = cost.view(pso.k, -1)
    expected = torch.empty(rows.shape, dtype=torch.int64)
    for i in range(pso.k):
        for j in range(rows.shape[1]):
            costs = {(i + step) % pso.k: float(rows[(i + step) % pso.k, j]) for step in steps}
            expected[i, j] = min(costs, key=lambda number: costs[number])
    expected = expected.view(shape)
    assert torch.equal(pso._leaders(cost), expected)
    with host.all_apart():
        assert torch.equal(pso._leaders(cost), expected)


def test_an_unknown_neighbourhood_is_refused() -> None:
    with pytest.raises(ValueError, match="expected neighbourhood 'global', 'ring' or 'von_neumann', got 'star'"):
        PSO(neighbourhood="star")  # type: ignore[arg-type]


def test_small_neighbourhoods_are_harder_to_trap() -> None:
    begun = Population({"x": torch.rand(20, 30, 5, generator=torch.Generator().manual_seed(0)) * 10 - 5}, 1)

    def solved(neighbourhood: str) -> int:
        pso = PSO(k=20, neighbourhood=neighbourhood, bounds=(-5.0, 5.0))  # type: ignore[arg-type]
        value = Search(pso, Objective(rastrigin), begun, seed=1).run(max_generations=800).value
        assert isinstance(value, Tensor)
        return int((value < 1e-3).sum())

    assert solved("ring") > solved("global")
    assert solved("von_neumann") > solved("global")


@pytest.mark.parametrize("bounds", [None, (-1.0, 1.0), Bounds(-1.0, 1.0, "reflect"), Bounds(-torch.ones(2), 1.0)])
@pytest.mark.parametrize("neighbourhood", ["global", "ring"])
def test_the_kernel_that_is_compiled_moves_as_the_plain_steps_do(
    bounds: Any, neighbourhood: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def traced(kernel: torch.fx.GraphModule, tensors: list[Tensor]) -> Callable[..., Any]:
        calls.append(len(tensors))
        return kernel

    monkeypatch.setattr(torch._inductor, "compile", traced)
    monkeypatch.setattr(compiling, "_made", {})
    begun = start(6, (3,))
    begun = ASSESS(Population({"x": begun["x"].clamp(-1, 1)}, 1))
    settings: dict[str, Any] = {"k": 6, "bounds": bounds, "neighbourhood": neighbourhood, "last_inertia": 0.4}
    runs = [Search(PSO(**settings, compile=compiled), ASSESS, begun, seed=3) for compiled in (False, True)]
    for _ in range(20):
        for run in runs:
            run.step()
    plain, compiled = [run.state.swarm for run in runs if run.state is not None]
    assert len(calls) == 1  # one kernel, whatever the inertia
    assert torch.allclose(plain["x"], compiled["x"], rtol=0, atol=1e-9)
    assert torch.allclose(plain.traits["velocity.x"], compiled.traits["velocity.x"], rtol=0, atol=1e-9)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # TorchInductor's own
def test_a_compiled_swarm_moves_as_a_plain_one() -> None:
    begun = start(8)
    runs = [
        Search(PSO(k=8, bounds=Bounds(-9.0, 9.0), compile=compiled), ASSESS, begun, seed=3)
        for compiled in (False, True)
    ]
    for _ in range(10):
        for run in runs:
            run.step()
    plain, compiled = [run.state.swarm for run in runs if run.state is not None]
    assert torch.allclose(plain["x"], compiled["x"], rtol=0, atol=1e-9)


def test_without_a_compiler_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> None:
        raise OSError("no C++ compiler")

    monkeypatch.setattr(torch._inductor, "compile", broken)
    monkeypatch.setattr(compiling, "_made", {})
    search = Search(PSO(k=4, compile=True), ASSESS, start(4))
    with pytest.raises(RuntimeError, match=r"compile=True, got none that works \(no C\+\+ compiler\); install g\+\+"):
        search.step()
    assert search.generations == 0


def test_compile_is_a_switch() -> None:
    with pytest.raises(TypeError, match="expected compile as True or False, got 'yes'; pass compile=True"):
        PSO(compile="yes")  # type: ignore[arg-type]
