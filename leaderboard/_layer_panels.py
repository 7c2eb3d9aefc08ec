"""The figures of single layers of a board: one a task of which heads on one layer alone were trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from leaderboard._charts import Panel
from leaderboard._layer_chart import LayerMark, Reference, layer_chart
from leaderboard._marks import Series, tip
from leaderboard._svg import padded
from leaderboard.board import Board, Column, ResultCell
from leaderboard.board_curves import Interval, LayerScore


def curves_over_layers(board: Board, series: Mapping[str, Series]) -> Iterator[tuple[Column, tuple[Panel, ...]]]:
    """Each task with a panel an upstream of several layers, all on the same axis.

    Args:
        board: with all its rows.
        series: row name -> how it looks.
    """
    for column in (column for column in board.columns if column.primary):
        cells = {row.name: row.cells[column.key] for row in board.rows
                 if column.key in row.cells and _has_a_curve(row.cells[column.key])}  # fmt: skip
        if cells:
            span = _span(column, list(cells.values()))
            yield column, tuple(_panel(series[name], cell, column, span) for name, cell in cells.items())


def _has_a_curve(cell: ResultCell) -> bool:
    """Whether layers were tried alone, of several that the sum knows."""
    known = range(len(cell.layer_weights))
    return len(known) > 1 and len(cell.single_layers) > 0 and all(each.layer in known for each in cell.single_layers)


def _span(column: Column, cells: Sequence[ResultCell]) -> tuple[float, float]:
    """The axis that holds all intervals, of layers and of sums, the better end last."""
    found: list[LayerScore | ResultCell] = [*cells, *(each for cell in cells for each in cell.single_layers)]
    ends = [end for each in found for end in _ends(each)]
    low, high = padded(ends)
    return (low, high) if column.direction == "higher" else (high, low)


def _ends(found: LayerScore | ResultCell) -> Interval:
    return found.interval or Interval(found.mean, found.mean)


def _panel(series: Series, cell: ResultCell, column: Column, span: tuple[float, float]) -> Panel:
    title = ", ".join([f"{column.metric_title} {column.unit}".strip(), f"{column.direction} is better"])
    marks = [LayerMark(each.layer, each.mean, *_ends(each), _told(series, each, cell, column))
             for each in cell.single_layers]  # fmt: skip
    return layer_chart(series, marks, Reference(cell.mean, *_ends(cell)), cell.layer_weights, title=title, span=span)


def _told(series: Series, score: LayerScore, cell: ResultCell, column: Column) -> str:
    facts = [(column.metric_title, f"{score.mean:.1f} {column.unit}")]
    if score.interval is not None:
        facts.append(("95 % interval", f"{score.interval.low:.1f} to {score.interval.high:.1f}"))
    facts.append(("Weight in the sum", f"{cell.layer_weights[score.layer]:.3f}"))
    if len(score.seeds) < len(cell.values):
        facts.append(("Seeds", ", ".join(map(str, score.seeds))))
    return tip(f"{series.name}, layer {score.layer}", facts)
