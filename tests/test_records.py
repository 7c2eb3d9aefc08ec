"""Records: one file a run, never another result under the same name, and nothing that is not a record is read."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from core.digest import digest_of, file_digest, json_text
from core.errors import RecordError
from core.metrics import get_metric
from core.records import SCHEMA_VERSION, RecordStore, ResultRecord, inputs_digest
from leaderboard.aggregate import leaderboard
from leaderboard.bundles import merge, submit
from leaderboard.tables import to_markdown
from leaderboard.verification import verify

GOLDEN = Path(__file__).parent / "golden" / "records"


def record(run: str = "r" * 64, value: float = 50.0, **changes: object) -> ResultRecord:
    """A plain one; a metric among the changes is the only one."""
    metric = changes.get("metric", get_metric("accuracy").recorded())
    made = ResultRecord(
        run=run,
        upstream={"name": "fbank", "digest": "u", "params": 0, "num_layers": 1},
        task=task(),
        corpus={"name": "tiny", "digest": "c"},
        recipe={"name": "fast", "digest": "p"},
        audio={},
        protocol=2,
        live=False,
        frames=None,
        fold=None,
        custom=False,
        seed=0,
        metrics=[metric],
        metric=metric,
        value=value,
        values={metric["name"]: value},
        learning_rate=0.1,
        learning_rates=[],
        counts={"train": 3, "valid": 2, "test": 7},
        layer_weights=[1.0],
        features={},
        artifacts={},
        circumstances={"wall_seconds": {"train": 1.5}, "upstream_spec": "fbank", "gflops_per_second": 0.5},
    )
    return replace(made, **changes)


def task(**changes: object) -> dict:
    """As `Task.recorded` tells it."""
    plain = {"name": "ks", "title": "Keyword spotting", "head": "utterance_linear", "default_head": "utterance_linear",
             "label": "keyword", "metrics": ["accuracy"], "select": "accuracy", "version": 1, "code": None}  # fmt: skip
    return plain | changes


def test_a_record_is_written_once(tmp_path):
    store = RecordStore(tmp_path)
    assert store.all() == []
    store.add(record())
    store.add(record(circumstances={"wall_seconds": 2}))
    assert store.all() == [record()]
    with pytest.raises(RecordError, match="holds another result of the same run"):
        store.add(record(value=51.0))
    assert store.all() == [record()]
    store.add(record("s" * 64))
    assert [each.run[0] for each in store.all()] == ["r", "s"]


def test_the_result_is_everything_but_the_circumstances():
    one = record()
    assert one.result_digest() == record(circumstances={}).result_digest()
    assert "circumstances" not in one.result()
    assert set(one.result()) | {"circumstances"} == set(asdict(one))
    for change in ({"value": 50.1}, {"seed": 1}, {"custom": True}, {"artifacts": {"head": "x"}}):
        assert record(**change).result_digest() != one.result_digest()


def test_what_is_no_record_is_named(tmp_path):
    store = RecordStore(tmp_path)
    store.add(record())
    path = store.path("r" * 64)
    whole = json.loads(path.read_text())
    for damage in (path.read_text()[:40], "[]", "{}", "null"):
        path.write_text(damage)
        with pytest.raises(RecordError, match=rf"{path.name}: not a result record .* delete it and run the cell again"):
            store.all()
    for change in ({"schema_version": 1}, {"schema_version": 0}, {"schema_version": "3"}, {"more": 1}):
        path.write_text(json.dumps(whole | change))
        with pytest.raises(RecordError, match=rf"{path.name}: not a result record"):
            store.all()
    path.write_text(json.dumps(whole | {"value": 50.1}))
    with pytest.raises(RecordError, match="was changed after it was written"):
        store.all()
    path.unlink()
    (path.parent / ".writing-abc.json").write_text("{")
    assert store.all() == []


def test_a_newer_schema_is_refused_with_the_version_that_reads_it(tmp_path):
    store = RecordStore(tmp_path)
    store.add(record())
    path = store.path("r" * 64)
    newer = json.loads(path.read_text()) | {"schema_version": SCHEMA_VERSION + 1, "more": 1}
    newer["circumstances"]["versions"] = {"frostbench": "7.1.0"}
    path.write_text(json.dumps(newer))
    words = f"has schema {SCHEMA_VERSION + 1}, this program reads schemas up to {SCHEMA_VERSION}: update Frostbench to "
    with pytest.raises(RecordError, match=rf"{words}7\.1\.0 or later$"):
        store.all()
    del newer["circumstances"]["versions"]
    path.write_text(json.dumps(newer))
    with pytest.raises(RecordError, match="update Frostbench to the one that wrote it or later"):
        store.all()


# Written by the program of their time; schema -> run -> metric and value.
OLD = {
    1: {"59eaa9990c579ed9": ("accuracy", 50.0)},
    2: {"d173dc070c910057": ("accuracy", 37.5), "2354686a1f94bd1f": ("wer", 0.0)},
}


@pytest.mark.parametrize("schema", OLD)
def test_records_outlive_their_schema(tmp_path, schema):
    folder = tmp_path / "results"
    shutil.copytree(GOLDEN / f"schema{schema}", folder)
    store = RecordStore(folder)
    for made in store.all():
        content = json.loads(store.path(made.run).read_text())
        assert (content["schema_version"], made.schema_version) == (schema, SCHEMA_VERSION)
        name, value = OLD[schema][made.run[:16]]
        assert (made.metric["name"], made.value, dict(made.values)) == (name, value, {name: value})
        assert made.metric == get_metric(name).recorded()
        assert inputs_digest(content) == made.run
        assert "layer_norms" not in made.features
        assert "gflops_per_second" not in made.upstream
        assert made.circumstances["gflops_per_second"] == content["upstream"].get("gflops_per_second")
    assert {made.run[:16] for made in store.all()} == set(OLD[schema])
    assert verify(store) == []
    board = leaderboard(store)
    cells = {task: cell for row in board.boards[0].rows for task, cell in row.cells.items()}
    assert {cell.mean for cell in cells.values()} == {value for _, value in OLD[schema].values()}
    assert all(cell.interval for cell in cells.values())
    assert "mfcc" in to_markdown(board)
    bundle = tmp_path / "old.zip"
    submit(store, bundle)
    target = RecordStore(tmp_path / "all")
    assert merge([bundle], target).added == len(OLD[schema])
    for run in OLD[schema]:
        assert target.path(run).read_bytes() == store.path(run).read_bytes()


@pytest.mark.parametrize("schema", OLD)
def test_old_records_are_checked_as_they_lie_there(tmp_path, schema):
    folder = tmp_path / "results"
    shutil.copytree(GOLDEN / f"schema{schema}", folder)
    store = RecordStore(folder)
    path = store.path(next(iter(OLD[schema])))
    text = path.read_text()
    path.write_text(text.replace('"seed": 0', '"seed": 1'))
    assert any("its run is not the digest of the inputs it names" in finding.problem for finding in verify(store))
    path.write_text(text.replace(f'"value": {OLD[schema][path.stem][1]}', '"value": 99.0'))
    assert any("99.0" in finding.problem for finding in verify(store))
    if schema > 1:
        with pytest.raises(RecordError, match="was changed after it was written"):
            store.all()


@pytest.mark.parametrize("run", ["59eaa9990c579ed9", "2354686a1f94bd1f"])
def test_an_old_record_is_verified_as_it_was_scored_without_composed_letters(run, tmp_path):
    """One letter typed in two ways was two letters then: the first row gets an error more than it would get today."""
    schema = next(schema for schema, runs in OLD.items() if run in runs)
    shutil.copytree(GOLDEN / f"schema{schema}", tmp_path, dirs_exist_ok=True)
    store = RecordStore(tmp_path)
    file = store.run_folder(run) / "predictions.jsonl"
    first, *others = file.read_text().splitlines()
    row = {**json.loads(first), "prediction": "caf\u00e9 \u00c5"}
    row["reference"] = "cafe\u0301 A\u030a"
    content = json.loads(store.path(run).read_text())
    if schema == 1:
        content["value"] = 37.5  # of eight rows three are right
    else:
        row["errors"] = row["total"] = 2
        content["value"] = 100 * 2 / (2 * len(others) + 2)
    file.write_text("\n".join([json.dumps(row), *others, ""]))
    content["artifacts"]["predictions.jsonl"] = file_digest(file)
    content.pop("digest", None)
    seal = {"digest": digest_of(content)} if schema > 1 else {}
    store.path(run).write_text(json_text({**content, **seal}))
    mine = [finding for finding in verify(store) if run in str(finding.path)]
    assert [finding.problem for finding in mine] == []


def test_old_and_new_records_stand_on_one_board(tmp_path):
    for schema in OLD:
        shutil.copytree(GOLDEN / f"schema{schema}", tmp_path, dirs_exist_ok=True)
    store = RecordStore(tmp_path)
    store.add(record())
    titles = [board.title for board in leaderboard(store).boards]
    assert len(titles) == 3
    names = sorted(title.split("#")[0] for title in titles)
    assert names == ["tiny, recipe fast (protocol 2)", "tiny, recipe tiny", "tiny, recipe tiny (protocol 1)"]
