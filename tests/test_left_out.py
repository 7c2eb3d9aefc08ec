"""A file that is old, strange or incomplete is left out of a report and named: it neither counts nor stops the rest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import call
from results import add, classified, upstream

import frostbench as fb
from core.digest import digest_of, write_json
from core.errors import RecordError
from core.records import SCHEMA_VERSION, RecordStore
from leaderboard.aggregate import leaderboard
from leaderboard.bundles import merge, submit
from leaderboard.page import page
from leaderboard.tables import to_markdown
from leaderboard.verification import verify


@pytest.fixture
def store(tmp_path) -> RecordStore:
    """Two upstreams on one task, a seed each."""
    store = RecordStore(tmp_path / "results")
    for name in ("apc", "fbank"):
        add(store, classified([1, 0, 1, 1], 2), upstream=upstream(name))
    return store


def resealed(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    del content["digest"]
    change(content)
    write_json(path, {**content, "digest": digest_of(content)})


def of(store: RecordStore, name: str) -> Path:
    return next(store.path(each.run) for each in store.all() if each.upstream["name"] == name)


@pytest.mark.parametrize("named", ["{} (1).json", "{} - Copy.json", "Copy of {}.json", "{}.sync-conflict-20261126.json",
                                   "{} (conflicted copy 2026-11-26).json"])  # fmt: skip
def test_a_copy_of_a_sync_client_is_no_further_seed(store, named):
    path = of(store, "apc")
    copy = path.with_name(named.format(path.stem))
    shutil.copy(path, copy)
    called = call("report", "--output", store.folder, "--format", "csv")
    assert called.code == 0
    assert [line.split(",")[5:8] for line in called.out.splitlines()[1:]] == [["75.0000", "", "1"]] * 2
    assert called.err == f"left out: {copy}: a copy of {path.name}, which is there as well; delete it\n"
    assert fb.load(store.folder).runs()["seed"].tolist() == [0, 0]
    assert [finding.path for finding in verify(store)] == [copy]
    assert call("verify", "--output", store.folder).code == 1


def test_a_record_under_another_name_is_named_with_its_own(store):
    path = of(store, "apc")
    path.rename(path.with_name("best.json"))
    (line,) = leaderboard(store).left_out
    assert line == f"{path.with_name('best.json')}: has another name than its run; rename it {path.name}"


def cut(path: Path) -> None:
    path.write_text(path.read_text()[:200])


def changed(path: Path) -> None:
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))


def newer(path: Path) -> None:
    resealed(path, lambda record: record.update(schema_version=SCHEMA_VERSION + 1))


def without_name(path: Path) -> None:
    resealed(path, lambda record: record["upstream"].pop("name"))


def not_a_number(path: Path) -> None:
    resealed(path, lambda record: record["values"].update(accuracy=float("nan")))


def foreign_predictions(path: Path) -> None:
    (path.parent.parent / "runs" / path.stem / "predictions.jsonl").write_text("{}\n")


def half_a_sign(path: Path) -> None:
    path.write_text(path.read_text().replace('"title": "Keyword', '"title": "\\ud800Keyword'))


@pytest.mark.parametrize("damage", [half_a_sign, cut, changed, newer, without_name, not_a_number, foreign_predictions])
def test_the_others_are_reported(store, damage, tmp_path, caplog):
    path = of(store, "apc")
    damage(path)
    board = leaderboard(store)
    assert [row.name for row in board.boards[0].rows] == ["fbank"]
    (line,) = board.left_out
    assert path.stem in line
    for how in ("table", "markdown", "csv", "json", "latex"):
        called = call("report", "--output", store.folder, "--format", how, "--html", tmp_path / "page.html")
        assert called.code == 0
        assert called.err.startswith(f"left out: {line}\n")
    assert f"Left out: <bdi>{line.split()[0]}" in page(board)
    assert f"\nLeft out: {line.split()[0]}" in to_markdown(board)
    caplog.clear()
    results = fb.load(store.folder)
    assert results.board.left_out == (line,)
    if damage is not foreign_predictions:  # which are read when they are asked for
        assert caplog.messages == [f"left out: {line}"]
        assert repr(results).endswith(", 1 files left out>")
    assert verify(store)
    with pytest.raises(RecordError, match="does not hold"):
        submit(store, tmp_path / "bundle.zip")


@pytest.mark.parametrize("damage", [cut, without_name, foreign_predictions])
def test_where_nothing_is_left_the_report_is_refused(store, damage):
    paths = store.paths()
    for path in paths:
        damage(path)
    called = call("report", "--output", store.folder)
    assert (called.code, called.out) == (2, "")
    first, *lines = called.err.splitlines()
    assert first == "error: no usable records:"
    assert [path.stem in line for path, line in zip(paths, lines, strict=True)] == [True, True]


def test_a_copy_is_not_taken_for_the_run_that_predict_asks_for(store):
    path = of(store, "apc")
    shutil.copy(path, path.with_name(f"{path.stem} (1).json"))
    called = call("predict", "x.wav", "--run", path.stem[:6], "--output", store.folder)
    assert "begin with" not in called.err


def test_a_merge_goes_past_strange_files_and_writes_over_none(store, tmp_path):
    target = RecordStore(tmp_path / "all")
    merge([store.folder], target)
    path = target.path(of(store, "apc").stem)
    strange = path.with_name("notes.json")
    strange.write_text("[]")
    assert merge([store.folder], target).known == 2
    cut(path)
    before = path.read_bytes()
    with pytest.raises(RecordError, match=f"{path.name}: damaged, and .* delete it, and merge again"):
        merge([store.folder], target)
    assert path.read_bytes() == before
    path.unlink()
    assert merge([store.folder], target).added == 1


def test_a_run_whose_record_is_damaged_fails_and_the_others_are_shown(corpus_folder, tasks_file, tmp_path):
    command = ("run", "--upstream", "fbank", "--upstream", "mfcc", "--task", f"{tasks_file}:KS", "--corpus",
               corpus_folder, "--output", tmp_path / "results", "--cache", tmp_path / "cache",
               "--workers", 1)  # fmt: skip
    assert call(*command).code == 0
    path = of(RecordStore(tmp_path / "results"), "mfcc")
    cut(path)
    before = path.read_bytes()
    called = call(*command)
    assert called.code == 1
    assert called.err.count(path.name) == 1, "said once"
    assert "not a result record" in called.err
    assert "0 cells computed, 1 were there, 1 failed" in called.out
    assert "fbank" in called.out
    assert path.read_bytes() == before
