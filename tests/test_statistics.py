"""Intervals hold the truth as often as they say, tests see no difference in none, letters tell who ties with whom."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from core.metrics import Metric, get_metric
from leaderboard import statistics
from leaderboard.statistics import Trials, difference, holm, interval, letters, resample


def share(sums: np.ndarray) -> np.ndarray:
    return np.asarray(sums[..., 0] / sums[..., 1])


def errors_of(prediction: object, reference: object) -> tuple[float, ...]:
    return (float(prediction != reference), 1.0)


BOUNDED = Metric("share", "Share", "", "lower", (0.0, 1.0), "ratio", errors_of, share)
UNBOUNDED = replace(BOUNDED, bounds=(0.0, None))
PERCENT = replace(UNBOUNDED, unit="%", value=lambda sums: 100 * share(sums))


def trials(errors: np.ndarray, speakers: list[str | None] | None = None, totals: object = 1, bounded: bool = True):
    """One seed of each upstream; a rate of errors that has an upper end or not."""
    errors = np.atleast_2d(np.asarray(errors, float))
    totals = np.broadcast_to(np.asarray(totals, float), errors.shape)
    statistics = [np.stack([each, total], axis=1)[None] for each, total in zip(errors, totals, strict=True)]
    return Trials(BOUNDED if bounded else UNBOUNDED, statistics, speakers or [None] * errors.shape[1])


def voices(count: int, each: int) -> list[str]:
    return [f"s{number}" for number in range(count) for _ in range(each)]


def test_without_speakers_it_is_the_interval_of_the_log_odds():
    errors = np.repeat([1.0, 0.0], [30, 170])
    low, high = interval(resample(trials(errors)), 0)
    half = stats.t.ppf(0.975, 199) / np.sqrt(200 * 0.15 * 0.85)  # standard error of the log odds of 30 in 200
    expected = 1 / (1 + np.exp(-(np.log(0.15 / 0.85) + np.array([-half, half]))))
    assert (low, high) == pytest.approx(expected, abs=0.004)


def test_with_speakers_it_is_students_on_their_rates():
    rates = np.array([0.1, 0.2, 0.2, 0.3, 0.4, 0.3])
    errors = np.concatenate([np.repeat([1.0, 0.0], [round(40 * rate), 40 - round(40 * rate)]) for rate in rates])
    draws = resample(trials(errors, voices(6, 40)))
    assert (draws.units, draws.by_speaker) == (6, True)
    half = stats.t.ppf(0.975, 5) * rates.std(ddof=1) / np.sqrt(6) / (0.25 * 0.75)
    expected = 1 / (1 + np.exp(-(np.log(0.25 / 0.75) + np.array([-half, half]))))
    assert interval(draws, 0) == pytest.approx(expected, abs=0.01)


def test_error_rates_are_ratios_of_sums_and_have_no_upper_end():
    errors, words = np.array([4, 0, 6, 3, 1, 2.0]), np.array([4, 2, 3, 3, 5, 3.0])
    draws = resample(trials(errors, None, words, bounded=False))
    assert draws.values[0] == pytest.approx(16 / 20)
    low, high = interval(draws, 0)
    assert 0 < low < 0.8 < 1 < high
    assert low * high == pytest.approx(0.8**2)


def test_the_interval_of_a_ratio_is_that_of_its_linearisation():
    rng = np.random.default_rng(2)
    words = rng.integers(1, 12, 400).astype(float)
    errors = rng.binomial(words.astype(int), 0.1 + 0.2 * rng.random(400)).astype(float)
    rate = errors.sum() / words.sum()
    deviation = np.sqrt(400 / 399 * ((errors - rate * words) ** 2).sum()) / words.sum()
    half = stats.t.ppf(0.975, 399) * deviation / rate
    found = interval(resample(trials(errors, None, words, bounded=False)), 0)
    assert found == pytest.approx((rate * np.exp(-half), rate * np.exp(half)), abs=0.002)


def test_the_same_data_give_the_same_interval():
    errors = np.random.default_rng(0).random((2, 60)) < 0.3
    assert interval(resample(trials(errors, voices(6, 10))), 1) == interval(resample(trials(errors, voices(6, 10))), 1)


@pytest.mark.parametrize("wrong", [0.0, 1.0])
def test_where_nothing_varies_the_interval_is_not_a_point(wrong):
    low, high = interval(resample(trials(np.full(300, wrong), voices(6, 50))), 0)
    edge = high if wrong == 0 else 1 - low
    assert 0.01 < edge < 0.03
    assert wrong in (low, high)
    alone = interval(resample(trials(np.full(300, wrong))), 0)
    assert alone.high - alone.low < high - low  # 300 independent utterances tell more than six speakers


def wilson(share: float, count: int, quantile: float) -> np.ndarray:
    """Wilson's interval (JASA 1927), as its two ends are written out."""
    square = quantile**2 / count
    half = quantile * np.sqrt(share * (1 - share) / count + square / (4 * count))
    return (share + square / 2 + np.array([-half, half])) / (1 + square)


