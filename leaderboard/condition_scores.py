"""What heads come to in conditions that they were trained without (`run --condition`), beside the runs they are of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from core.conditions import Condition
from core.records import RecordStore, ResultRecord
from leaderboard.board import Column, ResultCell
from leaderboard.board_curves import ConditionScore
from leaderboard.grouping import Entry
from leaderboard.usable_records import LeftOut
from leaderboard.variations import beside, varied

CLEAN = "clean"  # as it was recorded


def with_conditions(
    store: RecordStore,
    column: Column,
    cells: Mapping[str, ResultCell],
    others: Iterable[ResultRecord],
    entries: Sequence[Entry],
) -> tuple[dict[str, ResultCell], list[LeftOut]]:
    """The cells of a column with the conditions that their heads were evaluated in, and files that could not be used.

    Args:
        store: where the predictions are.
        column: the metric and its task.
        cells: upstream -> cell, of test as it was recorded.
        others: runs without a row; those in a condition without the run of their head have no cell to stand in.
        entries: runs on test as it was recorded.
    """
    heard = [record for record in others if record.condition is not None]
    found = beside(heard, entries, ResultRecord.run_of_clean)
    points, left_out = varied(store, column, found, lambda record: record.condition)
    scores: dict[str, list[ConditionScore]] = defaultdict(list)
    for point in sorted(points, key=lambda point: in_order(point.key)):
        scores[point.upstream].append(ConditionScore(point.key, point.mean, point.interval, point.seeds))
    made = {}
    for name, cell in cells.items():
        clean = ConditionScore(CLEAN, cell.mean, cell.interval, tuple(cell.values))
        made[name] = replace(cell, conditions=(clean, *scores[name]) if name in scores else ())
    return made, left_out


def in_order(condition: str) -> tuple[str, float]:
    """By which conditions are sorted: kind by kind, from the mildest to the hardest; as recorded comes first."""
    if condition == CLEAN:
        return "", 0.0
    known = Condition.from_text(condition)
    return known.kind, known.severity
