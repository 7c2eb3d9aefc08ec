"""The leaderboard as a terminal table, Markdown and CSV."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import StringIO
from typing import NamedTuple

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from leaderboard.aggregate import COLUMNS

ARROWS = {"higher": "↑", "lower": "↓"}


class Board(NamedTuple):
    """One table: the results on one corpus with one recipe.

    Attributes:
        title: corpus and recipe.
        columns: (task, heading).
        rows: (upstream, parameters, task -> (text, whether it is the best)).
    """

    title: str
    columns: list[tuple[str, str]]
    rows: list[tuple[str, str, dict[str, tuple[str, bool]]]]


def boards(table: pd.DataFrame) -> Iterator[Board]:
    """A board for every corpus and recipe; rows in the order of their mean rank over the tasks."""
    for (corpus, recipe), part in table.groupby(["corpus", "recipe"], sort=True):
        columns = [
            (str(task), f"{str(task).upper()} {cells['title'].iloc[0]} {cells['unit'].iloc[0]} "
             f"{ARROWS[cells['direction'].iloc[0]]}")
            for task, cells in part.groupby("task", sort=True)
        ]  # fmt: skip
        order = _mean_rank(part).sort_values(kind="stable").index
        rows = [_board_row(str(upstream), part) for upstream in order]
        yield Board(f"{corpus}, recipe {recipe}", columns, rows)


def _mean_rank(part: pd.DataFrame) -> pd.Series[float]:
    sign = part["direction"].map({"higher": -1, "lower": 1})
    rank = (part["mean"] * sign).groupby(part["task"]).rank()
    return rank.groupby(part["upstream"]).mean()


def _board_row(upstream: str, part: pd.DataFrame) -> tuple[str, str, dict[str, tuple[str, bool]]]:
    cells = {}
    params = 0
    for row in part[part["upstream"] == upstream].to_dict("records"):
        rivals = part[part["task"] == row["task"]]["mean"]
        best = rivals.max() if row["direction"] == "higher" else rivals.min()
        spread = f" ± {row['std']:.1f}" if row["seeds"] > 1 else ""
        cells[str(row["task"])] = (f"{row['mean']:.1f}{spread}", bool(row["mean"] == best))
        params = int(row["params"])
    return upstream, _millions(params), cells


def _millions(params: int) -> str:
    return "0" if params == 0 else f"{params / 1e6:.1f} M"


def rich_tables(table: pd.DataFrame) -> Iterator[Table]:
    """For the terminal; the best of a column is bold."""
    for board in boards(table):
        drawn = Table(title=escape(board.title), title_justify="left")
        drawn.add_column("upstream", no_wrap=True)
        drawn.add_column("params", justify="right", no_wrap=True)
        for _, heading in board.columns:
            drawn.add_column(heading, justify="right")
        for upstream, params, cells in board.rows:
            texts = [cells.get(task, ("-", False)) for task, _ in board.columns]
            drawn.add_row(escape(upstream), params, *(f"[bold]{text}[/]" if best else text for text, best in texts))
        yield drawn


def svg(table: pd.DataFrame) -> str:
    """The terminal's tables as a picture."""
    drawn = list(rich_tables(table))
    width = max(Console(width=200).measure(each).maximum for each in drawn) + 2
    console = Console(width=width, record=True, file=StringIO())
    for each in drawn:
        console.print(each)
    picture = console.export_svg(title="Frostbench")
    return re.sub(r"@font-face\s*{.*?}\s*", "", picture, flags=re.DOTALL)  # whoever looks at it shall load no fonts


def markdown(table: pd.DataFrame) -> str:
    """One Markdown table a board."""
    parts = []
    for board in boards(table):
        headings = ["upstream", "params", *(heading for _, heading in board.columns)]
        lines = [f"**{board.title}**", "", _line(headings), "|---|" + "---:|" * (len(headings) - 1)]
        for upstream, params, cells in board.rows:
            texts = [cells.get(task, ("-", False)) for task, _ in board.columns]
            lines.append(_line([upstream, params, *(f"**{text}**" if best else text for text, best in texts)]))
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def csv(table: pd.DataFrame) -> str:
    """Tidy CSV, one row a cell."""
    return table[list(COLUMNS)].to_csv(index=False, float_format="%.4f", lineterminator="\n")
