"""verify finds and names whatever was changed; merge and submit take nothing that does not hold."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from conftest import call
from results import WER, add, classified, rows_of, upstream

from core.digest import digest_of, file_digest, write_json
from core.errors import RecordError
from core.records import RecordStore, ResultRecord, read_stored
from leaderboard.bundles import Merged, merge, submit
from leaderboard.verification import strays, verify


def fill(folder: Path) -> RecordStore:
    """Two upstreams of three layers, two tasks, two seeds of one cell."""
    store = RecordStore(folder)
    for name in ("apc", "fbank"):
        add(store, classified([1, 0, 1, 1], 2), upstream=upstream(name, layers=3))
    add(store, classified([1, 0, 0, 1], 2), seed=1, upstream=upstream("apc", layers=3))
    add(store, rows_of([("a cat", "the cat"), ("dog", "dog")]), WER, upstream=upstream("apc", layers=3))
    return store


@pytest.fixture
def store(tmp_path) -> RecordStore:
    return fill(tmp_path / "results")


def found(store: RecordStore) -> dict[str, str]:
    """File -> what is wrong with it."""
    findings: dict[str, str] = {}
    for finding in verify(store):
        name = finding.path.relative_to(store.folder).as_posix()
        findings[name] = f"{findings.get(name, '')} {finding.problem}".strip()
    return findings


def first(store: RecordStore) -> tuple[ResultRecord, Path, Path]:
    """A record of the keyword task, its file and its folder."""
    record = next(record for record in store.all() if record.task["name"] == "ks")
    return record, store.path(record.run), store.run_folder(record.run)


def edit(path: Path, change: Callable[[dict], None]) -> None:
    """A value in a record, by hand."""
    content = json.loads(path.read_text())
    change(content)
    write_json(path, content)


def reseal(path: Path, change: Callable[[dict], None]) -> None:
    """A value in a record, and the seal made to fit."""
    edit(path, change)
    content = read_stored(path).content
    write_json(path, {**content, "digest": digest_of(content)})


def flip_byte(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def rewrite(store: RecordStore, name: str, content: str) -> None:
    """A file beside a record, with the record made to fit its new digest."""
    _, path, folder = first(store)
    (folder / name).write_text(content)
    reseal(path, lambda record: record["artifacts"].update({name: file_digest(folder / name)}))


def test_what_runs_left_holds(store):
    assert found(store) == {}
    assert strays(store) == []


def value(store):
    record, path, _ = first(store)
    other = record.value + 0.1
    reseal(path, lambda record: record.update(value=other, values={"accuracy": other}))
    return path, f"its accuracy is {other}, the predictions give {record.value}"


def value_of_first_metric(store):
    _, path, _ = first(store)
    reseal(path, lambda record: record.update(value=99.0))
    return path, "its metric and value, accuracy 99.0, are not the first of its metrics"


def prediction(store):
    _, _, folder = first(store)
    path = folder / "predictions.jsonl"
    path.write_text(path.read_text().replace('"prediction": "no"', '"prediction": "yes"', 1))
    return path, "its digest is another one"


def prediction_resealed(store):
    _, _, folder = first(store)
    text = (folder / "predictions.jsonl").read_text().replace('"prediction": "no"', '"prediction": "yes"', 1)
    rewrite(store, "predictions.jsonl", text)
    return folder / "predictions.jsonl", "line 2: says accuracy 1/1, it has 0/1"


def byte_of_head(store):
    _, _, folder = first(store)
    flip_byte(folder / "head.safetensors", -1)
    return folder / "head.safetensors", "its digest is another one"


def byte_of_history(store):
    _, _, folder = first(store)
    flip_byte(folder / "history.json", 30)
    return folder / "history.json", "its digest is another one"


def missing(store):
    _, _, folder = first(store)
    (folder / "history.json").unlink()
    return folder / "history.json", "is missing"


def swapped(store):
    runs = {record.upstream["name"]: record.run for record in store.all() if record.task["name"] == "ks"}
    one, other = (store.run_folder(run) / "head.safetensors" for run in runs.values())
    assert one.read_bytes() != other.read_bytes()
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)
    return one, "its digest is another one"


def renamed(store):
    _, path, _ = first(store)
    other = path.with_name(f"{'0' * 16}.json")
    path.rename(other)
    return other, "has another name than its run"


def layer_weight(store):
    _, path, _ = first(store)

    def shift(record: dict) -> None:
        record["layer_weights"][0] += 0.01
        record["layer_weights"][1] -= 0.01

    reseal(path, shift)
    return path, "its layer weights are not those of the trained head"


def learning_rate(store):
    _, path, _ = first(store)
    reseal(path, lambda record: record["learning_rates"][1].update(valid=46.0))
    return path, "learning rate 0.01: says 46.0 at step 20, history.json says otherwise"


def chosen_rate(store):
    _, path, _ = first(store)
    reseal(path, lambda record: record.update(learning_rate=0.01))
    return path, "learning rate 0.01 is not the one that was best on valid"


def counts(store):
    _, path, _ = first(store)
    reseal(path, lambda record: record["counts"].update(test=5))
    return path, "counts 5 test utterances, predictions.jsonl has 4"


def extra_row(store):
    _, path, folder = first(store)
    text = (folder / "predictions.jsonl").read_text()
    rewrite(store, "predictions.jsonl", text + text.splitlines()[0] + "\n")
    return path, "counts 4 test utterances, predictions.jsonl has 5"


def extra_file(store):
    _, _, folder = first(store)
    (folder / "more.txt").write_text("more")
    return folder / "more.txt", "does not belong there"


def seed(store):
    _, path, _ = first(store)
    reseal(path, lambda record: record.update(seed=7))
    return path, "its run is not the digest of the inputs it names"


def upstream_digest(store):
    _, path, _ = first(store)
    reseal(path, lambda record: record["upstream"].update(digest="other"))
    return path, "head.safetensors was trained on another upstream"


def recipe(store):
    _, path, _ = first(store)
    reseal(path, lambda record: record["recipe"].update(steps=30))
    return path, "the digest of its recipe is not that of its fields"


def name_of_upstream(store):
    _, path, _ = first(store)
    edit(path, lambda record: record["upstream"].update(name="wavlm"))
    return path, "was changed after it was written: its digest is another one"


def hardware(store):
    _, path, _ = first(store)
    edit(path, lambda record: record["circumstances"].update(wall_seconds={"train": 0.1}))
    return path, "was changed after it was written: its digest is another one"


def space(store):
    _, path, _ = first(store)
    path.write_text(path.read_text() + " ")
    return path, "it says the same, but in other bytes"


def half(store):
    _, path, _ = first(store)
    path.write_text(path.read_text()[:100])
    return path, "not a result record"


def junk(store):
    _, path, _ = first(store)
    reseal(path, lambda record: record.update(learning_rates="none"))
    return path, "not a whole result record: learning_rates has not what is needed"


def junk_in_recipe(store):
    _, path, _ = first(store)
    reseal(path, lambda record: record["recipe"].update(learning_rates=3))
    return path, "lacks what it should hold"


CORRUPTIONS = (
    value, value_of_first_metric,
    prediction, prediction_resealed, byte_of_head, byte_of_history, missing, swapped, renamed, layer_weight,
    learning_rate, chosen_rate, counts, extra_row, extra_file, seed, upstream_digest, recipe, name_of_upstream,
    hardware, space, half, junk, junk_in_recipe,
)  # fmt: skip


@pytest.mark.parametrize("corrupt", CORRUPTIONS, ids=lambda corrupt: corrupt.__name__)
def test_a_corruption_is_found_and_named(store, corrupt):
    path, problem = corrupt(store)
    findings = found(store)
    assert problem in findings[path.relative_to(store.folder).as_posix()]
    verdict = call("verify", "--output", store.folder)
    assert verdict.code == 1
    assert f"{path}: " in verdict.err
    assert "Traceback" not in verdict.err


def test_every_byte_of_every_file_counts(store):
    """One flipped bit anywhere: whatever it does to the file, the file is named."""
    record, path, folder = first(store)
    for file in (path, *(folder / name for name in record.artifacts)):
        whole = file.read_bytes()
        for place in range(0, len(whole), max(1, len(whole) // 40)):
            flip_byte(file, place)
            assert file.relative_to(store.folder).as_posix() in found(store), f"{file.name}, byte {place}"
            file.write_bytes(whole)
    assert found(store) == {}


def test_the_command_says_so(store, tmp_path):
    good = call("verify", "--output", store.folder)
    assert (good.code, good.out) == (
        0, "4 records: every digest fits and every score follows from its predictions\n",
    )  # fmt: skip
    (store.folder / "runs" / ("f" * 16)).mkdir()
    noted = call("verify", "--output", store.folder)
    assert noted.code == 0
    assert "has no record: an interrupted run" in noted.err
    nothing = call("verify", "--output", tmp_path / "none")
    assert nothing.code == 2
    assert "no records there" in nothing.err


def test_a_submitted_bundle_is_taken_whole(store, tmp_path):
    bundle = tmp_path / "mine.zip"
    packed = call("submit", bundle, "--output", store.folder)
    assert packed.code == 0
    assert f"{bundle}: 4 records" in packed.out
    target = tmp_path / "all"
    merged = call("merge", bundle, "--output", target)
    assert merged.out == f"4 records added, 0 were there; records in {target / 'records'}\n"
    names = [path.relative_to(store.folder) for path in sorted(store.folder.rglob("*")) if path.is_file()]
    assert len(names) == 16
    for name in names:
        assert (target / name).read_bytes() == (store.folder / name).read_bytes()
    again = call("merge", bundle, store.folder, "--output", target)
    assert again.out.startswith("0 records added, 8 were there")
    submit(RecordStore(target), tmp_path / "theirs.zip")
    assert (tmp_path / "theirs.zip").read_bytes() == bundle.read_bytes()


def test_folders_of_several_machines_are_united(store, tmp_path):
    other = RecordStore(tmp_path / "other")
    add(other, classified([0, 0, 0, 1], 2), upstream=upstream("mfcc"))
    assert merge([store.folder, other.folder], RecordStore(tmp_path / "all")) == Merged(5, 0, ())
    assert found(RecordStore(tmp_path / "all")) == {}


def test_the_same_result_made_elsewhere_is_no_contradiction(store, tmp_path):
    other = fill(tmp_path / "other")
    _, path, _ = first(other)
    reseal(path, lambda record: record["circumstances"].update(machine="another"))
    assert merge([other.folder], store) == Merged(0, 4, ())


@pytest.mark.parametrize("into", ["target", "source"])
def test_what_another_machine_measured_is_told_and_ours_is_kept(store, tmp_path, into):
    other = RecordStore(tmp_path / "other")
    record, _, _ = first(store)
    add(other, classified([1, 1, 1, 1], 2), upstream=record.upstream, seed=record.seed)
    add(other, classified([1, 1, 1, 1], 2), upstream=upstream("mfcc"))
    sources, target = ([other.folder], store) if into == "target" else ([store.folder, other.folder], None)
    target = target or RecordStore(tmp_path / "all")
    kept = store.path(record.run).read_bytes()
    merged = merge(sources, target)
    assert (merged.added, merged.known) == ((1, 1) if into == "target" else (5, 1))
    (difference,) = merged.differences
    assert f"run {record.run[:16]} ({record.upstream['name']} / ks / seed {record.seed})" in difference
    assert f"has 100, kept is {record.value:g}; they differ in value (by {100 - record.value:g}), values" in difference
    assert target.path(record.run).read_bytes() == kept
    assert found(target) == {}


def test_the_command_tells_what_differs_and_strict_refuses_it(store, tmp_path):
    other = RecordStore(tmp_path / "other")
    record, _, _ = first(store)
    add(other, classified([1, 1, 1, 1], 2), upstream=record.upstream, seed=record.seed)
    merged = call("merge", other.folder, "--output", store.folder)
    assert (merged.code, merged.out[:30]) == (0, "0 records added, 1 were there;")
    assert f"note: run {record.run[:16]}" in merged.err
    refused = call("merge", other.folder, "--output", store.folder, "--strict")
    assert refused.code == 2
    assert "contradict each other on run" in refused.err


def test_what_follows_from_the_inputs_of_a_run_has_to_agree(store, tmp_path):
    features = {"kind": "pooled", "dtype": "float32", "live": [], "departures": ["another precision"]}
    for change in ({"features": features}, {"corpus": {"name": "other", "digest": "c"}}):
        other = fill(tmp_path / next(iter(change)))
        _, path, _ = first(other)
        reseal(path, lambda record, change=change: record.update(change))
        with pytest.raises(RecordError, match=rf"they differ in {next(iter(change))}\)"):
            merge([other.folder], store)


# Path in a record -> why no other part of it, and no file beside it, says what it has to be.
UNCHECKED = {
    "circumstances": "where and when, and what was measured beside the result: no part of it",
    "corpus.name": "a corpus is what its digest says, wherever it lies and whatever it is called",
    "features.departures": "words about the inputs, which are checked",
    "task.title": "for people",
}


def leaves(value: object, path: str) -> Iterator[str]:
    """Paths of all that a value holds; what is empty is a leaf, too."""
    if isinstance(value, dict) and value:
        for key, each in value.items():
            yield from leaves(each, f"{path}/{key}")
    elif isinstance(value, list) and value:
        for place, each in enumerate(value):
            yield from leaves(each, f"{path}/{place}")
    else:
        yield path


def is_unchecked(leaf: str) -> bool:
    return any(f"{leaf}/".startswith(f"{each.replace('.', '/')}/") for each in UNCHECKED)


def another(value: object) -> object:
    """A value of the same kind; of what is empty, one that is not."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return {"x": 1} if value == {} else ["x"] if value == [] else f"{value}x"


