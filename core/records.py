"""Result records: one file a run, append-only. The leaderboard reads these and what lies beside them, nothing else.

records/<first 16 of the run>.json     a ResultRecord, and `digest`, its seal: sha256 of all the rest
runs/<first 16 of the run>/            predictions.jsonl, head.safetensors, history.json; their digests are sealed
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from core.digest import digest_of, write_json
from core.errors import RecordError

SCHEMA_VERSION = 2
FILES = ("predictions.jsonl", "head.safetensors", "history.json")
NAME_LENGTH = 16  # of a run's digest, in file names


@dataclass(frozen=True)
class ResultRecord:
    """What one run (upstream x task x corpus x recipe x seed) gave, and all that is needed to trace it.

    Attributes:
        run: `run_digest` of the run's inputs; names the record's file and its folder of predictions and head.
        upstream: name, digest, params, num_layers, hidden_size, downsample_rate, and gflops_per_second of audio, None
            where they can't be counted.
        task: name, title, head, default_head (its own, which the leaderboard is made of), label, metric, version, and
            code: digest of the code of head, labels and metric where they are not ours.
        corpus: name, digest (of the rows that the task takes).
        recipe: name, digest and every field.
        protocol: version of the program's protocol.
        live: whether crops passed the upstream anew at every update (`--exact`).
        frames: where the head needs frames: float16 or int8 as they were kept, or recompute; else None.
        custom: True keeps it off the leaderboard: limited data or another recipe.
        seed: of the head's training.
        metric: name, unit, direction ("higher" or "lower" is better).
        value: the metric on test, in the unit.
        learning_rate: chosen on valid.
        learning_rates: every one tried: learning_rate, valid value, step of the best; where training diverged, both are
            null and `diverged` is the update before which it did.
        counts: utterances of train, valid and test.
        layer_weights: learned softmax weights, one a layer.
        features: kind and number format of what the head was trained on, departures from the protocol, and layer_norms,
            the mean norm of each layer's features on valid, by which layer weights can be compared.
        artifacts: file name -> sha256 of what lies in the run's folder.
        circumstances: wall seconds by stage, versions, git commit, machine, time: not part of the result.
    """

    run: str
    upstream: Mapping[str, Any]
    task: Mapping[str, Any]
    corpus: Mapping[str, Any]
    recipe: Mapping[str, Any]
    protocol: int
    live: bool
    frames: str | None
    custom: bool
    seed: int
    metric: Mapping[str, Any]
    value: float
    learning_rate: float
    learning_rates: list[Mapping[str, Any]]
    counts: Mapping[str, int]
    layer_weights: list[float]
    features: Mapping[str, Any]
    artifacts: Mapping[str, str]
    circumstances: Mapping[str, Any]
    schema_version: int = SCHEMA_VERSION

    def result(self) -> dict[str, Any]:
        """Everything but the circumstances: equal for equal inputs, however often the run was interrupted."""
        return {key: value for key, value in asdict(self).items() if key != "circumstances"}

    def result_digest(self) -> str:
        """sha256 of the result."""
        return digest_of(self.result())

    def sealed(self) -> dict[str, Any]:
        """The content of its file."""
        return {**asdict(self), "digest": digest_of(self)}

    def inputs_digest(self) -> str:
        """`run_digest` of the inputs that it names; equals `run` unless something was changed."""
        return run_digest(
            protocol=self.protocol,
            upstream=self.upstream["digest"],
            task=self.task,
            recipe={key: value for key, value in self.recipe.items() if key != "digest"},
            corpus=self.corpus["digest"],
            live=self.live,
            frames=self.frames,
            seed=self.seed,
        )


def task_digest(task: Mapping[str, Any]) -> str:
    """sha256 of what decides a result besides recipe and data."""
    plugins = [task["code"]] if task.get("code") else []
    return digest_of([*(task[key] for key in ("name", "label", "head", "metric", "version")), *plugins])


def run_digest(
    *,
    protocol: int,
    upstream: str,
    task: Mapping[str, Any],
    recipe: object,
    corpus: str,
    live: bool,
    frames: str | None,
    seed: int,
) -> str:
    """sha256 of all that decides a result.

    Args:
        protocol: version of the program's protocol.
        upstream: digest of weights, configuration and preprocessing.
        task: name, label, head, metric, version and code count; the rest is for people.
        recipe: every field.
        corpus: digest of the rows that the task takes.
        live: whether crops passed the upstream anew at every update.
        frames: how they were kept, if they were needed.
        seed: of the head's training.
    """
    return digest_of(
        {
            "protocol": protocol,
            "upstream": upstream,
            "task": task_digest(task),
            "recipe": recipe,
            "corpus": corpus,
            "live": live,
            "frames": frames,
            "seed": seed,
        }
    )


class RecordStore:
    """The folder of results."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, run: str) -> Path:
        """The record's file."""
        return self.folder / "records" / f"{run[:NAME_LENGTH]}.json"

    def run_folder(self, run: str) -> Path:
        """The folder of the run's files."""
        return self.folder / "runs" / run[:NAME_LENGTH]

    def __contains__(self, run: str) -> bool:
        return self.path(run).is_file()

    def add(self, record: ResultRecord) -> None:
        """Writes a record, once.

        Raises: RecordError: another result stands under the same run.
        """
        if record.run in self:
            if self.read(self.path(record.run)).result_digest() == record.result_digest():
                return
            raise RecordError(
                f"{self.path(record.run)}: holds another result of the same run; move one of the two folders away"
            )
        write_json(self.path(record.run), record.sealed())

    def paths(self) -> list[Path]:
        """The files of all records, in the order of their names."""
        return sorted((self.folder / "records").glob("[!.]*.json"))

    def all(self) -> list[ResultRecord]:
        """Every record, in the order of the file names.

        Raises: RecordError: a file is damaged, changed, or of another schema.
        """
        return [self.read(path) for path in self.paths()]

    @staticmethod
    def read(path: Path) -> ResultRecord:
        """Reads one record.

        Raises: RecordError: damaged, changed, or of another schema.
        """
        record, seal = read_unsealed(path)
        if seal != digest_of(record):
            raise RecordError(
                f"{path}: was changed after it was written; restore it, or delete it and run the cell again"
            )
        return record


def read_unsealed(path: Path) -> tuple[ResultRecord, str]:
    """A record and the seal in its file, whether they fit or not.

    Raises: RecordError: damaged, or of another schema.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content["schema_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{path}: not a result record ({error}); delete it and run the cell again") from None
    known = {field.name for field in fields(ResultRecord)} | {"digest"}
    if version != SCHEMA_VERSION or set(content) != known:
        raise RecordError(
            f"{path}: schema version {version}, this program reads {SCHEMA_VERSION}: move the old records out of the "
            f"folder, or choose another --output, and run the cells again"
        )
    return ResultRecord(**{key: value for key, value in content.items() if key != "digest"}), content["digest"]
