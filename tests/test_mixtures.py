"""Rows that are a sum of recordings: read as the written-out sum, kept apart in the cache, refused by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from core.audio import num_samples, read_audio
from core.errors import ManifestError
from core.feature_cache import FeatureCache
from core.manifest import Manifest, read_manifest, validate
from core.mixtures import Mixture, Source, read_mixture
from core.records import RecordStore
from downstreams._recipe import Recipe
from frostbench.grid.cell_jobs import Folders
from frostbench.grid.plan import Grid
from frostbench.grid.run import run_grid
from frostbench.jobs.local import LocalExecutor
from tasks._audio import AudioRecipe
from tasks._base import Task
from tasks._rows import clips_of, read_rows, task_rows
from upstreams._extraction.clips import Clip, lay_out
from upstreams._extraction.fill import caches_of, extract
from upstreams._resolve import build_upstream

RATE = 16_000
MOOD = Task(
    name="mood",
    title="Mood",
    paper="own data",
    label="mood",
    head="utterance_linear",
    metrics=("accuracy",),
    recipes={"short": Recipe("short", 60, 8, (1e-2,), eval_every=20)},
)


def with_audio(audio: AudioRecipe) -> Task:
    """The task with something made of its recordings."""
    return replace(MOOD, audio={"short": audio})


def sine(hertz: float, samples: int, seed: int) -> np.ndarray:
    wave = 0.2 * np.sin(2 * np.pi * hertz * np.arange(samples) / RATE)
    return (wave + np.random.default_rng(seed).normal(0, 0.01, samples)).astype(np.float32)


def write(folder: Path, rows: list[dict]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    """Low tones and high ones: high.flac is FLAC, which is decoded as a whole."""
    for name, hertz, samples in (("low.wav", 200, 9_000), ("high.flac", 2_500, 6_000)):
        soundfile.write(tmp_path / name, sine(hertz, samples, samples), RATE)
    return tmp_path


def test_a_mixture_is_the_sum_of_its_sources(folder):
    low, high = read_audio(folder / "low.wav"), read_audio(folder / "high.flac")
    sources = (Source(folder / "low.wav"), Source(folder / "high.flac", 100, 5_100, offset=6_000, gain_db=-6.0))
    expected = torch.zeros(11_000)
    expected[:9_000] += low
    expected[6_000:] += high[100:5_100] * 10 ** (-6 / 20)
    mixture = Mixture(sources)
    assert torch.equal(read_mixture(mixture), expected)
    assert mixture.samples() == 11_000
    shortest = Mixture(sources, "min")
    assert torch.equal(read_mixture(shortest), expected[:9_000])
    assert shortest.samples() == 9_000
    late = Mixture((Source(folder / "low.wav", 0, 10), Source(folder / "high.flac", 0, 10, offset=50)), "min")
    assert torch.equal(read_mixture(late), low[:10]), "what begins behind the end is not heard"


def test_pieces_of_one_file_are_added_as_well(folder):
    high = read_audio(folder / "high.flac")
    twice = Mixture((Source(folder / "high.flac", 0, 50), Source(folder / "high.flac", 40, 100, offset=50)))
    assert torch.equal(read_mixture(twice), torch.cat([high[:50], high[40:100]]))


@pytest.mark.parametrize("twice", [False, True])
def test_places_of_a_mixture_are_those_of_16_khz_at_any_rate(folder, twice):
    """Of files that are named once or several times, and of pieces of mixtures."""
    paths = [folder / "low.wav", folder / ("low.wav" if twice else "high.flac")]
    places = [(1_000, 5_000, 0), (2_000, 4_000, 3_000)]  # start, stop, offset
    sources = tuple(Source(path, *place) for path, place in zip(paths, places, strict=True))
    for rate in (8_000, 16_000, 24_000):
        expected = torch.zeros(5_000 * rate // RATE)
        for path, place in zip(paths, places, strict=True):
            start, stop, offset = (number * rate // RATE for number in place)
            expected[offset : offset + stop - start] += read_audio(path, sample_rate=rate)[start:stop]
        torch.testing.assert_close(read_mixture(Mixture(sources), rate), expected)
        clip = Clip("digest", paths[0], 0, frozenset(), 400, 4_400, mixture=Mixture(sources))
        torch.testing.assert_close(clip.read(rate), expected[400 * rate // RATE : 4_400 * rate // RATE])


ROWS = [
    {"file_name": "low.wav", "id": "low", "split": "train", "voice": "a", "start_sample": 1_000},
    {"file_name": "high.flac", "id": "high", "split": "test", "voice": "b"},
    {"id": "both", "split": "valid", "mixture": [{"of": "low"}, {"of": "high", "offset": 20, "gain_db": -3}],
     "length": "min", "voices": ["a", "b"]},
    {"id": "again", "split": "test", "mixture": [{"of": "low"}], "speaker": "a"},
    {"id": "piece", "split": "test", "mixture": [{"file_name": "high.flac", "start_sample": 5, "stop_sample": 90}]},
]  # fmt: skip


def test_a_manifest_holds_mixtures_and_aliases(folder):
    manifest = read_manifest(write(folder, ROWS))
    low, high, both, again, piece = manifest.utterances
    assert both.mixture == Mixture((Source(low.path, 1_000), Source(high.path, offset=20, gain_db=-3.0)), "min")
    assert (both.path, both.labels) == (low.path, {"voices": ["a", "b"]})
    assert (again.path, again.start, again.stop, again.mixture) == (low.path, 1_000, None, None)
    assert (again.split, again.labels) == ("test", {"speaker": "a"})
    assert (piece.path, piece.start, piece.stop, piece.mixture) == (high.path, 5, 90, None)
    digests = manifest.audio_digests
    assert digests["again"] == digests["low"], "an alias shares the features of what it names"
    assert digests["both"] not in (digests["low"], digests["high"])
    assert manifest.recordings("valid") == (), "nothing to pretrain on"
    assert manifest.recordings("test") == (high, again, piece)
    validate(manifest)
    rows = [dict(row) for row in ROWS]
    for change in ({"length": "max"}, {"mixture": [*ROWS[2]["mixture"], {"of": "low"}]},
                   {"mixture": [{"of": "low"}, {"of": "high", "offset": 21, "gain_db": -3}]},
                   {"mixture": [{"of": "low"}, {"of": "high", "offset": 20, "gain_db": -4}]}):  # fmt: skip
        rows[2] = {**ROWS[2], **change}
        other = read_manifest(write(folder, rows))
        assert other.audio_digests["both"] != digests["both"], "other sound is another digest"
        assert other.digest != manifest.digest


def test_rows_that_are_no_mixtures_are_named(folder):
    bad = [
        {"id": "a", "split": "train", "mixture": []},
        {"split": "train", "mixture": [{"of": "low"}]},
        {"id": "b", "split": "train", "mixture": [{"of": "lwo"}]},
        {"id": "c", "split": "train", "mixture": [{"of": "both"}]},
        {"id": "d", "split": "train", "mixture": [{"of": "low", "file_name": "low.wav"}]},
        {"id": "e", "split": "train", "mixture": [{"of": "low", "offset": -1}]},
        {"id": "f", "split": "train", "mixture": [{"of": "low", "gain": 3}]},
        {"id": "g", "split": "train", "mixture": [{"of": "low"}], "length": "mean"},
        {"id": "h", "split": "train", "mixture": [{"of": "low", "start_sample": 3}]},
    ]
    with pytest.raises(ManifestError) as error:
        read_manifest(write(folder, [*ROWS, *bad]))
    lines = str(error.value).splitlines()
    assert lines[0].endswith("9 bad rows; correct or remove:")
    assert [line.split(":")[0].strip() for line in lines[1:]] == [f"line {number}" for number in range(6, 15)]
    for text, line in zip(("not empty", "id", "'lwo'", "'both'", "either", "offset -1", "'gain'", "'mean'", "whole"),
                          lines[1:], strict=True):  # fmt: skip
        assert text in line


def test_bad_sources_are_named_by_validate(folder):
    rows = [*ROWS, {"id": "absent", "split": "test", "mixture": [{"of": "low"}, {"file_name": "absent.wav"}]},
            {"id": "short", "split": "test",
             "mixture": [{"of": "low"}, {"file_name": "high.flac", "stop_sample": 6_001}]}]  # fmt: skip
    with pytest.raises(ManifestError) as error:
        validate(read_manifest(write(folder, rows)))
    assert "line 6 (utterance 'absent')" in str(error.value)
    assert "line 7 (utterance 'short'): piece 0 to 6001 of 6000 samples of high.flac" in str(error.value)
    assert "'both'" not in str(error.value)


# End to end: a task whose rows are mixtures, against the same sums written to files.


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> tuple[Manifest, Manifest]:
    """A corpus of mixtures, and the same with every mixture as a file."""
    folder = tmp_path_factory.mktemp("mixed")
    rows, written = [], []
    for split, count in (("train", 6), ("valid", 3), ("test", 3)):
        for number in range(count):
            for name, hertz in (("calm", 200), ("glad", 900), ("wild", 3_000)):
                file = f"{split}_{name}_{number}.wav"
                soundfile.write(folder / file, sine(hertz, 5_000 + 400 * number, len(rows)), RATE, subtype="FLOAT")
            soundfile.write(folder / f"{split}_noise_{number}.wav", sine(5_000, 3_000, 99 + number), RATE)
            rows += [
                {"id": f"{split}-{name}-{number}", "split": split, "mood": name, "mixture": [
                    {"file_name": f"{split}_{name}_{number}.wav"},
                    {"file_name": f"{split}_noise_{number}.wav", "offset": 3_500, "gain_db": -6.0},
                ]} for name in ("calm", "glad", "wild")
            ]  # fmt: skip
    manifest = read_manifest(write(folder, rows))
    for row in manifest.utterances:
        wav = read_mixture(row.mixture)
        soundfile.write(folder / f"{row.id}.wav", wav.numpy(), RATE, subtype="FLOAT")
        written.append({"file_name": f"{row.id}.wav", "id": row.id, "split": row.split, **row.labels})
    (folder / "written.jsonl").write_text("".join(json.dumps(row) + "\n" for row in written))
    return manifest, read_manifest(folder / "written.jsonl")


@pytest.mark.parametrize("audio", [AudioRecipe(), AudioRecipe(gain_db=-3.0, crop_samples=4_000, crops=2)])
@pytest.mark.parametrize("kind", ["pooled", "frames"])
def test_features_of_a_mixture_are_those_of_the_written_sum(mixed, tmp_path, kind, audio):
    upstream = build_upstream("fbank")
    found = []
    for number, manifest in enumerate(mixed):
        rows = task_rows(manifest, with_audio(audio))
        clips = clips_of([(rows.all_clips(), kind)])
        kept = caches_of(tmp_path / str(number), "digest", {kind})
        extract(upstream, lay_out(clips, upstream.window_samples), kept, torch.device("cpu"))
        cache = FeatureCache(tmp_path / str(number), "digest", kind)
        whole = [clip for row in rows.clips["test"] for clip in row]
        assert all(clip.samples in (0, len(clip.read())) for clip in whole)
        found.append([cache.get(clip.key) for clip in whole])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_task_on_mixtures_runs_to_its_record(mixed, tmp_path):
    values = []
    for number, manifest in enumerate(mixed):
        folders = Folders(tmp_path / f"cache{number}", tmp_path / f"results{number}")
        report = run_grid(Grid(("fbank",), (MOOD,), (0,)), manifest, folders, LocalExecutor("cpu", 1))
        assert (report.failures, report.computed, report.passed) == ([], 1, {"fbank": 36})
        (record,) = RecordStore(folders.results).all()
        values.append((record.value, record.counts, record.layer_weights))
    assert values[0] == values[1]
    assert values[0][0] == 100


def test_kept_rows_hold_mixtures(mixed, tmp_path):
    rows = task_rows(mixed[0], MOOD)
    again = read_rows(rows.kept_in(tmp_path).path)
    assert (again.recordings, again.clips, again.digest) == (rows.recordings, rows.clips, rows.digest)
    changed = replace(mixed[0].utterances[0], mixture=replace(mixed[0].utterances[0].mixture, length="min"))
    other = task_rows(replace(mixed[0], utterances=(changed, *mixed[0].utterances[1:])), MOOD)
    assert other.digest != rows.digest
    assert num_samples(rows.recordings["train"][0].path) == 5_000
