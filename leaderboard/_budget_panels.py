"""The figure of label budgets of a board: what heads make of a minute, of ten, of all that train has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from leaderboard._charts import Curve, Panel, curves
from leaderboard._marks import Series, tip
from leaderboard.board import Board, Column
from leaderboard.board_curves import BudgetScore


def curves_over_budgets(board: Board, series: Mapping[str, Series]) -> Iterator[Panel]:
    """A panel a task, a line an upstream.

    Args:
        board: with all its rows.
        series: row name -> how it looks.
    """
    for column in (column for column in board.columns if column.primary):
        scores = {row.name: row.cells[column.key].budgets for row in board.rows
                  if column.key in row.cells and row.cells[column.key].budgets}  # fmt: skip
        if scores:
            lines = [_curve(series[name], found, column) for name, found in scores.items()]
            named = {score.seconds: score.budget for found in scores.values() for score in found}
            y_title = f"{column.metric_title} {column.unit}".strip()
            higher = column.direction == "higher"
            yield curves(
                f"{column.label}: {column.title}", lines, "labelled speech of train", y_title, higher, named=named
            )


def _curve(series: Series, scores: tuple[BudgetScore, ...], column: Column) -> Curve:
    points = [(score.seconds, score.mean) for score in scores]
    ends = [score.interval or (score.mean, score.mean) for score in scores]
    return Curve(series, points, (), [_told(series, score, column) for score in scores], ends)


def _told(series: Series, score: BudgetScore, column: Column) -> str:
    facts = [(column.metric_title, f"{score.mean:.1f} {column.unit}")]
    if score.interval is not None:
        facts.append(("95 % interval", f"{score.interval.low:.1f} to {score.interval.high:.1f}"))
    facts.append(("Drawn", f"{score.seconds / 60:.1f} min, {score.train:,} recordings"))
    facts.append(("Seeds", ", ".join(map(str, score.seeds))))
    return tip(f"{series.name}, {score.budget} of train", facts)
