"""Result records: one file a run, append-only. The leaderboard reads these and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from core.digest import digest_of, write_json
from core.errors import RecordError

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class ResultRecord:
    """What one run (upstream x task x corpus x recipe x seed) gave, and all that is needed to trace it.

    Attributes:
        run: digest of the run's inputs; names the record's file and its folder of predictions and head.
        upstream: name, spec, digest, params, num_layers, hidden_size, downsample_rate.
        task: name, title, head, label.
        corpus: name, digest (of the rows that the task takes).
        recipe: name, digest and every field.
        custom: True keeps it off the leaderboard: limited data or another recipe.
        seed: of the head's training.
        metric: name, unit, direction ("higher" or "lower" is better).
        value: the metric on test, in the unit.
        learning_rate: chosen on valid.
        learning_rates: every one tried: learning_rate, valid value, step of the best.
        counts: utterances of train, valid and test.
        layer_weights: learned softmax weights, one a layer.
        features: kind and number format of what the head was trained on, departures from the protocol.
        artifacts: file name -> sha256 of what lies in the run's folder.
        circumstances: wall seconds by stage, versions, git commit, machine, time: not part of the result.
    """

    run: str
    upstream: Mapping[str, Any]
    task: Mapping[str, Any]
    corpus: Mapping[str, Any]
    recipe: Mapping[str, Any]
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


class RecordStore:
    """The folder of results: `records/RUN.json`, and `runs/RUN/` with predictions, history and the head."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, run: str) -> Path:
        """The record's file."""
        return self.folder / "records" / f"{run[:16]}.json"

    def run_folder(self, run: str) -> Path:
        """The folder of the run's files."""
        return self.folder / "runs" / run[:16]

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
        write_json(self.path(record.run), asdict(record))

    def all(self) -> list[ResultRecord]:
        """Every record, in the order of the file names.

        Raises: RecordError: a file is damaged or of another schema.
        """
        return [self.read(path) for path in sorted((self.folder / "records").glob("[!.]*.json"))]

    @staticmethod
    def read(path: Path) -> ResultRecord:
        """Reads one record.

        Raises: RecordError: damaged, or of another schema.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            version = content["schema_version"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RecordError(f"{path}: not a result record ({error}); delete it and run the cell again") from None
        known = {field.name for field in fields(ResultRecord)}
        if version != SCHEMA_VERSION or set(content) != known:
            raise RecordError(f"{path}: schema version {version}, this program reads {SCHEMA_VERSION}")
        return ResultRecord(**content)
