"""MAP-Elites: insertion against a slow reference, cells, emitters, coverage and QD-score, the heat map."""

from __future__ import annotations

import copy
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tansaku import (
    Assessment,
    Centroids,
    CMAEmitter,
    GaussianEmitter,
    Grid,
    Individual,
    IsoLineEmitter,
    MapElites,
    MapElitesState,
    Objective,
    Population,
    Replay,
    Search,
    host,
    minimize,
)
from tansaku.algorithms.cma_me import _settings
from tansaku.functional import Shelf
from tansaku.plots import plot_archive
from tansaku.testing import ALGORITHM_CHECKS, check_algorithm
from tansaku.testing.claims import fingerprint

NAN, INF = math.nan, math.inf


def candidates(rows: list[tuple[float, float, float]], maximize: bool = False) -> Population:
    """(value, descriptor 1, descriptor 2) each; the gene is the row's number."""
    table = torch.tensor(rows, dtype=torch.float64)
    assessment = Assessment(table[:, 0], maximize, descriptor=table[:, 1:])
    return Population({"x": torch.arange(len(rows), dtype=torch.float64)[:, None]}, assessment=assessment)


def slow_archive(rows: list[tuple[float, float, float]], size: int) -> dict[int, int]:
    """Candidate after candidate: cell -> the row of its elite."""
    kept: dict[int, int] = {}
    for i, (cost, a, b) in enumerate(rows):
        if any(math.isnan(v) for v in (cost, a, b)) or cost == INF:
            continue
        across, along = (min(max(int(v * size // 1), 0), size - 1) for v in (a, b))
        cell = across * size + along
        if cell not in kept or cost < rows[kept[cell]][0]:
            kept[cell] = i
    return kept


row = st.tuples(
    st.sampled_from([0.0, 1.0, 2.0, 3.0, -1.0, NAN, INF, -INF]),
    st.sampled_from([-3.0, 0.1, 0.3, 0.6, 0.9, 7.0, NAN]),
    st.sampled_from([0.0, 0.2, 0.4, 1.0]),
)


@given(st.lists(row, min_size=1, max_size=20), st.lists(row, min_size=1, max_size=30))
def test_a_batch_enters_as_if_one_came_after_another(
    start: list[tuple[float, float, float]], batch: list[tuple[float, float, float]]
) -> None:
    elites = MapElites(k=len(batch), cells=Grid((3, 3)))
    state = elites.init(candidates(start))
    asked = candidates(batch)
    told = elites.tell(state, asked.with_genes({"x": asked["x"] + len(start)}).assessed(asked.assessment))  # type: ignore[arg-type]
    expected = slow_archive(start + batch, 3)
    filled = told.filled.nonzero()[:, 0].tolist()
    assert filled == sorted(expected)
    assert [int(told.archive["x"][cell]) for cell in filled] == [expected[cell] for cell in filled]
    assert float(told.coverage) == pytest.approx(len(expected) / 9)


@pytest.mark.parametrize("emitter", [IsoLineEmitter(), CMAEmitter(0.1, distributions=3)], ids=["iso-line", "cma-me"])
def test_a_search_looks_at_its_values_on_the_host_and_finds_what_it_would_without(
    emitter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> Any:
        start = Individual({"x": torch.full((3,), 0.5)})
        elites = MapElites(k=12, cells=Grid((5, 5)), emitters=(emitter,), bounds=(0.0, 1.0))  # type: ignore[arg-type]
        search: Search[Any] = Search(elites, Objective(task), start, seed=3)
        search.run(max_generations=60)
        return fingerprint(search.state)

    looked = []
    enter = Shelf._enter_here
    monkeypatch.setattr(Shelf, "_enter_here", lambda *args: looked.append(1) or enter(*args))
    here = run()
    assert len(looked) == 61  # with the start
    with host.all_apart():
        assert run() == here
    assert len(looked) == 61


def test_a_descriptor_that_changes_its_length_is_refused() -> None:
    elites = MapElites(k=4, cells=Grid((2, 2)))
    state = elites.init(candidates([(1.0, 0.5, 0.5)]))
    asked = elites.ask(state, torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="expected a descriptor of 2 numbers, as the cells have, got 1"):
        elites.tell(state, asked.assessed(Assessment(torch.zeros(4), descriptor=torch.zeros(4, 1))))


def test_states_that_were_followed_stay_as_they_were_and_can_be_followed_again() -> None:
    elites = MapElites(k=8, bounds=(0.0, 1.0))  # type: ignore[arg-type]
    assess = Objective(task)
    states = [elites.init(assess(Population({"x": torch.rand(4, 3)})))]
    noise, asked, before = torch.Generator().manual_seed(0), [], []
    for _ in range(6):
        before.append(fingerprint(copy.deepcopy(states[-1])))
        asked.append(assess(elites.ask(states[-1], noise)))
        states.append(elites.tell(states[-1], asked[-1]))
    last = fingerprint(states[-1])
    for i in (2, 0, 5, 1, 3):  # in any order; each becomes the newest version of an archive of its own
        assert fingerprint(elites.tell(states[i], asked[i])) == fingerprint(states[i + 1])
        assert fingerprint(states[i]) == before[i]
    assert fingerprint(states[-1]) == last
    assert fingerprint(pickle.loads(pickle.dumps(states[4]))) == before[4]


def test_an_archive_that_was_read_is_not_written_to() -> None:
    search: Search[Any] = Search(MapElites(k=8), Objective(task), Individual({"x": torch.rand(3)}))
    search.run(max_generations=5)
    kept = search.state.archive
    before, score = fingerprint(kept), float(search.state.qd_score())
    search.run(max_generations=40)
    assert fingerprint(kept) == before
    assert float(search.state.qd_score()) != score


def test_a_generation_does_not_copy_the_archive() -> None:
    search: Search[Any] = Search(MapElites(k=16), Objective(task), Individual({"x": torch.rand(50)}))
    search.run(max_generations=3)
    shelf = search.state._newest().shelf
    search.run(max_generations=6)
    assert search.state._newest().shelf is shelf


def test_both_directions_keep_the_better_elite() -> None:
    rows = [(1.0, 0.1, 0.1), (5.0, 0.1, 0.1), (3.0, 0.1, 0.9)]
    low = MapElites(k=3, cells=Grid((2, 2))).init(candidates(rows))
    high = MapElites(k=3, cells=Grid((2, 2))).init(candidates(rows, maximize=True))
    assert low.archive["x"][:2, 0].tolist() == [0.0, 2.0]
    assert high.archive["x"][:2, 0].tolist() == [1.0, 2.0]
    assert float(low.qd_score(10.0)) == (10 - 1) + (10 - 3)
    assert float(high.qd_score(-2.0)) == (5 + 2) + (3 + 2)
    assert float(low.coverage) == 0.5


def archive(k: int = 4, n: int = 3) -> MapElitesState:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(k, n, generator=generator, dtype=torch.float64)
    place = (torch.arange(k) + 0.5).double()[:, None] / 8
    start = Population({"x": x}, assessment=Assessment(x.sum(-1), descriptor=place))
    return MapElites(k=k, cells=Grid((8,))).init(start)


def test_elites_are_drawn_evenly_and_gaussian_noise_has_its_length() -> None:
    state = archive()
    asked = GaussianEmitter(1e-3).emit(None, state.archive, 20_000, None, torch.Generator().manual_seed(0))
    nearest = torch.cdist(asked["x"], state.archive["x"][:4]).argmin(-1)
    assert (torch.bincount(nearest, minlength=4) / 20_000).tolist() == pytest.approx([0.25] * 4, abs=0.015)
    apart = asked["x"] - state.archive["x"][nearest]
    assert float(apart.std()) == pytest.approx(1e-3, rel=0.02)


def test_iso_line_is_the_papers_equation() -> None:
    state = archive()
    tape = Replay(torch.Generator().manual_seed(0))
    asked = IsoLineEmitter(0.01, 0.2).emit(None, state.archive, 6, None, tape)
    (_, unit), (_, along), (_, around) = tape._tape
    place = (unit * 4).long()  # the first four cells are filled
    a, b = state.archive["x"][place[:6]], state.archive["x"][place[6:]]
    assert torch.allclose(asked["x"], a + 0.01 * around + 0.2 * along[:, None] * (b - a), atol=1e-14)


def task(x: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"value": x.square().sum(-1), "descriptor": x[..., :2]}


def test_minimize_gives_the_best_elite_and_the_archive() -> None:
    result = minimize(task, shape=3, bounds=(0.0, 1.0), algorithm="map_elites", max_evaluations=6000, progress=False)
    assert isinstance(result.best, Individual)
    assert float(result.value) == float(result.state.archive.cost.min())
    assert float(result.state.coverage) > 0.95


def test_several_emitters_share_the_candidates() -> None:
    elites = MapElites(k=7, emitters=(IsoLineEmitter(0.0, 0.0), GaussianEmitter(1.0)), bounds=(0.0, 1.0))  # type: ignore[arg-type]
    state = elites.init(Objective(task)(Population({"x": torch.full((1, 3), 0.5)})))
    asked = elites.ask(state, torch.Generator().manual_seed(0))["x"]
    assert ((asked == 0.5).all(-1)).tolist() == [True] * 4 + [False] * 3
    with pytest.raises(TypeError, match="expected at least one emitter"):
        MapElites(emitters=())
    with pytest.raises(ValueError, match="expected k >= 2, got 1"):
        MapElites(k=1, emitters=(IsoLineEmitter(), GaussianEmitter()))


def test_a_batch_on_centroids_fills_its_archives() -> None:
    cells = Centroids.spread(Grid((1, 1)), 30, torch.Generator().manual_seed(0))
    start = Individual({"x": torch.full((2, 3), 0.5)}, batch_ndim=1)
    search: Search[Any] = Search(MapElites(32, cells, (GaussianEmitter(),), (0.0, 1.0)), Objective(task), start)  # type: ignore[arg-type]
    result = search.run(max_generations=60)
    assert bool((search.state.coverage > 0.9).all())
    filled = search.state.filled
    own = cells.index(search.state.archive.assessment.descriptor)
    assert bool((own == torch.arange(30)[:, None])[filled].all())  # every elite is in its own cell
    assert torch.equal(torch.as_tensor(result.value), search.state.archive.cost.amin(0))


CENTROIDS = Centroids.spread(Grid((1, 1)), 64, torch.Generator().manual_seed(0))


def test_centroids_and_the_gaussian_emitter_keep_the_promises_of_algorithms() -> None:
    def made(**settings: Any) -> MapElites:
        return MapElites(cells=CENTROIDS, emitters=(GaussianEmitter(), IsoLineEmitter()), **settings)

    check_algorithm(
        made,
        only=[
            "batch_equals_separate", "bounds_hold", "failed_evaluations_do_no_harm", "any_size_works",
            "several_tensors_work", "best_is_never_lost", "refresh_assesses_what_is_remembered",
            "no_hidden_synchronisation",
        ],
    )  # fmt: skip


def cma_me(**settings: Any) -> MapElites:
    return MapElites(emitters=(CMAEmitter(), IsoLineEmitter()), **settings)


def test_a_descriptor_with_a_nan_belongs_to_no_cell() -> None:
    descriptor = torch.tensor([[0.1, NAN], [NAN, NAN], [0.1, 0.2]])
    assert Grid((4, 4)).index(descriptor).tolist() == [16, 16, 0]
    assert CENTROIDS.index(descriptor)[:2].tolist() == [64, 64]


def test_each_of_several_distributions_learns_from_its_own_candidates_alone() -> None:
    three = CMAEmitter(0.3, distributions=3)
    start = Objective(task)(Population({"x": torch.rand(5, 4)}))
    state = three.init(start, 12, None)
    cells = MapElites(k=12, cells=Grid((4, 4)), emitters=(three,))
    asked = three.emit(state, cells.init(start).archive, 12, None, torch.Generator().manual_seed(0))
    cost, held = torch.rand(12), torch.rand(12)
    together = three.learn(state, asked, cost, held)
    for i in range(3):
        own = Population({"x": asked["x"][i::3]}, traits={name: x[i::3] for name, x in asked.traits.items()})
        alone = CMAEmitter(0.3).learn(CMAEmitter(0.3).init(start, 4, None), own, cost[i::3], held[i::3])
        for name in ("mean", "covariance", "root", "inverse", "step", "path", "step_path", "restart"):
            torch.testing.assert_close(getattr(together, name)[i], getattr(alone, name)[0])
    with pytest.raises(ValueError, match="expected candidates that 3 distributions can share equally, got 11; use 12"):
        three.init(start, 11, None)


@pytest.mark.parametrize(
    "check", [check for check in ALGORITHM_CHECKS if check != "large_populations_stay_as_they_were"]
)
def test_cma_me_keeps_the_promises_of_algorithms(check: str) -> None:
    check_algorithm(cma_me, only=[check])


def test_an_emitter_that_improves_nothing_begins_anew_at_an_elite() -> None:
    elites = MapElites(k=6, cells=Grid((2, 2)), emitters=(CMAEmitter(0.1),))
    state = elites.init(Objective(task)(Population({"x": torch.rand(5, 3)})))
    noise = torch.Generator().manual_seed(0)
    asked = elites.ask(state, noise)
    lost = {"value": torch.full((6,), INF), "descriptor": torch.full((6, 2), 0.5)}
    told = elites.tell(state, asked.assessed(Assessment(**lost)))
    assert bool(told.emitters[0].restart.all())
    centre = elites.ask(told, noise).traits["0.centre"][0]
    assert bool((told.archive["x"][told.filled] == centre).all(-1).any())
    won = {"value": torch.full((6,), -1.0), "descriptor": torch.full((6, 2), 0.5)}
    assert not bool(elites.tell(state, asked.assessed(Assessment(**won))).emitters[0].restart.any())


def test_the_mean_moves_towards_the_candidates_that_improve_in_the_order_of_their_improvement() -> None:
    emitter = CMAEmitter(1.0)
    state = emitter.init(Objective(task)(Population({"x": torch.zeros(1, 3)})), 5, None)
    raw = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    asked = Population({"x": raw}, traits={"raw": raw, "centre": torch.zeros(5, 3)})
    cost = torch.tensor([9.0, 1.0, 5.0, 2.0, 4.0])
    held = torch.tensor([INF, 1.5, INF, 7.0, 3.0])  # new cells: 2, then 0; better elites: 3 (by 5), then 1 (by 0.5)
    told = emitter.learn(state, asked, cost, held)
    weight = math.log(4.5) - torch.tensor([1.0, 2.0, 3.0, 4.0]).log()
    assert torch.allclose(told.mean[0], (weight / weight.sum()) @ raw[[2, 0, 3, 1]], atol=1e-6)


def test_the_rates_for_thousands_of_parents_are_those_of_their_weights() -> None:
    _, table = _settings(5000, 10, torch.float64, torch.device("cpu"))
    for parents in (1, 7, 4999):
        weights = math.log(parents + 0.5) - torch.arange(1, parents + 1).double().log()
        mass = float(weights.sum() ** 2 / weights.square().sum())
        assert float(table[parents, 1]) == pytest.approx(float(weights.sum()))
        assert float(table[parents, 2]) == pytest.approx((mass + 2) / (10 + mass + 5))


@pytest.mark.parametrize("parents", [1, 2, 5])
def test_an_update_is_that_of_the_tutorial_for_as_many_parents_as_improve(parents: int) -> None:
    n, k, noise = 4, 5, torch.Generator().manual_seed(parents)
    emitter = CMAEmitter(0.5)
    state = emitter.init(Objective(task)(Population({"x": torch.zeros(1, n, dtype=torch.float64)})), k, None)
    for _ in range(2):  # the second from a covariance and paths of its own
        raw = torch.randn(k, n, generator=noise, dtype=torch.float64)
        asked = Population({"x": raw}, traits={"raw": raw, "centre": torch.zeros(k, n, dtype=torch.float64)})
        held = torch.full((k,), INF, dtype=torch.float64)
        told = emitter.learn(state, asked, torch.arange(k).double(), held.masked_fill(torch.arange(k) >= parents, -INF))
        mean, path, step_path, covariance, step = (
            getattr(state, name)[0] for name in ("mean", "path", "step_path", "covariance", "step")
        )
        weights = [math.log(parents + 0.5) - math.log(i + 1) for i in range(parents)]
        weights = [weight / sum(weights) for weight in weights]
        mass = 1 / sum(weight**2 for weight in weights)
        away = (raw - mean) / (float(step) * 0.5)
        moved = sum(weight * row for weight, row in zip(weights, away, strict=False))
        c_s, c_c = (mass + 2) / (n + mass + 5), (4 + mass / n) / (n + 4 + 2 * mass / n)
        c_1 = 2 / ((n + 1.3) ** 2 + mass)
        c_mu = max(0.0, min(1 - c_1, 2 * (mass - 2 + 1 / mass) / ((n + 2) ** 2 + mass)))
        values, vectors = torch.linalg.eigh(covariance)
        white = vectors @ torch.diag(values**-0.5) @ vectors.T @ moved
        step_path = (1 - c_s) * step_path + math.sqrt(c_s * (2 - c_s) * mass) * white
        expected = math.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n**2))
        length = float(step_path.norm())
        damping = 1 + 2 * max(0.0, math.sqrt((mass - 1) / (n + 1)) - 1) + c_s
        short = length < (1.4 + 2 / (n + 1)) * expected
        path = (1 - c_c) * path + short * math.sqrt(c_c * (2 - c_c) * mass) * moved
        rank_mu = sum(w * torch.outer(row, row) for w, row in zip(weights, away, strict=False))
        covariance = (1 - c_1 - c_mu + c_1 * (not short) * c_c * (2 - c_c)) * covariance
        covariance = covariance + c_1 * torch.outer(path, path) + c_mu * rank_mu
        torch.testing.assert_close(told.step_path[0], step_path)
        torch.testing.assert_close(told.path[0], path)
        torch.testing.assert_close(told.covariance[0], covariance)
        assert float(told.step[0]) == pytest.approx(float(step) * math.exp(c_s / damping * (length / expected - 1)))
        state = told


def test_a_descriptor_of_another_length_is_refused() -> None:
    start = candidates([(1.0, 0.5, 0.5)])
    with pytest.raises(ValueError, match="expected a descriptor of 3 numbers, as the cells have, got 2"):
        MapElites(cells=Grid((2, 2, 2))).init(start)
    with pytest.raises(ValueError, match="expected an assessment with a descriptor for MapElites, got none"):
        MapElites().init(start.assessed(Assessment(torch.zeros(1))))


@pytest.mark.parametrize("cells", [Grid((4, 4)), Grid((6,)), CENTROIDS])
def test_the_heat_map_is_drawn(cells: Any, tmp_path: Path) -> None:
    start = candidates([(1.0, 0.5, 0.5), (2.0, 0.1, 0.9)])
    if cells.dimensions == 1:
        assert start.assessment is not None
        start = start.assessed(Assessment(start.cost, descriptor=start.assessment.descriptor[:, :1]))  # type: ignore[index]
    plot_archive(MapElites(cells=cells).init(start).archive, cells, tmp_path / "map.png", "a map")
    assert (tmp_path / "map.png").stat().st_size > 1000


def test_an_archive_of_three_dimensions_cannot_be_drawn(tmp_path: Path) -> None:
    state = MapElites().init(candidates([(1.0, 0.5, 0.5)]))
    with pytest.raises(ValueError, match="expected an assessed archive with one or two dimensions, got 3"):
        plot_archive(state.archive, Grid((2, 2, 2)), tmp_path / "map.png")
