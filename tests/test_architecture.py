"""Imports run one way: each package's modules stand in layers, and an import may only point downwards."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

import tansaku

ROOT = Path(__file__).resolve().parents[1]

# From the bottom to the top; a layer is the first name below the package, the package's `__init__` stands above all.
LAYERS: Mapping[str, Sequence[str]] = {
    "tansaku": (
        "checks",
        "caching",
        "compiling",
        "showing",
        "host",
        "storage",
        "functional",
        "guard",
        "randomness",
        "shapes",
        "assessment",
        "population",
        "draws",
        "operators",
        "states",
        "algorithms",
        "settings",
        "modules",
        "memory",
        "assessors",
        "history",
        "callbacks",
        "checkpoint",
        "restore",
        "plots",
        "result",
        "running",
        "search",
        "shortcuts",
        "optim",
        "distributed",
        "bridges",
        "testing",
    ),
    "zenkai_core": (
        "checks",
        "describe",
        "host_copy",
        "rates",
        "values",
        "finite",
        "context",
        "compiled",
        "distributed",
        "gradients",
        "requested",
        "loss_scale",
        "state",
        "parameters",
        "criteria",
        "composed",
        "noise",
        "hooks",
        "passes",
        "bridge",
        "modules",
        "capabilities",
        "linear",
        "learning",
        "machine",
        "wrapping",
        "searching",
        "theta",
        "targets",
        "container",
        "chain",
        "wiring",
        "graph",
        "parallel",
        "swap",
        "global_targets",
        "convert",
        "weights",
        "optimizer",
        "diagnostics",
        "testing",
    ),
}
HEAVY = ("evotorch", "ray", "matplotlib", "pandas", "sklearn")


def modules_of(root: Path, package: str) -> dict[str, Path]:
    """Return dotted name -> file of every module of a package that lies in `root`."""
    found = {}
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(path: Path, name: str) -> Iterator[tuple[str, str | None]]:
    """Yield (module, name or None) of each import anywhere in a file, in functions and under TYPE_CHECKING too."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((module, alias.name) for alias in node.names)


def edges_of(root: Path, package: str) -> dict[str, set[str]]:
    """Return module -> modules of the same package that it imports."""
    modules = modules_of(root, package)
    edges: dict[str, set[str]] = {name: set() for name in modules}
    for name, path in modules.items():
        for module, attribute in imports_of(path, name):
            if module.split(".")[0] != package:
                continue
            submodule = f"{module}.{attribute}"
            edges[name].add(submodule if submodule in modules else module)
    return edges


def cycles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the strongly connected components with more than one module, or one that imports itself (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(edges.get(node, ())):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            at = stack.index(node)
            component = sorted(stack[at:])
            del stack[at:]
            if len(component) > 1 or node in edges.get(node, ()):
                found.append(component)

    for node in sorted(edges):
        if node not in index:
            visit(node)
    return found


def upward(edges: Mapping[str, set[str]], layers: Sequence[str]) -> list[str]:
    """Return a sentence for each import that points to a higher layer, and for each module without a layer."""
    height = {name: level for level, name in enumerate(layers)}

    def level(module: str) -> int:
        parts = module.split(".")
        return len(layers) if len(parts) == 1 else height.get(parts[1], -1)

    wrong = [f"{module} stands in no layer" for module in sorted(edges) if level(module) < 0]
    return wrong + [
        f"{module} imports {target}, which stands above it"
        for module, targets in sorted(edges.items())
        for target in sorted(targets)
        if level(target) > level(module) >= 0
    ]


def foreign(root: Path, package: str, other: str, public: Sequence[str]) -> list[str]:
    """Return each use that a package makes of names of `other` outside `public` and `other.testing`."""
    wrong = []
    for name, path in modules_of(root, package).items():
        aliases = set()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for module, attribute in imports_of(path, name):
            if module.split(".")[0] != other or module == f"{other}.testing":
                continue
            if module != other or attribute not in (None, "testing", *public):
                wrong.append(f"{name} imports {module}" + (f".{attribute}" if attribute else ""))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                aliases |= {alias.asname or alias.name for alias in node.names if alias.name == other}
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases):
                continue
            if node.attr not in (*public, "testing"):
                wrong.append(f"{name} uses {other}.{node.attr}")
    return wrong


@pytest.mark.parametrize("package", LAYERS)
def test_every_import_points_to_a_lower_layer(package: str) -> None:
    assert upward(edges_of(ROOT, package), LAYERS[package]) == []


@pytest.mark.parametrize("package", LAYERS)
def test_no_modules_import_each_other_in_a_circle(package: str) -> None:
    assert cycles(edges_of(ROOT, package)) == []


