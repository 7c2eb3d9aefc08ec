"""What a run predicted for every test utterance: the file beside its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.digest import file_digest, parsed_json
from core.errors import RecordError
from core.metrics import Statistics, find_metric
from core.records import RecordStore, ResultRecord

FILE_NAME = "predictions.jsonl"
PRIVATE_AREA, PRIVATE_LETTERS = 0xF0000, 0xFFFE  # a plane of Unicode without letters, and how many it has room for


@dataclass(frozen=True)
class Prediction:
    """A test utterance.

    Attributes:
        id: of the manifest's row.
        prediction, reference: text, a class, or slot -> class.
        statistics: name of each metric -> what it adds to it.
        speaker: where the corpus names one; several where the row is of several speakers.
    """

    id: str
    prediction: Any
    reference: Any
    statistics: Mapping[str, Statistics]
    speaker: str | tuple[str, ...] | None = None


def read_rows(path: Path, metric: str) -> list[Prediction]:
    """The rows of a file.

    Args:
        path: of the file.
        metric: name of the record's metric, which the rows of older records say nothing of: those of schema 2 have its
            errors and total, those of schema 1 nothing, so that its code has to be known here.

    Raises: RecordError: a line is no prediction.
    """
    rows = []
    with path.open(encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            try:
                rows.append(_prediction(parsed_json(line), metric))
            except (ValueError, LookupError, TypeError) as error:
                raise RecordError(
                    f"{path}, line {number}: not a prediction ({error}); delete the record and its run, and run the "
                    f"cell again"
                ) from None
    return rows


def _prediction(row: dict[str, Any], metric: str) -> Prediction:
    if "statistics" in row:
        statistics = {name: tuple(values) for name, values in row.pop("statistics").items()}
    elif "errors" in row:
        statistics = {metric: (row.pop("errors"), row.pop("total"))}
    else:
        known = find_metric(metric)
        texts = as_typed(row["prediction"]), as_typed(row["reference"])  # only records of schema 1 have such rows
        statistics = {metric: known.statistics(*texts)} if known else {}
    speaker = row.pop("speaker", None)
    return Prediction(**row, statistics=statistics, speaker=tuple(speaker) if isinstance(speaker, list) else speaker)


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
    return read_rows(path, record.metric["name"])


def as_typed(value: Any) -> Any:
    """Text, or the texts of an object's or a list's values, in which no letter is composed with its accent any more.

    Metrics compose letters since records have schema 3; an older record was scored without. Each letter beyond ASCII
    is moved to a private area of Unicode, where no two of them become one: what differed as it was typed differs.
    """
    if isinstance(value, str):
        return "".join(
            chr(PRIVATE_AREA + ord(letter))
            if 0x80 <= ord(letter) < PRIVATE_LETTERS and not letter.isspace()
            else letter
            for letter in value
        )
    if isinstance(value, Mapping):
        return {as_typed(key): as_typed(each) for key, each in value.items()}
    return [as_typed(each) for each in value] if isinstance(value, list | tuple) else value
