"""The main job on the embedded digits: figures, errors, resuming, Ctrl-C."""

from __future__ import annotations

import dataclasses
import errno
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
from common import checkpoints, command, pictures
from common.experiment import PAPER, Experiment, Figures, Network, Plan
from zenkai_core import IO
from zenkai_core.testing.subject import equal

ROOT = Path(__file__).resolve().parents[2]


def job(*arguments: object) -> int:
    return mnist.main([str(argument) for argument in arguments])


def results(out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((out / "results.json").read_text(encoding="utf-8"))
    return found


def kept(out: Path, name: str = "baseline_plain", seed: int = 0) -> Path:
    """Return the file of a checkpoint."""
    return out / "checkpoints" / f"digits_{name}_{seed}.pt"


def history(out: Path, name: str = "baseline_plain", seed: int = 0) -> dict[str, Any]:
    """Return the curves of a checkpoint, without the seconds."""
    run, _ = checkpoints.load(kept(out, name, seed))
    return {key: value for key, value in dataclasses.asdict(run).items() if key != "seconds"}


def test_baseline_is_reported_beside_its_controls(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert job("baseline", "--epochs", 5, "--out", tmp_path) == 0
    (row,) = results(tmp_path)
    assert row.keys() == {
        "experiment", "variant", "search", "data", "seed", "epochs", "planned_epochs", "accuracy", "validation",
        "frozen", "backprop", "evaluations", "seconds", "backprop_seconds", "parameters", "commit",
    }  # fmt: skip
    assert (row["experiment"], row["variant"], row["data"], row["seed"]) == ("baseline", "plain", "digits", 0)
    assert row["frozen"] < row["accuracy"]
    assert row["backprop"] == pytest.approx(row["accuracy"], abs=0.01)  # the same to rounding
    assert row["evaluations"] == 5 * (1221 - 1221 % 32)
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
    assert history(tmp_path / "a", seed=1) == history(tmp_path / "b", seed=1)
    assert history(tmp_path / "a", seed=1)["cost"] != history(tmp_path / "c", seed=2)["cost"]


def interrupted(experiment: Experiment, at: float, control: str | None = None) -> Experiment:
    """Return the experiment with a Ctrl-C when this share of one network's training is done."""

    def build(plan: Plan, asked: str | None) -> Network:
        network = experiment.build(plan, asked)

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
    assert [(row["epochs"], row["planned_epochs"]) for row in results(parts)] == [(2, 4)]
    assert history(parts, seed=5)["test"] == history(whole, seed=5)["test"][:2]
    assert job(*arguments, parts, "--resume") == 0
    assert history(parts, seed=5) == history(whole, seed=5)
    (one,), (other,) = results(whole), results(parts)
    timed = {"seconds": 0, "backprop_seconds": 0}
    assert one | timed == other | timed
    (_, ours), (_, theirs) = (checkpoints.load(kept(out, seed=5)) for out in (parts, whole))
    assert equal(ours, theirs)


def test_resuming_a_finished_run_trains_nothing_and_reports_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert job("baseline", "--epochs", 1, "--out", tmp_path) == 0
    before = results(tmp_path)
    finished = interrupted(experiments.get("baseline"), at=0.0)
    monkeypatch.setattr(experiments, "get", lambda _: finished)
    assert job("baseline", "--epochs", 1, "--out", tmp_path, "--resume") == 0
    assert results(tmp_path) == before


def test_without_resume_a_run_starts_again_and_the_first_epoch_replaces_the_old_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job("baseline", "--epochs", 2, "--out", tmp_path) == 0
    capsys.readouterr()
    started = interrupted(experiments.get("baseline"), at=0.4)
    monkeypatch.setattr(experiments, "get", lambda _: started)
    assert job("baseline", "--epochs", 3, "--out", tmp_path) == 130
    assert f"will replace earlier ones in {tmp_path}: baseline (digits, seed 0)" in capsys.readouterr().err
    assert [(row["epochs"], row["planned_epochs"]) for row in results(tmp_path)] == [(1, 3)]
    assert history(tmp_path)["planned_epochs"] == 3


def contents(out: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def test_ctrl_c_before_the_first_epoch_leaves_all_earlier_results_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job("baseline", "--epochs", 1, "--out", tmp_path) == 0
    before = contents(tmp_path)
    started = interrupted(experiments.get("baseline"), at=0.0)
    monkeypatch.setattr(experiments, "get", lambda _: started)
    assert job("baseline", "--epochs", 2, "--out", tmp_path) == 130
    assert contents(tmp_path) == before
    assert "before the end of the first epoch; nothing was written" in capsys.readouterr().err
    assert job("baseline", "--out", tmp_path / "new") == 130
    assert contents(tmp_path / "new") == {}


def test_results_of_experiments_that_are_not_named_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job("sign", "--epochs", 1, "--out", tmp_path) == 0
    (sign,) = results(tmp_path)
    drawn = []
    whole = pictures.curves
    monkeypatch.setattr(pictures, "curves", lambda runs: drawn.extend(run.name for run in runs) or whole(runs))
    capsys.readouterr()
    assert job("baseline", "--epochs", 2, "--out", tmp_path) == 0
    shown = capsys.readouterr()
    assert "results.json keeps the earlier results of sign" in shown.out
    assert "will replace" not in shown.err
    baseline, kept = results(tmp_path)
    assert kept == sign
    assert baseline["experiment"] == "baseline"
    assert sorted(drawn) == [
        "baseline", "baseline (backprop)", "baseline (frozen)",
        "sign:width-32", "sign:width-32 (backprop)", "sign:width-32 (frozen)",
    ]  # fmt: skip


def test_results_of_another_seed_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = {"experiment": "baseline", "variant": "plain", "data": "digits", "seed": 7}
    (tmp_path / "results.json").write_text(json.dumps([other]))
    assert job("baseline", "--epochs", 1, "--out", tmp_path) == 0
    assert "will replace" not in capsys.readouterr().err
    assert [row["seed"] for row in results(tmp_path)] == [0, 7]


def test_network_not_begun_in_this_command_keeps_its_earlier_results_and_starts_again_at_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = dataclasses.replace(experiments.get("baseline"), controls=())
    second = dataclasses.replace(first, epochs={})
    stopped = interrupted(first, at=0.5)
    with monkeypatch.context() as patch:
        patch.setattr(experiments, "get", lambda name: second if name == "sign" else first)
        assert job("sign", "--epochs", 1, "--out", tmp_path) == 0
        (old,) = results(tmp_path)
        patch.setattr(experiments, "get", lambda name: second if name == "sign" else stopped)
        assert job("baseline", "sign", "--epochs", 2, "--out", tmp_path) == 130
        assert [row["epochs"] for row in results(tmp_path)] == [1, 1]
        assert results(tmp_path)[1] == old
        capsys.readouterr()
        patch.setattr(experiments, "get", lambda name: second if name == "sign" else first)
        assert job("baseline", "sign", "--epochs", 2, "--out", tmp_path, "--resume") == 0
    assert "sign starts again: its checkpoint was made with --epochs 1" in capsys.readouterr().err
    assert [row["epochs"] for row in results(tmp_path)] == [2, 2]


def test_resume_without_anything_to_resume_says_so_and_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job("baseline", "--epochs", 1, "--out", tmp_path, "--resume") == 0
    assert f"nothing to resume in {tmp_path}; starting with the first epoch" in capsys.readouterr().err
    assert [row["epochs"] for row in results(tmp_path)] == [1]


def test_experiments_name_is_spelt_with_either_dash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    baseline = experiments.get("baseline")
    monkeypatch.setattr(experiments, "known", lambda: ["my-net"])
    monkeypatch.setattr(experiments, "get", lambda _: baseline)
    assert job("my_net", "my-net", "--epochs", 1, "--out", tmp_path) == 0
    assert [row["experiment"] for row in results(tmp_path)] == ["my-net"]


def test_experiment_without_a_budget_for_the_data_asks_for_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = dataclasses.replace(experiments.get("baseline"), epochs={"letters": 3})
    monkeypatch.setattr(experiments, "get", lambda _: other)
    line = refused(capsys, "baseline", "--out", tmp_path / "out")
    assert "a default number of epochs for digits or mnist, got one for letters only; give --epochs N" in line
    assert not (tmp_path / "out").exists()


def names_of(*arguments: str) -> list[str]:
    chosen = command.named(arguments)
    return [run.name for run in command.planned(chosen, "digits", [0], 1, None) if run.control is None]


def test_a_name_means_the_first_variant_and_all_means_every_one() -> None:
    assert names_of("sign") == ["sign:width-32"]
    assert names_of("sign:width_128", "baseline", "sign", "sign:width-32") == [
        "sign:width-128", "sign:width-32", "baseline",
    ]  # fmt: skip
    everything = names_of("all")
    assert {"baseline", "sign:width-32", "sign:width-128"} <= set(everything)
    assert len(everything) == sum(len(experiments.get(name).variants) for name in experiments.known())


def test_variants_of_one_network_share_their_controls_and_others_have_their_own() -> None:
    sign = experiments.get("sign")
    for shared, expected in ((False, ["width-32", "width-128"]), (True, [None])):
        chosen = {"sign": (dataclasses.replace(sign, shared_controls=shared), list(sign.variants))}
        runs = command.planned(chosen, "digits", [0], 1, None)
        assert [run.variant for run in runs if run.control == "frozen"] == expected
        assert len({run.file for run in runs}) == len(runs)


def test_variants_without_a_first_plain_one_are_refused() -> None:
    for variants in ({}, {"other": Figures(), "plain": Figures()}):
        with pytest.raises(ValueError, match="expected at least one variant, 'plain' before all others, got"):
            Experiment(experiments.get("baseline").build, {"mnist": 1}, variants=variants)


def test_an_experiments_own_loop_is_told_growing_batches_and_counts_its_evaluations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    baseline = experiments.get("baseline")
    seen: list[tuple[float, int]] = []

    def build(plan: Plan, control: str | None) -> Network:
        network = baseline.build(plan, control)
        mine = len(seen)

        def learn(x: IO, t: IO, done: float) -> torch.Tensor:
            seen.append((done, x.rows))
            return network.machine.learn(x, t)

        return dataclasses.replace(
            network,
            learn=learn,
            batches=lambda done: 400 if done < 0.5 else 4000,
            evaluations=lambda: 1000 * (len(seen) - mine),
        )

    own = dataclasses.replace(baseline, build=build, controls=())
    monkeypatch.setattr(experiments, "get", lambda _: own)
    assert job("baseline", "--epochs", 2, "--out", tmp_path) == 0
    assert seen == [(0.0, 400), (pytest.approx(200 / 1221), 400), (pytest.approx(400 / 1221), 400), (0.5, 1221)]
    assert results(tmp_path)[0]["evaluations"] == 3 * 400 + 1221 + 4 * 1000


def test_difference_is_another_spelling_of_a_variant() -> None:
    assert command.with_difference([]) == ["target-prop:difference"]
    assert command.with_difference(["sign", "target_prop"]) == ["sign", "target-prop:difference"]
    assert command.with_difference(["all"]) == ["all"]


def test_seeds_come_one_after_another_with_all_experiments_in_each() -> None:
    runs = command.planned(command.named(["baseline", "sign"]), "digits", range(4, 6), 1, None)
    assert [(run.seed, run.name) for run in runs if run.control is None] == [
        (4, "baseline"), (4, "sign:width-32"), (5, "baseline"), (5, "sign:width-32"),
    ]  # fmt: skip
    assert len({run.file for run in runs}) == len(runs) == 12


def test_control_runs_beside_its_experiment_and_is_reported_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = dataclasses.replace(experiments.get("baseline"), controls=("frozen",))
    stopped = interrupted(experiment, at=0.5, control="frozen")
    with monkeypatch.context() as patch:
        patch.setattr(experiments, "get", lambda _: stopped)
        assert job("baseline", "--epochs", 2, "--out", tmp_path) == 130
    (row,) = results(tmp_path)
    assert row["epochs"] == 2
    assert row["frozen"] is None  # half a budget is no control
    monkeypatch.setattr(experiments, "get", lambda _: experiment)
    assert job("baseline", "--epochs", 2, "--out", tmp_path, "--resume") == 0
    (row,) = results(tmp_path)
    assert row["frozen"] == history(tmp_path, "baseline_plain_frozen")["test"][-1]


PROGRAM = """
import runpy, sys
sys.argv = ["mnist.py", *sys.argv[1:]]
runpy.run_path("examples/mnist.py", run_name="__main__")
"""


@pytest.mark.usefixtures("default_sigint")
def test_interrupt_signal_ends_the_program_with_130_and_what_is_there_written(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", PROGRAM, "baseline", "--epochs", "100000", "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "examples")}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, env=environment
    ) as process:
        try:
            while process.poll() is None and not kept(out).exists():
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


PAUSED_IMPORT = """
import importlib.abc, sys, time

awaited = sys.argv[1]

class Pause(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == awaited:
            print("importing", flush=True)
            time.sleep(30)

sys.meta_path.insert(0, Pause())
"""


@pytest.mark.usefixtures("default_sigint")
@pytest.mark.parametrize("module", ["torch", "torch.nn", "rich.console"])
def test_ctrl_c_while_imports_run_is_one_line_and_130(module: str, tmp_path: Path) -> None:
    program = PAUSED_IMPORT + PROGRAM.replace("sys.argv[1:]", "sys.argv[2:]")
    with subprocess.Popen(
        [sys.executable, "-c", program, module, "baseline", "--out", str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT / "examples")},
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"importing\n"
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 130, errors
    assert errors == b"mnist.py: stopped by Ctrl-C before training; nothing was written\n"


def test_help_names_the_paper(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        job("--help")
    assert PAPER in " ".join(capsys.readouterr().out.split())


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
    assert f"among {', '.join(experiments.known())}, or all, got perceptron" in line
    assert not (tmp_path / "out").exists()


def test_unknown_variant_lists_the_known_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "sign:width-7", "--out", tmp_path / "out")
    assert "expected a variant of sign among width-32, width-128, got width-7; name one of those" in line


def test_search_that_an_experiment_does_not_take_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "baseline", "--search", "pso", "--out", tmp_path / "out")
    assert "expected no --search for baseline, got pso; leave --search out" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data-dir", "nowhere"), "train-images-idx3-ubyte or train-images-idx3-ubyte.gz in nowhere, got neither"),
        (("--device", "abacus"), "expected a device that torch can use here, got 'abacus'"),
        (("--device", "cuda:99"), "expected a device that torch can use here, got 'cuda:99'"),
        (("--epochs", "0"), "expected a whole number from 1, got '0'"),
        (("--epochs", "many"), "expected a whole number from 1, got 'many'"),
        (("--seed", "-1"), "expected a whole number from 0, got '-1'"),
        (("--data", "cifar"), "expected digits, openml or openml:NAME, got 'cifar'"),
        (("--data", "openml:"), "expected digits, openml or openml:NAME, got 'openml:'"),
        (("--seeds", "0"), "expected a whole number from 1, got '0'"),
        (("--jobs", "0"), "expected a whole number from 1, got '0'"),
        (("all:plain",), "or all, got all:plain; name one of those"),
        (("baseline", "--search", ""), "expected no --search for baseline"),
        (("sign", "--difference"), "expected target-prop for --difference, got sign; name it, or leave that out"),
        (("--data", "openml", "--data-dir", "x"), "not allowed with argument"),
        (("--colour",), "unrecognized arguments: --colour"),
    ],
)
def test_wrong_option_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, *arguments, "--out", tmp_path / "out")


