"""Scores that mean less than they seem: the same audio twice, one class alone, a draw of rows that misses classes."""

from __future__ import annotations

import json
import shutil
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
import soundfile
import torch
from conftest import call

from core.errors import ManifestError
from core.manifest import Utterance, read_manifest
from downstreams._base import FeatureShape
from downstreams.ctc import CTC, CTCOptions
from downstreams.labels.text import TextLabels
from tasks._base import TASKS
from tasks._doubts import doubts, drawn_by_class, words_without_spaces
from tasks._rows import task_rows


@pytest.fixture
def copied(corpus_folder, tmp_path) -> Path:
    """A corpus in which a recording of test, and one of train with another label, are the first one of train."""
    shutil.copytree(corpus_folder, tmp_path / "corpus")
    path = tmp_path / "corpus" / "metadata.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    train = [row for row in rows if row["split"] == "train"]
    test = next(row for row in rows if row["split"] == "test")
    other = next(row for row in train if row["keyword"] != train[0]["keyword"])
    shutil.copyfile(path.parent / train[0]["file_name"], path.parent / test["file_name"])
    shutil.copyfile(path.parent / train[0]["file_name"], path.parent / other["file_name"])
    return path.parent


def test_the_same_audio_in_two_splits_or_under_two_labels_is_noted(copied, corpus_folder):
    found = task_rows(read_manifest(copied), TASKS.get("ks")).doubts
    assert [line.split(":")[0] for line in found] == [
        "the same audio is in two splits", "the same audio has two labels"]  # fmt: skip
    assert "of test is 'train_" in found[0]
    assert task_rows(read_manifest(corpus_folder), TASKS.get("ks")).doubts == ()


def test_pieces_of_one_recording_are_no_copies():
    rows = [Utterance(str(n), Path("x"), split, {"keyword": "a"}, start=100 * n, stop=100 * n + 100)
            for n, split in enumerate(("train", "test"))]  # fmt: skip
    assert doubts({"train": rows[:1], "test": rows[1:]}, "keyword", {"0": "same", "1": "same"}) == []


def test_prepare_and_run_say_it(copied, tasks_file, tmp_path):
    folders = ("--output", tmp_path / "results", "--cache", tmp_path / "cache", "--workers", 1)
    for command in (
        ("prepare", copied),
        ("run", "--upstream", "fbank", "--task", f"{tasks_file}:KS", "--corpus", copied, *folders),
    ):
        called = call(*command)
        assert called.code == 0, called.err
        assert called.err.count("note: the same audio is in two splits") == 1


def test_one_class_is_refused(corpus_folder, tmp_path):
    rows = [json.loads(line) for line in (corpus_folder / "metadata.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row.get("keyword") is not None]
    kept = [row for row in rows if row["keyword"] == rows[0]["keyword"]]
    for row in kept:
        row["file_name"] = str((corpus_folder / row["file_name"]).resolve())
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, kept)))
    with pytest.raises(ManifestError, match=r"every row of train has keyword '.*': there is nothing to tell apart"):
        task_rows(read_manifest(tmp_path), TASKS.get("ks"))


def test_a_limit_draws_every_class_equally_often_whatever_the_order_of_the_rows():
    rows = [Utterance(str(n), Path("x"), "train", {"keyword": f"word {n // 100}"}) for n in range(1_000)]
    drawn = drawn_by_class(rows, "keyword", 25)
    assert len(drawn) == 25
    counts = Counter(row.labels["keyword"] for row in drawn)
    assert len(counts) == 10 and set(counts.values()) == {2, 3}
    assert [row.id for row in drawn] == sorted((row.id for row in drawn), key=int), "in their order"
    assert drawn == drawn_by_class(rows, "keyword", 25)
    assert drawn_by_class(rows, "keyword", None) == drawn_by_class(rows, "keyword", 1_000) == tuple(rows)
    assert {row.id for row in drawn} < {row.id for row in drawn_by_class(rows, "keyword", 50)}, "nested"


