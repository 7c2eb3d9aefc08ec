"""Intervals and tests of metrics on the same test utterances, by one bootstrap of the speakers for all upstreams.

What an interval speaks of: the upstream with the heads that were trained (their values are averaged over the seeds, and
their spread is shown apart), on other speakers of the same kind, each saying other utterances.

How it is made. Whole speakers are drawn with replacement (Efron; Field & Welsh, JRSS B 2007), the metric is computed of
every draw, and, since all upstreams are judged on the same draws, so is every difference. An item of two speakers, such
as a trial of speaker verification, counts as often as the one was drawn times the other (Owen, Annals of Applied
Statistics 2007). Percentiles of such draws are too narrow for the 6 to 40 speakers of a test set: they hold the truth
75 to 90 times in a hundred, and so do BCa ones. So the standard error is scaled up by sqrt(S / (S - 1)) for S speakers,
multiplied by Student's quantile with S - 1 degrees of freedom (Hesterberg, American Statistician 2015), on the scale
where the metric is nearly normal: log odds of what is between two bounds, logarithm of what has a lower one only, else
the value itself. `benchmarks/interval_coverage.py` counts: 93 to 97; for trials and searches 98, since the product of
two counts has three times the variance of one, which is right for what voices differ by, not for what pairs do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import numpy.typing as npt
import scipy  # loads its parts as they are used: they take a second, and most processes never draw a board

from core.metrics import Floats, Metric
from leaderboard.board_curves import Interval

LEVEL = 0.95
RESAMPLES = 3_000  # a standard error good to 1.3 %
BATCH_BYTES = 1 << 20  # of weights at a time, which a core's cache holds: 64 MB took twice as long
NOTHING = 1e-10  # a spread that is rounding, of values in percent
Speakers = str | tuple[str, ...] | None


@dataclass(frozen=True)
class Trials:
    """What several upstreams predicted for the same utterances, two at least, as statistics of a metric.

    Attributes:
        metric: that judges them.
        statistics: of each upstream (seeds, utterances, statistics); each has as many seeds as were run.
        speakers: of the utterances, several where one is of several; None where the corpus names none.
        folds: that the utterances were tested in; empty where there are none.
    """

    metric: Metric
    statistics: Sequence[Floats]
    speakers: Sequence[Speakers]
    folds: Sequence[str] = ()

    def values(self) -> Floats:
        """Value of each upstream, the mean over its seeds and folds (upstreams,)."""
        if self.folds:
            return np.asarray(np.mean([part.values() for part in self.by_fold()], axis=0))
        return np.array([np.mean([self.metric.of(rows) for rows in seeds]) for seeds in self.statistics])

    def by_fold(self) -> list[Trials]:
        """Those of each fold, in the order of the folds' names; all of them where there are none."""
        if not self.folds:
            return [self]
        places = [[n for n, fold in enumerate(self.folds) if fold == name] for name in sorted(set(self.folds))]
        return [
            Trials(self.metric, [rows[:, chosen] for rows in self.statistics], [self.speakers[n] for n in chosen])
            for chosen in places
        ]


@dataclass(frozen=True)
class Draws:
    """Values of a metric, and what the bootstrap says of them, in the metric's unit.

    Attributes:
        trials: that were resampled.
        values: of the data (upstreams,).
        resampled: of the draws (upstreams, resamples), scaled around `values` to have the unbiased variance.
        units: speakers, or utterances where there are fewer than two known speakers; each fold has one degree of
            freedom less than it has of them.
        by_speaker: which of the two.
    """

    trials: Trials
    values: Floats
    resampled: Floats
    units: int
    by_speaker: bool

    @property
    def quantile(self) -> float:
        """Student's, two-sided."""
        return float(scipy.stats.t.ppf((1 + LEVEL) / 2, self.units - 1))

    @property
    def speakers(self) -> int | None:
        """How many were drawn, of all folds; None where utterances were."""
        return len({name for names in _names(self.trials) for name in names}) if self.by_speaker else None


@dataclass(frozen=True)
class _Units:
    """What is drawn, and which items go together.

    Attributes:
        strata: how many units each has that are drawn apart from the others.
        groups: of every item (items,).
        members: units of every group; behind the last unit stands one that is always there once (groups, most).
    """

    strata: tuple[int, ...]
    groups: npt.NDArray[np.int64]
    members: npt.NDArray[np.int64]


