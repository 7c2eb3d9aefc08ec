"""The command line on the generated corpus: pretrain -> run -> report, and the stored digests."""

from __future__ import annotations

import csv
import io
import json
import logging
import shutil
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import Called, call

from core.digest import digest_of, file_digest
from core.feature_cache import FeatureCache
from core.metrics import get_metric
from core.records import RecordStore, ResultRecord
from downstreams._base import HEADS
from downstreams._data import load_examples
from downstreams._downstream import downstream_of, load_trained
from downstreams._training import predict
from frostbench.grid import run
from frostbench.grid.plan import Grid, make_cells
from tasks._base import TASKS
from upstreams._resolve import build_upstream

GOLDEN = Path(__file__).parent / "golden" / "digests.json"
NAMES = ("KS", "SID", "IC", "ASR")

OWN_UPSTREAM = '''
"""Loudness of each hundredth of a second."""
from pathlib import Path
import torch
from core.hidden_states import HiddenStates
from upstreams._base import Upstream, UpstreamCard, register_upstream

@register_upstream(UpstreamCard(name="loudness", title="mean square", paper="none"))
class Loudness(Upstream):
    num_layers, hidden_size, downsample_rate, min_samples = 1, 2, 160, 160

    @classmethod
    def from_checkpoint(cls, checkpoint):
        upstream = cls()
        upstream.power = float(Path(checkpoint).read_text()) if checkpoint else 2.0
        return upstream

    def configuration(self):
        return {"power": self.power}

    def frame_lengths(self, wav_lengths):
        return wav_lengths // 160

    def encode(self, wavs, wav_lengths):
        frames = wavs[:, : wavs.shape[1] // 160 * 160].abs().unflatten(1, (-1, 160))
        layer = torch.stack([(frames**self.power).mean(dim=2), frames.amax(dim=2)], dim=2)
        return HiddenStates((layer,), self.frame_lengths(wav_lengths))

class Failing(Loudness):
    def encode(self, wavs, wav_lengths):
        raise RuntimeError("out of order")
'''


def options(*, upstreams: tuple[object, ...], tasks: tuple[object, ...], **others: object) -> list[object]:
    made: list[object] = ["run"]
    for name, values in (("upstream", upstreams), ("task", tasks)):
        made += [part for value in values for part in (f"--{name}", value)]
    for name, value in {"workers": 1, "device": "cpu", **others}.items():
        made += [part for each in (value if isinstance(value, tuple) else (value,)) for part in (f"--{name}", each)]
    return made


@pytest.fixture(scope="module")
def grid(corpus_folder, tasks_file, tmp_path_factory) -> SimpleNamespace:
    """FBANK and an APC of a few updates, on four tasks with two seeds."""
    folder = tmp_path_factory.mktemp("grid")
    pretrain = (
        "pretrain",
        "apc",
        "--corpus",
        corpus_folder,
        "--steps",
        5,
        "--looks",
        0,
        "--output",
        folder / "checkpoints",
    )
    pretrained = call(*pretrain, "--workers", 1, "--device", "cpu")
    command = options(
        upstreams=("fbank", f"apc@{folder / 'checkpoints' / 'apc-tiny.safetensors'}"),
        tasks=tuple(f"{tasks_file}:{name}" for name in NAMES),
        corpus=corpus_folder,
        seed=(0, 1),
        output=folder / "results",
        cache=folder / "cache",
    )
    ran = call(*command)
    store = RecordStore(folder / "results")
    return SimpleNamespace(
        folder=folder, pretrain=pretrain, pretrained=pretrained, command=command, ran=ran, store=store
    )


@pytest.fixture(scope="module")
def records(grid) -> list[ResultRecord]:
    return grid.store.all()


def test_pretraining_writes_a_checkpoint_and_a_second_call_does_nothing(grid):
    path = grid.folder / "checkpoints" / "apc-tiny.safetensors"
    assert grid.pretrained.code == 0
    assert grid.pretrained.out.startswith(f"{path}: loss 0.")
    before = path.stat()
    again = call(*grid.pretrain)
    assert again == Called(0, f"{path} is there already\n", "")
    assert path.stat() == before


def test_a_folder_of_recordings_trains_an_upstream_that_can_be_evaluated(corpus_folder, tasks_file, tmp_path):
    """Nothing is known of the recordings; HuBERT finds its clusters in them, twice."""
    options_ = ("--set", "num_layers=2", "--set", "batch_seconds=6", "--steps", 2, "--looks", 0)
    made = call(
        "pretrain", "hubert", "--corpus", corpus_folder / "audio", *options_, "--output", tmp_path, "--workers", 1
    )
    assert made.code == 0, made.err
    assert made.out.startswith(f"{tmp_path / 'hubert-tiny'}: loss ")
    assert "hubert 1/2: 100 clusters, perplexity " in made.err
    specs = [f"hubert@{tmp_path / 'hubert-tiny-iteration1'}", f"hubert@{tmp_path / 'hubert-tiny'}"]
    command = options(
        upstreams=specs, tasks=(f"{tasks_file}:KS",), corpus=corpus_folder, output=tmp_path / "r", cache=tmp_path / "c"
    )
    assert call(*command).code == 0
    names = {record.upstream["name"] for record in RecordStore(tmp_path / "r").all()}
    assert names == {"hubert iteration 1", "hubert"}