def change_leaf(record: dict, leaf: str) -> None:
    *above, last = leaf.split("/")
    place: Any = record
    for key in above:
        place = place[int(key) if isinstance(place, list) else key]
    key = int(last) if isinstance(place, list) else last
    place[key] = another(place[key])


@pytest.mark.parametrize("field", [field.name for field in fields(ResultRecord)])
@pytest.mark.parametrize("task", ["ks", "asr"])
def test_no_figure_of_a_record_can_be_changed_unseen(store, task, field):
    """Generated from the record, so that a field that is new is checked, or stands above with the reason why not."""
    record = next(record for record in store.all() if record.task["name"] == task)
    path = store.path(record.run)
    whole = path.read_bytes()
    for leaf in leaves(json.loads(whole)[field], field):
        if not is_unchecked(leaf):
            edit(path, lambda content, leaf=leaf: change_leaf(content, leaf))
            content = json.loads(path.read_text())
            del content["digest"]
            write_json(path, {**content, "digest": digest_of(content)})
            assert verify(store), f"{leaf} was changed, and nothing said so"
            path.write_bytes(whole)
    assert verify(store) == []


def test_what_is_unchecked_is_part_of_a_record(store):
    _, path, _ = first(store)
    content = json.loads(path.read_text())
    found_leaves = [leaf for field in content for leaf in leaves(content[field], field) if is_unchecked(leaf)]
    assert {each.replace(".", "/") for each in UNCHECKED if "." in each} <= set(found_leaves)


