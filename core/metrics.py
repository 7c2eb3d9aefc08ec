"""Metrics: what a prediction adds to one, how the sum becomes a value, and how to read and resample that value."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jiwer
import numpy as np
import numpy.typing as npt

from core._bleu import bleu, ngram_matches
from core._diarisation import diarisation_errors
from core._waveforms import (
    HIGHEST_PESQ,
    LOWEST_PESQ,
    intelligibility,
    measured,
    si_sdr_improvement,
    speech_quality,
)
from core.errors import MetricError
from core.partitions import found_precision, numbered_pair, v_measure
from core.registry import Registry

Floats = npt.NDArray[np.float64]
Statistics = tuple[float, ...]


@dataclass(frozen=True)
class Metric:
    """A metric: everything that training, records, statistics, tables and exports have to know of it.

    Attributes:
        name: as in the record.
        title: as in the table.
        unit: of the value; may be empty.
        direction: which values are better.
        bounds: lowest and highest value; None where there is no end. The interval's scale follows from them: log odds
            between two bounds, the logarithm above a lower one, the value itself without any.
        kind: how the value follows from the statistics of items, hence how it is resampled. "ratio": a function of
            their sums, such as errors over words. "mean": a function of their means, such as a mean of scores.
            "corpus": a function of all items and their weights, such as a rate at a threshold that all scores decide.
        statistics: prediction, reference -> what the item adds: sufficient statistics, as many for every item. Of a
            metric that aligns words or characters they are the edits and the length of the reference, or of its slots,
            of one that aligns turns the seconds that are wrong and those of speech.
        value: "ratio": sums (..., statistics) -> values (...); "mean": means (..., statistics) -> values (...);
            "corpus": statistics (items, statistics), weights (draws, items) -> values (draws,). NaN is no value.
        align: how a prediction is laid beside its reference: "classes" are counted in a confusion matrix, "words" and
            "characters" are aligned, "turns" (start, stop and speaker) are drawn over time; None: in no way.
        hub_task: Hugging Face's name of what is measured.
        extra: of the installation that it needs (`core/extras.py`); None where the base has all.
        threshold: statistics of items (items, statistics) -> the score from which a pair is accepted; None where the
            metric judges no scores.
        trials: whether the statistics of an item begin with a score, the higher the sooner accepted, and 1 for a target
            or 0 for another: errors at every threshold follow from them.
    """

    name: str
    title: str
    unit: str
    direction: Literal["higher", "lower"]
    bounds: tuple[float | None, float | None]
    kind: Literal["ratio", "mean", "corpus"]
    statistics: Callable[[Any, Any], Statistics]
    value: Callable[..., Floats]
    align: Literal["classes", "words", "characters", "turns"] | None = None
    hub_task: str = "audio-classification"
    threshold: Callable[[Floats], float] | None = None
    extra: str | None = None
    trials: bool = False

    @property
    def sign(self) -> int:
        """1 where higher is better, else -1."""
        return 1 if self.direction == "higher" else -1

    @property
    def optimum(self) -> float | None:
        """What perfect predictions score; None where there is no best value."""
        return optimum(self.direction, self.bounds)

    def recorded(self) -> dict[str, Any]:
        """What a record repeats, so that its value can be read without this program."""
        facts = {key: getattr(self, key) for key in ("name", "title", "unit", "direction")}
        return {**facts, "bounds": list(self.bounds)}

    def compute(self, predictions: Sequence[Any], references: Sequence[Any]) -> float:
        """The value of predictions.

        Raises: MetricError: nothing to compare, unequal counts, or no value, such as an error rate of empty references.
        """
        if len(predictions) != len(references) or not references:
            raise MetricError(f"{len(predictions)} predictions for {len(references)} references: one each is needed")
        return self.of(list(map(self.statistics, predictions, references)))

    def of(self, statistics: Sequence[Statistics] | Floats) -> float:
        """The value of items (items, statistics); their sums are rounded once, so it is the same on every machine.

        Raises: MetricError: they have no value.
        """
        rows = np.asarray(statistics, dtype=np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            if self.kind == "corpus":
                value = float(self.value(rows, np.ones((1, len(rows))))[0])
            else:
                sums = np.array([math.fsum(column) for column in rows.T])
                value = float(self.value(sums / len(rows) if self.kind == "mean" else sums))
        if not math.isfinite(value):
            raise MetricError(
                f"{self.name}: {len(rows)} items give no value: every reference is empty or too short, or all are of "
                f"one kind; give the rows what the metric compares with"
            )
        return value

    def weighted(self, sums: Floats, counts: Floats, weights: Floats) -> Floats:
        """The value of every draw of groups of items; NaN where a draw has none (draws,).

        Args:
            sums: statistics of each group, summed over its items (groups, statistics); groups of a "corpus" metric are
                single items.
            counts: items of each group (groups,).
            weights: how often each group was drawn (draws, groups).
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            if self.kind == "corpus":
                return self.value(sums, weights)
            drawn = weights @ sums
            return self.value(drawn / (weights @ counts)[:, None] if self.kind == "mean" else drawn)


