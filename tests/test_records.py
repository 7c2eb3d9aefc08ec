"""Records: one file a run, never another result under the same name, and nothing that is not a record is read."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from core.errors import RecordError
from core.records import SCHEMA_VERSION, RecordStore, ResultRecord


def record(run: str = "r" * 64, value: float = 50.0, **changes: object) -> ResultRecord:
    """A plain one."""
    made = ResultRecord(
        run=run,
        upstream={"name": "fbank", "digest": "u", "params": 0, "num_layers": 1},
        task=task(),
        corpus={"name": "tiny", "digest": "c"},
        recipe={"name": "fast", "digest": "p"},
        protocol=2,
        live=False,
        frames=None,
        custom=False,
        seed=0,
        metric={"name": "accuracy", "title": "Acc", "unit": "%", "direction": "higher"},
        value=value,
        learning_rate=0.1,
        learning_rates=[],
        counts={"train": 3, "valid": 2, "test": 7},
        layer_weights=[1.0],
        features={},
        artifacts={},
        circumstances={"wall_seconds": {"train": 1.5}, "upstream_spec": "fbank"},
    )
    return replace(made, **changes)


def task(**changes: object) -> dict:
    """As `Task.recorded` tells it."""
    plain = {"name": "ks", "title": "Keyword spotting", "head": "utterance_linear", "default_head": "utterance_linear",
             "label": "keyword", "metric": "accuracy", "version": 1}  # fmt: skip
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
    for change in ({"schema_version": 1}, {"schema_version": SCHEMA_VERSION + 1}, {"more": 1}):
        path.write_text(json.dumps(whole | change))
        with pytest.raises(RecordError, match=r"schema version .* move the old records out"):
            store.all()
    path.write_text(json.dumps(whole | {"value": 50.1}))
    with pytest.raises(RecordError, match="was changed after it was written"):
        store.all()
    path.unlink()
    (path.parent / ".writing-abc.json").write_text("{")
    assert store.all() == []
