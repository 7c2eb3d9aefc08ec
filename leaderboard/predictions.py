"""What a run said about every test utterance: the file beside its record."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.digest import file_digest
from core.errors import RecordError
from core.records import RecordStore, ResultRecord

FILE_NAME = "predictions.jsonl"


@dataclass(frozen=True)
class Prediction:
    """A test utterance.

    Attributes:
        id: of the manifest's row.
        prediction, reference: text, a class, or slot -> class.
        errors, total: what it adds to the metric.
        speaker: where the corpus tells.
    """

    id: str
    prediction: Any
    reference: Any
    errors: int
    total: int
    speaker: str | None = None


def read_rows(path: Path) -> list[Prediction]:
    """The rows of a file.

    Raises: RecordError: a line is no prediction.
    """
    rows = []
    with path.open(encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            try:
                rows.append(Prediction(**json.loads(line)))
            except (ValueError, TypeError) as error:
                raise RecordError(
                    f"{path}, line {number}: not a prediction ({error}); delete the record and its run, and run the "
                    f"cell again"
                ) from None
    return rows


def predictions_of(store: RecordStore, record: ResultRecord) -> Sequence[Prediction] | None:
    """The predictions of a run; None where its folder is not there, as when records were copied alone.

    Raises: RecordError: they are not those that the record was made from.
    """
    folder = store.run_folder(record.run)
    if not folder.is_dir():
        return None
    path = folder / FILE_NAME
    if not path.is_file() or file_digest(path) != record.artifacts.get(FILE_NAME):
        raise RecordError(
            f"{path}: not the file that {store.path(record.run).name} was made from; look at: frostbench verify"
        )
    return read_rows(path)
