"""What an experiment tracker is given of an evaluation: a run an upstream, and one a series over checkpoints."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

from core.digest import canonical_json, file_digest, parsed_json
from core.records import RecordStore, ResultRecord
from leaderboard.board import Board, Column, Leaderboard, ResultCell
from leaderboard.board_curves import Interval
from leaderboard.checkpoint_series import curves_of_series
from leaderboard.grouping import named

Plain = str | int | float | bool
HISTORY = "history.json"
FACTS = ("name", "digest", "params", "num_layers", "hidden_size", "downsample_rate", "precision", "family", "licence")


@dataclass
class TrackedRun:
    """A run of a tracker.

    Attributes:
        name: of the row, or of the series.
        config: facts of the upstream, and for each task those of recipe and corpus.
        curves: step -> name -> value; of an upstream looks at valid over the updates of heads, of a series values on
            test over the steps of the training.
        values: name -> value on test, in the metric's unit, ends of its 95 % interval, and learning rates.
    """

    name: str
    config: dict[str, Plain] = field(default_factory=dict)
    curves: dict[int, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    values: dict[str, float] = field(default_factory=dict)


def tracked_runs(store: RecordStore, records: Sequence[ResultRecord], board: Leaderboard) -> list[TrackedRun]:
    """The runs of a tracker, upstreams in the order of their records, then series.

    Args:
        store: where the histories of training are.
        records: of the evaluation.
        board: made from them.
    """
    runs: dict[str, TrackedRun] = {}
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for entry in named(records):
        record, path = entry.record, path_of(entry.record)
        run = runs.setdefault(entry.upstream, TrackedRun(entry.upstream))
        run.config |= _config(record)
        for metric, value in record.values.items():
            found[entry.upstream, f"{path}/{metric}"].append(value)
        part = _part(record)
        if record.condition is None:  # there the head is another run's
            run.values[name_of(f"{path}/learning_rate/{part}")] = record.learning_rate
        for step, values in _looks(store, record).items():
            run.curves[step] |= {name_of(f"{path}/{name}/{part}"): value for name, value in values.items()}
    for (upstream, name), measured in found.items():
        runs[upstream].values[name_of(name)] = mean(measured)
    own_heads = {record.task["name"]: str(record.task["default_head"]) for record in records}
    for each in (*board.boards, *board.variants):
        for row in each.rows:
            for column in (column for column in each.columns if column.key in row.cells and row.name in runs):
                runs[row.name].values |= _judged(column, row.cells[column.key], own_heads)
    return [*runs.values(), *(run for each in (*board.boards, *board.variants) for run in _series(each, own_heads))]


def path_of(record: ResultRecord) -> str:
    """The task, and what sets a run apart from the one that has a row."""
    apart = _other_head(record.task["head"], record.task["default_head"])
    apart += [] if record.layer is None else [f"layer_{record.layer}"]
    apart += [] if record.drawn is None else [f"budget_{record.drawn['budget']}"]
    apart += [] if record.condition is None else [record.condition]
    return "/".join([record.task["name"], *apart])


def _other_head(head: str, own: str) -> list[str]:
    """What sets a head apart that is not the task's own, such as one that is not trained."""
    return [] if head == own else [f"head_{head}"]


def name_of(text: str) -> str:
    """A name that every tracker takes: MLflow and TensorBoard refuse or change other characters."""
    return re.sub(r"[^A-Za-z0-9_./-]", "_", text)


def _part(record: ResultRecord) -> str:
    return f"seed_{record.seed}" + ("" if record.fold is None else f"/fold_{record.fold}")


def _config(record: ResultRecord) -> dict[str, Plain]:
    made, task = record.circumstances, path_of(record)
    facts: dict[str, Any] = {f"upstream/{name}": record.upstream.get(name) for name in FACTS}
    facts |= {"upstream/spec": made.get("upstream_spec"), "upstream/series": made.get("series")}
    facts |= {"protocol": record.protocol, "commit": made.get("git", {}).get("commit"), "device": made.get("device")}
    facts |= {f"{task}/recipe/{name}": value for name, value in record.recipe.items()}
    facts |= {f"{task}/corpus/{name}": record.corpus[name] for name in ("name", "digest")}
    facts |= {f"{task}/{split}": record.counts[split] for split in ("train", "valid", "test")}
    facts |= {f"{task}/head": record.task["head"], f"{task}/custom": record.custom}
    told = {name: value for name, value in facts.items() if value is not None}
    return {name_of(name): value if isinstance(value, Plain) else canonical_json(value) for name, value in told.items()}


def _looks(store: RecordStore, record: ResultRecord) -> dict[int, dict[str, float]]:
    """Step -> what was seen at it of the training that was chosen; nothing where the file is not the record's own."""
    path = store.run_folder(record.run) / HISTORY
    if record.condition is not None or not path.is_file() or file_digest(path) != record.artifacts.get(HISTORY):
        return {}
    best = max(parsed_json(path.read_text(encoding="utf-8")), key=lambda tried: _is_chosen(tried, record))
    names = {"train_loss": "train_loss", "valid_loss": "valid_loss", "valid": f"valid_{record.task['select']}"}
    return {
        look["step"]: {name: look[key] for key, name in names.items() if isinstance(look.get(key), int | float)}
        for look in best["history"]
    }


def _is_chosen(tried: Mapping[str, Any], record: ResultRecord) -> bool:
    """Whether the head is of this candidate: of its learning rate, and its layer where each was tried."""
    layer = max(range(len(record.layer_weights)), key=record.layer_weights.__getitem__)
    return tried["learning_rate"] == record.learning_rate and tried.get("layer", layer) == layer


def _judged(column: Column, cell: ResultCell, own_heads: Mapping[str, str]) -> dict[str, float]:
    """The mean of a cell and its curves, with the ends of their intervals."""
    task = _path_of_column(column, own_heads)
    points: list[tuple[str, float, Interval | None]] = [("", cell.mean, cell.interval)]
    points += [(f"layer_{each.layer}", each.mean, each.interval) for each in cell.single_layers]
    points += [(f"budget_{each.budget}", each.mean, each.interval) for each in cell.budgets[:-1]]  # the last is all
    points += [(each.condition, each.mean, each.interval) for each in cell.conditions[1:]]  # the first is clean
    return {
        name: value
        for apart, middle, interval in points
        for name, value in _ends("/".join(filter(None, [task, apart, column.metric])), middle, interval)
    }


def _path_of_column(column: Column, own_heads: Mapping[str, str]) -> str:
    return "/".join([column.task, *_other_head(column.head, own_heads.get(column.task, column.head))])


def _ends(name: str, middle: float, interval: Interval | None) -> Iterator[tuple[str, float]]:
    yield name_of(name), middle
    if interval is not None:
        yield name_of(f"{name}_low"), interval.low
        yield name_of(f"{name}_high"), interval.high


def _series(board: Board, own_heads: Mapping[str, str]) -> Iterator[TrackedRun]:
    runs: dict[str, TrackedRun] = {}
    for column in board.columns:
        for series, checkpoints in curves_of_series(board, column):
            run = runs.setdefault(series, TrackedRun(series, {"series": series, "recipe": board.recipe}))
            name = f"{_path_of_column(column, own_heads)}/{column.metric}"
            for each in checkpoints:
                run.curves[each.step] |= _ends(name, each.cell.mean, each.cell.interval)
    yield from runs.values()
