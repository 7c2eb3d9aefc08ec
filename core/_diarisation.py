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
    edges = np.unique([edge for spans in (*found.values(), *meant.values()) for span in spans for edge in span])
    if not len(edges):
        return 0.0, 0.0
    ours, theirs = (_speaking(spans, edges) for spans in (found, meant))  # (speakers, stretches)
    ticks = np.diff(edges)
    shared = (ours * ticks) @ theirs.T
    right = int(shared[linear_sum_assignment(-shared)].sum())
    counts, speaking = ours.sum(axis=0), theirs.sum(axis=0)
    wrong = int((np.maximum(counts, speaking) * ticks).sum()) - right
    return wrong / TICKS, int((speaking * ticks).sum()) / TICKS


def _spans(turns: Turns) -> dict[str, list[tuple[int, int]]]:
    spans: dict[str, list[tuple[int, int]]] = {}
    for turn in turns:
        start, stop = (round(float(turn[key]) * TICKS) for key in ("start", "stop"))
        spans.setdefault(str(turn["speaker"]), []).append((start, stop))
    return spans


def _speaking(spans: Mapping[str, Sequence[tuple[int, int]]], edges: Any) -> Any:
    """Who speaks between one edge and the next, int64 (speakers, stretches); turns of one speaker may overlap."""
    speaking = np.zeros((len(spans), len(edges) - 1), dtype=np.int64)
    for row, own in zip(speaking, spans.values(), strict=True):
        for start, stop in own:
            row[np.searchsorted(edges, start) : np.searchsorted(edges, stop)] = 1
    return speaking
