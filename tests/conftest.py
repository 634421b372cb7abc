"""Options and fixtures of all tests, and the settings of hypothesis."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

# `--doctest-modules` would import the benchmarks, which are programs, and their peers.
collect_ignore = [str(path) for path in Path(__file__).parent.glob("benchmarks/*.py") if path.name[:5] != "test_"]

settings.register_profile("project", deadline=None, derandomize=True, max_examples=50, print_blob=True)
settings.load_profile("project")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--data-dir",
        type=Path,
        default=os.environ.get("MNIST_DIR"),
        help="directory with the four MNIST IDX files, by default $MNIST_DIR; the tests that need them skip without it",
    )
    parser.addoption(
        "--device",
        default="cuda",
        help="where tests/device runs the conformance suites, by default cuda; it skips where that is not there",
    )


@pytest.fixture(scope="session")
def mnist_dir(request: pytest.FixtureRequest) -> Path:
    """The directory given as `--data-dir`; the test is skipped where none is given."""
    given: Path | str | None = request.config.getoption("--data-dir")
    if not given:
        pytest.skip("needs the MNIST IDX files: run pytest with --data-dir DIR")
    return Path(given).resolve()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Start each test from the same global random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - scikit-learn's default random_state is numpy's global one
    torch.manual_seed(0)


@pytest.fixture
def default_sigint() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt during the test, also where the process ignores it (`nohup`, background jobs).

    A program that the test starts inherits SIGINT at its default, too.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
