"""Metrics against values computed by hand, and against slow references written here."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import MetricError, UnknownNameError
from core.metrics import METRICS, accuracy, character_error_rate, get_metric, word_error_rate


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


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_nothing_to_compare_is_refused(metric):
    for predictions, references in (([], []), (["a"], []), (["a"], ["a", "b"])):
        with pytest.raises(MetricError, match="one each is needed"):
            metric.compute(predictions, references)


def test_empty_references_alone_have_no_error_rate():
    with pytest.raises(MetricError, match="every reference is empty"):
        word_error_rate(["a"], [" "])


def test_unit_and_direction():
    told = {name: (metric.unit, metric.direction, metric.sign, metric.optimum) for name, metric in METRICS.items()}
    lower = ("%", "lower", -1, 0.0)
    assert told == {"accuracy": ("%", "higher", 1, 100.0), "wer": lower, "cer": lower}
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
    for metric in METRICS.values():
        value = metric.compute([row[0] for row in rows], [row[1] for row in rows])
        assert 0 <= value <= (100 if metric.direction == "higher" else math.inf)
        again = metric.compute([row[0] for row in shuffled], [row[1] for row in shuffled])
        assert math.isclose(value, again, abs_tol=1e-9)


@given(words.filter(bool), words.filter(bool))
def test_edits_are_symmetric(one, other):
    forth = word_error_rate([one], [other]) * len(other.split())
    back = word_error_rate([other], [one]) * len(one.split())
    assert math.isclose(forth, back, abs_tol=1e-9)
