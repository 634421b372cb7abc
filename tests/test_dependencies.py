"""The dev extra brings every package that tests import if it is there, and `constraints.txt` pins all of it."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OPTIONAL = re.compile(r'(?:importorskip|find_spec)\(\s*"(\w+)')
ALTERNATIVES = {"cocoex"}  # where ioh is not installed, the benchmark takes this one


def names(lines: list[str]) -> set[str]:
    """Return the canonical names of the packages that requirements name."""
    return {canonicalize_name(Requirement(line).name) for line in lines}


def installed_by(lines: list[str]) -> set[str]:
    """Return the canonical names of what pip installs for requirements, by the metadata of what is installed here.

    Left out are packages of which another one demands one version, as torch does of CUDA's.
    """
    found: set[str] = set()
    waiting = [Requirement(line) for line in lines]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in found:
            continue
        found.add(name)
        for line in metadata.requires(name) or []:
            inner = Requirement(line)
            environments = [{"extra": extra} for extra in ("", *requirement.extras)]
            if any(part.operator == "==" for part in inner.specifier):
                continue
            if inner.marker is None or any(inner.marker.evaluate(environment) for environment in environments):
                waiting.append(inner)
    return found


def test_the_dev_extra_brings_every_package_without_which_a_test_skips() -> None:
    brought = names(PROJECT["dependencies"]) | names(PROJECT["optional-dependencies"]["dev"])
    wanted = {
        (path.name, package)
        for path in (ROOT / "tests").rglob("test_*.py")
        for package in OPTIONAL.findall(path.read_text(encoding="utf-8"))
    }
    assert {"evotorch", "cma", "pymoo", "ioh"} <= {package for _, package in wanted}
    assert {(file, package) for file, package in wanted if package not in brought | ALTERNATIVES} == set()


@pytest.mark.parametrize("extra", ["dev", "evotorch", "sklearn"])
def test_every_package_that_an_extra_brings_is_pinned(extra: str) -> None:
    pins = names((ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()[1:])
    assert installed_by(PROJECT["dependencies"] + PROJECT["optional-dependencies"][extra]) - pins == set()


def test_every_package_of_the_benchmarks_is_pinned() -> None:
    pins = names((ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()[1:])
    assert names(PROJECT["optional-dependencies"]["bench"]) <= pins
