from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from common import report
from common.checkpoints import Run
from common.errors import UsageError
from common.experiment import Figures
from common.files import write_atomically


def run(
    experiment: str,
    control: str | None = None,
    test: tuple[float, ...] = (0.5, 0.9),
    data: str = "mnist",
    seed: int = 3,
) -> Run:
    return Run(
        experiment,
        "plain",
        control,
        data,
        seed=seed,
        planned_epochs=2,
        parameters=1234,
        evaluations=40,
        seconds=1.23456,
        validation=[value - 0.1 for value in test],
        test=list(test),
        layers=[{"hidden": {"distance": 2.0 / (i + 1), "local": 0.1}, "output": {}} for i in range(len(test))],
    )


def test_results_hold_one_object_per_network_and_seed_with_its_controls_as_entries() -> None:
    found = report.results(
        [run("sign"), run("sign", "frozen", (0.6, 0.7)), run("sign", "backprop"), run("sign", seed=4)]
    )
    expected = {
        "experiment": "sign",
        "variant": "plain",
        "search": None,
        "data": "mnist",
        "seed": 3,
        "epochs": 2,
        "planned_epochs": 2,
        "accuracy": 0.9,
        "validation": 0.8,
        "frozen": 0.7,
        "backprop": 0.9,
        "evaluations": 40,
        "seconds": 1.235,
        "backprop_seconds": 1.235,
        "parameters": 1234,
        "commit": None,
    }
    assert found == [expected, expected | {"seed": 4, "frozen": None, "backprop": None, "backprop_seconds": None}]


def test_controls_of_all_variants_enter_each_ones_results() -> None:
    control = run("sign", "frozen", (0.6, 0.7))
    control.variant = None
    other = run("sign")
    other.variant = "other"
    assert [row["frozen"] for row in report.results([run("sign"), other, control])] == [0.7, 0.7]
    control.variant = "other"
    assert [row["frozen"] for row in report.results([run("sign"), other, control])] == [None, 0.7]


def test_results_leave_out_what_has_not_finished_an_epoch() -> None:
    (only,) = report.results([run("sign"), run("sign", "frozen", ()), run("baseline", test=())])
    assert only["experiment"] == "sign"
    assert only["frozen"] is None


def test_a_control_enters_the_results_only_with_the_whole_budget_behind_it() -> None:
    (only,) = report.results([run("sign"), run("sign", "frozen", (0.6,))])
    assert only["frozen"] is None


VARIANTS = {"baseline": {"plain": Figures(paper=0.969)}, "sign": {"plain": Figures()}}


def write(runs: list[Run], out: Path) -> list[str]:
    return report.write(runs, VARIANTS, "python examples/mnist.py sign", out)


def test_files_are_written_whole_with_nothing_beside_them(tmp_path: Path) -> None:
    runs = [run("sign"), run("sign", "frozen", ())]
    write(runs, tmp_path)
    assert json.loads((tmp_path / "results.json").read_text()) == report.results(runs)
    for name in ("curves.png", "table.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(report.FILES)


def test_the_tables_file_says_which_command_and_commits_made_its_results(tmp_path: Path) -> None:
    runs = [run("sign"), run("baseline"), run("sign", seed=4)]
    for each, commit in zip(runs, ("b", "a", "b"), strict=True):
        each.commit = commit
    write(runs, tmp_path)
    assert json.loads((tmp_path / "table.json").read_text()) == {
        "command": "python examples/mnist.py sign",
        "commit": "a, b",
        "results": report.results(runs),
    }


def test_a_row_without_a_checkpoint_stays_unless_its_own_network_has_begun(tmp_path: Path) -> None:
    rows = [
        {"experiment": name, "variant": "plain", "data": "mnist", "seed": seed, "accuracy": 0.5}
        for name, seed in (("sign", 3), ("other", 3), ("sign", 4))
    ]
    (tmp_path / "results.json").write_text(json.dumps(rows))
    assert write([run("sign")], tmp_path) == ["other", "sign"]
    assert json.loads((tmp_path / "results.json").read_text()) == [*report.results([run("sign")]), *rows[1:]]


def test_the_table_is_of_this_command_alone(tmp_path: Path) -> None:
    write([run("sign")], tmp_path)
    write([run("baseline")], tmp_path)
    assert [row["experiment"] for row in json.loads((tmp_path / "results.json").read_text())] == ["baseline", "sign"]
    assert [row["experiment"] for row in json.loads((tmp_path / "table.json").read_text())["results"]] == ["baseline"]


@pytest.mark.parametrize("content", ["no results", '{"a": 1}', "[1]", '[{"experiment": "sign"}]', "7"])
def test_another_programs_results_are_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(UsageError, match="got another kind of file; move it, or give another --out"):
        report.earlier_rows(tmp_path)


def test_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.json"
    write_atomically(path, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UsageError, match=r"results.json: expected to write .* No space left on device; make room"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
