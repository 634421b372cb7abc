"""The speed benchmark's file has the promised shape; no figure is tested, for machines differ."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SPEED = Path(__file__).with_name("speed.py")
KEYS = {"algorithm", "k", "n", "objective", "library", "milliseconds", "objective_milliseconds", "ratio"}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What a quick run writes, the peers hidden so that it takes a few seconds and needs no extra."""
    path = tmp_path_factory.mktemp("speed") / "speed.json"
    hide = "import runpy, sys; sys.modules.update(evotorch=None, evox=None); sys.argv = sys.argv[1:]; "
    program = hide + "runpy.run_path(sys.argv[0], run_name='__main__')"
    options = ["--quick", "--seconds", "0", "--json", str(path)]
    done = subprocess.run(
        [sys.executable, "-c", program, str(SPEED), *options], capture_output=True, text=True, check=True
    )
    assert done.stdout.count("Left out") == 2  # one polite line for each peer
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def test_every_figure_is_an_object_with_the_promised_keys(rows: list[dict[str, Any]]) -> None:
    assert all(set(row) == KEYS for row in rows)
    assert all(math.isfinite(row[key]) for row in rows for key in ("milliseconds", "objective_milliseconds", "ratio"))


def test_every_case_has_ours_and_the_floor(rows: list[dict[str, Any]]) -> None:
    cases: dict[tuple[Any, ...], list[str]] = {}
    for row in rows:
        cases.setdefault((row["algorithm"], row["k"], row["n"], row["objective"]), []).append(row["library"])
    assert all(libraries == ["tansaku", "floor"] for libraries in cases.values())
    assert {case[0] for case in cases} == {"ga", "ga+mutation", "pso", "hill_climb"}
    assert {case[3] for case in cases} == {"sphere", "rastrigin", "none"}


def test_the_ratio_is_ours_to_that_rows_library(rows: list[dict[str, Any]]) -> None:
    for ours, floor in zip(rows[::2], rows[1::2], strict=True):
        assert ours["ratio"] == 1
        assert floor["ratio"] == pytest.approx(ours["milliseconds"] / floor["milliseconds"])
