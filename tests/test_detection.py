"""Detection-error trade-off: the curve against scikit-learn's, the run that it is of, and where it is drawn."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from made_boards import board, with_detection
from sklearn.metrics import det_curve

from core.metrics import METRICS, detection_errors, get_metric
from leaderboard._detection_chart import Trade, detection_chart
from leaderboard._marks import Series
from leaderboard.detection import MOST_POINTS, detection_curve
from leaderboard.figures import figures_of
from leaderboard.stored_predictions import Prediction

EER = get_metric("eer")


def scored(seed: int, items: int, apart: float = 1.0, decimals: int = 6) -> list[Prediction]:
    rng = np.random.default_rng(seed)
    targets = rng.random(items) < 0.3
    scores = np.round(rng.normal(size=items) + apart * targets, decimals)
    return [Prediction(str(n), float(score), bool(target), {"eer": EER.statistics(score, target)})
            for n, (score, target) in enumerate(zip(scores, targets, strict=True))]  # fmt: skip


def trials(rows: list[Prediction]) -> np.ndarray:
    return np.array([row.statistics["eer"] for row in rows])


def test_errors_are_those_of_scikit_learn_ties_included():
    found = trials(scored(0, 400, decimals=1))
    alarms, misses, _ = det_curve(found[:, 1], found[:, 0])
    ours = detection_errors(found)
    assert ours[0].tolist() == [0, 1] and ours[-1].tolist() == [1, 0]
    theirs = {tuple(pair) for pair in np.round([alarms, misses], 9).T.tolist()}
    assert theirs <= {tuple(pair) for pair in np.round(ours, 9).tolist()}, "theirs leaves out some of the ends"
    assert len(ours) == 1 + len(set(found[:, 0]))


def test_trials_that_have_further_statistics_are_taken_by_their_first_two():
    found = trials(scored(0, 60))
    assert np.array_equal(detection_errors(np.c_[found, np.arange(60)]), detection_errors(found))


def test_which_metrics_judge_trials():
    assert [metric.name for metric in METRICS if metric.trials] == ["eer", "mtwv"]


def test_a_curve_is_that_of_the_median_seed():
    runs = {4: scored(4, 300, 3.0), 7: scored(7, 300, 1.0), 9: scored(9, 300, 2.0)}
    curve = detection_curve(EER, runs)
    assert curve.seed == 9
    assert curve.equal == pytest.approx(EER.of(trials(runs[9])))
    assert curve.targets == trials(runs[9])[:, 1].sum() and curve.targets + curve.others == 300
    assert detection_curve(EER, {4: runs[4], 7: runs[7]}).seed == 4, "of two the lower error"


def test_of_many_points_some_are_kept_that_are_its_own():
    rows = scored(0, 6_000)
    curve = detection_curve(EER, {0: rows})
    every = {tuple(pair) for pair in (100 * detection_errors(trials(rows))).tolist()}
    assert MOST_POINTS / 2 < len(curve.errors) <= MOST_POINTS
    assert set(curve.errors) <= every
    alarms, misses = zip(*curve.errors, strict=True)
    assert list(alarms) == sorted(alarms) and list(misses) == sorted(misses, reverse=True)
    inside = [pair for pair in every if 0 < pair[0] < 100 and 0 < pair[1] < 100]
    assert {min(inside)[0], max(inside)[0]} == {alarms[0], alarms[-1]}, "from end to end"
    few = detection_curve(EER, {0: rows[:40]})
    assert len(few.errors) < 40 and all(0 < error < 100 for pair in few.errors for error in pair)


def test_without_both_kinds_or_any_run_there_is_no_curve():
    rows = scored(0, 50)
    assert detection_curve(EER, {}) is None
    assert detection_curve(EER, {0: rows, 1: [row for row in rows if row.reference]}) is None
    perfect = [Prediction(row.id, None, row.reference, {"eer": (float(row.reference), row.statistics["eer"][1])})
               for row in rows]  # fmt: skip
    assert detection_curve(EER, {0: perfect})[3:] == ((), 0.0)


def detection(made):
    return [figure for figure in figures_of(made) if figure.name == "detection"]


def test_only_what_judges_trials_is_drawn():
    assert detection(board()) == []
    (figure,) = detection(with_detection(board(), "sid", 20.0, 10.0))
    (panel,) = figure.panels
    assert panel.label == "SID: Task sid"
    assert panel.description == "Equal error rates: mfcc 10.0 %, fbank 20.0 %"
    assert [series.name for series in figure.legend] == ["fbank", "mfcc", "apc", "mockingjay"]
    assert detection(with_detection(board(), "sid", 0.0)) == [], "no errors, no curve"
    (figure,) = detection(with_detection(board(), "sid", 0.0, 10.0))
    assert figure.panels[0].description == "Equal error rates: fbank 0.0 %, mfcc 10.0 %"
    assert len(curves(figure.panels[0].body)) == 1


def curves(body: str) -> list[list[tuple[float, float]]]:
    """Points in pixels, as they are drawn."""
    drawn = ET.fromstring(f"<g>{body}</g>").iter("path")
    found = [each.get("d", "")[1:] for each in drawn if "line" in each.get("class", "").split()]
    return [[tuple(map(float, point.split(","))) for point in each.split()] for each in found]


def test_axes_are_normal_deviates_and_errors_grow_to_the_upper_right():
    (figure,) = detection(with_detection(board(), "sid", 20.0, 10.0))
    worse, better = curves(figure.panels[0].body)  # the best is drawn last, on top
    for points in (worse, better):
        (x1, y1), (x2, y2) = points[0], points[-1]
        assert all(abs((x - x1) * (y2 - y1) - (y - y1) * (x2 - x1)) < 200 for x, y in points), "a straight line"
        assert x1 < x2 and y1 < y2
    middle = len(better) // 2
    assert better[middle][0] < worse[middle][0] and better[middle][1] > worse[middle][1]
    marks = re.findall(r'translate\(([\d.]+) ([\d.]+)\)" class="mark', figure.panels[0].body)
    for mark, on_curve in zip(marks, (worse[middle], better[middle]), strict=True):
        assert tuple(map(float, mark)) == pytest.approx(on_curve, abs=0.11)


@pytest.mark.parametrize("rates", [(0.004,), (0.3, 48.0), (97.0,)])
def test_any_rate_has_a_place(rates):
    trades = [Trade(Series(f"m{n}", f"upstream {n}", n), [], rate, "") for n, rate in enumerate(rates)]
    panel = detection_chart("", trades)
    marks = re.findall(r'translate\((\S+) (\S+)\)" class="mark', panel.body)
    assert len(marks) == len(rates)
    assert all(0 <= float(place) <= 400 for mark in marks for place in mark)
