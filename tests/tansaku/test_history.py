"""History against numpy, without a host synchronisation, in flat memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch

from tansaku import History
from tansaku.testing.watch import Dispatched


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("generations", [1, 63, 64, 65, 200])
@pytest.mark.parametrize("batch_shape", [(), (3,)])
def test_the_table_equals_numpy(maximize: bool, generations: int, batch_shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    history = History(maximize)
    costs = []
    for i in range(generations):
        cost = torch.randn(
            1 if i == 0 else 7, *batch_shape, generator=generator, dtype=torch.float64
        )  # the start: k = 1
        costs.append(cost.numpy())
        history.record(cost, 1 + 7 * i)
        if i == 40:
            assert len(history.best) == 41  # reading in between changes nothing
    sign = -1 if maximize else 1
    best = np.minimum.accumulate(np.stack([c.min(0) for c in costs]))
    assert np.array_equal(history.best.numpy(), sign * best)
    assert np.array_equal(history.median.numpy(), sign * np.stack([np.sort(c, 0)[(len(c) - 1) // 2] for c in costs]))
    spread = np.stack([c.std(0, ddof=1) if len(c) > 1 else np.zeros(batch_shape) for c in costs])
    assert np.allclose(history.spread.numpy(), spread)
    assert history.evaluations == [1 + 7 * i for i in range(generations)]
    assert len(history) == generations


def test_rows_are_dictionaries() -> None:
    history = History()
    history.record(torch.tensor([3.0, 1.0, 2.0]), 3)
    history.record(torch.tensor([4.0, 4.0, 4.0]), 6)
    assert list(history) == [
        {"generation": 0, "evaluations": 3, "best": 1.0, "median": 2.0, "spread": 1.0},
        {"generation": 1, "evaluations": 6, "best": 1.0, "median": 4.0, "spread": 0.0},
    ]


def test_failed_evaluations_do_not_spoil_the_spread() -> None:
    history, inf = History(), float("inf")
    history.record(torch.tensor([1.0, inf, 3.0, -inf]), 4)
    history.record(torch.tensor([inf, inf, inf, inf]), 8)
    assert history.spread.tolist() == [pytest.approx(2**0.5), 0.0]
    assert history.median.tolist() == [1.0, inf]


def test_an_empty_history_reads_as_empty() -> None:
    assert len(History()) == 0
    assert list(History()) == []
    assert len(History().best) == 0


def test_recording_never_waits_for_the_device() -> None:
    history = History()
    with Dispatched() as seen:
        for i in range(200):
            history.record(torch.full((5,), float(i)), i)
    assert seen.waits == []


def test_memory_of_ten_thousand_generations_is_flat() -> None:
    history = History()
    cost = torch.zeros(1000)
    tracemalloc.start()
    for i in range(10_000):
        history.record(cost + i, i)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held < 2_000_000
    kept = [*history._waiting, *history._done]
    assert sum(x.numel() for x in kept) <= 3 * 10_000 + 64 * 1000
    assert len(kept) < 200
    assert len(history.best) == 10_000


def test_a_loaded_history_goes_on() -> None:
    whole, part, loaded = History(True), History(True), History()
    for i in range(150):
        whole.record(torch.arange(4.0) - i, i)
    for i in range(70):
        part.record(torch.arange(4.0) - i, i)
    loaded.load_state_dict(part.state_dict())
    for i in range(70, 150):
        loaded.record(torch.arange(4.0) - i, i)
    assert list(loaded) == list(whole)
    assert loaded.maximize
    empty = History()
    empty.load_state_dict(History().state_dict())
    assert len(empty.best) == 0
