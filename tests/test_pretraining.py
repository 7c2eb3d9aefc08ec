"""Pretraining: losses fall, checkpoints come back as they were, and unfit ones are refused."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from small_pretraining import RECIPE, SMALL, plan, small_sizes, weights

from core.errors import CheckpointError, ContractError, TrainingError, UnknownNameError
from core.hidden_states import HiddenStates
from core.lengths import pad, padding_mask
from core.manifest import Manifest
from tasks.corpora._audio_folder import read_audio_folder
from upstreams._base import UPSTREAMS
from upstreams._encoders.mel_transformer import sinusoids
from upstreams._pretraining import checkpoint as checkpoint_module
from upstreams._pretraining.clusters import Clusters
from upstreams._pretraining.contract import TrainingBatch, trainable
from upstreams._pretraining.masks import mask_runs
from upstreams._pretraining.options import parse_options
from upstreams._pretraining.plan import (
    PretrainingSettings,
    is_done,
    planned,
    pretrain,
    summary,
)
from upstreams._resolve import build_upstream
from upstreams.contrastive.wav2vec2 import Wav2Vec2
from upstreams.generative.apc import APC, APCConfig
from upstreams.generative.mockingjay import Mockingjay
from upstreams.predictive.hubert import Hubert

NAMES = ("apc", "mockingjay", "wav2vec2", "hubert")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    small_sizes(monkeypatch)


def prepared(name: str):
    upstream = UPSTREAMS.get(name).from_checkpoint(None)
    upstream.prepare(upstream.recipes["tiny"][-1], 2)
    return upstream.eval()


def loss_of(upstream, wavs: torch.Tensor, lengths: torch.Tensor, seed: int = 0) -> torch.Tensor:
    batch = TrainingBatch(wavs, lengths, torch.arange(len(wavs)))
    return upstream.pretrain_loss(batch, torch.Generator().manual_seed(seed)).loss


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_falls_and_the_checkpoint_comes_back(name, corpus, tmp_path):
    told = []
    what = plan(name)
    notes = pretrain(what, corpus, tmp_path, device="cpu", advance=lambda amount, line="": told.append(amount))
    path = what.checkpoint(tmp_path)
    losses = notes["loss_curve"]
    assert len(losses) == 3  # the mean of every 20 updates
    assert sum(told) == pytest.approx(sum(recipe.steps * recipe.batch_seconds for recipe in what.recipes))
    assert losses[-1] < 0.98 * losses[0]
    assert not (tmp_path / ".training" / path.name).exists()
    built = build_upstream(f"{name}@{path}")
    assert built.digest() == build_upstream(f"{name}@{path}").digest()
    assert is_done(path, what, corpus)
    stored = weights(path)
    pretrain(what, corpus, tmp_path / "again", device="cpu")
    again = weights(what.checkpoint(tmp_path / "again"))
    assert set(again) == set(stored)
    assert all(torch.equal(value, stored[key]) for key, value in again.items())
    other = replace(what, seed=1)
    pretrain(other, corpus, tmp_path / "other", device="cpu")
    different = weights(other.checkpoint(tmp_path / "other"))
    assert not all(torch.equal(value, stored[key]) for key, value in different.items())


@pytest.mark.parametrize("name", ["apc", "mockingjay"])
def test_a_safetensors_file_holds_configuration_and_all_weights(name, corpus, tmp_path):
    what = plan(name, steps=1)
    pretrain(what, corpus, tmp_path, device="cpu")
    path = what.checkpoint(tmp_path)
    built = build_upstream(f"{name}@{path}")
    assert built.configuration() == asdict(SMALL[name])
    stored = load_file(path)
    assert set(stored) == set(built.encoder.state_dict())
    assert all(torch.equal(stored[key], value) for key, value in built.encoder.state_dict().items())


@pytest.mark.parametrize(("name", "head"), [("apc", "postnet"), ("mockingjay", "spec_head")])
def test_a_file_of_before_with_the_prediction_head_in_it_gives_the_same_hidden_states(name, head, tmp_path):
    torch.manual_seed(0)
    upstream = UPSTREAMS.get(name).untrained(SMALL[name]).freeze()
    assert not any(key.startswith(head) for key in upstream.state_dict())
    upstream.save(tmp_path / "new.safetensors", {})
    old = tmp_path / "old.safetensors"
    metadata = {checkpoint_module.FORMAT: json.dumps(checkpoint_module.read_metadata(tmp_path / "new.safetensors"))}
    save_file({**upstream.encoder.state_dict(), f"{head}.weight": torch.ones(3)}, old, metadata)
    loaded = build_upstream(f"{name}@{old}")
    wavs, lengths = torch.randn(2, 9_000), torch.tensor([9_000, 9_000])
    for one, other in zip(upstream.extract(wavs, lengths).layers, loaded.extract(wavs, lengths).layers, strict=True):
        assert torch.equal(one, other)
    assert loaded.digest() == build_upstream(f"{name}@{tmp_path / 'new.safetensors'}").digest()
    assert loaded.num_params() == sum(each.numel() for each in upstream.encoder.parameters())
    save_file({**upstream.encoder.state_dict(), "foreign.weight": torch.ones(3)}, old, metadata)
    refused(f"{name}@{old}", "weights do not fit the settings|of different models")


# Convolutions take what stands behind the end for the zeros that it is: test_generative.py has them alone and together.
CONVOLUTIONAL = {"npc", "vae"}
PADDED = {each.card.name for each in UPSTREAMS if trainable(each) and not each.equal_lengths} - CONVOLUTIONAL


@pytest.mark.parametrize("name", sorted(PADDED))
def test_neither_loss_nor_gradients_see_padding(name):
    """Whatever stands behind the end of the shorter recording, where the network and the loss find it."""
    torch.manual_seed(0)
    upstream = prepared(name)
    wavs, lengths = pad([0.1 * torch.randn(9_000), 0.1 * torch.randn(5_000)])
    clean = upstream.encoder.mel

    def with_garbage(wavs: torch.Tensor, wav_lengths: torch.Tensor, scale: float) -> HiddenStates:
        mel = clean(wavs, wav_lengths)
        behind = padding_mask(mel.lengths, mel.layers[0].shape[1])[:, :, None]
        assert behind.any()
        return HiddenStates(
            (torch.where(behind, scale * torch.randn(mel.layers[0].shape), mel.layers[0]),), mel.lengths
        )

    found = []
    for scale in (0.0, 30.0):
        upstream.encoder.mel = partial(with_garbage, scale=scale)
        upstream.zero_grad()
        loss = torch.stack([loss_of(upstream, wavs, lengths, seed) for seed in range(8)]).mean()
        loss.backward()
        found.append([loss.detach(), *(each.grad.clone() for each in upstream.parameters() if each.grad is not None)])
    assert len(found[0]) > 5
    torch.testing.assert_close(*found)


def test_the_loss_of_a_batch_is_the_mean_over_its_valid_frames():
    upstream = prepared("apc")
    wavs = [torch.randn(9_000), torch.randn(5_000)]
    batch = loss_of(upstream, *pad(wavs))
    alone = [loss_of(upstream, *pad([wav])) for wav in wavs]
    frames = [int(upstream.frame_lengths(torch.tensor(len(wav)))) - upstream.config.steps_ahead for wav in wavs]
    expected = sum(loss * count for loss, count in zip(alone, frames, strict=True)) / sum(frames)
    torch.testing.assert_close(batch, expected)


def test_apc_predicts_the_frame_that_comes_n_later():
    """With the network replaced by one that hands its input on, the loss is the distance of frames n apart."""
    upstream = APC(APCConfig(num_layers=1, hidden_size=80, steps_ahead=3, cmvn=False))
    upstream.prepare(RECIPE, 1)
    upstream.encoder.layers = lambda mel, lengths: (mel,)
    upstream.postnet = torch.nn.Identity()
    wav = torch.randn(4_000)
    mel = upstream.encoder.mel_of_one(wav)
    expected = (mel[:-3] - mel[3:]).abs().mean()
    loss = loss_of(upstream, wav[None], torch.tensor([4_000]))
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("name", ["apc", "wav2vec2"])
def test_another_training_is_not_overwritten(name, corpus, tmp_path):
    what = plan(name, steps=1)
    path = what.checkpoint(tmp_path)
    assert not is_done(path, what, corpus)
    pretrain(what, corpus, tmp_path, device="cpu")
    assert is_done(path, what, corpus)
    part = Manifest(corpus.name, corpus.source, corpus.utterances[1:])
    recipe = replace(what.recipes[0], clip=1.0)
    for other, manifest in ((replace(what, seed=1), corpus), (replace(what, recipes=(recipe,)), corpus), (what, part)):
        with pytest.raises(CheckpointError, match="holds a checkpoint of another training; name another --output"):
            is_done(path, other, manifest)
        with pytest.raises(CheckpointError, match="holds a checkpoint of another training"):
            pretrain(other, manifest, tmp_path, device="cpu")


def test_a_loss_that_is_not_finite_stops_with_a_message(corpus, tmp_path, monkeypatch):
    def broken(self, batch, generator):
        return replace(APC_LOSS(self, batch, generator), loss=self.postnet.bias.sum() * float("nan"))

    APC_LOSS = APC.pretrain_loss  # noqa: N806
    monkeypatch.setattr(APC, "pretrain_loss", broken)
    with pytest.raises(TrainingError, match=r"pretraining apc: the loss is nan at step 1; lower the learning rate"):
        pretrain(plan("apc"), corpus, tmp_path, device="cpu")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file() and "tfevents" not in path.name] == []


def test_what_can_not_be_pretrained_is_told():
    with pytest.raises(
        ContractError, match=r"'fbank' can't be pretrained here; these can: apc, b.*, hubert, .*mockingjay, .*wav2vec2"
    ):
        planned("fbank", "tiny")
    with pytest.raises(UnknownNameError, match="unknown size of apc 'tinny': did you mean 'tiny'"):
        planned("apc", "tinny")
    assert planned("apc", "tiny", steps=7).recipes == (replace(APC.recipes["tiny"][0], steps=7),)


def test_options_change_configuration_and_recipes():
    written = ["num_layers=7", "learning_rate=3e-4", "conv_channels=8,8,8,8,8,8,8", "pre_norm=true", "clusters=60"]
    what = planned("hubert", "base", options=parse_options([*written, "layer=3"]))
    assert (what.config.num_layers, what.config.conv_channels, what.config.pre_norm) == (7, (8,) * 7, True)
    assert [recipe.learning_rate for recipe in what.recipes] == [3e-4, 3e-4]
    assert [(recipe.targets.count, recipe.targets.layer) for recipe in what.recipes] == [(60, None), (60, 3)]
    assert replace(what.config, num_layers=12, conv_channels=(512,) * 7, pre_norm=False) == Hubert.sizes["base"]
    with pytest.raises(UnknownNameError, match="unknown option of apc 'num_layer': did you mean 'num_layers'"):
        planned("apc", "tiny", options={"num_layer": "2"})
    with pytest.raises(ContractError, match="num_layers=two: not a value like 3, which it has now"):
        planned("apc", "tiny", options={"num_layers": "two"})
    with pytest.raises(ContractError, match="residual=1: not a value like True"):
        planned("apc", "tiny", options={"residual": "1"})
    with pytest.raises(ContractError, match="--set num_layers: write it as KEY=VALUE"):
        parse_options(["num_layers"])


@pytest.mark.parametrize(("name", "key", "value", "message"), [
    ("hubert", "num_layers", "4", r"layer 6 can't be clustered, 0 to 4 can: add --set layer=NUMBER"),
    ("hubert", "conv_channels", "8,16", "no such network can be built"),
    ("hubert", "conv_strides", "5,2", "no such network can be built"),
    ("wav2vec2", "hidden_size", "100", "no such network can be built"),
    ("hubert", "clusters", "1", "clusters must be at least 2"),
    ("apc", "micro_batches", "0", "micro_batches must be at least 1"),
    ("apc", "warmup", "1", "warmup must be a proportion below 1"),
    ("apc", "betas", "0.9", "betas must be two proportions below 1"),
    ("apc", "crop_seconds", "0", "crop_seconds must be above 0"),
    ("apc", "steps", "0", "steps must be at least 1"),
    ("apc", "optimiser", "lars", "optimiser must be one of adam, adamw, sgd"),
    ("apc", "schedule", "triangle", "schedule must be one of constant, cosine, linear"),
])  # fmt: skip
def test_options_that_can_not_be_are_refused_before_anything_is_computed(name, key, value, message):
    with pytest.raises(ContractError, match=rf"pretraining {name} with these options: .*{message}"):
        planned(name, "base", options={key: value})


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_another_optimiser_is_another_training(optimiser, corpus, tmp_path):
    what = plan("apc", steps=40, optimiser=optimiser, schedule="constant", learning_rate=3e-3, weight_decay=0.01)
    assert what.digest(corpus) != plan("apc", steps=40).digest(corpus)
    notes = pretrain(what, corpus, tmp_path, device="cpu")
    assert notes["loss_curve"][1] < notes["loss_curve"][0]
    assert notes["figures"]["learning_rate"] == pytest.approx(3e-3)
    other = pretrain(plan("apc", steps=40), corpus, tmp_path / "other", device="cpu")
    assert other["loss_curve"] != notes["loss_curve"]


def test_minutes_are_shared_out_as_the_audio_is():
    first, second = planned("hubert", "base", minutes=65).recipes
    assert (first.minutes, second.minutes) == (pytest.approx(25), pytest.approx(40))  # 250,000 and 400,000 updates


def test_minutes_end_a_training_by_the_clock(corpus, tmp_path):
    what = planned("apc", "small", minutes=0.02)
    notes = pretrain(what, corpus, tmp_path, device="cpu")
    assert 1.2 <= notes["wall_seconds"] < 6
    assert notes["steps"] > 1
    # It has come down by then; of a busy machine's few updates it is the mean over all.
    assert notes["figures"]["learning_rate"] < 0.7 * RECIPE.learning_rate


@pytest.mark.parametrize("name", ["apc", "hubert"])
def test_where_all_recordings_are_too_short_it_says_so(name, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(plan(name).kind, "min_training_samples", 160_000)
    with pytest.raises(TrainingError, match=rf"every recording is shorter than 10\.00 s, what {name} needs"):
        pretrain(plan(name), corpus, tmp_path, device="cpu")


@pytest.mark.parametrize("name", NAMES)
def test_the_shortest_recordings_can_be_trained_on(name, tmp_path):
    shortest = build_upstream(f"{name}@untrained").min_training_samples
    for number in range(12):
        samples = shortest - 1 if number == 5 else shortest
        soundfile.write(tmp_path / f"{number}.wav", 0.1 * np.random.default_rng(number).normal(size=samples), 16_000)
    made = plan(name, steps=2, batch_seconds=shortest / 16_000)
    if name == "hubert":
        made = replace(made, recipes=tuple(replace(r, targets=replace(r.targets, count=2)) for r in made.recipes))
    notes = pretrain(made, read_audio_folder(tmp_path), tmp_path / "out", device="cpu")
    assert notes["audio_seconds"] == pytest.approx(2 * shortest / 16_000, abs=0.06)


def test_the_summary_tells_how_it_went(corpus, tmp_path):
    found = iter([{"ks": 10.0}, {"ks": 30.0}])
    settings = PretrainingSettings(evaluations=2, evaluate=lambda upstream: next(found))
    notes = pretrain(plan("apc"), corpus, tmp_path, settings, device="cpu")
    assert [each["step"] for each in notes["evaluations"]] == [30, 60]
    first, second = summary(Path("apc"), {**notes, "warnings": []})
    assert first.startswith(f"apc: loss {notes['loss_curve'][0]:.3f} -> {notes['loss_curve'][-1]:.3f} in 60 updates")
    assert second == "  ks of mini: 10.0 -> 30.0 %"
    assert summary(Path("apc"), {**notes, "warnings": ["bad: x"]})[-1] == "  WARNING: bad: x"


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "apc.safetensors"
    checkpoint_module.save(path, "apc", asdict(SMALL["apc"]), APC(SMALL["apc"]).encoder, {})
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
        refused(f"apc@{checkpoint}", "not a readable safetensors file|is empty")


def test_checkpoints_of_another_architecture_are_refused(checkpoint):
    refused(f"mockingjay@{checkpoint}", rf"is a checkpoint of 'apc', not of 'mockingjay'; write apc@{checkpoint}")
    tensors, config = load_file(checkpoint), asdict(SMALL["apc"])
    foreign = checkpoint.with_name("foreign.safetensors")
    save_file(tensors, foreign, {"format": "pt"})
    refused(f"apc@{foreign}", r"not a Frostbench checkpoint; its metadata has \['format'\]")
    save_file(tensors, foreign)
    refused(f"apc@{foreign}", "its metadata has nothing")
    for text in ("{", '{"upstream": "apc"}', "[]"):
        save_file(tensors, foreign, {checkpoint_module.FORMAT: text})
        refused(f"apc@{foreign}", "metadata is damaged")
    checkpoint_module.save(foreign, "apc", config | {"hidden_size": 16}, APC(SMALL["apc"]).encoder, {})
    refused(f"apc@{foreign}", "weights do not fit the settings|of different models")
    checkpoint_module.save(foreign, "apc", config | {"depth": 1}, APC(SMALL["apc"]).encoder, {})
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
    base = {name: UPSTREAMS.get(name).sizes["base"] for name in NAMES}
    assert (base["apc"].num_layers, base["apc"].hidden_size) == (3, 512)
    assert (base["mockingjay"].num_layers, base["mockingjay"].hidden_size) == (12, 768)
    assert all(config.steps_ahead >= 3 for config in APC.sizes.values())
    assert all(config.mask_frames > 1 for config in Mockingjay.sizes.values())
    assert (base["wav2vec2"].mask_proportion, base["hubert"].mask_proportion) == (0.65, 0.8)


def test_the_published_parameter_counts():
    """wav2vec 2.0 Base has 95.04 M in SUPERB's table. HuBERT Base has 94.68 M there, 94.70 M with the 504 entries of
    fairseq's dictionary; what both encoders have in common is torchaudio's count and the mask embedding."""
    wav2vec2 = Wav2Vec2(Wav2Vec2.sizes["base"])
    encoder = 94_370_944 + 768
    assert wav2vec2.num_params() == encoder  # what only training needs does not count
    wav2vec2.prepare(Wav2Vec2.recipes["base"][0], 1)
    assert wav2vec2.num_params() == encoder
    assert sum(parameter.numel() for parameter in wav2vec2.parameters()) == 95_044_608
    del wav2vec2
    hubert, recipe = Hubert(Hubert.sizes["base"]), Hubert.recipes["base"][0]
    hubert.prepare(replace(recipe, targets=Clusters(504)), 1)
    assert hubert.num_params() == encoder
    whole = sum(parameter.numel() for parameter in hubert.parameters())
    assert whole == encoder + 768 * 256 + 256 + 504 * 256
    assert whole == pytest.approx(94.68e6, rel=3e-4)


def test_a_plan_differs_where_the_checkpoint_could(corpus):
    what = plan("apc")
    others = [
        replace(what, seed=1),
        replace(what, config=APCConfig(num_layers=2, hidden_size=16)),
        replace(what, recipes=(replace(RECIPE, steps=61),)),
        plan("mockingjay"),
    ]
    part = Manifest(corpus.name, corpus.source, corpus.utterances[1:])
    digests = {what.digest(corpus), what.digest(part), *(other.digest(corpus) for other in others)}
    assert len(digests) == 6


def test_folders_that_are_not_ours_or_damaged_are_refused(corpus, tmp_path):
    what = plan("wav2vec2", steps=1)
    pretrain(what, corpus, tmp_path, device="cpu")
    path = what.checkpoint(tmp_path)
    refused(f"hubert@{path}", "is a checkpoint of 'wav2vec2', not of 'hubert'; write wav2vec2@")
    notes = path / "frostbench.json"
    content = json.loads(notes.read_text())
    for text in ("{", json.dumps({**content, "notes": 1}), "[]"):
        notes.write_text(text)
        with pytest.raises(CheckpointError, match="is damaged"):
            build_upstream(f"wav2vec2@{path}")
    notes.unlink()
    refused(f"wav2vec2@{path}", "holds no frostbench.json, so pretrain did not write it; .* as hf:")
    refused(f"wav2vec2@{tmp_path / 'nowhere'}", "holds no frostbench.json")
