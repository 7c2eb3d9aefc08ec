"""Targets by k-means: a frame of targets a frame of the network, what clusters are worth, and refusals."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.audio import read_audio
from core.errors import TrainingError
from core.manifest import Utterance
from upstreams._pretraining.clusters import Clusters, _mfcc_frames, quality
from upstreams._pretraining.targets import Targets, TargetSource, load_targets, save_targets
from upstreams._resolve import build_upstream
from upstreams.predictive.hubert import Hubert

CPU = torch.device("cpu")


def heard(*wavs: torch.Tensor) -> list[tuple[Utterance, torch.Tensor]]:
    return [(Utterance(str(number), Path(), "train"), wav) for number, wav in enumerate(wavs)]


def made_of(rows, clusters: Clusters, frame: int = 320, previous=None, seed: int = 0) -> Targets:
    return clusters.make(TargetSource(rows, frame, previous, seed, CPU))


@pytest.fixture(scope="module")
def network() -> Hubert:
    return Hubert()


@given(samples=st.integers(400, 6_000))
def test_mfcc_give_a_target_for_every_frame_of_the_network(network, samples):
    frames = _mfcc_frames(network.downsample_rate, centred=False)(heard(torch.randn(samples)))[0]
    assert frames.shape == (int(network.frame_lengths(torch.tensor(samples))), 39)


def test_mfcc_may_be_centred_by_recording():
    wavs = [torch.randn(9_000), torch.randn(5_000)]
    plain, centred = (_mfcc_frames(160, choice)(heard(*wavs)) for choice in (False, True))
    for one, other in zip(plain, centred, strict=True):
        assert one[:, :13].mean(dim=0).abs().max() > 0.1
        torch.testing.assert_close(other[:, :13], one[:, :13] - one[:, :13].mean(dim=0), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(other[:, 13:], one[:, 13:], atol=1e-4, rtol=1e-4)  # derivatives have no mean


def test_every_frame_has_a_cluster_and_the_same_seed_gives_the_same(corpus):
    rows = corpus.split("train")
    made = [made_of(rows, Clusters(12, fit_frames=500), seed=seed) for seed in (0, 0, 1)]
    assert set(made[0].frames) == {row.id for row in rows}
    for row in rows:
        frames = made[0].frames[row.id]
        assert len(frames) == (len(read_audio(row.path)) - 400) // 320 + 1
        assert torch.equal(frames, made[1].frames[row.id])
        assert 0 <= int(frames.min()) <= int(frames.max()) < 12
    assert any(not torch.equal(made[0].frames[row.id], made[2].frames[row.id]) for row in rows)
    # Words are square waves of one tone each, silence between them: clusters tell them apart.
    assert made[0].quality["word_purity"] > made[0].quality["word_chance"] + 0.1


def test_a_layer_of_an_upstream_is_clustered_padded_or_not(corpus):
    """k-means on frames that padding had touched would differ from that on recordings passed one by one."""
    rows = corpus.split("train")[:20]
    upstream = build_upstream("hubert@untrained")
    found = made_of(rows, Clusters(6, layer=1), previous=upstream)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("upstreams._pretraining.clusters.BATCH_SECONDS", 0.0)
        alone = made_of(rows, Clusters(6, layer=1), previous=upstream)
    same = [float((found.frames[row.id] == alone.frames[row.id]).float().mean()) for row in rows]
    assert sum(same) / len(same) > 0.99


@pytest.mark.parametrize(("clusters", "frame", "message"), [
    (Clusters(10**6), 320, "frames can't make 1000000 clusters"),
    (Clusters(5), 200, "frames of 200 samples can't take MFCC as targets"),
    (Clusters(5, layer=9), 320, "layer 9 can't be clustered: the upstream before has layers 0 to 3"),
    (Clusters(5, layer=1), 160, "frames of 320 samples can't be targets of frames of 160"),
])  # fmt: skip
def test_what_can_not_be_clustered_is_refused(clusters, frame, message, corpus):
    previous = None if clusters.layer is None else build_upstream("hubert@untrained")
    with pytest.raises(TrainingError, match=message):
        made_of(corpus.split("train"), clusters, frame, previous)


def test_the_worth_of_clusters_by_hand():
    """Cluster 0 has 3 frames of yes and 1 of no, cluster 2 has 2 of no: 5 of 6 lie where they belong."""
    rows = [
        Utterance("a", Path(), "train", {"keyword": "yes"}),
        Utterance("b", Path(), "train", {"keyword": "no"}),
        Utterance("c", Path(), "train", {}),
    ]
    clusters = {"a": torch.tensor([0, 0, 0]), "b": torch.tensor([0, 2, 2]), "c": torch.tensor([2, 2])}
    found = quality(clusters, rows, 3)
    assert found["used"] == 2
    assert found["perplexity"] == pytest.approx(2.0)  # four frames each
    assert found["word_purity"] == pytest.approx(5 / 6)
    assert found["word_chance"] == pytest.approx(3 / 6)
    uneven = quality({"c": torch.tensor([1, 1, 1, 0])}, rows, 3)
    assert uneven["perplexity"] == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))
    assert "word_purity" not in uneven


def test_targets_come_back_under_their_digest_only(corpus, tmp_path):
    made = made_of(corpus.split("train"), Clusters(5))
    path = tmp_path / "targets.safetensors"
    assert load_targets(path, "one") is None
    save_targets(path, made, "one")
    found = load_targets(path, "one")
    assert found.quality == made.quality
    assert all(torch.equal(found.frames[name], frames) for name, frames in made.frames.items())
    assert load_targets(path, "two") is None