def test_a_learning_rate_that_its_recipe_has_not_is_found(store):
    """Everywhere at once, in the history as well."""
    _, path, folder = first(store)
    history = json.loads((folder / "history.json").read_text())
    history[0]["learning_rate"] = 7.0
    write_json(folder / "history.json", history)

    def tried(content: dict) -> None:
        content["learning_rates"][0]["learning_rate"] = 7.0
        content["artifacts"]["history.json"] = file_digest(folder / "history.json")

    reseal(path, tried)
    assert "tried the learning rates [7.0], which its recipe does not have" in found(store)[f"records/{path.name}"]


@pytest.mark.parametrize("into", ["target", "source"])
def test_contradictions_are_refused_and_nothing_is_taken(store, tmp_path, into):
    other = RecordStore(tmp_path / "other")
    add(other, classified([1, 1, 1, 1], 2), upstream=upstream("apc", layers=3))
    add(other, classified([1, 1, 1, 1], 2), upstream=upstream("mfcc"))
    sources, target = ([other.folder], store) if into == "target" else ([store.folder, other.folder], None)
    target = target or RecordStore(tmp_path / "all")
    before = [record.run for record in target.all()]
    with pytest.raises(
        RecordError, match=r"contradict each other on run .*apc / ks / seed 0: 100 and 75; they differ in"
    ):
        merge(sources, target, strict=True)
    assert [record.run for record in target.all()] == before


