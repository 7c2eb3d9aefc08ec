"""`--task all`: every task that a corpus serves in one run, for which each recording and each mixture passes once."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_waveform_tasks import write_sources

import frostbench as fb
from core.digest import file_digest
from core.manifest import read_manifest
from core.records import RecordStore
from frostbench.grid import cell_jobs
from frostbench.jobs.progress import Watcher
from tasks._base import TASKS
from tasks._rows import task_rows

SMALL = {"lstm_size": 8, "projector_size": 8, "size": 8, "pooled_size": 8, "frame_samples": 320, "most_symbols": 4}


@pytest.fixture(scope="module")
def folder(corpus_folder, tmp_path_factory) -> Path:
    """The tiny corpus, with recordings that have a clean file beside them, and mixtures that two tasks take."""
    root = write_sources(tmp_path_factory.mktemp("all"))
    rows = [json.loads(line) for line in (corpus_folder / "metadata.jsonl").read_text().splitlines()]
    rows = [{**row, "file_name": str(corpus_folder / row["file_name"])} for row in rows]
    with (root / "metadata.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return root


@pytest.fixture(autouse=True)
def short_recipes(monkeypatch):
    """Ten updates of small heads, of every task by its own name."""
    for task in list(TASKS):
        fast = task.recipe("fast")
        head = fast.head | {name: size for name, size in SMALL.items() if name in task_options(task)}
        steps = min(fast.steps, 10)
        short = replace(
            fast, steps=steps, eval_every=10, warmup_steps=0, search_steps=0, learning_rates=fast.learning_rates[:1],
            head=head,
        )  # fmt: skip
        monkeypatch.setitem(TASKS._entries, task.name, replace(task, recipes={**task.recipes, "fast": short}))


def task_options(task) -> set[str]:
    from downstreams._base import HEADS

    return set(HEADS.get(task.head).options_type.__dataclass_fields__)


class Counting(fb.Upstream):
    """Energy and zero crossings of 10 ms; counts the waveforms that pass it."""

    num_layers, hidden_size, downsample_rate, min_samples = 1, 2, 160, 160

    def __init__(self) -> None:
        super().__init__()
        self.passed: Counter[str] = Counter()

    def frame_lengths(self, wav_lengths):
        return wav_lengths // 160

    def encode(self, wavs, wav_lengths):
        for wav, length in zip(wavs, wav_lengths.tolist(), strict=True):
            self.passed[digest_of_wav(wav[:length])] += 1
        blocks = wavs[:, : wavs.shape[1] // 160 * 160].unflatten(1, (-1, 160))
        energy = (blocks.square().mean(dim=2, keepdim=True) + 1e-8).log()
        crossings = (blocks.diff(dim=2).abs().mean(dim=2, keepdim=True) + 1e-8).log()
        return fb.HiddenStates((torch.cat([energy, crossings], dim=2),), self.frame_lengths(wav_lengths))


def digest_of_wav(wav: torch.Tensor) -> str:
    return hashlib.sha256(wav.contiguous().numpy().tobytes()).hexdigest()


class Notes(Watcher):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text):
        self.said.append(text)


@pytest.fixture
def counting():
    card = fb.UpstreamCard(name="counting", title="Counts what passes it", paper="none")
    return fb.register_upstream(card)(Counting)()


def test_every_recording_and_every_mixture_passes_once_for_all_tasks(folder, counting, tmp_path):
    served = {task.name for task in TASKS if all(metric != "pesq" or has_pesq() for metric in task.metrics)}
    watcher = Notes()
    results = fb.evaluate(counting, "all", corpus=folder, output=tmp_path / "results", cache=tmp_path / "cache",
                          device="cpu", progress=watcher)  # fmt: skip
    assert {record.task["name"] for record in RecordStore(tmp_path / "results").all()} == served
    assert results.failed == 0
    manifest = read_manifest(folder)
    clips = {
        clip.key: clip
        for name in served
        for clip in task_rows(
            manifest, TASKS.get(name), fold="session 0" if TASKS.get(name).folds else None
        ).all_clips()
    }
    assert any(clip.mixture for clip in clips.values()) and len(clips) > 90
    wavs = Counter(digest_of_wav(clip.read()) for clip in clips.values())
    assert {digest: counting.passed[digest] for digest in wavs} == wavs, "each clip once, whatever tasks take it"


def has_pesq() -> bool:
    import importlib.util

    return importlib.util.find_spec("pesq") is not None


def test_all_leaves_out_what_the_corpus_does_not_serve_and_says_why(corpus_folder, tmp_path):
    watcher = Notes()
    planned = fb.plan(["fbank"], "all", corpus=corpus_folder, output=tmp_path / "results", cache=tmp_path / "cache")
    folds = 3  # of er
    assert planned.cells == len(TASKS.names()) - len(("se", "ss", "er")) + folds
    fb.evaluate(["fbank"], "all", corpus=corpus_folder, output=tmp_path / "results", cache=tmp_path / "cache",
                device="cpu", workers=1, progress=watcher)  # fmt: skip
    assert "note: se is left out: no row has 'clean'" in watcher.said
    assert "note: ss is left out: no row has 'targets'" in watcher.said
    with pytest.raises(fb.BenchmarkError, match="--task all stands alone"):
        fb.plan(["fbank"], ["all", "ks"], corpus=corpus_folder, output=tmp_path / "r", cache=tmp_path / "c")
    rows = [{"file_name": str(next((corpus_folder / "audio").iterdir())), "split": "train", "note": "nothing"}]
    (tmp_path / "metadata.jsonl").write_text(json.dumps(rows[0]) + "\n")
    with pytest.raises(fb.BenchmarkError, match=r"serves no task \(labels found: note\)"):
        fb.plan(["fbank"], "all", corpus=tmp_path, output=tmp_path / "r", cache=tmp_path / "c")


class Killed(BaseException):
    """As a signal that nothing catches."""


def test_killed_and_repeated_all_tasks_give_the_same_records(folder, tmp_path, monkeypatch):
    def run(place: str) -> fb.Results:
        return fb.evaluate(["fbank"], "all", corpus=folder, output=tmp_path / place, cache=tmp_path / f"{place}-cache",
                           device="cpu", workers=1)  # fmt: skip

    run("straight")
    for name, after in (("save_trained", 4), ("write_json", 3)):  # a candidate, and the files of a record
        calls = []
        real = getattr(cell_jobs, name)

        def dying(*arguments, real=real, calls=calls, after=after):
            calls.append(arguments)
            if len(calls) > after:
                raise Killed
            return real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(cell_jobs, name, dying)
            with pytest.raises(Killed):
                run("broken")
    run("broken")
    expected, found = (RecordStore(tmp_path / place) for place in ("straight", "broken"))
    assert len(expected.all()) >= len(TASKS.names()) - 1
    assert [record.result() for record in found.all()] == [record.result() for record in expected.all()]
    for record in found.all():
        runs = found.run_folder(record.run)
        assert {name: file_digest(runs / name) for name in record.artifacts} == record.artifacts
