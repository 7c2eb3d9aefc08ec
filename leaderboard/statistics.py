"""Intervals and tests of error rates on the same test utterances, by one bootstrap of the speakers for all upstreams.

What an interval speaks of: the upstream with the heads that were trained (their scores are averaged over the seeds, and
their spread is shown apart), on other speakers of the same kind, each saying other utterances.

How it is made. Whole speakers are drawn with replacement (Efron; Field & Welsh, JRSS B 2007), which gives the standard
error of every rate, and, since all upstreams are judged on the same draws, of every difference. Percentiles of such
draws are too narrow for the 6 to 40 speakers of a test set: they hold the truth 75 to 90 times in a hundred, and so do
BCa ones. So the standard error is scaled up by sqrt(S / (S - 1)) for S speakers, multiplied by Student's quantile with
S - 1 degrees of freedom (Hesterberg, American Statistician 2015), on the scale where rates are nearly normal: log odds
of a share, logarithm of an error rate that has no upper end. `benchmarks/interval_coverage.py` counts: 93 to 97.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy  # loads its parts as they are used: they take a second, and most processes never draw a board

from leaderboard.board import Interval

LEVEL = 0.95
RESAMPLES = 3_000  # a standard error good to 1.3 %
BATCH_BYTES = 1 << 26
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Trials:
    """The errors of several upstreams on the same utterances, two at least.

    Attributes:
        errors: of each upstream on each utterance, averaged over seeds (upstreams, utterances).
        totals: how much there was to get right: 1, or the words of the reference (utterances,).
        speakers: of the utterances; None where the corpus does not tell.
        bounded: whether errors can't exceed totals.
    """

    errors: Floats
    totals: Floats
    speakers: Sequence[str | None]
    bounded: bool

    def rates(self) -> Floats:
        """Error rate of each upstream (upstreams,)."""
        return self.errors.sum(axis=1) / self.totals.sum()


@dataclass(frozen=True)
class Draws:
    """Error rates, and what the bootstrap says of them.

    Attributes:
        trials: that were resampled.
        rates: of the data (upstreams,).
        resampled: of the draws (upstreams, RESAMPLES), scaled around `rates` to have the unbiased variance.
        units: speakers, or utterances where there are fewer than two known speakers.
        by_speaker: which of the two.
    """

    trials: Trials
    rates: Floats
    resampled: Floats
    units: int
    by_speaker: bool

    @property
    def quantile(self) -> float:
        """Student's, two-sided."""
        return float(scipy.stats.t.ppf((1 + LEVEL) / 2, self.units - 1))


