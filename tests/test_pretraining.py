"""Pretraining: losses fall, checkpoints come back as they were, and unfit ones are refused."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from core.errors import BenchmarkError, CheckpointError, ContractError, TrainingError, UnknownNameError
from core.lengths import pad
from core.manifest import Manifest
from upstreams import _checkpoint
from upstreams._base import UPSTREAMS, PretrainRecipe
from upstreams._pretraining import Pretraining, is_done, planned, pretrain
from upstreams._resolve import build_upstream
from upstreams.generative.apc import APC, APCConfig
from upstreams.generative.mockingjay import Mockingjay, MockingjayConfig, mask_runs, sinusoids

SMALL = {
    "apc": APCConfig(num_layers=2, hidden_size=32),
    "mockingjay": MockingjayConfig(num_layers=2, hidden_size=32, num_heads=2, feedforward_size=64),
}
RECIPE = PretrainRecipe(steps=60, batch_seconds=6, learning_rate=3e-3)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A size of half a second."""
    for upstream, name in ((APC, "apc"), (Mockingjay, "mockingjay")):
        monkeypatch.setattr(upstream, "sizes", {**upstream.sizes, "small": SMALL[name]})
        monkeypatch.setattr(upstream, "recipes", {**upstream.recipes, "small": RECIPE})


def curve(path) -> list[float]:
    return _checkpoint.read_metadata(path)["notes"]["loss_curve"]


@pytest.mark.parametrize("name", ["apc", "mockingjay"])
def test_the_loss_falls_and_the_checkpoint_comes_back(name, corpus, tmp_path):
    path, steps = tmp_path / f"{name}.safetensors", []
    what = planned(name, "small")
    loss = pretrain(what, corpus, path, "cpu", advance=steps.append)
    losses = curve(path)
    assert len(losses) == 3  # the mean of every 20 updates
    assert sum(steps) == 60
    assert losses[-1] == pytest.approx(loss, abs=1e-5)
    assert losses[-1] < 0.9 * losses[0]
    built = build_upstream(f"{name}@{path}")
    assert built.configuration() == asdict(SMALL[name])
    stored = load_file(path)
    assert set(stored) == set(built.state_dict())
    assert all(torch.equal(stored[key], value) for key, value in built.state_dict().items())
    assert built.digest() == build_upstream(f"{name}@{path}").digest()
    assert is_done(path, what, corpus)
    pretrain(what, corpus, tmp_path / "again", "cpu")
    assert all(torch.equal(value, stored[key]) for key, value in load_file(tmp_path / "again").items())
    pretrain(replace(what, seed=1), corpus, tmp_path / "other", "cpu")
    assert not all(torch.equal(value, stored[key]) for key, value in load_file(tmp_path / "other").items())


@pytest.mark.parametrize("name", ["apc", "mockingjay"])
def test_the_loss_does_not_see_padding(name):
    upstream = build_upstream(name).eval()
    wavs = [torch.randn(9_000), torch.randn(5_000)]
    padded, lengths = pad(wavs)
    longer = torch.cat([padded, torch.zeros(2, 4_000)], dim=1)
    losses = [upstream.pretrain_loss(wav, lengths, torch.Generator().manual_seed(0)) for wav in (padded, longer)]
    torch.testing.assert_close(losses[0], losses[1])


def test_the_loss_of_a_batch_is_the_mean_over_its_valid_frames():
    upstream = build_upstream("apc").eval()
    wavs = [torch.randn(9_000), torch.randn(5_000)]
    batch = upstream.pretrain_loss(*pad(wavs), torch.Generator())
    alone = [upstream.pretrain_loss(*pad([wav]), torch.Generator()) for wav in wavs]
    frames = [int(upstream.frame_lengths(torch.tensor(len(wav)))) - upstream.config.steps_ahead for wav in wavs]
    expected = sum(loss * count for loss, count in zip(alone, frames, strict=True)) / sum(frames)
    torch.testing.assert_close(batch, expected)