@pytest.mark.parametrize(("metric", "whole"), [(BOUNDED, 1), (replace(BOUNDED, bounds=(0.0, 4.0)), 4), (PERCENT, 100)])
def test_where_nothing_varies_it_is_wilsons_of_the_utterances_with_students_quantile(metric, whole):
    """Each of six speakers errs as often as the others: never, or at every second utterance."""
    for errors in (np.zeros(60), np.tile([1.0, 0.0], 30)):
        draws = resample(replace(trials(errors, voices(6, 10)), metric=metric))
        share = float(draws.values[0]) / whole
        expected = whole * wilson(share, 60, float(stats.t.ppf(0.975, 5)))
        assert interval(draws, 0) == pytest.approx((max(0.0, expected[0]), expected[1]), abs=1e-9)


@pytest.mark.parametrize("metric", [UNBOUNDED, replace(PERCENT, bounds=(None, None)), replace(UNBOUNDED, unit="s")])
def test_what_is_no_share_has_its_value_alone_where_nothing_varies(metric):
    draws = resample(replace(trials(np.tile([1.0, 0.0], 30), voices(6, 10)), metric=metric))
    assert interval(draws, 0) == (draws.values[0], draws.values[0])


def test_one_speaker_is_no_sample_of_speakers():
    draws = resample(trials(np.repeat([1.0, 0.0], 20), ["anna"] * 40))
    assert (draws.units, draws.by_speaker) == (40, False)


def test_utterances_without_speaker_are_drawn_one_by_one_beside_the_speakers():
    """Silence: all right, so it varies nothing and only dilutes."""
    errors = np.concatenate([np.repeat([1.0, 0.0], 120), np.zeros(60)])
    rng = np.random.default_rng(1)
    order = rng.permutation(240)
    errors[:240] = errors[order]
    spoken = resample(trials(errors[:240], voices(8, 30)))
    both = resample(trials(errors, [*voices(8, 30), *[None] * 60]))
    assert (both.units, both.by_speaker) == (8, True)
    assert both.values[0] == pytest.approx(0.8 * spoken.values[0])
    assert both.resampled[0].std() == pytest.approx(0.8 * spoken.resampled[0].std(), rel=0.05)


@pytest.mark.parametrize(("speakers", "each", "rate", "spread"), [(6, 50, 0.1, 0.6), (12, 9, 0.55, 0.5),
                                                                  (8, 46, 0.5, 0.8)])  # fmt: skip
def test_intervals_hold_the_truth(speakers, each, rate, spread):
    """The sizes of the test sets of fsdd, barista and mini; benchmarks/interval_coverage.py does it at length."""
    rng = np.random.default_rng(7)
    nodes = rng.normal(size=200_000)
    center = np.log(rate / (1 - rate))
    truth = (1 / (1 + np.exp(-center - spread * nodes))).mean()
    held = usual = 0
    for _ in range(400):
        odds = center + spread * rng.normal(size=speakers)
        errors = (rng.random((speakers, each)) < (1 / (1 + np.exp(-odds)))[:, None]).ravel()
        draws = resample(trials(errors, voices(speakers, each)))
        low, high = interval(draws, 0)
        held += low <= truth <= high
        edges = np.quantile(draws.resampled[0], [0.025, 0.975])
        usual += edges[0] <= truth <= edges[1]
    assert 0.92 <= held / 400 <= 0.98
    assert usual < held


def test_the_paired_test_sees_a_difference_in_none_as_often_as_it_says():
    rng = np.random.default_rng(3)
    seen = 0
    for _ in range(400):
        odds = rng.normal(size=8) + 0.7 * rng.normal(size=(2, 8))  # speakers differ, and differ with the upstream
        errors = rng.random((2, 8, 40)) < (1 / (1 + np.exp(-odds)))[:, :, None]
        seen += difference(resample(trials(errors.reshape(2, -1), voices(8, 40))), 0, 1).p < 0.05
    assert 0.02 <= seen / 400 <= 0.08


def test_pairs_are_compared_utterance_by_utterance():
    """Both err where it is hard: by themselves they could not be told apart."""
    rng = np.random.default_rng(5)
    hard = rng.random(600) < 0.5
    better = hard & (rng.random(600) < 0.9)
    draws = resample(trials([hard, better], voices(12, 50)))
    one, other = interval(draws, 0), interval(draws, 1)
    assert one.low < other.high
    found = difference(draws, 0, 1)
    assert found.p < 0.001
    assert found.interval.low < found.value < found.interval.high
    assert difference(draws, 1, 0).value == -found.value


