"""More rows don't erase what was known: a second test speaks of the speakers of the test set alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from results import add, classified, upstream
from scipy import stats
from test_leaderboard import only_board, unpadded

from core.metrics import get_metric
from core.records import RecordStore
from leaderboard.aggregate import leaderboard
from leaderboard.board import Board
from leaderboard.frames import cells
from leaderboard.statistics import Trials, difference, of_the_same_speakers, resample

GAINED, LOST = (3, 6, 9, 17, 26, 30), (0, 0, 0, 0, 1, 1)  # clips of each voice's 50 on which one alone is right


def six_voices(folder, others: Sequence[str]) -> Board:
    """`best` is right on 91 of the 93 clips on which it differs from each other row, and more often for each voice."""
    store = RecordStore(folder)
    for shift, name in enumerate(("best", *others)):
        right = np.ones((6, 50), dtype=int)
        for voice, (gained, lost) in enumerate(zip(GAINED, LOST, strict=True)):
            wrong = [49] * lost if name == "best" else [(7 * shift + clip) % 49 for clip in range(gained)]
            right[voice, wrong] = 0
        rows = [{**row, "speaker": f"s{at // 50}"} for at, row in enumerate(classified(right.ravel().tolist()))]
        add(store, rows, upstream=upstream(name))
    return only_board(leaderboard(store))


def test_two_rows_are_told_apart_for_other_speakers_and_for_these(tmp_path):
    (pair,) = six_voices(tmp_path, ["a"]).pairs
    assert abs(pair.difference) == pytest.approx(100 * (91 - 2) / 300)
    of_voices = stats.ttest_1samp(np.subtract(GAINED, LOST), 0).pvalue
    assert (pair.p, pair.different) == (pytest.approx(of_voices, rel=0.15), True)
    of_clips = stats.ttest_1samp([1] * 91 + [-1] * 2 + [0] * 207, 0).pvalue
    assert np.log10(pair.p_same_speakers) == pytest.approx(np.log10(of_clips), rel=0.06)
    assert pair.different_same_speakers is True


def test_six_rows_erase_what_six_voices_tell_of_others_and_nothing_of_themselves(tmp_path):
    board = six_voices(tmp_path, "abcde")
    found = {row.name: row.cells["ks"] for row in board.rows}
    assert {cell.letters for cell in found.values()} == {"a"}, "15 pairs are too many for six voices"
    here = {name: cell.letters_same_speakers for name, cell in found.items()}
    assert here == {"best": "A", **dict.fromkeys("abcde", "B")}
    ahead = [pair for pair in board.pairs if "best" in (pair.first, pair.second)]
    assert [(pair.different, pair.different_same_speakers) for pair in ahead] == [(False, True)] * 5
    assert all(pair.p < 0.05 < pair.p_holm for pair in ahead), "each alone would be told apart"
    shown = leaderboard(RecordStore(tmp_path))
    assert unpadded(shown).count(" a B |") == 5 and " a A |" in unpadded(shown)
    assert set(cells(shown)["letters_same_speakers"]) == {"A", "B"}


def test_without_speakers_or_with_several_of_an_item_there_is_no_second_statement():
    rows = np.stack([np.tile([1.0, 0.0], 20), np.ones(40)], axis=1)[None]
    one = Trials(get_metric("accuracy"), [rows, rows], ["anna"] * 20 + ["ben"] * 20)
    assert of_the_same_speakers(one).speakers == [None] * 40
    assert of_the_same_speakers(replace(one, speakers=["anna"] * 20 + [None] * 20)) is not None
    assert of_the_same_speakers(replace(one, speakers=[None] * 40)) is None
    assert of_the_same_speakers(replace(one, speakers=[("anna", "ben")] * 40)) is None


def test_it_sees_no_difference_where_the_same_speakers_have_none():
    """Two upstreams that err as often for each of six voices; speakers differ, and so does what is hard."""
    rng = np.random.default_rng(0)
    names = [f"s{voice}" for voice in range(6) for _ in range(50)]
    seen = 0
    for _ in range(300):
        rate = np.repeat(rng.uniform(0.05, 0.6, 6), 50)
        errors = (rng.random((2, 300)) < rate).astype(float)
        statistics = [np.stack([each, np.ones(300)], axis=1)[None] for each in errors]
        trials = of_the_same_speakers(Trials(get_metric("accuracy"), statistics, names))
        seen += difference(resample(trials), 0, 1).p < 0.05
    assert seen <= 0.05 * 300 + 2 * (0.05 * 0.95 * 300) ** 0.5