def optimum(direction: str, bounds: Sequence[float | None]) -> float | None:
    """The best value there is, by direction and bounds; None where there is none."""
    return bounds[1] if direction == "higher" else bounds[0]


METRICS: Registry[Metric] = Registry("metric", group="frostbench.metrics")


def register_metric(metric: Metric) -> Metric:
    """Enters a metric in the registry."""
    METRICS.add(metric.name, metric)
    return metric


def get_metric(name: str) -> Metric:
    """The metric of that name.

    Raises: UnknownNameError: there is none.
    """
    return METRICS.get(name)


def find_metric(name: str) -> Metric | None:
    """The metric of that name; None where it is not known here, as of a record that another program's plug-in made."""
    return METRICS.get(name) if name in METRICS.names() else None


# Statistics of an item. Letters are composed first (Unicode's NFC): however an accent was typed, it is the same letter.


def composed(value: Any) -> Any:
    """A text, or the texts of an object's or a list's values, with composed letters."""
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value)
    if isinstance(value, Mapping):
        return {composed(key): composed(each) for key, each in value.items()}
    return [composed(each) for each in value] if isinstance(value, list | tuple) else value


def exact_match(prediction: Any, reference: Any) -> Statistics:
    """Errors and items: one error unless all is equal; with several slots all of them have to be right."""
    return int(composed(prediction) != composed(reference)), 1


def word_edits(prediction: str, reference: str) -> Statistics:
    """Word edits and reference words."""
    return _edits(jiwer.process_words, composed(prediction), composed(reference))


def character_edits(prediction: str, reference: str) -> Statistics:
    """Character edits (spaces count) and reference characters."""
    return _edits(jiwer.process_characters, composed(prediction), composed(reference))


def _edits(process: Callable[..., Any], prediction: str, reference: str) -> Statistics:
    if not reference.strip():  # jiwer refuses an empty reference; all that is said against one is an insertion
        return process(prediction, "").deletions if prediction.strip() else 0, 0
    output = process(reference, prediction)
    errors = output.substitutions + output.deletions + output.insertions
    return errors, output.substitutions + output.deletions + output.hits


def slot_types_f1(prediction: str, reference: str) -> Statistics:
    """F1 of the types of slots that the texts mark, in [0, 1]; 1 where neither has any."""
    found, meant = set(marked_values(composed(prediction))), set(marked_values(composed(reference)))
    if not found or not meant:
        return (float(found == meant),)
    return (2 * len(found & meant) / (len(found) + len(meant)),)


def slot_value_edits(prediction: str, reference: str) -> Statistics:
    """Character edits and characters of the reference's slot values, each against the nearest value of its type."""
    found = marked_values(composed(prediction))
    edits = length = 0.0
    for slot, values in marked_values(composed(reference)).items():
        for value in values:
            tried = [character_edits(other, value) for other in found.get(slot, [""])]
            edits += min(errors for errors, _ in tried)
            length += tried[0][1]
    return edits, length


MARKED = re.compile(r"B-(\S+) (.+?) E-\1(?=\s|$)")
STRAY_MARK = re.compile(r"(?:^|(?<= ))[BE]-\S+(?: |$)")


def marked_values(text: str) -> dict[str, list[str]]:
    """Slot type -> its values, of a text that marks them as `B-city NEW YORK E-city`; marks inside a value go."""
    values: dict[str, list[str]] = {}
    for slot, value in MARKED.findall(text):
        values.setdefault(slot, []).append(STRAY_MARK.sub("", value).strip())
    return values


def scored_trial(prediction: float, reference: bool) -> Statistics:
    """Score, and 1 for a target trial, 0 for another."""
    return float(prediction), int(reference)


def scored_search(prediction: Any, reference: Mapping[str, Any]) -> Statistics:
    """Score, 1 where the recording holds what is searched for, and the number of the search.

    A reference for a prediction scores what it knows.
    """
    score = prediction["holds"] if isinstance(prediction, Mapping) else prediction
    return float(score), int(reference["holds"]), int(reference["search"])


# Values of statistics.


