"""How two recordings are compared, by the vectors that a head gives: higher is more alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from core.metrics import Floats
from core.registry import Registry

Scorer = Callable[[Floats, Floats], Floats]
SCORERS: Registry[Scorer] = Registry("scorer", group="frostbench.scorers")


def cosine(first: Floats, second: Floats) -> Floats:
    """Cosine of the angle between vectors (pairs, size), (pairs, size) -> (pairs,); 0 where one has no length."""
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return np.asarray((first * second).sum(axis=1) / np.where(lengths > 0, lengths, 1.0))


SCORERS.add("cosine", cosine)


def scores(scorer: str, vectors: Sequence[Sequence[float]], pairs: Sequence[tuple[int, int]]) -> list[float]:
    """The scores of pairs, whose order does not matter.

    Args:
        scorer: its name.
        vectors: of the recordings.
        pairs: places of two recordings.
    """
    points = np.asarray(vectors, dtype=np.float64)
    places = np.sort(np.asarray(pairs, dtype=np.int64), axis=1)
    return [float(score) for score in SCORERS.get(scorer)(points[places[:, 0]], points[places[:, 1]])]
