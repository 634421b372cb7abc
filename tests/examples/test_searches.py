"""The comparison of searches: what it trains, and the page that shows it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import searches

import experiments

PAGE = Path(__file__).resolve().parents[2] / "docs" / "searches.md"


def test_every_experiment_that_searches_is_compared_by_searches_that_it_takes() -> None:
    takes = {name: experiments.get(name).searches for name in experiments.known()}
    assert set(searches.NAMES) == {name for name, found in takes.items() if found}
    for name, compared in searches.NAMES.items():
        assert compared[0] == searches.OWN
        assert len(compared) >= 3
        assert set(compared[1:]) <= set(takes[name])


def test_the_page_shows_a_figure_for_every_comparison() -> None:
    rows = {m[1]: m[2] for m in re.finditer(r"^\| `([a-z-]+)` \| ([\d. |]+) \|$", PAGE.read_text(), flags=re.MULTILINE)}
    assert set(rows) == set(searches.NAMES)
    for name, cells in rows.items():
        figures = [float(cell) for cell in cells.split("|")]
        assert len(figures) == len(searches.NAMES[name])
        assert all(0 < figure < 1 for figure in figures)


def test_another_search_trains_another_network(capsys: pytest.CaptureFixture[str]) -> None:
    searches.main(["fuzzy", "--epochs", "1"])
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if line.startswith("| `fuzzy`")]
    assert len(lines) == 1
    figures = re.findall(r"0\.\d{3}", lines[0])
    assert len(figures) == len(searches.NAMES["fuzzy"])
    assert len(set(figures)) > 1


def test_an_experiment_without_a_search_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        searches.main(["baseline"])
    assert "invalid choice: 'baseline'" in capsys.readouterr().err
