"""Writes what README.md says of `make benchmark` anew: its table, its minutes, the picture of the table.

python -m docs.readme results MINUTES, then docs/screenshots.py results
"""

from __future__ import annotations

import argparse
import re
from io import StringIO
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from core.digest import written_then_renamed
from frostbench.results import Results
from leaderboard.board import Board
from leaderboard.tables import cell_text, svg

DOCS = Path(__file__).parent
README = DOCS.parent / "README.md"
TABLE = re.compile(r"(?m)^    mini, recipe fast\n(?:    [┏┃┡│└].*\n)+")
MINUTES = re.compile(r"(make benchmark    # about )\S+( minutes)")


def main() -> None:
    """Reads a folder of results and writes."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("results", type=Path, help="folder that make benchmark wrote")
    asked.add_argument("minutes", help="that it took on two cores after the installation")
    options = asked.parse_args()
    found = Results(options.results).board
    text = README.read_text(encoding="utf-8")
    for pattern, new in ((TABLE, table(found.boards[0])), (MINUTES, rf"\g<1>{options.minutes}\g<2>")):
        text, count = pattern.subn(new, text)
        if count != 1:
            raise SystemExit(f"README.md: {count} places of {pattern.pattern!r}, must be one")
    _write(README, text)
    _write(DOCS / "leaderboard.svg", svg(found))


def table(board: Board) -> str:
    """The means and their spread over seeds, indented as code."""
    drawn = Table(box=box.HEAVY_HEAD)
    drawn.add_column("upstream")
    drawn.add_column(f"{board.score.name} {board.score.unit}", justify="right")
    for column in board.columns:
        drawn.add_column(column.heading, justify="right")
    for row in board.rows:
        cells = [cell_text(row.cells[column.key]).value if column.key in row.cells else "" for column in board.columns]
        drawn.add_row(row.name, "" if row.score is None else f"{row.score:.1f}", *cells)
    console = Console(width=110, file=StringIO(), force_terminal=False)
    console.print(drawn)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]  # a StringIO
    return "".join(f"    {line.rstrip()}\n" for line in (board.title, *lines))


def _write(path: Path, text: str) -> None:
    with written_then_renamed(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
