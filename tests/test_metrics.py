"""Metrics against values computed by hand, and against slow references written here."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import MetricError, UnknownNameError
from core.metrics import METRICS, Metric, find_metric, get_metric, marked_values, register_metric

accuracy, word_error_rate, character_error_rate, equal_error_rate, slot_type_f1, slot_value_cer = (
    get_metric(name).compute for name in ("accuracy", "wer", "cer", "eer", "slot_type_f1", "slot_value_cer")
)


@pytest.mark.parametrize(
    ("predictions", "references", "expected"),
    [
        (["a"], ["a"], 100.0),
        (["a", "b", "b"], ["a", "b", "c"], 200 / 3),
        (["x", "y"], ["a", "b"], 0.0),
        ([{"action": "on", "object": "lamp"}], [{"action": "on", "object": "lamp"}], 100.0),
        # one slot of two wrong: the whole utterance is
        ([{"action": "on", "object": "radio"}], [{"action": "on", "object": "lamp"}], 0.0),
        ([{"action": "on"}, {"action": "on"}], [{"action": "on"}, {"action": "off"}], 50.0),
    ],
)
def test_accuracy(predictions, references, expected):
    assert accuracy(predictions, references) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("predictions", "references", "expected"),
    [
        (["the cat sat"], ["the cat sat"], 0.0),
        (["the hat sat"], ["the cat sat"], 100 / 3),  # one substitution in three words
        (["cat sat"], ["the cat sat"], 100 / 3),  # one deletion
        (["the big cat sat"], ["the cat sat"], 100 / 3),  # one insertion
        ([""], ["the cat sat"], 100.0),
        (["a b c d"], ["x"], 400.0),  # more errors than words
        (["a", "a b"], ["a", "b b b"], 50.0),  # of the corpus: 2 of 4 words, not the mean of 0 and 2/3
        (["a", "b c"], ["a", ""], 200.0),  # two words said against an empty reference: insertions
        (["a", ""], ["a", ""], 0.0),
    ],
)
def test_word_error_rate(predictions, references, expected):
    assert word_error_rate(predictions, references) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("predictions", "references", "expected"),
    [
        (["kitten"], ["kitten"], 0.0),
        (["sitting"], ["kitten"], 50.0),  # Levenshtein's example: 3 edits in 6 characters
        (["ab"], ["a b"], 100 / 3),  # a space counts
        (["", "abc"], ["abc", "abc"], 50.0),
    ],
)
def test_character_error_rate(predictions, references, expected):
    assert character_error_rate(predictions, references) == pytest.approx(expected)


@pytest.mark.parametrize("metric", list(METRICS), ids=lambda metric: metric.name)
def test_nothing_to_compare_is_refused(metric):
    for predictions, references in (([], []), (["a"], []), (["a"], ["a", "b"])):
        with pytest.raises(MetricError, match="one each is needed"):
            metric.compute(predictions, references)


def test_empty_references_alone_have_no_error_rate():
    with pytest.raises(MetricError, match="every reference is empty"):
        word_error_rate(["a"], [" "])


def test_unit_and_direction():
    told = {metric.name: (metric.unit, metric.direction, metric.sign, metric.optimum) for metric in METRICS}
    lower, higher = ("%", "lower", -1, 0.0), ("%", "higher", 1, 100.0)
    rates = dict.fromkeys(("wer", "cer", "per", "slot_value_cer", "eer", "der"), lower)
    signals = {
        "pesq": ("", "higher", 1, 4.643888474),
        "si_sdri": ("dB", "higher", 1, None),
        "stoi": higher,
        "bleu": ("", "higher", 1, 100.0),
    }
    assert told == {
        **dict.fromkeys(("accuracy", "slot_type_f1", "mtwv", "map_r", "v_measure"), higher),
        **rates,
        **signals,
    }
    with pytest.raises(UnknownNameError, match="did you mean 'accuracy'"):
        get_metric("acuracy")


def edits(one: list[str] | str, other: list[str] | str) -> int:
    """Levenshtein's distance by its definition, without a table."""
    if not one or not other:
        return len(one) + len(other)
    if one[-1] == other[-1]:
        return edits(one[:-1], other[:-1])
    return 1 + min(edits(one[:-1], other[:-1]), edits(one[:-1], other), edits(one, other[:-1]))


