"""Enhancement and separation on small made recordings: rows, digests, runs, predictions, refusals."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import call, skip_without_extra

import frostbench as fb
from core.audio import read_audio
from core.digest import digest_of, file_digest, write_json
from core.errors import BenchmarkError, ManifestError, MetricError, TrainingError
from core.manifest import Manifest, read_manifest
from core.metrics import get_metric
from core.mixtures import read_mixture
from core.records import WORST_FILE, RecordStore
from core.worst_waveforms import read_waveforms, write_waveforms
from downstreams._data import ReadTargets
from downstreams.labels._base import ANY_CONTEXT
from downstreams.labels.waveforms import WaveformLabels
from frostbench.grid.cell_jobs import Folders
from frostbench.grid.plan import Grid
from frostbench.grid.run import run_grid
from frostbench.jobs.local import LocalExecutor
from leaderboard.aggregate import leaderboard
from leaderboard.bundles import merge, submit
from leaderboard.verification import verify
from tasks import _checks
from tasks._base import TASKS
from tasks._rows import read_rows, task_rows

RATE = 16_000
ENHANCING = replace(TASKS.get("se"), metrics=("si_sdri",))  # whose rows can be taken without the extra pesq
SMALL = {"lstm_size": 32, "lstm_layers": 1, "frame_samples": 320}


def voice(number: int, take: int) -> np.ndarray:
    """Noise of a low or a high band, that swells: float32 (samples,), 0.9 s or a bit more."""
    count = RATE * 9 // 10 + 800 * (take % 3)
    spectrum = np.fft.rfft(np.random.default_rng(10 * number + take).standard_normal(count))
    low, high = ((1_500, 3_000), (200, 1_000))[number % 2]
    hertz = np.arange(len(spectrum)) * RATE / count
    band = np.fft.irfft(np.where((low < hertz) & (hertz < high), spectrum, 0), count)
    swell = 1 + np.sin(2 * np.pi * (2 + take % 2) * np.arange(count) / RATE)
    return (0.1 * swell * band / band.std()).astype("f4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_sources(tmp_path_factory.mktemp("sources"))


def write_sources(root: Path) -> Path:
    """Of voices in one split each: recordings, their sums two by two, and noisy files beside clean ones."""
    rng = np.random.default_rng(0)
    rows = []
    for split, voices in (("train", (0, 1, 2, 3)), ("valid", (4, 5)), ("test", (6, 7))):
        for take in range(4):
            for number in voices:
                name = f"v{number}-{take}"
                clean = voice(number, take)
                soundfile.write(root / f"{name}.wav", clean, RATE, subtype="FLOAT")
                noisy = clean + 0.1 * rng.standard_normal(len(clean)).astype("f4")
                soundfile.write(root / f"noisy-{name}.wav", noisy, RATE, subtype="FLOAT")
                rows.append({"file_name": f"{name}.wav", "id": name, "split": split, "note": "alone"})
                rows.append({
                    "file_name": f"noisy-{name}.wav", "id": f"noisy-{name}", "split": split, "voice": f"v{number}",
                    "clean": f"{name}.wav",
                })  # fmt: skip
            for one, other in pairwise(voices):
                sources = [{"of": f"v{one}-{take}"}, {"of": f"v{other}-{take}", "offset": 1_600, "gain_db": -2.0}]
                rows.append({
                    "id": f"mix-{one}-{other}-{take}", "split": split, "mixture": sources,
                    "voice": [f"v{one}", f"v{other}"], "targets": [0, 1],
                    "turns": [
                        {"start": 0.0, "stop": 0.9, "speaker": f"v{one}"},
                        {"start": 0.1, "stop": 1.0, "speaker": f"v{other}"},
                    ],
                })  # fmt: skip
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


@pytest.fixture(scope="module")
def manifest(folder) -> Manifest:
    return read_manifest(folder)


def small(name: str):
    task = TASKS.get(name)
    recipe = replace(task.recipe("fast"), steps=90, eval_every=30, learning_rates=(3e-3,), head=SMALL)
    return replace(task, recipes={"fast": recipe})


@pytest.fixture(scope="module")
def ran(manifest, tmp_path_factory) -> tuple[Path, dict]:
    skip_without_extra("pesq")
    folder = tmp_path_factory.mktemp("ran")
    folders = Folders(folder / "cache", folder / "results")
    grid = Grid(("fbank", "mfcc"), (small("se"), small("ss")), (0,))
    report = run_grid(grid, manifest, folders, LocalExecutor("cpu", 1))
    assert (report.failures, report.computed) == ([], 4)
    return folder, {(r.upstream["name"], r.task["name"]): r for r in RecordStore(folders.results).all()}


@pytest.mark.parametrize("name", ["se", "ss"])
@pytest.mark.parametrize("check", _checks.CHECKS)
def test_contract(check, name, manifest):
    for metric in TASKS.get(name).metrics:
        skip_without_extra(metric)
    assert _checks.run_check(check, TASKS.get(name), manifest).error is None


def test_what_leaves_nothing_to_do_breaks_the_contract(manifest):
    skip_without_extra("pesq")
    rows = [
        replace(row, labels={**row.labels, "clean": f"{row.id}.wav"}) for row in manifest.with_label("clean").utterances
    ]
    same = replace(manifest, utterances=tuple(rows))
    error = _checks.run_check(_checks.check_a_constant_scores_chance_or_worse, TASKS.get("se"), same).error
    assert "nothing is left to do" in error


def test_targets_are_what_was_summed(manifest):
    """Each source at its place and level, cut or padded to the mixture; a file as it is."""
    row = next(row for row in manifest.utterances if row.id == "mix-6-7-1")
    example = next(each for each in task_rows(manifest, TASKS.get("ss")).examples["test"] if each.id == row.id)
    assert example.label["names"] == ["v6-1", "v7-1"] and example.speaker == ("v6", "v7")
    signals = WaveformLabels(2).encode(example.label, ANY_CONTEXT)
    assert signals.shape == (3, row.mixture.samples())
    np.testing.assert_array_equal(signals[0], read_mixture(row.mixture))
    np.testing.assert_allclose(signals[1] + signals[2], signals[0], atol=1e-7)
    np.testing.assert_array_equal(signals[1][: len(voice(6, 1))], voice(6, 1))
    example = next(each for each in task_rows(manifest, ENHANCING).examples["test"] if each.id == "noisy-v6-0")
    signals = WaveformLabels(1).encode(example.label, ANY_CONTEXT)
    np.testing.assert_array_equal(signals[0], read_audio(next(manifest.source.parent.glob("noisy-v6-0.wav"))))
    np.testing.assert_array_equal(signals[1], voice(6, 0))


def test_the_digest_follows_what_targets_hold_wherever_they_lie(manifest, folder, tmp_path):
    se = ENHANCING
    known = task_rows(manifest, se)
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert task_rows(read_manifest(tmp_path), se).digest == known.digest
    assert read_rows(known.kept_in(tmp_path / "kept").path).examples == known.examples
    soundfile.write(tmp_path / "v6-0.wav", 0.5 * voice(6, 0), RATE, subtype="FLOAT")
    assert task_rows(read_manifest(tmp_path), se).digest != known.digest


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (0, "there is no source 0: the row is no mixture"),
        ("v1-1.wav", "'v1-1.wav' has 15,200 samples at 16 kHz, what is heard 14,400"),
        ("nowhere.wav", "nowhere.wav"),
        (["v1-0.wav", "v1-0.wav"], "must name one source or file, or several different ones"),
        ([], "must name one source or file"),
        (1.5, "is 1.5, must be the number of a source or the name of a file"),
        (True, "is True, must be the number of a source"),
    ],
)
def test_a_label_that_names_no_waveform_is_refused_by_row(manifest, label, said):
    rows = [replace(row, labels={**row.labels, "clean": label}) if row.id == "noisy-v1-0" else row
            for row in manifest.utterances]  # fmt: skip
    with pytest.raises(ManifestError, match=r"line \d+ \(utterance 'noisy-v1-0'\): clean: ") as caught:
        task_rows(replace(manifest, utterances=tuple(rows)), ENHANCING)
    assert said in str(caught.value)


def test_sources_are_counted(manifest):
    def with_targets(value):
        rows = [replace(row, labels={**row.labels, "targets": value}) if row.id == "mix-0-1-0" else row
                for row in manifest.utterances]  # fmt: skip
        return replace(manifest, utterances=tuple(rows))

    with pytest.raises(ManifestError, match=r"there is no source 2: the row is a mixture of 2; count from 0"):
        task_rows(with_targets([0, 2]), TASKS.get("ss"))
    with pytest.raises(TrainingError, match="'targets' names 1 and 2 targets in rows of train: give each equally many"):
        task_rows(with_targets([1]), TASKS.get("ss"))
    with pytest.raises(TrainingError, match="1 targets, but rows of train have 2"):
        WaveformLabels(2).encode(np.zeros((2, 100), np.float32), ANY_CONTEXT)


def test_waveforms_are_read_once_as_far_as_there_is_room(monkeypatch):
    calls = []
    monkeypatch.setattr(WaveformLabels, "encode",
                        lambda self, label, context: calls.append(label) or torch.zeros(2, label))  # fmt: skip
    monkeypatch.setattr("downstreams._data.READ_BYTES", 100)
    targets = ReadTargets(WaveformLabels(1), [10, 20, 1], [ANY_CONTEXT] * 3)
    assert [target.shape[1] for target in (*targets, *targets)] == [10, 20, 1] * 2
    assert calls == [10, 20, 1, 20], "the second one is larger than what is left"
    assert [target.shape[1] for target in targets[1:]] == [20, 1]


def test_a_run_improves_on_what_it_hears(ran):
    folder, records = ran
    for (_, task), record in records.items():
        path = folder / "results" / "runs" / record.run[:16] / "predictions.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        names = list(TASKS.get(task).metrics)
        for row in rows:
            assert list(row["prediction"]) == names and len(row["reference"]) == (1 if task == "se" else 2)
            assert row["statistics"] == {name: [row["prediction"][name]] for name in names}
        assert record.values["si_sdri"] == pytest.approx(np.mean([row["prediction"]["si_sdri"] for row in rows]))
        assert record.values["si_sdri"] > 6, "decibels above what is heard"
        assert str(folder) not in path.read_text(), "no path of this machine"
    store = RecordStore(folder / "results")
    assert verify(store) == []
    (board,) = leaderboard(store, custom=True).boards
    assert [column.metric_title for column in board.columns] == ["PESQ", "STOI", "SI-SDRi", "SI-SDRi"]


def test_the_worst_recordings_are_kept_and_shown(ran, tmp_path):
    folder, records = ran
    store = RecordStore(folder / "results")
    (board,) = leaderboard(store, custom=True).boards
    shown = {row.name: row.cells for row in board.rows}
    for (upstream, task), record in records.items():
        run = store.run_folder(record.run)
        rows = {row["id"]: row for row in map(json.loads, (run / "predictions.jsonl").read_text().splitlines())}
        metric = record.metric["name"]
        order = sorted(rows, key=lambda name: (rows[name]["prediction"][metric], name))
        kept = read_waveforms(run / WORST_FILE)
        assert sorted(kept) == sorted(order[:3]) and file_digest(run / WORST_FILE) == record.artifacts[WORST_FILE]
        for name, signals in kept.items():
            half = 1 + len(signals) // 2
            (value,) = get_metric("si_sdri").statistics(signals[half:], signals[:half])
            assert value == pytest.approx(rows[name]["prediction"]["si_sdri"], abs=0.05), "but for half precision"
        wrong = shown[upstream][task].worst_waveforms
        assert [each.id for each in wrong] == order[:2] and {each.seed for each in wrong} == {0}
        assert [each.value for each in wrong] == [rows[name]["prediction"][metric] for name in order[:2]]
        for each in wrong:
            wavs = [np.frombuffer(signal, np.float16) for signal in each.signals]
            np.testing.assert_array_equal(np.stack(wavs).astype(np.float32), kept[each.id])
        assert wrong[0].names == (("Heard", "Clean", "Enhanced") if task == "se" else (
            "Heard", "True voice 1", "True voice 2", "Separated voice 1", "Separated voice 2"))  # fmt: skip
    assert shown["fbank"]["se stoi"].worst_waveforms == ()
    submit(store, tmp_path / "all.zip")
    other = RecordStore(tmp_path / "other")
    assert merge([tmp_path / "all.zip"], other).added == len(records) and verify(other) == []
    record = records["fbank", "ss"]
    path = other.run_folder(record.run) / WORST_FILE
    signals = read_waveforms(path)
    write_waveforms(path, {"nobody": next(iter(signals.values()))})
    (finding,) = verify(other)
    assert finding.path == path and "its digest is another one" in finding.problem
    (board,) = leaderboard(other, custom=True).boards
    (row,) = [row for row in board.rows if row.name == "fbank"]
    assert row.cells["ss"].worst_waveforms == () and row.cells["se"].worst_waveforms
    stored = json.loads(other.path(record.run).read_text())
    del stored["digest"]
    stored["artifacts"][WORST_FILE] = file_digest(path)
    write_json(other.path(record.run), {**stored, "digest": digest_of(stored)})
    (finding,) = verify(other)
    assert finding.problem == f"{WORST_FILE} has 'nobody', which is no recording of test"


def test_frames_that_are_computed_anew_give_the_same(ran, manifest, tmp_path):
    _, records = ran
    folders = Folders(tmp_path / "cache", tmp_path / "results")
    grid = Grid(("fbank",), (small("ss"),), (0,), frames="recompute")
    assert run_grid(grid, manifest, folders, LocalExecutor("cpu", 1)).failures == []
    (record,) = RecordStore(folders.results).all()
    assert record.value == pytest.approx(records["fbank", "ss"].value, abs=2), "but for half precision"


def test_predict_writes_what_it_makes_of_a_recording(ran, folder, tmp_path):
    results, records = ran
    wavs = {name: record.run for (upstream, name), record in records.items() if upstream == "fbank"}
    file = folder / "noisy-v6-0.wav"
    (found,) = fb.predict(file, wavs["se"], output=results / "results", device="cpu")
    assert found.shape == (1, len(voice(6, 0))) and found.dtype == np.float32
    signals = np.stack([read_audio(file).numpy(), voice(6, 0)])
    rows = results / "results/runs" / wavs["se"][:16] / "predictions.jsonl"
    (kept,) = [row for row in map(json.loads, rows.read_text().splitlines()) if row["id"] == "noisy-v6-0"]
    for name in ("pesq", "stoi", "si_sdri"):
        (value,) = get_metric(name).statistics(found, signals)
        assert value == pytest.approx(kept["prediction"][name], rel=1e-3), "what verify can't compute again"

    said = call("predict", file, "--run", wavs["se"], "--output", results / "results", "--device", "cpu",
                "--waveforms", tmp_path / "made")  # fmt: skip
    assert said.code == 0, said.err
    np.testing.assert_array_equal(soundfile.read(tmp_path / "made/noisy-v6-0.se.wav", dtype="float32")[0], found[0])
    said = call("predict", file, "--run", wavs["ss"], "--output", results / "results", "--device", "cpu",
                "--waveforms", tmp_path / "made", "--json")  # fmt: skip
    (answer,) = json.loads(said.out)["predictions"]
    assert answer["prediction"] == [str(tmp_path / "made" / f"noisy-v6-0.ss{number}.wav") for number in (1, 2)]
    assert all(len(read_audio(Path(name))) == len(voice(6, 0)) for name in answer["prediction"])
    (tmp_path / "other").mkdir()
    twin = tmp_path / "other" / file.name
    twin.write_bytes(file.read_bytes())
    said = call("predict", file, twin, "--run", wavs["se"], "--output", results / "results", "--device", "cpu",
                "--waveforms", tmp_path / "made")  # fmt: skip
    assert said.code == 2 and "several recordings are called 'noisy-v6-0'" in said.err


def test_without_pesq_enhancement_says_what_it_takes_and_separation_runs(manifest, monkeypatch):
    monkeypatch.setitem(sys.modules, "pesq", None)
    with pytest.raises(BenchmarkError, match=r"task se: metric pesq: pesq is not installed .*'frostbench\[pesq\]'"):
        task_rows(manifest, TASKS.get("se"))
    assert task_rows(manifest, TASKS.get("ss")).examples["test"]


def test_scores_of_silence_and_of_what_does_not_fit():
    signals = np.stack([voice(1, 0) + 0.01, voice(1, 0)])
    silent = np.zeros_like(signals[1:])
    assert get_metric("si_sdri").statistics(silent, signals)[0] < 0
    assert get_metric("stoi").statistics(silent, signals)[0] <= 0.01
    skip_without_extra("pesq")
    assert get_metric("pesq").statistics(silent, signals) == (0.999,)
    with pytest.raises(MetricError, match="pesq: finds no speech in a target"):
        get_metric("pesq").statistics(signals[1:], np.stack([signals[0], silent[0]]))
    for prediction, reference in ((signals[1:, :-1], signals), (signals[1:], ["a"]), (signals, "text")):
        with pytest.raises(MetricError):
            get_metric("si_sdri").statistics(prediction, reference)