def test_reason_of_a_refused_device_is_its_first_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise NotImplementedError("Could not run 'aten::empty' with\narguments. This could be because of much. " * 40)

    monkeypatch.setattr(torch, "zeros", refuse)
    line = refused(capsys, "--device", "mps", "--out", tmp_path / "out")
    assert line.endswith("got 'mps' (Could not run 'aten::empty' with arguments); try --device cpu")


@pytest.mark.parametrize("name", ["curves.png", "results.json", "checkpoints/digits_sign_width-32_frozen_0.pt"])
def test_target_that_is_a_directory_is_found_before_training(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).mkdir(parents=True)
    assert f"{tmp_path / name}: expected a file or nothing, got a directory" in refused(capsys, "--out", tmp_path)


def test_results_of_another_program_are_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results.json").write_text("my notes")
    assert "got another kind of file" in refused(capsys, "baseline", "--out", tmp_path)


def test_full_disk_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert job("baseline", "--epochs", 1, "--out", tmp_path) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "digits_baseline_plain_0.pt: expected to write this file, got No space left on device; make room" in last


def test_cut_short_data_file_is_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / f"{name}-ubyte").write_bytes(bytes((0, 0, 8, int(name[-1]))) + bytes(3))
    assert "got a file of 7; fetch the file again" in refused(capsys, "--data-dir", tmp_path, "--out", tmp_path / "out")


