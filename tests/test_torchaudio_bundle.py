"""`torchaudio:` on bundles of tiny size: equality with torchaudio's own models, files, downloads."""

from __future__ import annotations

import types
import urllib.error

import pytest
import torch
import torchaudio.pipelines
from pretrained_files import CONVOLUTIONS, WIDTH, assert_contract_holds, noise, states_of
from torch import nn
from torchaudio.models import wav2vec2_model, wavlm_model
from torchaudio.pipelines import Wav2Vec2Bundle

from core.errors import CheckpointError, UnknownNameError
from upstreams._resolve import build_upstream

TINY_BUNDLE = {
    "extractor_mode": "group_norm",
    "extractor_conv_layer_config": CONVOLUTIONS,
    "extractor_conv_bias": False,
    "encoder_embed_dim": WIDTH,
    "encoder_projection_dropout": 0.1,
    "encoder_pos_conv_kernel": 8,
    "encoder_pos_conv_groups": 4,
    "encoder_num_layers": 2,
    "encoder_num_heads": 2,
    "encoder_attention_dropout": 0.1,
    "encoder_ff_interm_features": 24,
    "encoder_ff_interm_dropout": 0.0,
    "encoder_dropout": 0.1,
    "encoder_layer_norm_first": False,
    "encoder_layer_drop": 0.05,
    "aux_num_out": None,
}
LARGE_BUNDLE = TINY_BUNDLE | {
    "extractor_mode": "layer_norm",
    "extractor_conv_bias": True,
    "encoder_layer_norm_first": True,
}
RELATIVE_POSITIONS = {"encoder_num_buckets": 32, "encoder_max_distance": 80}
BUNDLES = {
    "TINY": ("Wav2Vec2", TINY_BUNDLE, False),
    "TINY_ASR_LARGE": ("Wav2Vec2", LARGE_BUNDLE | {"aux_num_out": 29}, True),
    "TINY_WAVLM": ("WavLM", TINY_BUNDLE | RELATIVE_POSITIONS, False),
    "TINY_WAVLM_LARGE": ("WavLM", LARGE_BUNDLE | RELATIVE_POSITIONS, True),
}


@pytest.fixture
def bundle(request, monkeypatch, tmp_path):
    """A bundle of tiny size in torchaudio's list, its model, and the file of its weights."""
    kind, params, normalize = BUNDLES[request.param]
    bundle = Wav2Vec2Bundle("tiny.pth", params, 16_000, normalize, kind)
    monkeypatch.setattr(torchaudio.pipelines, request.param, bundle, raising=False)
    torch.manual_seed(0)
    model = (wavlm_model if kind == "WavLM" else wav2vec2_model)(**params).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter += 0.1 * torch.randn_like(parameter)
    torch.save(model.state_dict(), tmp_path / "tiny.pth")
    return types.SimpleNamespace(name=request.param, model=model, file=tmp_path / "tiny.pth", normalize=normalize)


def torchaudio_states(bundle: types.SimpleNamespace, wav: torch.Tensor) -> torch.Tensor:
    wavs = nn.functional.layer_norm(wav[None], (1, len(wav))) if bundle.normalize else wav[None]
    encoder = bundle.model.encoder
    first = encoder.transformer._preprocess(encoder._preprocess(bundle.model.feature_extractor(wavs, None)[0])[0])
    blocks, _ = bundle.model.extract_features(wavs)
    if bundle.normalize:  # the large models: the last block is reported after the final norm
        blocks[-1] = encoder.transformer.layer_norm(blocks[-1])
    return torch.stack([first, *blocks])[:, 0]


@pytest.mark.parametrize("bundle", BUNDLES, indirect=True)
def test_a_bundle_equals_torchaudios_model_and_keeps_the_contract(bundle):
    upstream = build_upstream(f"torchaudio:{bundle.name}@{bundle.file}")
    assert (upstream.num_layers, upstream.downsample_rate, upstream.min_samples) == (3, 320, 400)
    assert upstream.display_name == bundle.name
    for samples in (400, 5_000, 16_000):
        wav = 0.01 * noise(samples)  # quiet: the normalisation's epsilon shows
        torch.testing.assert_close(states_of(upstream, wav), torchaudio_states(bundle, wav), rtol=0, atol=2e-5)
    assert_contract_holds(upstream)


@pytest.mark.parametrize("bundle", ["TINY"], indirect=True)
def test_a_bundles_file_may_have_the_old_names_of_weight_norm(bundle):
    old = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor
        for name, tensor in bundle.model.state_dict().items()
    }
    new = build_upstream(f"torchaudio:TINY@{bundle.file}").digest()
    torch.save(old, bundle.file)
    assert build_upstream(f"torchaudio:TINY@{bundle.file}").digest() == new


@pytest.mark.parametrize("bundle", ["TINY"], indirect=True)
def test_a_bundle_that_cannot_be_downloaded_is_told_what_to_do(bundle, monkeypatch):
    def offline(url, **_):
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    with pytest.raises(CheckpointError, match=r"models/tiny.pth .*no route.*torchaudio:TINY@FILE") as caught:
        build_upstream("torchaudio:TINY")
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda url, **_: bundle.model.state_dict())
    downloaded = build_upstream("torchaudio:TINY")
    assert downloaded.digest() == build_upstream(f"torchaudio:TINY@{bundle.file}").digest()


def test_bundles_by_wrong_name_or_file(tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean 'HUBERT_BASE'"):
        build_upstream("torchaudio:HUBERT_BSE")
    with pytest.raises(CheckpointError, match="no such file"):
        build_upstream(f"torchaudio:HUBERT_BASE@{tmp_path / 'nowhere'}")
