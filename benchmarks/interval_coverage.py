"""How often do the leaderboard's 95 % intervals hold the truth, and how often does its test see a difference in none?

    python -m benchmarks.interval_coverage [--population "eer, mini" ...] [--draws 400]
    python -m benchmarks.interval_coverage results [MORE_RESULTS ...] [--draws 1000]

From populations whose truth is known many test sets are drawn and judged as the leaderboard judges: its intervals
should hold the truth 95 times in a hundred, 93 to 97 is asked for; its test of two upstreams that are alike should see
a difference 5 times in a hundred at most. Beside it stand the usual percentile intervals. With `--resamples 300`, a
tenth of the leaderboard's, standard errors are good to 4 %, which costs intervals less than 0.1 points.

Without folders of results the populations are simulated, some for each metric (`_populations.py`); a test set of pairs
takes a second or two. With folders, every cell of errors and totals becomes a population: its speakers' log odds of an
error vary normally, by as much as those of the record do; each says as many utterances as in the record, drawn from the
cell's own and weighted so that errors come at the speaker's rate. Where a test set has fewer than ten errors its rate
goes in steps, and intervals can only be too wide; they are marked.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit

from benchmarks._populations import POPULATIONS
from core.metrics import get_metric
from core.records import RecordStore
from leaderboard.grouping import Entry, grouped
from leaderboard.result_cells import judged, trials_of
from leaderboard.statistics import RESAMPLES, Trials, difference, interval, resample

NODES = np.linspace(-3, 3, 61)  # of the normal distribution of speakers, cut to what can be tabulated
MASSES = np.exp(-(NODES**2) / 2) / np.exp(-(NODES**2) / 2).sum()
FEW_ERRORS = 10


class RecordedPopulation:
    """Where test sets of a cell are drawn from.

    Args:
        trials: of the cell's column.
        upstream: place of the cell's upstream in it.
    """

    def __init__(self, trials: Trials, upstream: int) -> None:
        named = np.array([speaker is not None for speaker in trials.speakers])
        self.by_speaker = len({speaker for speaker in trials.speakers if speaker is not None}) > 1
        spoken = named if self.by_speaker else np.full(len(named), True)
        self.metric = trials.metric
        errors, totals = trials.statistics[upstream].mean(axis=0).T  # of a metric of errors and totals
        self.errors, self.totals = errors[spoken], totals[spoken]
        self.alone = errors[~spoken], totals[~spoken]  # silence, which no speaker says
        names = np.array([str(speaker) for speaker in trials.speakers])[spoken]
        units = np.unique(names, return_inverse=True)[1] if self.by_speaker else np.arange(len(names))
        self.sizes = np.bincount(units)
        spread = spread_of_speakers(self.errors, self.totals, units) if self.by_speaker else 0.0
        step = 0.5 / (len(self.errors) + 1)  # a record without errors may come from an upstream that makes some
        rate = float(np.clip(self.errors.sum() / self.totals.sum(), step, 1 - step))
        if self.errors.sum() in (0, self.totals.sum()):
            self.errors = np.append(self.errors, self.totals[0] - self.errors[0])
            self.totals = np.append(self.totals, self.totals[0])
        rates = expit(logit(rate) + spread * NODES)
        weights = np.array([tilted(self.errors, self.totals, each) for each in rates])
        self.chances = weights.cumsum(axis=1)
        said = self.sizes.sum() * (MASSES @ weights @ np.stack([self.errors, self.totals], axis=1))
        silent = np.array([part.sum() for part in self.alone])
        self.truth = float(self.metric.value(said + silent))

    def draw(self, rng: np.random.Generator) -> Trials:
        """Two upstreams on the utterances of other speakers; the second's recordings are as long as the first's."""
        (first, totals), (second, _) = self._errors(rng), self._errors(rng)
        statistics = [np.stack([errors, totals], axis=1)[None] for errors in (first, second)]
        return Trials(self.metric, statistics, self.speakers())

    def _errors(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Errors and totals."""
        speakers = np.repeat(rng.choice(len(NODES), len(self.sizes), p=MASSES), self.sizes)
        below = self.chances[speakers] < rng.random(len(speakers))[:, None]
        picks = below.sum(axis=1).clip(max=len(self.errors) - 1)
        silent = rng.integers(0, max(1, len(self.alone[0])), len(self.alone[0]))
        return (
            np.concatenate([self.errors[picks], self.alone[0][silent]]),
            np.concatenate([self.totals[picks], self.alone[1][silent]]),
        )

    def speakers(self) -> list[str | None]:
        """Of the utterances that are drawn."""
        names = np.repeat(np.arange(len(self.sizes)), self.sizes)
        return [str(name) if self.by_speaker else None for name in names] + [None] * len(self.alone[0])


def tilted(errors: np.ndarray, totals: np.ndarray, rate: float) -> np.ndarray:
    """Weights of utterances, exponential in their excess of errors, under which the error rate is the wanted one."""
    gaps = errors - rate * totals
    gaps = gaps / np.abs(gaps).max()

    def weights(k: float) -> np.ndarray:
        powers = np.exp(k * gaps - np.max(k * gaps))
        return powers / powers.sum()

    ends = [float(weights(k) @ gaps) for k in (-200, 200)]
    if ends[0] * ends[1] > 0:  # beyond what the utterances of the record can give
        return weights(-200 if ends[0] > 0 else 200)
    return weights(brentq(lambda k: float(weights(k) @ gaps), -200, 200))


