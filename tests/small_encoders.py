"""Small models of random weights of encoders that are built apart from wav2vec 2.0's family, and their checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from pretrained_files import WIDTH, shaken

BLOCKS = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


def moonshine() -> tuple[Any, Any]:
    config = transformers.MoonshineConfig(
        vocab_size=12, hidden_size=WIDTH, intermediate_size=24, encoder_num_hidden_layers=2,
        decoder_num_hidden_layers=1, encoder_num_attention_heads=2, decoder_num_attention_heads=2, pad_token_id=0,
    )  # fmt: skip
    return transformers.MoonshineForConditionalGeneration(config), transformers.Wav2Vec2FeatureExtractor(
        do_normalize=False, return_attention_mask=True
    )


def parakeet(name: str = "CTC") -> tuple[Any, Any]:
    encoder = transformers.ParakeetEncoderConfig(**BLOCKS, subsampling_conv_channels=4, num_mel_bins=80)
    extractor = transformers.ParakeetFeatureExtractor()
    if name == "Encoder":
        return transformers.ParakeetEncoder(encoder), extractor
    config = transformers.ParakeetCTCConfig(vocab_size=12, pad_token_id=11, encoder_config=encoder.to_dict())
    return transformers.ParakeetForCTC(config), extractor


def encodec(**settings: Any) -> tuple[Any, Any]:
    sizes = {"hidden_size": WIDTH, "num_filters": 2, "codebook_size": 16, "target_bandwidths": [0.5, 1.0, 1.5]}
    model = transformers.EncodecModel(transformers.EncodecConfig(**{**sizes, **settings}))
    for layer in model.quantizer.layers:
        layer.codebook.embed.normal_()
    return model, transformers.EncodecFeatureExtractor(sampling_rate=model.config.sampling_rate)


def dac(**settings: Any) -> tuple[Any, Any]:
    sizes = {"encoder_hidden_size": 2, "decoder_hidden_size": 16, "n_codebooks": 3, "codebook_size": 16,
             "codebook_dim": 4, "downsampling_ratios": [2, 4, 5]}  # fmt: skip
    config = transformers.DacConfig(**{**sizes, **settings})
    extractor = transformers.DacFeatureExtractor(sampling_rate=config.sampling_rate, hop_length=config.hop_length)
    return transformers.DacModel(config), extractor


def mimi(**settings: Any) -> tuple[Any, Any]:
    sizes = {**BLOCKS, "num_filters": 2, "num_key_value_heads": 2, "codebook_size": 16, "codebook_dim": 8,
             "num_quantizers": 2, "vector_quantization_hidden_dimension": 8, "upsample_groups": WIDTH,
             "sliding_window": 6}  # fmt: skip
    return transformers.MimiModel(transformers.MimiConfig(**{**sizes, **settings})), (
        transformers.EncodecFeatureExtractor()
    )


# What is made, and of the upstream: layers, width, rate in hertz, samples a frame, shortest input.
KINDS: dict[str, tuple[Callable[[], tuple[Any, Any]], tuple[int, int, int, int, int]]] = {
    "moonshine": (moonshine, (3, WIDTH, 16_000, 384, 895)),
    "parakeet_ctc": (parakeet, (3, WIDTH, 16_000, 1_280, 320)),
    "parakeet_encoder": (lambda: parakeet("Encoder"), (3, WIDTH, 16_000, 1_280, 320)),
    "encodec": (encodec, (4, WIDTH, 24_000, 320, 320)),
    "encodec, group norm": (
        lambda: encodec(use_causal_conv=False, norm_type="time_group_norm", sampling_rate=32_000),
        (4, WIDTH, 32_000, 320, 320),
    ),
    "dac": (dac, (4, WIDTH, 16_000, 40, 40)),
    "dac, 44.1 kHz": (lambda: dac(sampling_rate=44_100, downsampling_ratios=[2, 4, 8]), (4, WIDTH, 44_100, 64, 64)),
    "mimi": (mimi, (3, WIDTH, 24_000, 960, 960)),
}


def saved(name: str, folder: Path) -> tuple[Path, Any, Any]:
    torch.manual_seed(0)
    model, extractor = KINDS[name][0]()
    shaken(model).eval().save_pretrained(folder)
    extractor.save_pretrained(folder)
    return folder, model, extractor
