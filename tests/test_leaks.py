"""Recordings that are in two splits, or in what an upstream was trained on, are found, whatever their files are."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from conftest import call
from made_boards import board

from core.audio import SAMPLE_RATE, read_audio
from core.errors import CheckpointError
from core.fingerprints import copies, fingerprint, from_text, to_text
from core.manifest import Manifest, read_manifest
from core.records import RecordStore
from frostbench.preparation import fingerprints_of, in_two_splits
from leaderboard.aggregate import leaderboard
from leaderboard.board import Leaderboard
from leaderboard.page import page
from leaderboard.tables import to_markdown
from upstreams._encoders.notes import MOST, heard_by, recordings_note
from upstreams._resolve import heard_in_pretraining

MINI = Path(__file__).parent.parent / "tasks" / "corpora" / "_mini"
DATA = Path(__file__).parent.parent.parent / "shared" / "data"


def at(wav: np.ndarray, rate: int) -> tuple[np.ndarray, int]:
    return soxr.resample(wav, SAMPLE_RATE, rate), rate


CUT = SAMPLE_RATE // 20  # 50 ms
# What becomes of a recording: its waveform at a rate, and the ending and subtype of its file.
CHANGES: dict[str, Callable[[np.ndarray], tuple[tuple[np.ndarray, int], str, str]]] = {
    "flac": lambda wav: ((wav, SAMPLE_RATE), "flac", "PCM_16"),
    "opus": lambda wav: ((wav, SAMPLE_RATE), "ogg", "OPUS"),
    "vorbis": lambda wav: ((wav, SAMPLE_RATE), "ogg", "VORBIS"),
    "resampled to 44.1 kHz": lambda wav: (at(wav, 44_100), "wav", "PCM_16"),
    "resampled to 8 kHz": lambda wav: (at(wav, 8_000), "wav", "PCM_16"),
    "without its first 50 ms": lambda wav: ((wav[CUT:], SAMPLE_RATE), "wav", "PCM_16"),
    "without its last 50 ms": lambda wav: ((wav[:-CUT], SAMPLE_RATE), "wav", "PCM_16"),
    "quieter by 20 dB": lambda wav: ((0.1 * wav, SAMPLE_RATE), "wav", "PCM_16"),
    "upside down": lambda wav: ((-wav, SAMPLE_RATE), "wav", "PCM_16"),
    "all of it": lambda wav: (at(0.3 * wav[CUT:], 8_000), "ogg", "OPUS"),
}


@pytest.fixture(scope="module")
def mini() -> Manifest:
    return read_manifest(MINI)


@pytest.fixture(scope="module")
def prints(mini):
    """Of every tenth recording."""
    return fingerprints_of(replace(mini, utterances=mini.utterances[::10]))


@pytest.fixture(scope="module")
def small(mini, tmp_path_factory) -> Path:
    """Keywords of mini, a few a split, as files of their own."""
    folder = tmp_path_factory.mktemp("leaks")
    taken = [row for row in mini.utterances if row.labels.get("keyword") in ("yes", "no")]
    rows = [row for split, count in (("train", 12), ("valid", 4), ("test", 8))
            for row in [row for row in taken if row.split == split][::3][:count]]  # fmt: skip
    lines = [{"file_name": str(row.path.resolve()), "id": row.id, "split": row.split, **row.labels} for row in rows]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def planted(source: Path, folder: Path, change: str = "all of it", name: str = "copy") -> str:
    """The corpus in another folder, with a recording of test in train, in another file; gives the recording's id."""
    rows = [json.loads(line) for line in (source / "metadata.jsonl").read_text().splitlines()]
    stolen = next(row for row in rows if row["split"] == "test")
    (wav, rate), ending, subtype = CHANGES[change](read_audio(Path(stolen["file_name"])).numpy())
    folder.mkdir(exist_ok=True)
    soundfile.write(folder / f"{name}.{ending}", wav, rate, subtype=subtype)
    rows.append({**stolen, "file_name": f"{name}.{ending}", "id": name, "split": "train", "voice": "nobody"})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(stolen["id"])