def test_what_does_not_hold_is_neither_packed_nor_taken(store, tmp_path):
    _, _, folder = first(store)
    flip_byte(folder / "head.safetensors", -1)
    with pytest.raises(
        RecordError, match=r"does not hold, nothing is taken from it:\n  runs/.*head.safetensors: is not"
    ):
        submit(store, tmp_path / "mine.zip")
    assert not (tmp_path / "mine.zip").exists()
    with pytest.raises(RecordError, match="does not hold"):
        merge([store.folder], RecordStore(tmp_path / "all"))
    assert RecordStore(tmp_path / "all").all() == []


@pytest.mark.parametrize("name", ["../../evil.json", "/tmp/evil.json", "records/../../evil.json", "notes.txt",
                                  "records/0123456789abcdef.json/x", "runs/0123456789abcdef/head.pt",
                                  "records\\..\\evil.json"])  # fmt: skip
def test_a_bundle_can_write_nothing_but_results(store, tmp_path, name):
    bundle = tmp_path / "mine.zip"
    submit(store, bundle)
    with zipfile.ZipFile(bundle, "a") as archive:
        archive.writestr(name, "evil")
    before = sorted(tmp_path.rglob("*"))
    refused = call("merge", bundle, "--output", tmp_path / "all")
    assert refused.code == 2
    assert "which is no part of a result; it is not taken" in refused.err
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/tmp/evil.json").exists()


