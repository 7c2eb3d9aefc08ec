"""`hf:` corpora: generated Parquet files and AudioFolders, without a network, torchcodec or ffmpeg."""

from __future__ import annotations

import io
import json
from pathlib import Path

import datasets
import huggingface_hub.constants
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile
from typer.testing import CliRunner

from core.audio import SAMPLE_RATE, read_audio
from core.errors import ManifestError
from run_benchmark import app
from tasks.corpora import _huggingface
from tasks.corpora._base import open_corpus
from tasks.corpora._columns import choose_columns, labels_of, parse_columns

FEATURES = datasets.Features(
    {
        "audio": datasets.Audio(),
        "label": datasets.ClassLabel(names=["no", "yes"]),
        "sentence": datasets.Value("string"),
        "client_id": datasets.Value("string"),
        "weights": datasets.List(datasets.Value("float32")),
    }
)


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def recording(seed: int, kind: str = "FLAC") -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(seed).normal(0, 0.1, 1_600)
    soundfile.write(file, noise, SAMPLE_RATE, format=kind)
    return file.getvalue()


def make_parquet(folder: Path, splits: tuple[str, ...] = ("train", "validation", "test"), typed: bool = True) -> Path:
    """As `push_to_hub` writes it, or as any other tool does, without the library's types."""
    folder.mkdir(parents=True)
    schema = FEATURES.arrow_schema if typed else FEATURES.arrow_schema.remove_metadata()
    for number, split in enumerate(splits):
        seeds = [10 * number, 10 * number + 1]
        columns = {
            "audio": [{"bytes": recording(seed), "path": f"{seed}.flac" if typed else None} for seed in seeds],
            "label": [0, 1],
            "sentence": [f"sentence {seed}" for seed in seeds],
            "client_id": [f"speaker {number}"] * 2,
            "weights": [[0.5], [1.0]],
        }
        table = pyarrow.table(columns, schema=schema)
        pyarrow.parquet.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    return folder


def test_parquet_with_names_known_without_asking(tmp_path):
    folder = make_parquet(tmp_path / "set")
    manifest = open_corpus(f"hf:{folder}", cache=tmp_path / "cache")
    assert manifest.name == "set" and manifest.missing == () == manifest.notes
    assert [row.split for row in manifest.utterances] == ["train", "train", "valid", "valid", "test", "test"]
    first = manifest.utterances[0]
    assert first.id == "train/000000"
    assert first.labels == {"text": "sentence 0", "client_id": "speaker 0", "label": "no"}
    assert first.path.read_bytes() == recording(0)
    assert first.path.parent == tmp_path / "cache" / "hf" and first.path.suffix == ".flac"
    assert len(read_audio(first.path)) == 1_600


def test_audio_is_written_once_and_named_by_its_content(tmp_path):
    folder = make_parquet(tmp_path / "set")
    first = open_corpus(f"hf:{folder}", cache=tmp_path / "cache")
    times = {row.path: row.path.stat().st_mtime_ns for row in first.utterances}
    again = open_corpus(f"hf:{folder}", columns="text=sentence", cache=tmp_path / "cache")
    assert {row.path: row.path.stat().st_mtime_ns for row in again.utterances} == times
    assert again.digest == first.digest and len(times) == 6


def test_parquet_without_the_library_s_types(tmp_path):
    folder = make_parquet(tmp_path / "set", typed=False)
    manifest = open_corpus(f"hf:{folder}", cache=tmp_path / "cache")
    assert manifest.utterances[0].path.suffix == ".flac"  # known by its content: there is no path
    assert manifest.utterances[0].labels["label"] == 0


def test_columns_are_mapped(tmp_path):
    spec = f"hf:{make_parquet(tmp_path / 'set')}"
    manifest = open_corpus(spec, columns="keyword=label,voice=client_id,intent=label+sentence", cache=tmp_path)
    assert manifest.utterances[1].labels == {
        "keyword": "yes",
        "voice": "speaker 0",
        "intent": {"label": "yes", "sentence": "sentence 1"},
        "text": "sentence 1",
    }
    with pytest.raises(ManifestError, match="no column word; there are: audio, label, sentence"):
        open_corpus(spec, columns="keyword=word", cache=tmp_path)
    with pytest.raises(ManifestError, match="--columns is for hf: datasets"):
        open_corpus("mini", columns="keyword=word")


