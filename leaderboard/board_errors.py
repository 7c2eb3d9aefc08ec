"""Which errors an upstream makes, as the plain values that a board's cells hold of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Confusion:
    """Which label was taken for which, over all test utterances and seeds.

    Attributes:
        slot: of an intent; empty where there is one label an utterance.
        labels: all that occur, sorted.
        counts: (reference, prediction, how often), as places in `labels`; zeros are left out.
    """

    slot: str
    labels: tuple[str, ...]
    counts: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Mistake:
    """A badly recognised utterance.

    Attributes:
        id: of the utterance.
        speaker: empty where unknown.
        seed: of the run whose hypothesis this is.
        errors: words (characters for CER) that are wrong, missing or too many; of slots those of their values.
        total: words (characters) of the reference, or of its slots' values.
        alignment: (operation, reference words, hypothesis words); the operation is equal, substitute, delete (no
            hypothesis) or insert (no reference).
    """

    id: str
    speaker: str
    seed: int
    errors: int
    total: int
    alignment: tuple[tuple[str, str, str], ...]


class Turn(NamedTuple):
    """Who speaks, from which second to which."""

    speaker: str
    start: float
    stop: float


@dataclass(frozen=True)
class WrongTurns:
    """A recording whose speakers were badly told apart.

    Attributes:
        id: of the recording.
        seed: of the run whose prediction this is.
        errors: seconds that are missed, false alarms or of another speaker.
        total: seconds of speech, of all speakers.
        reference: who spoke when.
        prediction: the same as predicted; who stands for a speaker of the reference has that name, others have none.
    """

    id: str
    seed: int
    errors: float
    total: float
    reference: tuple[Turn, ...]
    prediction: tuple[Turn, ...]


@dataclass(frozen=True)
class WrongWaveforms:
    """A recording that was badly enhanced, or whose voices were badly told apart.

    Attributes:
        id: of the recording.
        seed: of the run whose estimates these are.
        value: of the column's metric.
        names: of the signals.
        signals: float16 at 16 kHz, of each its bytes: what was heard, the targets, and what stands for each of them.
    """

    id: str
    seed: int
    value: float
    names: tuple[str, ...]
    signals: tuple[bytes, ...]


class DetectionCurve(NamedTuple):
    """Errors of a run's test pairs at every threshold of their scores (detection-error trade-off), in percent.

    Attributes:
        seed: of the run.
        targets, others: how many pairs belong together, and how many don't.
        errors: (false alarms, misses) at falling thresholds, of very many some that are evenly spread over the curve;
            without its ends, where one of the two is nothing.
        equal: the rate where both are alike.
    """

    seed: int
    targets: int
    others: int
    errors: tuple[tuple[float, float], ...]
    equal: float
