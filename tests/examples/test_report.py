from __future__ import annotations

import errno
import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from common import report
from common.checkpoints import Run
from common.errors import UsageError
from common.experiment import PAPER, Figures
from common.files import write_atomically


def run(experiment: str, control: str | None = None, test: tuple[float, ...] = (0.5, 0.9), data: str = "mnist") -> Run:
    return Run(
        experiment,
        "plain",
        control,
        data,
        seed=3,
        planned_epochs=2,
        parameters=1234,
        evaluations=40,
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
            "variant": "plain",
            "search": None,
            "data": "mnist",
            "seed": 3,
            "epochs": 2,
            "planned_epochs": 2,
            "accuracy": 0.9,
            "validation": 0.8,
            "evaluations": 40,
            "seconds": 1.235,
            "parameters": 1234,
            "frozen": 0.7,
        },
        {
            "experiment": "baseline",
            "variant": "plain",
            "search": None,
            "data": "mnist",
            "seed": 3,
            "epochs": 1,
            "planned_epochs": 2,
            "accuracy": 0.95,
            "validation": pytest.approx(0.85),
            "evaluations": 40,
            "seconds": 1.235,
            "parameters": 1234,
        },
    ]


def test_results_leave_out_what_has_not_finished_an_epoch() -> None:
    (only,) = report.results([run("sign"), run("sign", "frozen", ()), run("baseline", test=())])
    assert only["experiment"] == "sign"
    assert "frozen" not in only


def test_a_control_enters_the_results_only_with_the_whole_budget_behind_it() -> None:
    (only,) = report.results([run("sign"), run("sign", "frozen", (0.6,))])
    assert "frozen" not in only


def test_files_are_written_whole_with_nothing_beside_them(tmp_path: Path) -> None:
    runs = [run("sign"), run("sign", "frozen", ())]
    report.write(runs, tmp_path)
    assert json.loads((tmp_path / "results.json").read_text()) == report.results(runs)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "results.json"]


def test_a_row_without_a_checkpoint_stays_unless_its_own_network_has_begun(tmp_path: Path) -> None:
    rows = [
        {"experiment": name, "variant": "plain", "data": "mnist", "seed": seed, "accuracy": 0.5}
        for name, seed in (("sign", 3), ("other", 3), ("sign", 4))
    ]
    (tmp_path / "results.json").write_text(json.dumps(rows))
    assert report.write([run("sign")], tmp_path) == ["other", "sign"]
    assert json.loads((tmp_path / "results.json").read_text()) == [*report.results([run("sign")]), *rows[1:]]


@pytest.mark.parametrize("content", ["no results", '{"a": 1}', "[1]", '[{"experiment": "sign"}]', "7"])
def test_another_programs_results_are_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(UsageError, match="got another kind of file; move it, or give another --out"):
        report.earlier_rows(tmp_path)


def test_figure_draws_accuracy_of_all_and_layers_of_experiments() -> None:
    accuracy, distance, local, whole = report.figure([run("sign"), run("sign", "frozen", (0.6, 0.7))]).axes
    assert {line.get_label(): list(line.get_ydata()) for line in accuracy.lines} == {
        "sign, 2 epochs": [0.5, 0.9],
        "sign (frozen), 2 epochs": [0.6, 0.7],
    }
    assert [(line.get_label(), list(line.get_xydata().flat)) for line in distance.lines] == [
        ("sign: hidden", [50, 2.0, 100, 1.0])
    ]
    assert [list(line.get_ydata()) for line in local.lines] == [[0.1, 0.1]]
    assert list(whole.lines) == []


def test_networks_of_different_budgets_fill_the_same_axis_as_far_as_they_trained() -> None:
    short, long = run("baseline", test=(0.5, 0.9)), run("sign", test=(0.1, 0.2, 0.3, 0.4))
    long.planned_epochs = 8
    accuracy = report.figure([short, long]).axes[0]
    assert [list(line.get_xdata()) for line in accuracy.lines] == [[50.0, 100.0], [12.5, 25.0, 37.5, 50.0]]
    assert accuracy.get_xlabel() == "share of the training done (%)"
    assert accuracy.get_xlim() == (0.0, 101.0)


def test_local_error_reduction_leaves_room_below_a_great_overshoot() -> None:
    overshot = run("sign")
    overshot.layers[0]["hidden"]["local"] = -9.0
    local = report.figure([overshot]).axes[2]
    edge, lowest = (local.transAxes.inverted().transform(local.transData.transform((50.0, y)))[1] for y in (-9.0, 0.1))
    assert 0.02 < edge < lowest < 0.98


def test_figure_names_the_paper_of_its_equations() -> None:
    figure = report.figure([run("sign")])
    assert PAPER in figure.get_supxlabel()
    assert "equation 5 of the paper" in figure.axes[2].get_title()


PAPERS = {"baseline": {"plain": Figures(paper=0.969)}, "sign": {"plain": Figures()}}


def printed(runs: list[Run], variants: report.Variants) -> str:
    console = Console(file=io.StringIO(), width=160)
    report.table(runs, variants, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_table_prints_a_row_per_network_and_the_papers_figure_beside_mnist() -> None:
    text = printed([run("baseline"), run("sign"), run("sign", "frozen", (0.6, 0.7))], PAPERS)
    rows = [re.split(r"  +", line.strip()) for line in text.splitlines() if "1,234" in line]
    assert rows == [
        ["baseline", "2", "0.8000", "0.9000", "1.2", "1,234", "0.969"],
        ["sign", "2", "0.8000", "0.9000", "1.2", "1,234", "-"],
        ["sign (frozen)", "2", "0.6000", "0.7000", "1.2", "1,234", "-"],
    ]
    assert "mnist, seed 3" in text
    assert re.search(r"training seconds +parameters +paper's test", text)


def test_table_leaves_the_papers_figure_out_where_the_data_are_not_mnist() -> None:
    assert "paper" not in printed([run("baseline", data="digits")], PAPERS)


def test_table_says_how_far_a_stopped_network_came() -> None:
    text = printed([run("sign", test=(0.5,)), run("baseline", test=())], {})
    assert "1 of 2" in text
    assert "0 of 2" in text


def test_table_shows_no_figure_of_a_network_that_has_not_begun() -> None:
    text = printed([run("sign"), run("baseline", test=())], {})
    (row,) = [re.split(r"  +", line.strip()) for line in text.splitlines() if "baseline" in line]
    assert row == ["baseline", "0 of 2", "-", "-", "-", "-"]


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
