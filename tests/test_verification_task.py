"""Pairs of recordings: which are compared, how they are scored, and a run of speaker verification from end to end."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import call
from sklearn.metrics import roc_curve

import frostbench as fb
from core.audio import num_samples
from core.errors import ManifestError
from core.manifest import Manifest, Utterance
from core.metrics import equal_error_threshold, get_metric
from core.records import RecordStore
from downstreams._base import FeatureShape
from downstreams._recipe import Recipe
from downstreams.labels.identities import IdentityLabels
from downstreams.xvector import XVector, XVectorOptions
from frostbench.grid.cell_jobs import Folders
from frostbench.grid.plan import Grid
from frostbench.grid.run import run_grid
from frostbench.jobs.local import LocalExecutor
from frostbench.prediction import threshold_of
from leaderboard.aggregate import leaderboard
from leaderboard.verification import verify
from tasks import _trials
from tasks._audio import AudioRecipe, Trim
from tasks._base import TASKS
from tasks._rows import read_rows, task_rows
from tasks._scorers import scores
from tasks._trials import trials_of

ORACLE = Path(__file__).parents[2] / "shared" / "oracles" / "tasks" / "asv.npz"


def made(voices: str, **trials: list[str]) -> Manifest:
    """A split test of recordings `0`, `1`, ... whose voices are these letters."""
    rows = [
        Utterance(
            str(n),
            Path(f"{n}.wav"),
            "test",
            {"who": voice, **({"trials": trials[f"_{n}"]} if f"_{n}" in trials else {})},
        )
        for n, voice in enumerate(voices)
    ]
    return Manifest("made", Path("made"), tuple(rows))


def of(manifest: Manifest) -> list[tuple[int, int, bool]]:
    return [tuple(trial) for trial in trials_of(manifest, manifest.utterances, "who")]


def test_all_pairs_are_compared_once_where_none_are_listed():
    assert of(made("aab")) == [(0, 1, True), (0, 2, False), (1, 2, False)]


def test_listed_trials_take_the_place_of_all_and_their_order_does_not_matter():
    assert of(made("aabb", _0=["3", "1"], _3=["2"])) == [(0, 1, True), (0, 3, False), (2, 3, True)]
    assert of(made("aabb", _1=["0"], _2=["3"], _3=["0"])) == [(0, 1, True), (0, 3, False), (2, 3, True)]


def test_a_trial_counts_as_often_as_it_is_listed():
    """338 pairs stand in VoxCeleb1-O once each way round, and its published values count both lines."""
    assert of(made("aabb", _0=["3", "1", "1"], _3=["0"])) == [(0, 1, True), (0, 1, True), (0, 3, False), (0, 3, False)]


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (made("aab", _0=["7"]), "utterance '0': trials names '7', which is no labelled row of split 'test'"),
        (made("aab", _1=["1"]), "names the recording itself"),
        (made("aab", _1="2"), "must be a list of ids"),
        (made("aab", _1=[2]), "must be a list of ids"),
        (made("aaa"), "no two recordings of two voices"),
        (made("abc"), "no two recordings of one voice"),
        (made("aab", _0=[]), "nothing can be verified"),
    ],
)
def test_trials_that_can_not_be_are_named(manifest, said):
    with pytest.raises(ManifestError, match=said):
        of(manifest)


def test_many_pairs_are_drawn_half_of_one_voice_and_always_the_same(monkeypatch):
    monkeypatch.setattr(_trials, "MOST_DRAWN", 60)
    for voices, targets in (
        ("abcdefgh" * 6, 30),  # 120 of 1,128 are targets: drawn
        ("abcdefghij" * 2, 10),  # all 10 targets, 50 of 180 others
        ("a" * 40 + "b", 30),  # others from a list of 40
        ("a" * 60 + "b" * 60, 30),
    ):
        found = of(made(voices))
        assert len(found) == len(set(found)) == 60 and found == of(made(voices)), voices
        assert sum(target for *_, target in found) == targets
        assert all(first < second and (voices[first] == voices[second]) is target for first, second, target in found)
    seen = {place for first, second, _ in of(made("abcdefgh" * 6)) for place in (first, second)}
    assert len(seen) > 40, "from everywhere"


def test_scores_are_cosines_whatever_the_order_and_the_length():
    vectors = [[1.0, 0.0], [2.0, 2.0], [0.0, 0.0]]
    assert scores("cosine", vectors, [(0, 1), (1, 0), (0, 2)]) == pytest.approx([0.5**0.5, 0.5**0.5, 0])


def test_equal_error_rate_lies_where_both_rates_cross():
    rng = np.random.default_rng(0)
    targets = rng.random(400) < 0.3
    found = np.round(rng.normal(size=400) + targets, 1)  # with ties
    alarms, hits, _ = roc_curve(targets, found)
    grid = np.linspace(0, 1, 200_001)
    crossing = grid[np.argmin(np.abs(1 - grid - np.interp(grid, alarms, hits)))]
    assert get_metric("eer").compute(list(found), list(targets)) == pytest.approx(100 * crossing, abs=1e-2)
    assert get_metric("eer").compute([-each for each in found], list(targets)) > 50


def test_xvector_equals_the_published_head():
    """Stored values of s3prl 0.4.18: vectors, their cosines and the loss, of four utterances in one batch."""
    if not ORACLE.is_file():
        pytest.skip(f"{ORACLE} is not here")
    known = {name: torch.from_numpy(value) for name, value in np.load(ORACLE).items()}
    head = XVector(FeatureShape(40, 320), IdentityLabels(tuple("abcdef")), XVectorOptions(24, 24, 60))
    state = {"voices": known["W"]}
    for ours, theirs in (("projector", "connector"), ("segment", "linear1"), ("hidden", "linear2")):
        theirs = theirs if ours == "projector" else f"model.utterancelevel_feature_extractor.{theirs}"
        state |= {f"{ours}.{part}": known[f"{theirs}.{part}"] for part in ("weight", "bias")}
    for place, layer in enumerate(head.layers):
        theirs = f"model.framelevel_feature_extractor.module.{place}.kernel"
        weight = known[f"{theirs}.weight"]
        state[f"layers.{place}.weight"] = weight.unflatten(1, (layer.kernel_size[0], -1)).transpose(1, 2)
        state[f"layers.{place}.bias"] = known[f"{theirs}.bias"]
    head.load_state_dict(state)
    vectors = head(known["x"], known["lens"])
    torch.testing.assert_close(vectors, known["embedding"], atol=1e-4, rtol=1e-5)
    pairs = [(first, second) for first in range(4) for second in range(4)]
    cosines = torch.tensor(scores("cosine", head.predict(vectors, known["lens"]), pairs)).reshape(4, 4)
    torch.testing.assert_close(cosines.float(), known["cosine"], atol=1e-6, rtol=1e-6)
    loss = head.loss(vectors, known["lens"], known["labels"][:, None])
    torch.testing.assert_close(loss, known["loss"], atol=1e-4, rtol=1e-6)


def test_xvector_has_the_published_parameters():
    labels = IdentityLabels(tuple(f"{n:04}" for n in range(1211)))
    with torch.device("meta"):
        head = XVector(FeatureShape(768, 320), labels, XVectorOptions())
    assert sum(parameter.numel() for parameter in head.parameters()) == 6_730_204
    assert head.voices.numel() == 620_032


def test_voices_that_train_lacks_add_nothing_to_the_loss():
    torch.manual_seed(0)
    head = XVector(FeatureShape(6, 160), IdentityLabels(("anna", "ben")), XVectorOptions(8, 8, 8))
    vectors, lengths = torch.randn(3, 8).abs(), torch.tensor([20, 20, 20])
    targets = [head.labels.encode(name) for name in ("anna", "cleo", "ben")]
    expected = head.loss(vectors[[0, 2]], lengths[[0, 2]], [targets[0], targets[2]])
    assert head.loss(vectors, lengths, targets).item() == pytest.approx(expected.item())
    assert head.loss(vectors[[1]], lengths[[1]], [targets[1]]).item() == 0


@pytest.mark.parametrize("frames", [1, 3, 15, 16, 17])
def test_the_shortest_utterances_have_a_vector(frames):
    head = XVector(FeatureShape(6, 160), IdentityLabels(("anna", "ben")), XVectorOptions(8, 8, 8, frame_samples=320))
    features = torch.randn(1, frames, 6)
    alone = head(features, torch.tensor([frames]))
    longer = torch.cat([features, 100 * torch.randn(1, 30, 6)], dim=1)
    torch.testing.assert_close(alone, head(longer, torch.tensor([frames])))
    assert torch.isfinite(alone).all()


SMALL = {"projector_size": 16, "size": 16, "pooled_size": 16}


@pytest.fixture(scope="module")
def ran(corpus, tmp_path_factory) -> tuple[Path, list]:
    folder = tmp_path_factory.mktemp("verified")
    recipe = Recipe("fast", 20, 8, (1e-2, 1e-3), 10, head=SMALL)
    task = replace(TASKS.get("asv"), recipes={"fast": recipe}, audio={})
    folders = Folders(folder / "cache", folder / "results")
    grid = Grid(("fbank", "mfcc"), (task,), (0, 1))
    report = run_grid(grid, corpus, folders, LocalExecutor("cpu", 1))
    assert (report.failures, report.computed) == ([], 4)
    assert report.passed == {"fbank": 48, "mfcc": 48}, "each recording once, however many trials name it"
    assert run_grid(grid, corpus, folders, LocalExecutor("cpu", 1)).computed == 0
    return folder, RecordStore(folders.results).all()


def test_a_run_predicts_every_trial(ran, corpus):
    folder, records = ran
    ids = {row.id: row.labels["voice"] for row in corpus.with_label("speaker_to_verify").split("test")}
    for record in records:
        lines = (folder / "results" / "runs" / record.run[:16] / "predictions.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        assert {frozenset(row["id"].split("|")) for row in rows} == set(map(frozenset, combinations(ids, 2)))
        for row in rows:
            first, second = row["id"].split("|")
            assert row["reference"] is (ids[first] == ids[second])
            assert row["speaker"] == sorted({ids[first], ids[second]}) and -1.001 <= row["prediction"] <= 1.001
        assert record.counts == {"train": 24, "valid": 12, "test": 12, "trials": 66}
        value = get_metric("eer").compute([row["prediction"] for row in rows], [row["reference"] for row in rows])
        assert record.value == value and record.inputs_digest() == record.run
        assert len({each["valid"] for each in record.learning_rates}) >= 1


def test_a_board_shows_it_with_an_interval_over_voices(ran):
    folder, _records = ran
    board = leaderboard(RecordStore(folder / "results"), custom=True).boards[0]
    for row in board.rows:
        cell = row.cells["asv"]
        assert cell.interval is not None and cell.speakers == 2 and cell.interval.low <= cell.mean <= cell.interval.high
        (run,) = [run for run in cell.seeds if run.seed == cell.detection.seed]
        assert cell.detection.equal == pytest.approx(run.value)
        assert cell.detection.targets + cell.detection.others == 66
    results = fb.load(folder / "results", custom=True)
    assert len(results.predictions()) == 4 * 66 and len(results.runs()) == 4
    assert verify(RecordStore(folder / "results")) == []


def test_predict_compares_recordings_two_by_two(ran, corpus):
    """As the run did, and accepts them from the score on at which its test has as many errors of both kinds."""
    folder, records = ran
    files = {row.id: row.path for row in corpus.with_label("speaker_to_verify").split("test")}
    record = records[0]
    run = ("--run", record.run[:16], "--output", folder / "results", "--device", "cpu")
    rows = [
        json.loads(line)
        for line in (folder / "results" / "runs" / record.run[:16] / "predictions.jsonl").read_text().splitlines()
    ]
    named = [files[name] for row in rows for name in row["id"].split("|")]
    told = json.loads(call("predict", "--json", *run, *named).out)["predictions"]
    assert [each["files"] for each in told[:2]] == [[*map(str, named[:2])], [*map(str, named[2:4])]]
    assert [each["prediction"]["score"] for each in told] == pytest.approx([row["prediction"] for row in rows])
    accepted = np.array([each["prediction"]["answer"] == "accept" for each in told])
    target = np.array([row["reference"] for row in rows])
    alarms, misses = accepted[~target].mean(), (~accepted[target]).mean()
    assert min(alarms, misses) <= record.value / 100 <= max(alarms, misses)
    assert len({each["prediction"]["threshold"] for each in told}) == 1
    table = call("predict", *run, *named[:2]).out
    assert "score: " in table and ("accept" in table or "reject" in table)
    given = fb.predict(named[:2], record.run[:16], output=folder / "results", device="cpu")
    assert given == [pytest.approx(told[0]["prediction"])]
    for count, said in ((1, "but 1 is named"), (3, "but 3 are named")):
        refused = call("predict", *run, *named[:count])
        assert refused.code == 2 and refused.err.count("\n") == 1
        assert f"asv compares recordings two by two, {said}: name another one" in refused.err


def test_predict_takes_out_the_pauses_that_the_run_took_out(corpus, tmp_path):
    task = TASKS.get("asv")
    recipe = replace(task.recipe("fast"), steps=2, eval_every=2, head=SMALL)
    task = replace(task, recipes={"fast": recipe}, audio={"fast": AudioRecipe(trim=Trim(level=0.05, seconds=0.02))})
    folders = Folders(tmp_path / "cache", tmp_path / "results")
    assert run_grid(Grid(("fbank",), (task,), (0,)), corpus, folders, LocalExecutor("cpu", 1)).failures == []
    (record,) = RecordStore(folders.results).all()
    whole = {row.id: row for row in corpus.with_label("speaker_to_verify").split("test")}
    shorter = task_rows(corpus, task).recordings["test"]
    assert any(clip.samples < num_samples(clip.path) for clip in shorter), "the tones have quieter parts"
    path = folders.results / "runs" / record.run[:16] / "predictions.jsonl"
    row = json.loads(path.read_text().splitlines()[0])
    files = [whole[name].path for name in row["id"].split("|")]
    (told,) = fb.predict(files, record.run, output=folders.results, device="cpu")
    assert told["score"] == pytest.approx(row["prediction"])


def test_a_run_on_another_machine_accepts_nothing_it_can_not_know(ran):
    """Of a metric that judges no scores there is no threshold."""
    folder, records = ran
    store = RecordStore(folder / "results")
    assert threshold_of(store, records[0]) is not None
    assert threshold_of(store, replace(records[0], values={"accuracy": 50.0})) is None
    assert threshold_of(store, replace(records[0], task={**records[0].task, "scorer": None})) is None


def test_the_threshold_of_equal_errors():
    """Two of three targets above it, one of three others: 1/3 both; of ties all are accepted together."""
    known = [(0.9, 1), (0.8, 0), (0.7, 1), (0.6, 1), (0.5, 0), (0.4, 0)]
    assert equal_error_threshold(np.array(known)) == 0.7
    assert equal_error_threshold(np.array([(0.5, 1), (0.5, 0), (0.2, 0)])) == 0.5
    assert equal_error_threshold(np.array([(0.9, 1), (0.1, 0)])) == 0.9


def test_verify_counts_trials(ran, tmp_path):
    folder, records = ran
    shutil.copytree(folder / "results", tmp_path / "results")
    store = RecordStore(tmp_path / "results")
    fewer = replace(records[0], counts={**records[0].counts, "trials": 65})
    store.path(fewer.run).write_text(json.dumps(fewer.sealed()))
    assert any("counts 65 trials, predictions.jsonl has 66" in str(found) for found in verify(store))


def test_kept_rows_know_their_trials(corpus, tmp_path):
    rows = task_rows(corpus, TASKS.get("asv"))
    again = read_rows(rows.kept_in(tmp_path).path)
    assert again.trials == rows.trials and again.digest == rows.digest
    listed = replace(
        corpus,
        utterances=tuple(
            replace(row, labels={**row.labels, "trials": ["test_6_1", "test_7_1"]}) if row.id == "test_6_0" else row
            for row in corpus.utterances
        ),
    )
    fewer = task_rows(listed, TASKS.get("asv"))
    assert len(fewer.trials["test"]) == 2 and len(fewer.trials["valid"]) == 66 and fewer.digest != rows.digest
    assert len(task_rows(listed, TASKS.get("ks")).trials) == 0
