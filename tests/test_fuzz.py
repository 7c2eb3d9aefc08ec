"""Whatever a file or an argument holds: it is used, or refused in words; no traceback, and no length that is not there.

A few hundred examples each in the suite, always the same; `FROSTBENCH_FUZZ=10000` draws so many new ones.
"""

from __future__ import annotations

import contextlib
import csv
import gc
import io
import json
import math
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import fuzzed
from hypothesis import given
from hypothesis import strategies as st
from results import WER, add, classified, rows_of, upstream
from test_audio import FILES, encoded, written

from core.audio import num_samples, read_audio
from core.digest import digest_of, json_text
from core.errors import AudioError, ManifestError, RecordError
from core.manifest import read_manifest, summarise
from core.records import RecordStore
from leaderboard.aggregate import leaderboard
from leaderboard.exports import to_csv, to_json, to_latex
from leaderboard.page import page
from leaderboard.tables import rich_tables, to_markdown
from leaderboard.verification import verify

# Audio: what a header says is held against what can be decoded.

CONTAINERS = {
    **FILES,
    "float": encoded("WAV", "FLOAT", 44_100, 2),
    "adpcm": encoded("WAV", "IMA_ADPCM"),
    "mulaw": encoded("AU", "ULAW", 8_000),
    "flac24": encoded("FLAC", "PCM_24", 48_000, 2),
    "cbr": encoded("MP3", rate=22_050, channels=2, bitrate_mode="CONSTANT"),
    "vorbis": encoded("OGG", "VORBIS"),
    "w64": encoded("W64"),
    "caf": encoded("CAF"),
    "rf64": encoded("RF64"),
}
EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF)


@pytest.mark.parametrize("name", CONTAINERS)
@given(data=st.data())
@fuzzed(60)
def test_damaged_audio_is_refused_in_words_or_as_long_as_its_header_says(name, tmp_path, data):
    """Bytes of the first kilobyte changed, moved or put in between, and the end cut."""
    changed = bytearray(CONTAINERS[name])
    places = st.integers(0, 63) | st.integers(0, min(len(changed), 1_000) - 1)
    for _ in range(data.draw(st.integers(0, 4))):
        place, how = data.draw(places), data.draw(st.sampled_from(["byte", "number", "in between", "out"]))
        if how == "byte":
            changed[place] = data.draw(st.sampled_from(EXTREMES) | st.integers(0, 255))
        elif how == "number":
            changed[place : place + 4] = data.draw(st.integers(0, 2**32 - 1)).to_bytes(4, "little")
        elif how == "in between":
            changed[place:place] = data.draw(st.binary(max_size=40))
        else:
            del changed[place : place + data.draw(st.integers(1, 40))]
    end = data.draw(st.just(len(changed)) | st.integers(0, len(changed)))
    path = written(tmp_path, bytes(changed[:end]), "a.bin")
    try:
        wav = read_audio(path)
    except AudioError as error:
        assert str(path) in str(error)
        return
    assert len(wav) == num_samples(path) > 0
    start = data.draw(st.integers(0, len(wav)))
    assert read_audio(path, start).equal(wav[start:]), "a piece is a part of the whole"


# Manifests.

texts = st.text() | st.sampled_from(
    ["train", "valid", "a.wav", "\ud800", "null", "NaN", "e\u0301", "..", "a" * 300, " "]
)
numbers = st.integers() | st.floats() | st.sampled_from([10**40, -1, True])
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
keys = (
    st.sampled_from(["file_name", "split", "id", "start_sample", "stop_sample", "keyword", "intent", "text", "mixture",
                     "length", "speaker", "voice"])
    | st.text()
)  # fmt: skip
sources = st.dictionaries(
    st.sampled_from(["of", "file_name", "offset", "gain_db", "start_sample", "stop_sample", "other"]), values | numbers
) | st.fixed_dictionaries({"file_name": st.just("a.wav")}, optional={"offset": numbers, "gain_db": numbers})
rows = (
    st.dictionaries(keys, values)
    | st.fixed_dictionaries(
        {"file_name": texts, "split": st.just("train")},
        optional={"keyword": values, "id": values, "start_sample": numbers, "stop_sample": numbers},
    )
    | st.fixed_dictionaries(
        {"id": texts, "split": st.just("train"), "mixture": values | st.lists(sources, max_size=2)},
        optional={"length": values, "text": values},
    )
)


def used_or_refused(folder: Path, count: int) -> None:
    """A manifest of so many rows: each is there, and can be counted and written down; or a ManifestError says why."""
    try:
        manifest = read_manifest(folder)
    except ManifestError as error:
        assert str(folder) in str(error)
        return
    assert len(manifest.utterances) == count
    summarise(manifest)
    json.dumps([[row.id, dict(row.labels)] for row in manifest.utterances], allow_nan=False).encode()
    digest_of([row.labels for row in manifest.utterances])
    for row in manifest.utterances:
        assert all(math.isfinite(source.gain_db) and source.offset >= 0 for source in row.sources)
        for source in row.sources:
            source.path.is_file()
    with pytest.raises(ManifestError):
        manifest.audio_digests  # noqa: B018  # none of the files is there


@given(rows=st.lists(rows, max_size=3))
@fuzzed(300)
def test_any_rows_are_read_or_refused_in_words(rows, tmp_path):
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    used_or_refused(tmp_path, len(rows))


