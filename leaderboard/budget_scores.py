"""What heads come to on a part of train (`run --budget`), beside the runs on all of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import mean

from core.records import RecordStore, ResultRecord
from leaderboard.board import Column, ResultCell
from leaderboard.board_curves import BudgetScore
from leaderboard.grouping import Entry
from leaderboard.usable_records import LeftOut
from leaderboard.variations import beside, varied


def with_budgets(
    store: RecordStore,
    column: Column,
    cells: Mapping[str, ResultCell],
    others: Iterable[ResultRecord],
    entries: Sequence[Entry],
) -> tuple[dict[str, ResultCell], list[LeftOut]]:
    """The cells of a column with the budgets that were run, ascending to all of train, and files not used.

    Args:
        store: where the predictions are.
        column: the metric and its task.
        cells: upstream -> cell, of all of train.
        others: runs without a row; those on a part of train without a run on all beside it have no cell to stand in.
        entries: runs on all of train.
    """
    parts = [record for record in others if record.drawn is not None]
    points, left_out = varied(store, column, beside(parts, entries, ResultRecord.run_of_all), _budget)
    curves: dict[str, list[BudgetScore]] = defaultdict(list)
    wholes: dict[str, float] = {}
    for point in points:
        drawn = [record.drawn for record in point.records if record.drawn is not None]
        wholes[point.upstream] = mean(each["whole_seconds"] for each in drawn)
        seconds = mean(each["seconds"] for each in drawn)
        count = round(mean(record.counts["train"] for record in point.records))
        score = BudgetScore(point.key, seconds, count, point.mean, point.interval, point.seeds)
        curves[point.upstream].append(score)
    made = {}
    for name, cell in cells.items():
        scores = sorted(curves.get(name, ()), key=lambda each: each.seconds)
        end = BudgetScore("all", wholes.get(name, 0.0), column.train, cell.mean, cell.interval, tuple(cell.values))
        made[name] = replace(cell, budgets=(*scores, end) if scores else ())
    return made, left_out


def _budget(record: ResultRecord) -> str | None:
    return None if record.drawn is None else record.drawn["budget"]
