"""Emotion recognition on a folder of one's own: metadata.jsonl with emotion, session and voice, from end to end."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean

import pytest
import soundfile
from conftest import call
from test_mixtures import RATE, sine, write

from core.records import RecordStore

EMOTIONS = {"calm": 200, "glad": 900, "wild": 3_000}  # -> pitch in hertz
SESSIONS = ("kitchen", "office", "street")
VOICES = 2  # of each session


def emotional(folder: Path, **changes: object) -> Path:
    """All rows in split train; each session has voices of its own. Changes are for the last row."""
    folder.mkdir()
    rows = []
    for session in SESSIONS:
        for number in range(10):
            for emotion, hertz in EMOTIONS.items():
                name = f"{session}_{emotion}_{number}.wav"
                soundfile.write(folder / name, sine(hertz, 4_800, len(rows)), RATE)
                voice = f"{session}-{number % VOICES}"
                rows.append(
                    {"file_name": name, "split": "train", "emotion": emotion, "session": session, "voice": voice}
                )
    rows[-1] |= changes
    return write(folder, rows)


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Path:
    """The folder with corpus and results, after `run --task er` and again."""
    folder = tmp_path_factory.mktemp("emotions")
    corpus = emotional(folder / "corpus")
    command = ["run", "--upstream", "fbank", "--task", "er", "--corpus", corpus, "--output", folder / "results"]
    command += ["--cache", folder / "cache", "--device", "cpu"]
    first = call(*command)
    assert first.code == 0, first.err
    assert "fbank: 90 clips passed it, each once" in first.out + first.err
    assert "0 cells computed, 3 were there" in call(*command).out
    return folder


def test_each_session_is_tested_on_once_and_the_board_shows_their_mean(ran):
    records = RecordStore(ran / "results").all()
    assert sorted(record.fold for record in records) == list(SESSIONS)
    assert all(record.counts == {"train": 48, "valid": 12, "test": 30} for record in records)
    report = call("report", "--output", ran / "results", "--html", ran / "page.html", "--format", "json")
    assert report.code == 0, report.err
    board = json.loads(report.out)["boards"][0]
    cell = board["rows"][0]["cells"]["er"]
    assert cell["mean"] == mean(record.value for record in records) > 95
    assert (cell["speakers"], cell["utterances"]) == (VOICES * len(SESSIONS), 90)
    page = (ran / "page.html").read_text(encoding="utf-8")
    assert "Emotion recognition" in page and "glad" in page


def test_predict_tells_the_emotion(ran):
    record = RecordStore(ran / "results").all()[0]
    files = [ran / "corpus" / f"{record.fold}_{emotion}_0.wav" for emotion in EMOTIONS]
    told = json.loads(
        call("predict", "--json", "--run", record.run[:16], "--output", ran / "results", "--device", "cpu", *files).out
    )
    assert [each["prediction"] for each in told["predictions"]] == list(EMOTIONS)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"session": None}, "has no 'session', by which er is divided"),
        ({"voice": "office-0"}, "voice 'office-0' is in"),
        ({"emotion": "odd"}, "emotion 'odd' is in test, but not in train"),
    ],
)
def test_rows_that_can_not_be_divided_are_named(changes, said, tmp_path):
    corpus = emotional(tmp_path / "corpus", **changes)
    refused = call("run", "--upstream", "fbank", "--task", "er", "--corpus", corpus, "--output", tmp_path / "r",
                   "--cache", tmp_path / "c", "--device", "cpu")  # fmt: skip
    assert refused.code == 2 and said in refused.err and "street_wild_9" in refused.err
