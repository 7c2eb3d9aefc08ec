"""The figure of conditions of a board: what noise, rooms and telephones take from heads that were trained without."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from core.conditions import Condition
from leaderboard._charts import Curve, Panel, curves
from leaderboard._marks import Series, tip
from leaderboard.board import Board, Column
from leaderboard.board_curves import ConditionScore
from leaderboard.condition_scores import CLEAN, in_order

Scores = Mapping[str, ConditionScore]  # by condition


def curves_over_conditions(board: Board, series: Mapping[str, Series]) -> Iterator[Panel]:
    """A panel a task and kind of condition, a line an upstream: as recorded on the left, the hardest on the right.

    Args:
        board: with all its rows.
        series: row name -> how it looks.
    """
    for column in (column for column in board.columns if column.primary):
        found = {row.name: {score.condition: score for score in row.cells[column.key].conditions}
                 for row in board.rows if column.key in row.cells and row.cells[column.key].conditions}  # fmt: skip
        heard = sorted({condition for scores in found.values() for condition in scores}, key=in_order)
        known = [Condition.from_text(condition) for condition in heard if condition != CLEAN]
        for kind in dict.fromkeys(condition.kind for condition in known):
            places = {CLEAN: CLEAN} | {str(each): each.label for each in known if each.kind == kind}
            lines = [_curve(series[name], scores, places, column) for name, scores in found.items()
                     if any(condition in scores for condition in places if condition != CLEAN)]  # fmt: skip
            yield curves(
                f"{column.label}: {column.title}, {kind}",
                lines,
                kind,
                f"{column.metric_title} {column.unit}".strip(),
                column.direction == "higher",
                named=dict(enumerate(places.values())),
                logarithmic=False,
            )


def _curve(series: Series, scores: Scores, places: Mapping[str, str], column: Column) -> Curve:
    there = [(place, scores[condition]) for place, condition in enumerate(places) if condition in scores]
    ends = [score.interval or (score.mean, score.mean) for _, score in there]
    tips = [_told(series, score, scores[CLEAN], column) for _, score in there]
    return Curve(series, [(place, score.mean) for place, score in there], (), tips, ends)


def _told(series: Series, score: ConditionScore, clean: ConditionScore, column: Column) -> str:
    facts = [(column.metric_title, f"{score.mean:.1f} {column.unit}")]
    if score.interval is not None:
        facts.append(("95 % interval", f"{score.interval.low:.1f} to {score.interval.high:.1f}"))
    if score.condition != CLEAN:
        facts.append(("As recorded", f"{clean.mean:.1f} {column.unit}"))
    facts.append(("Seeds", ", ".join(map(str, score.seeds))))
    return tip(f"{series.name}, {score.condition}", facts)
