"""What heads on one layer alone come to (`run --layers`), beside the runs that learned a sum of all layers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from core.records import RecordStore, ResultRecord
from leaderboard.board import Column, ResultCell
from leaderboard.board_curves import LayerScore
from leaderboard.grouping import Entry
from leaderboard.usable_records import LeftOut
from leaderboard.variations import beside, varied


def with_layers(
    store: RecordStore,
    column: Column,
    cells: Mapping[str, ResultCell],
    others: Iterable[ResultRecord],
    entries: Sequence[Entry],
) -> tuple[dict[str, ResultCell], list[LeftOut]]:
    """The cells of a column with the layers that were tried alone, ascending, and files that could not be used.

    Args:
        store: where the predictions are.
        column: the metric and its task.
        cells: upstream -> cell, of the learned sum.
        others: runs without a row; those on one layer without a run on the sum beside it have no cell to stand in.
        entries: runs on a sum.
    """
    alone = [record for record in others if record.layer is not None]
    points, left_out = varied(
        store, column, beside(alone, entries, ResultRecord.run_of_sum), lambda record: record.layer
    )
    scores: dict[str, list[LayerScore]] = defaultdict(list)
    for point in sorted(points, key=lambda point: point.key):
        scores[point.upstream].append(LayerScore(point.key, point.mean, point.interval, point.seeds))
    made = {name: replace(cell, single_layers=tuple(scores.get(name, ()))) for name, cell in cells.items()}
    return made, left_out
