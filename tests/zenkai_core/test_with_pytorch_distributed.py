"""DistributedDataParallel over two processes: ranks stay equal, or the pass is refused (docs/with_pytorch.md)."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

WORKER = Path(__file__).with_name("data_parallel.py")
CASES = runpy.run_path(str(WORKER))
ALIKE, EQUAL, REFUSED = list(CASES["ALIKE"]), list(CASES["EQUAL"]), list(CASES["REFUSED"])
ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed package")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each process printed."""
    file = tmp_path_factory.mktemp("store") / "store"
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    running = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(rank), "2", str(file)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    ended = [process.communicate(timeout=300) for process in running]
    assert all(process.returncode == 0 for process in running), ended
    return [json.loads(out) for out, _ in ended]


@pytest.mark.parametrize("name", [*ALIKE, *EQUAL])
def test_ranks_stay_equal(ranks: list[dict[str, Any]], name: str) -> None:
    a, b = (rank["equal"][name] for rank in ranks)
    assert a == pytest.approx(b, abs=1e-7)


@pytest.mark.parametrize("name", ALIKE)
def test_ranks_are_those_of_the_plain_network(ranks: list[dict[str, Any]], name: str) -> None:
    for rank in ranks:
        assert rank["equal"][name] == pytest.approx(rank["plain"], abs=1e-6)


@pytest.mark.parametrize("name", REFUSED)
def test_what_gradients_do_not_hold_equal_is_refused_with_a_remedy(ranks: list[dict[str, Any]], name: str) -> None:
    for rank in ranks:
        assert name in rank["refused"][name]
        assert ": take theta.Gradient" in rank["refused"][name] or ": step by zenkai_core" in rank["refused"][name]