def test_a_damaged_bundle_is_refused_in_one_line(store, tmp_path):
    bundle = tmp_path / "mine.zip"
    submit(store, bundle)
    whole = bundle.read_bytes()
    texts = {"half": whole[: len(whole) // 2], "text": b"no bundle", "empty": b"", "flipped": bytearray(whole)}
    texts["flipped"][len(whole) // 2] ^= 255
    for content in texts.values():
        bundle.write_bytes(content)
        refused = call("merge", bundle, "--output", tmp_path / "all")
        assert refused.code == 2
        assert refused.err.startswith("error: ")
    with zipfile.ZipFile(bundle, "w") as archive:
        archive.writestr("records/0123456789abcdef.json", "{}")
    assert "not a result record" in call("merge", bundle, "--output", tmp_path / "all").err
    for missing_one in (tmp_path / "none.zip", tmp_path):
        refused = call("merge", missing_one, "--output", tmp_path / "all")
        assert refused.code == 2
        assert refused.err.count("\n") == 1


def test_an_interrupted_merge_leaves_no_record_without_its_files(store, tmp_path, monkeypatch):
    target = RecordStore(tmp_path / "all")
    copies = []

    def stop(source: Path, target: Path) -> None:
        copies.append(source)
        if len(copies) == 5:
            raise KeyboardInterrupt
        Path(target).write_bytes(Path(source).read_bytes())

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "copyfile", stop)
        merge([store.folder], target)
    assert len(target.all()) == 1
    assert found(target) == {}
    assert merge([store.folder], target) == Merged(3, 1, ())


def test_the_run_is_the_digest_of_what_the_record_names(store):
    record, _, _ = first(store)
    assert record.inputs_digest() == record.run
    assert replace(record, value=1.0, layer_weights=[]).inputs_digest() == record.run
    for change in ({"seed": 5}, {"live": True}, {"protocol": 1}, {"corpus": {"name": "c", "digest": "d"}}):
        assert replace(record, **change).inputs_digest() != record.run
    assert digest_of(record) == json.loads(store.path(record.run).read_text())["digest"]
