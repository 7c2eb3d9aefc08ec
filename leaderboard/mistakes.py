"""Which errors an upstream makes: classes taken for each other, and the utterances with the most errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jiwer
import numpy as np

from core._diarisation import matched_speakers
from core.digest import file_digest
from core.errors import RecordError
from core.metrics import Metric
from core.records import WORST_FILE, RecordStore, ResultRecord
from core.worst_waveforms import Waveforms, read_waveforms
from leaderboard.board_errors import Confusion, Mistake, Turn, WrongTurns, WrongWaveforms
from leaderboard.stored_predictions import Prediction

WORST = 10
WORST_TURNS = 4  # recordings of minutes take more room than sentences
WORST_WAVEFORMS = 2  # three or five players each
# How a metric aligns -> what does so, and what joins its units.
ALIGNMENTS: Mapping[str, tuple[Callable[[str, str], Any], str]] = {
    "words": (jiwer.process_words, " "),
    "characters": (jiwer.process_characters, ""),
}


def confusions(rows: Iterable[Prediction]) -> tuple[Confusion, ...]:
    """One matrix a slot, counted over all rows (of several seeds); slots in alphabetical order."""
    counts: dict[str, Counter[tuple[str, str]]] = {}
    for row in rows:
        said, meant = _slots(row.prediction), _slots(row.reference)
        for slot in meant:
            counts.setdefault(slot, Counter())[meant[slot], said.get(slot, "")] += 1
    return tuple(_confusion(slot, counts[slot]) for slot in sorted(counts))


def _slots(label: object) -> dict[str, str]:
    values = label if isinstance(label, Mapping) else {"": label}
    return {str(slot): str(value) for slot, value in values.items()}


def _confusion(slot: str, pairs: Counter[tuple[str, str]]) -> Confusion:
    labels = tuple(sorted({label for pair in pairs for label in pair}))
    place = {label: number for number, label in enumerate(labels)}
    counts = sorted((place[reference], place[prediction], count) for (reference, prediction), count in pairs.items())
    return Confusion(slot, labels, tuple(counts))


def worst(metric: Metric, runs: Mapping[int, Sequence[Prediction]]) -> tuple[Mistake, ...]:
    """The utterances with the highest error rate, each with its worst hypothesis; of equal rate the longer first.

    Args:
        metric: one that aligns words or characters.
        runs: seed -> predictions.
    """
    return tuple(_mistake(metric, seed, row) for seed, row in _worst(metric, runs, WORST))


def worst_turns(metric: Metric, runs: Mapping[int, Sequence[Prediction]]) -> tuple[WrongTurns, ...]:
    """The same of recordings whose speakers were told apart, by a metric that aligns turns."""
    return tuple(_wrong_turns(metric, seed, row) for seed, row in _worst(metric, runs, WORST_TURNS))


def worst_waveforms(
    metric: Metric, records: Iterable[ResultRecord], store: RecordStore, runs: Mapping[int, Sequence[Prediction]]
) -> tuple[WrongWaveforms, ...]:
    """The recordings with the lowest value of those whose waveforms were kept, each of the seed where it is worst.

    Args:
        metric: whose statistics are the value of a recording.
        records: of the upstream's runs; damaged files, which `verify` names, count as absent.
        store: where they lie.
        runs: seed -> predictions.
    """
    found: dict[str, tuple[float, WrongWaveforms]] = {}
    for record in records:
        rows = {row.id: row for row in runs.get(record.seed, ())}
        for name, signals in _kept(record, store).items():
            if name in rows:
                value = rows[name].statistics[metric.name][0]
                wrong = WrongWaveforms(name, record.seed, value, _names(rows[name]), _as_bytes(signals))
                if len(wrong.names) == len(signals) and (name not in found or metric.sign * value < found[name][0]):
                    found[name] = (metric.sign * value, wrong)
    chosen = sorted(found.values(), key=lambda each: (each[0], each[1].id))[:WORST_WAVEFORMS]
    return tuple(wrong for _, wrong in chosen)


def _kept(record: ResultRecord, store: RecordStore) -> Mapping[str, Waveforms]:
    path = store.run_folder(record.run) / WORST_FILE
    try:
        if WORST_FILE in record.artifacts and file_digest(path) == record.artifacts[WORST_FILE]:
            return read_waveforms(path)
    except (OSError, RecordError):
        pass
    return {}


def _names(row: Prediction) -> tuple[str, ...]:
    """Of what was heard, of its targets, and of what stands for each."""
    if len(row.reference) == 1:
        return "Heard", "Clean", "Enhanced"
    voices = [f"voice {number}" for number in range(1, len(row.reference) + 1)]
    return ("Heard", *(f"True {voice}" for voice in voices), *(f"Separated {voice}" for voice in voices))


def _as_bytes(signals: Waveforms) -> tuple[bytes, ...]:
    return tuple(signal.astype(np.float16).tobytes() for signal in signals)


def _worst(metric: Metric, runs: Mapping[int, Sequence[Prediction]], most: int) -> list[tuple[int, Prediction]]:
    found: dict[str, tuple[tuple[float, float], int, Prediction]] = {}
    for seed, rows in runs.items():
        for row in rows:
            errors, total = row.statistics[metric.name]
            badness = (errors / total if total else float(errors > 0), errors)
            if errors and (row.id not in found or badness > found[row.id][0]):
                found[row.id] = (badness, seed, row)
    chosen = sorted(found.values(), key=lambda each: (each[0], each[2].id), reverse=True)[:most]
    return [(seed, row) for _, seed, row in chosen]


def _wrong_turns(metric: Metric, seed: int, row: Prediction) -> WrongTurns:
    errors, total = row.statistics[metric.name]
    names = matched_speakers(row.prediction, row.reference)
    found = (Turn(names.get(each.speaker, ""), each.start, each.stop) for each in map(_turn, row.prediction))
    return WrongTurns(row.id, seed, errors, total, tuple(map(_turn, row.reference)), tuple(found))


def _turn(turn: Mapping[str, Any]) -> Turn:
    return Turn(str(turn["speaker"]), float(turn["start"]), float(turn["stop"]))


def _mistake(metric: Metric, seed: int, row: Prediction) -> Mistake:
    errors, total = row.statistics[metric.name]
    speaker = row.speaker if isinstance(row.speaker, str) else ", ".join(row.speaker or ())
    return Mistake(row.id, speaker, seed, int(errors), int(total), _aligned(metric, row))


def _aligned(metric: Metric, row: Prediction) -> tuple[tuple[str, str, str], ...]:
    """(operation, reference words, hypothesis words) from the beginning to the end."""
    process, joint = ALIGNMENTS[str(metric.align)]
    if not row.reference.strip():
        return (("insert", "", row.prediction),)
    output = process(row.reference, row.prediction)
    reference, hypothesis = output.references[0], output.hypotheses[0]
    return tuple(
        (
            chunk.type,
            joint.join(reference[chunk.ref_start_idx : chunk.ref_end_idx]),
            joint.join(hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]),
        )
        for chunk in output.alignments[0]
    )
