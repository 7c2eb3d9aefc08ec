"""Runs that differ from those of a board's rows in one thing alone: they are points of curves in the rows' cells."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from statistics import mean
from typing import Generic, NamedTuple, TypeVar

from core.metrics import find_metric
from core.records import RecordStore, ResultRecord
from leaderboard.board import Column
from leaderboard.board_curves import Interval
from leaderboard.grouping import Entry
from leaderboard.result_cells import by_seed, judged, trials_of
from leaderboard.statistics import interval, resample
from leaderboard.usable_records import LeftOut

Key = TypeVar("Key", bound=Hashable)


class Varied(NamedTuple, Generic[Key]):
    """What an upstream comes to at one point of a curve.

    Attributes:
        upstream: its name on the board.
        key: where the point is: a layer, a budget, a condition.
        mean: over the seeds.
        interval: 95 %, from the draws of speakers that the board's are from; None where predictions are not there.
        records: of the runs, one a seed and fold.
        seeds: ascending.
    """

    upstream: str
    key: Key
    mean: float
    interval: Interval | None
    records: tuple[ResultRecord, ...]
    seeds: tuple[int, ...]


def beside(
    records: Iterable[ResultRecord], entries: Sequence[Entry], run_of: Callable[[ResultRecord], str]
) -> list[Entry]:
    """Runs that differ from one of these entries in nothing but one thing, which have its names then.

    Args:
        records: runs without an entry beside them have no row to stand in.
        entries: of a board.
        run_of: record -> the run that it is compared with.
    """
    known = {entry.record.run: entry for entry in entries}
    found = ((known.get(run_of(record)), record) for record in records)
    return [replace(entry, record=record) for entry, record in found if entry is not None]


def varied(
    store: RecordStore, column: Column, entries: Sequence[Entry], key_of: Callable[[ResultRecord], Key | None]
) -> tuple[list[Varied[Key]], list[LeftOut]]:
    """The points of all upstreams, in the order of their coming, and the files that could not be used.

    Args:
        store: where the predictions are.
        column: the metric and its task.
        entries: runs of this task.
        key_of: where a run's point is; None has none.
    """
    by_key: dict[Key, list[Entry]] = defaultdict(list)
    for entry in entries:
        key = key_of(entry.record)
        if key is not None:
            by_key[key].append(entry)
    metric = find_metric(column.metric)
    points: list[Varied[Key]] = []
    left_out: list[LeftOut] = []
    for key, runs in by_key.items():
        found = judged(store, runs)
        left_out += found.left_out
        trials = trials_of(metric, found.runs, found.folds) if metric else None
        draws = resample(trials) if trials else None
        tested = list(found.runs)
        for upstream in dict.fromkeys(entry.upstream for entry in found.entries):
            records = tuple(entry.record for entry in found.entries if entry.upstream == upstream)
            values = by_seed(column, records)
            limits = interval(draws, tested.index(upstream)) if draws and upstream in tested else None
            point = Varied(upstream, key, mean(values.values()), limits, records, tuple(sorted(values)))
            points.append(point)
    return points, left_out
