"""How often do the leaderboard's 95 % intervals hold the truth, and how often does its test see a difference in none?

    python benchmarks/interval_coverage.py results [MORE_RESULTS ...] [--draws 1000]

Every cell of the records becomes a population whose truth is known: speakers whose log odds of an error vary normally,
by as much as the cell's own speakers do; each says as many utterances as in the record, drawn from the cell's own
utterances, which are weighted so that errors come at the speaker's rate. From each population many test sets are drawn,
and the intervals of the leaderboard computed: they should hold the truth 95 times in a hundred, 93 to 97 is asked for.
The test is tried on two upstreams with the same population: it should find a difference 5 times in a hundred.
Of cells with fewer than ten errors too few are left for a rate between the steps; they may only be too wide.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit

from core.records import RecordStore
from leaderboard import statistics
from leaderboard.aggregate import trials_by_column
from leaderboard.statistics import Trials, difference, interval, resample

NODES = np.polynomial.hermite_e.hermegauss(61)  # of a standard normal
GRID = 200
FEW = 10  # errors


@dataclass(frozen=True)
class Population:
    """Where test sets are drawn from.

    Attributes:
        errors, totals: of the utterances that one can say.
        center, spread: of the speakers' log odds.
        sizes: utterances of each speaker.
        bounded: whether errors can't exceed totals.
        by_speaker: whether speakers have names.
        alone: utterances that nobody says, such as silence; they come one by one.
        truth: error rate of the whole.
    """

    errors: np.ndarray
    totals: np.ndarray
    center: float
    spread: float
    sizes: np.ndarray
    bounded: bool
    by_speaker: bool
    alone: tuple[np.ndarray, np.ndarray]
    truth: float


class Tilted:
    """Utterances weighted by exp(k * (errors - rate * totals)) so that their error rate is a wanted one."""

    def __init__(self, errors: np.ndarray, totals: np.ndarray) -> None:
        self.errors, self.totals = errors, totals
        shares = errors / np.maximum(totals, 1e-9)
        self.low, self.high = np.quantile(shares, 0.002), np.quantile(shares, 0.998)

    def weights(self, rate: float) -> np.ndarray:
        gaps = self.errors - rate * self.totals
        scale = np.abs(gaps).max()

        def gap(k: float) -> float:
            weights = np.exp(k * gaps / scale - np.max(k * gaps / scale))
            return float(weights @ gaps / weights.sum())

        k = brentq(gap, -300, 300)
        weights = np.exp(k * gaps / scale - np.max(k * gaps / scale))
        return weights / weights.sum()


def fit(trials: Trials, upstream: int) -> Population:
    """The population behind a cell."""
    known = np.array([speaker is not None for speaker in trials.speakers])
    by_speaker = len({speaker for speaker in trials.speakers if speaker is not None}) > 1
    if not by_speaker:
        known[:] = True
    errors, totals = trials.errors[upstream][known], trials.totals[known]
    names = [speaker for speaker, each in zip(trials.speakers, known, strict=True) if each]
    units = np.unique(names, return_inverse=True)[1] if by_speaker else np.arange(len(errors))
    rate = min(max(errors.sum() / totals.sum(), 0.5 / (len(errors) + 1)), 1 - 0.5 / (len(errors) + 1))
    if errors.sum() in (0, totals.sum()):  # nothing varies: one utterance that does
        errors = np.append(errors, totals[0] - errors[0])
        totals = np.append(totals, totals[0])
    else:
        rate = errors.sum() / totals.sum()
    sizes = np.bincount(units)
    spread = between_speakers(trials.errors[upstream][known], trials.totals[known], units) if by_speaker else 0.0
    nodes, masses = NODES[0], NODES[1] / NODES[1].sum()
    rate = min(rate, 0.98)
    center = brentq(lambda at: masses @ expit(at + spread * nodes) - rate, -30, 30)
    alone = (trials.errors[upstream][~known], trials.totals[~known])
    said = sizes.sum() * totals.mean()
    truth = (rate * said + alone[0].sum()) / (said + alone[1].sum())
    return Population(errors, totals, center, spread, sizes, trials.bounded, by_speaker, alone, truth)


def between_speakers(errors: np.ndarray, totals: np.ndarray, units: np.ndarray) -> float:
    """Standard deviation of the speakers' log odds: what their rates vary by beyond what their utterances explain."""
    rate = errors.sum() / totals.sum()
    gaps = errors - rate * totals
    sums, sizes = np.bincount(units, gaps), np.bincount(units)
    within = sum((gaps[units == unit] - sums[unit] / sizes[unit]) @ gaps[units == unit] for unit in range(len(sizes)))
    within /= max(1, len(gaps) - len(sizes))
    expected = (len(gaps) - (sizes**2).sum() / len(gaps)) / (len(sizes) - 1)
    between = max(0.0, ((sums**2 / sizes).sum() / (len(sizes) - 1) - within) / expected)
    slope = rate * (1 - rate) if 0 < rate < 1 else 1.0
    return float(np.sqrt(between) / totals.mean() / slope)


def test_sets(population: Population, rng: np.random.Generator, upstreams: int) -> Trials:
    """One test set, heard by upstreams that are alike in the population but err independently."""
    raise NotImplementedError