def resample(trials: Trials, resamples: int = RESAMPLES) -> Draws:
    """Draws speakers with replacement, always the same draws for the same speakers; in each fold for itself.

    The value of folds is the mean of theirs, so their draws are averaged; degrees of freedom add up. Where each fold
    tests one speaker, nobody could be drawn in another's place there: whole folds are drawn.

    Args:
        trials: of the upstreams that are judged on the same draws.
        resamples: how many draws.
    """
    parts = trials.by_fold()
    if len(parts) == 1:
        return _resample(trials, 0, resamples)
    if all(len(set(part.speakers)) == 1 and isinstance(part.speakers[0], str) for part in parts):
        return _resample_folds(trials, parts, resamples)
    draws = [_resample(part, number, resamples) for number, part in enumerate(parts)]
    resampled = np.mean([each.resampled for each in draws], axis=0)
    units = 1 + sum(each.units - 1 for each in draws)
    return Draws(trials, trials.values(), resampled, units, all(each.by_speaker for each in draws))


def _resample_folds(trials: Trials, parts: Sequence[Trials], resamples: int) -> Draws:
    values = np.stack([part.values() for part in parts], axis=1)  # (upstreams, folds)
    weights = _times_drawn(np.random.default_rng(0), resamples, len(parts)) / len(parts)
    found = trials.values()
    scale = np.sqrt(len(parts) / (len(parts) - 1))
    return Draws(trials, found, found[:, None] + scale * (values @ weights.T - found[:, None]), len(parts), True)


def _resample(trials: Trials, seed: int, resamples: int) -> Draws:
    """Of one test set.

    Utterances without a speaker (silence among keywords) are drawn one by one, apart from those with one; where fewer
    than two speakers are known, all are.
    """
    named = _names(trials)
    known = {name: place for place, name in enumerate(sorted({name for names in named for name in names}))}
    by_speaker = len(known) > 1
    units = _units([sorted({known[name] for name in names}) if by_speaker else [] for names in named], len(known))
    judges = len(known) if by_speaker else len(named)
    metric = trials.metric
    groups = np.arange(len(named)) if metric.kind == "corpus" else units.groups
    members = units.members[units.groups] if metric.kind == "corpus" else units.members
    counts = np.bincount(groups, minlength=len(members)).astype(np.float64)
    sums = [[_sums(rows, groups, len(members)) for rows in seeds] for seeds in trials.statistics]
    drawn = np.concatenate(
        [
            [np.mean([metric.weighted(rows, counts, weights) for rows in seeds], axis=0) for seeds in sums]
            for weights in _weights(units.strata, members, resamples, seed)
        ],
        axis=1,
    )  # (upstreams, resamples)
    found = trials.values()
    scale = np.sqrt(judges / (judges - 1))
    return Draws(trials, found, found[:, None] + scale * (drawn - found[:, None]), judges, by_speaker)


def _names(trials: Trials) -> list[tuple[str, ...]]:
    """The speakers of each item."""
    return [(speakers,) if isinstance(speakers, str) else tuple(speakers or ()) for speakers in trials.speakers]


def _units(places: Sequence[Sequence[int]], speakers: int) -> _Units:
    """The units of items, by the places of their speakers; an item of none is a unit by itself."""
    alone = sum(not place for place in places)
    spoken = speakers if alone < len(places) else 0
    total = spoken + alone
    singles = iter(range(spoken, total))
    keys = [tuple(place) or (next(singles),) for place in places]
    order = {key: number for number, key in enumerate(sorted(set(keys)))}
    most = max(map(len, order))
    members = np.array([[*key, *[total] * (most - len(key))] for key in order], dtype=np.int64)
    return _Units(tuple(n for n in (spoken, alone) if n), np.array([order[key] for key in keys]), members)


def _sums(rows: Floats, groups: npt.NDArray[np.int64], count: int) -> Floats:
    """Statistics of items summed by group (groups, statistics)."""
    return np.stack([np.bincount(groups, column, count) for column in rows.T], axis=1)


