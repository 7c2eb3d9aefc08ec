"""How near estimated waveforms come to what they stand for: SI-SDR improvement, PESQ, STOI; a number a recording."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt

from core.audio import SAMPLE_RATE
from core.errors import MetricError

Waveforms = npt.NDArray[np.float32]
Measure = Callable[[Waveforms, Waveforms], float]  # estimates (sources, samples), signals (1 + sources, samples)

EPSILON = 1e-7  # of energies, so that silence has a value; about a float's resolution of full scale
# P.862.2 maps raw scores, 4.5 at most, to 0.999 + 4 / (1 + exp(3.8224 - 1.3669 raw)).
LOWEST_PESQ, HIGHEST_PESQ = 0.999, 4.643888474


def measured(name: str, measure: Measure) -> Callable[[Any, Any], tuple[float]]:
    """Statistics of a metric that compares waveforms: one number, whose mean is the metric.

    A prediction is the estimates (sources, samples), a reference what was heard and its targets (1 + sources, samples);
    a reference in place of a prediction stands for its targets. Of a recording that was scored before, a prediction is
    an object with the number under the metric's name, and the reference does not matter.

    Args:
        name: of the metric.
        measure: estimates, signals -> number.
    """

    def statistics(prediction: Any, reference: Any) -> tuple[float]:
        if isinstance(prediction, Mapping):
            return (float(prediction[name]),)
        signals = np.asarray(reference)
        if signals.ndim != 2 or signals.dtype.kind != "f":
            raise MetricError(f"{name}: compares waveforms, not {type(reference).__name__}")
        estimates = np.asarray(prediction)[1 - len(signals) :]
        if estimates.shape != signals[1:].shape:
            raise MetricError(f"{name}: estimates {estimates.shape} for targets {signals[1:].shape}")
        return (float(measure(estimates, signals)),)

    return statistics


def si_sdr(estimate: Waveforms, target: Waveforms) -> float:
    """Scale-invariant ratio of signal to distortion in decibels; the mean is not taken off.

    Args:
        estimate: (samples,).
        target: (samples,).

    Reference: Le Roux et al., ICASSP 2019 (arXiv:1811.02508).
    """
    found, wanted = estimate.astype(np.float64), target.astype(np.float64)
    share = (found @ wanted + EPSILON) / (wanted @ wanted + EPSILON)
    distortion = share * wanted - found
    return 10 * math.log10((share**2 * (wanted @ wanted) + EPSILON) / (distortion @ distortion + EPSILON))


def best_order(estimates: Waveforms, targets: Waveforms) -> tuple[int, ...]:
    """For every target the estimate that stands for it, so that the mean SI-SDR is highest; both (sources, samples)."""
    values = [[si_sdr(estimate, target) for estimate in estimates] for target in targets]
    orders = permutations(range(len(targets)))
    return max(orders, key=lambda order: sum(row[place] for row, place in zip(values, order, strict=True)))


def si_sdr_improvement(estimates: Waveforms, signals: Waveforms) -> float:
    """SI-SDR of the estimates minus that of what was heard, in decibels: the mean over sources in their best order."""
    heard, targets = signals[0], signals[1:]
    order = best_order(estimates, targets)
    gains = [
        si_sdr(estimates[place], target) - si_sdr(heard, target) for place, target in zip(order, targets, strict=True)
    ]
    return sum(gains) / len(gains)


def intelligibility(estimates: Waveforms, signals: Waveforms) -> float:
    """Short-time objective intelligibility (Taal et al., 2011), -1 to 1, the mean over sources.

    Of less than 0.4 s of speech it is 1e-5, as pystoi has it.
    """
    from pystoi import stoi  # takes a second

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of too little speech
        return _mean_over_sources(lambda target, found: stoi(target, found, SAMPLE_RATE), estimates, signals[1:])


def speech_quality(estimates: Waveforms, signals: Waveforms) -> float:
    """Wide-band PESQ (ITU-T P.862.2) on its scale of opinions, the mean over sources.

    An estimate that it finds no speech in has the lowest value.

    Raises: MetricError: it finds no speech in a target.
    """
    return _mean_over_sources(_pesq, estimates, signals[1:])


def _pesq(target: Waveforms, found: Waveforms) -> float:
    from pesq import NoUtterancesError, PesqError, pesq

    if not np.any(found):
        return LOWEST_PESQ
    try:
        return float(pesq(SAMPLE_RATE, target, found, "wb"))
    except NoUtterancesError:
        raise MetricError(
            "pesq: finds no speech in a target; leave its row out, or evaluate by other metrics"
        ) from None
    except (PesqError, ValueError):  # of next to nothing it is no number
        return LOWEST_PESQ


def _mean_over_sources(
    compare: Callable[[Waveforms, Waveforms], float], estimates: Waveforms, targets: Waveforms
) -> float:
    order = best_order(estimates, targets)
    return sum(compare(target, estimates[place]) for place, target in zip(order, targets, strict=True)) / len(order)
