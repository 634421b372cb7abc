from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from common import report
from common.files import write_atomically
from common.loop import Run


def run(experiment: str, control: str | None = None, test: tuple[float, ...] = (0.5, 0.9), data: str = "mnist") -> Run:
    return Run(
        experiment,
        control,
        data,
        seed=3,
        planned_epochs=2,
        parameters=1234,
        seconds=1.23456,
        validation=[value - 0.1 for value in test],
        test=list(test),
        layers=[{"hidden": {"distance": 2.0 / (i + 1), "local": 0.1}, "output": {}} for i in range(len(test))],
    )


def test_results_hold_one_object_per_experiment_with_its_controls_accuracy_as_an_entry() -> None:
    found = report.results([run("sign"), run("sign", "frozen", (0.6, 0.7)), run("baseline", test=(0.95,))])
    assert found == [
        {
            "experiment": "sign",
            "data": "mnist",
            "seed": 3,
            "epochs": 2,
            "accuracy": 0.9,
            "validation": 0.8,
            "seconds": 1.235,
            "parameters": 1234,
            "frozen": 0.7,
        },
        {
            "experiment": "baseline",
            "data": "mnist",
            "seed": 3,
            "epochs": 1,
            "accuracy": 0.95,
            "validation": pytest.approx(0.85),
            "seconds": 1.235,
            "parameters": 1234,
        },
    ]


def test_results_leave_out_what_has_not_finished_an_epoch() -> None:
    (only,) = report.results([run("sign"), run("sign", "frozen", ()), run("baseline", test=())])
    assert only["experiment"] == "sign"
    assert "frozen" not in only


def test_files_are_written_whole_with_nothing_beside_them(tmp_path: Path) -> None:
    runs = [run("sign"), run("sign", "frozen", ())]
    report.write(runs, tmp_path)
    assert json.loads((tmp_path / "results.json").read_text()) == report.results(runs)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "results.json"]


def test_report_of_nothing_finished_is_an_empty_list_and_an_empty_picture(tmp_path: Path) -> None:
    report.write([run("sign", test=())], tmp_path)
    assert json.loads((tmp_path / "results.json").read_text()) == []


def test_figure_draws_accuracy_of_all_and_layers_of_experiments() -> None:
    accuracy, distance, local, whole = report.figure([run("sign"), run("sign", "frozen", (0.6, 0.7))]).axes
    assert {line.get_label(): list(line.get_ydata()) for line in accuracy.lines} == {
        "sign": [0.5, 0.9],
        "sign (frozen)": [0.6, 0.7],
    }
    assert [(line.get_label(), list(line.get_xydata().flat)) for line in distance.lines] == [
        ("sign: hidden", [1, 2.0, 2, 1.0])
    ]
    assert [list(line.get_ydata()) for line in local.lines] == [[0.1, 0.1]]
    assert list(whole.lines) == []


def printed(runs: list[Run], papers: report.Papers) -> str:
    console = Console(file=io.StringIO(), width=160)
    report.table(runs, papers, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_table_prints_a_row_per_network_and_the_papers_figure_beside_mnist() -> None:
    text = printed([run("baseline"), run("sign"), run("sign", "frozen", (0.6, 0.7))], {"baseline": 0.969, "sign": None})
    rows = [re.split(r"  +", line.strip()) for line in text.splitlines() if "1,234" in line]
    assert rows == [
        ["baseline", "2", "0.8000", "0.9000", "1.2", "1,234", "0.969"],
        ["sign", "2", "0.8000", "0.9000", "1.2", "1,234", "-"],
        ["sign (frozen)", "2", "0.6000", "0.7000", "1.2", "1,234", "-"],
    ]
    assert "mnist, seed 3" in text


def test_table_leaves_the_papers_figure_out_where_the_data_are_not_mnist() -> None:
    assert "paper" not in printed([run("baseline", data="digits")], {"baseline": 0.969})


def test_table_says_how_far_a_stopped_network_came() -> None:
    text = printed([run("sign", test=(0.5,)), run("baseline", test=())], {})
    assert "1 of 2" in text
    assert "0 of 2" in text


def test_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.json"
    write_atomically(path, b"old")

    def full(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
