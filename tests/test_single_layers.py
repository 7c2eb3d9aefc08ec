"""Heads on one layer alone (`run --layers`): a curve beside the weights that the sum of all learned."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_tasks
import torch
from conftest import call

import frostbench as fb
from core.errors import BenchmarkError, ContractError
from core.metrics import get_metric
from core.records import RecordStore
from downstreams.utterance_linear import UtteranceLinear
from frostbench.grid.plan import Grid, make_cells
from frostbench.grid.sweeps import sweeps_of
from frostbench.jobs.progress import Watcher
from leaderboard.aggregate import leaderboard
from leaderboard.statistics import Trials, interval, resample
from leaderboard.usable_records import usable_records
from leaderboard.verification import verify
from tasks._base import TASKS


class Hidden(fb.Upstream):
    """Only the last of its three layers has heard anything."""

    card = fb.UpstreamCard(name="hidden", title="Spectrum in the last layer", paper="none")
    num_layers, hidden_size, downsample_rate, min_samples = 3, 81, 160, 160

    def frame_lengths(self, wav_lengths):
        return wav_lengths // 160

    def encode(self, wavs, wav_lengths):
        blocks = wavs[:, : wavs.shape[1] // 160 * 160].unflatten(1, (-1, 160))
        spectrum = (torch.fft.rfft(blocks).abs() + 1e-3).log()
        deaf = torch.ones_like(spectrum)
        return fb.HiddenStates((deaf, 2 * deaf, spectrum), self.frame_lengths(wav_lengths))


def evaluated(corpus_folder: Path, place: Path, **asked) -> fb.Results:
    asked = {"seeds": (0, 1), **asked}
    return fb.evaluate(
        Hidden(), tiny_tasks.SID, corpus=corpus_folder, output=place / "results", cache=place / "cache", **asked
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("layers")


@pytest.fixture(scope="module")
def each(corpus_folder, place) -> fb.Results:
    return evaluated(corpus_folder, place, layers="each")


def test_the_curve_peaks_where_the_label_is(each):
    assert each.computed == 8
    layers = each.layers()
    assert layers["layer"].tolist() == [0, 1, 2] * 2
    assert layers["weight"].notna().all()
    assert set(layers["metric"]) == {"accuracy"}
    for _, rows in layers.groupby("seed"):
        deaf, same, heard = rows["value"]
        assert deaf == same, "what is the same for all recordings says one thing of all"
        assert heard > deaf + 10
    runs = each.runs().set_index("run")
    for row in layers.to_dict("records"):
        alone = runs.loc[row["layer_run"]]
        assert (alone["layer"], alone["value"], alone["seed"]) == (row["layer"], row["value"], row["seed"])
        assert runs.loc[row["run"]].isna()["layer"]


def test_the_leaderboard_is_what_it_is_without_the_curve(each, corpus_folder, tmp_path):
    alone = evaluated(corpus_folder, tmp_path)
    assert set(alone.runs()["run"]) == set(each.layers()["run"])
    assert alone.cells().equals(each.cells())
    assert alone.layers()["value"].isna().all()
    assert alone.layers()["weight"].tolist() == each.layers()["weight"].tolist()
    assert fb.load(each.folder, custom=True).cells().equals(alone.cells())
    again = evaluated(corpus_folder, each.folder.parent)
    assert (again.computed, again.skipped) == (0, 2)


def test_the_cell_of_the_sum_has_the_curve_with_intervals(each):
    (board,) = each.board.boards
    (row,) = board.rows
    found = row.cells["sid"].single_layers
    rows = each.layers()
    assert [score.layer for score in found] == [0, 1, 2]
    predictions = each.predictions().set_index("run")
    for score in found:
        alone = rows[rows["layer"] == score.layer]
        assert score.mean == pytest.approx(alone["value"].mean())
        assert score.seeds == (0, 1)
        judged = [predictions.loc[run] for run in alone["layer_run"]]
        statistics = np.array([[each["accuracy"] for each in seed["statistics"]] for seed in judged], dtype=float)
        draws = resample(Trials(get_metric("accuracy"), [statistics], list(judged[0]["speaker"])))
        assert score.interval == interval(draws, 0)


def test_a_curve_without_predictions_has_no_intervals(each, tmp_path):
    shutil.copytree(each.folder / "records", tmp_path / "records")
    (board,) = leaderboard(RecordStore(tmp_path), custom=True).boards
    scores = board.rows[0].cells["sid"].single_layers
    assert [score.layer for score in scores] == [0, 1, 2]
    assert {score.interval for score in scores} == {None}


def test_predictions_of_a_layer_that_were_changed_are_named_and_leave_it_out(each, tmp_path):
    shutil.copytree(each.folder, tmp_path / "copy")
    store = RecordStore(tmp_path / "copy")
    runs = [record.run for record in store.all() if record.layer == 1]
    for run in runs:
        (store.run_folder(run) / "predictions.jsonl").write_text("{}\n")
    found = leaderboard(store, custom=True)
    assert [score.layer for score in found.boards[0].rows[0].cells["sid"].single_layers] == [0, 2]
    assert len(found.left_out) == 2 and all(run[:16] in "".join(found.left_out) for run in runs)
    assert found.hidden == 0


def test_a_layer_that_there_is_not_is_left_out(each, tmp_path):
    store = RecordStore(tmp_path)
    record = next(record for record in RecordStore(each.folder).all() if record.layer == 1)
    recipe = {**record.recipe, "layer": 3}
    odd = replace(record, recipe=recipe)
    store.add(replace(odd, run=odd.inputs_digest()))
    (left_out,) = usable_records(store).left_out
    assert "it is of layer 3 alone, of 3 layers" in str(left_out)


def test_a_layer_trained_beside_others_is_as_if_it_were_alone(each, corpus_folder, tmp_path):
    alone = evaluated(corpus_folder, tmp_path, layers=2, seeds=1)
    (record,) = alone.records
    assert record.layer_weights == [0, 0, 1]
    together = RecordStore(each.folder)
    assert together.read(together.path(record.run)).result_digest() == record.result_digest()
    (row,) = alone.layers().to_dict("records")
    assert row["run"] is None and row["layer_run"] == record.run
    assert alone.cells().empty
    assert (alone.board.boards, alone.board.variants) == ((), ()), "without the sum there is no row for a curve"


def test_every_file_of_a_curve_is_verified(each):
    assert verify(RecordStore(each.folder)) == []


def test_a_single_layer_in_closed_form_trains_as_autograd_does(each, corpus_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(UtteranceLinear, "closed_form", False)
    (slow,) = evaluated(corpus_folder, tmp_path, layers=[2], seeds=0).records
    fast = RecordStore(each.folder).read(RecordStore(each.folder).path(slow.run))
    assert fast.artifacts["head.safetensors"] != slow.artifacts["head.safetensors"], "these are two ways"
    assert [tried["valid"] for tried in fast.learning_rates] == pytest.approx(
        [tried["valid"] for tried in slow.learning_rates], abs=10
    )
    assert fast.value == pytest.approx(slow.value, abs=10)


def test_layers_of_a_head_on_means_share_a_sweep(corpus):
    cells = make_cells(Grid(("apc@untrained",), (tiny_tasks.KS,), (0, 1), layers="each"), corpus).cells
    assert len(cells) == 2 * (1 + cells[0].upstream.num_layers)
    assert len({cell.run for cell in cells}) == len(cells)
    assert len(sweeps_of(cells, 1)) == 1


def test_frames_are_asked_of_chosen_layers_alone(corpus):
    plan = make_cells(Grid(("fbank",), (tiny_tasks.ASR, tiny_tasks.KS), (0,), layers="each"), corpus)
    assert [(cell.task.name, cell.recipe.layer) for cell in plan.cells] == [("asr", None), ("ks", None), ("ks", 0)]
    assert "asr is not asked of each layer alone" in " ".join(plan.notes)
    (cell,) = make_cells(Grid(("fbank",), (tiny_tasks.ASR,), (0,), layers=(0,)), corpus).cells
    assert {tried.layer for tried in cell.candidates} == {0}


@pytest.mark.parametrize(
    ("tasks", "layers", "message"),
    [
        (tiny_tasks.KS, [0, 3], "hidden has layers 0 to 2, not 3"),
        (tiny_tasks.KS, [], "not none at all"),
        (tiny_tasks.KS, -1, "not -1"),
        (tiny_tasks.KS, "all", "or 'each'"),
        (TASKS.get("qbe"), 1, "qbe: tries one layer after the other itself"),
    ],
)
def test_what_can_not_be_is_refused_before_any_work(corpus_folder, tmp_path, tasks, layers, message):
    said = Watcher()
    with pytest.raises((ContractError, BenchmarkError), match=message):
        fb.evaluate(
            Hidden(), tasks, corpus=corpus_folder, layers=layers, output=tmp_path / "out", cache=tmp_path / "kept",
            progress=said,
        )  # fmt: skip
    assert not list((tmp_path / "out").rglob("*.json"))


def test_the_command_prints_the_curve(corpus_folder, tasks_file, tmp_path):
    places = ("--output", tmp_path / "results", "--cache", tmp_path / "cache", "--workers", 1)
    command = ("run", "--upstream", "fbank", "--task", f"{tasks_file}:KS", "--corpus", corpus_folder, *places)
    done = call(*command, "--layers", "0")
    assert done.code == 0, done.err
    assert "ks: accuracy of one layer alone" in " ".join(done.out.split())
    assert "layers" in call(*command, "--layers", "first").err
