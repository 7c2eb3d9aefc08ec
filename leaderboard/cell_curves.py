"""The curves in the cells of a board: of runs that have no row of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from core.records import RecordStore, ResultRecord
from leaderboard.board import Column, ResultCell
from leaderboard.budget_scores import with_budgets
from leaderboard.condition_scores import with_conditions
from leaderboard.grouping import Entry
from leaderboard.layer_scores import with_layers
from leaderboard.usable_records import LeftOut

CURVES = (with_layers, with_budgets, with_conditions)


def with_curves(
    store: RecordStore,
    column: Column,
    cells: Mapping[str, ResultCell],
    others: Sequence[ResultRecord],
    entries: Sequence[Entry],
) -> tuple[Mapping[str, ResultCell], list[LeftOut]]:
    """The cells of a column with all that was run beside them, and the files that could not be used.

    Args:
        store: where the predictions are.
        column: the metric and its task.
        cells: upstream -> cell.
        others: runs without a row.
        entries: runs that the cells are of.
    """
    left_out: list[LeftOut] = []
    for curve in CURVES:
        cells, unused = curve(store, column, cells, others, entries)
        left_out += unused
    return cells, left_out
