"""One column of a board: the cells of a task, what the predictions say of them, and who can be told from whom."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import mean, stdev
from typing import Any

import numpy as np

from core.errors import RecordError
from core.metrics import Metric, find_metric
from core.records import RecordStore, ResultRecord
from leaderboard.board import Column, Interval, Pair, ResultCell, SeedRun, TriedRate
from leaderboard.grouping import Entry
from leaderboard.mistakes import confusions, worst
from leaderboard.statistics import Draws, Trials, difference, holm, interval, letters, resample
from leaderboard.stored_predictions import FILE_NAME, Prediction, predictions_of
from leaderboard.usable_records import LeftOut

SIGNIFICANT = 0.05
Runs = Mapping[int, Sequence[Prediction]]  # seed -> predictions


@dataclass(frozen=True)
class Judged:
    """What runs predicted on the utterances of one task.

    Attributes:
        entries: the runs that count, with predictions or without.
        runs: upstream -> seed -> predictions, where they are there.
        left_out: files of predictions that are not those of their record, which is left out with them.
    """

    entries: list[Entry]
    runs: Mapping[str, Runs]
    left_out: list[LeftOut]


def judged(store: RecordStore, entries: Sequence[Entry]) -> Judged:
    """The predictions of all runs on the same data."""
    read: list[tuple[Entry, Sequence[Prediction] | None]] = []
    left_out: list[LeftOut] = []
    for entry in entries:
        try:
            read.append((entry, predictions_of(store, entry.record)))
        except RecordError as error:
            left_out.append(_without_predictions(store, entry, str(error)))
        except OSError as error:
            left_out.append(_without_predictions(store, entry, f"can't be read ({error.strerror})"))
    orders = Counter(tuple(row.id for row in rows) for _, rows in read if rows is not None)
    usual = orders.most_common(1)[0][0] if orders else ()
    kept: list[Entry] = []
    runs: dict[str, dict[int, Sequence[Prediction]]] = defaultdict(dict)
    for entry, rows in read:
        if rows is not None and tuple(row.id for row in rows) != usual:
            other = f"{entry.upstream}, seed {entry.record.seed}: predicts other utterances than the other runs on the "
            left_out.append(_without_predictions(store, entry, f"{other}same data; look at: frostbench verify"))
            continue
        kept.append(entry)
        if rows is not None:
            runs[entry.upstream][entry.record.seed] = rows
    return Judged(kept, runs, left_out)


def _without_predictions(store: RecordStore, entry: Entry, problem: str) -> LeftOut:
    path = store.run_folder(entry.record.run) / FILE_NAME
    return LeftOut(path, problem.removeprefix(f"{path}: "))


def trials_of(metric: Metric, runs: Mapping[str, Runs]) -> Trials | None:
    """The statistics of all upstreams on the utterances of one task.

    Returns: None where no upstream has predictions, or there is one utterance only; upstreams without are left out.
    """
    if not runs:
        return None
    first = next(iter(next(iter(runs.values())).values()))
    if len(first) < 2:
        return None
    statistics = [
        np.array([[row.statistics[metric.name] for row in rows] for rows in seeds.values()], dtype=np.float64)
        for seeds in runs.values()
    ]
    return Trials(metric, statistics, [row.speaker for row in first])


def columns_of(entry: Entry) -> list[Column]:
    """The columns of a task, one a metric; any of the task's entries says what they are."""
    return [_column_of(entry, metric, primary=not place) for place, metric in enumerate(entry.record.metrics)]


def _column_of(entry: Entry, metric: Mapping[str, Any], *, primary: bool) -> Column:
    record = entry.record
    return Column(
        task=entry.task,
        title=record.task["title"],
        metric=metric["name"],
        primary=primary,
        selecting=metric["name"] == record.task["select"],
        metric_title=metric["title"],
        unit=metric["unit"],
        direction=metric["direction"],
        bounds=(metric["bounds"][0], metric["bounds"][1]),
        known=find_metric(metric["name"]) is not None,
        head=record.task["head"],
        corpus=entry.corpus,
        corpus_digest=record.corpus["digest"],
        train=record.counts["train"],
        valid=record.counts["valid"],
        test=record.counts["test"],
    )


@dataclass(frozen=True)
class Results:
    """The cells of a column by upstream, its pairwise tests, and the files that could not be used."""

    cells: dict[str, ResultCell]
    pairs: list[Pair]
    left_out: list[LeftOut]