def spread_of_speakers(errors: np.ndarray, totals: np.ndarray, units: np.ndarray) -> float:
    """Standard deviation of the speakers' log odds: what their rates vary by beyond what their utterances explain.

    By the method of moments, from the analysis of variance of errors - rate * totals.
    """
    rate = errors.sum() / totals.sum()
    gaps = errors - rate * totals
    sums, sizes = np.bincount(units, gaps), np.bincount(units)
    within = (gaps @ gaps - (sums**2 / sizes).sum()) / max(1, len(gaps) - len(sizes))
    effective = (len(gaps) - (sizes**2).sum() / len(gaps)) / (len(sizes) - 1)
    between = max(0.0, ((sums**2 / sizes).sum() / (len(sizes) - 1) - within) / effective)
    return float(np.sqrt(between) / totals.mean() / (rate * (1 - rate))) if 0 < rate < 1 else 0.0


class Counted(NamedTuple):
    """Percentage of test sets whose interval, percentile interval and paired test were right."""

    interval: float
    percentiles: float
    quiet: float


def counted(
    draw: Callable[[np.random.Generator], Trials], truth: float, draws: int, seed: int, resamples: int = RESAMPLES
) -> Counted:
    """Judges many test sets as the leaderboard does.

    Args:
        draw: -> a test set of two upstreams that are alike.
        truth: what intervals should hold.
        draws: test sets.
        seed: of their generator.
        resamples: of each; the leaderboard's standard error has as many.
    """
    rng = np.random.default_rng(seed)
    right = np.zeros(3)
    for _ in range(draws):
        found = resample(draw(rng), resamples)
        low, high = interval(found, 0)
        shrunk = np.sqrt((found.units - 1) / found.units)
        usual = found.values[0] + shrunk * np.nanquantile(found.resampled[0] - found.values[0], [0.025, 0.975])
        right += low <= truth <= high, usual[0] <= truth <= usual[1], difference(found, 0, 1).p >= 0.05
    return Counted(*(100 * right / draws))


def error_of(percentage: float, draws: int) -> float:
    """Standard error of a percentage that was counted in so many test sets."""
    return float(np.sqrt(percentage * (100 - percentage) / draws))


def simulated(names: list[str], draws: int, resamples: int) -> None:
    """Prints a Markdown row for each population."""
    print(f"{draws} test sets each: 95.0 is counted with a standard error of {error_of(95, draws):.1f}\n")
    print("| metric | like | test set | truth | counted | interval | percentiles | false alarms |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for place, population in enumerate(POPULATIONS):
        if not names or population.name in names:
            truth = population.truth(np.random.default_rng([place, 0]))
            found = counted(population.draw, truth, draws, place, resamples)
            drawn = f"{population.metric} | {population.like} | {population.size} | {truth:.1f} | {draws}"
            print(f"| {drawn} | {found.interval:.1f} | {found.percentiles:.1f} | {100 - found.quiet:.1f} |", flush=True)


def recorded(folders: list[Path], draws: int, resamples: int) -> None:
    """Prints a row for each cell of the results, and the range."""
    print(f"{'cell':<44}{'value %':>9}{'units':>6}{'interval':>10}{'percentile':>11}{'no difference':>14}", flush=True)
    kept: list[Counted] = []
    for store in map(RecordStore, folders):
        for group in grouped(store.all()):
            for task in sorted({entry.task for entry in group.entries}):
                kept += _cells(
                    store, [entry for entry in group.entries if entry.task == task], draws, resamples, len(kept)
                )
    if not kept:
        sys.exit(f"no cell with {FEW_ERRORS} errors or more of a metric of errors and totals")
    held, usual, quiet = np.mean(kept, axis=0)
    least, most = min(each.interval for each in kept), max(each.interval for each in kept)
    print(f"\n{len(kept)} cells with {FEW_ERRORS} errors or more, {draws} test sets each: intervals hold the truth in "
          f"{held:.1f} % ({least:.1f} to {most:.1f} by cell), percentile intervals in {usual:.1f} %; the test sees no "
          f"difference in {quiet:.1f} %")  # fmt: skip


def _cells(store: RecordStore, entries: list[Entry], draws: int, resamples: int, seed: int) -> list[Counted]:
    """Of a task; those with few errors are printed alone."""
    metric = get_metric(entries[0].record.metric["name"])
    if metric.kind != "ratio":
        return []
    judged_runs = judged(store, entries)
    trials = trials_of(metric, judged_runs.runs, judged_runs.folds) or sys.exit(f"{store.folder}: no predictions")
    kept = []
    for place, upstream in enumerate(judged_runs.runs):
        population = RecordedPopulation(trials, place)
        found = counted(population.draw, population.truth, draws, seed + place, resamples)
        errors, total = trials.statistics[place].mean(axis=0).sum(axis=0)
        few = min(errors, total - errors) < FEW_ERRORS
        name = f"{entries[0].corpus} {entries[0].task} {upstream}{' (few errors)' if few else ''}"
        print(f"{name:<44}{population.truth:9.1f}{len(population.sizes):6}{found.interval:10.1f}"
              f"{found.percentiles:11.1f}{found.quiet:14.1f}", flush=True)  # fmt: skip
        kept += [] if few else [found]
    return kept


def main() -> None:
    """Counts and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="*", help="folders of results; simulated populations without")
    parser.add_argument("--population", action="append", choices=[each.name for each in POPULATIONS], help="several")
    parser.add_argument("--draws", type=int, default=1000, help="test sets of each population")
    parser.add_argument("--resamples", type=int, default=RESAMPLES, help=f"of each test set (default: {RESAMPLES})")
    arguments = parser.parse_args()
    if arguments.results:
        recorded(arguments.results, arguments.draws, arguments.resamples)
    else:
        simulated(arguments.population or [], arguments.draws, arguments.resamples)


if __name__ == "__main__":
    main()
