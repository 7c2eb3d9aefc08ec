"""Which errors an upstream makes: classes taken for each other, and the utterances that were heard worst."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jiwer

from leaderboard.board import Confusion, Mistake
from leaderboard.predictions import Prediction

WORST = 10
# metric -> how it aligns, and what joins its units
ALIGN: Mapping[str, tuple[Callable[[str, str], Any], str]] = {
    "wer": (jiwer.process_words, " "),
    "cer": (jiwer.process_characters, ""),
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


def worst(metric: str, runs: Mapping[int, Sequence[Prediction]]) -> tuple[Mistake, ...]:
    """The utterances with the highest error rate, each with its worst hypothesis; of equal rate the longer first.

    Args:
        metric: wer or cer; others have none.
        runs: seed -> predictions.
    """
    if metric not in ALIGN:
        return ()
    found: dict[str, tuple[tuple[float, int], int, Prediction]] = {}
    for seed, rows in runs.items():
        for row in rows:
            badness = (row.errors / row.total if row.total else float(row.errors > 0), row.errors)
            if row.errors and (row.id not in found or badness > found[row.id][0]):
                found[row.id] = (badness, seed, row)
    chosen = sorted(found.values(), key=lambda each: (each[0], each[2].id), reverse=True)[:WORST]
    return tuple(
        Mistake(row.id, row.speaker or "", seed, row.errors, row.total, aligned(metric, row)) for _, seed, row in chosen
    )


def aligned(metric: str, row: Prediction) -> tuple[tuple[str, str, str], ...]:
    """(operation, reference words, hypothesis words) from the beginning to the end."""
    process, joint = ALIGN[metric]
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
