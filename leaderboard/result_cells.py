"""One column of a board: the cells of a task, what the predictions say of them, and who can be told from whom."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations
from statistics import mean, stdev
from typing import Any

import numpy as np

from core.errors import RecordError
from core.metrics import Metric, find_metric
from core.records import RecordStore, ResultRecord
from leaderboard.board import Column, Pair, ResultCell, SeedRun, TriedRate
from leaderboard.board_curves import Interval
from leaderboard.detection import detection_curve
from leaderboard.grouping import Entry
from leaderboard.mistakes import confusions, worst, worst_turns, worst_waveforms
from leaderboard.statistics import (
    Draws,
    Trials,
    difference,
    holm,
    interval,
    letters,
    of_the_same_speakers,
    resample,
)
from leaderboard.stored_predictions import FILE_NAME, Prediction, predictions_of
from leaderboard.usable_records import LeftOut

SIGNIFICANT = 0.05
Runs = Mapping[int, Sequence[Prediction]]  # seed -> predictions


@dataclass(frozen=True)
class Judged:
    """What runs predicted on the utterances of one task.

    Attributes:
        entries: the runs that count, with predictions or without; of a seed all folds or none.
        runs: upstream -> seed -> predictions, where they are there; of all folds, one behind the other.
        folds: that the utterances of each were tested in; empty where there are none.
        left_out: files of predictions that are not those of their record, which is left out with them, and runs whose
            other folds are missing.
    """

    entries: list[Entry]
    runs: Mapping[str, Runs]
    folds: Sequence[str]
    left_out: list[LeftOut]


def judged(store: RecordStore, entries: Sequence[Entry]) -> Judged:
    """The predictions of all runs on the same data."""
    read, left_out = _read(store, entries)
    orders: dict[str | None, Counter[tuple[str, ...]]] = defaultdict(Counter)
    for entry, rows in read:
        if rows is not None:
            orders[entry.record.fold][tuple(row.id for row in rows)] += 1
    usual = {fold: counts.most_common(1)[0][0] for fold, counts in orders.items()}
    kept: list[Entry] = []
    found: dict[tuple[str, int, str | None], Sequence[Prediction]] = {}
    for entry, rows in read:
        record = entry.record
        if rows is not None and tuple(row.id for row in rows) != usual[record.fold]:
            other = f"{entry.upstream}, seed {record.seed}: predicts other utterances than the other runs on the "
            left_out.append(_without_predictions(store, entry, f"{other}same data; look at: frostbench verify"))
            continue
        kept.append(entry)
        if rows is not None:
            found[entry.upstream, record.seed, record.fold] = rows
    kept, incomplete = _with_all_folds(store, kept)
    folds = sorted({entry.record.fold for entry in kept}, key=str)
    runs: dict[str, dict[int, Sequence[Prediction]]] = defaultdict(dict)
    for upstream, seed in dict.fromkeys((entry.upstream, entry.record.seed) for entry in kept):
        parts = [found.get((upstream, seed, fold)) for fold in folds]
        present = [part for part in parts if part is not None]
        if len(present) == len(folds):
            runs[upstream][seed] = present[0] if len(folds) == 1 else list(chain.from_iterable(present))
    marks = [fold for fold in folds if fold is not None for _ in usual.get(fold, ())]
    return Judged(kept, runs, marks, [*left_out, *incomplete])


def _read(
    store: RecordStore, entries: Sequence[Entry]
) -> tuple[list[tuple[Entry, Sequence[Prediction] | None]], list[LeftOut]]:
    read: list[tuple[Entry, Sequence[Prediction] | None]] = []
    left_out: list[LeftOut] = []
    for entry in entries:
        try:
            read.append((entry, predictions_of(store, entry.record)))
        except RecordError as error:
            left_out.append(_without_predictions(store, entry, str(error)))
        except OSError as error:
            left_out.append(_without_predictions(store, entry, f"can't be read ({error.strerror})"))
    return read, left_out


def _with_all_folds(store: RecordStore, entries: Sequence[Entry]) -> tuple[list[Entry], list[LeftOut]]:
    """The runs of seeds that have been tested on every fold, and what the others lack."""
    needed = {fold for entry in entries for fold in entry.record.corpus.get("folds", (entry.record.fold,))}
    tested: dict[tuple[str, int], dict[str | None, Entry]] = defaultdict(dict)
    for entry in entries:
        tested[entry.upstream, entry.record.seed][entry.record.fold] = entry
    left_out = []
    for (upstream, seed), found in tested.items():
        missing = ", ".join(sorted(map(str, needed - set(found))))
        if missing:
            said = f"{upstream}, {next(iter(found.values())).task}, seed {seed}: no usable run is tested on {missing}; "
            problem = f"{said}run the same command again, or delete what is left out first"
            left_out += [LeftOut(store.path(entry.record.run), problem) for entry in found.values()]
    return [entry for entry in entries if set(tested[entry.upstream, entry.record.seed]) >= needed], left_out


def _without_predictions(store: RecordStore, entry: Entry, problem: str) -> LeftOut:
    path = store.run_folder(entry.record.run) / FILE_NAME
    return LeftOut(path, problem.removeprefix(f"{path}: "))


def trials_of(metric: Metric, runs: Mapping[str, Runs], folds: Sequence[str] = ()) -> Trials | None:
    """The statistics of all upstreams on the utterances of one task.

    Args:
        metric: that judges them.
        runs: upstream -> seed -> predictions; upstreams without are left out.
        folds: that the utterances were tested in; empty where there are none.

    Returns: None where no upstream has predictions, or there is one utterance only (of a fold).
    """
    if not runs:
        return None
    first = next(iter(next(iter(runs.values())).values()))
    if min(Counter(folds).values(), default=len(first)) < 2:
        return None
    statistics = [
        np.array([[row.statistics[metric.name] for row in rows] for rows in seeds.values()], dtype=np.float64)
        for seeds in runs.values()
    ]
    return Trials(metric, statistics, [row.speaker for row in first], folds)


def columns_of(entries: Sequence[Entry]) -> list[Column]:
    """The columns of a task, one a metric; any of the task's entries says what they are."""
    counts = {entry.record.fold: entry.record.counts for entry in entries}
    joined = {split: round(mean(each[split] for each in counts.values())) for split in ("train", "valid")}
    joined["test"] = sum(each["test"] for each in counts.values())
    metrics = entries[0].record.metrics
    return [_column_of(entries[0], metric, joined, primary=not place) for place, metric in enumerate(metrics)]


