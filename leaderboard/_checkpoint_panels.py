"""The figure of series over checkpoints of a board: what representations are worth while their training goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from leaderboard._charts import Curve, Panel, compact, curves
from leaderboard._marks import COLOURS, Series, tip
from leaderboard.board import Board, Column
from leaderboard.checkpoint_series import Checkpoint, curves_of_series

MOST_NAMED = 6  # steps that stand below the axis one by one; of more, round numbers do


def looks_of_series(board: Board) -> dict[str, Series]:
    """Name of each series that has a curve -> how it looks."""
    columns = [column for column in board.columns if column.primary]
    names = dict.fromkeys(name for column in columns for name, _ in curves_of_series(board, column))
    return {name: Series(f"s{i}", name, min(i, COLOURS)) for i, name in enumerate(names)}


def curves_over_steps(board: Board, looks: Mapping[str, Series]) -> Iterator[Panel]:
    """A panel a task, a line a series.

    Args:
        board: with all its rows.
        looks: name of a series -> how it looks.
    """
    for column in (column for column in board.columns if column.primary):
        found = dict(curves_of_series(board, column))
        if found:
            steps = {float(each.step): compact(each.step) for checkpoints in found.values() for each in checkpoints}
            yield curves(
                f"{column.label}: {column.title}",
                [_curve(looks[name], checkpoints, column) for name, checkpoints in found.items()],
                "step of training",
                f"{column.metric_title} {column.unit}".strip(),
                column.direction == "higher",
                named=steps if len(steps) <= MOST_NAMED else None,
                logarithmic=False,
            )


def _curve(look: Series, checkpoints: Sequence[Checkpoint], column: Column) -> Curve:
    points = [(float(each.step), each.cell.mean) for each in checkpoints]
    ends = [each.cell.interval or (each.cell.mean, each.cell.mean) for each in checkpoints]
    return Curve(look, points, (), [_told(each, column) for each in checkpoints], ends)


def _told(checkpoint: Checkpoint, column: Column) -> str:
    cell = checkpoint.cell
    facts = [("Step", f"{checkpoint.step:,}"), (column.metric_title, f"{cell.mean:.1f} {column.unit}")]
    if cell.interval is not None:
        facts.append(("95 % interval", f"{cell.interval.low:.1f} to {cell.interval.high:.1f}"))
    facts += [("Rank", str(cell.rank)), ("Seeds", ", ".join(map(str, cell.values)))]
    return tip(checkpoint.row.name, facts)
