"""Draw README's table, and its picture, from the results that are kept in the repository.

    python examples/table.py [--from DIR]

`examples/results/table.json` is the table of a main job (`DIR/table.json`), with the command and the commit that made
it. `--from DIR` puts another one in its place first.
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
    seeds = sorted({row["seed"] for row in made["results"]})
    origin = f"`{made['command']}` at commit {made['commit']}, seed {', '.join(map(str, seeds))}:"
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the table."""
    parser = argparse.ArgumentParser(prog="table.py", description="Draw README's table from the results that are kept.")
    parser.add_argument("--from", dest="source", type=Path, metavar="DIR", help="the --out of a main job")
    source = parser.parse_args(arguments).source
    if source:
        write_atomically(KEPT, (source / report.TABLE).read_bytes())
    made = kept()
    readme = ROOT / "README.md"
    write_atomically(readme, with_table(readme.read_text(encoding="utf-8"), drawn(made)).encode())
    if made is not None:
        figure = pictures.table(table.lines(made["results"], registered()))
        write_atomically(KEPT.with_name(report.CHART), pictures.png(figure))
    return 0


if __name__ == "__main__":
    sys.exit(main())