@pytest.mark.parametrize("values", [10, 1_000], ids=["classes", "texts"])
def test_a_limit_draws_from_all_rows_of_a_class_and_not_the_first(values):
    """The first rows of a corpus are those of its first speakers."""
    size = 1_000 // values
    rows = [Utterance(str(n), Path("x"), "train", {"label": f"value {n // size}"}) for n in range(1_000)]
    drawn = drawn_by_class(rows, "label", 200)
    for places in ([int(row.id) // 100 for row in drawn], [int(row.id) % 100 // 10 for row in drawn]):
        assert min(places.count(part) for part in range(10)) > 5, "of every tenth of them all, and of a hundred, some"


def texts(corpus_folder: Path, folder: Path, text: str, most: int = 1_000) -> Path:
    """The corpus with one text for all of train, or of as many rows; the others keep theirs."""
    rows = [json.loads(line) for line in (corpus_folder / "metadata.jsonl").read_text().splitlines()]
    for row in [row for row in rows if row["split"] == "train" and row.get("text")][:most]:
        row["text"] = text
    for row in rows:
        row["file_name"] = str((corpus_folder / row["file_name"]).resolve())
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def test_train_without_a_character_is_refused(corpus_folder, tasks_file, tmp_path):
    texts(corpus_folder, tmp_path, " \u3000 ")
    called = call("run", "--upstream", "fbank", "--task", f"{tasks_file}:ASR", "--corpus", tmp_path, "--workers", 1,
                  "--output", tmp_path / "results", "--cache", tmp_path / "cache")  # fmt: skip
    assert called.code == 2
    assert "no text of train has a single character: there is nothing to learn" in called.err


@pytest.mark.parametrize(("most", "code"), [(3, 0), (1_000, 1)])
def test_texts_longer_than_their_frames_are_counted(most, code, corpus_folder, tasks_file, tmp_path):
    texts(corpus_folder, tmp_path, "la " * 400, most)
    called = call("run", "--upstream", "fbank", "--task", f"{tasks_file}:ASR", "--corpus", tmp_path, "--workers", 1,
                  "--output", tmp_path / "results", "--cache", tmp_path / "cache")  # fmt: skip
    assert called.code == code
    assert "text labels of train are longer than their frames" in called.err
    assert code or called.err.count("3 of ") == 1, "once, not for every learning rate"


def test_ctc_needs_a_frame_between_two_symbols_that_are_the_same():
    labels = TextLabels.from_train(["abc aab"], "text")
    head = CTC(FeatureShape(4, 160), labels, CTCOptions(projector_size=4, lstm_layers=0))
    targets = [labels.encode(text) for text in ("abc", "aab", "aaa")]
    assert [head.untrainable(torch.full((3,), frames), targets) for frames in (2, 3, 4, 5)] == [3, 2, 1, 0]


def test_composed_and_decomposed_letters_are_one_symbol():
    labels = TextLabels.from_train(["cafe\u0301", "caf\u00e9", "\u0130"], "text")
    assert labels.reference("CAFE\u0301") == "caf\u00e9"
    assert labels.encode("caf\u00e9").tolist() == labels.encode("cafe\u0301").tolist()
    assert all(unicodedata.is_normalized("NFC", labels.reference(text)) for text in ("\u0130x", "A\u030a B-x y E-x"))


def test_all_recordings_that_are_too_short_are_named_once_and_before_any_passes(corpus_folder, tasks_file, tmp_path):
    shutil.copytree(corpus_folder, tmp_path / "corpus")
    rows = [json.loads(line) for line in (tmp_path / "corpus" / "metadata.jsonl").read_text().splitlines()]
    short = [row["id"] for row in rows if row.get("keyword")][:3]
    for row in rows:
        if row["id"] in short:
            soundfile.write(tmp_path / "corpus" / row["file_name"], [0.1] * 320, 16_000)
    folders = ("--corpus", tmp_path / "corpus", "--output", tmp_path / "new", "--cache", tmp_path / "cache")
    called = call(
        "run", "--upstream", "fbank", "--upstream", "mfcc", "--task", f"{tasks_file}:KS", "--workers", 1, *folders
    )
    assert called.code == 1
    (line,) = [line for line in called.err.splitlines() if line.startswith("failed: ")]
    assert line.startswith("failed: fbank, mfcc: 3 recordings are shorter than the shortest legal input, 400 samples")
    assert f"{', '.join(short)}; take them out of the manifest" in line
    assert "passed it" not in called.err


@pytest.mark.parametrize(
    ("texts", "is_noted"),
    [
        (["今天天气很好", "打开灯", "关上 灯光"], True),
        (["今日は晴れです", "カメラを持ってくる"], True),
        (["สวัสดีครับ", "วันนี้อากาศดีมาก"], True),
        (["今天 天气 很 好", "打开 灯"], False),
        (["วันนี้ อากาศ ดี มาก"], False),
        (["la lampe", "l'été"], False),
        (["打开 the lamp in the kitchen please"], False),
        (["안녕하세요 반갑습니다"], False),
    ],
)
def test_words_of_a_language_without_spaces_are_no_words(texts, is_noted):
    rows = [Utterance(str(n), Path("x"), "train", {"text": text}) for n, text in enumerate(texts)]
    found = words_without_spaces(rows, "text", ("wer",))
    assert ['metrics=("cer",)' in line for line in found] == [True] * is_noted
    assert words_without_spaces(rows, "text", ("wer", "cer")) == words_without_spaces(rows, "text", ("accuracy",)) == []


def test_prepare_and_run_hint_at_characters(corpus_folder, tasks_file, tmp_path):
    shutil.copytree(corpus_folder, tmp_path / "corpus")
    path = tmp_path / "corpus" / "metadata.jsonl"
    words = {"ba": "今天天", "di": "天气很", "go": "很好灯"}
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [{**row, "text": "".join(words[word] for word in row["text"].split())} for row in rows if "text" in row]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    folders = ("--output", tmp_path / "results", "--cache", tmp_path / "cache", "--workers", 1)
    for command in (
        ("prepare", path.parent),
        ("run", "--upstream", "fbank", "--task", f"{tasks_file}:ASR", "--corpus", path.parent, *folders),
    ):
        called = call(*command)
        assert called.code == 0
        assert called.err.count("note: text is written without spaces, so that '") == 1
