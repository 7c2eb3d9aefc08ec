"""Pretrainings of half a second, for several test files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from upstreams._base import UPSTREAMS
from upstreams._encoders.waveform import WaveformConfig
from upstreams._pretraining.clusters import Clusters
from upstreams._pretraining.contract import PretrainRecipe
from upstreams._pretraining.plan import Pretraining, planned
from upstreams.contrastive.wav2vec2 import Wav2Vec2Config
from upstreams.generative.apc import APCConfig
from upstreams.generative.mockingjay import MockingjayConfig
from upstreams.predictive.hubert import HubertConfig

WAVEFORM = {
    "conv_channels": (8, 8, 16, 16, 16, 16, 16),
    "num_layers": 2,
    "hidden_size": 32,
    "num_heads": 2,
    "feedforward_size": 64,
    "position_kernel": 8,
    "position_groups": 4,
    "pre_norm": True,
    "layer_drop": 0.0,
    "mask_frames": 3,
    "projection_size": 16,
    "feature_penalty": 0.1,
    "conv_gradient": 1.0,
}
SMALL: dict[str, APCConfig | MockingjayConfig | WaveformConfig] = {
    "apc": APCConfig(num_layers=2, hidden_size=32),
    "mockingjay": MockingjayConfig(num_layers=2, hidden_size=32, num_heads=2, feedforward_size=64),
    "wav2vec2": Wav2Vec2Config(**WAVEFORM, codes=8, code_size=16, distractors=5),
    "hubert": HubertConfig(**WAVEFORM),
}
RECIPE = PretrainRecipe(steps=60, batch_seconds=6, learning_rate=3e-3)
CLUSTERS = Clusters(10, fit_frames=2_000)
RECIPES = {
    "apc": (RECIPE,),
    "mockingjay": (RECIPE,),
    "wav2vec2": (RECIPE,),
    "hubert": (replace(RECIPE, targets=CLUSTERS), replace(RECIPE, targets=replace(CLUSTERS, layer=1))),
}


def small_sizes(monkeypatch) -> None:
    """Adds the size `small` to every upstream that can be trained."""
    for name, config in SMALL.items():
        kind = UPSTREAMS.get(name)
        monkeypatch.setattr(kind, "sizes", {**kind.sizes, "small": config})
        monkeypatch.setattr(kind, "recipes", {**kind.recipes, "small": RECIPES[name]})


def plan(name: str, **changes) -> Pretraining:
    """The small pretraining of an upstream, its recipes changed."""
    what = planned(name, "small")
    return replace(what, recipes=tuple(replace(recipe, **changes) for recipe in what.recipes))


def curve(what: Pretraining, folder: Path) -> list[float]:
    """The losses of a finished pretraining."""
    return list(what.kind.read_notes(what.checkpoint(folder))["loss_curve"])


def weights(path: Path) -> dict[str, torch.Tensor]:
    """Of a checkpoint, file or folder."""
    return load_file(path / "model.safetensors" if path.is_dir() else path)
