"""What may not be written to or read: a warm cache serves all the same, and all else is said in one line."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import call
from results import add, classified, upstream

from core.feature_cache import FeatureCache
from core.records import RecordStore
from frostbench.cache_overlay import overlay_of
from frostbench.cache_space import _held

NOBODY = 65_534
if os.name != "posix":
    pytest.skip("permissions of folders are those of POSIX", allow_module_level=True)


@contextlib.contextmanager
def as_another_user() -> Iterator[None]:
    """Root may read and write anywhere, so it is another user meanwhile. What Python imports has to be there before."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@contextlib.contextmanager
def without_permission(folder: Path) -> Iterator[None]:
    """Nothing below a folder can be written to."""
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        with as_another_user():
            yield
    finally:
        for path in paths:
            path.chmod(0o755 if path.is_dir() else 0o644)


@contextlib.contextmanager
def unreadable(path: Path) -> Iterator[None]:
    mode = path.stat().st_mode
    path.chmod(0)
    try:
        with as_another_user():
            yield
    finally:
        path.chmod(mode)


@pytest.fixture
def place(corpus_folder) -> Iterator[Path]:
    """A folder that every user can read, with the corpus, and one for results that every user can write to."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        place.chmod(0o755)
        shutil.copytree(corpus_folder, place / "corpus")
        for name in ("results", "others"):
            (place / name).mkdir()
            (place / name).chmod(0o777)
        yield place


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def command(place: Path, tasks_file: Path, *more: object, results: str = "results") -> list[object]:
    folders = ("--output", place / results, "--cache", place / "cache", "--workers", 1)
    return ["run", "--upstream", "fbank", "--corpus", place / "corpus", *folders, "--task", f"{tasks_file}:KS", *more]


def test_a_warm_read_only_cache_is_used(place, tasks_file, monkeypatch):
    assert call(*command(place, tasks_file)).code == 0
    before, left = files(place / "cache"), set(Path(tempfile.gettempdir()).glob("frostbench-cache-*"))
    with without_permission(place / "cache"):
        called = call(*command(place, tasks_file, "--seed", 1, results="others"))
    assert (called.code, "1 cells computed" in called.out) == (0, True), called.err
    assert files(place / "cache") == before
    assert set(Path(tempfile.gettempdir()).glob("frostbench-cache-*")) == left, "the overlay is gone"
    # The same as with a cache of one's own.
    assert call(*command(place, tasks_file, "--seed", 1)).code == 0
    (there,) = RecordStore(place / "others").all()
    here = RecordStore(place / "results")
    assert here.read(here.path(there.run)).result_digest() == there.result_digest()


def test_one_that_lacks_features_is_refused_before_the_work(place, tasks_file):
    assert call(*command(place, tasks_file)).code == 0
    with without_permission(place / "cache"):
        called = call(*command(place, tasks_file, "--upstream", "mfcc", results="others"))
    assert called.code == 2
    (line,) = called.err.strip().splitlines()
    words = "nothing can be written there, and it lacks features of mfcc ("
    assert line.startswith(f"error: {place / 'cache'}: {words}")
    assert line.endswith("name another folder with --cache")
    assert RecordStore(place / "others").all() == []


def test_several_segments_stay_as_they_are(place, tasks_file):
    """Merging them would copy all features into the temporary folder."""
    assert call(*command(place, tasks_file)).code == 0
    (entry,) = (place / "cache").glob("[0-9a-f]" * 32 + "/pooled")
    cache = FeatureCache(place / "cache", entry.parent.name, "pooled")
    key = next(iter(cache._slots))
    cache.add({"another": cache.get(key).copy()})
    before = files(place / "cache")
    with without_permission(place / "cache"), overlay_of(place / "cache") as shown:
        FeatureCache(shown, entry.parent.name, "pooled").merge()
        assert all(path.is_symlink() for path in (shown / entry.parent.name / "pooled").iterdir())
    assert files(place / "cache") == before


@pytest.mark.parametrize("marked", [True, False])
def test_locks_are_held_where_nothing_can_be_written(place, marked):
    entry = place / "cache" / ("0" * 32) / "pooled"
    entry.mkdir(parents=True)
    if marked:
        with _held(entry):
            pass
    with without_permission(place / "cache"), _held(entry):
        pass
    assert (entry / ".used").exists() is marked


def test_a_cache_that_can_be_written_to_is_used_itself(place):
    (place / "cache").mkdir()
    for folder in (place / "cache", place / "absent"):
        with overlay_of(folder) as shown:
            assert shown is None
    with without_permission(place / "cache"), overlay_of(place / "cache") as shown:
        assert shown is not None


@pytest.fixture
def results(place) -> Path:
    """Two records with their files, readable for everybody."""
    store = RecordStore(place / "results")
    for name in ("apc", "fbank"):
        add(store, classified([1, 0, 1, 1], 2), upstream=upstream(name))
    for path in store.folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return store.folder


@pytest.mark.parametrize("what", ["record", "predictions"])
def test_a_record_that_can_t_be_read_is_left_out(results, what):
    record = RecordStore(results).all()[0].run[:16]
    path = results / (f"records/{record}.json" if what == "record" else f"runs/{record}/predictions.jsonl")
    report = ("report", "--output", results, "--format", "csv")
    whole, _ = call(*report), call("verify", "--output", results)
    with unreadable(path):
        called, verified = call(*report), call("verify", "--output", results)
    assert (called.code, called.err) == (0, f"left out: {path}: can't be read (Permission denied)\n")
    assert len(whole.out.splitlines()) - len(called.out.splitlines()) == 1
    assert (verified.code, verified.err.splitlines()[0]) == (1, f"{path}: can't be read (Permission denied)")


READS = {
    "audio/train_0_0.wav": ("prepare", "{}/corpus", "--cache", "{}/others"),
    "metadata.jsonl": ("prepare", "{}/corpus", "--cache", "{}/others"),
    "audio": ("prepare", "{}/corpus", "--cache", "{}/others"),
    "own.py": ("check", "{}/corpus/own.py:x"),
    "model.safetensors": ("check", "apc@{}/corpus/model.safetensors"),
    ".": ("prepare", "{}/corpus", "--cache", "{}/others"),
}


@pytest.mark.parametrize("name", READS)
def test_what_can_t_be_read_is_said_in_one_line(place, name):
    (place / "corpus" / "own.py").write_text("x = 1")
    (place / "corpus" / "model.safetensors").write_bytes(bytes(100))
    command = [each.replace("{}", str(place)) for each in READS[name]]
    call(*command)  # whatever is imported for it
    with unreadable(place / "corpus" / name):
        called = call(*command)
    assert called.code == 2
    assert "Traceback" not in called.err
    first, *rows = called.err.strip().splitlines()
    assert first.startswith("error: ")
    assert all(row.startswith("  ") for row in rows)
    assert "Permission denied" in called.err
    assert "space" not in called.err
