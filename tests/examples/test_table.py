from __future__ import annotations

import io
import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import table as program
from common import table
from common.experiment import Figures

VARIANTS = {
    "baseline": {"plain": Figures(paper=0.969, goal=0.982)},
    "sign": {"width-32": Figures(goal=0.96), "width-128": Figures()},
}


def row(experiment: str, variant: str = "plain", seed: int = 0, **entries: Any) -> dict[str, Any]:
    return {
        "experiment": experiment,
        "variant": variant,
        "search": None,
        "data": "mnist",
        "seed": seed,
        "epochs": 20,
        "planned_epochs": 20,
        "accuracy": 0.95,
        "validation": 0.96,
        "frozen": 0.65,
        "backprop": 0.97,
        "evaluations": 1_000_000,
        "seconds": 30.0,
        "backprop_seconds": 10.0,
    } | entries


def test_a_line_holds_mean_and_sample_deviation_over_the_seeds() -> None:
    accuracies = (0.95, 0.96, 0.98)
    rows = [
        row("sign", "width-32", seed, accuracy=value, frozen=value - 0.3, backprop=value + 0.1)
        for seed, value in enumerate(accuracies)
    ]
    (line,) = table.lines(rows, VARIANTS)
    mean = sum(accuracies) / 3
    assert line.accuracy == pytest.approx(mean)
    assert table.deviation(line.accuracies) == pytest.approx((sum((a - mean) ** 2 for a in accuracies) / 2) ** 0.5)
    assert line.gap == pytest.approx(0.75)
    assert line.multiple == pytest.approx(3.0)
    assert line.figures == Figures(goal=0.96)


def test_the_gap_is_that_of_the_means_and_not_the_mean_of_the_gaps() -> None:
    rows = [row("sign", "width-32", 0, frozen=0.9, backprop=0.95, accuracy=0.95), row("sign", "width-32", 1)]
    (line,) = table.lines(rows, VARIANTS)
    assert line.gap == pytest.approx((0.95 - 0.775) / (0.96 - 0.775))


@pytest.mark.parametrize(("frozen", "backprop"), [(None, 0.97), (0.65, None), (0.97, 0.97), (0.98, 0.97)])
def test_there_is_no_gap_without_two_controls_that_differ_rightly(frozen: float, backprop: float) -> None:
    assert table.share_of_gap(0.95, frozen, backprop) is None


def test_a_mean_over_seeds_needs_the_control_of_every_seed() -> None:
    (line,) = table.lines([row("sign", "width-32"), row("sign", "width-32", 1, frozen=None)], VARIANTS)
    assert (line.frozen, line.gap) == (None, None)
    assert line.backprop == pytest.approx(0.97)


def test_a_run_whose_budget_is_not_spent_is_counted_and_not_averaged() -> None:
    stopped = row("sign", "width-32", 1, epochs=3, accuracy=0.1)
    (line,) = table.lines([row("sign", "width-32"), stopped], VARIANTS)
    assert (line.accuracies, line.unfinished) == ((0.95,), 1)
    head, ((*cells,),) = table.cells([line])
    assert cells[head.index("epochs")] == "20 (1 unfinished)"
    (nothing,) = table.lines([stopped], VARIANTS)
    assert table.cells([nothing])[1][0][head.index("test")] == "-"


def test_lines_stand_in_the_order_of_the_registry_one_for_each_algorithm_and_data_set() -> None:
    rows = [
        row("unknown"),
        row("sign", "width-128"),
        row("sign", "width-32", search="pso"),
        row("sign", "width-32", data="digits"),
        row("baseline"),
    ]
    lines = table.lines(rows, VARIANTS)
    assert [(line.name, line.data) for line in lines] == [
        ("baseline", "mnist"),
        ("sign:width-32 (pso)", "mnist"),
        ("sign:width-32", "digits"),
        ("sign:width-128", "mnist"),
        ("unknown", "mnist"),
    ]


