"""Parts of a board by themselves: the worst utterances over seeds, and how another head orders the same upstreams."""

from __future__ import annotations

import random
from dataclasses import replace

import made_boards
import pytest

from core.metrics import get_metric
from leaderboard.board import Board
from leaderboard.head_comparison import comparisons, rank_correlation
from leaderboard.mistakes import WORST, confusions, worst
from leaderboard.stored_predictions import Prediction

WER = get_metric("wer")


def said(name: str, prediction: str, reference: str, speaker: str | tuple[str, ...] | None = None) -> Prediction:
    return Prediction(name, prediction, reference, {"wer": WER.statistics(prediction, reference)}, speaker)


def test_each_utterance_stands_once_with_its_worst_hypothesis_of_all_seeds():
    first = [said("a", "x b", "a b", "anna"), said("b", "y", "b"), said("c", "c d", "c d"), said("d", "no", "")]
    second = [said("a", "x y", "a b", "anna"), said("b", "b", "b"), said("c", "c d", "c d"), said("d", "", "")]
    third = [said("a", "x b", "a b", "anna"), said("b", "b", "b"), said("c", "c x y z", "c d"), said("d", "", "")]
    found = worst(WER, {4: first, 7: second, 9: third})
    # One and a half errors a word; then one each, the more errors first, and of equal ones the last name.
    assert [(each.id, each.seed, each.errors, each.total) for each in found] == [
        ("c", 9, 3, 2), ("a", 7, 2, 2), ("d", 4, 1, 0), ("b", 4, 1, 1),
    ]  # fmt: skip
    assert [each.speaker for each in found] == ["", "anna", "", ""]
    assert found[1].alignment == (("substitute", "a b", "x y"),)
    assert found[2].alignment == (("insert", "", "no"),)


def test_no_more_than_the_worst_are_shown_and_speakers_of_a_mixture_are_all_named():
    rows = [said(f"{number:02}", "x " * number, "a", ("anna", "ben")) for number in range(2, WORST + 5)]
    found = worst(WER, {0: rows})
    assert [each.id for each in found] == [f"{number:02}" for number in range(WORST + 4, 4, -1)]
    assert {each.speaker for each in found} == {"anna, ben"}


def test_slots_of_a_confusion_are_in_order_and_one_that_was_not_said_is_empty():
    rows = [Prediction("a", {"to": "lamp"}, {"to": "door", "do": "on"}, {})]
    assert [(each.slot, each.labels, each.counts) for each in confusions(rows)] == [
        ("do", ("", "on"), ((1, 0, 1),)), ("to", ("door", "lamp"), ((0, 1, 1),)),
    ]  # fmt: skip


def test_rank_correlation_is_kendalls_with_ties():
    assert rank_correlation([1, 2], [5, 9]) == 1
    assert rank_correlation([1, 2], [9, 5]) == -1
    assert rank_correlation([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(4 / 6)  # one of six pairs is reversed
    assert rank_correlation([1, 2, 3], [1, 1, 2]) == pytest.approx(2 / (3 * 2) ** 0.5)
    assert rank_correlation([1, 1], [1, 2]) is None
    assert rank_correlation([1], [2]) is None


def board(means: dict[str, float], head: str) -> Board:
    draw = random.Random(0)
    made = made_boards.board(len(means), 1, names=tuple(means))
    column = replace(made.columns[0], head=head)
    rows = [
        replace(row, cells={"asr": replace(made_boards.cell(row.name, "asr", 1, 0, draw), mean=means[row.name])})
        for row in made.rows
    ]
    return replace(made, columns=(column,), rows=tuple(rows))


def test_heads_are_compared_on_the_upstreams_that_both_have_and_ties_are_no_flips():
    own = board({"a": 10.0, "b": 10.5, "c": 11.0, "d": 12.0, "alone": 13.0}, "ctc")
    other = board({"other": 1.0, "d": 20.5, "c": 20.2, "b": 20.2, "a": 20.0}, "frames")
    (found,) = comparisons(own, [other])
    assert (found.task, found.default_head, found.head) == ("asr", "ctc", "frames")
    assert found.upstreams == ("a", "b", "c", "d")
    assert (found.default_means, found.means) == ((10.0, 10.5, 11.0, 12.0), (20.0, 20.2, 20.2, 20.5))
    assert found.flipped == (), "b and c are equal with the other head"
    reversed_ = board({"a": 20.4, "b": 20.2, "c": 20.3, "d": 20.5}, "frames")
    (found,) = comparisons(own, [reversed_])
    assert found.flipped == (("a", "b"), ("a", "c"))
    assert found.tau == pytest.approx((4 - 2) / 6)


def test_heads_of_other_data_recipes_or_metrics_are_not_compared():
    own, other = (board({"a": 1.0, "b": 2.0}, head) for head in ("ctc", "frames"))
    (column,) = other.columns
    assert len(list(comparisons(own, [other]))) == 1
    assert not list(comparisons(own, [replace(other, recipe="superb")]))
    for change in ({"corpus_digest": "d" * 64}, {"primary": False}, {"task": "ks"}):
        assert not list(comparisons(own, [replace(other, columns=(replace(column, **change),))]))
