"""APC: autoregressive predictive coding (Chung et al., Interspeech 2019, arXiv:1904.03240).

One-way GRUs read log mel frames and predict the frame a few steps ahead. The published configuration (3 x 512,
prediction 5 frames ahead) follows the authors' released recipe; the paper itself used LSTMs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from core.lengths import padding_mask
from upstreams._base import UpstreamCard, register_upstream
from upstreams._encoders.mel_gru import MelGRU
from upstreams._pretraining.contract import PretrainLoss, PretrainRecipe, TrainableUpstream, TrainingBatch

HALFWAY = 0.5  # of the training, before which nothing beats a copy


@dataclass(frozen=True)
class APCConfig:
    """Sizes of the network and of the prediction task."""

    num_layers: int = 3
    hidden_size: int = 512
    num_mel_bins: int = 80
    dropout: float = 0.1
    residual: bool = True
    steps_ahead: int = 5
    window_type: str = "hamming"
    cmvn: bool = True


@register_upstream(
    UpstreamCard(
        name="apc", title="Autoregressive predictive coding, one-way GRUs", paper="arXiv:1904.03240", version=3
    )
)
class APC(TrainableUpstream):
    """See MelGRU for what the hidden states are."""

    config_type = APCConfig
    batch_seconds = 64.0
    formerly_saved: ClassVar[tuple[str, ...]] = ("postnet.",)
    sizes: ClassVar[Mapping[str, APCConfig]] = {"base": APCConfig(), "tiny": APCConfig(hidden_size=256)}
    recipes: ClassVar[Mapping[str, tuple[PretrainRecipe, ...]]] = {
        # 100 epochs of LibriSpeech's 360 hours in batches of 32 utterances, about 12 s each.
        "base": (PretrainRecipe(steps=325_000, batch_seconds=400, learning_rate=1e-4),),
        "tiny": (PretrainRecipe(steps=475, batch_seconds=24, learning_rate=1e-3),),
    }

    def __init__(self, config: APCConfig = APCConfig()) -> None:
        super().__init__(config, self.network(config))

    @classmethod
    def network(cls, config: APCConfig) -> MelGRU:
        """The encoder of that configuration, with random weights."""
        return MelGRU(
            config.num_layers,
            config.hidden_size,
            config.num_mel_bins,
            dropout=config.dropout,
            residual=config.residual,
            window_type=config.window_type,
            cmvn=config.cmvn,
        )

    def prepare(self, recipe: PretrainRecipe, recordings: int) -> None:
        """See TrainableUpstream.prepare."""
        self.postnet = nn.Linear(self.config.hidden_size, self.config.num_mel_bins)

    @property
    def min_training_samples(self) -> int:
        """A frame, and the one it predicts."""
        return self.min_samples + self.config.steps_ahead * self.downsample_rate

    def pretrain_loss(self, batch: TrainingBatch, generator: torch.Generator) -> PretrainLoss:
        """L1 distance between the prediction and the frame `steps_ahead` later, per valid frame and mel bin."""
        mel = self.encoder.mel(batch.wavs, batch.wav_lengths)
        ahead = self.config.steps_ahead
        lengths = (mel.lengths - ahead).clamp(min=0)
        seen, wanted = mel.layers[0][:, :-ahead], mel.layers[0][:, ahead:]
        states, figures = self.read(seen, lengths, batch)
        predicted = self.postnet(states)
        mask = padding_mask(lengths, predicted.shape[1])[:, :, None]
        errors = (predicted - wanted).abs().masked_fill(mask, 0)
        loss = errors.sum() / ((~mask).sum() * self.config.num_mel_bins)
        copied = (seen - wanted).abs().masked_fill(mask, 0).sum() / ((~mask).sum() * self.config.num_mel_bins)
        return PretrainLoss(loss, {"copying": loss.detach() / copied, **figures})

    def read(
        self, mel: torch.Tensor, lengths: torch.Tensor, batch: TrainingBatch
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """What the prediction is made of, (batch, frames, hidden_size), and figures on it."""
        return self.encoder.layers(mel, lengths)[-1], {}

    def collapsed(self, figures: Mapping[str, float], done: float) -> str | None:
        """See TrainableUpstream.collapsed."""
        if done < HALFWAY or figures["copying"] <= 1:
            return None
        return f"no better than copying: the loss is {figures['copying']:.2f} times that of the last frame repeated"
