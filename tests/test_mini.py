"""The built-in corpus: what its labels promise, and that its rows are what its script makes."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter, defaultdict

import numpy as np
import pytest
import soundfile

from core.manifest import SPLITS, Manifest
from core.mixtures import read_mixture
from tasks.corpora._base import open_corpus
from tasks.corpora._lexicon import read_lexicon, with_phones
from tasks.corpora.mini import FOLDER

MARK = re.compile(r"B-(\w+) (\w+) E-\1")


@pytest.fixture(scope="module")
def mini() -> Manifest:
    return open_corpus("mini")


@pytest.fixture(scope="module")
def build():
    """The modules that make the corpus; they are scripts, and find each other beside them."""
    sys.path.insert(0, str(FOLDER))
    try:
        import _labels
        import _texts

        yield _texts, _labels
    finally:
        sys.path.remove(str(FOLDER))
        for name in ("_labels", "_texts"):
            sys.modules.pop(name, None)


def rows_of(mini: Manifest, label: str) -> list:
    return list(mini.with_label(label).utterances)


def by_split(mini: Manifest, label: str) -> dict[str, list]:
    return {split: list(mini.with_label(label).split(split)) for split in SPLITS}


def test_each_phone_string_spells_its_text(mini):
    lexicon = read_lexicon(FOLDER / "lexicon.txt")
    rows = rows_of(mini, "text")
    assert len(rows) == 1936 and rows == rows_of(mini, "phones")
    for row in rows:
        phones = row.labels["phones"].split()
        for word in row.labels["text"].split():
            spelt = lexicon[word].split()
            assert phones[: len(spelt)] == spelt, row.id
            phones = phones[len(spelt) :]
        assert not phones, row.id
    symbols = {
        split: {p for row in rows if row.split == split for p in row.labels["phones"].split()} for split in SPLITS
    }
    assert len(symbols["train"]) == 38 and symbols["valid"] | symbols["test"] <= symbols["train"]


def test_a_lexicon_takes_the_first_pronunciation_and_names_what_it_lacks(tmp_path, mini):
    (tmp_path / "lexicon.txt").write_text("READ r ee d\nread r e d\n", encoding="utf-8")
    assert read_lexicon(tmp_path / "lexicon.txt") == {"read": "r ee d"}
    with pytest.raises(Exception, match=r"line 9.*is not in the lexicon|'\w+' is not in the lexicon"):
        with_phones(mini, {"read": "r ee d"})
    (tmp_path / "lexicon.txt").write_text("read\n", encoding="utf-8")
    with pytest.raises(Exception, match="line 1: 'read' has no phones"):
        read_lexicon(tmp_path / "lexicon.txt")
    with pytest.raises(Exception, match="can't be read"):
        read_lexicon(tmp_path / "nowhere.txt")


def test_slot_marks_leave_the_text_as_it_is_and_occur_in_every_split(mini):
    kinds: dict[str, set[str]] = defaultdict(set)
    roles: dict[str, set[str]] = defaultdict(set)
    for row in rows_of(mini, "marked"):
        assert MARK.sub(r"\2", row.labels["marked"]) == " ".join(row.labels["text"].split()), row.id
        for kind, word in MARK.findall(row.labels["marked"]):
            kinds[row.split].add(kind)
            roles[word].add(kind)
    assert kinds == {key: {"state", "location", "language", "device", "item"} for key in SPLITS}
    # The role of a thing depends on the sentence: the word alone doesn't say it.
    assert sum(found == {"item", "device"} for found in roles.values()) >= 8


def test_each_text_has_one_german(mini):
    german: dict[str, set[str]] = defaultdict(set)
    words: dict[str, set[str]] = defaultdict(set)
    for row in rows_of(mini, "text"):
        german[row.labels["text"]].add(row.labels["translation"])
        words[row.split] |= set(row.labels["translation"].split())
    assert {len(each) for each in german.values()} == {1}
    assert len(set().union(*german.values())) == len(german) == 603
    assert len(words["train"]) == 79 and words["valid"] | words["test"] <= words["train"]


def test_no_voice_of_a_mixture_or_of_verification_is_in_two_splits(mini):
    for label, field in (
        ("turns", "voice"),
        ("targets", "voice"),
        ("clean", "voice"),
        ("speaker_to_verify", "speaker_to_verify"),
    ):
        splits: dict[str, set[str]] = defaultdict(set)
        for row in rows_of(mini, label):
            voices = row.labels[field]
            for voice in voices if isinstance(voices, list) else [voices]:
                splits[voice].add(row.split)
        assert len(splits) == 28 and {len(found) for found in splits.values()} == {1}, label
    compared = Counter(row.labels["speaker_to_verify"] for row in by_split(mini, "speaker_to_verify")["test"])
    assert set(compared.values()) == {30} and len(compared) == 8


def test_mixtures_are_of_two_voices_that_overlap(mini):
    voice = {row.path: row.labels["voice"] for row in rows_of(mini, "text")}
    together = total = 0.0
    for row in rows_of(mini, "turns"):
        assert [voice[source.path] for source in row.sources] == row.labels["voice"]
        assert len(set(row.labels["voice"])) == 2
        assert {turn["speaker"] for turn in row.labels["turns"]} == set(row.labels["voice"])
        seconds = row.mixture.samples() / 16_000
        assert all(0 <= turn["start"] < turn["stop"] <= seconds + 0.01 for turn in row.labels["turns"]), row.id
        for turn in row.labels["turns"]:
            total += turn["stop"] - turn["start"]
            together += sum(
                max(0.0, min(turn["stop"], other["stop"]) - max(turn["start"], other["start"]))
                for other in row.labels["turns"]
                if other["speaker"] != turn["speaker"]
            )
    assert 0.2 < together / total < 0.6


def test_each_query_is_said_by_another_voice_too(mini):
    for split, count in (("valid", 11), ("test", 119)):
        rows = mini.with_label("contains").split(split)
        queries = mini.with_label("query").split(split)
        assert len(queries) == count
        for query in queries:
            text = query.labels["query"]
            assert 2 <= len(text.split()) <= 5 and text == query.labels["text"]
            holders = [row for row in rows if text in row.labels["contains"]]
            assert all(f" {text} " in f" {row.labels['text']} " for row in holders)
            assert any(row.labels["voice"] != query.labels["voice"] for row in holders), query.id
        said = {query.labels["query"] for query in queries}
        missed = [
            row
            for row in rows
            for text in said - set(row.labels["contains"])
            if f" {text} " in f" {row.labels['text']} "
        ]
        assert not missed


def test_noisy_rows_are_a_sentence_under_noise_of_the_promised_level(mini):
    rows = rows_of(mini, "clean")
    assert all(row.labels["clean"] == 0 for row in rows)
    assert Counter(row.split for row in rows) == {"train": 300, "valid": 50, "test": 100}
    for row in rows[::30]:
        sentence, *noises = row.sources
        wav = soundfile.read(sentence.path, dtype="float32")[0]
        assert row.mixture.samples() == len(wav)
        noise = read_mixture(row.mixture).numpy() - wav
        ratio = 10 * np.log10(np.mean(wav**2) / np.mean(noise**2))
        assert -1 < ratio < 11, (row.id, ratio)
        assert all("silence" in source.path.name for source in noises)


def test_the_rows_are_what_the_script_makes(build, monkeypatch):
    """All but lengths and levels, which are read from the audio, follows from the repository's own code."""
    texts, labels = build
    monkeypatch.setattr(labels, "_spans", lambda path, offset: iter(()))
    monkeypatch.setattr(labels, "_rms_db", lambda path: 0.0)
    stored = [json.loads(line) for line in (FOLDER / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    recorded = [row for row in stored if "file_name" in row]
    made = []
    for line, row in zip(texts.script(), recorded, strict=True):
        known = {"file_name": f"audio/{line.id}.opus", "id": line.id, "split": line.split, "voice": line.voice}
        known |= {"duration_seconds": row["duration_seconds"]}
        made.append(known | ({"prompt": line.prompt} if "speaker" in line.labels else {}) | line.labels)
    for row, expected in zip(labels.labelled(made, FOLDER), stored, strict=True):
        if "mixture" in row:
            for each in (row, expected):
                each.pop("turns", None)
                each["mixture"] = [{**source, "gain_db": 0} for source in each["mixture"]]
        assert row == expected
