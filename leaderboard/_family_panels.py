"""The panels by family of a board: one a task, for boards with upstreams of more than one family."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from leaderboard._charts import Panel
from leaderboard._lanes import Lane, Mark, lane_chart
from leaderboard._marks import COLOURS, UNTRAINED, Series, tip
from leaderboard.board import Board, Column, Row
from leaderboard.families import FAMILIES, families_of

STYLES = {FAMILIES[0]: UNTRAINED, **{family: style for style, family in enumerate(FAMILIES[1 : COLOURS + 1])}}
UNKNOWN = "unknown"  # what the lane of rows is called whose records don't name a family


def style_of(family: str) -> int:
    """The look of a family; those without a colour of their own share the grey one."""
    return STYLES.get(family, COLOURS)


def family_legend(rows: Sequence[Row]) -> tuple[Series, ...]:
    """How the families of rows look, in their order."""
    unknown = [UNKNOWN] if any(not row.family for row in rows) else []
    return tuple(Series("", name, style_of(name)) for name in (*families_of(rows), *unknown))


def family_panels(board: Board, series: Mapping[str, Series]) -> Iterator[Panel]:
    """One panel a task that has values of more than one family.

    Args:
        board: with all its rows.
        series: row name -> how it looks elsewhere; here it has the look of its family.
    """
    for column in board.columns:
        rows = [row for row in board.rows if column.key in row.cells]
        families = families_of(rows)
        if column.primary and len(families) > 1:
            lanes = [_lane(family, rows, column, series) for family in (*families, "")]
            yield lane_chart(
                f"{column.label}: {column.title}",
                [lane for lane in lanes if lane.marks],
                f"{column.metric_title} {column.unit}",
                column.direction == "higher",
            )


def _lane(family: str, rows: Sequence[Row], column: Column, series: Mapping[str, Series]) -> Lane:
    sign = -1 if column.direction == "higher" else 1
    members = sorted((row for row in rows if row.family == family), key=lambda row: sign * row.cells[column.key].mean)
    look = style_of(family)
    return Lane(family or UNKNOWN, [_mark(row, column, series[row.name]._replace(style=look)) for row in members])


def _mark(row: Row, column: Column, series: Series) -> Mark:
    cell = row.cells[column.key]
    facts = [(column.metric_title, f"{cell.mean:.1f} {column.unit}")]
    if cell.interval is not None:
        facts.append(("95 % interval", f"{cell.interval.low:.1f} to {cell.interval.high:.1f}"))
    facts += [("Family", row.family or UNKNOWN), ("Rank", str(cell.rank))]
    return Mark(series, cell.mean, *(cell.interval or (cell.mean, cell.mean)), tip(row.name, facts))