def test_unanimous_speakers_make_no_certainty_of_few_utterances():
    draws = resample(trials([[1, 1, 1.0], [0, 0, 0]], ["a", "b", "c"]))
    assert difference(draws, 0, 1).p == 0.25
    assert difference(draws, 0, 0).p == 1
    draws = resample(trials([[1, 0, 1, 0, 1, 0], [0] * 6], voices(3, 2)))
    assert difference(draws, 0, 1).p == 0.25, "utterances on which they agree say nothing"


def test_a_mean_without_bounds_has_students_interval_of_the_mean():
    """Decibels: no end, so no logarithm and no log odds."""
    bounds = (None, None)
    metric = Metric("gain", "Gain", "dB", "higher", bounds, "mean", lambda one, other: (one,), lambda x: x[..., 0])
    gains = np.random.default_rng(4).normal(-1, 3, 200)
    draws = resample(Trials(metric, [gains[None, :, None]], [None] * 200))
    half = stats.t.ppf(0.975, 199) * gains.std(ddof=1) / np.sqrt(200)
    assert interval(draws, 0) == pytest.approx((gains.mean() - half, gains.mean() + half), abs=0.02)
    still = resample(Trials(metric, [np.full((1, 200, 1), 2.0)], [None] * 200))
    assert interval(still, 0) == (2.0, 2.0)


def test_seeds_are_averaged_inside_each_draw():
    """Of a value that is no sum of errors, the mean over seeds is not the value of the mean."""
    metric = replace(BOUNDED, value=lambda sums: share(sums) ** 2)
    errors = (np.random.default_rng(6).random((2, 80)) < [[0.2], [0.6]]).astype(float)
    statistics = np.stack([errors, np.ones_like(errors)], axis=2)
    both = resample(Trials(metric, [statistics], [None] * 80))
    alone = [resample(Trials(metric, [statistics[seed : seed + 1]], [None] * 80)) for seed in (0, 1)]
    assert both.values[0] == pytest.approx(np.mean([each.values[0] for each in alone]))
    assert both.resampled[0] == pytest.approx(np.mean([each.resampled[0] for each in alone], axis=0))
    assert both.values[0] != pytest.approx(metric.of(statistics.mean(axis=0)))


def verification(rng, speakers: int, each: int, separation: float) -> tuple[np.ndarray, list[tuple[str, ...]]]:
    """All trials of some utterances of simulated speakers, with the pair of speakers of each."""
    centers = np.repeat(rng.normal(0, separation, (speakers, 8)), each, axis=0)
    embeddings = centers + rng.normal(size=centers.shape)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    names = voices(speakers, each)
    first, second = np.triu_indices(len(names), 1)
    scores = (embeddings[first] * embeddings[second]).sum(axis=1)
    pairs = [(names[one], names[other]) for one, other in zip(first, second, strict=True)]
    return np.stack([scores, [float(one == other) for one, other in pairs]], axis=1), pairs


def test_trials_of_two_speakers_count_as_often_as_both_were_drawn(monkeypatch):
    """Drawn speakers stand for all of their trials: the value of a draw is that of the trials it repeats."""
    rows, pairs = verification(np.random.default_rng(8), 4, 3, 1.0)
    times = {"s0": 2, "s1": 0, "s2": 1, "s3": 1}
    monkeypatch.setattr(statistics, "_times_drawn", lambda rng, draws, count: np.tile([2.0, 0, 1, 1], (draws, 1)))
    draws = resample(Trials(get_metric("eer"), [rows[None]], pairs))
    repeats = [times[one] * (times[other] if other != one else 1) for one, other in pairs]
    drawn = get_metric("eer").of(np.repeat(rows, repeats, axis=0))
    scale = np.sqrt(4 / 3)
    assert draws.resampled[0] == pytest.approx(draws.values[0] + scale * (drawn - draws.values[0]))
    assert (draws.units, draws.by_speaker) == (4, True)


def test_intervals_of_equal_error_rates_hold_the_truth_where_speakers_are_drawn():
    """Trials drawn one by one, as if each were independent of those with the same voices, hold it far too seldom."""
    rng = np.random.default_rng(9)
    metric = get_metric("eer")
    truth = np.mean([metric.of(verification(rng, 60, 6, 0.7)[0]) for _ in range(8)])
    held = naive = 0
    for _ in range(16):
        rows, pairs = verification(rng, 8, 10, 0.7)
        low, high = interval(resample(Trials(metric, [rows[None]], pairs), 400), 0)
        held += low <= truth <= high
        low, high = interval(resample(Trials(metric, [rows[None]], [None] * len(pairs)), 400), 0)
        naive += low <= truth <= high
    assert held >= 14
    assert naive <= 10


def test_holm():
    # 0.01 x 4, 0.02 x 3, then 0.03 x 2 and 0.04, which may not be below 0.06
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([]) == []


