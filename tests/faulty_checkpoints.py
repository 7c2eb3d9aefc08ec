"""Checkpoints of transformers that tests damage, and how they are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from pretrained_files import SMALL, WIDTH, shaken
from safetensors.torch import load_file, save_file

from core.errors import CheckpointError
from upstreams._resolve import build_upstream

WEIGHTS, CONFIG, PREPROCESSOR = "model.safetensors", "config.json", "preprocessor_config.json"
WHISPER = {
    "d_model": WIDTH, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_layers": 1,
    "decoder_attention_heads": 2, "decoder_ffn_dim": 24, "vocab_size": 12, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "decoder_start_token_id": 1,
}  # fmt: skip
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 378000000\n"


def save_hubert(folder: Path, **settings: Any) -> Path:
    shaken(transformers.HubertModel(transformers.HubertConfig(**SMALL, **settings))).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


def save_whisper(folder: Path, **settings: Any) -> Path:
    model = transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**WHISPER, **settings))
    shaken(model).save_pretrained(folder)
    transformers.WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    return folder


def edit(folder: Path, file: str, **values: Any) -> None:
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**content, **values}))


def retensor(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


def refusal(spec: object) -> str:
    with pytest.raises(CheckpointError) as caught:
        build_upstream(str(spec))
    assert "\n" not in str(caught.value)
    return str(caught.value)
