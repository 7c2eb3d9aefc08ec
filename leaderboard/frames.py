"""The leaderboard as pandas frames: cells of a board, runs, predictions, layers. Exports are written from these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from core.errors import MetricError
from core.metrics import find_metric
from core.records import RecordStore, ResultRecord
from leaderboard.board import Board, Column, Leaderboard, PublishedRow, ResultCell, Row
from leaderboard.checkpoint_series import places_in_series, series_of
from leaderboard.condition_scores import CLEAN, in_order
from leaderboard.grouping import Entry, named
from leaderboard.result_cells import layers_of, valid_of
from leaderboard.stored_predictions import Prediction, predictions_of

CELLS = (
    "upstream", "task", "corpus", "metric", "direction", "mean", "std", "seeds", "test_utterances", "learning_rate",
    "params", "low", "high", "rank", "letters", "letters_same_speakers", "speakers", "head", "recipe", "board", "score",
    "gflops_per_second", "source", "family",
)  # fmt: skip
KEYS = ("upstream", "task", "corpus", "recipe", "head", "seed", "fold", "run")  # what all other frames begin with
RUNS = (
    *KEYS, "metric", "direction", "value", "learning_rate", "valid", "seconds", "custom", "train", "valid_utterances",
    "test", "params", "upstream_digest", "corpus_digest", "recipe_digest", "protocol", "device", "commit", "finished",
    "family", "layer", "finetuning", "budget", "condition",
)  # fmt: skip
PREDICTIONS = (*KEYS, "id", "speaker", "prediction", "reference", "value")
LAYERS = (*KEYS, "layer", "weight", "corrected_weight", "value", "metric", "direction", "layer_run")
CONDITIONS = (*KEYS, "condition", "value", "metric", "direction", "clean_run")
SERIES = (*KEYS, "series", "step", "value", "metric", "direction")
BUDGETS = (*KEYS, "budget", "seconds", "train", "value", "metric", "direction")
COUNTS = ("seeds", "test_utterances", "params", "rank", "speakers")  # whole numbers, also where some are missing


def cells(board: Leaderboard) -> pd.DataFrame:
    """One row an upstream and task of each board; published values have the source `published` and a mean alone.

    Returns: columns `CELLS`. `low` and `high` are the 95 % interval, `letters` the ties,
        `letters_same_speakers` those of the test that speaks of these speakers alone, `learning_rate` those that the
        seeds chose, as text, `family` the upstream's, empty where its records don't name it; `mean_rank` and everything
        else of a row are in `leaderboard/board.py`.
    """
    rows = [row for each in (*board.boards, *board.variants) for row in _cells(each)]
    frame = pd.DataFrame(rows, columns=list(CELLS))
    return frame.astype({name: "Int64" for name in COUNTS})


def _cells(board: Board) -> Iterator[dict[str, Any]]:
    for row in board.rows:
        known = _of_row(row, board)
        for column in board.columns:
            if column.key in row.cells:
                cell = _of_cell(row.cells[column.key])
                yield {**known, **_of_column(column), **cell, "recipe": board.recipe, "source": "measured"}
    for published in board.published:
        known = _of_row(published, board)
        for column in board.columns:
            if column.key in published.values:
                value = published.values[column.key]
                yield {**known, **_of_column(column), "mean": value, "source": "published"}


def _of_row(row: Row | PublishedRow, board: Board) -> dict[str, Any]:
    known = {"upstream": row.name, "params": row.params, "score": row.score, "board": board.title}
    gflops, family = (row.gflops_per_second, row.family) if isinstance(row, Row) else (None, "")
    return {**known, "gflops_per_second": gflops, "family": family}


def _of_column(column: Column) -> dict[str, Any]:
    return {name: getattr(column, name) for name in ("task", "corpus", "metric", "direction", "head")}


def _of_cell(cell: ResultCell) -> dict[str, Any]:
    low, high = cell.interval or (None, None)
    found = {
        name: getattr(cell, name) for name in ("mean", "std", "rank", "letters", "letters_same_speakers", "speakers")
    }
    rates = " ".join(f"{rate:g}" for rate in cell.learning_rates)
    counts = {"seeds": len(cell.values), "test_utterances": cell.utterances}
    return {**found, **counts, "learning_rate": rates, "low": low, "high": high}


def runs(records: Sequence[ResultRecord]) -> pd.DataFrame:
    """One row a run.

    Returns: columns `RUNS`, then a column for each further metric of its tasks, such as `value_cer`, and one for each
        version, such as `version_torch`. `seconds` is load, train and test together, `valid` the value by which
        rate and layer were chosen, `layer` the only one of a run on one alone, `finetuning` how the upstream was
        trained with its head, missing where it was frozen, `budget` that of a run on a part of train,
        `condition` what test was heard in by another run's head.
    """
    rows = [_of_run(entry) for entry in named(records)]
    return pd.DataFrame(rows, columns=_columns(RUNS, rows)).astype({"layer": "Int64"})


def _of_run(entry: Entry) -> dict[str, Any]:
    record = entry.record
    made = record.circumstances
    return {
        **_keys(entry),
        "metric": record.metric["name"],
        "direction": record.metric["direction"],
        "value": record.value,
        "learning_rate": record.learning_rate,
        "valid": valid_of(record),
        "seconds": sum(made.get("wall_seconds", {}).values()),
        "custom": record.custom,
        "train": record.counts["train"],
        "valid_utterances": record.counts["valid"],
        "test": record.counts["test"],
        "params": record.upstream["params"],
        "upstream_digest": record.upstream["digest"],
        "corpus_digest": record.corpus["digest"],
        "recipe_digest": record.recipe["digest"],
        "protocol": record.protocol,
        "device": made.get("device"),
        "commit": made.get("git", {}).get("commit"),
        "finished": made.get("finished"),
        "family": record.upstream.get("family") or "",
        "layer": record.layer,
        "finetuning": record.finetuning,
        "budget": None if record.drawn is None else record.drawn["budget"],
        "condition": record.condition,
        **{f"value_{name}": value for name, value in record.values.items() if name != record.metric["name"]},
        **{f"version_{name}": version for name, version in made.get("versions", {}).items()},
    }


def predictions(store: RecordStore, records: Sequence[ResultRecord]) -> pd.DataFrame:
    """One row a test utterance and run; none of a run whose folder of files is not there.

    Returns: columns `PREDICTIONS` and `statistics`, metric -> what the row adds to it. `value` is the metric of this
        row alone, such as its word error rate; missing where a single row has none. An intent of several slots is a
        dict.
    Raises: RecordError: predictions are not those that a record was made from.
    """
    rows = [
        {**_keys(entry), **asdict(row), "value": _value_of(entry.record.metric["name"], row)}
        for entry in named(records)
        for row in predictions_of(store, entry.record) or ()
    ]
    return pd.DataFrame(rows, columns=_columns(PREDICTIONS, rows))


def _value_of(name: str, row: Prediction) -> float | None:
    metric = find_metric(name)
    try:
        return None if metric is None else metric.of([row.statistics[name]])
    except MetricError:
        return None


def layers(records: Sequence[ResultRecord]) -> pd.DataFrame:
    """One row an upstream, task, seed and layer.

    Returns: columns `LAYERS`. `weight` is the learned softmax weight; `corrected_weight` is it times the mean norm of
        the layer's features, scaled to sum to 1: what the layer adds to the sum. Missing where norms are unknown, and
        with the weights where no sum was learned, as is then `run`. `value` is the main metric of a head on this layer
        alone, whose run is `layer_run`; both are missing where `run --layers` was not asked for it.
    """
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    entries = named(records)
    for entry in (entry for entry in entries if entry.record.has_row):
        for layer, (weight, corrected) in enumerate(layers_of(entry.record)):
            found = {**_keys(entry), "layer": layer, "weight": weight, "corrected_weight": corrected}
            rows[entry.record.run, layer] = found
    for entry in entries:
        record = entry.record
        if record.layer is not None:
            row = rows.setdefault(
                (record.run_of_sum(), record.layer), {**_keys(entry), "run": None, "layer": record.layer}
            )
            facts = {name: record.metric[name] for name in ("name", "direction")}
            row |= {"value": record.value, "metric": facts["name"], "direction": facts["direction"]}
            row["layer_run"] = record.run
    ordered = sorted(rows.items(), key=lambda item: item[0][1])  # the runs as they come, each in the order of layers
    places = {run: place for place, (run, _) in enumerate(dict.fromkeys((run, None) for run, _ in rows))}
    ordered.sort(key=lambda item: places[item[0][0]])
    numbers = {name: float for name in ("weight", "corrected_weight", "value")}
    return pd.DataFrame([row for _, row in ordered], columns=list(LAYERS)).astype(numbers)


def budgets(records: Sequence[ResultRecord]) -> pd.DataFrame:
    """One row an upstream, task, seed and label budget, ascending; `all` where a smaller budget was run beside it.

    Returns: columns `BUDGETS`. `seconds` of the recordings of train that were drawn, `train` how many these are.
    """
    entries = named(records)
    parts = [(entry, drawn) for entry in entries if (drawn := entry.record.drawn) is not None]
    wholes = {entry.record.run_of_all(): drawn["whole_seconds"] for entry, drawn in parts}
    found = [(entry, drawn["budget"], drawn["seconds"]) for entry, drawn in parts]
    found += [(entry, "all", wholes[entry.record.run]) for entry in entries if entry.record.run in wholes]
    rows = [
        {
            **_keys(entry),
            "budget": budget,
            "seconds": seconds,
            "train": entry.record.counts["train"],
            "value": entry.record.value,
            **{name: entry.record.metric[of] for name, of in (("metric", "name"), ("direction", "direction"))},
        }
        for entry, budget, seconds in found
    ]
    frame = pd.DataFrame(rows, columns=list(BUDGETS))
    return frame.sort_values(["upstream", "task", "seed", "seconds"], kind="stable", ignore_index=True)


def series(records: Sequence[ResultRecord]) -> pd.DataFrame:
    """One row a series over checkpoints, task, seed and checkpoint, by the steps of the training.

    Returns: columns `SERIES`. `series` is the pattern that its checkpoints were asked for by, `step` as their names say
        it; checkpoints without one, and runs on part of what a row is of, are left out.
    """
    places = places_in_series(records)
    found = [(entry, places.get(entry.record.upstream["digest"])) for entry in named(records) if entry.record.has_row]
    rows = [
        {
            **_keys(entry),
            "series": series_of(entry.record, place),
            "step": place.step,
            "value": entry.record.value,
            **{name: entry.record.metric[of] for name, of in (("metric", "name"), ("direction", "direction"))},
        }
        for entry, place in found
        if place is not None and place.step is not None
    ]
    frame = pd.DataFrame(rows, columns=list(SERIES)).astype({"step": "Int64"})
    return frame.sort_values(["series", "task", "seed", "step"], kind="stable", ignore_index=True)


def conditions(records: Sequence[ResultRecord]) -> pd.DataFrame:
    """One row an upstream, task, seed and condition, the mildest first; `clean` where another was run beside it.

    Returns: columns `CONDITIONS`. `clean_run` has trained the head, whose value as recorded is that of `clean`.
    """
    entries = named(records)
    heard = [entry for entry in entries if entry.record.condition is not None]
    cleans = {entry.record.run_of_clean() for entry in heard}
    found = [(entry, CLEAN) for entry in entries if entry.record.run in cleans]
    found += [(entry, entry.record.condition or CLEAN) for entry in heard]
    rows = [
        {
            **_keys(entry),
            "condition": condition,
            "value": entry.record.value,
            "metric": entry.record.metric["name"],
            "direction": entry.record.metric["direction"],
            "clean_run": entry.record.run_of_clean(),
        }
        for entry, condition in found
    ]
    rows.sort(key=lambda row: (row["upstream"], row["task"], row["seed"], in_order(row["condition"])))
    return pd.DataFrame(rows, columns=list(CONDITIONS))


def _keys(entry: Entry) -> dict[str, Any]:
    names = {name: getattr(entry, name) for name in ("upstream", "task", "corpus", "recipe")}
    return {
        **names,
        "head": entry.record.task["head"],
        "seed": entry.record.seed,
        "fold": entry.record.fold,
        "run": entry.record.run,
    }


def _columns(first: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Those that are always there, then all that any row has, in the order of their coming."""
    return list(dict.fromkeys([*first, *(name for row in rows for name in row)]))