def test_every_cell_has_a_record(grid, records):
    assert grid.ran.code == 0
    assert "failed" not in grid.ran.err
    assert "16 cells computed, 0 were there, 0 failed" in grid.ran.out
    cells = {(record.upstream["name"], record.task["name"], record.seed) for record in records}
    assert cells == {
        (name, task, seed) for name in ("fbank", "apc") for task in ("asr", "ic", "ks", "sid") for seed in (0, 1)
    }
    assert len(records) == 16
    assert all(record.custom for record in records), "registered names with recipes of these tests"


def test_a_record_tells_all_it_was_made_of(grid, records, corpus_folder):
    for record in records:
        head = HEADS.get(TASKS.get(record.task["name"]).head)
        assert record.features["kind"] == head.needs
        assert record.features["dtype"] == {"pooled": "float32", "frames": "float16"}[head.needs]
        assert record.counts == ({"train": 12, "valid": 8, "test": 8} if record.task["name"] == "sid" else
                                 {"train": 24, "valid": 12, "test": 12})  # fmt: skip
        assert (
            len(record.layer_weights)
            == record.upstream["num_layers"]
            == {"fbank": 1, "apc": 3}[record.upstream["name"]]
        )
        assert sum(record.layer_weights) == pytest.approx(1)
        assert record.learning_rate in {tried["learning_rate"] for tried in record.learning_rates}
        assert {"commit", "dirty"} == set(record.circumstances["git"])
        assert {"python", "torch", "torchaudio"} <= set(record.circumstances["versions"])
        assert {"train", "test"} == set(record.circumstances["wall_seconds"])
        folder = grid.store.run_folder(record.run)
        assert {path.name: file_digest(path) for path in folder.iterdir()} == record.artifacts
        history = json.loads((folder / "history.json").read_text())
        assert [each["learning_rate"] for each in history] == [each["learning_rate"] for each in record.learning_rates]
    assert str(corpus_folder) not in json.dumps([record.result() for record in records])


