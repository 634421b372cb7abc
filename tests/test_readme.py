"""README's Python runs, and its two commands are the ones that `.ci/run` runs."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def blocks(language: str) -> list[str]:
    """Return the README's fenced blocks of one language, in order."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


PYTHON = blocks("python")


@pytest.mark.parametrize("source", PYTHON, ids=[f"block{i}" for i in range(len(PYTHON))])
def test_python_block_runs_as_printed(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(source, "README.md", "exec"), {"__name__": "__main__"})


def test_readme_shows_both_packages_in_python() -> None:
    assert any("import tansaku" in block for block in PYTHON)
    assert any("zenkai_core import" in block for block in PYTHON)


def test_every_fenced_block_is_shell_or_python_and_so_checked() -> None:
    fences = re.findall(r"^```(.*)$", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert set(fences[::2]) == {"python", "sh"}
    assert set(fences[1::2]) == {""}


@pytest.mark.parametrize("ending", ["python examples/mnist.py", "python -m pytest -n auto"])
def test_install_commands_are_run_by_ci_to_the_letter(ending: str) -> None:
    commands = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("python -m venv")]
    (command,) = [line for line in commands if line.endswith(ending)]
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert [line.strip() for line in script].count(command) == 1


def test_readme_has_exactly_two_install_commands() -> None:
    assert len([line for block in blocks("sh") for line in block.splitlines() if "venv .venv" in line]) == 2


def test_ci_script_is_executable_and_stops_at_the_first_failure() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text(encoding="utf-8").splitlines()


def test_files_that_the_readme_links_to_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
