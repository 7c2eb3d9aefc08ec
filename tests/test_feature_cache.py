"""The cache: half-written segments do not exist, damaged ones are named, merging takes nothing from anybody."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from core import feature_cache
from core.errors import CacheError
from core.feature_cache import FeatureCache, dequantised, quantised, stored_bytes


def filled(folder: Path) -> FeatureCache:
    cache = FeatureCache(folder, "source", "frames")
    cache.add({"one": np.ones((3, 2, 4), np.float32), "two": np.full((5, 2, 4), 2, np.float32)})
    return cache


def test_half_written_segments_do_not_exist(tmp_path):
    cache = filled(tmp_path)
    (index,) = cache.folder.glob("*.json")
    index.rename(cache.folder / ".writing-abc.json")  # as a kill before the rename leaves it
    (cache.folder / ".writing-def.npy").write_bytes(b"half")
    assert "one" not in FeatureCache(tmp_path, "source", "frames")
    filled(tmp_path)
    assert FeatureCache(tmp_path, "source", "frames").get("two").tolist() == np.full((5, 2, 4), 2).tolist()


def test_the_index_is_written_last(tmp_path, monkeypatch):
    def full(path: Path, value: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("core.feature_cache.write_json", full)
    with pytest.raises(OSError, match="No space left"):
        filled(tmp_path)
    assert len(list(tmp_path.rglob("*.npy"))) == 1
    assert "one" not in FeatureCache(tmp_path, "source", "frames")


def test_damaged_segments_are_named(tmp_path):
    cache = filled(tmp_path)
    (array,) = cache.folder.glob("*.npy")
    (index,) = cache.folder.glob("*.json")
    whole = array.read_bytes()
    for damage in (whole[:-20], whole[:10], b""):
        array.write_bytes(damage)
        with pytest.raises(CacheError, match=rf"{array.name}: damaged .*; delete .* and run again"):
            FeatureCache(tmp_path, "source", "frames").get("one")
    array.write_bytes(whole)
    entries = json.loads(index.read_text())
    index.write_text(json.dumps([*entries, ["three", 4]]))
    with pytest.raises(CacheError, match="0 of 4 rows"):
        FeatureCache(tmp_path, "source", "frames").get("three")
    index.write_text("[[")
    with pytest.raises(CacheError, match=rf"{index.name}: damaged"):
        FeatureCache(tmp_path, "source", "frames")


def test_what_is_not_there_is_told(tmp_path):
    with pytest.raises(CacheError, match="no features of audio abcdef; run the same command again"):
        FeatureCache(tmp_path, "source", "pooled").get("abcdef")


def test_half_precision_overflow_is_refused(tmp_path):
    features = {"loud": np.full((1, 1, 1), 70_000.0, np.float32)}
    message = (
        r"^audio/a.wav: its features hold 7e\+04, float16 holds no more than 6.55e\+04: keep none with --frames rec"
    )
    with pytest.raises(CacheError, match=message):
        FeatureCache(tmp_path, "source", "frames").add(features, {"loud": "audio/a.wav"})
    assert not list(tmp_path.rglob("*.npy"))
    FeatureCache(tmp_path, "source", "pooled").add(features)
    with pytest.raises(CacheError, match=r"^nan: its features hold NaN; look at the upstream's weights$"):
        FeatureCache(tmp_path, "source", "pooled").add({"nan": np.full((1, 1, 1), np.nan, np.float32)})


def test_kinds_and_sources_are_kept_apart(tmp_path):
    cache = FeatureCache(tmp_path, "a" * 40, "pooled")
    cache.add({"key": np.zeros((1, 1, 1), np.float32)})
    assert "key" not in FeatureCache(tmp_path, "b" * 40, "pooled")
    assert "key" not in FeatureCache(tmp_path, "a" * 40, "pooled_normalised")
    other = FeatureCache(tmp_path, "a" * 40, "pooled")
    assert "key" in other
    cache.add({"later": np.zeros((1, 1, 1), np.float32)})
    assert "later" not in other
    other.refresh()
    assert "later" in other


def segments(cache: FeatureCache) -> list[str]:
    return sorted(path.name for path in cache.folder.iterdir())


def grown(folder: Path, kind: str = "pooled", dtype: str | None = None) -> FeatureCache:
    """Three segments, one utterance in two of them."""
    cache = FeatureCache(folder, "source", kind, dtype)
    for number in range(3):
        rows = 1 if kind == "pooled" else 2 + number
        cache.add({f"{number}{half}": np.full((rows, 2, 4), number, np.float32) for half in "ab"})
    cache._write({key: cache._stored(key) for key in ("1a", "0b")})
    return cache


@pytest.mark.parametrize(("kind", "dtype"), [("pooled", None), ("frames", None), ("frames", "int8")])
def test_merging_leaves_one_segment_and_the_same_features(tmp_path, kind, dtype):
    cache = grown(tmp_path, kind, dtype)
    before = {key: cache.get(key).tobytes() for key in cache._slots}
    assert len(segments(cache)) == 8
    cache.merge()
    assert len(segments(cache)) == 2
    for each in (cache, FeatureCache(tmp_path, "source", kind, dtype)):
        assert len(each) == 6
        assert {key: each.get(key).tobytes() for key in before} == before
    names = segments(cache)
    cache.merge()
    assert segments(cache) == names


def test_readers_go_on_while_another_process_merges(tmp_path):
    writer = grown(tmp_path)
    mapped, listed = (FeatureCache(tmp_path, "source", "pooled") for _ in range(2))
    held = mapped.get("2a")
    writer.merge()
    assert held.tolist() == mapped.get("2a").tolist() == [[[2.0] * 4] * 2], "an open map stays readable"
    assert listed.get("1b").tolist() == [[[1.0] * 4] * 2], "what was listed is found in the merged segment"
    with pytest.raises(CacheError, match="no features of audio nowhere"):
        listed.get("nowhere")


@pytest.mark.parametrize("moment", ["array", "index", "removal"])
def test_a_kill_while_merging_loses_nothing(tmp_path, monkeypatch, moment):
    cache = grown(tmp_path)

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    name = {"array": "_save_joined", "index": "write_json", "removal": "_remove"}[moment]
    with monkeypatch.context() as patch:
        patch.setattr(feature_cache, name, killed)
        with pytest.raises(KeyboardInterrupt):
            cache.merge()
    again = FeatureCache(tmp_path, "source", "pooled")
    assert [again.get(f"{number}b")[0, 0, 0] for number in range(3)] == [0, 1, 2]
    again.merge()
    assert [again.get(f"{number}b")[0, 0, 0] for number in range(3)] == [0, 1, 2]
    assert len([path for path in cache.folder.glob("*.json")]) == 1


def test_what_kills_left_behind_goes_after_a_day(tmp_path):
    cache = grown(tmp_path)
    young, old = cache.folder / "young.npy", cache.folder / ".writing-old.npy"
    for path in (young, old):
        path.write_bytes(b"half")
    os.utime(old, (0, time.time() - 1.1 * feature_cache.STALE_SECONDS))
    cache.merge()
    assert young.exists(), "another process may be about to write its index"
    assert not old.exists()


def test_segments_that_hold_nothing_needed_are_dropped(tmp_path):
    cache = grown(tmp_path, "frames")
    cache.drop_segments_without({"2a"})
    assert ("2a" in cache, "2b" in cache, "0a" in cache, "1b" in cache) == (True, True, False, False)
    assert len(segments(cache)) == 2


def test_a_segment_that_is_gone_while_its_index_is_not_is_named(tmp_path):
    cache = filled(tmp_path)
    (array,) = cache.folder.glob("*.npy")
    array.unlink()
    with pytest.raises(CacheError, match="it is gone, its index is not"):
        cache.get("one")


# Eight bits.


def test_eight_bits_are_right_to_half_a_step_of_their_dimension(tmp_path):
    rng = np.random.default_rng(0)
    scales = 10.0 ** rng.uniform(-3, 3, size=(1, 3, 16))  # dimensions that differ a million times, as in transformers
    frames = (rng.normal(size=(40, 3, 16)) * scales).astype(np.float32)
    frames[:, 1, 5] = 0
    cache = FeatureCache(tmp_path, "source", "frames", "int8")
    cache.add({"one": frames, "two": 2 * frames[:7]})
    read = FeatureCache(tmp_path, "source", "frames", "int8")
    for key, expected in (("one", frames), ("two", 2 * frames[:7])):
        found = read.get(key)
        assert (found.dtype, found.shape, read.rows(key)) == (np.float16, expected.shape, len(expected))
        step = np.abs(expected).max(axis=0) / 127
        # Half a step; the scale and the result are rounded to half precision.
        allowed = 0.5 * step * 1.002 + np.abs(expected) * 2e-3 + 1e-7
        assert (np.abs(found.astype(np.float32) - expected) <= allowed).all()
    assert (read.get("one")[:, 1, 5] == 0).all()
    assert read.folder.name == "frames_int8"
    assert "one" not in FeatureCache(tmp_path, "source", "frames")
    (array,) = read.folder.glob("*.npy")
    assert array.stat().st_size - stored_bytes(2, 47, (3, 16), "int8") == 128, "numpy's header"


def test_eight_bits_refuse_what_half_precision_could_not_hold(tmp_path):
    with pytest.raises(CacheError, match="int8 holds no more than"):
        FeatureCache(tmp_path, "source", "frames", "int8").add({"loud": np.full((1, 1, 1), 70_000.0, np.float32)})
    loud = np.full((2, 1, 1), -65_504.0, np.float32)
    assert np.isfinite(dequantised(quantised(loud))).all()


@pytest.mark.parametrize(("kind", "dtype", "rows"), [("pooled", None, 1), ("frames", None, 9), ("frames", "int8", 9)])
def test_the_size_on_disk_is_the_estimated_one(tmp_path, kind, dtype, rows):
    cache = FeatureCache(tmp_path, "source", kind, dtype)
    cache.add({f"{number}": np.zeros((rows, 4, 5), np.float32) for number in range(6)})
    (array,) = cache.folder.glob("*.npy")
    assert array.stat().st_size - 128 == stored_bytes(6, 6 * rows, (4, 5), cache.dtype)