def test_splits_of_other_names(tmp_path):
    folder = make_parquet(tmp_path / "set", ("train", "test"))
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: clean\n  data_files:\n  - split: train.100\n    path: train-*\n"
        "  - split: other\n    path: test-*\n"
        "- config_name: other\n  data_files:\n  - split: dev\n    path: test-*\n---\n"
    )
    manifest = open_corpus(f"hf:{folder}:clean", cache=tmp_path / "cache")
    assert {row.split for row in manifest.utterances} == {"train"}
    assert manifest.notes[0] == "split 'train.100' is counted as train"
    assert manifest.notes[1].startswith("split 'other' is left out: its name is none of train, training, valid")
    assert [part.split(":")[0] for part in manifest.missing] == ["split valid is missing", "split test is missing"]
    other = open_corpus(f"hf:{folder}:other", cache=tmp_path / "cache")
    assert {row.split for row in other.utterances} == {"valid"}
    with pytest.raises(ManifestError, match="can't be opened"):
        open_corpus(f"hf:{folder}", cache=tmp_path / "cache")  # two configurations: one has to be named


@pytest.mark.parametrize("metadata", [False, True])
def test_audio_folder(metadata, tmp_path):
    for split in ("train", "validation", "test"):
        for word in ("no", "yes"):
            path = tmp_path / "set" / split / word / f"{split}-{word}.wav"
            path.parent.mkdir(parents=True)
            path.write_bytes(recording(len(str(path)), "WAV"))
        if metadata:
            rows = [{"file_name": f"{word}/{split}-{word}.wav", "sentence": word} for word in ("no", "yes")]
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (tmp_path / "set" / split / "metadata.jsonl").write_text(lines)
    manifest = open_corpus(f"hf:{tmp_path / 'set'}", cache=tmp_path / "cache")
    rows = {row.path.name: row for row in manifest.utterances}
    assert len(rows) == 6 and rows["validation-yes.wav"].split == "valid"
    assert rows["test-no.wav"].labels == ({"text": "no"} if metadata else {"label": "no"})
    assert not (tmp_path / "cache").exists()  # the files are there already


def test_saved_to_disk(tmp_path):
    saved = datasets.load_dataset(str(make_parquet(tmp_path / "set")))
    saved.save_to_disk(str(tmp_path / "saved"))
    manifest = open_corpus(f"hf:{tmp_path / 'saved'}", cache=tmp_path / "cache")
    assert manifest.digest == open_corpus(f"hf:{tmp_path / 'set'}", cache=tmp_path / "cache").digest


def test_a_dataset_in_the_cache_of_datasets(tmp_path):
    datasets.load_dataset(str(make_parquet(tmp_path / "name")))
    (built,) = (tmp_path / "datasets" / "name").iterdir()
    info = next(built.glob("*/*/dataset_info.json"))
    info.write_text(json.dumps(json.loads(info.read_text()) | {"config_name": "default"}))
    (tmp_path / "datasets" / "org___name").mkdir()
    built.rename(tmp_path / "datasets" / "org___name" / "default")
    manifest = open_corpus("hf:org/name", cache=tmp_path / "cache")
    assert manifest.name == "org/name" and len(manifest.utterances) == 6
    assert manifest.utterances[0].labels["label"] == "no"


def test_a_dataset_in_the_hub_s_cache(tmp_path):
    home = tmp_path / "hub" / "datasets--org--name"
    make_parquet(home / "snapshots" / "0123abc" / "data")
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("0123abc")
    manifest = open_corpus("hf:org/name", cache=tmp_path / "cache")
    assert manifest.name == "org/name" and len(manifest.utterances) == 6
    with pytest.raises(ManifestError, match=r"hf:org/other:clean: can't be opened \(Couldn't reach"):
        open_corpus("hf:org/other:clean", cache=tmp_path / "cache")


