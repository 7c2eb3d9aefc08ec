"""How misses and false alarms of a run trade against each other as the threshold of its scores moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import scipy

from core.metrics import Floats, Metric, detection_errors, equal_error_rate
from leaderboard.board_errors import DetectionCurve
from leaderboard.stored_predictions import Prediction

MOST_POINTS = 120  # of a curve: more can't be told apart in a drawing


def detection_curve(metric: Metric, runs: Mapping[int, Sequence[Prediction]]) -> DetectionCurve | None:
    """The curve of one run: a mean over seeds would be no run's, and its equal error rate not the mean of theirs.

    Args:
        metric: one that judges trials.
        runs: seed -> predictions.

    Returns: that of the seed whose value is the median (of two in the middle the lower); None where there is no run, or
        its pairs are all of one kind.
    """
    trials = {seed: np.array([row.statistics[metric.name] for row in rows], dtype=np.float64)
              for seed, rows in runs.items()}  # fmt: skip
    kinds = {seed: found[:, 1] > 0 for seed, found in trials.items()}
    if not trials or not all(kind.any() and not kind.all() for kind in kinds.values()):
        return None
    order = sorted(trials, key=lambda seed: (metric.of(trials[seed]), seed))
    seed = order[(len(order) - 1) // 2]
    found, targets = trials[seed], int(kinds[seed].sum())
    errors = 100 * _thinned(detection_errors(found[:, :2]))
    equal = float(equal_error_rate(found[:, :2], np.ones((1, len(found))))[0])
    return DetectionCurve(seed, targets, len(found) - targets, tuple((float(a), float(m)) for a, m in errors), equal)


def _thinned(errors: Floats) -> Floats:
    """Without the points that have no place on axes of normal deviates, and of many the ones evenly spread there."""
    inside = errors[((errors > 0) & (errors < 1)).all(axis=1)]
    if len(inside) <= MOST_POINTS:
        return inside
    deviates = scipy.special.ndtri(inside)
    along = deviates[:, 0] - deviates[:, 1]  # rises with every step of the threshold
    places = np.searchsorted(along, np.linspace(along[0], along[-1], MOST_POINTS))
    return inside[np.unique(np.minimum(places, len(inside) - 1))]
