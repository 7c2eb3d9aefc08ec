"""Phonemes, slots and speech elsewhere from end to end: a run, its records, its board, and what `predict` says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import call

from core.metrics import get_metric
from core.records import RecordStore
from frostbench.grid.cell_jobs import Folders
from frostbench.grid.plan import Grid
from frostbench.grid.run import run_grid
from frostbench.jobs.local import LocalExecutor
from leaderboard.aggregate import leaderboard
from leaderboard.verification import verify
from tasks._base import TASKS, Task

NAMES = ("pr", "sf", "ood_asr")
PHONES = {"B AA", "D IY", "G OW"}


def short(name: str) -> Task:
    """A registered task whose fast recipe takes seconds on tones; its kind of head and symbols stay."""
    fast = TASKS.get(name).recipe("fast")
    head = {**fast.head, "projector_size": 32, "lstm_size": 32, "dropout": 0.0}
    recipe = replace(fast, steps=300, batch_size=8, learning_rates=(5e-3,), eval_every=75, head=head)
    return replace(TASKS.get(name), recipes={"fast": recipe})


@pytest.fixture(scope="module")
def ran(corpus, tmp_path_factory) -> tuple[Path, dict]:
    """The folder of results, and the record of each task."""
    folder = tmp_path_factory.mktemp("texts")
    folders = Folders(folder / "cache", folder / "results")
    grid = Grid(("fbank",), tuple(map(short, NAMES)), (0,))
    report = run_grid(grid, corpus, folders, LocalExecutor("cpu", 1))
    assert (report.failures, report.computed) == ([], len(NAMES))
    assert report.passed == {"fbank": 48}, "each recording once for all tasks"
    return folder / "results", {record.task["name"]: record for record in RecordStore(folders.results).all()}


def rows_of(results: Path, record) -> list[dict]:
    lines = (results / "runs" / record.run[:16] / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_every_metric_is_that_of_the_stored_predictions(ran):
    results, records = ran
    for name in NAMES:
        record, rows = records[name], rows_of(results, records[name])
        assert [metric["name"] for metric in record.metrics] == list(TASKS.get(name).metrics)
        assert record.task["select"] == TASKS.get(name).selecting
        for metric in record.values:
            value = get_metric(metric).compute([row["prediction"] for row in rows], [row["reference"] for row in rows])
            assert value == record.values[metric]
    assert verify(RecordStore(results)) == []


def test_tones_are_recognised(ran):
    """Phonemes, one frame at a time, by no more than their tones; slots by what comes before."""
    _, records = ran
    assert records["pr"].value < 70 and records["ood_asr"].values["cer"] < 40
    assert records["sf"].value > 60


def test_predictions_are_phones_marked_slots_and_text(ran, corpus):
    results, records = ran
    row = next(row for row in corpus.with_label("text").split("test"))
    said = {
        name: json.loads(
            call(
                "predict", "--json", "--output", results, "--run", records[name].run[:16], "--device", "cpu", row.path
            ).out
        )["predictions"][0]["prediction"]
        for name in NAMES
    }
    stored = {
        name: {each["id"]: each["prediction"] for each in rows_of(results, records[name])}[row.id] for name in NAMES
    }
    assert said == stored
    assert set(said["pr"].split()) <= {phone for both in PHONES for phone in both.split()}
    assert "B-" not in said["ood_asr"]


def test_the_board_has_all_columns_and_what_went_most_wrong(ran):
    results, records = ran
    (board,) = leaderboard(RecordStore(results), custom=True).boards
    assert [column.key for column in board.columns] == ["ood_asr", "ood_asr cer", "pr", "sf", "sf slot_value_cer"]
    cells = board.rows[0].cells
    for name in NAMES:
        assert cells[name].mean == records[name].value and cells[name].speakers == 2
    assert all(mistake.alignment for mistake in cells["pr"].worst) and cells["pr"].worst
    html = results.parent / "page.html"
    assert call("report", "--output", results, "--custom", "--html", html).code == 0
    page = html.read_text(encoding="utf-8")
    assert all(TASKS.get(name).title in page for name in NAMES)
