"""NPC: each frame predicted from its neighbours without ever seeing it, by convolutions (Liu et al., arXiv:2011.00406).

A departure from the authors' code: norms go over the channels of one frame, where theirs take batch statistics, which
padding would enter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from core.lengths import padding_mask
from upstreams._base import UpstreamCard, register_upstream
from upstreams._encoders.mel import MelEncoder
from upstreams._pretraining.contract import PretrainLoss, PretrainRecipe, TrainableUpstream, TrainingBatch
from upstreams._pretraining.quantiser import DEAD_CODEBOOK, GumbelQuantiser

BLOCK_KERNEL = 3
MASKED_KERNEL = 15


@dataclass(frozen=True)
class NPCConfig:
    """Sizes of the network and of the prediction task.

    Attributes:
        num_blocks: each sees a frame more to each side than the one before.
        hidden_size: of all convolutions.
        num_mel_bins: of each frame.
        dropout: of the blocks.
        hidden_frames: frames, the predicted one in the middle, that the prediction never sees.
        depthwise: whether the masked convolutions are one a channel, followed by a linear layer.
        codebooks: groups of codes that the prediction passes through; 0 has none.
        codes: of a group.
        gumbel_start: temperature of the choice at first.
        gumbel_end: at the end of the training.
    """

    num_blocks: int = 4
    hidden_size: int = 512
    num_mel_bins: int = 80
    dropout: float = 0.1
    hidden_frames: int = 5
    depthwise: bool = False
    codebooks: int = 4
    codes: int = 64
    gumbel_start: float = 1.0
    gumbel_end: float = 1.0


class Block(nn.Module):
    """A convolution over three frames and a linear layer, a norm behind each; adds its input but for the first one.

    Args:
        input_size: of a frame.
        size: of its output.
        dropout: of its output.
    """

    def __init__(self, input_size: int, size: int, dropout: float) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(input_size, size, BLOCK_KERNEL, padding=BLOCK_KERNEL // 2)
        self.linear = nn.Linear(size, size)
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(2))
        self.dropout = nn.Dropout(dropout)
        self.residual = input_size == size

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames (batch, frames, input_size), zero on padding."""
        hidden = self.convolution(frames.transpose(1, 2)).transpose(1, 2)
        hidden = self.dropout(self.norms[1](self.linear(functional.relu(self.norms[0](hidden)))))
        return functional.relu(frames + hidden if self.residual else hidden)


