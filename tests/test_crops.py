"""Crops, levels and tasks of one's own: fixed pieces in a cache, new ones with `--exact`, from a file to a record."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from core.audio import num_samples, read_audio
from core.digest import canonical_json, parsed_json
from core.errors import ContractError
from core.feature_cache import FeatureCache
from core.lengths import pad
from core.manifest import Manifest, Utterance, read_manifest
from core.records import RecordStore
from downstreams._data import load_examples, stacked
from downstreams.labels.slots import SlotLabels
from frostbench.api import predict
from frostbench.grid.cell import departures
from frostbench.grid.cell_jobs import Folders
from frostbench.grid.live import LiveExamples
from frostbench.grid.plan import Grid, make_cells
from frostbench.grid.run import run_grid
from frostbench.jobs.local import LocalExecutor
from tasks._audio import AudioRecipe
from tasks._base import TASKS, Task, resolve_task
from tasks._rows import clips_by_split, crops_of, recording_of, samples_of, task_rows
from upstreams._extraction.clips import Clip
from upstreams._extraction.encoding import FrozenUpstream
from upstreams._extraction.fill import caches_of, extract
from upstreams._resolve import build_upstream

CPU = torch.device("cpu")
SHORT, LONG = 4_800, 16_000  # samples of the tones below
CROPPING = AudioRecipe(crop_samples=6_000, crops=3)
CROP = 6_000
DIGEST = "ab" * 32


def piece(start: int, stop: int) -> Utterance:
    return Utterance("u", Path("nowhere.wav"), "train", start=start, stop=stop)


def test_crops_are_fixed_distinct_pieces_of_the_length():
    clips = crops_of(recording_of(piece(1_000, 21_000), DIGEST, CROPPING), CROPPING)
    assert clips == crops_of(recording_of(piece(1_000, 21_000), DIGEST, CROPPING), CROPPING)
    assert [samples_of(clip) for clip in clips] == [6_000] * 3
    assert all(clip.start >= 1_000 and clip.stop <= 21_000 for clip in clips)
    assert len({clip.key for clip in clips}) == 3
    # Written down: another process, machine or version of Frostbench takes the same pieces.
    assert [clip.start for clip in clips] == [4328, 6456, 12941]
    others = crops_of(recording_of(piece(1_000, 21_000), "cd" * 32, CROPPING), CROPPING)
    assert not {clip.start for clip in others} & {clip.start for clip in clips}


def test_crops_reach_from_the_first_to_the_last_sample():
    starts = [
        clip.start
        for seed in range(300)
        for clip in crops_of(recording_of(piece(0, 6_009), f"{seed:064x}", CROPPING), CROPPING)
    ]
    assert set(starts) == set(range(10))


def test_short_recordings_and_those_that_are_only_evaluated_stay_whole():
    for stop in (5_999, 6_000):
        (clip,) = crops_of(recording_of(piece(0, stop), DIGEST, CROPPING), CROPPING)
        assert (clip.start, clip.stop) == (0, stop)
    (clip,) = clips_by_split({"test": [recording_of(piece(0, 90_000), DIGEST, CROPPING)]}, CROPPING)["test"][0]
    assert (clip.start, clip.stop) == (0, 90_000)
    assert len(crops_of(recording_of(piece(0, 6_001), DIGEST, CROPPING), CROPPING)) == 2, (
        "no more pieces than there are"
    )


def write_tones(folder: Path) -> Path:
    """Three pitches as moods, some recordings short and some long, in every split."""
    rng = np.random.default_rng(0)
    rows = []
    for split, count in (("train", 8), ("valid", 3), ("test", 3)):
        for mood, hertz in (("calm", 200), ("glad", 900), ("wild", 3_000)):
            for number in range(count):
                samples = LONG if number % 2 else SHORT
                wav = 0.2 * np.sin(2 * math.pi * hertz * np.arange(samples) / 16_000) + rng.normal(0, 0.01, samples)
                name = f"{split}_{mood}_{number}.wav"
                soundfile.write(folder / name, wav, 16_000)
                rows.append({"file_name": name, "split": split, "mood": mood})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def moods(tmp_path_factory) -> Manifest:
    return read_manifest(write_tones(tmp_path_factory.mktemp("moods")))


TASK_FILE = """
from downstreams._recipe import Recipe
from tasks._audio import AudioRecipe
from tasks._base import Task

