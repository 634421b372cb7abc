"""The main job on the embedded digits: figures, errors, resuming, Ctrl-C."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import experiments
import mnist
from common.experiment import Experiment, Network, Plan

ROOT = Path(__file__).resolve().parents[2]


def job(*arguments: object) -> int:
    return mnist.main([str(argument) for argument in arguments])


def results(out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((out / "results.json").read_text(encoding="utf-8"))
    return found


def history(out: Path, name: str = "baseline") -> dict[str, Any]:
    """Return the curves of a checkpoint, without the seconds."""
    run: dict[str, Any] = torch.load(out / "checkpoints" / f"{name}.pt", weights_only=True)["run"]
    return {key: value for key, value in run.items() if key != "seconds"}


def test_baseline_reads_digits_in_its_default_budget(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert job("baseline", "--out", tmp_path) == 0
    (row,) = results(tmp_path)
    assert row["accuracy"] > 0.95
    assert row.keys() == {
        "experiment", "data", "seed", "epochs", "accuracy", "validation", "seconds", "parameters",
    }  # fmt: skip
    assert (row["experiment"], row["data"], row["seed"]) == ("baseline", "digits", 0)
    assert row["parameters"] == 64 * 128 + 2 * 128 + 128 * 32 + 2 * 32 + 32 * 10 + 10
    assert row["seconds"] > 0
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    shown = capfd.readouterr()
    assert f"{row['accuracy']:.4f}" in shown.out
    assert "baseline: 100%" in shown.err


def test_hidden_layers_are_recorded_each_epoch(tmp_path: Path) -> None:
    assert job("baseline", "--epochs", 2, "--out", tmp_path) == 0
    run = history(tmp_path)
    assert len(run["layers"]) == 2
    for layers in run["layers"]:
        assert list(layers) == ["hidden 1", "hidden 2", "output"]
        for name, quantities in layers.items():
            assert ("distance" in quantities) == (name != "output")  # whose targets are labels
            assert 0 < quantities["local"] < 1
            assert quantities["global"] > 0
        assert layers["hidden 2"]["distance"] > 0


def test_same_seed_gives_the_same_figures_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert job("baseline", "--epochs", 2, "--seed", seed, "--out", tmp_path / name) == 0
    assert history(tmp_path / "a") == history(tmp_path / "b")
    assert history(tmp_path / "a")["cost"] != history(tmp_path / "c")["cost"]


def interrupted(experiment: Experiment, at: float, control: str | None = None) -> Experiment:
    """Return the experiment with a Ctrl-C when this share of one network's training is done."""

    def build(plan: Plan, asked: str | None) -> Network:
        network = experiment.build(plan, None)

        def schedule(done: float) -> None:
            if done >= at and asked == control:
                raise KeyboardInterrupt
            network.schedule(done)

        return dataclasses.replace(network, schedule=schedule)

    return dataclasses.replace(experiment, build=build)


def test_stopped_and_resumed_run_equals_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    arguments = ("baseline", "--epochs", 4, "--seed", 5, "--out")
    assert job(*arguments, whole) == 0
    with monkeypatch.context() as patch:
        stopped = interrupted(experiments.get("baseline"), at=0.6)
        patch.setattr(experiments, "get", lambda _: stopped)
        assert job(*arguments, parts) == 130
    assert "--resume continues" in capsys.readouterr().err
    assert [row["epochs"] for row in results(parts)] == [2]
    assert history(parts)["test"] == history(whole)["test"][:2]
    assert job(*arguments, parts, "--resume") == 0
    assert history(parts) == history(whole)
    (one,), (other,) = results(whole), results(parts)
    del one["seconds"], other["seconds"]
    assert one == other
    ours, theirs = (torch.load(out / "checkpoints" / "baseline.pt", weights_only=True) for out in (parts, whole))
    torch.testing.assert_close(ours["machine"], theirs["machine"], rtol=0, atol=0)


def test_resuming_a_finished_run_trains_nothing_and_reports_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert job("baseline", "--epochs", 1, "--out", tmp_path) == 0
    before = results(tmp_path)
    finished = interrupted(experiments.get("baseline"), at=0.0)
    monkeypatch.setattr(experiments, "get", lambda _: finished)
    assert job("baseline", "--epochs", 1, "--out", tmp_path, "--resume") == 0
    assert results(tmp_path) == before


