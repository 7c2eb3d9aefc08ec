"""What heads on one layer alone come to (`run --layers`), beside the runs that learned a sum of all layers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean

from core.metrics import find_metric
from core.records import RecordStore, ResultRecord
from leaderboard.board import Column, LayerScore
from leaderboard.grouping import Entry
from leaderboard.result_cells import by_seed, judged, trials_of
from leaderboard.statistics import interval, resample
from leaderboard.usable_records import LeftOut


@dataclass(frozen=True)
class LayerScores:
    """The layers of each upstream that were tried alone, ascending, and the files that could not be used."""

    by_upstream: Mapping[str, tuple[LayerScore, ...]]
    left_out: list[LeftOut]


def on_single_layers(records: Iterable[ResultRecord], entries: Sequence[Entry]) -> list[Entry]:
    """Runs that differ from one of these entries in nothing but the layer, which have its names then.

    Args:
        records: of runs on one layer alone; one without a run on the sum beside it has no row to stand in.
        entries: runs on a sum.
    """
    of_sum = {entry.record.run: entry for entry in entries}
    found = ((of_sum.get(record.run_of_sum()), record) for record in records)
    return [replace(entry, record=record) for entry, record in found if entry is not None]


def layer_scores(store: RecordStore, column: Column, entries: Sequence[Entry]) -> LayerScores:
    """The values of single layers, with intervals from the draws of speakers that those of the sums are from.

    Args:
        store: where the predictions are.
        column: the metric and its task.
        entries: runs of this task on one layer alone.
    """
    by_layer: dict[int, list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.record.layer is not None:
            by_layer[entry.record.layer].append(entry)
    metric = find_metric(column.metric)
    scores: dict[str, list[LayerScore]] = defaultdict(list)
    left_out: list[LeftOut] = []
    for layer, runs in sorted(by_layer.items()):
        found = judged(store, runs)
        left_out += found.left_out
        trials = trials_of(metric, found.runs, found.folds) if metric else None
        draws = resample(trials) if trials else None
        tested = list(found.runs)
        for upstream in dict.fromkeys(entry.upstream for entry in found.entries):
            values = by_seed(column, [entry.record for entry in found.entries if entry.upstream == upstream])
            limits = interval(draws, tested.index(upstream)) if draws and upstream in tested else None
            scores[upstream].append(LayerScore(layer, mean(values.values()), limits, tuple(sorted(values))))
    return LayerScores({upstream: tuple(found) for upstream, found in scores.items()}, left_out)