recipes = {
    "short": Recipe("short", 40, 8, (1e-2,), eval_every=20),
    "crops": Recipe("crops", 20, 8, (1e-2,), eval_every=10),
}
mood = Task(
    name="mood",
    title="Mood",
    paper="own data",
    label="mood",
    head="utterance_linear",
    metrics=("accuracy",),
    recipes=recipes,
    audio={"crops": AudioRecipe(crop_samples=6_000, crops=3)},
)
attentive = Task(
    name="attentive",
    title="Mood by attention",
    paper="own data",
    label="mood",
    head="utterance_attention",
    metrics=("accuracy",),
    recipes=recipes,
    audio={"crops": AudioRecipe(crop_samples=6_000, crops=3)},
)
"""


@pytest.fixture(scope="module")
def own_tasks(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("own") / "own_tasks.py"
    path.write_text(TASK_FILE)
    return path


@pytest.fixture(scope="module")
def mood(own_tasks) -> Task:
    return resolve_task(f"{own_tasks}:mood")


def test_a_task_is_taken_from_a_file(own_tasks):
    task = resolve_task(f"{own_tasks}:mood")
    assert (task.name, task.label, list(task.recipes)) == ("mood", "mood", ["short", "crops"])
    assert "mood" not in TASKS.names()
    assert resolve_task("ks") is TASKS.get("ks")
    with pytest.raises(ContractError, match=r"has no task 'moood' \(found: mood, attentive\); write moood = Task"):
        resolve_task(f"{own_tasks}:moood")
    with pytest.raises(ContractError, match="no such file"):
        resolve_task(f"{own_tasks.parent}/absent.py:mood")


def test_every_upstream_hears_the_same_crops(moods, mood):
    one, other = make_cells(Grid(("fbank", "mfcc"), (mood,), (0,), recipe="crops"), moods).cells
    assert one.upstream.name != other.upstream.name
    assert one.examples == other.examples
    assert sorted({len(example.keys) for example in one.examples["train"]}) == [1, 3]
    assert {len(example.keys) for split in ("valid", "test") for example in one.examples[split]} == {1}


def cell_of(moods: Manifest, task: Task, recipe: str, exact: bool):
    (cell,) = make_cells(Grid(("fbank",), (task,), (0,), recipe=recipe, exact=exact), moods).cells
    return cell


def test_only_fixed_crops_are_a_departure(moods, mood):
    assert departures(cell_of(moods, mood, "crops", exact=False)) == [
        "3 fixed random crops of 0.375 s a recording instead of a new one every time"
    ]
    assert departures(cell_of(moods, mood, "crops", exact=True)) == []
    assert departures(cell_of(moods, mood, "short", exact=False)) == []


def test_the_corpus_is_the_same_whatever_is_made_of_its_recordings(moods, mood):
    """The run is another one all the same."""
    made = (AudioRecipe(), AudioRecipe(gain_db=-3.0), AudioRecipe(crop_samples=6_000, crops=3))
    cells = [cell_of(moods, replace(mood, audio={"short": audio}), "short", exact=False) for audio in made]
    assert len({cell.rows.digest for cell in cells}) == 1
    assert len({cell.run for cell in cells}) == 3


def test_exact_changes_the_run_where_something_is_cropped(moods, mood):
    assert cell_of(moods, mood, "crops", exact=True).run != cell_of(moods, mood, "crops", exact=False).run
    assert cell_of(moods, mood, "short", exact=True).run == cell_of(moods, mood, "short", exact=False).run


def test_live_examples_equal_cached_ones_where_nothing_is_cropped(moods, mood, tmp_path):
    upstream, labels = build_upstream("fbank"), SlotLabels.from_train(["calm", "glad", "wild"], "mood")
    rows = task_rows(moods, replace(mood, audio={"short": AudioRecipe(gain_db=-3.0)}))
    clips, examples = rows.whole("train"), rows.examples["train"]
    targets = [labels.encode(example.label) for example in examples]
    chosen = [1, 0, 17, 6]
    for kind in ("pooled", "pooled_normalised", "frames"):
        kept = caches_of(tmp_path, "digest", [kind])
        extract(upstream, [[replace(clip, kinds=frozenset({kind})) for clip in clips]], kept, CPU)
        cache = FeatureCache(tmp_path, "digest", kind)
        cached = load_examples(cache, [row.keys for row in examples], [row.label for row in examples], labels, 160)
        live = LiveExamples(FrozenUpstream(upstream, CPU), clips, targets, kind, crop_samples=LONG)
        one, other = cached.batch(chosen), live.batch(chosen)
        layers = pad(one.layers)[0].float() if kind == "frames" else one.layers
        torch.testing.assert_close(layers, other.layers, rtol=2e-3 if kind == "frames" else 0, atol=1e-5)
        assert torch.equal(one.lengths, other.lengths)
        assert torch.equal(stacked(one.targets), stacked(other.targets))


@pytest.mark.parametrize("stop", [None, LONG - 500])
def test_live_crops_stay_within_the_piece_that_a_row_is(moods, mood, stop, monkeypatch):
    """Of rows with start_sample and stop_sample nothing before or behind is drawn, and what is drawn lies there."""
    row = next(row for row in moods.utterances if num_samples(row.path) == LONG)
    begin, end = 4_000, LONG if stop is None else stop
    manifest = replace(moods, utterances=tuple(
        replace(each, start=begin, stop=stop) if each.id == row.id else each for each in moods.utterances
    ))  # fmt: skip
    rows = task_rows(manifest, mood)
    place = [example.id for example in rows.examples[row.split]].index(row.id)
    clips, whole = rows.whole(row.split), read_audio(row.path)
    assert clips[place].samples == end - begin
    drawn, real = [], Clip._recorded

    def watched(clip: Clip, *rate: int) -> torch.Tensor:
        drawn.append(clip)
        return real(clip, *rate)

    monkeypatch.setattr(Clip, "_recorded", watched)  # `read` itself is a default value where clips are encoded
    upstream = build_upstream("fbank")
    live = LiveExamples(FrozenUpstream(upstream, CPU), clips, [torch.tensor([0])] * len(clips), "frames", CROP)
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        batch = live.batch([place], generator)
        (clip,) = drawn[-1:]
        assert begin <= clip.start < clip.stop == clip.start + CROP <= end
        alone = upstream.extract(whole[None, clip.start : clip.stop], torch.tensor([CROP])).layers[0][0]
        torch.testing.assert_close(batch.layers[0, :, 0], alone)
    assert len({clip.start for clip in drawn}) > 30
    assert min(clip.start for clip in drawn) < begin + 0.1 * (end - begin - CROP) + 1
    assert max(clip.stop for clip in drawn) > end - 0.1 * (end - begin - CROP) - 1


def test_live_examples_hear_a_new_piece_every_time(moods, mood):
    upstream = build_upstream("fbank")
    clips = task_rows(moods, mood).whole("train")
    live = LiveExamples(FrozenUpstream(upstream, CPU), clips, [torch.tensor([0])] * len(clips), "frames", 6_000)
    short, long = (next(i for i, clip in enumerate(clips) if clip.samples == size) for size in (SHORT, LONG))
    frames = [upstream.frame_lengths(torch.tensor(size)).item() for size in (SHORT, 6_000)]
    assert [live.lengths[short], live.lengths[long]] == frames == [28, 36]
    generator = torch.Generator().manual_seed(0)
    first, second = (live.batch([short, long], generator) for _ in range(2))
    assert first.lengths.tolist() == frames
    assert torch.equal(first.layers[0], second.layers[0])
    assert not torch.equal(first.layers[1], second.layers[1])
    again = live.batch([short, long], torch.Generator().manual_seed(0))
    assert torch.equal(again.layers, first.layers)


def test_six_decibels_less_is_half_the_level(moods):
    row = moods.utterances[0]
    plain, quiet = (recording_of(row, DIGEST, AudioRecipe(gain_db=gain)) for gain in (0.0, -20 * math.log10(2)))
    torch.testing.assert_close(quiet.read(), plain.read() / 2)
    assert isinstance(quiet, Clip) and quiet.key != plain.key, "another level is other features"
    less = recording_of(row, DIGEST, TASKS.get("ks").audio["superb"]).read()
    assert 20 * math.log10(float(less.square().mean().sqrt() / plain.read().square().mean().sqrt())) == pytest.approx(
        -3
    )


# End to end, in this process.


def record_of(task: Task, moods: Manifest, folder: Path, **asked):
    folders = Folders(folder / "cache", folder / "results")
    report = run_grid(Grid(("fbank",), (task,), (0,), **asked), moods, folders, LocalExecutor("cpu", 1))
    assert (report.failures, report.computed) == ([], 1)
    (record,) = RecordStore(folders.results).all()
    return record, report


@pytest.mark.parametrize("name", ["mood", "attentive"])
def test_a_task_of_ones_own_runs_to_its_record(name, moods, own_tasks, tmp_path):
    record, report = record_of(resolve_task(f"{own_tasks}:{name}"), moods, tmp_path)
    assert record.value == 100
    head = "utterance_linear" if name == "mood" else "utterance_attention"
    assert record.task == {
        "name": name,
        "title": "Mood" if name == "mood" else "Mood by attention",
        "head": head,
        "default_head": head,
        "label": "mood",
        "metrics": ["accuracy"],
        "select": "accuracy",
        "version": 1,
        "code": None,
    }
    assert record.counts == {"train": 24, "valid": 9, "test": 9}
    assert record.features["departures"] == []
    assert report.passed == {"fbank": 42}
    rows = (tmp_path / "results" / "runs" / record.run[:16] / "predictions.jsonl").read_text().splitlines()
    assert all(json.loads(row)["prediction"] == json.loads(row)["reference"] for row in rows)


@pytest.mark.parametrize("name", ["mood", "attentive"])
def test_crops_and_exact_run_to_their_records(name, moods, own_tasks, tmp_path):
    task = resolve_task(f"{own_tasks}:{name}")
    kept, report = record_of(task, moods, tmp_path / "kept", recipe="crops")
    assert report.passed == {"fbank": 12 + 3 * 12 + 18}  # short ones whole, three pieces of the long, valid and test
    assert kept.features["departures"] == [
        "3 fixed random crops of 0.375 s a recording instead of a new one every time"
    ]
    exact, report = record_of(task, moods, tmp_path / "exact", recipe="crops", exact=True)
    assert report.passed == {"fbank": 18}, "train is not kept"
    assert exact.features["departures"] == []
    assert exact.run != kept.run
    recipe = {**parsed_json(canonical_json(task.recipe("crops"))), "digest": kept.recipe["digest"]}
    assert exact.recipe == kept.recipe == recipe
    assert recipe["learning_rates"] == [1e-2]
    assert kept.value == exact.value == 100
    again, _ = record_of(task, moods, tmp_path / "again", recipe="crops", exact=True)
    assert again.result() == exact.result(), "chance comes from the seed"


def test_predictions_are_made_at_the_level_of_the_recipe(moods, mood, tmp_path, monkeypatch):
    """Six decibels less would else be another recording than the head was trained on."""
    task = replace(mood, audio={"short": AudioRecipe(gain_db=-6.0)})
    record, _ = record_of(task, moods, tmp_path)
    drawn, real = [], Clip._recorded

    def watched(clip: Clip, *rate: int) -> torch.Tensor:
        drawn.append(real(clip, *rate))
        return drawn[-1]

    monkeypatch.setattr(Clip, "read", watched)
    row = moods.split("test")[0]
    assert predict(row.path, record.run, output=tmp_path / "results", device="cpu") == [row.labels["mood"]]
    torch.testing.assert_close(drawn[-1], read_audio(row.path) * 10 ** (-6 / 20))