def test_rows_without_audio_are_named(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    columns = {"audio": [None, {"bytes": None, "path": "gone.wav"}], "sentence": ["a", "b"]}
    schema = FEATURES.arrow_schema
    table = pyarrow.table(columns, schema=pyarrow.schema([schema.field("audio"), schema.field("sentence")]))
    pyarrow.parquet.write_table(table, folder / "train.parquet")
    with pytest.raises(
        ManifestError, match=r"2 bad rows(?s:.*)row 0: has no audio(?s:.*)row 1: .* 'gone\.wav' is no file"
    ):
        open_corpus(f"hf:{folder}", cache=tmp_path / "cache")


def test_the_audio_column_has_to_be_one(tmp_path):
    features = {"clean": datasets.Audio(), "noisy": datasets.Audio(), "length": datasets.Value("float32")}
    assert _huggingface._audio_column(features, {"audio": ("noisy",)}, "x") == "noisy"
    with pytest.raises(ManifestError, match=r"several columns hold audio \(clean, noisy\)"):
        _huggingface._audio_column(features, {}, "x")
    with pytest.raises(ManifestError, match=r"no column of audio \(there are: clean, noisy, length\)"):
        _huggingface._audio_column(features, {"audio": ("length",)}, "x")


def test_what_is_no_audio_is_kept_for_prepare_to_name(tmp_path):
    path = _huggingface._stored(b"not audio", ".zip", tmp_path)
    assert path.suffix == ".bin" and path.read_bytes() == b"not audio"


def test_columns_text():
    assert parse_columns("text=sentence, intent=action+object") == {
        "text": ("sentence",),
        "intent": ("action", "object"),
    }
    assert parse_columns(None) == {} == parse_columns("")
    for wrong in ("text", "text=", "=sentence", "text=a,text=b", "intent=a+"):
        with pytest.raises(ManifestError, match="LABEL=COLUMN"):
            parse_columns(wrong)
    with pytest.raises(ManifestError, match="can't be a label"):
        parse_columns("split=fold")


def test_columns_chosen():
    columns = ["audio", "transcription", "action", "object", "location", "id"]
    assert choose_columns({}, columns, "audio") == {
        "text": ("transcription",),
        "intent": ("action", "object", "location"),
    }
    # A column of the label's own name goes before a synonym.
    assert choose_columns({}, ["text", "sentence"], "audio") == {"text": ("text",), "sentence": ("sentence",)}
    assert labels_of({"a": None, "b": b"x", "c": 1}, {"a": ("a",), "b": ("b",), "c": ("c",), "d": ("a", "c")}) == {
        "c": 1
    }


def test_prepare(tmp_path):
    folder = make_parquet(tmp_path / "set")
    arguments = ["prepare", f"hf:{folder}", "--cache", str(tmp_path / "cache"), "--columns"]
    result = CliRunner().invoke(app, [*arguments, "speaker=client_id"])
    assert isinstance(result.exception, ManifestError) and "speaker 'speaker 1' is in valid" in str(result.exception)
    result = CliRunner().invoke(app, [*arguments, "keyword=label,voice=client_id"])
    assert result.exit_code == 0 and "keyword" in result.output, result.output


def test_a_damaged_file_is_told(tmp_path):
    folder = make_parquet(tmp_path / "set")
    path = folder / "test-00000-of-00001.parquet"
    content = bytearray(path.read_bytes())
    content[4:200] = b"x" * 196
    path.write_bytes(content)
    with pytest.raises(ManifestError, match="split 'test' can't be read"):
        open_corpus(f"hf:{folder}", cache=tmp_path / "cache")


@pytest.mark.parametrize("kind", ["bytes", "path"])
def test_parquet_with_plain_audio_and_a_column_of_splits(kind, tmp_path):
    """As pandas writes it: no type says what is audio, and all rows lie in one file."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for seed in range(3):
        (folder / f"{seed}.flac").write_bytes(recording(seed))
    audio = [recording(seed) if kind == "bytes" else f"{seed}.flac" for seed in range(3)]
    columns = {"audio": audio, "keyword": ["yes", "no", "null"], "split": ["train", "dev", "test"]}
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "data.parquet")
    manifest = open_corpus(f"hf:{folder}", cache=tmp_path / "cache")
    assert [(row.split, row.labels["keyword"]) for row in manifest.utterances] == [
        ("train", "yes"), ("valid", "no"), ("test", "null")]  # fmt: skip
    assert all(len(read_audio(row.path)) == 1_600 for row in manifest.utterances)
    renamed = pyarrow.table({**columns, "sound": audio}).drop_columns(["audio"])
    pyarrow.parquet.write_table(renamed, folder / "data.parquet")
    with pytest.raises(ManifestError, match="no column of audio"):
        open_corpus(f"hf:{folder}", cache=tmp_path / "cache")
    assert open_corpus(f"hf:{folder}", None, "audio=sound", tmp_path / "cache").utterances == manifest.utterances


def test_words_that_pandas_takes_for_missing_are_labels(tmp_path):
    folder = tmp_path / "corpus"
    for split in ("train", "validation", "test"):
        (folder / split).mkdir(parents=True)
        (folder / split / "a.flac").write_bytes(recording(1))
        (folder / split / "metadata.csv").write_text("file_name,keyword\na.flac,NA\n")
    assert [row.labels["keyword"] for row in open_corpus(f"hf:{folder}").utterances] == ["NA"] * 3
