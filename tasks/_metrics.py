"""Metrics: pure functions of predictions and references, with their unit and direction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jiwer

from core.errors import MetricError
from core.registry import unknown_name


@dataclass(frozen=True)
class Metric:
    """A metric and how to read it.

    Attributes:
        name: as in the record.
        title: as in the table.
        unit: of the value.
        direction: which values are better.
        compute: predictions, references -> value.
    """

    name: str
    title: str
    unit: str
    direction: Literal["higher", "lower"]
    compute: Callable[[Sequence[Any], Sequence[Any]], float]

    @property
    def sign(self) -> int:
        """1 where higher is better, else -1."""
        return 1 if self.direction == "higher" else -1

    @property
    def optimum(self) -> float:
        """What perfect predictions score: all metrics are percentages of something right or wrong."""
        return 100.0 if self.direction == "higher" else 0.0


def accuracy(predictions: Sequence[Any], references: Sequence[Any]) -> float:
    """Percentage of predictions equal to their reference; with several slots all of them have to be right.

    Raises: MetricError: nothing to compare, or unequal counts.
    """
    _require_pairs(predictions, references)
    right = sum(prediction == reference for prediction, reference in zip(predictions, references, strict=True))
    return 100 * right / len(references)


def word_error_rate(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Word edits of the corpus over its reference words, in percent; may exceed 100.

    Raises: MetricError: no reference word, or unequal counts.
    """
    return _error_rate(jiwer.process_words, predictions, references)


def character_error_rate(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Character edits (spaces count) of the corpus over its reference characters, in percent; may exceed 100.

    Raises: MetricError: no reference character, or unequal counts.
    """
    return _error_rate(jiwer.process_characters, predictions, references)


def _error_rate(process: Callable[..., Any], predictions: Sequence[str], references: Sequence[str]) -> float:
    _require_pairs(predictions, references)
    # jiwer refuses empty references; all that is said against one is an insertion.
    spoken = [(hypothesis, text) for hypothesis, text in zip(predictions, references, strict=True) if text.strip()]
    if not spoken:
        raise MetricError("error rate: every reference is empty; give the rows a text")
    output = process([text for _, text in spoken], [hypothesis for hypothesis, _ in spoken])
    edits = output.substitutions + output.deletions + output.insertions
    total = output.substitutions + output.deletions + output.hits
    for hypothesis, text in zip(predictions, references, strict=True):
        if not text.strip() and hypothesis.strip():
            edits += process([hypothesis], [""]).deletions
    return float(100 * edits / total)


def _require_pairs(predictions: Sequence[Any], references: Sequence[Any]) -> None:
    if len(predictions) != len(references) or not references:
        raise MetricError(f"{len(predictions)} predictions for {len(references)} references: one each is needed")


METRICS = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "Acc", "%", "higher", accuracy),
        Metric("wer", "WER", "%", "lower", word_error_rate),
        Metric("cer", "CER", "%", "lower", character_error_rate),
    )
}


def get_metric(name: str) -> Metric:
    """The metric of that name.

    Raises: UnknownNameError: there is none.
    """
    if name not in METRICS:
        raise unknown_name("metric", name, METRICS)
    return METRICS[name]