def test_figures_of_the_paper_and_goals_stand_beside_mnist_by_the_experiments_own_search_alone() -> None:
    head, _ = table.cells(table.lines([row("baseline", data="digits"), row("baseline", search="pso")], VARIANTS))
    assert not {"paper", "goal"} & set(head)
    head, body = table.cells(table.lines([row("baseline"), row("sign", "width-128")], VARIANTS))
    assert head[:3] == ["network", "paper", "goal"]
    assert [cells[:3] for cells in body] == [["baseline", "0.969", "0.982"], ["sign:width-128", "-", "-"]]


def test_terminal_and_readme_show_the_same_cells() -> None:
    lines = table.lines([row("baseline"), row("baseline", seed=1, accuracy=0.97)], VARIANTS)
    head, body = table.cells(lines)
    console = Console(file=io.StringIO(), width=160)
    console.print(table.printed(lines, "mnist, seed 0, 1"))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    (shown,) = [re.split(r"  +", found.strip()) for found in text.splitlines() if "baseline" in found]
    assert shown == body[0]
    spread = statistics.stdev([0.95, 0.97])
    assert body[0] == [
        "baseline", "0.969", "0.982", "0.9600", f"0.9600 ± {spread:.4f}", "2", "0.6500", "0.9700", "0.97", "20",
        "1.000", "3.0", "30.0",
    ]  # fmt: skip
    first, rule, last = table.markdown(lines).splitlines()
    assert [cell.strip() for cell in first.strip("|").split("|")] == head
    assert rule.count("---") == len(head)
    assert [cell.strip(" `") for cell in last.strip("|").split("|")] == body[0]


README = Path(program.ROOT / "README.md")


def test_readmes_table_is_what_the_kept_results_give() -> None:
    text = README.read_text(encoding="utf-8")
    assert program.with_table(text, program.drawn(program.kept())) == text


def test_drawing_replaces_what_stands_between_the_marks_alone() -> None:
    made = {
        "command": "python examples/mnist.py all",
        "commit": "abc",
        "results": [row("baseline"), row("sign", seed=1)],
    }
    before, after = "# Title\n", "## Next\n"
    old = before + program.BEGIN + "old\n" + program.END + after
    text = program.with_table(old, program.drawn(made))
    assert text.startswith(before + program.BEGIN)
    assert text.endswith(program.END + after)
    assert "`python examples/mnist.py all` at commit abc:" in text
    assert "| `baseline` |" in text
    assert "old" not in text
    assert program.with_table(text, "") == before + program.BEGIN + program.END + after


@pytest.mark.parametrize("text", ["", program.END + program.BEGIN, program.BEGIN + program.BEGIN + program.END])
def test_readme_without_its_marks_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"README expected <!-- drawn by .* once each: put them back"):
        program.with_table(text, "")


def test_program_takes_a_main_jobs_table_and_draws_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "kept" / "table.json"
    kept.parent.mkdir()
    monkeypatch.setattr(program, "KEPT", kept)
    monkeypatch.setattr(program, "ROOT", tmp_path)
    (tmp_path / "README.md").write_text(program.BEGIN + program.END)
    made = {"command": "c", "commit": "abc", "results": [row("baseline")]}
    (tmp_path / "table.json").write_text(json.dumps(made))
    assert program.main(["--from", str(tmp_path)]) == 0
    assert program.kept() == made
    assert kept.with_name("table.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "README.md").read_text() == program.with_table(program.BEGIN + program.END, program.drawn(made))


def test_of_several_tables_every_run_is_the_last_ones_that_has_it_and_its_commit_is_told() -> None:
    early = [row("baseline", seed=seed, accuracy=0.9, commit="aaa") for seed in (0, 1)]
    late = [row("baseline", seed=1, accuracy=0.8, commit="bbb"), row("sign", "width-32", commit="bbb")]
    parts = [{"command": name, "commit": name, "results": rows} for name, rows in (("a", early), ("b", late))]
    made = program.merged(parts)
    assert made["results"] == [early[0], *late]
    assert made["command"] == "a` and `b"
    assert made["commit"] == "aaa (baseline), bbb (baseline, sign)"
    assert program.merged([*parts, {"command": "a", "commit": None, "results": []}])["command"] == "a` and `b"