words = st.lists(st.sampled_from(["a", "b", "ab"]), max_size=5).map(" ".join)
pairs = st.lists(st.tuples(words, words), min_size=1, max_size=4).filter(lambda rows: any(text for _, text in rows))


@given(pairs)
def test_error_rates_equal_a_slow_reference(rows):
    predictions, references = [row[0] for row in rows], [row[1] for row in rows]
    word_edits = sum(edits(one.split(), other.split()) for one, other in rows)
    wer = 100 * word_edits / sum(len(text.split()) for text in references)
    assert math.isclose(word_error_rate(predictions, references), wer, abs_tol=1e-9)
    short = [(one[:5].strip(), other[:5].strip()) for one, other in rows]
    if any(text for _, text in short):
        cer = 100 * sum(edits(*pair) for pair in short) / sum(len(text) for _, text in short)
        found = character_error_rate([one for one, _ in short], [text for _, text in short])
        assert math.isclose(found, cer, abs_tol=1e-9)


@given(pairs, st.randoms(use_true_random=False))
def test_metrics_stay_in_range_and_do_not_depend_on_order(rows, random):
    shuffled = list(rows)
    random.shuffle(shuffled)
    for metric in map(get_metric, ("accuracy", "wer", "cer", "per", "slot_type_f1")):
        value = metric.compute([row[0] for row in rows], [row[1] for row in rows])
        assert 0 <= value <= (100 if metric.direction == "higher" else math.inf)
        again = metric.compute([row[0] for row in shuffled], [row[1] for row in shuffled])
        assert math.isclose(value, again, abs_tol=1e-9)


@given(words.filter(bool), words.filter(bool))
def test_edits_are_symmetric(one, other):
    forth = word_error_rate([one], [other]) * len(other.split())
    back = word_error_rate([other], [one]) * len(one.split())
    assert math.isclose(forth, back, abs_tol=1e-9)


def test_a_metric_of_ones_own_is_found_and_one_that_is_not_there_is_none():
    assert find_metric("sdr") is None
    made = Metric("sdr", "SDR", "dB", "higher", (None, None), "mean", lambda one, other: (one - other,), first)
    assert register_metric(made) is find_metric("sdr") is get_metric("sdr")
    assert made.optimum is None
    assert made.recorded() == {
        "name": "sdr", "title": "SDR", "unit": "dB", "direction": "higher", "bounds": [None, None],
    }  # fmt: skip
    assert made.compute([3.0, -1.0], [1.0, 1.0]) == 0.0


def first(means):
    return means[..., 0]


def test_a_value_is_the_same_in_any_order_to_the_last_bit():
    """A mean of floats is summed exactly, so it does not depend on the order, nor on a machine's way of summing."""
    made = Metric("score", "S", "", "higher", (None, None), "mean", lambda one, other: (one,), first)
    scores = [0.1 * 3**k for k in range(-20, 20)]
    assert made.compute(scores, scores) == made.compute(scores[::-1], scores) == math.fsum(scores) / 40


def slow_equal_error_rate(scores, targets, weights):
    """By walking down the scores one threshold at a time, and bisecting the segment on which the rates cross."""
    sides = [sum(w for t, w in zip(targets, weights, strict=True) if t == side) for side in (1, 0)]
    if not all(sides):
        return math.nan
    points = [(0.0, 0.0)]
    for threshold in sorted(set(scores), reverse=True):
        taken = [(t, w) for s, t, w in zip(scores, targets, weights, strict=True) if s >= threshold]
        points.append(tuple(sum(w for t, w in taken if t == side) / sides[1 - side] for side in (0, 1)))
    for (alarms, hits), (more_alarms, more_hits) in itertools.pairwise(points):
        if more_alarms >= 1 - more_hits:
            low, high = 0.0, 1.0
            for _ in range(60):
                middle = (low + high) / 2
                over = alarms + middle * (more_alarms - alarms) >= 1 - hits - middle * (more_hits - hits)
                low, high = (low, middle) if over else (middle, high)
            return 100 * (alarms + high * (more_alarms - alarms))
    raise AssertionError("everything accepted has no misses")