def _column_of(entry: Entry, metric: Mapping[str, Any], counts: Mapping[str, int], *, primary: bool) -> Column:
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
        corpus_digest=record.corpus.get("undivided", record.corpus["digest"]),
        **counts,
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
    for entry in sorted(found.entries, key=lambda entry: (entry.record.seed, str(entry.record.fold))):
        records[entry.upstream].append(entry.record)
    means = {upstream: mean(by_seed(column, each).values()) for upstream, each in records.items()}
    sign = 1 if column.direction == "higher" else -1
    order = sorted(means, key=lambda upstream: (-sign * means[upstream], upstream))
    metric = find_metric(column.metric)
    trials = trials_of(metric, found.runs, found.folds) if metric else None
    draws, runs = (resample(trials), found.runs) if trials else (None, {})
    tested = list(runs)
    alone = of_the_same_speakers(trials) if trials else None
    pairs = [] if draws is None else _pairs(column, draws, resample(alone) if alone else None, tested)
    different = frozenset(frozenset((pair.first, pair.second)) for pair in pairs if pair.different)
    here = frozenset(frozenset((pair.first, pair.second)) for pair in pairs if pair.different_same_speakers)
    ranked = [upstream for upstream in order if upstream in runs]
    shown, shown_here = letters(ranked, different), letters(ranked, here) if alone else {}
    cells = {}
    for upstream in order:
        rivals = tested if upstream in runs else list(means)
        better = [each for each in rivals if sign * (means[each] - means[upstream]) > 0]
        beaten_by = [each for each in better if upstream not in runs or frozenset((each, upstream)) in different]
        best = means[upstream] == means[order[0]]
        comparable = upstream in runs and order[0] in runs
        standing = _Standing(
            interval=interval(draws, tested.index(upstream)) if draws and upstream in runs else None,
            speakers=draws.speakers if draws and upstream in runs else None,
            rank=1 + len(beaten_by),
            letters=shown.get(upstream, ""),
            letters_same_speakers=shown_here.get(upstream, "").upper(),
            best=best,
            tied=comparable and not best and frozenset((order[0], upstream)) not in different,
        )
        cells[upstream] = _cell(records[upstream], runs.get(upstream, {}), column, standing)
        if metric and column.primary and upstream in runs:
            kept = worst_waveforms(metric, records[upstream], store, runs[upstream])
            cells[upstream] = replace(cells[upstream], worst_waveforms=kept)
        if metric and metric.trials and not found.folds:
            cells[upstream] = replace(cells[upstream], detection=detection_curve(metric, runs.get(upstream, {})))
    return Results(cells, pairs, found.left_out)