def resample(trials: Trials) -> Draws:
    """Draws speakers with replacement, always the same draws for the same speakers.

    Utterances without a speaker (silence among keywords) are drawn one by one, apart from those with one; where fewer
    than two speakers are known, all are.
    """
    known = sorted({speaker for speaker in trials.speakers if speaker is not None})
    by_speaker = len(known) > 1
    place = {speaker: number for number, speaker in enumerate(known)} if by_speaker else {}
    speakerless = [number for number, speaker in enumerate(trials.speakers) if speaker not in place]
    units = np.array([place.get(speaker, -1) if speaker is not None else -1 for speaker in trials.speakers])
    units[speakerless] = len(place) + np.arange(len(speakerless))
    count = len(place) + len(speakerless)
    sums = np.stack(
        [np.bincount(units, row, count) for row in (*trials.errors, trials.totals)]
    )  # (upstreams + 1, units)
    strata = [part for part in (np.arange(len(place)), np.arange(len(place), count)) if len(part)]

    def rates(*drawn: npt.NDArray[np.int64], axis: int = -1) -> Floats:
        totals = sum(sums[:, part].sum(axis=axis) for part in drawn)
        with np.errstate(invalid="ignore", divide="ignore"):
            return totals[:-1] / totals[-1]  # NaN where all drawn references are empty

    found = trials.rates()
    judges = len(known) if by_speaker else count
    drawn = scipy.stats.bootstrap(
        strata,
        rates,
        n_resamples=RESAMPLES,
        batch=max(1, BATCH_BYTES // (8 * sums.size)),
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(0),
    ).bootstrap_distribution
    scale = np.sqrt(judges / (judges - 1))
    return Draws(trials, found, found[:, None] + scale * (drawn - found[:, None]), judges, by_speaker)


def interval(draws: Draws, upstream: int) -> Interval:
    """95 % interval of an error rate, a fraction.

    Where all utterances are right, or all wrong, nothing varies: it is Wilson's then, as if utterances were
    independent of their speakers, but with Student's quantile.
    """
    rate = float(draws.rates[upstream])
    error = float(np.nanstd(draws.resampled[upstream]))
    if error < 1e-12 or rate <= 0 or (draws.trials.bounded and rate >= 1):
        count = len(draws.trials.totals)
        alpha = 2 * scipy.stats.norm.sf(draws.quantile)
        from statsmodels.stats.proportion import proportion_confint  # takes half a second

        low, high = proportion_confint(min(rate, 1.0) * count, count, alpha, method="wilson")
        return Interval(float(low), max(float(high), rate))
    if not draws.trials.bounded:
        factor = float(np.exp(draws.quantile * error / rate))
        return Interval(rate / factor, rate * factor)
    odds = rate / (1 - rate)
    factor = float(np.exp(draws.quantile * error / (rate * (1 - rate))))
    return Interval(odds / factor / (1 + odds / factor), odds * factor / (1 + odds * factor))


@dataclass(frozen=True)
class Difference:
    """The first error rate minus the second, fractions, and the probability of one so large by chance."""

    value: float
    interval: Interval
    p: float


def difference(draws: Draws, first: int, second: int) -> Difference:
    """Paired test of two upstreams: Student's, with the standard error of the paired bootstrap.

    No p is below that of the sign test over the utterances on which they differ, however alike the speakers are.
    """
    value = float(draws.rates[first] - draws.rates[second])
    error = float(np.nanstd(draws.resampled[first] - draws.resampled[second]))
    half = draws.quantile * error
    found = Interval(value - half, value + half)
    differing = int(np.count_nonzero(draws.trials.errors[first] != draws.trials.errors[second]))
    if differing == 0 or value == 0:
        return Difference(value, found, 1.0)
    p = 2 * float(scipy.stats.t.sf(abs(value) / error, draws.units - 1)) if error > 1e-12 else 0.0
    return Difference(value, found, min(1.0, max(p, 2.0 ** (1 - differing))))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for their number by Holm's method (Scandinavian Journal of Statistics, 1979)."""
    if not p_values:
        return []
    from statsmodels.stats.multitest import multipletests  # takes half a second

    corrected: Floats = multipletests(p_values, method="holm")[1]
    return [float(p) for p in corrected]


def letters(order: Sequence[str], different: frozenset[frozenset[str]]) -> dict[str, str]:
    """Compact letter display: two names share a letter if and only if they can't be told apart.

    By insertion and absorption (Piepho, J. Comput. Graph. Stat. 2004).

    Args:
        order: the names, the best first; it has the letter a.
        different: pairs that can be told apart.
    """
    columns = [set(order)]
    for pair in sorted(map(sorted, different)):
        split = []
        for column in columns:
            split += [column - {name} for name in pair] if column.issuperset(pair) else [column]
        columns = []
        for column in split:  # absorb those that are part of another
            if not any(column <= other for other in columns):
                columns = [other for other in columns if not other <= column] + [column]
    columns.sort(key=lambda column: sorted(order.index(name) for name in column))
    return {name: "".join(_letter(n) for n, column in enumerate(columns) if name in column) for name in order}


def _letter(number: int) -> str:
    """a to z, then aa."""
    return (_letter(number // 26 - 1) if number >= 26 else "") + chr(ord("a") + number % 26)
