"""The cache: half-written segments do not exist, damaged ones are named, and each clip passes the upstream once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from core.errors import BenchmarkError, CacheError, ContractError
from core.feature_cache import FeatureCache
from core.hidden_states import HiddenStates
from core.manifest import Manifest
from tasks._base import TASKS
from tasks._plan import clips_of, task_data
from upstreams import _extraction
from upstreams._base import Upstream, UpstreamCard
from upstreams._extraction import Clip, caches_of, extract, lay_out, unfinished

CPU = torch.device("cpu")


class Blocks(Upstream):
    """Sums of 160 samples in two layers; counts what passes, and dies after a number of batches."""

    card = UpstreamCard(name="blocks", title="sums", paper="none")
    num_layers, hidden_size, downsample_rate, min_samples = 2, 3, 160, 160

    def __init__(self, lives: int = 1_000, scale: float = 1.0) -> None:
        super().__init__()
        self.lives, self.scale = lives, scale
        self.passed: list[int] = []

    def frame_lengths(self, wav_lengths):
        return wav_lengths // 160

    def encode(self, wavs, wav_lengths):
        self.lives -= 1
        if self.lives < 0:
            raise RuntimeError("killed")
        self.passed += wav_lengths.tolist()
        sums = wavs[:, : wavs.shape[1] // 160 * 160].unflatten(1, (-1, 160)).sum(dim=2) * self.scale
        layer = torch.stack([sums, sums**2, sums - len(wavs)], dim=2)  # the size of the batch shows
        return HiddenStates((layer, 2 * layer), self.frame_lengths(wav_lengths))


@pytest.fixture
def clips(corpus: Manifest) -> list[Clip]:
    """What KS (pooled) and ASR (frames) want of the corpus."""
    tasks = [TASKS.get(name) for name in ("ks", "sid", "asr")]
    recipes = [task.recipe(None) for task in tasks]
    kinds = ("pooled", "pooled", "frames")
    data = [task_data(corpus, task) for task in tasks]
    return clips_of(zip(data, recipes, kinds, strict=True))


def content(caches, clips) -> dict:
    return {(clip.key, kind): caches[kind].get(clip.key).tobytes() for clip in clips for kind in clip.kinds}


def test_every_clip_passes_the_upstream_once_whatever_is_kept_of_it(clips, corpus, tmp_path):
    assert len(clips) == len(corpus.utterances)
    assert {len(clip.kinds) for clip in clips} == {1, 2}
    upstream, caches = Blocks(), caches_of(tmp_path, "source", ("pooled", "frames"))
    seconds = []
    batches = lay_out(clips, 1)
    assert extract(upstream, batches, caches, CPU, seconds.append) == len(clips)
    assert len(upstream.passed) == len(clips)
    assert sum(seconds) == pytest.approx(sum(upstream.passed) / 16_000)
    assert unfinished(batches, caches_of(tmp_path, "source", ("pooled", "frames"))) == []
    assert extract(upstream, batches, caches, CPU) == 0
    assert len(upstream.passed) == len(clips)
    assert extract(upstream, batches, caches_of(tmp_path, "another", ("pooled", "frames")), CPU) == len(clips)


def test_what_is_kept_is_what_the_upstream_gives(clips, tmp_path):
    caches = caches_of(tmp_path, "source", ("pooled", "frames"))
    extract(Blocks(), lay_out(clips, 1, batch_seconds=0.1), caches, CPU)  # one clip a batch
    clip = next(clip for clip in clips if len(clip.kinds) == 2)
    wav = clip.read()
    states = Blocks().extract(wav[None], torch.tensor([len(wav)]))
    frames = caches["frames"].get(clip.key)
    assert frames.shape == (len(wav) // 160, 2, 3)
    np.testing.assert_array_equal(frames, states.stacked()[0].half().numpy())
    np.testing.assert_array_equal(caches["pooled"].get(clip.key), states.pooled().numpy())


@pytest.mark.parametrize("lives", [1, 3])
def test_an_interrupted_extraction_taken_up_again_gives_the_same_bits(clips, tmp_path, monkeypatch, lives):
    monkeypatch.setattr(_extraction, "FLUSH_SECONDS", 0.0)  # a segment a batch
    batches = lay_out(clips, 1, batch_seconds=5.0)
    assert len(batches) > 4
    straight = caches_of(tmp_path / "straight", "source", ("pooled", "frames"))
    extract(Blocks(), batches, straight, CPU)
    broken = caches_of(tmp_path / "broken", "source", ("pooled", "frames"))
    with pytest.raises(RuntimeError, match="killed"):
        extract(Blocks(lives), batches, broken, CPU)
    again, upstream = caches_of(tmp_path / "broken", "source", ("pooled", "frames")), Blocks()
    left = len(unfinished(batches, again))
    assert left == len(batches) - lives
    extract(upstream, batches, again, CPU)
    assert len(upstream.passed) == sum(len(batch) for batch in batches[lives:])
    assert content(again, clips) == content(straight, clips)


def test_the_order_in_which_clips_are_asked_for_changes_no_bits(clips, tmp_path):
    for name, order in (("forth", clips), ("back", clips[::-1])):
        extract(Blocks(), lay_out(order, 1), caches_of(tmp_path / name, "s", ("pooled", "frames")), CPU)
    forth, back = (caches_of(tmp_path / name, "s", ("pooled", "frames")) for name in ("forth", "back"))
    assert content(forth, clips) == content(back, clips)


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
    with pytest.raises(CacheError, match=r"beyond 65504 or NaN: they can't be kept as float16"):
        FeatureCache(tmp_path, "source", "frames").add(features)
    assert not list(tmp_path.rglob("*.npy"))
    FeatureCache(tmp_path, "source", "pooled").add(features)
    with pytest.raises(CacheError, match="beyond"):
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


def test_a_clip_too_short_and_states_that_are_not_finite_are_named(clips, tmp_path):
    caches = caches_of(tmp_path, "source", ("pooled", "frames"))
    longest = max(clips, key=lambda clip: clip.samples)
    picky = Blocks()
    picky.min_samples = longest.samples + 1
    with pytest.raises(ContractError, match=rf"{longest.path.name}: has \d+ samples .* take the recording out"):
        extract(picky, lay_out([longest], 1), caches, CPU)
    with pytest.raises(BenchmarkError, match=rf"{longest.path.name}: blocks gives hidden states that are NaN"):
        extract(Blocks(scale=float("nan")), lay_out([longest], 1), caches, CPU)
    assert not list(tmp_path.rglob("*.npy"))


def test_pieces_and_levels_have_keys_of_their_own(clips):
    whole = clips[0]
    variants = [whole, *(Clip(whole.audio_digest, whole.path, 0, whole.kinds, *rest) for rest in
                         ((0, 800), (100, None), (100, 800), (0, None, -3.0), (100, 800, -3.0)))]  # fmt: skip
    assert len({clip.key for clip in variants}) == len(variants)
    assert whole.key == whole.audio_digest
    wav = whole.read()
    assert torch.equal(variants[3].read(), wav[100:800])
    torch.testing.assert_close(variants[4].read(), wav * 0.70794578)
