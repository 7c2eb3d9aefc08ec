"""How often do the leaderboard's 95 % intervals hold the truth, and how often does its test see a difference in none?

    python benchmarks/interval_coverage.py results [MORE_RESULTS ...] [--draws 1000]

Every cell of the records becomes a population whose truth is known: its speakers' log odds of an error vary normally,
by as much as those of the record do; each says as many utterances as in the record, drawn from the cell's own and
weighted so that errors come at the speaker's rate. From each population many test sets are drawn and judged as the
leaderboard judges: its intervals should hold the truth 95 times in a hundred, 93 to 97 is asked for; its test of two
upstreams that are alike should see a difference 5 times in a hundred. Beside it stand the usual percentile intervals.
Where a test set has fewer than ten errors its rate goes in steps, and intervals can only be too wide; they are marked.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit

from core.metrics import get_metric
from core.records import RecordStore
from leaderboard.grouping import grouped
from leaderboard.result_cells import judged, trials_of
from leaderboard.statistics import Trials, difference, interval, resample

NODES = np.linspace(-3, 3, 61)  # of the normal distribution of speakers, cut to what can be tabulated
MASSES = np.exp(-(NODES**2) / 2) / np.exp(-(NODES**2) / 2).sum()
FEW_ERRORS = 10


class Population:
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

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Errors and totals of the utterances of other speakers."""
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


def tried(population: Population, draws: int, seed: int) -> tuple[float, float, float]:
    """Percentage of test sets whose interval, whose percentile interval, and whose paired test was right."""
    rng = np.random.default_rng(seed)
    speakers = population.speakers()
    held = usual = quiet = 0
    for _ in range(draws):
        (first, totals), (second, _) = population.draw(rng), population.draw(rng)
        # The second upstream hears the words of the first.
        statistics = [np.stack([errors, totals], axis=1)[None] for errors in (first, second)]
        found = resample(Trials(population.metric, statistics, speakers))
        low, high = interval(found, 0)
        held += low <= population.truth <= high
        shrunk = np.sqrt((found.units - 1) / found.units)
        low, high = found.values[0] + shrunk * np.quantile(found.resampled[0] - found.values[0], [0.025, 0.975])
        usual += low <= population.truth <= high
        quiet += difference(found, 0, 1).p >= 0.05
    return 100 * held / draws, 100 * usual / draws, 100 * quiet / draws


def main() -> None:
    """Prints a row a cell, and the range."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--draws", type=int, default=1000)
    arguments = parser.parse_args()
    print(f"{'cell':<44}{'value %':>9}{'units':>6}{'interval':>10}{'percentile':>11}{'no difference':>14}", flush=True)
    kept, means = [], []
    for store in map(RecordStore, arguments.results):
        for group in grouped(store.all()):
            for task in sorted({entry.task for entry in group.entries}):
                entries = [entry for entry in group.entries if entry.task == task]
                metric = get_metric(entries[0].record.metric["name"])
                found = judged(store, entries)
                trials = trials_of(metric, found.runs, found.folds) or sys.exit(f"{store.folder}: no predictions")
                for place, upstream in enumerate(found.runs):
                    population = Population(trials, place)
                    held, usual, quiet = tried(population, arguments.draws, seed=len(means))
                    errors, total = trials.statistics[place].mean(axis=0).sum(axis=0)
                    few = min(errors, total - errors) < FEW_ERRORS
                    name = f"{entries[0].corpus} {task} {upstream}{' (few errors)' if few else ''}"
                    units = len(population.sizes)
                    print(f"{name:<44}{population.truth:9.1f}{units:6}{held:10.1f}{usual:11.1f}{quiet:14.1f}",
                          flush=True)  # fmt: skip
                    kept += [] if few else [held]
                    means += [] if few else [(held, usual, quiet)]
    held, usual, quiet = np.mean(means, axis=0)
    print(f"\n{len(kept)} cells with {FEW_ERRORS} errors or more, {arguments.draws} test sets each: intervals hold the "
          f"truth in {held:.1f} % ({min(kept):.1f} to {max(kept):.1f} by cell), percentile intervals in {usual:.1f} %; "
          f"the test sees no difference in {quiet:.1f} %")  # fmt: skip


if __name__ == "__main__":
    main()