@given(lines=st.lists(st.text() | st.builds(json.dumps, values), max_size=4))
@fuzzed(200)
def test_any_text_is_read_as_rows_or_refused_in_words(lines, tmp_path):
    text = "\n".join(lines)
    (tmp_path / "metadata.jsonl").write_text(text, encoding="utf-8", errors="surrogatepass", newline="")
    used_or_refused(tmp_path, sum(bool(line.strip()) for line in text.split("\n")))


@given(content=st.binary(max_size=200), name=st.sampled_from(["metadata.jsonl", "metadata.csv"]))
@fuzzed(200)
def test_any_bytes_are_refused_in_words(content, name, tmp_path):
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        (Path(folder) / name).write_bytes(content)
        try:
            manifest = read_manifest(Path(folder))
        except ManifestError as error:
            assert folder in str(error)
        else:
            assert manifest.utterances


cells = st.text(max_size=8) | st.sampled_from(["train", "a.wav", "1" * 5_000, "٣", "-1", "NA", '"', "a,b", "\n", "\0"])


@given(
    names=st.lists(keys | cells, max_size=4),
    table=st.lists(st.lists(cells, max_size=6), max_size=4),
    separator=st.sampled_from(",;\t"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    raw=st.none() | cells,
)
@fuzzed(300)
def test_any_csv_is_read_or_refused_in_words(names, table, separator, quoting, raw, tmp_path):
    with io.StringIO(newline="") as file:
        writer = csv.writer(file, delimiter=separator, quoting=quoting, escapechar="\\")
        writer.writerows([["file_name", "split", *names], *table])
        text = file.getvalue() + (raw or "")
    (tmp_path / "metadata.csv").write_text(text, encoding="utf-8", errors="surrogatepass", newline="")
    try:
        manifest = read_manifest(tmp_path)
    except ManifestError as error:
        assert str(tmp_path) in str(error)
        return
    json.dumps([[row.id, dict(row.labels)] for row in manifest.utterances], allow_nan=False).encode()


# Records.


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """Two upstreams on one task and one on another, and a record of an older schema."""
    gc.freeze()  # statsmodels collects garbage at every call; the command line does the same
    store = RecordStore(tmp_path_factory.mktemp("fuzz") / "results")
    for name in ("apc", "fbank"):
        add(store, classified([1, 0, 1, 1], 2), upstream=upstream(name, layers=2))
    add(store, rows_of([("a cat", "the cat"), ("dog", "dog")], 2), WER, upstream=upstream("apc"))
    shutil.copytree(Path(__file__).parent / "golden" / "records" / "schema1", store.folder, dirs_exist_ok=True)
    return store.folder


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """The paths of all values inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, each in inner for place in places(each, (*path, key)))]


def changed_at(value: Any, path: tuple, change: Callable[[Any], Any]) -> Any:
    """The value with another one at a path; `...` takes the key or item away."""
    if not path:
        return change(value)
    key, *rest = path
    new = changed_at(value[key], tuple(rest), change)
    if isinstance(value, dict):
        return {name: new if name == key else each for name, each in value.items() if name != key or new is not ...}
    return [new if place == key else each for place, each in enumerate(value) if place != key or new is not ...]


@given(data=st.data())
@fuzzed(200)
def test_any_record_is_reported_or_left_out(results, tmp_path, monkeypatch, data):
    """A value is taken away or becomes another one, and the record is sealed again, so that its digest says nothing."""
    monkeypatch.setattr("leaderboard.statistics.RESAMPLES", 20)  # most of the time
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        store = RecordStore(Path(folder))
        shutil.copytree(results, store.folder, dirs_exist_ok=True)
        path = data.draw(st.sampled_from(store.paths()))
        content = json.loads(path.read_text())
        is_sealed = content.pop("digest", None) is not None
        for _ in range(data.draw(st.integers(1, 2))):
            place = data.draw(st.sampled_from(places(content)))
            other = data.draw(
                st.just(...) | values | st.sampled_from([0, "", [], {}, -1, 1e308, float("nan"), "lower"])
            )
            content = {} if other is ... and not place else changed_at(content, place, lambda value, other=other: other)
        if is_sealed and isinstance(content, dict) and data.draw(st.booleans()):
            with contextlib.suppress(UnicodeEncodeError):  # what can't be written can't be sealed
                content["digest"] = digest_of(content)
        path.write_text(json_text(content), encoding="utf-8", errors="surrogatepass")
        board = leaderboard(store, custom=True)
        for write in (to_markdown, to_csv, to_json, to_latex, lambda board: list(rich_tables(board))):
            write(board)
        if data.draw(st.integers(0, 3)) == 0:
            page(board)  # takes longer than all else
        shown = {run.run for each in (*board.boards, *board.variants) for row in each.rows
                 for cell in row.cells.values() for run in cell.seeds}  # fmt: skip
        named = [line for line in board.left_out if path.stem in line]
        assert len(shown) + bool(named) == len(store.paths()), "each is shown, or named"
        findings = verify(store)
        assert not named or findings, "what is left out fails to verify"


@given(content=st.binary(max_size=100) | st.builds(lambda value: json.dumps(value).encode(), values))
@fuzzed(200)
def test_any_file_among_the_records_is_left_out(results, tmp_path, content):
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        store = RecordStore(Path(folder))
        shutil.copytree(results / "records", store.folder / "records")
        (store.folder / "records" / ("a" * 16 + ".json")).write_bytes(content)
        assert len(leaderboard(store, custom=True).left_out) == 1
        with pytest.raises(RecordError):
            store.all()