def test_the_value_is_the_metric_of_the_stored_predictions(grid, records):
    for record in records:
        lines = (grid.store.run_folder(record.run) / "predictions.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        assert len({row["id"] for row in rows}) == len(rows) == record.counts["test"]
        assert {row["id"].split("_")[0] for row in rows} <= {"test", "sid"}
        metric = get_metric(record.metric["name"])
        assert metric.compute([row["prediction"] for row in rows], [row["reference"] for row in rows]) == record.value


def test_the_stored_head_gives_the_stored_predictions(grid, records):
    for record in records:
        folder = grid.store.run_folder(record.run)
        trained, description = load_trained(folder / "head.safetensors")
        downstream = downstream_of(description, trained.state)
        assert description["upstream"] == record.upstream
        rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
        manifest = {row["id"]: row for row in map(json.loads, grid_corpus(grid).read_text().splitlines())}
        keys = [[file_digest(grid_corpus(grid).parent / manifest[row["id"]]["file_name"])] for row in rows]
        cache = FeatureCache(grid.folder / "cache", record.upstream["digest"], record.features["kind"])
        labels = [manifest[row["id"]][record.task["label"]] for row in rows]
        data = load_examples(cache, keys, labels, downstream.head.labels, record.upstream["downsample_rate"])
        predictions, _ = predict(downstream, data, torch.device("cpu"))
        assert predictions == [row["prediction"] for row in rows]


def grid_corpus(grid) -> Path:
    return Path(grid.command[grid.command.index("--corpus") + 1]) / "metadata.jsonl"


def test_each_recording_is_kept_once_in_each_kind(grid, corpus):
    for folder in (grid.folder / "cache").glob("[0-9a-f]" * 32):
        kept = {kind.name: [key for index in kind.glob("*.json") for key, _ in json.loads(index.read_text())]
                for kind in folder.iterdir()}  # fmt: skip
        assert len(list((folder / "pooled").glob("*.npy"))) == 1, "one compact file"
        assert sorted(kept["pooled"]) == sorted(corpus.audio_digests.values())
        with_text = [corpus.audio_digests[row.id] for row in corpus.with_label("text").utterances]
        assert sorted(kept["frames"]) == sorted(with_text)


def test_a_second_call_computes_nothing(grid, monkeypatch):
    def forbidden(*arguments: object, **others: object) -> None:
        raise AssertionError("a second call must not compute")

    monkeypatch.setattr(run, "extract_features", forbidden)
    monkeypatch.setattr(run, "run_cell", forbidden)
    call(*grid.command)  # remembers the digests of recordings that were too young for it at first
    before = {path: path.stat().st_mtime_ns for path in grid.folder.rglob("*") if path.is_file()}
    again = call(*grid.command)
    assert again.code == 0
    assert "0 cells computed, 16 were there, 0 failed" in again.out
    assert {path: path.stat().st_mtime_ns for path in grid.folder.rglob("*") if path.is_file()} == before
    assert again.out.replace("0 cells computed, 16", "16 cells computed, 0") == grid.ran.out


def test_new_seeds_reuse_the_features(grid, monkeypatch, tmp_path):
    def forbidden(*arguments: object, **others: object) -> None:
        raise AssertionError("features are there already")

    monkeypatch.setattr(run, "extract_features", forbidden)
    command = [*grid.command[:5], *grid.command[grid.command.index("--workers") :]]  # both upstreams, no task
    command += ["--task", grid.command[6], "--seed", 7, "--output", tmp_path / "results"]
    ran = call(*command)
    assert ran.code == 0
    assert {record.seed for record in RecordStore(tmp_path / "results").all()} >= {7}


def report(folder: Path, *more: object) -> Called:
    return call("report", "--output", folder, *more)


def test_report_in_three_formats(grid, records):
    results = grid.folder / "results"
    table, markdown, text = (report(results, "--custom", "--format", kind) for kind in ("table", "markdown", "csv"))
    assert (table.code, markdown.code, text.code) == (0, 0, 0)
    assert table == report(results, "--custom")
    values = defaultdict(list)
    for record in records:
        values[record.upstream["name"], record.task["name"]].append(record.value)
    rows = list(csv.DictReader(io.StringIO(text.out)))
    assert len(rows) == 8
    for row in rows:
        low, high = sorted(values[row["upstream"], row["task"]])
        assert float(row["mean"]) == pytest.approx((low + high) / 2, abs=1e-4)
        assert float(row["std"]) == pytest.approx((high - low) / 2**0.5, abs=1e-4)
        assert row["seeds"] == "2"
        cell = f"{float(row['mean']):.1f} ± {float(row['std']):.1f}"
        assert cell in table.out
        assert cell in markdown.out
    title, _, heading = markdown.out.splitlines()[:3]
    assert title == "**tiny, recipe tiny (custom)**"
    columns = "| upstream | family | params | error reduction % | ASR WER % ↓ | IC Acc % ↑ |"
    assert " ".join(heading.split()).startswith(columns)


def test_a_failed_cell_does_not_stop_the_others(corpus_folder, tasks_file, tmp_path):
    tasks = (f"{tasks_file}:BROKEN", f"{tasks_file}:KS")
    folders = {"output": tmp_path / "results", "cache": tmp_path / "cache"}
    ran = call(*options(upstreams=("mfcc",), tasks=tasks, corpus=corpus_folder, **folders))
    assert ran.code == 1
    assert "failed: mfcc / ks / seed 0: training diverged with every learning rate (1e+30 before update 5)" in ran.err
    assert "Traceback" not in ran.err
    assert "1 cells computed, 0 were there, 1 failed" in ran.out
    (record,) = RecordStore(tmp_path / "results").all()
    assert record.recipe["name"] == "tiny"


@pytest.mark.parametrize("workers", [1, 2])
def test_an_upstream_that_fails_does_not_stop_the_others(corpus_folder, tasks_file, tmp_path, caplog, workers):
    caplog.set_level(logging.DEBUG, "frostbench")
    file = tmp_path / "own.py"
    file.write_text(OWN_UPSTREAM.replace('name="loudness"', 'name="failing"'))
    folders = {"output": tmp_path / "results", "cache": tmp_path / "cache"}
    tasks = (f"{tasks_file}:KS", f"{tasks_file}:IC")
    asked = options(upstreams=(f"{file}:Failing", "mfcc"), tasks=tasks, corpus=corpus_folder, **folders)
    ran = call(*asked, "--workers", workers)
    assert ran.code == 1
    line = next(n for n, text in enumerate(file.read_text().splitlines(), 1) if "out of order" in text)
    assert f"failed: failing: RuntimeError: out of order (own.py, line {line})\n" in ran.err
    assert "Traceback" not in ran.err
    assert "2 cells computed, 0 were there, 2 failed" in ran.out
    assert {record.upstream["name"] for record in RecordStore(tmp_path / "results").all()} == {"mfcc"}
    assert "out of order" in caplog.text  # the traceback is in the log


def test_a_users_own_upstream(corpus_folder, tasks_file, tmp_path):
    file = tmp_path / "own.py"
    file.write_text(OWN_UPSTREAM)
    (tmp_path / "three").write_text("3")
    folders = {"output": tmp_path / "results", "cache": tmp_path / "cache"}
    specs = (f"{file}:Loudness", f"{file}:Loudness@{tmp_path / 'three'}")
    ran = call(*options(upstreams=specs, tasks=(f"{tasks_file}:KS",), corpus=corpus_folder, **folders))
    assert ran.code == 0
    records = RecordStore(tmp_path / "results").all()
    assert [record.upstream["name"] for record in records] == ["loudness", "loudness"]
    assert len({record.upstream["digest"] for record in records}) == 2
    assert ran.out.count("loudness#") == 2  # one name, two contents
    checked = call("check", specs[0])
    assert checked.code == 0
    assert "FAILED" not in checked.out
    before = build_upstream(specs[0]).digest()
    file.write_text(OWN_UPSTREAM.replace("self.power)", "self.power * 1)"))  # one card, other code
    assert build_upstream(specs[0]).digest() != before


def test_check_tells_what_is_broken(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(
        OWN_UPSTREAM.replace("frames.amax(dim=2)", "frames.amax(dim=(0, 2))[None] + 0 * frames.amax(dim=2)")
    )
    checked = call("check", f"{file}:Loudness")
    assert checked.code == 1
    failed = [line for line in checked.out.splitlines() if "FAILED" in line]
    assert any("check_padding_changes_nothing" in line for line in failed)
    assert call("check", "fbank").code == 0


def test_limited_runs_stay_off_the_leaderboard(corpus_folder, tasks_file, tmp_path):
    folders = {"output": tmp_path / "results", "cache": tmp_path / "cache"}
    task = (f"{tasks_file}:KS",)
    ran = call(*options(upstreams=("mfcc",), tasks=task, corpus=corpus_folder, limit=6, **folders))
    assert ran.code == 0
    (record,) = RecordStore(tmp_path / "results").all()
    assert (record.custom, record.counts) == (True, {"train": 6, "valid": 6, "test": 6})
    refused = report(tmp_path / "results")
    assert refused.code == 2
    assert "add --custom" in refused.err
    assert "tiny (custom)" in report(tmp_path / "results", "--custom").out


def test_list_names_everything():
    listed = call("list")
    assert listed.code == 0
    for name in ("fbank", "apc", "mockingjay", "hf", "ks", "sid", "ic", "asr", "ctc", "utterance_linear", "mini"):
        assert f" {name} " in listed.out


def test_prepare_counts_the_rows(corpus_folder):
    prepared = call("prepare", corpus_folder)
    assert prepared.code == 0
    assert "tiny: 76 recordings, all good" in prepared.out
    (line,) = [line for line in prepared.out.splitlines() if "keyword" in line]
    assert [word for word in line.split() if word.isdigit()] == ["24", "12", "12"]


def golden_of(corpus) -> dict[str, dict]:
    """Digests of all that decides a result; values are in test_golden_grid.py."""
    import tiny_tasks

    tasks = [getattr(tiny_tasks, name) for name in NAMES]
    cells = make_cells(Grid(("fbank",), tasks, (0,)), corpus).cells
    return {
        "tasks": {task.name: task.digest() for task in TASKS},
        "recipes": {
            f"{task.name}, {name}": digest_of(recipe) for task in TASKS for name, recipe in task.recipes.items()
        },
        "upstreams": {name: build_upstream(name).digest() for name in ("fbank", "fbank_cmvn", "mfcc")},
        "corpora": {cell.task.name: cell.rows.digest for cell in cells},
        "runs": {cell.task.name: cell.run for cell in cells},
    }


def test_the_digests_are_as_they_were(corpus, request):
    """A digest that changes means that every result out there is another one: change it knowingly."""
    found = golden_of(corpus)
    if request.config.getoption("--update-golden"):
        GOLDEN.write_text(json.dumps(found, indent=2) + "\n")
    stored = json.loads(GOLDEN.read_text())
    assert list(found) == list(stored)
    for kind in ("tasks", "recipes", "upstreams", "corpora", "runs"):
        assert found[kind] == stored[kind], f"{kind}: if this is meant, run pytest --update-golden"


def test_results_do_not_depend_on_where_the_corpus_lies(grid, records, tmp_path, tasks_file):
    copy = shutil.copytree(grid_corpus(grid).parent, tmp_path / "tiny")
    folders = {"output": tmp_path / "results", "cache": tmp_path / "cache"}
    ran = call(*options(upstreams=("fbank",), tasks=(f"{tasks_file}:KS",), corpus=copy, **folders))
    assert ran.code == 0
    (record,) = RecordStore(tmp_path / "results").all()
    (same,) = [each for each in records if each.run == record.run]
    assert same.result() == record.result()
