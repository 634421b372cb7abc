"""Storages: memory is used again, and never while anything looks at it."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
from typing import Any

import pytest
import torch

from tansaku import GA, LSHADE, PSO, HillClimb, Individual, Objective, Search
from tansaku.storage import Storages, buffer, buffer_like
from tansaku.testing import sphere
from tansaku.testing.claims import fingerprint

SHAPE = (1 << 18, 2)  # 2 MiB of float32
CPU = torch.device("cpu")


def test_memory_is_used_again_once_nobody_looks_at_it() -> None:
    storages = Storages()
    first = storages.empty(SHAPE, torch.float32)
    place = first.data_ptr()
    assert storages.empty(SHAPE, torch.float32).data_ptr() != place
    del first
    gc.collect()
    assert place in {x.data_ptr() for x in [storages.empty(SHAPE, torch.float32) for _ in range(2)]}


@pytest.mark.parametrize(
    "look",
    [
        lambda x: x[3:5],
        lambda x: x.T,
        lambda x: x.view(torch.int32),
        lambda x: x.numpy(),
        lambda x: x.numpy()[::7],
        lambda x: memoryview(x.numpy()),
        lambda x: x.untyped_storage(),
        lambda x: torch.from_numpy(x.numpy()),
        lambda x: torch.utils.dlpack.to_dlpack(x),
        lambda x: x.detach(),
        lambda x: {"deep": [x]},
    ],
)
def test_a_view_of_any_kind_keeps_the_memory(look: Any) -> None:
    storages = Storages()
    x = storages.empty(SHAPE, torch.float32)
    place, kept = x.data_ptr(), look(x)
    del x
    gc.collect()
    others = [storages.empty(SHAPE, torch.float32) for _ in range(3)]
    assert place not in {x.data_ptr() for x in others}
    del kept
    gc.collect()
    assert storages.empty(SHAPE, torch.float32).data_ptr() == place


def test_buffers_are_warm_only_inside_and_only_if_large() -> None:
    assert buffer(SHAPE, torch.float32, CPU) is None
    with Storages():
        warm = buffer(SHAPE, torch.float32, CPU)
        assert warm is not None
        assert (warm.shape, warm.dtype, warm.is_contiguous()) == (SHAPE, torch.float32, True)
        assert buffer_like(warm) is not None
        assert buffer((10,), torch.float32, CPU) is None
        assert buffer(SHAPE, torch.float32, torch.device("meta")) is None
        with Storages():
            assert buffer(SHAPE, torch.float32, CPU) is not None
        assert buffer(SHAPE, torch.float32, CPU) is not None
    assert buffer(SHAPE, torch.float32, CPU) is None


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_a_copy_begins_with_nothing(clone: Any) -> None:
    storages = Storages()
    x = storages.empty(SHAPE, torch.float32)
    assert clone(storages).empty(SHAPE, torch.float32).data_ptr() != x.data_ptr()


@pytest.mark.parametrize("algorithm", [GA(k=64), PSO(k=64), HillClimb(k=64)])
def test_a_large_search_uses_memory_again_and_hands_out_none_that_is_kept(algorithm: Any) -> None:
    seen: list[int] = []
    kept: list[tuple[Any, str]] = []
    arrays: list[tuple[Any, float]] = []

    def assess(population: Any) -> Any:
        x = population["x"]
        seen.append(x.data_ptr())
        assessed = Objective(sphere)(population)
        if len(seen) % 4 == 0:
            kept.append((assessed, fingerprint(assessed)))
        if len(seen) % 4 == 2:
            array = x[7].numpy()
            arrays.append((array, float(array.sum())))
        return assessed

    search: Search[Any] = Search(algorithm, assess, Individual({"x": torch.ones(5000)}))
    for _ in range(24):
        search.step()
    assert len(set(seen)) < len(seen) - 5  # used again
    assert all(fingerprint(population) == before for population, before in kept)
    assert all(float(array.sum()) == before for array, before in arrays)


def test_a_large_search_is_the_same_run_with_and_without_used_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> str:
        search: Search[Any] = Search(GA(k=64), Objective(sphere), Individual({"x": torch.ones(5000)}), seed=3)
        search.run(max_generations=6)
        return fingerprint(search.state)

    warm = run()
    monkeypatch.setattr("tansaku.storage._SMALLEST", 1 << 60)
    assert run() == warm


def test_a_smaller_tensor_takes_the_storage_of_a_slightly_larger_one() -> None:
    storages = Storages()
    place = storages.empty((1 << 20,), torch.float32).data_ptr()
    shrunk = storages.empty(((1 << 20) - 5000,), torch.float32)
    assert shrunk.data_ptr() == place
    assert storages.empty((1 << 20,), torch.float32).data_ptr() != place  # still in use
    del shrunk
    assert storages.empty((1 << 19,), torch.float32).data_ptr() != place  # half of it would stay unused


def test_storages_that_are_not_used_for_some_generations_are_dropped() -> None:
    storages = Storages(smallest=1)
    for size in range(1000, 2_001_000, 2000):
        with storages:
            storages.empty((size,), torch.uint8)
            storages.empty((3_000_000,), torch.uint8)
    assert 3_000_000 <= storages.nbytes <= 3_000_000 + 10 * 2_001_000
    for _ in range(20):
        with storages:
            pass
    assert storages.nbytes == 0


SHRINKING = """
import resource, torch, tansaku
algorithm = tansaku.LSHADE(k=600, bounds=(-5.0, 5.0), max_evaluations=50_000)
start = tansaku.Individual({"x": torch.zeros(1000)})
search = tansaku.Search(algorithm, tansaku.Objective(lambda x: x.square().sum(-1)), start, seed=0)
for _ in range(2):
    for _ in range(50):
        search.step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
def test_a_population_that_shrinks_needs_no_more_memory_with_each_generation() -> None:
    ended = subprocess.run([sys.executable, "-c", SHRINKING], capture_output=True, text=True, check=True)
    early, late = map(int, ended.stdout.split())
    assert late <= early + 50_000  # kilobytes; it was 500,000 when every size was kept


def test_a_shrinking_population_keeps_its_results_in_shared_storages() -> None:
    def run(smallest: int) -> str:
        algorithm = LSHADE(k=40, max_evaluations=2000, bounds=(-5.0, 5.0))  # type: ignore[arg-type]
        search: Search[Any] = Search(algorithm, Objective(sphere), Individual({"x": torch.ones(20)}), seed=3)
        search._storages = Storages(smallest)
        for _ in range(60):
            search.step()
        return fingerprint(search.state)

    assert run(1) == run(1 << 60)