def pairs(text: str) -> frozenset[frozenset[str]]:
    return frozenset(map(frozenset, text.split()))


def test_letters():
    assert letters("abc", pairs("")) == {"a": "a", "b": "a", "c": "a"}
    assert letters("abc", pairs("ab ac bc")) == {"a": "a", "b": "b", "c": "c"}
    assert letters("abcd", pairs("ac ad bd")) == {"a": "a", "b": "ab", "c": "bc", "d": "c"}
    assert letters("ab", pairs("ab"))["a"] == "a"
    many = [f"{number:02}" for number in range(30)]
    every = frozenset(frozenset((one, other)) for one in many for other in many if one != other)
    assert letters(many, every)["27"] == "ab"


NAMES = "abcdefg"
some_pairs = st.sets(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)))


@given(st.integers(1, len(NAMES)), some_pairs)
def test_names_share_a_letter_if_and_only_if_they_tie(count, marked):
    names = NAMES[:count]
    different = frozenset(frozenset(pair) for pair in marked if set(pair) <= set(names) and len(set(pair)) == 2)
    shown = letters(names, different)
    for one in names:
        assert shown[one]
        for other in names:
            tie = one == other or frozenset((one, other)) not in different
            assert bool(set(shown[one]) & set(shown[other])) == tie
    columns = [{name for name in names if letter in shown[name]} for letter in sorted(set("".join(shown.values())))]
    assert not any(one < other for one in columns for other in columns), "a letter that says what another does"


def test_the_value_of_folds_is_the_mean_of_theirs_and_they_are_drawn_apart():
    """By hand: half of ten and a quarter of four are 0.375, where pooled rows had 0.43; variances of the means add."""
    errors = np.array([1, 0] * 5 + [0, 0, 1, 0], dtype=float)
    folds = ["a"] * 10 + ["b"] * 4
    found = replace(trials(errors, [f"v{n}" for n in range(14)]), folds=folds)
    assert found.values() == pytest.approx([0.375])
    draws = resample(found)
    variance = sum(wrong * (1 - wrong) / (count - 1) for wrong, count in ((0.5, 10), (0.25, 4))) / 4
    assert np.var(draws.resampled[0]) == pytest.approx(variance, rel=0.06)
    assert draws.units == 1 + 9 + 3 and draws.by_speaker
    low, high = interval(draws, 0)
    assert low < 0.375 < high


@pytest.mark.parametrize("speakers", [(6, 6), (6, 6, 6, 6, 6), (6, 7)])
def test_draws_of_one_fold_say_nothing_of_those_of_another(speakers):
    """Not in folds of one size either: variances of the means add, where equal draws would make the interval wider."""
    names = "abcde"[: len(speakers)]
    errors = np.array([wrong for count in speakers for wrong in ([1, 0] * 4)[:count]], dtype=float)
    folds = [name for name, count in zip(names, speakers, strict=True) for _ in range(count)]
    found = replace(trials(errors, [f"{fold}{n}" for n, fold in enumerate(folds)]), folds=folds)
    parts = [errors[[n for n, fold in enumerate(folds) if fold == name]] for name in names]
    variance = sum(part.var(ddof=1) / len(part) for part in parts) / len(parts) ** 2
    assert np.var(resample(found).resampled[0]) == pytest.approx(variance, rel=0.08)


def test_folds_of_one_speaker_each_are_drawn_whole():
    errors = np.array([1, 0] * 5 + [0] * 4 + [0, 0, 0, 1])
    speakers = ["anna"] * 10 + ["ben"] * 4 + ["cleo"] * 4
    draws = resample(replace(trials(errors, speakers), folds=["1"] * 10 + ["2"] * 4 + ["3"] * 4))
    assert draws.values == pytest.approx([0.25]) and (draws.units, draws.by_speaker) == (3, True)
    assert np.std(draws.resampled[0]) == pytest.approx(np.std([0.5, 0, 0.25], ddof=1) / 3**0.5, rel=0.05)


def test_upstreams_are_compared_on_the_same_draws_of_every_fold():
    rng = np.random.default_rng(3)
    first = rng.random(60) < 0.5
    second = first.copy()
    second[:6] = True  # wrong on a few more, all else the same
    both = np.stack([first, second]).astype(float)
    found = replace(trials(both, voices(12, 5)), folds=["a"] * 40 + ["b"] * 20)
    draws = resample(found)
    gap = difference(draws, 0, 1)
    parts = [np.mean(both[0, part]) - np.mean(both[1, part]) for part in (slice(0, 40), slice(40, 60))]
    assert gap.value == pytest.approx(np.mean(parts))
    assert np.std(draws.resampled[0] - draws.resampled[1]) < np.std(draws.resampled[0]) / 2
