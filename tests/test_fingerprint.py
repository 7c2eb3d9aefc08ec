"""The digest of an upstream whose code is transformers' follows what it computes, on any machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from torch.nn import functional

from core.digest import tensors_digest
from upstreams._encoders.conv_transformer import ConvTransformer
from upstreams._encoders.fingerprint import fixed_noise
from upstreams._resolve import build_upstream

SMALL = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
PRE_NORM = {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}
SEW = {"conv_kernel": (10, 3, 3, 3, 3, 2, 2), "conv_stride": (5, 2, 2, 2, 2, 2, 2)}
FAMILIES = {
    "wav2vec2": (transformers.Wav2Vec2Config, transformers.Wav2Vec2Model, {}),
    "wav2vec2, pre-norm": (transformers.Wav2Vec2Config, transformers.Wav2Vec2Model, PRE_NORM),
    "hubert": (transformers.HubertConfig, transformers.HubertModel, {}),
    "hubert, pre-norm": (transformers.HubertConfig, transformers.HubertModel, PRE_NORM),
    "wavlm": (transformers.WavLMConfig, transformers.WavLMModel, {}),
    "data2vec": (transformers.Data2VecAudioConfig, transformers.Data2VecAudioModel, {}),
}
ALONE = {
    "conformer": (transformers.Wav2Vec2ConformerConfig, transformers.Wav2Vec2ConformerModel, {}),
    "conformer, rotary": (
        transformers.Wav2Vec2ConformerConfig,
        transformers.Wav2Vec2ConformerModel,
        {"position_embeddings_type": "rotary"},
    ),
    "sew": (transformers.SEWConfig, transformers.SEWModel, SEW),
    "sew-d": (transformers.SEWDConfig, transformers.SEWDModel, SEW | {"max_position_embeddings": 64}),
    "w2v-bert": (
        transformers.Wav2Vec2BertConfig,
        transformers.Wav2Vec2BertModel,
        {"conv_depthwise_kernel_size": 7, "feature_projection_input_dim": 160},
    ),
}
WHISPER = {"vocab_size": 60, "d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 48,
           "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 48,
           "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}  # fmt: skip


def folder_of(name: str, folder: Path) -> str:
    """A folder as `save_pretrained` writes it, with weights that are the same each time."""
    torch.manual_seed(0)
    if name == "whisper":
        built = transformers.WhisperModel(transformers.WhisperConfig(**WHISPER))
        extractor = transformers.WhisperFeatureExtractor()
    else:
        config, model, options = (FAMILIES | ALONE)[name]
        built, extractor = model(config(**SMALL, **options)), transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
        if name == "w2v-bert":
            extractor = transformers.SeamlessM4TFeatureExtractor()
    with torch.no_grad():
        for parameter in built.parameters():  # far from their first values, at which norms and activations do little
            parameter += 2 * fixed_noise(parameter.numel()).view(parameter.shape)
    built.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return f"hf:{folder}"


@pytest.fixture(params=[*FAMILIES, "whisper"])
def spec(request, tmp_path) -> str:
    return folder_of(request.param, tmp_path)


@pytest.fixture(params=[*FAMILIES, *ALONE, "whisper"])
def any_spec(request, tmp_path) -> str:
    return folder_of(request.param, tmp_path)


def last_norm(upstream: torch.nn.Module) -> torch.nn.Module:
    network = upstream.network
    return network.model.encoder.layer_norm if isinstance(network, ConvTransformer) else network.encoder.layer_norm


def test_a_norm_that_is_left_out_gives_another_digest(spec):
    """The change from transformers 4 to 5: which states stand before the last norm. The weights stay the same."""
    upstream = build_upstream(spec)
    before, weights = upstream.digest(), tensors_digest(upstream.state_dict())
    last_norm(upstream).register_forward_hook(lambda norm, inputs, output: inputs[0])
    assert tensors_digest(upstream.state_dict()) == weights
    assert upstream.digest() != before


def test_another_formula_of_an_activation_gives_another_digest(spec, monkeypatch):
    before = build_upstream(spec).digest()
    exact = functional.gelu
    monkeypatch.setattr(functional, "gelu", lambda hidden, approximate="none": exact(hidden, approximate="tanh"))
    assert build_upstream(spec).digest() != before


def test_blocks_that_compute_something_else_give_another_digest(any_spec):
    upstream = build_upstream(any_spec)
    before = upstream.digest()
    for module in upstream.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda module, inputs, output: output * 1.01)
    assert upstream.digest() != before


def test_another_spectrogram_gives_another_digest(tmp_path):
    upstream = build_upstream(folder_of("whisper", tmp_path))
    before = upstream.digest()
    upstream.network.extractor.mel_filters = upstream.network.extractor.mel_filters * 1.2
    assert upstream.digest() != before


def test_rounding_errors_give_no_other_digest(any_spec):
    """A million times what machines disagree on: the numbers are far from the edges of rounding compared with that."""
    upstream = build_upstream(any_spec)
    before = upstream.network.fingerprint()

    def disturb(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        return (
            output * (1 + 1e-8 * fixed_noise(output.numel()).view(output.shape))
            if output.is_floating_point()
            else output
        )

    for module in upstream.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv1d):
            module.register_forward_hook(disturb)
    assert upstream.network.fingerprint() == before


def test_it_leaves_the_network_as_it_was(any_spec):
    upstream = build_upstream(any_spec)
    wavs = fixed_noise(8_000).float()[None]
    before = [layer.clone() for layer in upstream.extract(wavs, torch.tensor([8_000])).layers]
    weights = tensors_digest(upstream.state_dict())
    upstream.train()
    upstream.network.fingerprint()
    assert all(module.training for module in upstream.modules())
    upstream.freeze()
    assert tensors_digest(upstream.state_dict()) == weights
    after = upstream.extract(wavs, torch.tensor([8_000])).layers
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_other_instructions_and_threads_give_no_other_digest(tmp_path, capability):
    """The kernels that another machine would take, as far as torch has them here."""
    specs = [folder_of(name, tmp_path / name) for name in ("wav2vec2", "hubert, pre-norm", "whisper")]
    program = (
        "import sys, torch; torch.set_num_threads(2); from upstreams._resolve import build_upstream\n"
        "print(*(build_upstream(spec).digest() for spec in sys.argv[1:]))"
    )
    root = str(Path(__file__).parent.parent)
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": capability, "OMP_NUM_THREADS": "2", "PYTHONPATH": root}
    done = subprocess.run(
        [sys.executable, "-c", program, *specs], env=environment, capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout.split() == [build_upstream(spec).digest() for spec in specs]


def test_the_noise_is_the_same_everywhere():
    noise = fixed_noise(16_000)
    assert (noise * 327_680).round().long()[:4].tolist() == [15503, -13056, 21070, 24414]
    assert float(noise.abs().max()) <= 0.1
    assert noise.mean().abs() < 2e-3
