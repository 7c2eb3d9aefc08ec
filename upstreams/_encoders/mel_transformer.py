"""A bidirectional transformer on log mel frames; blocks are BERT's: post-norm, GELU, sinusoidal positions added."""

from __future__ import annotations

import math

import torch
from torch import nn

from core.hidden_states import HiddenStates
from core.lengths import padding_mask
from upstreams._encoders import kaldi
from upstreams._encoders.mel import MelEncoder

NORM_EPSILON = 1e-12  # BERT's


class MelTransformer(MelEncoder):
    """Hidden states are the input of the first block and the output of every block: num_blocks + 1.

    Args:
        num_blocks: of the transformer.
        hidden_size: of its blocks.
        num_heads: of its attention.
        feedforward_size: of its blocks.
        num_mel_bins: of each frame.
        dropout: of the input and of the blocks.
        stack: so many mel frames side by side make one of the transformer's; what is left of them at the end is cut.
    """

    def __init__(
        self,
        num_blocks: int,
        hidden_size: int,
        num_heads: int,
        feedforward_size: int,
        num_mel_bins: int = 80,
        dropout: float = 0.0,
        stack: int = 1,
    ) -> None:
        super().__init__(num_mel_bins)
        self.stack = stack
        self.downsample_rate = stack * kaldi.HOP_LENGTH
        self.min_samples = kaldi.WIN_LENGTH + (stack - 1) * kaldi.HOP_LENGTH
        self.num_layers = num_blocks + 1
        self.hidden_size = hidden_size
        self.spec_transform = nn.Linear(stack * num_mel_bins, hidden_size)
        self.input_norm = nn.LayerNorm(hidden_size, eps=NORM_EPSILON)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                hidden_size,
                num_heads,
                feedforward_size,
                dropout,
                activation="gelu",
                layer_norm_eps=NORM_EPSILON,
                batch_first=True,
            )
            for _ in range(num_blocks)
        )

    def frame_lengths(self, wav_lengths: torch.Tensor) -> torch.Tensor:
        """See Upstream.frame_lengths."""
        return super().frame_lengths(wav_lengths) // self.stack

    def encode(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> HiddenStates:
        """See Upstream.encode."""
        mel = self.stacked(self.mel(wavs, wav_lengths))
        return HiddenStates(self.layers(mel.layers[0], mel.lengths), mel.lengths)

    def stacked(self, mel: HiddenStates) -> HiddenStates:
        """Mel frames side by side, as the transformer reads them: (batch, frames, stack * num_mel_bins)."""
        if self.stack == 1:
            return mel
        frames = mel.layers[0][:, : mel.layers[0].shape[1] // self.stack * self.stack]
        return HiddenStates((frames.unflatten(1, (-1, self.stack)).flatten(2),), mel.lengths // self.stack)

    def layers(self, mel: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """See MelEncoder.layers; of stacked frames."""
        layers = [self.embedded(self.spec_transform(mel))]
        mask = padding_mask(lengths, mel.shape[1])
        for block in self.blocks:
            layers.append(block(layers[-1], src_key_padding_mask=mask))
        return tuple(layers)

    def embedded(self, projected: torch.Tensor) -> torch.Tensor:
        """What the first block reads: projected frames (batch, frames, hidden_size) with their positions."""
        positions = sinusoids(projected.shape[1], self.hidden_size).to(projected)
        return self.dropout(self.input_norm(projected + positions))


def sinusoids(length: int, size: int) -> torch.Tensor:
    """Sinusoidal positions (length, size): even columns sine, odd ones cosine (Vaswani et al., 2017)."""
    rates = torch.exp(torch.arange(0, size, 2) * (-math.log(10_000) / size))
    angles = torch.arange(length)[:, None] * rates[None, :]
    return torch.stack([angles.sin(), angles.cos()], dim=2).reshape(length, size)
