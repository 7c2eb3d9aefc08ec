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

from core.hidden_states import HiddenStates
from core.lengths import padding_mask
from upstreams._base import UpstreamCard, register_upstream
from upstreams._encoders import kaldi
from upstreams._encoders.mel import GenerativeUpstream
from upstreams._pretraining.contract import PretrainLoss, PretrainRecipe, TrainingBatch


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
        name="apc", title="Autoregressive predictive coding, one-way GRUs", paper="arXiv:1904.03240", version=2
    )
)
class APC(GenerativeUpstream):
    """Hidden states are the outputs of the GRU layers, residual connections included; time never runs backwards."""

    config_type = APCConfig
    batch_seconds = 64.0
    sizes: ClassVar[Mapping[str, APCConfig]] = {"base": APCConfig(), "tiny": APCConfig(hidden_size=256)}
    recipes: ClassVar[Mapping[str, tuple[PretrainRecipe, ...]]] = {
        # 100 epochs of LibriSpeech's 360 hours in batches of 32 utterances, about 12 s each.
        "base": (PretrainRecipe(steps=325_000, batch_seconds=400, learning_rate=1e-4),),
        "tiny": (PretrainRecipe(steps=900, batch_seconds=24, learning_rate=1e-3),),
    }

    def __init__(self, config: APCConfig = APCConfig()) -> None:
        super().__init__(config)
        self.num_layers = config.num_layers
        self.hidden_size = config.hidden_size
        inputs = [config.num_mel_bins] + [config.hidden_size] * (config.num_layers - 1)
        self.rnn_layers = nn.ModuleList(nn.GRU(size, config.hidden_size, batch_first=True) for size in inputs)
        self.dropout = nn.Dropout(config.dropout)
        self.postnet = nn.Linear(config.hidden_size, config.num_mel_bins)

    @property
    def min_training_samples(self) -> int:
        """A frame, and the one it predicts."""
        return self.min_samples + self.config.steps_ahead * self.downsample_rate

    def encode(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> HiddenStates:
        """See Upstream.encode."""
        mel = self._mel(wavs, wav_lengths)
        return HiddenStates(self._layers(mel.layers[0]), mel.lengths)

    def pretrain_loss(self, batch: TrainingBatch, generator: torch.Generator) -> PretrainLoss:
        """L1 distance between the prediction and the frame `steps_ahead` later, per valid frame and mel bin."""
        mel = self._mel(batch.wavs, batch.wav_lengths)
        ahead = self.config.steps_ahead
        predicted = self.postnet(self._layers(mel.layers[0][:, :-ahead])[-1])
        mask = padding_mask((mel.lengths - ahead).clamp(min=0), predicted.shape[1])[:, :, None]
        errors = (predicted - mel.layers[0][:, ahead:]).abs().masked_fill(mask, 0)
        return PretrainLoss(errors.sum() / ((~mask).sum() * self.config.num_mel_bins), {})

    def _mel(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> HiddenStates:
        return kaldi.batch_of(self._mel_of_one, wavs, wav_lengths)

    def _mel_of_one(self, wav: torch.Tensor) -> torch.Tensor:
        mel = kaldi.fbank(wav, self.config.num_mel_bins, self.config.window_type)
        return kaldi.cmvn(mel) if self.config.cmvn else mel

    def _layers(self, mel: torch.Tensor) -> tuple[torch.Tensor, ...]:
        layers: list[torch.Tensor] = []
        for rnn in self.rnn_layers:
            inputs = layers[-1] if layers else mel
            outputs = self.dropout(rnn(inputs)[0])
            layers.append(outputs + inputs if layers and self.config.residual else outputs)
        return tuple(layers)
