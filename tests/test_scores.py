"""SUPERB's scores recomputed from the published values equal those that its board displays."""

from __future__ import annotations

from dataclasses import replace

import made_boards
import pytest

from core.metrics import get_metric
from leaderboard.board import Column
from leaderboard.published import FILE, NAMES, published_as, published_rows
from leaderboard.scores import REFERENCE_POINTS, error_reduction, reduction_card, superb_score, task_points

PAPER = ("pr", "sid", "ks", "qbe", "ic", "asr", "asv", "er", "sd", "sf")
# The board of September 2022: superb_s as displayed and recomputed.
BOARD = {
    "WavLM Large": (1145, 1144.5),
    "WavLM Base+": (1106, 1106.2),
    "WavLM Base": (1019, 1018.8),
    "HuBERT Large": (919, 918.6),
    "wav2vec 2.0 Large": (914, 913.6),
    "HuBERT Base": (941, 941.0),
    "LightHuBERT Small": (901, 901.1),
    "FaST-VGS+": (809, 809.1),
    "wav2vec 2.0 Base": (818, 818.1),
    "DistilHuBERT": (717, 717.4),
    "DeCoAR 2.0": (722, 721.7),
    "wav2vec": (529, 528.9),
    "vq-wav2vec": (422, 421.9),
    "APC": (392, 392.3),
    "VQ-APC": (377, 376.6),
    "NPC": (386, 386.4),
    "modified CPC": (278, 278.2),
    "TERA": (150, 149.9),
    "PASE+": (149, 148.6),
    "Mockingjay": (54, 53.7),
}
ROWS = {row.name: row for row in published_rows()}


@pytest.mark.parametrize("name", BOARD)
def test_score_is_the_displayed_one(name):
    shown, recomputed = BOARD[name]
    score = superb_score(ROWS[name].values, PAPER)
    assert score == pytest.approx(recomputed, abs=0.06)
    assert round(score) == shown


def test_fbank_is_the_zero_and_a_missing_task_no_score():
    assert superb_score(ROWS["FBANK (no CMVN)"].values, PAPER) == pytest.approx(0, abs=1e-4)
    assert superb_score(ROWS["WavLM Base"].values, ["ks", "unheard"]) is None
    assert superb_score({}, []) is None
    assert task_points({("ks", "accuracy"): 96.66, ("own", "accuracy"): 1.0}) == {"ks": pytest.approx(1000)}


@pytest.mark.parametrize(("task", "metric"), REFERENCE_POINTS)
def test_reference_points_are_what_fbank_and_the_best_of_2021_have(task, metric):
    """The board's rows of 2021 are all but those of WavLM and later ones; it has two values with a digit more."""
    floor, best = REFERENCE_POINTS[task, metric]
    assert floor == pytest.approx(ROWS["FBANK (no CMVN)"].values[task, metric], abs=1e-6)
    early = [name for name in ROWS if name.startswith(("FBANK", "wav2vec 2.0", "HuBERT"))]
    values = [ROWS[name].values[task, metric] for name in early if (task, metric) in ROWS[name].values]
    assert best == pytest.approx((max if best > floor else min)(values), rel=1e-3)


def test_error_reduction():
    fbank = {"ks": 50.0, "asr": 80.0}
    assert error_reduction({"ks": 25.0, "asr": 80.0}, fbank, [["ks"], ["asr"]]) == 25
    assert error_reduction({"ks": 0.0, "asr": 0.0}, fbank, [["ks"], ["asr"]]) == 100
    assert error_reduction({"ks": 75.0, "asr": 80.0}, fbank, [["ks"], ["asr"]]) == pytest.approx(-100 / 6)
    assert error_reduction(fbank, fbank, [["ks"]]) == 0
    assert error_reduction({"ks": 25.0}, fbank, [["ks"], ["asr"]]) is None
    assert error_reduction({"ks": 25.0}, {"ks": 0.0}, [["ks"]]) == -100
    assert error_reduction({"ks": 0.0}, {"ks": 0.0}, [["ks"]]) == 0


def test_decibels_count_as_energies():
    def column(metric: str) -> Column:
        known = get_metric(metric)
        return replace(made_boards.column("ss"), metric_title=known.title, unit=known.unit, direction=known.direction,
                       bounds=known.bounds)  # fmt: skip

    assert column("si_sdri").error(0.0) == 1
    assert column("si_sdri").error(10.0) == pytest.approx(0.1)
    assert replace(column("si_sdri"), direction="lower").error(10.0) == pytest.approx(10)
    assert column("pesq").error(4.0) == pytest.approx(0.643888474)
    assert column("wer").error(12.0) == 12 and column("accuracy").error(12.0) == 88
    assert replace(column("si_sdri"), unit="").error(1.0) is None
    assert (
        "10^(-SI-SDRi / 10), or 100 - Acc" in reduction_card([column("si_sdri"), column("accuracy")], None).explanation
    )


def test_a_task_on_which_fbank_hardly_errs_does_not_outweigh_the_others():
    one = 100 / 300
    fbank, tasks = {"ks": one, "sid": 80.0, "ic": 80.0}, [["ks"], ["sid"], ["ic"]]
    better = {"ks": 12 * one, "sid": 40.0, "ic": 40.0}
    assert error_reduction(better, fbank, tasks) == pytest.approx((-100 * 11 / 12 + 50 + 50) / 3)
    assert error_reduction({**better, "ks": 36 * one}, fbank, tasks) > 0
    for errors in (0.0, 0.01, one, 5.0, 1e6):
        for base in (0.0, one, 80.0):
            ahead = error_reduction({"ks": errors}, {"ks": base}, [["ks"]])
            assert -100 <= ahead <= 100
            assert ahead == -error_reduction({"ks": base}, {"ks": errors}, [["ks"]]), "neither side is favoured"


def test_published_values_have_sources_and_none_is_from_memory():
    text = FILE.read_text(encoding="utf-8")
    assert "memory" not in text
    assert len(ROWS) == 22
    assert all(row.source and row.values for row in ROWS.values())
    assert {metric for row in ROWS.values() for task, metric in row.values if task in ("ks", "sid", "ic")} == {
        "accuracy"
    }
    assert ROWS["WavLM Large"].values["asr", "wer"] == 3.44
    assert set(NAMES) <= set(ROWS)


def test_the_same_upstream_has_name_and_parameters():
    assert published_as("hubert-base-ls960", 94_371_712).name == "HuBERT Base"
    assert published_as("hubert-base-ls960", 90_000_000) is None
    assert published_as("hubert-my-own", 94_371_712) is None
    assert published_as("apc", 1_069_648) is None  # ours of size tiny
    assert published_as("fbank", 0).name == "FBANK (no CMVN)"
