"""wav2vec 2.0 and HuBERT: their losses against slow ones, their masks, and folders that plain transformers loads."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from small_pretraining import plan, small_sizes
from torch.nn import functional

from core.errors import ContractError
from upstreams._encoders.waveform import numpy_seeded
from upstreams._pretraining.contract import TrainingBatch
from upstreams._pretraining.plan import pretrain
from upstreams._resolve import build_upstream

PLAIN = """
import json, sys, torch, transformers
folder, out = sys.argv[1:]
model = transformers.AutoModel.from_pretrained(folder).eval()
extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
wav = torch.load(out + ".in", weights_only=True)
inputs = extractor(wav.numpy(), sampling_rate=16000, return_tensors="pt")
with torch.no_grad():
    made = model(**inputs, output_hidden_states=True)
torch.save([*made.hidden_states[:-1], made.last_hidden_state], out)
assert not any(name.startswith(("core", "upstreams")) for name in sys.modules)
"""


@pytest.fixture(autouse=True)
def small(monkeypatch):
    small_sizes(monkeypatch)


def untrained(name: str, seed: int = 0, **changes):
    what = plan(name)
    torch.manual_seed(seed)
    return what.kind.untrained(what.config, what.recipes[0]).train()


def batch(step: int = 1, targets: bool = False) -> TrainingBatch:
    wavs = torch.randn(3, 9_000, generator=torch.Generator().manual_seed(5))
    frames = (9_000 - 400) // 320 + 1
    found = [torch.arange(frames) % 10 for _ in range(3)] if targets else None
    return TrainingBatch(wavs, torch.tensor([9_000] * 3), found, step)


@pytest.mark.parametrize("name", ["wav2vec2", "hubert"])
def test_a_trained_folder_gives_plain_transformers_the_same_hidden_states(name, corpus, tmp_path):
    what = plan(name, steps=10)
    pretrain(what, corpus, tmp_path, device="cpu")
    path = what.checkpoint(tmp_path)
    wav = torch.randn(12_345, generator=torch.Generator().manual_seed(1))
    torch.save(wav, tmp_path / "states.in")
    script = tmp_path / "plain.py"
    script.write_text(PLAIN)
    done = subprocess.run(
        [sys.executable, str(script), str(path), str(tmp_path / "states")],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    expected = torch.load(tmp_path / "states", weights_only=True)
    for spec in (f"{name}@{path}", f"hf:{path}"):
        built = build_upstream(spec)
        assert (built.downsample_rate, built.num_layers) == (320, 3)
        states = built.extract(wav[None], torch.tensor([len(wav)]))
        assert len(states.layers) == len(expected) == 3
        for ours, theirs in zip(states.layers, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert build_upstream(f"{name}@{path}").digest() == build_upstream(f"hf:{path}").digest()
    assert build_upstream(f"{name}@{path}").display_name == name


def test_what_was_trained_is_what_is_saved(corpus, tmp_path):
    """The upstream that the trainer held gives the same hidden states as the one loaded from its folder."""
    held = untrained("hubert").freeze()
    held.save(tmp_path / "h", {})
    wavs, lengths = torch.randn(2, 9_000), torch.tensor([9_000, 7_000])
    wavs[1, 7_000:] = 0
    ours, loaded = (each.extract(wavs, lengths) for each in (held, build_upstream(f"hubert@{tmp_path / 'h'}")))
    for one, other in zip(ours.layers, loaded.layers, strict=True):
        torch.testing.assert_close(one, other)


def test_the_first_iteration_is_named_so(corpus, tmp_path):
    what = plan("hubert", steps=2)
    pretrain(what, corpus, tmp_path, device="cpu")
    assert build_upstream(f"hubert@{what.checkpoint(tmp_path, 1)}").display_name == "hubert iteration 1"
    assert what.checkpoint(tmp_path, 1).name == "hubert-small-iteration1"
    assert json.loads((what.checkpoint(tmp_path) / "frostbench.json").read_text())["notes"]["clusters"]["used"] > 1


def test_huberts_loss_is_the_cross_entropy_of_masked_frames():
    upstream = untrained("hubert").eval()
    given = batch(targets=True)
    found = upstream.pretrain_loss(given, torch.Generator().manual_seed(3))
    with numpy_seeded(torch.Generator().manual_seed(3)):
        mask = upstream.mask(3, 27)
    assert 0.2 < mask.mean() < 0.9
    hidden = upstream.model(given.wavs, mask_time_indices=torch.from_numpy(mask)).last_hidden_state
    losses, right = [], []
    for row in range(3):
        for frame in range(27):
            if mask[row, frame]:
                predicted = upstream.final_proj(hidden[row, frame])
                logits = functional.cosine_similarity(predicted[None], upstream.cluster_embeddings, dim=1) / 0.1
                losses.append(-logits.log_softmax(dim=0)[frame % 10])
                right.append(float(logits.argmax() == frame % 10))
    torch.testing.assert_close(found.loss, torch.stack(losses).mean())
    assert float(found.figures["accuracy"]) == pytest.approx(np.mean(right))


def test_wav2vec2s_loss_tells_the_true_frame_from_distractors():
    upstream = untrained("wav2vec2").eval()
    given = batch()
    found = upstream.pretrain_loss(given, torch.Generator().manual_seed(3))
    from transformers.models.wav2vec2.modeling_wav2vec2 import _sample_negative_indices

    with numpy_seeded(torch.Generator().manual_seed(3)):
        mask = upstream.mask(3, 27)
        distractors = _sample_negative_indices((3, 27), 5, mask)
    with torch.no_grad():
        out = upstream.model(given.wavs, mask_time_indices=torch.from_numpy(mask))
    context, true = out.projected_states, out.projected_quantized_states
    losses = []
    for row in range(3):
        for frame in range(27):
            if mask[row, frame]:
                others = [divmod(int(place), 27) for place in distractors[row, frame]]
                assert all(mask[other] and other[0] == row and other != (row, frame) for other in others)
                candidates = [true[row, frame], *(true[other] for other in others)]
                candidates = candidates[:1] + [each for each in candidates[1:] if not torch.equal(each, candidates[0])]
                logits = functional.cosine_similarity(context[row, frame][None], torch.stack(candidates), dim=1) / 0.1
                losses.append(-logits.log_softmax(dim=0)[0])
    contrastive = torch.stack(losses).mean()
    torch.testing.assert_close(found.figures["contrastive"], contrastive)
    perplexity = out.codevector_perplexity
    torch.testing.assert_close(found.figures["code_perplexity"], perplexity)
    torch.testing.assert_close(found.loss, contrastive + 0.1 * (16 - perplexity) / 16)


def test_penalty_and_gradient_of_the_convolutions():
    def gradient(**changes):
        what = plan("wav2vec2")
        torch.manual_seed(0)
        upstream = what.kind(
            what.config.__class__(**{**what.config.__dict__, "dropout": 0.0, "feature_dropout": 0.0, **changes})
        )
        upstream.train()
        torch.manual_seed(1)  # of the quantiser's noise
        loss = upstream.pretrain_loss(batch(), torch.Generator().manual_seed(3)).loss
        return loss, torch.autograd.grad(loss, upstream.encoder.feature_extractor.conv_layers[0].conv.weight)[0]

    plain_loss, plain = gradient(feature_penalty=0.0)
    loss, scaled = gradient(feature_penalty=0.0, conv_gradient=0.25)
    torch.testing.assert_close(loss, plain_loss)
    torch.testing.assert_close(scaled, 0.25 * plain)
    upstream = untrained("wav2vec2")
    features = upstream.encoder.feature_extractor(batch().wavs)
    penalised, _ = gradient(feature_penalty=2.0)
    torch.testing.assert_close(penalised - plain_loss, 2 * features.square().mean(), rtol=1e-3, atol=1e-5)


def test_the_quantisers_temperature_falls_to_its_end():
    upstream = untrained("wav2vec2")
    temperatures = []
    for step in (1, 1_000, 10**7):
        upstream.pretrain_loss(batch(step), torch.Generator().manual_seed(0))
        temperatures.append(upstream.model.quantizer.temperature)
    assert temperatures == [pytest.approx(2 * 0.999995), pytest.approx(2 * 0.999995**1_000), 0.5]


def test_masks_leave_numpys_own_numbers_alone():
    np.random.seed(7)
    expected = np.random.rand()
    np.random.seed(7)
    upstream = untrained("wav2vec2")
    upstream.pretrain_loss(batch(), torch.Generator().manual_seed(3))
    assert np.random.rand() == expected


def test_a_look_between_two_updates_changes_nothing():
    """A look sets the lengths that the group norm takes its statistics from: training must not see them."""
    losses = []
    for looked in (False, True):
        upstream = untrained("hubert")
        if looked:
            upstream.eval()
            upstream.extract(torch.randn(2, 8_000), torch.tensor([8_000, 5_000]))
            upstream.train()
        torch.manual_seed(0)
        losses.append(upstream.pretrain_loss(batch(targets=True), torch.Generator().manual_seed(3)).loss)
    assert torch.equal(*losses)


def test_hubert_wants_a_cluster_for_every_frame():
    upstream = untrained("hubert")
    for targets in (None, [torch.zeros(3, dtype=torch.int64)] * 3):
        with pytest.raises(ContractError, match="needs a cluster for each of 27 frames"):
            upstream.pretrain_loss(batch()._replace(targets=targets), torch.Generator())
    what = plan("hubert")
    with pytest.raises(ContractError, match="its recipe names no clusters"):
        what.kind.untrained(what.config, plan("apc").recipes[0])