def test_output_that_is_a_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").write_text("")
    assert "give another --out" in refused(capsys, "--out", tmp_path / "out")


def test_resuming_with_another_budget_is_refused_with_the_option_to_repeat(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job("baseline", "--epochs", 1, "--out", tmp_path) == 0
    capsys.readouterr()
    line = refused(capsys, "baseline", "--epochs", 2, "--out", tmp_path, "--resume")
    assert "got one that was made with --epochs 1; repeat that, leave --resume out to start again" in line


DAMAGED = "got a file that is damaged, or not of this program; leave --resume out"


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04"])
def test_resuming_from_another_kind_of_file_is_refused(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checkpoints").mkdir()
    (kept(tmp_path)).write_bytes(content)
    assert DAMAGED in refused(capsys, "baseline", "--out", tmp_path, "--resume")


def test_resuming_from_a_checkpoint_cut_short_or_with_a_flipped_byte_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job("baseline", "--epochs", 1, "--out", tmp_path) == 0
    capsys.readouterr()
    path = kept(tmp_path)
    whole = path.read_bytes()
    places = (30, len(whole) // 2, len(whole) - 9)
    flipped = [whole[:place] + bytes((whole[place] ^ 1,)) + whole[place + 1 :] for place in places]
    for content in (whole[:-2000], *flipped):
        path.write_bytes(content)
        assert DAMAGED in refused(capsys, "baseline", "--out", tmp_path, "--resume")


def test_resuming_a_network_that_has_changed_since_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(experiments, "known", lambda: ["net"])
    baseline = experiments.get("baseline")
    stopped = interrupted(baseline, at=0.5)
    monkeypatch.setattr(experiments, "get", lambda _: stopped)
    assert job("net", "--epochs", 2, "--out", tmp_path) == 130
    capsys.readouterr()
    other = dataclasses.replace(baseline, build=lambda plan, _: baseline.build(plan, "backprop"))
    monkeypatch.setattr(experiments, "get", lambda _: other)
    line = refused(capsys, "net", "--epochs", 2, "--out", tmp_path, "--resume")
    assert "expected a checkpoint of the network that net is now, got one of another" in line


def test_a_network_that_breaks_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    baseline = experiments.get("baseline")

    def build(plan: Plan, control: str | None) -> Network:
        if control == "frozen":
            raise ArithmeticError("a defect of this network")
        return baseline.build(plan, control)

    monkeypatch.setattr(experiments, "get", lambda _: dataclasses.replace(baseline, build=build))
    assert job("baseline", "--epochs", 1, "--out", tmp_path) == 1
    (row,) = results(tmp_path)
    assert row["frozen"] is None
    assert row["backprop"] > 0
    errors = capsys.readouterr().err
    assert "ArithmeticError: a defect of this network" in errors
    assert "baseline (frozen) broke, by the errors above; the same command with --resume continues" in errors


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use")
def test_baseline_learns_on_a_gpu(tmp_path: Path) -> None:
    assert job("baseline", "--device", "cuda", "--out", tmp_path) == 0
    assert results(tmp_path)[0]["accuracy"] > 0.95


def test_baseline_learns_mnist_in_one_epoch(mnist_dir: Path, tmp_path: Path) -> None:
    assert job("baseline", "--data-dir", mnist_dir, "--epochs", 1, "--out", tmp_path) == 0
    (row,) = results(tmp_path)
    assert row["data"] == "mnist"
    assert row["accuracy"] > 0.95
