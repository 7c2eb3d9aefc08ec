"""Pretrainings of half a second, for several test files."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from upstreams._base import UPSTREAMS
from upstreams._encoders.waveform import WaveformConfig
from upstreams._pretraining.clusters import Clusters
from upstreams._pretraining.contract import PretrainRecipe, trainable
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


# Fields of the other methods' configurations, where a method has them; every width in a tuple becomes 16.
SMALLER: dict[str, Any] = {"hidden_size": 16, "dilations": (1, 2), "piece_frames": 16}
SMALLER |= {"predictor_hidden": 8, "queue_size": 50, "hidden_projection": 16, "projection_size": 16}
SMALLER |= {"num_heads": 2, "feedforward_size": 32, "num_layers": 2, "num_blocks": 2, "quantised_layer": 2, "codes": 8}
SMALLER |= {"negatives": 8, "steps_ahead": 2, "latents": 8, "gap_bins": 3, "bin_frames": 1, "classifier": 8}
SMALLER |= {"mask_frames": 3, "channels": 16, "context_kernels": (2, 3)}
KEPT = ("layers", "conv_kernels", "conv_strides")  # which say what, not how large


def methods() -> list[str]:
    """What can be trained besides the four above: their small sizes follow from their tiny ones."""
    return [entry.card.name for entry in UPSTREAMS if trainable(entry) and entry.card.name not in SMALL]


def shrunk(config: Any) -> Any:
    """A configuration with the smallest sizes that are worth a test."""
    changes = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name in KEPT:
            continue
        if field.name in SMALLER:
            changes[field.name] = SMALLER[field.name]
        elif isinstance(value, tuple) and all(isinstance(each, int) for each in value):
            changes[field.name] = (16,) * len(value)
    return replace(config, **changes)


def small_sizes(monkeypatch) -> None:
    """Adds the size `small` to every upstream that can be trained."""
    for name in (*SMALL, *methods()):
        kind = UPSTREAMS.get(name)
        config = SMALL[name] if name in SMALL else shrunk(kind.sizes["tiny"])
        monkeypatch.setattr(kind, "sizes", {**kind.sizes, "small": config})
        recipes = RECIPES[name] if name in RECIPES else tuple(small_recipe(each) for each in kind.recipes["tiny"])
        monkeypatch.setattr(kind, "recipes", {**kind.recipes, "small": recipes})


def small_recipe(recipe: PretrainRecipe) -> PretrainRecipe:
    """Few updates of little audio, all else as in a method's own recipe."""
    return replace(recipe, steps=RECIPE.steps, batch_seconds=RECIPE.batch_seconds, learning_rate=RECIPE.learning_rate)


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
