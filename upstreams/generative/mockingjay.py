"""Mockingjay: masked acoustic modelling with a bidirectional transformer (Liu et al., ICASSP 2020, arXiv:1910.12638).

Runs of frames are hidden and the network reconstructs them from both sides. Blocks are BERT's: post-norm, GELU,
sinusoidal positions added before the first layer norm.
"""

from __future__ import annotations

import math
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
        name="mockingjay", title="Masked reconstruction, bidirectional transformer", paper="arXiv:1910.12638", version=2
    )
)
class Mockingjay(GenerativeUpstream):
    """Hidden states are the input of the first block and the output of every block: num_layers + 1."""

    config_type = MockingjayConfig
    sizes: ClassVar[Mapping[str, MockingjayConfig]] = {
        "base": MockingjayConfig(),
        "tiny": MockingjayConfig(num_layers=3, hidden_size=256, num_heads=4, feedforward_size=1024),
    }
    recipes: ClassVar[Mapping[str, tuple[PretrainRecipe, ...]]] = {
        "base": (PretrainRecipe(steps=500_000, batch_seconds=400, learning_rate=2e-4, weight_decay=0.01),),
        "tiny": (PretrainRecipe(steps=800, batch_seconds=24, learning_rate=1e-3, weight_decay=0.01),),
    }

    def __init__(self, config: MockingjayConfig = MockingjayConfig()) -> None:
        super().__init__(config)
        self.num_layers = config.num_layers + 1
        self.hidden_size = config.hidden_size
        self.spec_transform = nn.Linear(config.num_mel_bins, config.hidden_size)
        self.input_norm = nn.LayerNorm(config.hidden_size, eps=1e-12)  # BERT's epsilon
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                config.hidden_size,
                config.num_heads,
                config.feedforward_size,
                config.dropout,
                activation="gelu",
                layer_norm_eps=1e-12,
                batch_first=True,
            )
            for _ in range(config.num_layers)
        )
        self.spec_head = nn.Sequential(
            nn.Linear(config.hidden_size, config.hidden_size),
            nn.GELU(),
            nn.LayerNorm(config.hidden_size, eps=1e-12),
            nn.Linear(config.hidden_size, config.num_mel_bins),
        )

    def encode(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> HiddenStates:
        """See Upstream.encode."""
        mel = self._mel(wavs, wav_lengths)
        return HiddenStates(self._layers(mel.layers[0], mel.lengths), mel.lengths)

    def pretrain_loss(self, batch: TrainingBatch, generator: torch.Generator) -> PretrainLoss:
        """L1 distance between reconstruction and original on the chosen frames, per frame and mel bin."""
        mel = self._mel(batch.wavs, batch.wav_lengths)
        original = mel.layers[0]
        chosen, altered = mask_runs(
            original, mel.lengths, self.config.mask_proportion, self.config.mask_frames, generator
        )
        predicted = self.spec_head(self._layers(altered, mel.lengths)[-1])
        return PretrainLoss((predicted - original).abs()[chosen].mean(), {})

    def _mel(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> HiddenStates:
        return kaldi.batch_of(lambda wav: kaldi.cmvn(kaldi.fbank(wav, self.config.num_mel_bins)), wavs, wav_lengths)

    def _layers(self, mel: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        positions = sinusoids(mel.shape[1], self.hidden_size).to(mel)
        layers = [self.dropout(self.input_norm(self.spec_transform(mel) + positions))]
        mask = padding_mask(lengths, mel.shape[1])
        for block in self.blocks:
            layers.append(block(layers[-1], src_key_padding_mask=mask))
        return tuple(layers)


def sinusoids(length: int, size: int) -> torch.Tensor:
    """Sinusoidal positions (length, size): even columns sine, odd ones cosine (Vaswani et al., 2017)."""
    rates = torch.exp(torch.arange(0, size, 2) * (-math.log(10_000) / size))
    angles = torch.arange(length)[:, None] * rates[None, :]
    return torch.stack([angles.sin(), angles.cos()], dim=2).reshape(length, size)


def mask_runs(
    frames: torch.Tensor, lengths: torch.Tensor, proportion: float, run: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Chooses runs of consecutive frames and alters them, one way an utterance as in the paper.

    80 % of the utterances have their chosen frames zeroed, 10 % replaced by other frames of their own, 10 % keep them.

    Args:
        frames: float (batch, frames, size).
        lengths: valid frames, int64 (batch,).
        proportion: of the frames to choose, about.
        run: frames a run; shorter utterances are chosen whole.
        generator: source of randomness.

    Returns: chosen, bool (batch, frames), never on padding; the altered frames, shaped as `frames`.
    """
    chosen = torch.zeros(frames.shape[:2], dtype=torch.bool)
    altered = frames.clone()
    for row, length in enumerate(lengths.tolist()):
        runs = max(1, round(length * proportion / run))
        starts = torch.randperm(max(1, length - run + 1), generator=generator)[:runs]
        positions = (starts[:, None] + torch.arange(run)).flatten().unique()
        positions = positions[positions < length]
        chosen[row, positions] = True
        dice = float(torch.rand(1, generator=generator))
        if dice < 0.8:
            altered[row, positions] = 0
        elif dice < 0.9:
            others = torch.randint(length, (len(positions),), generator=generator)
            altered[row, positions] = frames[row, others]
    return chosen.to(frames.device), altered
