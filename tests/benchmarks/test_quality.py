"""The quality benchmark counts hits as it says, and its file has the promised shape; no figure of a run is tested."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

QUALITY = Path(__file__).with_name("quality.py")


@pytest.fixture(scope="module")
def quality() -> ModuleType:
    spec = importlib.util.spec_from_file_location("quality", QUALITY)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where a dataclass looks its annotations up
    spec.loader.exec_module(module)
    return module


def test_a_target_is_hit_at_the_evaluation_that_first_reaches_it(quality: ModuleType) -> None:
    run = quality.Run(lambda rows: rows[:, 0], 1, 1, 1, 8)
    run(np.array([[1e3], [np.nan], [100.0]]))
    run(np.array([[1.0], [5.0], [1e-3]]))
    assert not run.solved
    run(np.array([[1e-4], [1e-5], [0.0]]))  # the last is beyond the budget
    targets = quality.TARGETS
    assert len(targets) == 51
    at = dict(zip(np.round(np.log10(targets), 1).tolist(), run.hits.tolist(), strict=True))
    assert (at[2.0], at[0.2], at[0.0], at[-0.2], at[-2.8]) == (3, 4, 4, 6, 6)
    assert (at[-3.4], at[-4.2], at[-5.2], at[-8.0]) == (7, 8, np.inf, np.inf)
    assert quality.share([run]) == pytest.approx(np.isfinite(run.hits).mean())


def test_the_expected_running_time_shares_the_failures_among_the_hits(quality: ModuleType) -> None:
    done = []
    for first in (10.0, 30.0, np.inf):
        run = quality.Run(lambda rows: rows[:, 0], 1, 1, 1, 100)
        run.hits[:] = first
        done.append(run)
    assert quality.running_times(done)[1].tolist() == [70.0] * 51
    assert quality.ratio(done, done) == 1.0
    assert quality.ratio(done[:1], done) == pytest.approx(10 / 70)
    assert quality.functions_solved(done) == 1
    assert quality.functions_solved(done[1:]) == 0


def test_its_file_is_a_list_of_objects_with_the_promised_keys(tmp_path: Path) -> None:
    if importlib.util.find_spec("ioh") is None and importlib.util.find_spec("cocoex") is None:
        pytest.skip("needs ioh or coco-experiment: pip install '.[bench]'")
    path, image = tmp_path / "quality.json", tmp_path / "quality.png"
    hide = "import importlib.util as u, runpy, sys; find = u.find_spec; sys.argv = sys.argv[1:]; "
    hide += "u.find_spec = lambda name: None if name in ('pymoo', 'scipy') else find(name); "
    options = ["--dims", "2", "--functions", "1", "8", "--instances", "1", "--budget", "100"]
    options += ["--algorithms", "ga", "shade", "pso", "--json", str(path), "--picture", str(image)]
    done = subprocess.run(
        [sys.executable, "-c", hide + "runpy.run_path(sys.argv[0], run_name='__main__')", str(QUALITY), *options],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count("Left out") == 2
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    keys = {"algorithm", "reference", "dimension", "share", "reference_share", "functions_solved"}
    assert all(set(row) == keys for row in rows)
    references = {row["algorithm"]: row["reference"] for row in rows}
    assert references["pso"] == "plain PSO"
    assert references["ga"] == references["shade"] == "random search"
    assert all(0 < row["share"] <= 1 for row in rows)
    assert image.stat().st_size > 0


def test_what_is_kept_is_read_again_and_is_what_was_found(quality: ModuleType, tmp_path: Path) -> None:
    if importlib.util.find_spec("ioh") is None and importlib.util.find_spec("cocoex") is None:
        pytest.skip("needs ioh or coco-experiment: pip install '.[bench]'")
    part = quality.Part("hill_climb", (1, 8), (1, 2), 2, 200, "{}", 0)
    found, _ = part.kept(str(tmp_path))
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]
    again, _ = part.kept(str(tmp_path))
    for one, other, fresh in zip(found, again, part.run(), strict=True):
        assert (one.function, one.instance, one.dim, one.budget) == (other.function, other.instance, 2, 200)
        assert one.hits.tolist() == other.hits.tolist() == fresh.hits.tolist()
    assert quality.Part("hill_climb", (1, 8), (1, 2), 2, 200, "{}", 1).kept(str(tmp_path))[0] is not found
    assert len(list(tmp_path.iterdir())) == 2  # another seed is another part


def test_several_processes_give_the_answers_of_one(quality: ModuleType, tmp_path: Path) -> None:
    if importlib.util.find_spec("ioh") is None and importlib.util.find_spec("cocoex") is None:
        pytest.skip("needs ioh or coco-experiment: pip install '.[bench]'")
    path = tmp_path / "quality.json"
    options = ["--dims", "2", "--functions", "1", "8", "--instances", "1", "--budget", "50", "--jobs", "2"]
    options += ["--algorithms", "hill_climb", "--json", str(path)]
    subprocess.run([sys.executable, str(QUALITY), *options], capture_output=True, check=True)
    rows = {row["algorithm"]: row["share"] for row in json.loads(path.read_text(encoding="utf-8"))}
    alone = {name: quality.Part(name, (1, 8), (1,), 2, 100, "{}", 0).run() for name in rows}
    assert rows == {name: quality.share(done) for name, done in alone.items()}