@pytest.mark.parametrize("change", CHANGES)
def test_a_recording_is_known_again(change, mini, prints, tmp_path):
    by_id = {row.id: row for row in mini.utterances}
    asked = [name for name in prints if len(prints[name]) and by_id[name].labels.get("voice")][::12]
    for name in asked:
        wav = read_audio(by_id[name].path).numpy()
        (changed, rate), ending, subtype = CHANGES[change](wav)
        path = tmp_path / f"file.{ending}"
        soundfile.write(path, changed, rate, subtype=subtype)
        found = list(copies({"again": fingerprint(read_audio(path))}, prints))
        assert [copy.known for copy in found] == [name]
        assert 0.82 <= found[0].likeness <= 1.0
    assert len(asked) >= 20


def test_nothing_of_mini_is_in_two_splits(mini, prints):
    split_of = {row.id: row.split for row in mini.utterances}
    assert in_two_splits(list(copies(prints, prints)), split_of) == []


@pytest.mark.parametrize(("corpus", "step"), [("fsdd", 6), ("barista", 4)])
def test_takes_of_the_same_words_by_the_same_voice_are_no_copies(corpus, step):
    if not (DATA / corpus).is_dir():
        pytest.skip(f"{corpus} is not there")
    manifest = read_manifest(DATA / corpus)
    part = replace(manifest, utterances=manifest.utterances[::step])
    split_of = {row.id: row.split for row in part.utterances}
    found = fingerprints_of(part)
    assert in_two_splits(list(copies(found, found)), split_of) == []


def test_silence_and_hums_tell_nothing():
    time = torch.arange(SAMPLE_RATE) / SAMPLE_RATE
    hum = 0.1 * torch.sin(2 * torch.pi * 220 * time)
    assert fingerprint(torch.zeros(SAMPLE_RATE)).shape == (0, 9)
    assert list(copies({"a": fingerprint(hum)}, {"b": fingerprint(hum[160:])})) == []
    assert fingerprint(torch.zeros(1)).shape == (0, 9), "shorter than a frame"


def test_square_waves_of_other_takes_are_no_copies(corpus):
    split_of = {row.id: row.split for row in corpus.utterances}
    known = fingerprints_of(corpus)
    assert in_two_splits(list(copies(known, known)), split_of) == []


def test_noise_is_like_itself_alone():
    noise = [torch.from_numpy(np.random.RandomState(seed).randn(SAMPLE_RATE).astype(np.float32)) for seed in (0, 1)]
    known = {str(seed): fingerprint(wav) for seed, wav in enumerate(noise)}
    assert list(copies(known, known)) == []
    assert {copy.known for copy in copies({"again": fingerprint(0.2 * noise[1])}, known)} == {"1"}


def test_fingerprints_are_text_and_back(prints):
    some = [each for each in prints.values() if len(each)][:5]
    read = from_text(to_text(some))
    assert np.array_equal(np.concatenate(list(read.values())), np.concatenate(some))
    for damaged in ("!", to_text(some)[:-8]):
        with pytest.raises(CheckpointError, match="what it notes of its recordings is damaged"):
            heard_by({"recordings": {"fingerprints": damaged}}, "a.safetensors")


def test_of_very_many_recordings_some_are_noted():
    prints = [np.full((1, 9), number, np.uint64) for number in range(3 * MOST)]
    note = recordings_note(prints)
    assert (note["kept"], note["of"]) == (MOST, 3 * MOST)
    kept = [int(each[0, 0]) for each in heard_by({"recordings": note}, "here").values()]
    assert kept == list(range(0, 3 * MOST, 3))


def run(corpus: Path, tasks_file: Path, output: Path, *more: object, upstream: str = "fbank"):
    folders = ("--output", output / "results", "--cache", output / "cache", "--workers", 1)
    return call("run", "--upstream", upstream, "--task", f"{tasks_file}:KS", "--corpus", corpus, *folders, *more)


def test_prepare_and_run_name_what_is_in_two_splits(small, tasks_file, tmp_path):
    stolen = planted(small, tmp_path / "corpus")
    line = f"note: one recording is in two splits, in different files: '{stolen}' of test is 'copy' of train; whoever"
    for called in (call("prepare", tmp_path / "corpus"), run(tmp_path / "corpus", tasks_file, tmp_path)):
        assert called.code == 0, called.err
        assert called.err.count(line) == 1
    again = run(tmp_path / "corpus", tasks_file, tmp_path, "--seed", 1)
    assert again.err.count(line) == 1, "it is kept with the cache, and said again"
    assert "checking recordings" not in again.err
    store = RecordStore(tmp_path / "results")
    leaks = [store.read(path).circumstances["leaks"] for path in store.paths()]
    assert leaks == [{"two_splits": {"count": 1, "of": 8, "ids": [stolen]}}] * 2
    text = to_markdown(leaderboard(store, custom=True))
    assert f"KS: 1 of the 8 recordings of test ('{stolen}') are in train or valid as well" in text
    assert "(leak)" not in text, "it is no fault of the upstream"