def _weights(strata: Sequence[int], members: npt.NDArray[np.int64], resamples: int, seed: int) -> Iterator[Floats]:
    """How often each group was drawn, in batches of draws (draws, groups)."""
    rng = np.random.default_rng(seed)
    batch = max(1, BATCH_BYTES // (8 * max(len(members), sum(strata))))
    for start in range(0, resamples, batch):
        draws = min(batch, resamples - start)
        parts = [_times_drawn(rng, draws, count) for count in strata]
        units = np.concatenate([*parts, np.ones((draws, 1))], axis=1)
        yield reduce(np.multiply, (units[:, column] for column in members.T))


def _times_drawn(rng: np.random.Generator, draws: int, count: int) -> Floats:
    drawn = rng.integers(0, count, (draws, count)) + count * np.arange(draws)[:, None]
    return np.bincount(drawn.ravel(), minlength=draws * count).reshape(draws, count).astype(np.float64)


def interval(draws: Draws, upstream: int) -> Interval:
    """95 % interval of an upstream's value.

    Where all utterances are right, or all wrong, nothing varies: it is Wilson's then, as if utterances were
    independent of their speakers, but with Student's quantile. A metric that is no share has the value alone.
    """
    value = float(draws.values[upstream])
    error = float(np.nanstd(draws.resampled[upstream]))
    low, high = draws.trials.metric.bounds
    if error < NOTHING or (low is not None and value <= low) or (high is not None and value >= high):
        return _where_nothing_varies(draws, value)
    half = draws.quantile * error
    if low is not None and high is not None:
        odds = (value - low) / (high - value)
        factor = float(np.exp(half * (high - low) / ((value - low) * (high - value))))
        return Interval(*(low + (high - low) * each / (1 + each) for each in (odds / factor, odds * factor)))
    if low is not None:
        factor = float(np.exp(half / (value - low)))
        return Interval(low + (value - low) / factor, low + (value - low) * factor)
    return Interval(value - half, value + half)


def _where_nothing_varies(draws: Draws, value: float) -> Interval:
    metric = draws.trials.metric
    low, high = metric.bounds
    if low is None or (high is None and metric.unit != "%"):
        return Interval(value, value)
    whole = 100.0 if high is None else high - low
    count = len(draws.trials.speakers)
    alpha = 2 * scipy.stats.norm.sf(draws.quantile)
    from statsmodels.stats.proportion import proportion_confint  # takes half a second

    edges = proportion_confint(min((value - low) / whole, 1.0) * count, count, alpha, method="wilson")
    below, above = (low + whole * float(edge) for edge in edges)
    return Interval(min(below, value), value if value == high else max(above, value))


@dataclass(frozen=True)
class Difference:
    """The first value minus the second, in the metric's unit, and the probability of one so large by chance."""

    value: float
    interval: Interval
    p: float


def difference(draws: Draws, first: int, second: int) -> Difference:
    """Paired test of two upstreams: Student's, with the standard error of the paired bootstrap.

    No p is below that of the sign test over the utterances on which they differ, however alike the speakers are.
    """
    value = float(draws.values[first] - draws.values[second])
    error = float(np.nanstd(draws.resampled[first] - draws.resampled[second]))
    half = draws.quantile * error
    found = Interval(value - half, value + half)
    one, other = (draws.trials.statistics[each].mean(axis=0) for each in (first, second))
    differing = int(np.count_nonzero((one != other).any(axis=1)))
    if differing == 0 or value == 0:
        return Difference(value, found, 1.0)
    p = 2 * float(scipy.stats.t.sf(abs(value) / error, draws.units - 1)) if error > NOTHING else 0.0
    return Difference(value, found, min(1.0, max(p, 2.0 ** (1 - differing))))


def of_the_same_speakers(trials: Trials) -> Trials | None:
    """The same items for a test that speaks of these speakers alone: other utterances of theirs, not other speakers.

    Utterances are drawn one by one, whoever says them. That lets in what speakers differ by, as a share of all that
    utterances differ by, so that the test sees too little rather than too much; it does not depend on how few speakers
    there are.

    Returns: None where no speaker is known, since all tests draw utterances then, and where items have several: trials
        and mixtures share recordings.
    """
    named = [speaker for speaker in trials.speakers if speaker is not None]
    if not named or not all(isinstance(speaker, str) for speaker in named):
        return None
    return replace(trials, speakers=[None] * len(trials.speakers))


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