def test_apc_predicts_the_frame_that_comes_n_later():
    """With the network replaced by one that hands its input on, the loss is the distance of frames n apart."""
    upstream = APC(APCConfig(num_layers=1, hidden_size=80, steps_ahead=3, cmvn=False)).eval()
    upstream._layers = lambda mel: (mel,)
    upstream.postnet = torch.nn.Identity()
    wav = torch.randn(4_000)
    mel = upstream._mel_of_one(wav)
    expected = (mel[:-3] - mel[3:]).abs().mean()
    loss = upstream.pretrain_loss(wav[None], torch.tensor([4_000]), torch.Generator())
    torch.testing.assert_close(loss, expected)


def test_another_training_is_not_overwritten(corpus, tmp_path):
    path = tmp_path / "apc.safetensors"
    what = replace(planned("apc", "small"), recipe=replace(RECIPE, steps=1))
    assert not is_done(path, what, corpus)
    pretrain(what, corpus, path, "cpu")
    assert is_done(path, what, corpus)
    part = Manifest(corpus.name, corpus.source, corpus.utterances[1:])
    for other, manifest in ((replace(what, seed=1), corpus), (replace(what, size="tiny"), corpus), (what, part)):
        with pytest.raises(CheckpointError, match="holds a checkpoint of another training; name another --output"):
            is_done(path, other, manifest)


