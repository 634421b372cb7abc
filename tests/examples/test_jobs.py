"""Several networks at once: the same figures as one after another, and one error in one line."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import mnist
from common import checkpoints

ROOT = Path(__file__).resolve().parents[2]
JOB = ("baseline", "--epochs", "1", "--seeds", "2")
CIRCUMSTANCES = {"seconds", "backprop_seconds", "commit"}


def rows(out: Path) -> list[dict[str, Any]]:
    found = json.loads((out / "results.json").read_text(encoding="utf-8"))
    return [{key: value for key, value in row.items() if key not in CIRCUMSTANCES} for row in found]


def test_jobs_give_the_figures_of_one_process_and_resume_its_checkpoints(tmp_path: Path) -> None:
    one, many = tmp_path / "one", tmp_path / "many"
    assert mnist.main([*JOB, "--out", str(one)]) == 0
    assert mnist.main([*JOB, "--out", str(many), "--jobs", "2"]) == 0
    assert [row["seed"] for row in rows(one)] == [0, 1]
    assert all(row["frozen"] and row["backprop"] for row in rows(one))
    assert rows(many) == rows(one)
    files = sorted(path.name for path in (one / "checkpoints").iterdir())
    assert len(files) == 6
    for name in files:
        ours, theirs = (dataclasses.asdict(checkpoints.load(out / "checkpoints" / name)[0]) for out in (one, many))
        assert ours.keys() == theirs.keys()
        assert all(ours[key] == theirs[key] for key in ours.keys() - CIRCUMSTANCES)
    before = (one / "results.json").read_bytes()
    assert mnist.main([*JOB, "--out", str(one), "--jobs", "2", "--resume"]) == 0  # nothing is left to train
    assert (one / "results.json").read_bytes() == before


@pytest.mark.usefixtures("default_sigint")
def test_ctrl_c_stops_all_processes_writes_what_is_there_and_the_table_resumes(tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    arguments = ("baseline", "--epochs", "24", "--out")
    with in_two_processes(arguments, out, subprocess.PIPE) as process:
        try:
            wait_for_a_checkpoint(process, out)
            os.killpg(process.pid, signal.SIGINT)
            _, errors = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 130, errors.decode()[-2000:]
    assert b"Traceback" not in errors
    assert b"stopped by Ctrl-C; the same command with --resume continues" in errors
    (row,) = rows(out)
    assert 1 <= row["epochs"] < 24
    assert not [path.name for path in (out / "checkpoints").iterdir() if path.name.startswith(".")]
    assert mnist.main([*arguments, str(out), "--jobs", "2", "--resume"]) == 0
    assert mnist.main([*arguments, str(whole)]) == 0
    assert rows(out) == rows(whole)


def test_users_mistake_in_a_process_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mnist.main([*JOB, "--out", str(tmp_path)]) == 0
    path = tmp_path / "checkpoints" / "digits_baseline_plain_0.pt"
    run, _ = checkpoints.load(path)
    run.planned_epochs = 3
    checkpoints.save(path, run, torch.nn.Linear(1, 1))
    capsys.readouterr()
    assert mnist.main(["baseline", "--epochs", "3", "--out", str(tmp_path), "--jobs", "2", "--resume"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "expected a checkpoint of the network that baseline is now, got one of another" in last


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
def test_killed_outright_no_process_goes_on_and_the_table_resumes(tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    arguments = ("baseline", "--epochs", "20", "--out")
    with in_two_processes(arguments, out, subprocess.DEVNULL) as process:
        try:
            wait_for_a_checkpoint(process, out)
            process.kill()
            process.wait()
            deadline = time.monotonic() + 60
            while others_of(process.pid):
                assert time.monotonic() < deadline, "processes train on without the one that started them"
                time.sleep(0.05)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert not (out / "results.json").exists()
    assert mnist.main([*arguments, str(out), "--resume"]) == 0
    assert mnist.main([*arguments, str(whole)]) == 0
    assert rows(out) == rows(whole)


def in_two_processes(arguments: Sequence[str], out: Path, stream: int) -> subprocess.Popen[bytes]:
    """Start a main job into `out`, in a group of processes of its own; `stream` is where it writes."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "examples")}
    command = [sys.executable, "examples/mnist.py", *arguments, str(out), "--jobs", "2"]
    return subprocess.Popen(command, stdout=stream, stderr=stream, cwd=ROOT, env=environment, start_new_session=True)


def wait_for_a_checkpoint(process: subprocess.Popen[bytes], out: Path) -> None:
    """Return once the first epoch of the network itself is kept, or the job has ended."""
    while process.poll() is None and not list(out.glob("checkpoints/*plain_0.pt")):
        time.sleep(0.05)


def others_of(group: int) -> list[int]:
    """Return the living processes of a group."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, of = path.read_text().rpartition(")")[2].split()[:3]
            if int(of) == group and state != "Z":
                found.append(int(path.parent.name))
    return found
