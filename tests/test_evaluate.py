"""`frostbench.evaluate` is what `run` calls, and takes objects as well; results come as frames."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest
import tiny_tasks
import torch
from conftest import call
from torch import nn

import frostbench as fb
from frostbench.jobs.local import LocalExecutor
from frostbench.jobs.progress import Watcher

ROOT = Path(__file__).parent.parent


class Blocks(fb.Upstream):
    """Log energy of blocks through a linear layer; holds what nobody can pickle."""

    card = fb.UpstreamCard(name="blocks", title="Log energy of 10 ms blocks", paper="none")
    num_layers, hidden_size, downsample_rate, min_samples = 1, 2, 160, 160

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Linear(1, 2)
        self.norm = nn.Dropout()
        nn.init.constant_(self.scale.weight, weight)
        nn.init.zeros_(self.scale.bias)
        self.lock = threading.Lock()

    def frame_lengths(self, wav_lengths):
        return wav_lengths // 160

    def encode(self, wavs, wav_lengths):
        blocks = wavs[:, : wavs.shape[1] // 160 * 160].unflatten(1, (-1, 160))
        energy = (blocks.square().mean(dim=2, keepdim=True) + 1e-8).log()
        return fb.HiddenStates((self.norm(self.scale(energy)),), self.frame_lengths(wav_lengths))


@pytest.fixture
def folders(tmp_path) -> dict[str, Path]:
    return {"output": tmp_path / "results", "cache": tmp_path / "cache"}


@pytest.fixture(scope="module")
def results(corpus_folder, tmp_path_factory) -> fb.Results:
    """Two upstreams, one an object, on two tasks with two seeds."""
    place = tmp_path_factory.mktemp("evaluated")
    return fb.evaluate(
        ["fbank", Blocks()],
        [tiny_tasks.KS, tiny_tasks.SID],
        corpus=corpus_folder,
        seeds=(0, 1),
        output=place / "results",
        cache=place / "cache",
    )


def test_run_and_evaluate_are_one(corpus_folder, tasks_file, folders):
    places = ("--output", folders["output"], "--cache", folders["cache"])
    command = ("run", "--upstream", "fbank", "--task", f"{tasks_file}:KS", "--corpus", corpus_folder, "--workers", 1)
    assert call(*command, *places).code == 0
    again = fb.evaluate("fbank", f"{tasks_file}:KS", corpus=corpus_folder, seeds=[0, 1], workers=1, **folders)
    assert (again.computed, again.skipped, again.failures) == (1, 1, ())
    assert "0 cells computed, 1 were there" in call(*command, *places).out


def test_cells(results):
    cells = results.cells()
    assert isinstance(cells, pd.DataFrame)
    assert len(cells) == 4
    wanted = {"upstream", "task", "mean", "std", "low", "high", "rank", "letters", "params", "seeds", "direction"}
    assert wanted <= set(cells.columns)
    blocks = cells[(cells["upstream"] == "blocks") & (cells["task"] == "ks")].iloc[0]
    assert (blocks["params"], blocks["seeds"], blocks["test_utterances"]) == (4, 2, 12)
    runs = results.runs().query("upstream == 'blocks' and task == 'ks'")
    assert blocks["mean"] == pytest.approx(runs["value"].mean())
    assert blocks["std"] == pytest.approx(runs["value"].std())
    assert (cells["low"] <= cells["mean"]).all()
    assert (cells["mean"] <= cells["high"]).all()
    pivot = cells.pivot(index="upstream", columns="task", values="mean")
    assert list(pivot.columns) == ["ks", "sid"]


def test_runs(results):
    runs = results.runs()
    assert len(runs) == len(results.records) == 8
    for record, row in zip(results.records, runs.to_dict("records"), strict=True):
        assert (row["run"], row["seed"], row["value"]) == (record.run, record.seed, record.value)
        assert row["seconds"] == pytest.approx(sum(record.circumstances["wall_seconds"].values()))
        assert row["upstream_digest"] == record.upstream["digest"]
        assert row["version_torch"] == record.circumstances["versions"]["torch"]
        (chosen,) = [r["valid"] for r in record.learning_rates if r["learning_rate"] == row["learning_rate"]]
        assert row["valid"] == chosen


def test_predictions_give_the_value_again(results):
    predictions = results.predictions()
    values = results.runs().set_index("run")["value"]
    for run, rows in predictions.groupby("run"):
        assert 100 * (rows["prediction"] == rows["reference"]).mean() == pytest.approx(values[run])
    assert set(predictions.query("task == 'ks'")["speaker"]) == {"v6", "v7"}


def test_layers(results):
    layers = results.layers()
    assert list(layers["layer"].unique()) == [0]
    assert (layers.groupby("run")["weight"].sum() - 1).abs().max() < 1e-6
    assert layers["corrected_weight"].tolist() == pytest.approx([1.0] * 8)


def test_page_and_markdown(results, tmp_path):
    assert results.page(tmp_path / "page.html").read_text(encoding="utf-8").lstrip().startswith("<!doctype html>")
    assert "| blocks " in results.to_markdown()
    assert repr(results) == f"<Results: 8 runs in {results.folder}>"


def test_load_shows_what_report_shows(results, corpus_folder, folders):
    assert fb.load(results.folder, custom=True).cells().equals(results.cells())
    fb.evaluate("fbank", tiny_tasks.KS, corpus=corpus_folder, limit=12, workers=1, **folders)
    assert fb.load(folders["output"]).runs().empty
    assert fb.load(folders["output"]).cells().empty
    assert len(fb.load(folders["output"], custom=True).runs()) == 1
    with pytest.raises(fb.RecordError, match="no records there"):
        fb.load(folders["cache"] / "nothing")


def test_published_rows_stand_in_the_frame(results):
    cells = fb.load(results.folder, published=True).cells()
    published = cells[cells["source"] == "published"]
    assert "WavLM Large" in set(published["upstream"])
    assert published["seeds"].isna().all()


def test_an_object_comes_back_as_it_was(corpus_folder, folders):
    upstream = Blocks().train()
    upstream.scale.bias.requires_grad_(False)
    fb.evaluate(upstream, tiny_tasks.KS, corpus=corpus_folder, **folders)
    assert (upstream.training, upstream.norm.training) == (True, True)
    assert (upstream.scale.weight.requires_grad, upstream.scale.bias.requires_grad) == (True, False)


def test_an_object_and_its_class_are_one_and_other_weights_another(corpus_folder, folders):
    (first,) = fb.evaluate([Blocks], [tiny_tasks.KS], corpus=corpus_folder, **folders).records
    same = fb.evaluate([Blocks()], [tiny_tasks.KS], corpus=corpus_folder, **folders)
    assert (same.computed, same.skipped) == (0, 1)
    both = fb.evaluate([Blocks(), Blocks(weight=2.0)], [tiny_tasks.KS], corpus=corpus_folder, **folders)
    assert (both.computed, both.skipped) == (1, 1)
    names = sorted(both.cells()["upstream"])
    assert len(names) == 2
    assert all(name.startswith("blocks#") for name in names)
    assert first.circumstances["upstream_spec"].startswith("instance:test_evaluate.Blocks (code from file, digest ")


def test_objects_stay_in_this_process(corpus_folder, folders, monkeypatch):
    with pytest.raises(fb.BenchmarkError, match="Blocks is an object, which other processes don't have: leave"):
        fb.evaluate(Blocks(), tiny_tasks.KS, corpus=corpus_folder, workers=2, **folders)
    opened = []
    monkeypatch.setattr(LocalExecutor, "__enter__", lambda self: opened.append(self.workers) or self)
    fb.evaluate(Blocks(), tiny_tasks.KS, corpus=corpus_folder, **folders)
    assert opened == [1]


def test_failures_raise_when_all_others_are_recorded(corpus_folder, folders):
    slow = dataclasses.replace(tiny_tasks.KS, recipes={"tiny": dataclasses.replace(tiny_tasks.CLASSIFY)})
    asked = {"corpus": corpus_folder, "workers": 1, **folders}
    with pytest.raises(fb.EvaluationError, match=r"jobs failed \(1 runs were computed") as caught:
        fb.evaluate(["fbank", Short()], [slow], **{**asked, "workers": None})
    assert len(caught.value.failures) == 1
    results = fb.evaluate(["fbank", Short()], [slow], raise_error=False, **{**asked, "workers": None})
    assert (results.computed, results.skipped, results.failed) == (0, 1, 1)
    assert "shortest legal input" in results.failures[0][1]
    assert list(results.cells()["upstream"]) == ["fbank"]


class Short(Blocks):
    """Refuses everything."""

    card = fb.UpstreamCard(name="short", title="Refuses what is below an hour", paper="none")
    min_samples = 16_000 * 3_600


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["fbank"], ["kks"]), "unknown task 'kks': did you mean 'ks'"),
        ((["fban"], ["ks"]), "unknown upstream 'fban': did you mean 'fbank'"),
        (([], ["ks"]), "no upstream is given"),
        ((["fbank"], []), "no task is given"),
        (([3.0], ["ks"]), "3.0 is no upstream: give a specification such as 'fbank'"),
        ((["fbank"], [3.0]), "3.0 is no task"),
    ],
)
def test_what_cannot_be_evaluated_is_said(arguments, message, corpus_folder, folders):
    with pytest.raises(fb.BenchmarkError, match=message):
        fb.evaluate(*arguments, corpus=corpus_folder, **folders)
    assert not folders["output"].exists()


def test_an_upstream_without_a_card_is_refused(folders):
    class Bare(fb.Upstream):
        """No card."""

        encode = frame_lengths = Blocks.encode

    with pytest.raises(fb.ContractError, match=r"Bare has no card: write `card = frostbench.UpstreamCard"):
        fb.evaluate(Bare(), "ks", **folders)


def test_progress_is_silent_unless_asked_for(corpus_folder, folders, capsys):
    fb.evaluate("fbank", tiny_tasks.KS, corpus=corpus_folder, workers=1, **folders)
    assert capsys.readouterr() == ("", "")
    said = []
    watcher = Watcher()
    watcher.stage = lambda title, total, unit: said.append(title)
    fb.evaluate("mfcc", tiny_tasks.KS, corpus=corpus_folder, workers=1, progress=watcher, **folders)
    assert said[-1] == "evaluating on test"


def test_hidden_states_alone():
    wavs, lengths = fb.pad([torch.randn(16_000), torch.randn(8_000)])
    for upstream in (fb.upstream("fbank"), fb.upstream(Blocks), fb.upstream(Blocks())):
        states = upstream.extract(wavs, lengths)
        assert len(states.layers) == upstream.num_layers
        assert not upstream.training


def test_predict(results, corpus_folder):
    for upstream, given in (("fbank", None), ("blocks", Blocks())):
        run = results.runs().query(f"upstream == '{upstream}' and task == 'ks' and seed == 0").iloc[0]["run"]
        first = results.predictions().query("run == @run").iloc[0]
        (file,) = corpus_folder.glob(f"audio/{first['id']}.*")
        assert fb.predict(file, run, output=results.folder, upstream=given, device="cpu") == [first["prediction"]]
    with pytest.raises(fb.CheckpointError, match="was an object of a Python program; make it again"):
        fb.predict(file, run, output=results.folder)
    with pytest.raises(fb.CheckpointError, match="upstream 'Blocks' is another one"):
        fb.predict(file, run, output=results.folder, upstream=Blocks(weight=3.0))


SCRIPT = """
import sys
import frostbench as fb
sys.path.append({tests!r})
import tiny_tasks
print("started")
results = fb.evaluate(["fbank"], [tiny_tasks.KS, tiny_tasks.SID], corpus={corpus!r}, workers=2)
print(results.cells()["mean"].notna().sum(), "cells")
"""


def test_a_script_without_main_guard_runs_once(corpus_folder, tmp_path):
    """Worker processes that ran the script again would evaluate again, and be refused by multiprocessing."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(ROOT / "tests"), corpus=str(corpus_folder)))
    done = subprocess.run([sys.executable, script], cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
                          capture_output=True, text=True, timeout=200, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["started", "2 cells"]
