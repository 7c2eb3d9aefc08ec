"""Turns of the worst recordings: who stands for whom, which are shown, and where their bars are."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest
from made_boards import WRONG_TURNS, board, with_turns

from core._diarisation import matched_speakers
from core.metrics import get_metric
from leaderboard._marks import Series
from leaderboard._turns_chart import turns_chart
from leaderboard.board_errors import Turn, WrongTurns
from leaderboard.figures import figures_of
from leaderboard.mistakes import WORST_TURNS, worst_turns
from leaderboard.stored_predictions import Prediction

DER = get_metric("der")


def turns(*rows: tuple[float, float, str]) -> list[dict[str, object]]:
    return [{"start": start, "stop": stop, "speaker": speaker} for start, stop, speaker in rows]


def row(name: str, prediction: list, reference: list) -> Prediction:
    return Prediction(name, prediction, reference, {"der": DER.statistics(prediction, reference)})


@pytest.mark.parametrize(
    ("prediction", "matched"),
    [
        (turns((0, 4, "1"), (4, 9, "0")), {"1": "anna", "0": "ben"}),
        (turns((0, 4, "0"), (4, 6, "1"), (6, 9, "2")), {"0": "anna", "2": "ben"}),
        (turns((20, 30, "0")), {}),
        ([], {}),
    ],
)
def test_speakers_stand_for_those_they_share_most_time_with(prediction, matched):
    assert matched_speakers(prediction, turns((0, 4, "anna"), (4, 9, "ben"))) == matched


def test_with_nobody_in_the_reference_nobody_stands_for_anybody():
    assert matched_speakers(turns((0, 1, "0")), []) == {} == matched_speakers([], [])


def test_the_worst_recordings_are_kept_with_names_of_the_reference():
    meant = turns((0, 10, "anna"), (10, 20, "ben"))
    runs = {
        3: [row(f"r{n}", turns((0, 10 - n, "1"), (10, 20, "0")), meant) for n in range(WORST_TURNS + 2)],
        5: [row(f"r{n}", turns((0, 20, "0")), meant) for n in range(1)],
    }
    found = worst_turns(DER, runs)
    assert [(each.id, each.seed, each.errors) for each in found] == [
        ("r0", 5, 10.0), ("r5", 3, 5.0), ("r4", 3, 4.0), ("r3", 3, 3.0),
    ]  # fmt: skip
    assert {each.total for each in found} == {20.0}
    assert found[1].prediction == (Turn("anna", 0, 5), Turn("ben", 10, 20))
    assert found[1].reference == (Turn("anna", 0, 10), Turn("ben", 10, 20))


def bars(body: str) -> list[tuple[str, float, float, float]]:
    """Of every bar: its classes, where it begins and ends, and its top, in pixels."""
    drawn = ET.fromstring(f"<g>{body}</g>").iter("rect")
    found = [{name: each.get(name, "") for name in ("class", "x", "width", "y")} for each in drawn]
    return [(each["class"], x := float(each["x"]), x + float(each["width"]), float(each["y"])) for each in found]


def test_bars_stand_at_their_seconds_in_the_lane_of_their_speaker():
    panel = turns_chart(Series("m1", "apc", 1), "label", WRONG_TURNS)
    assert panel.description == "3.5 of 14.0 s of speech wrong (25 %), seed 2"
    found = bars(panel.body)
    meant, said = ([bar for bar in found if bar[0].startswith(kind)] for kind in ("meant", "mark s1"))
    assert (len(meant), len(said)) == (3, 4)
    first, second, third = meant
    per_second = (first[2] - first[1]) / 4
    zero = first[1]
    for turn, bar in zip((("anna", 0, 4), ("anna", 9, 14), ("ben", 3, 8)), (first, second, third), strict=True):
        assert bar[1:3] == pytest.approx((zero + turn[1] * per_second, zero + turn[2] * per_second), abs=0.2), turn
    assert len({bar[3] for bar in (first, second)}) == 1 and third[3] > first[3]
    assert len({bar[3] for bar in said}) == 3, "anna, ben and nobody"
    nobody = max(said, key=lambda bar: bar[3])
    assert nobody[1:3] == pytest.approx((zero + 9 * per_second, zero + 10 * per_second), abs=0.2)
    tips = re.findall(r'data-tip="([^"]*)"', panel.body)
    assert tips == ["anna\nSpeaks\t9.0 s\nWas found to\t7.8 s", "ben\nSpeaks\t5.0 s\nWas found to\t4.0 s",
                    "nobody\nSpeaks\t0.0 s\nWas found to\t1.0 s"]  # fmt: skip


def test_speech_where_there_is_none_has_no_share():
    panel = turns_chart(Series("m1", "apc", 1), "", WrongTurns("a", 0, 2.0, 0.0, (), (Turn("", 0, 2),)))
    assert panel.description == "2.0 of 0.0 s of speech wrong, seed 0"


def test_only_what_aligns_turns_is_drawn():
    assert not [figure for figure in figures_of(board()) if figure.name.startswith("turns")]
    (figure,) = [each for each in figures_of(with_turns(board(), "sid")) if each.name.startswith("turns")]
    assert (figure.name, figure.title) == ("turns-sid", "Worst recordings of task sid")
    assert [panel.label for panel in figure.panels] == [
        f"SID mix-3: {name}" for name in ("fbank", "mfcc", "apc", "mockingjay")
    ]
