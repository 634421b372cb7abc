"""The table of the page on black boxes, with a small budget; the page's own code and table."""

from __future__ import annotations

import re
from pathlib import Path

import black_box_gradients as example
import pytest
import torch

from zenkai_core import modules

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "black_box.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("method", example.METHODS)
def test_a_method_uses_the_budget_of_calls_and_no_more(method: str) -> None:
    torch.manual_seed(0)
    task = example.task(sum)
    box = modules.BlackBox(sum, vectorized=False, choices=True)
    example.METHODS[method](task, box, 2_000)
    assert 1_800 < box.calls <= 2_000


def test_the_posterior_learns_in_a_tenth_of_the_budget() -> None:
    torch.manual_seed(0)
    task = example.task(max)
    box = modules.BlackBox(max, vectorized=False, choices=True)
    assert example.score(task, example.by_posterior(task, box, 20_000)) > 0.5


def test_the_labels_of_the_images_are_never_given() -> None:
    """Only answers: two pairs of other digits with the same sum are the same to a method."""
    task = example.task(sum)
    assert set(vars(task)) == {"fn", "x", "t", "test_x", "test_t"}
    assert task.x.shape == (718, 2, 64)
    assert set(task.t.tolist()) <= set(map(float, range(19)))


def test_the_pages_code_runs_as_printed(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(code, "docs/black_box.md", "exec"), {})
    assert re.search(r"tensor\(\d", capsys.readouterr().out)


def test_the_page_shows_the_table_that_the_script_prints() -> None:
    lines = [line for line in PAGE.splitlines() if line.startswith("|")]
    assert lines[0] == "| method | " + " | ".join(f"`{name}`" for name in example.FUNCTIONS) + " |"
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:]] == list(example.METHODS)