def test_a_clean_corpus_gives_no_warning(small, tasks_file, tmp_path):
    for called in (call("prepare", small), run(small, tasks_file, tmp_path)):
        assert called.code == 0, called.err
        assert "note:" not in called.err
    store = RecordStore(tmp_path / "results")
    assert "leaks" not in store.read(store.paths()[0]).circumstances


def test_damaged_fingerprints_are_made_anew(small, tasks_file, tmp_path):
    stolen = planted(small, tmp_path / "corpus")
    assert run(tmp_path / "corpus", tasks_file, tmp_path).code == 0
    for path in (tmp_path / "cache" / "validated").iterdir():
        if path.suffix == ".npz" or "copies" in path.name:
            path.write_bytes(b"damaged")
    again = run(tmp_path / "corpus", tasks_file, tmp_path, "--seed", 1)
    assert again.code == 0 and f"'{stolen}' of test" in again.err


@pytest.mark.parametrize("method", ["apc", "wav2vec2"], ids=["a file", "a folder of save_pretrained"])
def test_an_upstream_that_was_trained_on_test_is_flagged(method, small, tasks_file, tmp_path):
    """Trained on a corpus whose train holds a recording of test, in another file; evaluated on the clean one."""
    stolen = planted(small, tmp_path / "corpus")
    sizes = ("num_layers=1", "hidden_size=16") if method == "apc" else ()
    settings = [part for size in sizes for part in ("--set", size)]
    trained = call("pretrain", method, "--corpus", tmp_path / "corpus", "--steps", 2, "--looks", 0, "--workers", 1,
                   "--output", tmp_path / "checkpoints", *settings)  # fmt: skip
    assert trained.code == 0, trained.err
    assert f"'{stolen}' of test is 'copy' of train" in trained.err
    path = next((tmp_path / "checkpoints").glob(f"{method}-tiny*"))
    specs = [f"{method}@{path}"] + ([f"hf:{path}"] if method == "wav2vec2" else [])
    for spec in specs:
        assert len(heard_in_pretraining(spec)) >= 13
    assert heard_in_pretraining("fbank") == heard_in_pretraining("apc") == {}, "nothing is known of what ships"
    called = run(small, tasks_file, tmp_path, upstream=specs[0])
    assert called.code == 0, called.err
    assert f"was trained on 1 of the 8 recordings of ks's test: '{stolen}'; its row will say so" in called.err
    store = RecordStore(tmp_path / "results")
    record = store.read(store.paths()[0])
    assert record.circumstances["leaks"] == {"pretraining": {"count": 1, "of": 8, "ids": [stolen]}}
    shown = leaderboard(store, custom=True)
    (row,) = shown.boards[0].rows
    assert row.leaks == (f"KS: it was trained on 1 of the 8 recordings of test ('{stolen}')",)
    assert f"{row.name} (leak)" in to_markdown(shown)
    text = page(shown)
    assert 'class="badge" title="KS: it was trained on 1 of the 8' in text and "<dt>Leak</dt>" in text


def test_a_checkpoint_whose_corpus_was_another_is_not_flagged(small, mini, tmp_path):
    other = [row for row in mini.utterances if row.split == "train"][5:900:30]
    known = fingerprints_of(replace(mini, utterances=tuple(other)))
    heard = heard_by({"recordings": recordings_note(list(known.values()))}, "here")
    test = fingerprints_of(read_manifest(small))
    assert list(copies(test, heard)) == [] and len(heard) > 60


def test_the_page_flags_no_row_without_a_leak():
    made = board()
    assert asdict(made.rows[0])["leaks"] == ()
    text = page(Leaderboard((made,), (), 0))
    assert ">leak</span>" not in text and "<dt>Leak</dt>" not in text
