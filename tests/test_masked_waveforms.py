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
from upstreams._pretraining.contract import TrainingBatch
from upstreams._pretraining.masks import draw_distractors, mask_spans
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
    upstream = what.kind.untrained(what.config)
    upstream.prepare(what.recipes[0], 3)
    return upstream.train()


def batch(step: int = 1, targets: bool = False) -> TrainingBatch:
    wavs = torch.randn(3, 9_000, generator=torch.Generator().manual_seed(5))
    frames = (9_000 - 400) // 320 + 1
    found = [torch.arange(frames) % 10 for _ in range(3)] if targets else None
    return TrainingBatch(wavs, torch.tensor([9_000] * 3), torch.arange(3), found, step)


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
    assert json.loads((what.checkpoint(tmp_path) / "frostbench.json").read_text())["notes"]["targets"]["used"] > 1


def test_huberts_loss_is_the_cross_entropy_of_masked_frames():
    upstream = untrained("hubert").eval()
    given = batch(targets=True)
    found = upstream.pretrain_loss(given, torch.Generator().manual_seed(3))
    mask = upstream.mask(3, 27, torch.Generator().manual_seed(3))
    assert 0.2 < mask.float().mean() < 0.9
    hidden = upstream.encoder.model(given.wavs, mask_time_indices=mask).last_hidden_state
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


def test_wav2vec2s_loss_is_that_of_transformers():
    """transformers' own model for pretraining, given the same weights, masks and distractors."""
    import transformers

    upstream = untrained("wav2vec2").eval()
    config, given = upstream.config, batch()
    found = upstream.pretrain_loss(given, torch.Generator().manual_seed(3))
    whole = transformers.Wav2Vec2ForPreTraining(
        transformers.Wav2Vec2Config(
            **config.for_transformers(),
            num_codevector_groups=config.codebooks,
            num_codevectors_per_group=config.codes,
            codevector_dim=config.code_size,
            proj_codevector_dim=config.projection_size,
            num_negatives=config.distractors,
            contrastive_logits_temperature=config.temperature,
            diversity_loss_weight=config.diversity,
        )
    ).eval()
    whole.wav2vec2.load_state_dict(upstream.encoder.model.state_dict())
    whole.quantizer.weight_proj.load_state_dict(upstream.quantiser.logits.state_dict())
    whole.quantizer.codevectors.data = upstream.quantiser.code_vectors.data.flatten(0, 1)[None]
    whole.project_hid.load_state_dict(upstream.project_context.state_dict())
    whole.project_q.load_state_dict(upstream.project_codes.state_dict())

    generator = torch.Generator().manual_seed(3)
    mask = upstream.mask(3, 27, generator)
    places = mask.flatten().nonzero()[:, 0]
    negatives = torch.zeros(3 * 27, config.distractors, dtype=torch.int64)
    negatives[places] = places[draw_distractors(mask, config.distractors, generator)]
    out = whole(given.wavs, mask_time_indices=mask, sampled_negative_indices=negatives.view(3, 27, -1))
    masked = int(mask.sum())
    torch.testing.assert_close(found.figures["contrastive"], out.contrastive_loss / masked)
    torch.testing.assert_close(found.figures["code_perplexity"], out.codevector_perplexity)
    torch.testing.assert_close(found.loss, out.loss / masked)


