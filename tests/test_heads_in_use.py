"""After training: other heads stay apart, trained ones predict, test is looked at once, norms and costs are told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import call
from test_end_to_end import options

from core.records import RecordStore, ResultRecord
from downstreams._data import PooledExamples
from frostbench.grid import cell_jobs
from frostbench.grid.measures import gflops_per_second, layer_norms
from tasks._base import TASKS
from upstreams._resolve import build_upstream


@pytest.fixture(scope="module")
def runs(corpus_folder, tasks_file, tmp_path_factory) -> SimpleNamespace:
    """FBANK and MFCC on three tasks, and on keywords with attention instead of the mean."""
    folder = tmp_path_factory.mktemp("heads")
    common = {"corpus": corpus_folder, "output": folder / "results", "cache": folder / "cache"}
    tasks = tuple(f"{tasks_file}:{name}" for name in ("KS", "IC", "ASR"))
    default = call(*options(upstreams=("fbank", "mfcc"), tasks=tasks, **common))
    other = call(*options(upstreams=("fbank", "mfcc"), tasks=tasks[:1], head="utterance_attention", **common))
    return SimpleNamespace(folder=folder, default=default, other=other, store=RecordStore(folder / "results"))


def record_of(runs, task: str, head: str = "") -> ResultRecord:
    (found,) = [record for record in runs.store.all() if record.upstream["name"] == "fbank"
                and record.task["name"] == task and (not head or record.task["head"] == head)]  # fmt: skip
    return found


def test_another_head_is_a_run_of_its_own_and_no_part_of_the_leaderboard(runs):
    assert (runs.default.code, runs.other.code) == (0, 0)
    assert "tiny, recipe tiny (custom), head utterance_attention" in runs.other.out
    default, other = (record_of(runs, "ks", f"utterance_{name}") for name in ("linear", "attention"))
    assert default.run != other.run
    assert (other.task["default_head"], other.features["kind"]) == ("utterance_linear", "frames")
    read = json.loads(call("report", "--custom", "--output", runs.store.folder, "--format", "json").out)
    (board,), (variant,) = read["boards"], read["variants"]
    assert {cell["seeds"][0]["run"] for row in board["rows"] for cell in row["cells"].values()}.isdisjoint(
        {cell["seeds"][0]["run"] for row in variant["rows"] for cell in row["cells"].values()}
    )
    (compared,) = board["heads"]
    assert (compared["task"], compared["head"], len(compared["upstreams"])) == ("ks", "utterance_attention", 2)
    assert compared["tau"] in (-1, 1, None)
    assert "KS with head utterance_attention instead of utterance_linear" in call(
        "report", "--custom", "--output", runs.store.folder
    ).out.replace("\n", " ")
    alone = [record.value for record in runs.store.all() if record.task["head"] == "utterance_linear"
             and record.task["name"] == "ks"]  # fmt: skip
    assert sorted(row["cells"]["ks"]["mean"] for row in board["rows"]) == sorted(alone)


def test_a_head_for_other_labels_is_refused(corpus_folder, tasks_file, tmp_path):
    for task, head, heads in (
        ("ASR", "utterance_attention", "attention_decoder, ctc"),
        ("KS", "ctc", "clusters, nearest_neighbours, retrieval, utterance_attention, utterance_linear"),
    ):
        refused = call(*options(upstreams=("fbank",), tasks=(f"{tasks_file}:{task}",), corpus=corpus_folder, head=head))
        assert refused.code == 2
        assert refused.err == (
            f"error: head '{head}' takes other labels than task '{task.lower()}' has; heads for it: {heads}\n"
        )
    assert call("run", "--upstream", "fbank", "--task", "ks", "--head", "none").code == 2


def test_the_tasks_own_head_is_no_variant():
    task = TASKS.get("ks")
    assert task.with_head("utterance_linear") == task
    assert task.with_head("utterance_attention").with_head("utterance_linear").digest() == task.digest()


def test_the_stored_verdicts_hold(runs):
    assert call("verify", "--output", runs.store.folder).code == 0


def rows_in(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def recordings(corpus_folder: Path, rows: list[dict]) -> list[Path]:
    files = {row["id"]: row["file_name"] for row in rows_in(corpus_folder / "metadata.jsonl")}
    return [corpus_folder / files[row["id"]] for row in rows]


@pytest.mark.parametrize(("task", "head"), [("ks", "utterance_linear"), ("ks", "utterance_attention"), ("ic", ""),
                                            ("asr", "")])  # fmt: skip
def test_predictions_for_a_users_files_are_those_of_the_run(runs, corpus_folder, task, head):
    record = record_of(runs, task, head)
    path = runs.store.run_folder(record.run) / "predictions.jsonl"
    rows = rows_in(path)
    files = recordings(corpus_folder, rows)
    told = call("predict", "--run", record.run[:8], "--output", runs.store.folder, "--json", *files)
    answer = json.loads(told.out)
    assert (answer["run"], answer["task"], answer["upstream"]) == (record.run, task, "fbank")
    assert [each["file"] for each in answer["predictions"]] == [str(file) for file in files]
    assert [each["prediction"] for each in answer["predictions"]] == [row["prediction"] for row in rows]


def test_predict_prints_a_table(runs, corpus_folder):
    file = next(corpus_folder.joinpath("audio").iterdir())
    table = call("predict", "--run", record_of(runs, "ic").run, "--output", runs.store.folder, file)
    assert table.code == 0
    assert "intent" in table.out
    assert "action: " in table.out
    assert ", object: " in table.out


def test_what_predict_cannot_use_is_told_in_one_line(runs, corpus_folder, tmp_path):
    file = next(corpus_folder.joinpath("audio").iterdir())
    run = record_of(runs, "ic").run
    for arguments, said in (
        (("--run", "zzz", file), "no run begins with 'zzz'"),
        (("--run", "", file), "no run begins with ''"),
        (("--run", run, "--upstream", "mfcc", file), "upstream 'mfcc' is another one than the head was trained on"),
        (("--run", run, "--upstream", f"apc@{tmp_path / 'gone'}", file), "lies elsewhere, add --upstream"),
        (("--run", run, tmp_path / "none.wav"), "none.wav: no such file"),
    ):
        refused = call("predict", "--output", runs.store.folder, *arguments)
        assert refused.code == 2
        assert said in refused.err
        assert refused.err.count("\n") == 1
    copy = RecordStore(tmp_path / "copy")
    copy.add(record_of(runs, "ic"))
    assert "missing, or not the head" in call("predict", "--output", copy.folder, "--run", run, file).err


def test_predictions_say_who_speaks_and_what_it_adds(runs, corpus_folder):
    voices = {row["id"]: row["voice"] for row in rows_in(corpus_folder / "metadata.jsonl")
              if "voice" in row}  # fmt: skip
    for row in rows_in(runs.store.run_folder(record_of(runs, "asr").run) / "predictions.jsonl"):
        assert row["speaker"] == voices[row["id"]]
        ((errors, total),) = row["statistics"].values()
        assert set(row["statistics"]) == {"wer"}
        assert total == len(row["reference"].split())
        assert errors >= (row["prediction"] != row["reference"])


class Watched:
    """A split that notes every look at it."""

    def __init__(self, split: str, examples: object, looks: list[tuple[str, list[int]]]) -> None:
        self.split, self.examples, self.looks = split, examples, looks

    def __getattr__(self, name: str) -> object:
        return getattr(self.examples, name)

    def batch(self, indices: Sequence[int], generator: torch.Generator | None = None) -> object:
        self.looks.append((self.split, list(indices)))
        return self.examples.batch(indices, generator)


@pytest.mark.parametrize("name", ["KS", "ASR"])
def test_the_test_set_is_looked_at_once_when_all_is_decided(corpus_folder, tasks_file, tmp_path, monkeypatch, name):
    looks: list[tuple[str, list[int]]] = []
    load = cell_jobs.load_splits

    def watched(*arguments, **named):
        found = load(*arguments, **named)
        return {split: Watched(split, examples, looks) for split, examples in found.items()}

    monkeypatch.setattr(cell_jobs, "load_splits", watched)
    folders = {"output": tmp_path / "results", "cache": tmp_path / "cache"}
    ran = call(*options(upstreams=("fbank",), tasks=(f"{tasks_file}:{name}",), corpus=corpus_folder, **folders))
    assert ran.code == 0
    order = [split for split, _ in looks]
    begin = order.index("test")
    assert {"train", "valid"} <= set(order[:begin])
    assert set(order[begin:]) == {"test"}
    seen = [index for split, indices in looks if split == "test" for index in indices]
    assert sorted(seen) == list(range(12))


def test_layer_norms_are_means_over_utterances():
    """Two utterances of two layers; the norms of (3, 4) and (0, 2), then of (6, 8) and (0, 0)."""
    features = torch.tensor([[[[3.0, 4.0], [0.0, 2.0]]], [[[6.0, 8.0], [0.0, 0.0]]]])
    examples = PooledExamples(features, [[0], [1]], [torch.zeros(1)] * 2)
    assert layer_norms(examples, normalise=False) == [7.5, 1.0]
    normalised = layer_norms(examples, normalise=True)
    assert normalised[0] == pytest.approx(2**0.5, rel=1e-3)


def test_records_hold_norms_and_cost(runs):
    for record in runs.store.all():
        assert len(record.circumstances["layer_norms"]) == record.upstream["num_layers"]
        assert all(norm > 0 for norm in record.circumstances["layer_norms"])
        assert 0 < record.circumstances["gflops_per_second"] < 0.1
        assert not {"layer_norms", "gflops_per_second"} & {*record.features, *record.upstream}, "measured, no result"


def test_the_cost_of_an_upstream_is_counted():
    """APC: three GRU layers of 256 on 80 features, 100 frames a second; two operations a weight."""
    weights = 3 * 256 * (80 + 256) + 2 * 3 * 256 * (256 + 256)
    counted = gflops_per_second("apc", device="cpu", advance=lambda done: None)
    assert counted == gflops_per_second("apc", device="cpu", advance=lambda done: None)
    assert 2 * 100 * weights / 1e9 == pytest.approx(counted, rel=0.05)
    # A Transformer layer is one fused operation for torch, which must not be overlooked.
    mockingjay = build_upstream("mockingjay@untrained")
    assert (
        gflops_per_second("mockingjay", device="cpu", advance=lambda done: None)
        > 0.7 * 2 * 100 * mockingjay.num_params() / 1e9
    )


def test_recurrent_layers_count_as_their_matrices():
    from torch.utils.flop_counter import FlopCounterMode

    from frostbench.grid.measures import FORMULAS

    lstm = torch.nn.LSTM(8, 4, bidirectional=True).eval()
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        lstm(torch.zeros(10, 3, 8))
    assert counter.get_total_flops() == 2 * 10 * 3 * 2 * 16 * (8 + 4)