def share_right(sums: Floats) -> Floats:
    """Percentage of the total that is no error: sums of errors and totals (..., 2) -> (...)."""
    errors, totals = sums[..., 0], sums[..., 1]
    return np.asarray(100 * (totals - errors) / totals)


def error_rate(sums: Floats) -> Floats:
    """Errors in percent of the total, above 100 where there are more of them: (..., 2) -> (...)."""
    return np.asarray(100 * sums[..., 0] / sums[..., 1])


def percentage(means: Floats) -> Floats:
    """A mean of shares in percent: (..., 1) -> (...)."""
    return np.asarray(100 * means[..., 0])


def mean_value(means: Floats) -> Floats:
    """A mean as it is, but for its last bits: (..., 1) -> (...)."""
    return np.asarray(np.round(means[..., 0], 9))


def mean_percentage(means: Floats) -> Floats:
    """A mean of shares in percent, but for its last bits: (..., 1) -> (...)."""
    return np.asarray(np.round(100 * means[..., 0], 9))


def equal_error_rate(trials: Floats, weights: Floats) -> Floats:
    """Rate in percent at the threshold where as many targets are refused as others are accepted.

    Between two thresholds both rates go straight, as on a ROC curve; equal scores are one threshold.

    Args:
        trials: score, and 1 for a target (items, 2).
        weights: of the trials, for each draw (draws, items).

    Returns: (draws,); NaN where a draw has targets only, or none.
    """
    _, hits, alarms = _accepted(trials, weights)
    excess = hits + alarms - 1  # false alarms minus misses; rises from -1 to 1
    after = np.argmax(excess >= 0, axis=1)[:, None]
    left, right = (np.take_along_axis(excess, place, axis=1) for place in (after - 1, after))
    start, stop = (np.take_along_axis(alarms, place, axis=1) for place in (after - 1, after))
    return np.asarray((100 * (start - left / (right - left) * (stop - start)))[:, 0])


def equal_error_threshold(trials: Floats) -> float:
    """The score from which to accept, so that the two rates of errors differ least.

    Args:
        trials: score, and 1 for a target (items, 2); of both kinds.
    """
    scores, hits, alarms = _accepted(trials, np.ones((1, len(trials))))
    return float(scores[np.argmin(np.abs(hits + alarms - 1)[0, 1:])])


def detection_errors(trials: Floats) -> Floats:
    """Shares of errors when nothing is accepted, what scores highest, that and the next...: false alarms, misses.

    Args:
        trials: score, and 1 for a target or 0 for another, first of all (items, 2 or more); of both kinds.

    Returns: (thresholds + 1, 2), false alarms rising, misses falling.
    Reference: Martin et al., The DET curve in assessment of detection task performance (Eurospeech 1997).
    """
    _, hits, alarms = _accepted(trials, np.ones((1, len(trials))))
    return np.stack([alarms[0], 1 - hits[0]], axis=1)