def results_of(store: RecordStore, column: Column, entries: Sequence[Entry]) -> Results:
    """The cells of a column and its pairwise tests."""
    found = judged(store, entries)
    records: dict[str, list[ResultRecord]] = defaultdict(list)
    for entry in sorted(found.entries, key=lambda entry: entry.record.seed):
        records[entry.upstream].append(entry.record)
    means = {upstream: mean(record.values[column.metric] for record in each) for upstream, each in records.items()}
    sign = 1 if column.direction == "higher" else -1
    order = sorted(means, key=lambda upstream: (-sign * means[upstream], upstream))
    metric = find_metric(column.metric)
    trials = trials_of(metric, found.runs) if metric else None
    draws, runs = (resample(trials), found.runs) if trials else (None, {})
    tested = list(runs)
    pairs = [] if draws is None else _pairs(column, draws, tested)
    different = frozenset(frozenset((pair.first, pair.second)) for pair in pairs if pair.different)
    shown = letters([upstream for upstream in order if upstream in runs], different)
    cells = {}
    for upstream in order:
        rivals = tested if upstream in runs else list(means)
        better = [each for each in rivals if sign * (means[each] - means[upstream]) > 0]
        beaten_by = [each for each in better if upstream not in runs or frozenset((each, upstream)) in different]
        best = means[upstream] == means[order[0]]
        comparable = upstream in runs and order[0] in runs
        standing = _Standing(
            interval=interval(draws, tested.index(upstream)) if draws and upstream in runs else None,
            speakers=draws.units if draws and draws.by_speaker and upstream in runs else None,
            rank=1 + len(beaten_by),
            letters=shown.get(upstream, ""),
            best=best,
            tied=comparable and not best and frozenset((order[0], upstream)) not in different,
        )
        cells[upstream] = _cell(records[upstream], runs.get(upstream, {}), column, standing)
    return Results(cells, pairs, found.left_out)


def _pairs(column: Column, draws: Draws, upstreams: Sequence[str]) -> list[Pair]:
    """All pairs of upstreams, with the difference in the unit of the column."""
    places = list(combinations(range(len(upstreams)), 2))
    found = [difference(draws, first, second) for first, second in places]
    corrected = holm([each.p for each in found])
    return [
        Pair(
            task=column.task,
            metric=column.metric,
            first=upstreams[first],
            second=upstreams[second],
            difference=each.value,
            interval=each.interval,
            p=each.p,
            p_holm=p_holm,
            different=p_holm < SIGNIFICANT,
        )
        for (first, second), each, p_holm in zip(places, found, corrected, strict=True)
    ]


@dataclass(frozen=True)
class _Standing:
    """Where an upstream stands in its column: the fields of `ResultCell` that take all upstreams to know."""

    interval: Interval | None
    speakers: int | None
    rank: int
    letters: str
    best: bool
    tied: bool


def _cell(records: Sequence[ResultRecord], runs: Runs, column: Column, standing: _Standing) -> ResultCell:
    values = [record.values[column.metric] for record in records]
    seeds = tuple(_seed_run(record, value) for record, value in zip(records, values, strict=True))
    metric = find_metric(column.metric)
    align = metric.align if metric and column.primary else None  # the other metrics judge the same predictions
    return ResultCell(
        mean=mean(values),
        std=stdev(values) if len(values) > 1 else None,
        utterances=column.test,
        seeds=seeds,
        layer_weights=_mean_over_seeds([run.layer_weights for run in seeds]),
        corrected_weights=_mean_over_seeds([_corrected(run) for run in seeds]),
        wall_seconds=sum(run.wall_seconds for run in seeds),
        confusion=confusions(row for rows in runs.values() for row in rows) if align == "classes" else (),
        worst=worst(metric, runs) if metric and align in ("words", "characters") else (),
        interval=standing.interval,
        speakers=standing.speakers,
        rank=standing.rank,
        letters=standing.letters,
        best=standing.best,
        tied=standing.tied,
    )


def _rates_of_chosen_layer(record: ResultRecord) -> list[Mapping[str, Any]]:
    """What was tried of learning rates: with the chosen layer alone, where each was tried; none for untrained heads."""
    chosen = max(range(len(record.layer_weights)), key=record.layer_weights.__getitem__)
    return [each for each in record.learning_rates if each["learning_rate"] > 0 and each.get("layer", chosen) == chosen]


def _seed_run(record: ResultRecord, value: float) -> SeedRun:
    return SeedRun(
        run=record.run,
        seed=record.seed,
        value=value,
        learning_rate=record.learning_rate,
        learning_rates=tuple(
            TriedRate(each["learning_rate"], each["valid"], each["step"], each.get("diverged"))
            for each in sorted(_rates_of_chosen_layer(record), key=lambda each: float(each["learning_rate"]))
        ),
        layer_weights=tuple(record.layer_weights),
        layer_norms=tuple(record.circumstances.get("layer_norms", ())),
        wall_seconds=float(sum(record.circumstances.get("wall_seconds", {}).values())),
        artifacts=record.artifacts,
        circumstances=record.circumstances,
    )


def _corrected(run: SeedRun) -> tuple[float, ...]:
    if len(run.layer_norms) != len(run.layer_weights):
        return ()
    parts = [weight * norm for weight, norm in zip(run.layer_weights, run.layer_norms, strict=True)]
    return tuple(part / sum(parts) for part in parts) if sum(parts) > 0 else ()


def layers_of(record: ResultRecord) -> list[tuple[float, float | None]]:
    """Weight and norm-corrected weight of each layer; the latter is None where the norms are unknown."""
    run = _seed_run(record, record.value)
    return list(zip(run.layer_weights, _corrected(run) or [None] * len(run.layer_weights), strict=True))


def _mean_over_seeds(rows: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(map(mean, zip(*rows, strict=True))) if len({len(row) for row in rows}) == 1 else ()