def test_a_loss_that_is_not_finite_stops_with_a_message(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(APC, "pretrain_loss", lambda self, *arguments: self.postnet.bias.sum() * float("nan"))
    with pytest.raises(TrainingError, match=r"pretraining apc: the loss is nan at step 1; lower the learning rate"):
        pretrain(planned("apc", "small"), corpus, tmp_path / "a", "cpu")
    assert list(tmp_path.iterdir()) == []


def test_what_can_not_be_pretrained_is_told():
    with pytest.raises(ContractError, match="'fbank' can't be pretrained here; these can: apc, mockingjay"):
        planned("fbank", "tiny")
    with pytest.raises(UnknownNameError, match="unknown size of apc 'tinny': did you mean 'tiny'"):
        planned("apc", "tinny")
    assert planned("apc", "tiny", steps=7).recipe == replace(APC.recipes["tiny"], steps=7)


def test_recordings_too_short_are_left_out_and_all_of_them_refused(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(APC, "min_samples", 10**6)
    with pytest.raises(BenchmarkError, match="every recording is shorter than 1000000 samples"):
        pretrain(planned("apc", "small"), corpus, tmp_path / "a", "cpu")


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "apc.safetensors"
    _checkpoint.save(path, "apc", asdict(SMALL["apc"]), APC(SMALL["apc"]), {})
    return path


def refused(spec: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        build_upstream(spec)
    assert str(caught.value).split(":")[0] in spec.split("@")[1]


def test_missing_and_damaged_checkpoints_are_refused(checkpoint):
    build_upstream(f"apc@{checkpoint}")
    refused(f"apc@{checkpoint}x", "no such checkpoint; train one with")
    refused(f"apc@{checkpoint.parent}", "no such checkpoint")
    whole = checkpoint.read_bytes()
    for damage in (whole[:-4], whole[: len(whole) // 2], whole[:5], b"", b"PK\x03\x04" + whole):
        checkpoint.write_bytes(damage)
        refused(f"apc@{checkpoint}", "not a readable safetensors file")


def test_checkpoints_of_another_architecture_are_refused(checkpoint):
    refused(f"mockingjay@{checkpoint}", rf"is a checkpoint of 'apc', not of 'mockingjay'; write apc@{checkpoint}")
    tensors, config = load_file(checkpoint), asdict(SMALL["apc"])
    foreign = checkpoint.with_name("foreign.safetensors")
    save_file(tensors, foreign, {"format": "pt"})
    refused(f"apc@{foreign}", r"not a Frostbench checkpoint; its metadata has \['format'\]")
    save_file(tensors, foreign)
    refused(f"apc@{foreign}", "its metadata has nothing")
    for text in ("{", '{"upstream": "apc"}', "[]"):
        save_file(tensors, foreign, {_checkpoint.FORMAT: text})
        refused(f"apc@{foreign}", "metadata is damaged")
    _checkpoint.save(foreign, "apc", config | {"hidden_size": 16}, APC(SMALL["apc"]), {})
    refused(f"apc@{foreign}", "weights do not fit the stored configuration")
    _checkpoint.save(foreign, "apc", config | {"depth": 1}, APC(SMALL["apc"]), {})
    refused(f"apc@{foreign}", "its configuration is not one of 'apc'")


@given(
    lengths=st.lists(st.integers(1, 120), min_size=1, max_size=4),
    proportion=st.floats(0.05, 0.9),
    run=st.integers(1, 12),
    seed=st.integers(0, 1_000),
)
def test_masks_are_runs_of_consecutive_valid_frames(lengths, proportion, run, seed):
    frames = torch.randn(len(lengths), max(lengths) + 3, 4)
    before, valid = frames.clone(), torch.tensor(lengths)
    chosen, altered = mask_runs(frames, valid, proportion, run, torch.Generator().manual_seed(seed))
    again = mask_runs(frames, valid, proportion, run, torch.Generator().manual_seed(seed))
    assert torch.equal(frames, before)
    assert torch.equal(chosen, again[0])
    assert torch.equal(altered, again[1])
    assert torch.equal(altered[~chosen], frames[~chosen])
    for row, length in enumerate(lengths):
        assert not chosen[row, length:].any()
        count = int(chosen[row].sum())
        assert min(run, length) <= count <= max(run, round(length * proportion / run) * run)
        flat = "".join("x" if each else " " for each in chosen[row].tolist())
        assert all(len(piece) >= min(run, length) for piece in flat.split())
        kept = {tuple(frame) for frame in frames[row, :length].tolist()} | {(0.0,) * 4}
        assert all(tuple(frame) in kept for frame in altered[row].tolist()[:length])


def test_of_the_utterances_eight_in_ten_are_zeroed_and_one_is_kept():
    frames = 1 + torch.rand(4_000, 20, 1)
    chosen, altered = mask_runs(frames, torch.full((4_000,), 20), 0.35, 7, torch.Generator().manual_seed(0))
    zeroed = ((altered == 0).squeeze(2) == chosen).all(dim=1)
    kept = (altered == frames).all(dim=1).squeeze(1)
    assert zeroed.float().mean().item() == pytest.approx(0.8, abs=0.03)
    assert kept.float().mean().item() == pytest.approx(0.1, abs=0.03)
    assert not (zeroed & kept).any()


def test_positions_are_sines_and_cosines():
    table = sinusoids(3, 4)
    expected = [[0, 1, 0, 1], [0.841471, 0.540302, 0.01, 0.99995], [0.909297, -0.416147, 0.019999, 0.9998]]
    torch.testing.assert_close(table, torch.tensor(expected), rtol=0, atol=1e-5)


def test_the_published_sizes():
    paper = {name: UPSTREAMS.get(name).sizes["paper"] for name in ("apc", "mockingjay")}
    assert (paper["apc"].num_layers, paper["apc"].hidden_size) == (3, 512)
    assert (paper["mockingjay"].num_layers, paper["mockingjay"].hidden_size) == (12, 768)
    assert all(config.steps_ahead >= 3 for config in APC.sizes.values())
    assert all(config.mask_frames > 1 for config in Mockingjay.sizes.values())


def test_a_plan_differs_where_the_checkpoint_could(corpus):
    what = Pretraining("apc", "small", RECIPE)
    others = [replace(what, seed=1), replace(what, size="tiny"), replace(what, recipe=replace(RECIPE, steps=61))]
    part = Manifest(corpus.name, corpus.source, corpus.utterances[1:])
    digests = {what.digest(corpus), what.digest(part), *(other.digest(corpus) for other in others)}
    assert len(digests) == 5