class MaskedConvolution(nn.Module):
    """A convolution over fifteen frames whose middle taps are zero.

    Args:
        size: of a frame.
        hidden: how many taps in the middle are zero.
        depthwise: whether each channel has its own, followed by a linear layer.
    """

    def __init__(self, size: int, hidden: int, depthwise: bool) -> None:
        super().__init__()
        groups = size if depthwise else 1
        self.convolution = nn.Conv1d(size, size, MASKED_KERNEL, padding=MASKED_KERNEL // 2, groups=groups)
        self.linear = nn.Linear(size, size) if depthwise else nn.Identity()
        self.first, self.last = (MASKED_KERNEL - hidden) // 2, (MASKED_KERNEL + hidden) // 2

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames (batch, frames, size), zero on padding."""
        taps = torch.arange(MASKED_KERNEL, device=frames.device)
        weight = self.convolution.weight * ((taps < self.first) | (taps >= self.last))
        hidden = functional.conv1d(
            frames.transpose(1, 2),
            weight,
            self.convolution.bias,
            padding=MASKED_KERNEL // 2,
            groups=self.convolution.groups,
        )
        return torch.tanh(self.linear(hidden.transpose(1, 2)))


class MaskedConvNet(MelEncoder):
    """Hidden states are the outputs of the blocks, which see their own frame, and the sum of the masked convolutions.

    Args:
        config: sizes.
    """

    def __init__(self, config: NPCConfig) -> None:
        super().__init__(config.num_mel_bins)
        self.num_layers = config.num_blocks + 1
        self.hidden_size = size = config.hidden_size
        sizes = [config.num_mel_bins] + [size] * (config.num_blocks - 1)
        self.blocks = nn.ModuleList(Block(each, size, config.dropout) for each in sizes)
        # Block number i has seen i frames to each side, so that more has to be hidden from what it gives.
        self.masked = nn.ModuleList(
            MaskedConvolution(size, config.hidden_frames + 2 * seen, config.depthwise)
            for seen in range(1, config.num_blocks + 1)
        )

    def layers(self, mel: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """See MelEncoder.layers."""
        padding = padding_mask(lengths, mel.shape[1])[:, :, None]
        layers: list[torch.Tensor] = []
        total = torch.zeros(())
        for block, masked in zip(self.blocks, self.masked, strict=True):
            layers.append(block(layers[-1] if layers else mel).masked_fill(padding, 0))
            total = total.to(mel) + masked(layers[-1])
        return (*layers, total)


@register_upstream(
    UpstreamCard(name="npc", title="Prediction of a frame from its neighbours, convolutions", paper="arXiv:2011.00406")
)
class NPC(TrainableUpstream):
    """See MaskedConvNet for what the hidden states are."""

    config_type = NPCConfig
    sizes: ClassVar[Mapping[str, NPCConfig]] = {
        "base": NPCConfig(),
        "tiny": NPCConfig(
            num_blocks=3, hidden_size=192, depthwise=True, codebooks=2, codes=32, gumbel_end=0.5, dropout=0.0
        ),
    }
    recipes: ClassVar[Mapping[str, tuple[PretrainRecipe, ...]]] = {
        # 100 epochs of LibriSpeech's 360 hours in batches of 32 utterances, about 12 s each.
        "base": (PretrainRecipe(steps=325_000, batch_seconds=400, learning_rate=1e-3),),
        "tiny": (PretrainRecipe(steps=1_040, batch_seconds=24, learning_rate=1e-3),),
    }

    def __init__(self, config: NPCConfig = NPCConfig()) -> None:
        super().__init__(config, MaskedConvNet(config))

    def prepare(self, recipe: PretrainRecipe, recordings: int) -> None:
        """See TrainableUpstream.prepare."""
        config = self.config
        if config.codebooks:
            size = config.hidden_size
            self.quantiser = GumbelQuantiser(size, config.codebooks, config.codes, size, sliced=True).plain_start()
        self.postnet = nn.Linear(config.hidden_size, config.num_mel_bins)

    @property
    def min_training_samples(self) -> int:
        """As many as give a frame with neighbours that are not hidden from it."""
        return self.min_samples + (self.config.hidden_frames + 1) * self.downsample_rate

    def pretrain_loss(self, batch: TrainingBatch, generator: torch.Generator) -> PretrainLoss:
        """L1 distance between a frame and what its neighbours say of it, per valid frame and bin."""
        mel = self.encoder.mel(batch.wavs, batch.wav_lengths)
        valid = ~padding_mask(mel.lengths, mel.layers[0].shape[1])
        features = self.encoder.layers(mel.layers[0], mel.lengths)[-1][valid]
        figures = {}
        if self.config.codebooks:
            config = self.config
            temperature = config.gumbel_start + (config.gumbel_end - config.gumbel_start) * min(1.0, batch.done)
            features, used = self.quantiser(features, temperature)
            figures["code_perplexity"] = used.detach()
        loss = (self.postnet(features) - mel.layers[0][valid]).abs().mean()
        return PretrainLoss(loss, figures)

    def collapsed(self, figures: Mapping[str, float], done: float) -> str | None:
        """See TrainableUpstream.collapsed."""
        codes = self.config.codebooks * self.config.codes
        if not codes or figures["code_perplexity"] >= DEAD_CODEBOOK * codes:
            return None
        return f"dead codebook: {figures['code_perplexity']:.1f} of {codes} codes in use"
