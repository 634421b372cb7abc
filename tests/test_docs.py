"""What the pages in docs/ say can be done: every name exists, every program runs."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
NAMES = re.compile(r"(?<![\w.])(?:tansaku|zenkai_core)(?:\.\w+)+")


def found(name: str) -> Any:
    """What a dotted name says: modules on the way are imported.

    Raises:
        AttributeError: there is no such thing.
    """
    package, *parts = name.split(".")
    thing: Any = importlib.import_module(package)
    for i, part in enumerate(parts):
        if not hasattr(thing, part):
            try:
                importlib.import_module(".".join([package, *parts[: i + 1]]))
            except ImportError as error:
                raise AttributeError(f"{name}: no {part}") from error
        thing = getattr(thing, part)
    return thing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_name_on_a_page_exists(page: Path) -> None:
    names = set(NAMES.findall(page.read_text(encoding="utf-8")))
    assert names
    missing = []
    for name in sorted(names):
        try:
            found(name)
        except AttributeError:
            missing.append(name)
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_programs_on_a_page_run_one_after_another(page: Path) -> None:
    scope: dict[str, Any] = {}
    for program in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(program, page.name, "exec"), scope)


def test_a_name_that_does_not_exist_is_found_out() -> None:
    assert NAMES.findall("see `zenkai_core.theta.Gradient`, not zenkai.tansaku.Best") == ["zenkai_core.theta.Gradient"]
    for name in ("zenkai_core.theta.Nothing", "tansaku.nothing", "zenkai_core.nothing.at_all"):
        with pytest.raises(AttributeError):
            found(name)
