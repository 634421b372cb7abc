"""Takes a saved search up again, in this process or in a fresh one."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tansaku.algorithms import Algorithm
from tansaku.search import Search
from tansaku.testing.claims import fingerprint, require
from tansaku.testing.subject import Subject

UNKNOWN_MODULE = 3  # exit status of the fresh process


def imported(name: str) -> Callable[..., Algorithm[Any]]:
    """What ``"module:name"`` names.

    Raises:
        ValueError: no colon.
        ModuleNotFoundError, AttributeError: no such module or name.
    """
    module, separator, attribute = name.partition(":")
    if not separator:
        raise ValueError(f"expected make as 'module:name', got {name!r}; put a colon before the name")
    made: Any = importlib.import_module(module)
    for part in attribute.split("."):
        made = getattr(made, part)
    return made


def outcome(search: Search[Any]) -> str:
    """A fingerprint of all that decides how the search goes on."""
    state = search.state_dict()
    return fingerprint({name: state[name] for name in state if name != "history"} | {"best": search.history.best})


def resumed(subject: Subject, kind: str, saved: Path) -> Search[Any]:
    """The saved search, run to generation 6 and asked for the next candidates."""
    problem = subject.problem(kind)
    algorithm = subject.bounded(problem)
    search: Search[Any] = Search(algorithm, problem.assess, problem.start(1, seed=77), seed=77)
    search.load(saved)
    search.run(max_generations=6)
    search.ask()
    return search


def importable(make: Callable[..., Any]) -> str | None:
    """``"module:name"`` that gives ``make``, or None where it has no such name."""
    module, name = getattr(make, "__module__", None), getattr(make, "__qualname__", "<unnamed>")
    if module in (None, "__main__") or "<" in name or module not in sys.modules:
        return None
    found: Any = sys.modules[module]
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{module}:{name}" if found is make else None


def in_fresh_process(name: str, kind: str, subject: Subject, saved: Path, ended: Path) -> bool:
    """Takes the saved search up in another process; False where that one cannot import ``name``."""
    program = "import sys; from tansaku.testing.resume import go_on; sys.exit(go_on(*sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", program, name, kind, str(subject.device), str(saved), str(ended)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == UNKNOWN_MODULE:
        return False
    require(done.returncode == 0, f"a fresh process could not go on:\n{done.stderr}")
    return True


def go_on(name: str, kind: str, device: str, saved: str, ended: str) -> int:
    """What the fresh process does; its exit status."""
    try:
        make = imported(name)
    except ModuleNotFoundError:
        return UNKNOWN_MODULE
    resumed(Subject(make, torch.device(device)), kind, Path(saved)).save(ended)
    return 0
