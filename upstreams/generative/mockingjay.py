"""Mockingjay: masked acoustic modelling with a bidirectional transformer (Liu et al., ICASSP 2020, arXiv:1910.12638).

Runs of frames are hidden and the network reconstructs them from both sides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from core.lengths import padding_mask
from upstreams._base import UpstreamCard, register_upstream
from upstreams._encoders.mel_transformer import NORM_EPSILON, MelTransformer
from upstreams._pretraining.contract import PretrainLoss, PretrainRecipe, TrainableUpstream, TrainingBatch
from upstreams._pretraining.masks import interpolated, mask_runs

LATE = 0.9  # of the training, before which nothing comes near a straight line
FAR = 1.5  # times its distance: zeros, which are the mean, are 1.6 times as far off


@dataclass(frozen=True)
class MockingjayConfig:
    """Sizes of the network and of the masking task."""

    num_layers: int = 12
    hidden_size: int = 768
    num_heads: int = 12
    feedforward_size: int = 3072
    num_mel_bins: int = 80
    dropout: float = 0.1
    mask_proportion: float = 0.15
    mask_frames: int = 7


@register_upstream(
    UpstreamCard(
        name="mockingjay", title="Masked reconstruction, bidirectional transformer", paper="arXiv:1910.12638", version=3
    )
)
class Mockingjay(TrainableUpstream):
    """See MelTransformer for what the hidden states are."""

    config_type = MockingjayConfig
    formerly_saved: ClassVar[tuple[str, ...]] = ("spec_head.",)
    sizes: ClassVar[Mapping[str, MockingjayConfig]] = {
        "base": MockingjayConfig(),
        "tiny": MockingjayConfig(num_layers=3, hidden_size=256, num_heads=4, feedforward_size=1024),
    }
    recipes: ClassVar[Mapping[str, tuple[PretrainRecipe, ...]]] = {
        "base": (PretrainRecipe(steps=500_000, batch_seconds=400, learning_rate=2e-4, weight_decay=0.01),),
        "tiny": (PretrainRecipe(steps=250, batch_seconds=24, learning_rate=1e-3, weight_decay=0.01),),
    }

    def __init__(self, config: MockingjayConfig = MockingjayConfig()) -> None:
        encoder = MelTransformer(
            config.num_layers,
            config.hidden_size,
            config.num_heads,
            config.feedforward_size,
            config.num_mel_bins,
            config.dropout,
        )
        super().__init__(config, encoder)

    def prepare(self, recipe: PretrainRecipe, recordings: int) -> None:
        """See TrainableUpstream.prepare."""
        self.spec_head = nn.Sequential(
            nn.Linear(self.config.hidden_size, self.config.hidden_size),
            nn.GELU(),
            nn.LayerNorm(self.config.hidden_size, eps=NORM_EPSILON),
            nn.Linear(self.config.hidden_size, self.config.num_mel_bins),
        )

    def pretrain_loss(self, batch: TrainingBatch, generator: torch.Generator) -> PretrainLoss:
        """L1 distance between reconstruction and original on the chosen frames, per frame and mel bin."""
        mel = self.encoder.mel(batch.wavs, batch.wav_lengths)
        original = mel.layers[0]
        cells, altered = self.alter(original, mel.lengths, generator)
        predicted = self.spec_head(self.encoder.layers(altered, mel.lengths)[-1])
        loss = (predicted - original).abs()[cells].mean()
        line = self.interpolated(original, cells, mel.lengths)
        return PretrainLoss(loss, {"interpolation": loss.detach() / (line - original).abs()[cells].mean()})

    def alter(
        self, mel: torch.Tensor, lengths: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What is to be reconstructed, bool (batch, frames, bins), never on padding; and the altered frames."""
        chosen, altered = mask_runs(mel, lengths, self.config.mask_proportion, self.config.mask_frames, generator)
        return chosen[:, :, None].expand_as(mel), altered

    @torch.no_grad()
    def interpolated(self, mel: torch.Tensor, cells: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """The frames with a straight line in the chosen cells, in time where a frame is chosen whole, else in bins."""
        padding = padding_mask(lengths, mel.shape[1])
        whole = cells.all(dim=2)
        in_time = interpolated(mel, whole | padding)
        in_bins = interpolated(mel.transpose(1, 2), (cells | padding[:, :, None]).all(dim=1)).transpose(1, 2)
        return torch.where(whole[:, :, None], in_time, in_bins)

    def collapsed(self, figures: Mapping[str, float], done: float) -> str | None:
        """See TrainableUpstream.collapsed."""
        if done < LATE or figures["interpolation"] <= FAR:
            return None
        return f"worse than interpolating: the loss is {figures['interpolation']:.2f} times that of a straight line"
