"""The seconds at which turns name another number of speakers, or others, than were speaking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

TICKS = 1_000_000  # of a second: times are whole numbers of them, so that equal turns differ by nothing

Turns = Sequence[Mapping[str, Any]]


def diarisation_errors(prediction: Turns, reference: Turns) -> tuple[float, float]:
    """Seconds that are missed, false alarms or of another speaker, and seconds of speech; overlaps count as often as
    there are speakers, and there is no collar. The speakers of a prediction stand for those they share most time with.

    Args:
        prediction: turns with start and stop in seconds, and the speaker's name.
        reference: the same, whatever speakers are called.

    Reference: NIST's md-eval, as dscore calls it.
    """
    found, meant = _spans(prediction), _spans(reference)
    ticks, ours, theirs = _stretches(found, meant)
    shared = (ours * ticks) @ theirs.T
    right = int(shared[linear_sum_assignment(-shared)].sum())
    counts, speaking = ours.sum(axis=0), theirs.sum(axis=0)
    wrong = int((np.maximum(counts, speaking) * ticks).sum()) - right
    return wrong / TICKS, int((speaking * ticks).sum()) / TICKS


def matched_speakers(prediction: Turns, reference: Turns) -> dict[str, str]:
    """Speakers of a prediction -> those of the reference that they stand for; who shares time with none is left out."""
    found, meant = _spans(prediction), _spans(reference)
    ticks, ours, theirs = _stretches(found, meant)
    shared = (ours * ticks) @ theirs.T
    pairs = zip(*linear_sum_assignment(-shared), strict=True)
    return {list(found)[one]: list(meant)[other] for one, other in pairs if shared[one, other]}


Spans = dict[str, list[tuple[int, int]]]


def _stretches(found: Spans, meant: Spans) -> tuple[Any, Any, Any]:
    """Ticks from one edge of a turn to the next (stretches,), and who speaks there, twice (speakers, stretches)."""
    edges = np.unique([edge for spans in (*found.values(), *meant.values()) for span in spans for edge in span])
    if not len(edges):
        return np.zeros(0, dtype=np.int64), np.zeros((0, 0), dtype=np.int64), np.zeros((0, 0), dtype=np.int64)
    return np.diff(edges), _speaking(found, edges), _speaking(meant, edges)


def _spans(turns: Turns) -> Spans:
    spans: Spans = {}
    for turn in turns:
        start, stop = (round(float(turn[key]) * TICKS) for key in ("start", "stop"))
        spans.setdefault(str(turn["speaker"]), []).append((start, stop))
    return spans


def _speaking(spans: Spans, edges: Any) -> Any:
    """Who speaks between one edge and the next, int64 (speakers, stretches); turns of one speaker may overlap."""
    speaking = np.zeros((len(spans), len(edges) - 1), dtype=np.int64)
    for row, own in zip(speaking, spans.values(), strict=True):
        for start, stop in own:
            row[np.searchsorted(edges, start) : np.searchsorted(edges, stop)] = 1
    return speaking