def by_seed(column: Column, records: Sequence[ResultRecord]) -> dict[int, float]:
    """Seed -> its value: the mean over its folds, where there are some."""
    values: dict[int, list[float]] = defaultdict(list)
    for record in records:
        values[record.seed].append(record.values[column.metric])
    return {seed: mean(each) for seed, each in values.items()}


def _pairs(column: Column, draws: Draws, same_speakers: Draws | None, upstreams: Sequence[str]) -> list[Pair]:
    """All pairs of upstreams, with the difference in the unit of the column."""
    places = list(combinations(range(len(upstreams)), 2))
    found = [difference(draws, first, second) for first, second in places]
    corrected = holm([each.p for each in found])
    here: list[float | None] = [None] * len(places)
    if same_speakers is not None:
        here = [*holm([difference(same_speakers, first, second).p for first, second in places])]
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
            p_same_speakers=p_here,
            different_same_speakers=None if p_here is None else p_here < SIGNIFICANT,
        )
        for (first, second), each, p_holm, p_here in zip(places, found, corrected, here, strict=True)
    ]


@dataclass(frozen=True)
class _Standing:
    """Where an upstream stands in its column: the fields of `ResultCell` that take all upstreams to know."""

    interval: Interval | None
    speakers: int | None
    rank: int
    letters: str
    letters_same_speakers: str
    best: bool
    tied: bool


def _cell(records: Sequence[ResultRecord], runs: Runs, column: Column, standing: _Standing) -> ResultCell:
    values = list(by_seed(column, records).values())
    seeds = tuple(_seed_run(record, record.values[column.metric]) for record in records)
    metric = find_metric(column.metric)
    align = metric.align if metric and column.metric == _aligning(records[0]) else None
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
        worst_turns=worst_turns(metric, runs) if metric and align == "turns" else (),
        interval=standing.interval,
        speakers=standing.speakers,
        rank=standing.rank,
        letters=standing.letters,
        letters_same_speakers=standing.letters_same_speakers,
        best=standing.best,
        tied=standing.tied,
    )


def _aligning(record: ResultRecord) -> str | None:
    """The first metric of a task that lays predictions beside references: the others judge the same ones."""
    metrics = (find_metric(name) for name in record.task["metrics"])
    return next((metric.name for metric in metrics if metric and metric.align), None)


def _of_chosen_layer(record: ResultRecord) -> list[Mapping[str, Any]]:
    """What was tried: with the chosen layer alone, where each was tried."""
    chosen = max(range(len(record.layer_weights)), key=record.layer_weights.__getitem__)
    return [each for each in record.learning_rates if each.get("layer", chosen) == chosen]


def valid_of(record: ResultRecord) -> float | None:
    """The value on valid of the training that was chosen; None where the record does not say it."""
    found = [each["valid"] for each in _of_chosen_layer(record) if each["learning_rate"] == record.learning_rate]
    if record.finetuning is not None:  # all have the head's rate, and the best of them was chosen
        known = [value for value in found if value is not None]
        higher = next(facts for facts in record.metrics if facts["name"] == record.task["select"])
        return (max if higher["direction"] == "higher" else min)(known, default=None)
    return found[0] if found else None


def _searched(tried: Mapping[str, Any]) -> float:
    """The learning rate that was searched for: a fine-tuned upstream's, else the head's."""
    return float(tried.get("upstream_rate", tried["learning_rate"]))


def _seed_run(record: ResultRecord, value: float) -> SeedRun:
    return SeedRun(
        run=record.run,
        seed=record.seed,
        fold=None if record.fold is None else str(record.fold),
        value=value,
        learning_rate=record.learning_rate,
        learning_rates=tuple(
            TriedRate(_searched(each), each["valid"], each["step"], each.get("diverged"))
            for each in sorted(_of_chosen_layer(record), key=_searched)
            if each["learning_rate"] > 0  # there is none of heads that learn nothing
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
