"""Metrics: pure functions of predictions and references, with their unit and direction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jiwer

from core.errors import MetricError
from core.registry import unknown_name


class Tally(NamedTuple):
    """What one prediction adds to a metric: how much of its reference is wrong, and how much there is."""

    errors: int
    total: int


@dataclass(frozen=True)
class Metric:
    """A metric and how to read it: all are the errors of a split over its total, so any part of a split has a value.

    Attributes:
        name: as in the record.
        title: as in the table.
        unit: of the value.
        direction: which values are better; "higher" counts what is right, "lower" what is wrong.
        tally: prediction, reference -> what they add.
        compute: predictions, references -> value.
    """

    name: str
    title: str
    unit: str
    direction: Literal["higher", "lower"]
    tally: Callable[[Any, Any], Tally]
    compute: Callable[[Sequence[Any], Sequence[Any]], float]

    @property
    def sign(self) -> int:
        """1 where higher is better, else -1."""
        return 1 if self.direction == "higher" else -1

    @property
    def optimum(self) -> float:
        """What perfect predictions score: all metrics are percentages of something right or wrong."""
        return 100.0 if self.direction == "higher" else 0.0


def exact_match(prediction: Any, reference: Any) -> Tally:
    """One error unless the prediction equals its reference; with several slots all of them have to be right."""
    return Tally(int(prediction != reference), 1)


def word_edits(prediction: str, reference: str) -> Tally:
    """Word edits and reference words."""
    return _edits(jiwer.process_words, prediction, reference)


def character_edits(prediction: str, reference: str) -> Tally:
    """Character edits (spaces count) and reference characters."""
    return _edits(jiwer.process_characters, prediction, reference)


def _edits(process: Callable[..., Any], prediction: str, reference: str) -> Tally:
    if not reference.strip():  # jiwer refuses an empty reference; all that is said against one is an insertion
        return Tally(process(prediction, "").deletions if prediction.strip() else 0, 0)
    output = process(reference, prediction)
    errors = output.substitutions + output.deletions + output.insertions
    return Tally(errors, output.substitutions + output.deletions + output.hits)


def accuracy(predictions: Sequence[Any], references: Sequence[Any]) -> float:
    """Percentage of predictions equal to their reference; with several slots all of them have to be right.

    Raises: MetricError: nothing to compare, or unequal counts.
    """
    errors, total = _summed(exact_match, predictions, references)
    return 100 * (total - errors) / total


def word_error_rate(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Word edits of the corpus over its reference words, in percent; may exceed 100.

    Raises: MetricError: no reference word, or unequal counts.
    """
    errors, total = _summed(word_edits, predictions, references)
    return 100 * errors / total


def character_error_rate(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Character edits (spaces count) of the corpus over its reference characters, in percent; may exceed 100.

    Raises: MetricError: no reference character, or unequal counts.
    """
    errors, total = _summed(character_edits, predictions, references)
    return 100 * errors / total


def _summed(tally: Callable[[Any, Any], Tally], predictions: Sequence[Any], references: Sequence[Any]) -> Tally:
    _require_pairs(predictions, references)
    tallies = [tally(prediction, reference) for prediction, reference in zip(predictions, references, strict=True)]
    errors, total = map(sum, zip(*tallies, strict=True))
    if not total:
        raise MetricError("error rate: every reference is empty; give the rows a text")
    return Tally(errors, total)


def _require_pairs(predictions: Sequence[Any], references: Sequence[Any]) -> None:
    if len(predictions) != len(references) or not references:
        raise MetricError(f"{len(predictions)} predictions for {len(references)} references: one each is needed")


METRICS = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "Acc", "%", "higher", exact_match, accuracy),
        Metric("wer", "WER", "%", "lower", word_edits, word_error_rate),
        Metric("cer", "CER", "%", "lower", character_edits, character_error_rate),
    )
}


def get_metric(name: str) -> Metric:
    """The metric of that name.

    Raises: UnknownNameError: there is none.
    """
    if name not in METRICS:
        raise unknown_name("metric", name, METRICS)
    return METRICS[name]
