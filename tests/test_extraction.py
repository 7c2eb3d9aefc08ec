"""Extraction: each clip passes the upstream once, in any order to the same bits; long ones pass in pieces."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import call
from hypothesis import given
from hypothesis import strategies as st
from pretrained_files import fairseq_content

from core.audio import read_audio
from core.errors import AudioError, BenchmarkError, ContractError
from core.feature_cache import FeatureCache
from core.hidden_states import HiddenStates
from core.manifest import Manifest
from core.records import RecordStore, ResultRecord
from frostbench.grid import cell as cell_module
from tasks._base import TASKS
from tasks._rows import clips_of, task_rows
from upstreams._base import Upstream, UpstreamCard, full_precision
from upstreams._extraction import clips as clips_module
from upstreams._extraction import fill
from upstreams._extraction.clips import Clip, lay_out, pieces, share_out
from upstreams._extraction.encoding import FrozenUpstream
from upstreams._extraction.fill import caches_of, extract, unfinished
from upstreams._extraction.reading import AHEAD_SECONDS, Read, read_ahead
from upstreams._facts import UpstreamFacts
from upstreams._resolve import build_upstream

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
    clips = [task_rows(corpus, task).all_clips() for task in tasks]
    return clips_of(zip(clips, ("pooled", "pooled", "frames"), strict=True))


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
    monkeypatch.setattr(fill, "FLUSH_SECONDS", 0.0)  # a segment a batch
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


# Very long recordings.


class Windows(Upstream):
    """Overlapping windows of 400 samples, or windows of a second of its own."""

    card = UpstreamCard(name="windows", title="sums", paper="none")
    num_layers, hidden_size, downsample_rate, min_samples = 2, 2, 160, 400

    def frame_lengths(self, wav_lengths):
        return (wav_lengths - 400) // 160 + 1

    def encode(self, wavs, wav_lengths):
        windows = wavs.unfold(1, 400, 160)  # (batch, frames, 400)
        layer = torch.stack([windows.sum(dim=2), windows.abs().amax(dim=2)], dim=2)
        return HiddenStates((layer, layer.square()), self.frame_lengths(wav_lengths))


def hubert(folder: Path) -> Upstream:
    torch.save(fairseq_content(), folder / "hubert.pt")
    return build_upstream(f"s3prl-ckpt:{folder / 'hubert.pt'}")


def rows_of_one(upstream: Upstream, wav: torch.Tensor) -> dict:
    clip = Clip("digest", Path("long.wav"), len(wav), frozenset())
    kept = FrozenUpstream(upstream, CPU).rows([clip], [wav], ("frames", "pooled", "pooled_normalised"))
    return {kind: rows[0] for kind, rows in kept.items()}


@pytest.mark.parametrize("samples", [16_001, 24_000, 52_345, 160_000])
@pytest.mark.parametrize("upstream", [Blocks(), Windows()], ids=lambda upstream: upstream.card.name)
def test_frames_in_pieces_are_those_of_the_whole(upstream, samples, monkeypatch):
    wav = torch.randn(samples, generator=torch.Generator().manual_seed(0))
    whole = rows_of_one(upstream, wav)
    monkeypatch.setattr(clips_module, "LONGEST_SECONDS", 0.5)
    in_pieces = rows_of_one(upstream, wav)
    assert torch.equal(in_pieces["frames"], whole["frames"])
    for kind in ("pooled", "pooled_normalised"):
        torch.testing.assert_close(in_pieces[kind], whole[kind])


@pytest.mark.parametrize("spec", ["fbank", "apc@untrained", "mockingjay@untrained", "hubert"])
def test_there_are_as_many_frames_in_pieces_as_in_the_whole(spec, tmp_path, monkeypatch):
    upstream = hubert(tmp_path) if spec == "hubert" else build_upstream(spec)
    monkeypatch.setattr(clips_module, "LONGEST_SECONDS", 0.5)
    for samples in (16_001, 19_999, 31_234):
        wav = torch.randn(samples, generator=torch.Generator().manual_seed(0))
        expected = int(upstream.frame_lengths(torch.tensor(samples)))
        assert len(rows_of_one(upstream, wav)["frames"]) == expected


class Gaps(Blocks):
    """Says that 160 samples are enough for a frame, and gives the first one for 320."""

    def frame_lengths(self, wav_lengths: torch.Tensor) -> torch.Tensor:
        return (wav_lengths // 160 - 1).clamp(min=1)

    def encode(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> HiddenStates:
        states = super().encode(wavs, wav_lengths)
        lengths = self.frame_lengths(wav_lengths)
        return HiddenStates(tuple(layer[:, : int(lengths.max())] for layer in states.layers), lengths)


def test_pieces_that_lack_frames_are_refused_and_not_joined(monkeypatch):
    monkeypatch.setattr(clips_module, "LONGEST_SECONDS", 0.5)
    with pytest.raises(ContractError, match=r"gives 33 frames for 5440 samples, must be 34 or more, .* has gaps"):
        rows_of_one(Gaps(), torch.zeros(16_320))


def test_no_pass_is_longer_than_a_piece(monkeypatch):
    monkeypatch.setattr(clips_module, "LONGEST_SECONDS", 0.5)
    upstream = Blocks()
    rows_of_one(upstream, torch.zeros(50_000))
    assert len(upstream.passed) == 7
    assert max(upstream.passed) <= 8_000


@given(st.integers(640_001, 500_000_000), st.sampled_from([160, 320, 480_000]))
def test_pieces_cover_a_clip_in_nearly_equal_parts(samples, unit):
    cuts = pieces(samples, unit, overlap=80)
    starts = [cut.start for cut in cuts]
    assert starts[0] == 0 and cuts[-1].stop == samples + 80
    assert all(start % unit == 0 for start in starts)
    assert all(one.stop - 80 == other.start for one, other in pairwise(cuts))
    lengths = [cut.stop - 80 - cut.start for cut in cuts]
    assert max(lengths) <= 640_000 + unit
    assert unit > 320 or min(lengths) >= 319_000


# Reading.


def write_recordings(folder: Path) -> dict[str, Path]:
    rng = np.random.default_rng(0)
    wav = np.clip(rng.normal(0, 0.1, (32_000, 2)), -1, 1)
    made = {}
    for name, rate, channels, subtype in (
        ("pcm.wav", 16_000, 1, "PCM_16"), ("float.wav", 16_000, 2, "FLOAT"), ("pcm.flac", 16_000, 1, "PCM_16"),
        ("ulaw.au", 16_000, 1, "ULAW"), ("vorbis.ogg", 16_000, 1, "VORBIS"), ("opus.ogg", 16_000, 1, "OPUS"),
        ("adpcm.wav", 16_000, 1, "IMA_ADPCM"), ("low.wav", 8_000, 1, "PCM_16"),
        ("mp3.mp3", 16_000, 1, "MPEG_LAYER_III"),
    ):  # fmt: skip
        made[name] = folder / name
        soundfile.write(made[name], wav[:, :channels], rate, subtype=subtype)
    return made


def test_a_piece_is_that_part_of_the_whole_bit_for_bit(tmp_path):
    for name, path in write_recordings(tmp_path).items():
        whole = read_audio(path)
        for start, stop in ((0, 1_000), (12_345, 20_000), (20_000, None), (0, None), (31_000, 10**9), (10**9, None)):
            assert torch.equal(read_audio(path, start, stop), whole[start:stop]), (name, start, stop)


def test_of_a_piece_nothing_else_is_read_where_seeking_is_exact(tmp_path, monkeypatch):
    recordings = write_recordings(tmp_path)
    asked = []
    plain = soundfile.SoundFile.read
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda self, out: asked.append(len(out)) or plain(self, out=out))
    for name in ("pcm.wav", "pcm.flac", "vorbis.ogg", "adpcm.wav", "low.wav"):
        read_audio(recordings[name], 8_000, 9_000)
    whole = [soundfile.info(recordings[name]).frames for name in ("vorbis.ogg", "adpcm.wav", "low.wav")]
    assert asked == [1_000, 1_000, *whole]


def counting_clips(count: int, seconds: float) -> tuple[list[list[Clip]], list[str], Read]:
    read: list[str] = []
    lock = threading.Lock()

    def wait_and_read(clip: Clip, sample_rate: int) -> torch.Tensor:
        time.sleep(0.002 * (int(clip.audio_digest) % 3))
        with lock:
            read.append(clip.audio_digest)
        return torch.full((10,), float(clip.audio_digest))

    clips = [Clip(str(number), Path("x"), int(seconds * 16_000), frozenset()) for number in range(count)]
    return [clips[start : start + 4] for start in range(0, count, 4)], read, wait_and_read


def test_clips_are_read_ahead_in_order_and_within_a_bound():
    batches, read, waiting = counting_clips(80, seconds=4)
    most = 0
    for number, (batch, wavs) in enumerate(read_ahead(batches, read=waiting)):
        assert batch == batches[number]
        assert [wav[0].item() for wav in wavs] == [float(clip.audio_digest) for clip in batch]
        if number == 0:
            time.sleep(0.05)
            assert len(read) > 8, "the next ones are read while this one is worked on"
        most = max(most, len(read) - 4 * number)
    assert number == 19
    assert most <= AHEAD_SECONDS / 4 + 8


def test_one_batch_above_the_bound_is_still_read():
    batches, _, waiting = counting_clips(8, seconds=1_000)
    assert [batch for batch, _ in read_ahead(batches, read=waiting)] == batches


def test_the_batch_after_one_above_the_bound_is_read_while_that_is_worked_on():
    batches, read, waiting = counting_clips(12, seconds=1_000)  # as those for a GPU
    for number, _ in enumerate(read_ahead(batches, read=waiting)):
        time.sleep(0.05)
        assert len(read) == min(12, 4 * (number + 2)), "that one, and no more"


def test_a_recording_that_can_not_be_read_stops_the_extraction(clips, tmp_path):
    gone = replace(clips[0], path=tmp_path / "gone.wav")
    with pytest.raises(AudioError, match=r"gone.wav: no such file"):
        extract(Blocks(), [[gone]], caches_of(tmp_path, "source", ("pooled", "frames")), CPU)


def test_no_more_than_a_bound_waits_to_be_written(clips, tmp_path, monkeypatch):
    monkeypatch.setattr(fill, "FLUSH_BYTES", 10_000)
    written: list[int] = []
    plain = FeatureCache.add

    def add(cache: FeatureCache, arrays: dict, names: dict) -> None:
        written.append(sum(array.nbytes for array in arrays.values()))
        plain(cache, arrays, names)

    monkeypatch.setattr(FeatureCache, "add", add)
    batches = lay_out(clips, 1, batch_seconds=2.0)
    caches = caches_of(tmp_path, "source", ("pooled", "frames"))
    extract(Blocks(), batches, caches, CPU)
    assert len(written) > 8
    largest = max(len(batch) * max(clip.samples for clip in batch) // 160 * 24 for batch in batches)
    assert max(written) <= 10_000 + largest


# Dealing out.


def test_shares_are_even_and_lose_nothing(clips):
    batches = lay_out(clips, 1, batch_seconds=1.0)
    shares = share_out(batches, 3)
    assert sorted(map(id, batches)) == sorted(id(batch) for share in shares for batch in share)
    seconds = [sum(max(clip.samples for clip in batch) * len(batch) for batch in share) for share in shares]
    assert max(seconds) - min(seconds) <= 16_000
    assert len(share_out(batches[:2], 8)) == 2, "no empty shares"


def test_batches_that_a_gpu_takes_together_lose_nothing(clips):
    long = replace(clips[0], samples=50 * 16_000)
    batches = lay_out([long, *clips[1:]], 1, batch_seconds=1.0)
    together = fill._together(batches, 4)
    assert [clip for batch in together for clip in batch] == [clip for batch in batches for clip in batch]
    assert together[0] == [long]
    assert len(together) == 1 + -(-(len(batches) - 1) // 4)


# Precision.


class Product(Windows):
    """A matrix product, and one that must not be cut short."""

    def encode(self, wavs, wav_lengths):
        windows = wavs.unfold(1, 400, 160)
        weights = torch.linspace(-1, 1, 800).reshape(400, 2)
        with full_precision(wavs):
            exact = windows @ weights
        return HiddenStates((windows @ weights, exact), self.frame_lengths(wav_lengths))


def test_bfloat16_is_for_products_inside_encode_alone():
    wav = torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([16_000])
    whole = Product().extract(wav, lengths)
    cut = Product().extract(wav, lengths, "bfloat16")
    assert {layer.dtype for layer in cut.layers} == {torch.float32}
    assert 1e-3 < (cut.layers[0] - whole.layers[0]).abs().max() < 0.3
    assert torch.equal(cut.layers[1], whole.layers[1])


@pytest.mark.parametrize(
    ("spec", "largest"),
    [("fbank", 0), ("mfcc", 0), ("apc@untrained", 0.05), ("mockingjay@untrained", 0.1), ("hubert", 0.1)],
)
def test_bfloat16_reaches_networks_but_not_spectral_front_ends(spec, largest, tmp_path):
    upstream = hubert(tmp_path) if spec == "hubert" else build_upstream(spec)
    wavs = 0.1 * torch.randn(2, 16_000, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([16_000, 9_000])
    whole, cut = upstream.extract(wavs, lengths), upstream.extract(wavs, lengths, "bfloat16")
    scale = max(float(layer.abs().max()) for layer in whole.layers)
    worst = max(float((one - other).abs().max()) for one, other in zip(whole.layers, cut.layers, strict=True)) / scale
    assert worst <= largest
    assert (worst > 0) == (largest > 0)


def test_another_precision_is_another_upstream():
    upstream = build_upstream("fbank")
    whole, cut = (UpstreamFacts.of("fbank", upstream, precision) for precision in ("float32", "bfloat16"))
    assert whole.digest == upstream.digest() != cut.digest
    assert (whole.name, cut.name) == ("fbank", "fbank (bfloat16)")
    assert cut.recorded()["precision"] == "bfloat16"
    assert not {"spec", "batch_seconds", "window_samples", "extra_frames"} & set(cut.recorded())


@pytest.mark.parametrize("spec", ["fbank", "apc@untrained", "hubert"])
def test_the_number_of_frames_is_foretold(spec, tmp_path):
    upstream = hubert(tmp_path) if spec == "hubert" else build_upstream(spec)
    facts = UpstreamFacts.of(spec, upstream)
    lengths = torch.from_numpy(np.random.default_rng(0).integers(8_000, 200_000, 2_000))
    foretold = float(lengths.sum()) / facts.downsample_rate + facts.extra_frames * len(lengths)
    assert foretold == pytest.approx(int(upstream.frame_lengths(lengths).sum()), rel=2e-4)


# To the record.


def records_of(folder: Path, *more: object) -> list[ResultRecord]:
    ran = call(
        "run", "--workers", 1, "--device", "cpu", "--cache", folder / "cache", "--output", folder / "results", *more
    )
    assert (ran.code, "failed" in ran.err) == (0, False), ran.err
    return RecordStore(folder / "results").all()


def test_results_of_two_precisions_are_never_mixed(corpus_folder, tasks_file, tmp_path):
    cell = ("--upstream", "apc@untrained", "--task", f"{tasks_file}:KS", "--corpus", corpus_folder)
    (whole,) = records_of(tmp_path, *cell)
    records = records_of(tmp_path, *cell, "--precision", "bfloat16")
    (cut,) = [record for record in records if record.run != whole.run]
    assert cut.features["departures"] == ["the upstream computed in bfloat16"]
    assert (whole.upstream["precision"], cut.upstream["precision"]) == ("float32", "bfloat16")
    assert cut.upstream["digest"] != whole.upstream["digest"]
    assert len(list((tmp_path / "cache").glob("*/pooled"))) == 2
    rows = call("report", "--custom", "--output", tmp_path / "results", "--format", "csv").out.splitlines()
    assert sorted(row.split(",")[0] for row in rows[1:]) == ["apc (untrained)", "apc (untrained) (bfloat16)"]


def test_another_precision_than_these_is_refused(tmp_path):
    told = call("run", "--upstream", "fbank", "--task", "ks", "--precision", "float8", "--cache", tmp_path)
    assert told.code == 2
    assert "'float8' is not one of" in told.err


def test_recordings_in_pieces_are_told_in_the_record(corpus_folder, corpus, tasks_file, tmp_path, monkeypatch):
    for module in (clips_module, cell_module):
        monkeypatch.setattr(module, "LONGEST_SECONDS", 0.4)
    (record,) = records_of(tmp_path, "--upstream", "fbank", "--task", f"{tasks_file}:KS", "--corpus", corpus_folder)
    rows = corpus.with_label("keyword").utterances
    long = sum(len(read_audio(row.path)) > 6_400 for row in rows)
    assert 0 < long < len(rows)
    assert record.features["departures"] == [f"{long} recordings above 0.4 s passed the upstream in pieces"]
