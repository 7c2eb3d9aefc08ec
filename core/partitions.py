"""Metrics of what is found without being named: recordings that are searched for, and clusters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import xlogy

from core.digest import canonical_json, digest_of

Floats = npt.NDArray[np.float64]
EXACT_DIGITS = 12  # hexadecimal: 48 bits, which a float holds exactly


def label_key(label: Any) -> str:
    """A label as the key of a mapping: text is itself, an object of several slots is JSON."""
    return label if isinstance(label, str) else canonical_json(label)


def found_precision(prediction: Any, reference: Any) -> tuple[float, ...]:
    """Average precision of the reference among what was ranked: 0 where nothing of it was found.

    Args:
        prediction: key of a label -> average precision if that label were the right one; a reference finds itself.
        reference: the label.
    """
    if prediction == reference:
        return (1.0,)
    found = prediction.get(label_key(reference), 0.0) if isinstance(prediction, Mapping) else 0.0
    return (float(found) if isinstance(found, int | float) else 0.0,)


def numbered_pair(prediction: Any, reference: Any) -> tuple[float, ...]:
    """Numbers of cluster and class, the same for the same, whatever they are."""
    return _number(prediction), _number(reference)


def _number(value: Any) -> float:
    return float(int(digest_of(value)[:EXACT_DIGITS], 16))


def v_measure(pairs: Floats, weights: Floats) -> Floats:
    """Harmonic mean, in percent, of homogeneity (a cluster holds one class) and completeness (a class lies in one).

    Twice the mutual information over the sum of both entropies; 100 where there is one class, in one cluster. It is not
    corrected for chance: the fewer items and the more clusters, the higher it is of clusters drawn at random.

    Args:
        pairs: numbers of cluster and class (items, 2).
        weights: of the items, for each draw (draws, items).

    Returns: (draws,).
    Reference: Rosenberg & Hirschberg (EMNLP-CoNLL 2007, D07-1043).
    """
    clusters, classes, both = (_entropy(part, weights) for part in (pairs[:, :1], pairs[:, 1:], pairs))
    apart = clusters + classes
    shared = np.divide(2 * (apart - both), apart, out=np.ones_like(apart), where=apart > 1e-12)
    return np.asarray(np.round(100 * np.clip(shared, 0.0, 1.0), 9))


def _entropy(values: Floats, weights: Floats) -> Floats:
    """In nats, of how the weights are shared out among different values (items, any) -> (draws,)."""
    different, places = np.unique(values, axis=0, return_inverse=True)
    counts = np.stack([np.bincount(places.ravel(), each, len(different)) for each in weights])
    total = counts.sum(axis=1)
    return np.asarray(np.log(total) - xlogy(counts, counts).sum(axis=1) / total)