def _accepted(trials: Floats, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """Different scores, falling, and the shares of targets and of others accepted at none, the first, the second...

    Returns: (thresholds,); (draws, thresholds + 1) twice.
    """
    order = np.argsort(-trials[:, 0], kind="stable")
    scores, targets = trials[order, 0], trials[order, 1] > 0
    last = np.append(scores[1:] != scores[:-1], True)  # of its score
    drawn = weights[:, order]
    accepted = [np.cumsum(np.where(kind, drawn, 0.0), axis=1)[:, last] for kind in (targets, ~targets)]
    hits, alarms = (np.pad(each / each[:, -1:], ((0, 0), (1, 0))) for each in accepted)
    return scores[last], hits, alarms


# A false alarm against a miss: C_fa 1, C_miss 100, one in 1,250 recordings holds what is searched for (QUESST 2015's
# call of NIST's tool, of which SUPERB's board takes the value).
FALSE_ALARM = 1 / 100 * (1 / 0.0008 - 1)


def maximum_term_weighted_value(trials: Floats, weights: Floats) -> Floats:
    """1 - misses - FALSE_ALARM * false alarms in percent, both shares of a search's recordings and averaged over
    searches, at the threshold where it is best; 0 where nothing is accepted.

    A search counts by how many recordings it is compared with, which are as many for all where all are searched; one
    that no recording holds does not count.

    Args:
        trials: score, 1 where the recording holds what is searched for, and the number of the search (items, 3).
        weights: of the trials, for each draw (draws, items).

    Returns: (draws,); NaN where a draw has nothing to be found.
    """
    by_search = np.argsort(trials[:, 2], kind="stable")
    rows = trials[by_search]
    drawn = weights if np.array_equal(by_search, np.arange(len(rows))) else weights[:, by_search]
    _, starts, search = np.unique(rows[:, 2], return_index=True, return_inverse=True)
    total = np.add.reduceat(drawn, starts, axis=1)  # (draws, searches)
    held = np.flatnonzero(rows[:, 1] > 0)
    thresholds, level = np.unique(-rows[held, 0], return_inverse=True)  # no other is better; (thresholds,), falling
    holding = _summed(drawn[:, held], search[held], len(starts))
    counted = np.where(holding > 0, total, 0.0)
    share = counted / counted.sum(axis=1, keepdims=True)
    hit = np.divide(share, holding, out=np.zeros_like(share), where=holding > 0)
    lacking = total - holding
    alarm = np.divide(share, lacking, out=np.zeros_like(share), where=lacking > 0) * FALSE_ALARM
    hits = _summed(drawn[:, held] * hit[:, search[held]], level, len(thresholds))
    reached = np.searchsorted(thresholds, -rows[:, 0])  # the first threshold that accepts it
    false = np.flatnonzero((rows[:, 1] == 0) & (reached < len(thresholds)))
    alarms = _summed(drawn[:, false] * alarm[:, search[false]], reached[false], len(thresholds))
    values = np.cumsum(hits - alarms, axis=1)
    found = np.where(counted.any(axis=1), values.max(axis=1, initial=0.0), np.nan)
    return np.asarray(np.round(100 * found, 9))  # shares of a whole come to a bit less than it


def _summed(amounts: Floats, places: npt.NDArray[np.intp], count: int) -> Floats:
    """Amounts (draws, items) summed by the places of the items (draws, count)."""
    return np.stack([np.bincount(places, each, count) for each in amounts])


SPEECH_TO_TEXT = "automatic-speech-recognition"
SHARE = (0.0, 100.0)
RATE = (0.0, None)

register_metric(Metric("accuracy", "Acc", "%", "higher", SHARE, "ratio", exact_match, share_right, "classes"))
register_metric(Metric("wer", "WER", "%", "lower", RATE, "ratio", word_edits, error_rate, "words", SPEECH_TO_TEXT))
register_metric(
    Metric("cer", "CER", "%", "lower", RATE, "ratio", character_edits, error_rate, "characters", SPEECH_TO_TEXT)
)
# Phonemes are words of their own, with spaces between them.
register_metric(Metric("per", "PER", "%", "lower", RATE, "ratio", word_edits, error_rate, "words", SPEECH_TO_TEXT))
register_metric(
    Metric("slot_type_f1", "F1", "%", "higher", SHARE, "mean", slot_types_f1, percentage, None, SPEECH_TO_TEXT)
)
register_metric(
    Metric("slot_value_cer", "CER", "%", "lower", RATE, "ratio", slot_value_edits, error_rate, "words", SPEECH_TO_TEXT)
)
register_metric(
    Metric(
        "eer",
        "EER",
        "%",
        "lower",
        SHARE,
        "corpus",
        scored_trial,
        equal_error_rate,
        threshold=equal_error_threshold,
        trials=True,
    )
)
register_metric(
    Metric("mtwv", "MTWV", "%", "higher", SHARE, "corpus", scored_search, maximum_term_weighted_value,
           trials=True)
)  # fmt: skip
register_metric(Metric("der", "DER", "%", "lower", RATE, "ratio", diarisation_errors, error_rate, "turns"))
register_metric(Metric("bleu", "BLEU", "", "higher", SHARE, "ratio", ngram_matches, bleu, hub_task="translation"))
register_metric(
    Metric("si_sdri", "SI-SDRi", "dB", "higher", (None, None), "mean", measured("si_sdri", si_sdr_improvement),
           mean_value, hub_task="audio-to-audio")
)  # fmt: skip
register_metric(
    Metric("stoi", "STOI", "%", "higher", (-100.0, 100.0), "mean", measured("stoi", intelligibility),
           mean_percentage, hub_task="audio-to-audio")
)  # fmt: skip
register_metric(
    Metric("pesq", "PESQ", "", "higher", (LOWEST_PESQ, HIGHEST_PESQ), "mean", measured("pesq", speech_quality),
           mean_value, hub_task="audio-to-audio", extra="pesq")
)  # fmt: skip
register_metric(Metric("map_r", "mAP@R", "%", "higher", SHARE, "mean", found_precision, mean_percentage))
register_metric(Metric("v_measure", "V-measure", "%", "higher", SHARE, "corpus", numbered_pair, v_measure))
