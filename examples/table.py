"""Draw README's table, and its picture, from the results that are kept in the repository.

    python examples/table.py [--from DIR ...]

`examples/results/table.json` is the table of a main job (`DIR/table.json`), with the command and the commit that made
it. `--from DIR` puts another one in its place first; of several, made on different machines for one, every run of an
experiment, variant and seed is the last directory's that has it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import pictures, report, table
from common.command import registered
from common.files import write_atomically

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "examples" / "results" / report.TABLE
BEGIN, END = "<!-- drawn by examples/table.py -->\n", "<!-- end of what examples/table.py draws -->\n"


def drawn(made: dict[str, Any] | None) -> str:
    """Return what stands in README between the two marks: nothing, where there are no results."""
    if made is None:
        return ""
    lines = table.lines(made["results"], registered())
    origin = f"`{made['command']}` at commit {made['commit']}:"
    return f"\n{origin}\n\n{table.markdown(lines)}\n![The table as a picture](examples/results/{report.CHART})\n\n"


def with_table(readme: str, text: str) -> str:
    """Return README's text with another one between the two marks.

    Raises:
        ValueError: the marks do not stand there once each, in order.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"README expected {BEGIN.strip()} and then {END.strip()}, once each: put them back")
    return before + BEGIN + text + END + after


def kept() -> dict[str, Any] | None:
    """Return the results that are kept, None where there are none."""
    return json.loads(KEPT.read_bytes()) if KEPT.exists() else None


def merged(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return one table made of several; the last one's run of an experiment, variant, search, data and seed stands."""
    if len(parts) == 1:
        return parts[0]
    own = ("experiment", "variant", "search", "data", "seed")
    rows = {tuple(row[name] for name in own): row for part in parts for row in part["results"]}
    made: dict[str, list[str]] = {}  # commit -> experiments
    for row in rows.values():
        if row["experiment"] not in (names := made.setdefault(row["commit"] or "unknown", [])):
            names.append(row["experiment"])
    commits = [commit if len(made) == 1 else f"{commit} ({', '.join(names)})" for commit, names in made.items()]
    commands = dict.fromkeys(part["command"] for part in parts)
    return {"command": "` and `".join(commands), "commit": ", ".join(commits), "results": list(rows.values())}


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the table."""
    parser = argparse.ArgumentParser(prog="table.py", description="Draw README's table from the results that are kept.")
    parser.add_argument("--from", dest="sources", type=Path, nargs="+", metavar="DIR", help="the --out of main jobs")
    sources = parser.parse_args(arguments).sources
    if sources:
        parts = [json.loads((source / report.TABLE).read_bytes()) for source in sources]
        write_atomically(KEPT, (json.dumps(merged(parts), indent=2) + "\n").encode())
    made = kept()
    readme = ROOT / "README.md"
    write_atomically(readme, with_table(readme.read_text(encoding="utf-8"), drawn(made)).encode())
    if made is not None:
        figure = pictures.table(table.lines(made["results"], registered()))
        write_atomically(KEPT.with_name(report.CHART), pictures.png(figure))
    return 0


if __name__ == "__main__":
    sys.exit(main())