def test_tansaku_never_imports_zenkai_core() -> None:
    assert foreign(ROOT, "tansaku", "zenkai_core", ()) == []


def test_zenkai_core_uses_only_public_names_of_tansaku() -> None:
    assert foreign(ROOT, "zenkai_core", "tansaku", tansaku.__all__) == []


@pytest.mark.parametrize("package", LAYERS)
def test_packages_never_import_the_examples_or_the_tests(package: str) -> None:
    for other in ("examples", "common", "experiments", "tests"):
        assert foreign(ROOT, package, other, ()) == []


@pytest.mark.parametrize("package", LAYERS)
def test_import_loads_nothing_heavy(package: str) -> None:
    program = f"import sys, json, {package}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = {name.split(".")[0] for name in json.loads(done.stdout)}
    assert package in loaded
    assert loaded.isdisjoint(HEAVY), sorted(loaded.intersection(HEAVY))


# The checker itself: each planted violation is found.


def plant(root: Path, files: Mapping[str, str]) -> Path:
    """Write a package tree `name -> source` below `root`."""
    for name, source in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    return root


def test_checker_passes_a_downward_import(tmp_path: Path) -> None:
    plant(tmp_path, {"p/__init__.py": "from p.high import a", "p/low.py": "a = 1", "p/high.py": "from p.low import a"})
    edges = edges_of(tmp_path, "p")
    assert edges == {"p": {"p.high"}, "p.high": {"p.low"}, "p.low": set()}
    assert upward(edges, ("low", "high")) == []
    assert cycles(edges) == []


@pytest.mark.parametrize(
    "source",
    [
        "import p.high",
        "from p.high import a",
        "from p import high",
        "from . import high",
        "from .high import a",
        "def f():\n    from p.high import a",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.high import a",
    ],
)
def test_checker_finds_an_upward_import_however_it_is_written(tmp_path: Path, source: str) -> None:
    plant(tmp_path, {"p/__init__.py": "", "p/low.py": source, "p/high.py": "a = 1"})
    assert upward(edges_of(tmp_path, "p"), ("low", "high")) == ["p.low imports p.high, which stands above it"]


def test_checker_finds_an_import_of_the_package_itself_from_below(tmp_path: Path) -> None:
    plant(tmp_path, {"p/__init__.py": "from p.low import a", "p/low.py": "from p import b"})
    edges = edges_of(tmp_path, "p")
    assert upward(edges, ("low",)) == ["p.low imports p, which stands above it"]
    assert cycles(edges) == [["p", "p.low"]]


def test_checker_finds_a_relative_import_out_of_a_subpackage(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {"p/__init__.py": "", "p/ops/__init__.py": "", "p/ops/deep.py": "from ..high import a", "p/high.py": "a = 1"},
    )
    assert upward(edges_of(tmp_path, "p"), ("ops", "high")) == ["p.ops.deep imports p.high, which stands above it"]


def test_checker_finds_a_circle_inside_one_layer(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {
            "p/__init__.py": "",
            "p/ops/__init__.py": "",
            "p/ops/a.py": "def f():\n    from p.ops import b",
            "p/ops/b.py": "from p.ops import c",
            "p/ops/c.py": "from p.ops.a import f",
        },
    )
    edges = edges_of(tmp_path, "p")
    assert upward(edges, ("ops",)) == []
    assert cycles(edges) == [["p.ops.a", "p.ops.b", "p.ops.c"]]


def test_checker_finds_a_module_without_a_layer(tmp_path: Path) -> None:
    plant(tmp_path, {"p/__init__.py": "", "p/stray.py": ""})
    assert upward(edges_of(tmp_path, "p"), ("low",)) == ["p.stray stands in no layer"]


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("from q.inner import x", "p.a imports q.inner.x"),
        ("from q import hidden", "p.a imports q.hidden"),
        ("import q.inner", "p.a imports q.inner"),
        ("import q\nq.hidden", "p.a uses q.hidden"),
        ("import q as r\ndef f():\n    return r.hidden.x", "p.a uses q.hidden"),
    ],
)
def test_checker_finds_a_private_name_of_another_package(tmp_path: Path, source: str, complaint: str) -> None:
    plant(tmp_path, {"p/__init__.py": "", "p/a.py": source})
    assert foreign(tmp_path, "p", "q", ("shown",)) == [complaint]


def test_checker_passes_public_names_of_another_package(tmp_path: Path) -> None:
    source = "import q\nfrom q import shown\nfrom q.testing import check\nq.shown"
    plant(tmp_path, {"p/__init__.py": "", "p/a.py": source})
    assert foreign(tmp_path, "p", "q", ("shown",)) == []