def test_without_resume_a_run_starts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert job("baseline", "--epochs", 1, "--out", tmp_path) == 0
    started = interrupted(experiments.get("baseline"), at=0.0)
    monkeypatch.setattr(experiments, "get", lambda _: started)
    assert job("baseline", "--epochs", 1, "--out", tmp_path) == 130
    assert results(tmp_path) == []
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_control_runs_beside_its_experiment_and_is_reported_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = dataclasses.replace(experiments.get("baseline"), controls=("frozen",))
    stopped = interrupted(experiment, at=0.5, control="frozen")
    monkeypatch.setattr(experiments, "get", lambda _: stopped)
    assert job("baseline", "--epochs", 2, "--out", tmp_path) == 130
    (row,) = results(tmp_path)
    assert row["epochs"] == 2
    assert row["frozen"] == history(tmp_path, "baseline-frozen")["test"][-1]
    assert "baseline (frozen)" in capsys.readouterr().out


PROGRAM = """
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = ["mnist.py", *sys.argv[1:]]
runpy.run_path("examples/mnist.py", run_name="__main__")
"""


def test_interrupt_signal_ends_the_program_with_130_and_what_is_there_written(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", PROGRAM, "baseline", "--epochs", "100000", "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "examples")}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, env=environment
    ) as process:
        try:
            while process.poll() is None and not (out / "checkpoints" / "baseline.pt").exists():
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 130, errors
    assert b"Traceback" not in errors
    (row,) = results(out)
    assert row["epochs"] >= 1
    assert (out / "curves.png").exists()


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Return the one line on stderr of a command that ends with exit code 2 and prints nothing else."""
    assert job(*arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert line.startswith("mnist.py: error: ")
    return line


def test_unknown_experiment_lists_the_known_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "baseline", "perceptron", "--out", tmp_path / "out")
    assert f"among {', '.join(experiments.known())}, got perceptron" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data-dir", "nowhere"), "train-images-idx3-ubyte or train-images-idx3-ubyte.gz in nowhere, got neither"),
        (("--device", "abacus"), "expected a device that torch can use here, got 'abacus'"),
        (("--device", "cuda:99"), "expected a device that torch can use here, got 'cuda:99'"),
        (("--epochs", "0"), "expected a whole number from 1, got '0'"),
        (("--epochs", "many"), "expected a whole number from 1, got 'many'"),
        (("--seed", "-1"), "expected a whole number from 0, got '-1'"),
        (("--data", "cifar"), "invalid choice: 'cifar'"),
        (("--data", "openml", "--data-dir", "x"), "not allowed with argument"),
        (("--colour",), "unrecognized arguments: --colour"),
    ],
)
def test_wrong_option_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, *arguments, "--out", tmp_path / "out")


def test_cut_short_data_file_is_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train-images-idx3-ubyte").write_bytes(bytes((0, 0, 8, 3)) + bytes(3))
    assert "got a file of 7; fetch the file again" in refused(capsys, "--data-dir", tmp_path, "--out", tmp_path / "out")


def test_output_that_is_a_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").write_text("")
    assert "give another --out" in refused(capsys, "--out", tmp_path / "out")


@pytest.mark.parametrize("other", [("--seed", 1, "--epochs", 1), ("--epochs", 2)])
def test_resuming_with_other_settings_is_refused(
    other: tuple[object, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job("baseline", "--epochs", 1, "--out", tmp_path) == 0
    capsys.readouterr()
    line = refused(capsys, "baseline", *other, "--out", tmp_path, "--resume")
    assert "expected a checkpoint with" in line
    assert "leave --resume out" in line


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04"])
def test_resuming_from_a_damaged_checkpoint_is_refused(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "baseline.pt").write_bytes(content)
    line = refused(capsys, "baseline", "--out", tmp_path, "--resume")
    assert "expected a checkpoint of this program" in line


def test_resuming_from_a_checkpoint_cut_short_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert job("baseline", "--epochs", 1, "--out", tmp_path) == 0
    capsys.readouterr()
    path = tmp_path / "checkpoints" / "baseline.pt"
    path.write_bytes(path.read_bytes()[:-2000])
    assert "expected a checkpoint of this program" in refused(capsys, "baseline", "--out", tmp_path, "--resume")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use")
def test_baseline_learns_on_a_gpu(tmp_path: Path) -> None:
    assert job("baseline", "--device", "cuda", "--out", tmp_path) == 0
    assert results(tmp_path)[0]["accuracy"] > 0.95


def test_baseline_learns_mnist_in_one_epoch(mnist_dir: Path, tmp_path: Path) -> None:
    assert job("baseline", "--data-dir", mnist_dir, "--epochs", 1, "--out", tmp_path) == 0
    (row,) = results(tmp_path)
    assert row["data"] == "mnist"
    assert row["accuracy"] > 0.95