trials = st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.integers(0, 3)), min_size=2, max_size=12)


@given(trials)
def test_weighted_equal_error_rates_equal_a_slow_reference(rows):
    """Draws of the bootstrap are weights: all are computed at once, and each is what it is alone."""
    scores, targets, weights = zip(*rows, strict=True)
    statistics = np.array([[score, target] for score, target, _ in rows], dtype=float)
    draws = np.array([weights, [1] * len(rows), weights[::-1]], dtype=float)
    found = get_metric("eer").weighted(statistics, np.ones(len(rows)), draws)
    for value, drawn in zip(found, draws, strict=True):
        expected = slow_equal_error_rate(scores, targets, drawn)
        assert math.isclose(value, expected, abs_tol=1e-6) or (math.isnan(value) and math.isnan(expected))


def test_an_equal_error_rate_needs_both_kinds_of_trials():
    with pytest.raises(MetricError, match="eer: 2 items give no value"):
        equal_error_rate([0.1, 0.2], [True, True])
    assert equal_error_rate([0.9, 0.1], [True, False]) == 0
    assert equal_error_rate([0.1, 0.9], [True, False]) == 100
    assert equal_error_rate([0.5, 0.5], [True, False]) == 50


@pytest.mark.parametrize("kind", ["accuracy", "slot_type_f1"])
def test_sums_of_groups_give_the_value_of_their_items(kind):
    """What the bootstrap draws are groups: drawn twice, a group counts as all its items twice."""
    metric = get_metric(kind)
    texts = ["B-x A E-x", "B-x A E-x B-y B E-y", "C", "B-y B E-y"]
    rows = [metric.statistics(one, other) for one in texts for other in texts]
    groups = np.arange(16) % 3
    sums = np.stack([np.bincount(groups, column) for column in np.array(rows, dtype=float).T], axis=1)
    drawn = metric.weighted(sums, np.bincount(groups).astype(float), np.array([[2.0, 0.0, 1.0]]))
    repeated = [row for row, group in zip(rows, groups, strict=True) for _ in range((2, 0, 1)[group])]
    assert drawn == pytest.approx(metric.of(repeated))


def test_slots_are_what_stands_between_two_marks_of_a_type():
    text = "BOOK B-people TWO E-people IN B-city NEW B-x YORK E-city AND B-city OSLO E-city E-x"
    assert marked_values(text) == {"people": ["TWO"], "city": ["NEW YORK", "OSLO"]}
    assert marked_values("no slots, B-half open") == {}
    # edits against the nearest value of the type: OSLO for OSLO, and all of NEW YORK is missing
    assert slot_value_cer(["B-city OSLO E-city"], [text]) == pytest.approx(100 * (3 + 7) / (3 + 8 + 4))
    assert slot_type_f1(["B-city OSLO E-city"], [text]) == pytest.approx(100 * 2 / 3)


@pytest.mark.parametrize(
    ("metric", "one", "other"),
    [
        ("accuracy", "caf\u00e9", "cafe\u0301"),
        ("accuracy", {"drink": "caf\u00e9"}, {"drink": "cafe\u0301"}),
        ("wer", "caf\u00e9 noir", "cafe\u0301 noir"),
        ("cer", "caf\u00e9", "cafe\u0301"),
        ("per", "\u00e3 b", "a\u0303 b"),
        ("slot_type_f1", "B-caf\u00e9 x E-caf\u00e9", "B-cafe\u0301 x E-cafe\u0301"),
        ("slot_value_cer", "B-a caf\u00e9 E-a", "B-a cafe\u0301 E-a"),
    ],
)
def test_composed_and_decomposed_letters_are_equal(metric, one, other):
    known = get_metric(metric)
    for pair in ((one, other), (other, one)):
        assert known.compute([pair[0]], [pair[1]]) == known.optimum
    assert known.statistics(one, other) == known.statistics(one, one), "nor are they counted twice"
