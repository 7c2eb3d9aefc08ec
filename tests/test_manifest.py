"""Manifests: every bad row is named in one go, and any recording comes in as 16 kHz mono float32."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from core import _file_digests
from core.audio import SAMPLE_RATE, duration_seconds, read_audio
from core.errors import AudioError, ManifestError
from core.manifest import Manifest, read_manifest, summarise, unseen_labels, validate


def write(folder: Path, rows: list[dict | str], name: str = "metadata.jsonl") -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def tone(folder: Path, name: str, samples: int = 1_600) -> str:
    soundfile.write(folder / name, 0.1 * np.sin(np.arange(samples) / 10), SAMPLE_RATE)
    return name


def test_rows_are_read(tmp_path):
    tone(tmp_path, "a.wav")
    rows = [
        {"file_name": "a.wav", "id": "first", "split": "train", "keyword": "yes", "intent": {"action": "on"}},
        "",
        {"file_name": "a.wav", "split": "test", "text": "é", "start_sample": 10, "stop_sample": 90, "note": None},
    ]
    manifest = read_manifest(write(tmp_path, rows))
    assert manifest.name == tmp_path.name
    first, second = manifest.utterances
    assert (first.id, first.split, first.path, first.line) == ("first", "train", tmp_path / "a.wav", 1)
    assert first.labels == {"keyword": "yes", "intent": {"action": "on"}}
    assert (second.id, second.line, second.start, second.stop) == ("a", 3, 10, 90)
    assert second.labels == {"text": "é", "note": None}
    assert read_manifest(tmp_path / "metadata.jsonl") == manifest
    assert {label: dict(counts) for label, counts in summarise(manifest).items()} == {
        "keyword": {"train": 1},
        "intent": {"train": 1},
        "text": {"test": 1},
    }


def test_every_malformed_row_is_named_in_one_go(tmp_path):
    good = {"file_name": "a.wav", "id": "a", "split": "train"}
    rows = [
        good,
        "{no json",
        {"id": "b", "split": "train"},
        {**good, "id": "c", "split": "other"},
        {**good, "id": "d", "split": None},
        {**good, "split": "test"},
        {**good, "id": "e", "start_sample": 5, "stop_sample": 5},
        {**good, "id": "f", "start_sample": -1},
        {**good, "id": "g", "stop_sample": 1.5},
        [1, 2],
    ]
    with pytest.raises(ManifestError) as caught:
        read_manifest(write(tmp_path, rows))
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{tmp_path / 'metadata.jsonl'}: 9 bad rows; correct or remove:"
    assert [line.split(":")[0].split()[:2] for line in lines[1:]] == [
        ["line", str(number)] for number in (2, 3, 4, 5, 7, 8, 9, 10, 6)
    ]
    told = "\n".join(lines)
    for words in ("not JSON", '"file_name" is missing', "split is 'other', must be one of train, valid, test",
                  "id stands already in line 1", "start_sample 5 and stop_sample 5"):  # fmt: skip
        assert words in told


def test_every_bad_recording_and_label_is_named_in_one_go(tmp_path):
    tone(tmp_path, "good.wav")
    tone(tmp_path, "short.wav", 100)
    (tmp_path / "text.wav").write_text("no audio")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), SAMPLE_RATE)
    nan = np.array([0.1, np.nan, 0.1], dtype=np.float32)
    soundfile.write(tmp_path / "nan.wav", nan, SAMPLE_RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "inf.wav", nan * np.inf, SAMPLE_RATE, subtype="FLOAT")
    (tmp_path / "cut.flac").write_bytes(b"fLaC" + bytes(30))
    rows = [
        {"file_name": "good.wav", "split": "train", "keyword": "yes", "intent": {"action": "on", "object": "lamp"}},
        {"file_name": "missing.wav", "split": "train"},
        {"file_name": "text.wav", "split": "train"},
        {"file_name": "empty.wav", "split": "valid"},
        {"file_name": "nan.wav", "split": "test"},
        {"file_name": "inf.wav", "split": "test"},
        {"file_name": "cut.flac", "split": "test"},
        {"file_name": "short.wav", "split": "test", "stop_sample": 101},
        {"file_name": "short.wav", "id": "late", "split": "test", "start_sample": 100},
        {"file_name": "short.wav", "id": "fits", "split": "test", "start_sample": 99, "stop_sample": 100},
        {"file_name": "good.wav", "id": "new word", "split": "test", "keyword": "never"},
        {"file_name": "good.wav", "id": "slot", "split": "valid", "intent": {"action": "on", "object": "sun"}},
        {"file_name": "good.wav", "id": "mix", "split": "test", "intent": {"action": "on"}},
    ]
    manifest = read_manifest(write(tmp_path, rows))
    seen = []
    with pytest.raises(ManifestError) as caught:
        validate(manifest, ("keyword", "intent"), advance=lambda: seen.append(1))
    lines = str(caught.value).splitlines()
    assert len(seen) == len(rows)
    found = {line.split()[1]: line for line in lines[1:]}
    assert set(found) == {"2", "3", "4", "5", "6", "7", "8", "9", "11", "12"}
    for line, words in {
        "2": "no such file",
        "3": "not readable as audio",
        "4": "has no samples",
        "5": "NaN or infinite",
        "6": "NaN or infinite",
        "7": "not readable as audio",
        "8": "piece 0 to 101 of 100 samples",
        "9": "piece 100 to the end of 100 samples",
        "11": "keyword 'never' is in test, but not in train",
        "12": "object 'sun' is in valid, but not in train",
    }.items():
        assert words in found[line]
        assert rows[int(line) - 1]["file_name"].split(".")[0] in found[line] or "utterance" in found[line]


def test_a_long_list_is_cut(tmp_path):
    rows = [{"file_name": "gone.wav", "id": str(number), "split": "train"} for number in range(60)]
    with pytest.raises(ManifestError) as caught:
        validate(read_manifest(write(tmp_path, rows)))
    lines = str(caught.value).splitlines()
    assert "60 bad rows" in lines[0]
    assert len(lines) == 52
    assert lines[-1] == "  ... and 10 more"


def test_a_digest_of_missing_recordings_is_refused(tmp_path):
    tone(tmp_path, "a.wav")
    (tmp_path / "bad.wav").write_text("no audio")
    rows = [{"file_name": f"{name}.wav", "split": "train"} for name in ("a", "bad", "gone")]
    with pytest.raises(ManifestError, match=r"2 bad rows(.|\n)*line 2(.|\n)*line 3"):
        read_manifest(write(tmp_path, rows)).digest  # noqa: B018


def test_files_that_are_no_manifest_are_refused(tmp_path):
    with pytest.raises(ManifestError, match=r"no metadata\.jsonl there"):
        read_manifest(tmp_path)
    with pytest.raises(ManifestError, match="has no rows"):
        read_manifest(write(tmp_path, [""]))
    (tmp_path / "metadata.jsonl").write_bytes(b'{"file_name": "\xe9.wav"}')
    with pytest.raises(ManifestError, match="not UTF-8 text"):
        read_manifest(tmp_path)


def test_the_digest_is_of_the_content(corpus_folder, corpus, tmp_path):
    copy = shutil.copytree(corpus_folder, tmp_path / "elsewhere")
    lines = (copy / "metadata.jsonl").read_text().splitlines()
    (copy / "metadata.jsonl").write_text("\n".join(lines[::-1]))
    assert read_manifest(copy).digest == corpus.digest
    row = json.loads(lines[0])
    for changed in ({"split": "test"}, {"id": "other"}, {"keyword": "go"}, {"start_sample": 1}, {"stop_sample": 1_600}):
        (copy / "metadata.jsonl").write_text("\n".join([json.dumps({**row, **changed}), *lines[1:]]))
        assert read_manifest(copy).digest != corpus.digest
    (copy / "metadata.jsonl").write_text("\n".join(lines))
    audio = copy / row["file_name"]
    audio.write_bytes(audio.read_bytes()[:-1] + b"\x01")
    assert read_manifest(copy).digest != corpus.digest


def test_splits_and_labels_that_are_not_there_are_refused(corpus):
    with pytest.raises(
        ManifestError,
        match=r"no row has the label 'mood' \(labels found: contains, emotion, intent, keyword, marked, phones, query",
    ):
        corpus.with_label("mood")
    only_train = corpus.with_label("keyword")
    only_train = type(corpus)(corpus.name, corpus.source, only_train.split("train"))
    with pytest.raises(ManifestError, match="split 'test' is empty"):
        only_train.split("test")
    assert unseen_labels(corpus, "keyword") == []


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_any_rate_and_channel_count_comes_in_as_16_khz_mono(tmp_path, rate, channels):
    time = np.arange(rate) / rate
    wave = 0.5 * np.sin(2 * np.pi * 440 * time)
    weights = np.arange(1, channels + 1) * 2 / (channels + 1)  # of mean 1: the mean of the channels is the wave
    soundfile.write(tmp_path / "a.wav", wave[:, None] * weights / 2, rate, subtype="FLOAT")
    wav = read_audio(tmp_path / "a.wav")
    assert wav.dtype == torch.float32
    assert wav.shape == (SAMPLE_RATE,)
    expected = 0.25 * torch.sin(2 * torch.pi * 440 * torch.arange(SAMPLE_RATE) / SAMPLE_RATE)
    middle = slice(800, -800)  # the filter has nothing to look at beyond the ends
    assert (wav[middle] - expected[middle]).abs().max() < 2e-3
    assert duration_seconds(tmp_path / "a.wav") == 1.0


@pytest.mark.parametrize(
    ("name", "subtype", "tolerance"),
    [
        ("a.wav", "PCM_16", 1e-4),
        ("a.wav", "PCM_24", 1e-6),
        ("a.wav", "PCM_U8", 1e-2),
        ("a.wav", "FLOAT", 1e-7),
        ("a.wav", "DOUBLE", 1e-7),
        ("a.wav", "ULAW", 2e-2),
        ("a.flac", "PCM_16", 1e-4),
        ("a.aiff", "PCM_24", 1e-6),
        ("a.au", "PCM_16", 1e-4),
        ("a.ogg", "VORBIS", 0.1),
        ("a.ogg", "OPUS", 0.1),
        ("a.mp3", "MPEG_LAYER_III", 0.1),
    ],
)
def test_any_format_comes_in_as_float(tmp_path, name, subtype, tolerance):
    expected = 0.5 * torch.sin(2 * torch.pi * 440 * torch.arange(SAMPLE_RATE) / SAMPLE_RATE)
    soundfile.write(tmp_path / name, expected.numpy(), SAMPLE_RATE, subtype=subtype)
    wav = read_audio(tmp_path / name)
    assert wav.dtype == torch.float32
    assert abs(len(wav) - SAMPLE_RATE) <= 1_200  # an MP3 frame
    middle = slice(4_000, 12_000)
    assert (wav[middle].abs().max() - 0.5).abs() < max(tolerance, 1e-2)
    if tolerance < 0.1:  # the lossy ones shift phases
        assert (wav - expected).abs().max() <= tolerance


def test_errors_name_the_file_and_what_to_do(tmp_path):
    (tmp_path / "a.wav").write_text("no audio")
    for read in (read_audio, duration_seconds):
        with pytest.raises(AudioError, match=r"a\.wav: not readable as audio .* convert it to"):
            read(tmp_path / "a.wav")
        with pytest.raises(AudioError, match=r"b\.wav: no such file; correct"):
            read(tmp_path / "b.wav")


# What is remembered of audio files.


def counted_digests(monkeypatch) -> list[Path]:
    read: list[Path] = []
    plain = _file_digests.file_digest
    monkeypatch.setattr(_file_digests, "file_digest", lambda path: read.append(path) or plain(path))
    return read


@pytest.fixture
def remembering(tmp_path) -> Manifest:
    """Two recordings that were written long ago."""
    rows = []
    for name in ("one.wav", "two.wav"):
        soundfile.write(tmp_path / name, np.full(100, len(rows) / 10), 16_000)
        rows.append({"file_name": name, "split": "train"})
    return replace(read_manifest(write(tmp_path, rows)), memory=tmp_path / "cache")


def test_files_that_did_not_change_are_not_read_again(remembering, monkeypatch):
    monkeypatch.setattr(_file_digests, "SETTLED_NANOSECONDS", 0)
    read = counted_digests(monkeypatch)
    first = remembering.audio_digests
    assert len(read) == 2
    assert replace(remembering).audio_digests == first == replace(remembering, memory=None).audio_digests
    assert len(read) == 4, "once, and once without memory"
    path = remembering.utterances[1].path
    before = path.stat()
    soundfile.write(path, np.full(100, 0.3), 16_000)  # as long as before,
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # and as old, by its own account
    changed = replace(remembering).audio_digests
    assert read[4:] == [path]
    assert changed == replace(remembering, memory=None).audio_digests != first
    (file,) = (remembering.memory).iterdir()
    stamp = file.stat().st_mtime_ns
    assert replace(remembering).audio_digests == changed
    assert file.stat().st_mtime_ns == stamp, "nothing new, nothing written"


def test_a_part_of_the_rows_shares_the_memory_and_takes_nothing_out_of_it(remembering, monkeypatch):
    monkeypatch.setattr(_file_digests, "SETTLED_NANOSECONDS", 0)
    read = counted_digests(monkeypatch)
    part = replace(remembering, utterances=remembering.utterances[:1])
    assert len(part.audio_digests) == 1
    assert len(remembering.audio_digests) == 2
    assert len(replace(part).audio_digests) == 1
    assert len(read) == 2


def test_files_written_a_moment_ago_are_not_trusted(remembering, monkeypatch):
    read = counted_digests(monkeypatch)
    for _ in range(2):
        assert len(replace(remembering).audio_digests) == 2
    assert len(read) == 4


def test_a_damaged_memory_is_forgotten(remembering, monkeypatch):
    monkeypatch.setattr(_file_digests, "SETTLED_NANOSECONDS", 0)
    first = remembering.audio_digests
    (file,) = remembering.memory.iterdir()
    for content in ("{", "[1]", '{"x": 1}'):
        file.write_text(content)
        assert replace(remembering).audio_digests == first


# As people and their tools write them.


def labelled(folder: Path, source: Path | None = None) -> dict[str, tuple[str, object]]:
    """id -> split and keyword."""
    return {row.id: (row.split, row.labels.get("keyword")) for row in read_manifest(source or folder).utterances}


ROWS = [{"file_name": f"{name}.wav", "split": split, "keyword": "yes"}
        for name, split in (("a", "train"), ("b", "valid"), ("c", "test"))]  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_byte_order_marks_are_read(encoding, tmp_path):
    write(tmp_path, ROWS)
    expected = labelled(tmp_path)
    (tmp_path / "metadata.jsonl").write_text("\r\n".join(map(json.dumps, ROWS)), encoding=encoding)
    assert labelled(tmp_path) == expected


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_csv_says_what_its_cells_say(mark, separator, tmp_path):
    lines = [
        "file_name,split,keyword,start_sample",
        "a.wav,train,null,",
        "b.wav,valid,NA,5",
        'c.wav,test,"nan ",',
        "d.wav,test,,",
    ]
    text = mark + "\r\n".join(line.replace(",", separator) for line in lines)
    (tmp_path / "metadata.csv").write_text(text, encoding="utf-8")
    expected = {"a": ("train", "null"), "b": ("valid", "NA"), "c": ("test", "nan "), "d": ("test", None)}
    assert labelled(tmp_path) == labelled(tmp_path, tmp_path / "metadata.csv") == expected
    assert [row.start for row in read_manifest(tmp_path).utterances] == [0, 5, 0, 0]


def test_csv_rows_that_can_t_be_read_are_named(tmp_path):
    (tmp_path / "metadata.csv").write_text("file_name,split\na.wav,train\nb.wav,train,more\nc.wav,nowhere\n")
    with pytest.raises(ManifestError, match=r"(?s)line 3: has more cells.*line 4: split is 'nowhere'"):
        read_manifest(tmp_path)
    (tmp_path / "metadata.csv").write_text("name,split\na.wav,train\n")
    with pytest.raises(ManifestError, match="no column file_name"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_folders_of_splits_are_read(name, tmp_path):
    for folder in ("train", "validation", "test"):
        (tmp_path / folder).mkdir()
        text = (
            "file_name,keyword\na.wav,yes\n" if name.endswith("csv") else '{"file_name": "a.wav", "keyword": "yes"}\n'
        )
        (tmp_path / folder / name).write_text(text)
    expected = {"train/a": ("train", "yes"), "validation/a": ("valid", "yes"), "test/a": ("test", "yes")}
    assert labelled(tmp_path) == expected
    (tmp_path / "test" / name).write_text("file_name,keyword\n,\n" if name.endswith("csv") else '{"keyword": "yes"}\n')
    with pytest.raises(ManifestError, match=rf"test/{name}, line [12]: \"file_name\" is missing"):
        read_manifest(tmp_path)


def test_a_split_can_be_the_folder_of_the_file(tmp_path):
    rows = [{"file_name": f"{folder}/a.wav", "keyword": "yes"} for folder in ("train", "dev", "test")]
    expected = {"train/a": ("train", "yes"), "dev/a": ("valid", "yes"), "test/a": ("test", "yes")}
    assert labelled(write(tmp_path, rows)) == expected


@pytest.mark.parametrize(
    ("written", "found"),
    [("A.WAV", "a.wav"), ("sub\\a.wav", "sub/a.wav"), ("SUB/A.Wav", "sub/a.wav"),
     ("cafe\u0301.wav", "caf\u00e9.wav"), ("caf\u00e9.wav", "cafe\u0301.wav")],
)  # fmt: skip
def test_files_are_found_by_names_of_other_systems(written, found, tmp_path):
    (tmp_path / found).parent.mkdir(exist_ok=True)
    tone(tmp_path, found)
    manifest = read_manifest(write(tmp_path, [{"file_name": written, "split": "train"}]))
    assert manifest.utterances[0].path.is_file()
    assert "1 file names differ" in manifest.notes[0]
    validate(manifest)


def test_a_name_that_fits_two_files_is_refused_and_an_exact_one_taken(tmp_path):
    tone(tmp_path, "a.wav"), tone(tmp_path, "A.wav")
    assert read_manifest(write(tmp_path, [{"file_name": "A.wav", "split": "train"}])).utterances[0].path.name == "A.wav"
    with pytest.raises(ManifestError, match=r"fits A\.wav and a\.wav"):
        read_manifest(write(tmp_path, [{"file_name": "a.WAV", "split": "train"}]))


def test_composed_and_decomposed_labels_are_one_class(tmp_path):
    rows = [{**row, "keyword": word, "voice": word, "intent": {"caf\u00e9": word}}
            for row, word in zip(ROWS, ("caf\u00e9", "cafe\u0301", "caf\u00e9"), strict=True)]  # fmt: skip
    manifest = read_manifest(write(tmp_path, rows))
    assert {row.labels["keyword"] for row in manifest.utterances} == {"caf\u00e9"}
    assert {row.labels["voice"] for row in manifest.utterances} == {"caf\u00e9"}
    assert unseen_labels(manifest, "intent") == []


def test_an_id_of_null_is_left_out(tmp_path):
    assert list(labelled(write(tmp_path, [{**row, "id": None} for row in ROWS]))) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"file_name": ""}, "file_name is empty"),
        ({"file_name": "."}, "file_name is empty"),
        ({"file_name": None}, '"file_name" is missing'),
        ({"file_name": "a\0.wav"}, "is no name"),
        ({"id": ["a"]}, "id is"),
        ({"id": " "}, "id is"),
        ({"keyword": float("nan")}, "keyword is nan, which is no label"),
        ({"note": float("inf")}, "note is inf"),
        ({"note": "cut \ud83d"}, "half of a surrogate pair"),
        ({"\ud83d": "x"}, "half of a surrogate pair"),
        ({"intent": {}}, "intent has no slots"),
        ({"intent": {"": "on"}}, "intent has no slots, or one without a name"),
        ({"intent": {"action": None}}, "intent has no value for 'action'"),
        ({"intent": {"action": float("nan")}}, r"intent\.action is nan"),
        ({"start_sample": True, "stop_sample": "x"}, "must be whole numbers"),
    ],
)
def test_what_is_no_row_is_refused_by_line(changed, message, tmp_path):
    with pytest.raises(ManifestError, match=f"line 2: .*{message}"):
        read_manifest(write(tmp_path, [ROWS[0], {**ROWS[1], **changed}]))


def test_rows_beyond_all_bounds_and_of_other_kinds_are_refused_by_line(tmp_path):
    with pytest.raises(ManifestError, match=r"(?s)line 1: not a row.*line 2: not a JSON object.*line 3: not a JSON"):
        read_manifest(write(tmp_path, ["[" * 100_000, "null", '"text"']))


def test_a_number_and_text_that_read_alike_are_noted(tmp_path):
    rows = [{**row, "keyword": word} for row, word in zip(ROWS, (1, "1", 1), strict=True)]
    assert "keyword '1' is text in one row and a number in another" in read_manifest(write(tmp_path, rows)).notes[0]
    assert read_manifest(write(tmp_path, ROWS)).notes == ()


@pytest.mark.parametrize("name", ["\\", "/", ".", "..", "\\\\", "a/..", "//", "a/"])
def test_a_name_of_nothing_but_separators_is_refused_in_words(name, tmp_path):
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": name, "split": "train"}) + "\n")
    with pytest.raises((ManifestError, AudioError), match=re.escape(str(tmp_path)) + "|no such file"):
        read_audio(read_manifest(tmp_path).utterances[0].path)


def test_labels_are_no_part_of_what_is_heard(corpus):
    """So that a corpus with other labels is no other one to pretrain on; other splits and other pieces are."""

    def changed(**fields):
        return replace(corpus, utterances=(replace(corpus.utterances[0], **fields), *corpus.utterances[1:]))

    others = {"labels": {"text": "another"}, "split": "test", "start": 1, "stop": 2_000}
    same = {name for name, value in others.items() if changed(**{name: value}).heard_digest == corpus.heard_digest}
    assert same == {"labels"}
    assert changed(labels=others["labels"]).digest != corpus.digest
