"""Folds: every value of a key is tested on once, by a head that never saw it; planned, run, recorded, reported."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import pytest
import soundfile
from test_mixtures import MOOD, RATE, sine, write

import frostbench as fb
from core.errors import ManifestError, RecordError
from core.manifest import Manifest, read_manifest
from core.mixtures import Mixture, Source
from core.records import RecordStore
from frostbench.grid.cell_jobs import Folders, run_cell
from frostbench.grid.plan import Grid, make_cells
from frostbench.grid.run import run_grid
from frostbench.jobs.local import LocalExecutor
from leaderboard.aggregate import leaderboard
from leaderboard.verification import verify
from tasks import _checks
from tasks._folds import folds_of, in_fold
from tasks._rows import read_rows, task_rows

FOLDED = replace(MOOD, folds="session", disjoint="session")
SESSIONS = ("s1", "s2", "s3")


@pytest.fixture(scope="module")
def sessions(tmp_path_factory) -> Manifest:
    """Three sessions of different size, all rows in split train, as corpora with folds have them."""
    folder = tmp_path_factory.mktemp("sessions")
    rows = []
    for session, count in zip(SESSIONS, (10, 8, 6), strict=True):
        for number in range(count):
            for name, hertz in (("calm", 200), ("glad", 900), ("wild", 3_000)):
                file = f"{session}_{name}_{number}.wav"
                soundfile.write(folder / file, sine(hertz, 4_800, len(rows)), RATE)
                rows.append({"file_name": file, "split": "train", "mood": name, "session": session, "voice": session})
    return read_manifest(write(folder, rows))


def test_every_row_is_tested_once_and_a_fifth_of_the_others_chooses(sessions):
    assert folds_of(sessions, FOLDED) == list(SESSIONS)
    assert folds_of(sessions, MOOD) == [None]
    tested = []
    for fold, others in zip(SESSIONS, (42, 48, 54), strict=True):
        rows = task_rows(sessions, FOLDED, fold=fold)
        assert rows.fold == fold
        ids = {split: {row.id for row in part} for split, part in rows.examples.items()}
        assert ids["test"] == {row.id for row in sessions.utterances if row.labels["session"] == fold}
        assert (len(ids["train"]), len(ids["valid"])) == (int(0.8 * others), others - int(0.8 * others))
        assert set.union(*ids.values()) == {row.id for row in sessions.utterances}
        tested += ids["test"]
        backwards = replace(sessions, utterances=sessions.utterances[::-1])
        again = {
            split: {row.id for row in part} for split, part in task_rows(backwards, FOLDED, fold=fold).examples.items()
        }
        assert again == ids, "the order of rows does not matter"
    assert sorted(tested) == sorted(row.id for row in sessions.utterances)


def test_each_fold_draws_the_rows_that_choose_anew(sessions):
    drawn = {}
    for fold in SESSIONS:
        others = [row.id for row in sessions.utterances if row.labels["session"] != fold]
        order = sorted(others, key=lambda name, fold=fold: hashlib.sha256(f"{fold}|{name}".encode()).hexdigest())
        drawn[fold] = {row.id for row in in_fold(sessions, FOLDED, fold).split("valid")}
        assert drawn[fold] == set(order[int(0.8 * len(order)) :])
    common = [{name for name in found if name.startswith("s1")} for found in (drawn["s2"], drawn["s3"])]
    assert common[0] and common[0] != common[1]


def test_whatever_a_row_says_of_its_sound_or_label_is_in_every_digest(sessions):
    """Of the corpus, of what a task takes of it, and of what all folds have in common."""

    def digests(manifest: Manifest) -> tuple[object, ...]:
        whole = task_rows(manifest, FOLDED, fold="s1")
        return manifest.digest, whole.digest, whole.divided["undivided"]

    first, *others = sessions.utterances
    elsewhere = others[-1].path
    changed = {
        "audio": replace(first, path=elsewhere),
        "start": replace(first, start=1),
        "stop": replace(first, stop=4_000),
        "id": replace(first, id="other"),
        "label": replace(first, labels={**first.labels, "mood": "wild"}),
        "voice": replace(first, labels={**first.labels, "voice": "s1b"}),
        "mixture": replace(first, mixture=Mixture((Source(first.path), Source(elsewhere)))),
    }
    made = {what: digests(replace(sessions, utterances=(row, *others))) for what, row in changed.items()}
    made["nothing"] = digests(sessions)
    for kind in zip(*made.values(), strict=True):
        assert len(set(kind)) == len(made)


def test_folds_are_refused_by_name_where_rows_lack_them(sessions):
    first, *others = sessions.utterances
    lacking = replace(first, labels={"mood": "calm"})
    with pytest.raises(ManifestError, match=r"'s1_calm_0'\): has no 'session', by which mood is divided"):
        folds_of(replace(sessions, utterances=(lacking, *others)), FOLDED)
    with pytest.raises(ManifestError, match="every row has session 's1', mood needs two"):
        folds_of(replace(sessions, utterances=(first,)), FOLDED)


@pytest.mark.parametrize("check", _checks.CHECKS, ids=lambda check: check.__name__)
def test_checks_hold_on_every_fold(check, sessions):
    result = _checks.run_check(check, FOLDED, sessions)
    assert (result.check, result.error) == (check.__name__, None)


def test_a_fold_that_breaks_a_promise_is_found(sessions):
    odd = replace(sessions.utterances[-1], labels={"mood": "odd", "session": "s3"})
    corpus = replace(sessions, utterances=(*sessions.utterances[:-1], odd))
    error = _checks.run_check(_checks.check_test_labels_occur_in_train, FOLDED, corpus).error
    assert error is not None and "odd" in error


def test_kept_rows_know_their_fold(sessions, tmp_path):
    rows = task_rows(sessions, FOLDED, fold="s2")
    again = read_rows(rows.kept_in(tmp_path).path)
    assert (again.fold, again.examples, again.digest) == ("s2", rows.examples, rows.digest)
    assert in_fold(sessions, MOOD, None) is sessions


@pytest.fixture(scope="module")
def ran(sessions, tmp_path_factory) -> tuple[Path, list]:
    folder = tmp_path_factory.mktemp("ran")
    task = FOLDED
    folders = Folders(folder / "cache", folder / "results")
    grid = Grid(("fbank",), (task,), (0, 1))
    report = run_grid(grid, sessions, folders, LocalExecutor("cpu", 1))
    assert (report.failures, report.computed) == ([], 6)
    assert report.passed == {"fbank": 72}, "each recording once for all folds"
    again = run_grid(grid, sessions, folders, LocalExecutor("cpu", 1))
    assert (again.skipped, again.computed) == (6, 0)
    return folder, RecordStore(folders.results).all()


def test_every_fold_and_seed_is_a_run_of_its_own(ran, sessions):
    folder, records = ran
    assert len({record.run for record in records}) == 6
    assert sorted((record.fold, record.seed) for record in records) == [(s, n) for s in SESSIONS for n in (0, 1)]
    assert {record.counts["test"] for record in records} == {30, 24, 18}
    assert all(record.inputs_digest() == record.run for record in records), "the fold is one of them"
    assert verify(RecordStore(folder / "results")) == []
    names = {cell.name for cell in make_cells(Grid(("fbank",), (FOLDED,), (0,)), sessions).cells}
    assert names == {f"fbank / mood / session {session} / seed 0" for session in SESSIONS}


def test_a_head_of_a_fold_is_the_one_that_is_trained_on_this_fold_alone(ran, sessions, tmp_path):
    folder, records = ran
    heads = set()
    for cell in make_cells(Grid(("fbank",), (FOLDED,), (1,)), sessions).cells:
        here = Folders(folder / "cache", tmp_path)
        run_cell(cell, here, device="cpu", advance=lambda updates: None)
        alone = RecordStore(tmp_path).read(RecordStore(tmp_path).path(cell.run))
        (beside,) = (record for record in records if record.run == cell.run)
        assert alone.result() == beside.result()
        heads.add(alone.artifacts["head.safetensors"])
    assert len(heads) == len(SESSIONS)


def test_predictions_of_all_folds_are_those_of_the_corpus(ran, sessions):
    folder, records = ran
    rows = [
        json.loads(line)
        for record in records
        if record.seed == 0
        for line in (folder / "results" / "runs" / record.run[:16] / "predictions.jsonl").read_text().splitlines()
    ]
    assert sorted(row["id"] for row in rows) == sorted(row.id for row in sessions.utterances)


def test_folds_are_one_cell_of_the_board(ran):
    folder, records = ran
    board = leaderboard(RecordStore(folder / "results")).boards[0]
    assert [column.key for column in board.columns] == ["mood"]
    column, cell = board.columns[0], board.rows[0].cells["mood"]
    by_seed = {seed: mean(record.value for record in records if record.seed == seed) for seed in (0, 1)}
    assert dict(cell.values) == by_seed and cell.mean == mean(by_seed.values()) and cell.std == stdev(by_seed.values())
    assert [(run.seed, run.fold) for run in cell.seeds] == [(seed, fold) for seed in (0, 1) for fold in SESSIONS]
    assert (column.train, column.valid, column.test, cell.utterances) == (38, 10, 72, 72)
    assert sum(count for matrix in cell.confusion for *_, count in matrix.counts) == 2 * 72
    assert cell.interval is not None and cell.interval.low <= cell.mean <= cell.interval.high
    assert column.corpus_digest == records[0].corpus["undivided"] != records[0].corpus["digest"]


def test_folds_in_frames_exports_and_page(ran):
    folder, _records = ran
    results = fb.load(folder / "results")
    cells, runs, predictions = results.cells(), results.runs(), results.predictions()
    assert len(cells) == 1 and tuple(cells.loc[0, ["seeds", "test_utterances"]]) == (2, 72)
    assert sorted(zip(runs["seed"], runs["fold"], strict=True)) == [
        (seed, fold) for seed in (0, 1) for fold in SESSIONS
    ]
    assert predictions.groupby(["seed", "fold"]).size().to_list() == [30, 24, 18] * 2
    assert f"{cells.loc[0, 'mean']:.1f}" in results.to_markdown()
    assert "0: " in results.page(folder / "page.html").read_text(encoding="utf-8")


def test_a_missing_fold_is_named_and_its_seed_has_no_value(ran, tmp_path):
    folder, records = ran
    shutil.copytree(folder / "results", tmp_path / "results")
    store = RecordStore(tmp_path / "results")
    gone = next(record for record in records if (record.seed, record.fold) == (0, "s2"))
    store.path(gone.run).unlink()
    found = leaderboard(store)
    cell = found.boards[0].rows[0].cells["mood"]
    assert list(cell.values) == [1] and cell.mean == mean(record.value for record in records if record.seed == 1)
    assert len(found.left_out) == 2 and all("seed 0: no usable run is tested on s2" in each for each in found.left_out)
    for record in records:
        if (record.seed, record.fold) == (1, "s3"):
            store.path(record.run).unlink()
    with pytest.raises(RecordError, match="no usable run is tested on s3"):
        leaderboard(store)


def test_another_corpus_of_the_name_is_not_joined(ran, sessions, tmp_path):
    """Folds of two corpora never complete each other, although their names and tasks are the same."""
    folder, _records = ran
    shutil.copytree(folder / "results", tmp_path / "results")
    other = replace(sessions, utterances=sessions.utterances[1:])
    grid = Grid(("fbank",), (FOLDED,), (0,))
    assert run_grid(grid, other, Folders(folder / "cache", tmp_path / "results"), LocalExecutor("cpu", 1)).computed == 3
    boards = leaderboard(RecordStore(tmp_path / "results")).boards
    assert [sorted(board.rows[0].cells["mood"].values) for board in boards] in ([[0], [0, 1]], [[0, 1], [0]])
    assert {board.columns[0].test for board in boards} == {71, 72}


def test_verify_finds_a_fold_that_its_corpus_lacks(ran, tmp_path):
    folder, records = ran
    shutil.copytree(folder / "results", tmp_path / "results")
    store = RecordStore(tmp_path / "results")
    first = records[0]
    fewer = replace(first, corpus={**first.corpus, "folds": [each for each in SESSIONS if each != first.fold]})
    store.path(first.run).write_text(json.dumps(fewer.sealed()))
    assert any("is none of its corpus's folds" in str(found) for found in verify(store))