@pytest.mark.parametrize(("frames", "proportion", "span"), [(27, 0.5, 3), (50, 0.65, 10), (12, 0.8, 10)])
def test_spans_begin_anywhere_alike(frames, proportion, span):
    """How often a frame is masked follows from the starts that reach it: k drawn of n without putting back."""
    generator = torch.Generator().manual_seed(0)
    shares, counts = [], []
    for _ in range(400):
        mask = mask_spans(10, frames, proportion, span, generator)
        shares.append(mask.float().mean(dim=0))
        counts.append(int(mask.sum(dim=1).max()))
    starts = frames - span + 1
    wanted = proportion * frames / span
    expected = torch.zeros(frames)
    for spans, weight in ((int(wanted), 1 - wanted % 1), (int(wanted) + 1, wanted % 1)):
        drawn = min(max(1, spans), frames // span, starts)
        for frame in range(frames):
            reached = min(frame, starts - 1) - max(0, frame - span + 1) + 1
            missed = np.prod([max(0, starts - reached - each) / (starts - each) for each in range(drawn)])
            expected[frame] += weight * (1 - missed)
    torch.testing.assert_close(torch.stack(shares).mean(dim=0), expected, atol=0.05, rtol=0)
    assert max(counts) <= frames


def test_distractors_are_other_masked_frames_of_the_same_utterance():
    mask = mask_spans(4, 30, 0.5, 3, torch.Generator().manual_seed(1))
    mask[2] = False
    drawn = draw_distractors(mask, 200, torch.Generator().manual_seed(2))
    rows = mask.nonzero()[:, 0]
    assert drawn.shape == (int(mask.sum()), 200)
    for place, others in enumerate(drawn):
        allowed = {other for other in range(len(rows)) if rows[other] == rows[place]} - {place}
        assert set(others.tolist()) == allowed  # of 200 draws none is missed
    lonely = torch.zeros(1, 30, dtype=torch.bool)
    lonely[0, 4] = True
    with pytest.raises(ContractError, match="one masked frame and no distractor"):
        draw_distractors(lonely, 2, torch.Generator())


def test_penalty_and_gradient_of_the_convolutions():
    def gradient(**changes):
        what = plan("wav2vec2")
        torch.manual_seed(0)
        upstream = what.kind(
            what.config.__class__(**{**what.config.__dict__, "dropout": 0.0, "feature_dropout": 0.0, **changes})
        )
        upstream.prepare(what.recipes[0], 3)
        upstream.train()
        torch.manual_seed(1)  # of the quantiser's noise
        loss = upstream.pretrain_loss(batch(), torch.Generator().manual_seed(3)).loss
        return loss, torch.autograd.grad(loss, upstream.encoder.model.feature_extractor.conv_layers[0].conv.weight)[0]

    plain_loss, plain = gradient(feature_penalty=0.0)
    loss, scaled = gradient(feature_penalty=0.0, conv_gradient=0.25)
    torch.testing.assert_close(loss, plain_loss)
    torch.testing.assert_close(scaled, 0.25 * plain)
    upstream = untrained("wav2vec2")
    features = upstream.encoder.model.feature_extractor(batch().wavs)
    penalised, _ = gradient(feature_penalty=2.0)
    torch.testing.assert_close(penalised - plain_loss, 2 * features.square().mean(), rtol=1e-3, atol=1e-5)


def test_the_quantisers_temperature_falls_to_its_end(monkeypatch):
    upstream = untrained("wav2vec2")
    temperatures = []
    whole = upstream.quantiser.forward
    monkeypatch.setattr(
        upstream.quantiser, "forward", lambda frames, heat: temperatures.append(heat) or whole(frames, heat)
    )
    for step in (1, 1_000, 10**7):
        upstream.pretrain_loss(batch(step), torch.Generator().manual_seed(0))
    assert temperatures == [pytest.approx(2 * 0.999995), pytest.approx(2 * 0.999995**1_000), 0.5]


@pytest.mark.parametrize("name", ["wav2vec2", "hubert"])
def test_masks_neither_follow_nor_disturb_the_global_generators(name):
    upstream = untrained(name).eval()
    given = batch(targets=name == "hubert")
    losses = []
    for seed in (7, 8):
        np.random.seed(seed)
        torch.manual_seed(seed)
        expected = np.random.RandomState(seed).rand()
        losses.append(upstream.pretrain_loss(given, torch.Generator().manual_seed(3)).loss)
        assert np.random.rand() == expected
    assert torch.equal(*losses)


def test_an_evaluation_between_two_updates_changes_nothing():
    """It sets the lengths that the group norm takes its statistics from: training must not use them."""
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
        what.kind.untrained(what.config).prepare(plan("apc").recipes[0], 3)
