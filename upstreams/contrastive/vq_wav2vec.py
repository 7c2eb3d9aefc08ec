"""vq-wav2vec: wav2vec through codes, chosen by Gumbel noise or by distance (Baevski et al., arXiv:1910.05453).

The paper's second stage, BERT on the codes, is not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from core.errors import ContractError
from core.hidden_states import HiddenStates
from core.lengths import padding_mask
from upstreams._base import UpstreamCard, register_upstream
from upstreams._encoders.wave_context import ValidNorm, WaveContext
from upstreams._pretraining.contract import PretrainLoss, PretrainRecipe, TrainingBatch
from upstreams._pretraining.quantiser import DEAD_CODEBOOK, GumbelQuantiser, code_perplexity
from upstreams.contrastive.wav2vec import WAVE_TINY, Wav2Vec, Wav2VecConfig

QUANTISERS = ("gumbel", "kmeans")


@dataclass(frozen=True)
class VQWav2VecConfig(Wav2VecConfig):
    """Sizes of the network, its codes and the prediction task.

    Attributes:
        conv_kernels: three of them are linear layers.
        conv_strides: their product is the width of a frame in samples.
        activation: relu or gelu.
        log_compression: off, as in the authors' example.
        quantiser: gumbel or kmeans.
        codebooks: groups of codes.
        codes: of a group.
        commitment: weight of the distance of frames from their codes, of kmeans.
        gumbel_start: temperature of the choice at first.
        gumbel_end: below it, it does not fall.
        gumbel_decay: its factor at every update.
    """

    conv_kernels: tuple[int, ...] = (10, 8, 4, 4, 4, 1, 1, 1)
    conv_strides: tuple[int, ...] = (5, 4, 2, 2, 2, 1, 1, 1)
    activation: str = "gelu"
    log_compression: bool = False
    quantiser: str = "gumbel"
    codebooks: int = 2
    codes: int = 320
    commitment: float = 0.25
    gumbel_start: float = 2.0
    gumbel_end: float = 0.5
    gumbel_decay: float = 0.999995


class Coded(NamedTuple):
    """Frames through their codes.

    Attributes:
        frames: codes in place of frames, (batch, frames, channels).
        chosen: number of each frame's code in each group, int64 (batch, frames, codebooks).
        loss: that brings codes and frames together, a scalar.
    """

    frames: torch.Tensor
    chosen: torch.Tensor
    loss: torch.Tensor


class NearestCodes(nn.Module):
    """Codes of the smallest distance, a group for each slice of a frame; gradients pass the choice unchanged.

    Args:
        channels: of a frame.
        groups: of codes.
        codes: of a group.
        over_time: see ValidNorm.
        commitment: weight of the frames' distance from their codes, beside that of the codes from their frames.
    """

    def __init__(self, channels: int, groups: int, codes: int, over_time: bool, commitment: float) -> None:
        super().__init__()
        self.projection = nn.Conv1d(channels, channels, 1, groups=groups, bias=False)
        self.norm = ValidNorm(channels, over_time, groups)
        self.code_vectors = nn.Parameter(0.01 * torch.randn(groups, codes, channels // groups))
        self.commitment = commitment

    def forward(self, frames: torch.Tensor, valid: torch.Tensor) -> Coded:
        """Codes of frames (batch, frames, channels), of which `valid`, bool (batch, frames), count."""
        projected = self.norm(self.projection(frames.transpose(1, 2)), valid[:, None]).transpose(1, 2)
        slices = projected.unflatten(2, (len(self.code_vectors), -1))  # (batch, frames, groups, size)
        apart = torch.cdist(slices.detach().flatten(0, 1).transpose(0, 1), self.code_vectors.detach())
        chosen = apart.argmin(dim=2).T.unflatten(0, frames.shape[:2])  # (batch, frames, groups)
        codes = self.code_vectors[torch.arange(len(self.code_vectors), device=chosen.device), chosen].flatten(2)
        counted = valid[:, :, None].expand_as(codes)
        loss = functional.mse_loss(codes[counted], projected.detach()[counted])
        loss = loss + self.commitment * functional.mse_loss(projected[counted], codes.detach()[counted])
        return Coded(projected + (codes - projected).detach(), chosen, loss)


class QuantisedWaveContext(WaveContext):
    """Hidden states are the frames, their codes, and the context of the codes.

    Args:
        config: sizes.

    Raises: ContractError: there is no such quantiser.
    """

    def __init__(self, config: VQWav2VecConfig) -> None:
        super().__init__(config)
        if config.quantiser not in QUANTISERS:
            raise ContractError(f"quantiser={config.quantiser}: must be one of {', '.join(QUANTISERS)}")
        self.num_layers = 3
        size, groups, codes = config.channels, config.codebooks, config.codes
        self.quantiser: GumbelQuantiser | NearestCodes
        if config.quantiser == "gumbel":
            self.quantiser = GumbelQuantiser(size, groups, codes, size)
            # Two layers, as in the authors' example.
            hidden = nn.Linear(size, 2 * size), nn.GELU(), nn.Linear(2 * size, groups * codes)
            self.quantiser.logits = nn.Sequential(*hidden)
        else:
            self.quantiser = NearestCodes(size, groups, codes, config.norm == "group", config.commitment)

    def encode(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> HiddenStates:
        """See Upstream.encode."""
        frames, lengths = self.frames(wavs, wav_lengths)
        codes = self.coded(frames, lengths, 1.0).frames
        return HiddenStates((frames, codes, self.contexts(codes, lengths)), lengths)

    def coded(self, frames: torch.Tensor, lengths: torch.Tensor, temperature: float) -> Coded:
        """Codes of frames (batch, frames, channels)."""
        if isinstance(self.quantiser, NearestCodes):
            return self.quantiser(frames, ~padding_mask(lengths, frames.shape[1]))
        flat = frames.flatten(0, 1)
        codes = self.quantiser(flat, temperature).codes.view_as(frames)
        logits = self.quantiser.logits(flat).detach().view(*frames.shape[:2], self.quantiser.groups, -1)
        return Coded(codes, logits.argmax(dim=3), frames.new_zeros(()))


@register_upstream(
    UpstreamCard(
        name="vq_wav2vec", title="Codes to come distinguished from others, convolutions", paper="arXiv:1910.05453"
    )
)
class VQWav2Vec(Wav2Vec):
    """See QuantisedWaveContext for what the hidden states are."""

    config_type = VQWav2VecConfig
    sizes: ClassVar[Mapping[str, Any]] = {
        "base": VQWav2VecConfig(),
        # Of a few hundred updates the published temperature would never fall.
        "tiny": VQWav2VecConfig(**WAVE_TINY, codes=32, gumbel_decay=0.995),
    }
    recipes: ClassVar[Mapping[str, tuple[PretrainRecipe, ...]]] = {
        # 16 GPUs with 300,000 samples each.
        "base": (
            PretrainRecipe(
                steps=400_000,
                batch_seconds=300,
                learning_rate=1e-5,
                warmup=0.0025,
                crop_seconds=9.375,
                micro_batches=16,
                optimiser="adam",
                schedule="cosine",
            ),
        ),
        "tiny": (PretrainRecipe(steps=785, batch_seconds=24, learning_rate=1e-3, warmup=0.1, crop_seconds=1.5),),
    }

    @classmethod
    def network(cls, config: Any) -> WaveContext:
        """See Wav2Vec.network."""
        return QuantisedWaveContext(config)

    def pretrain_loss(self, batch: TrainingBatch, generator: torch.Generator) -> PretrainLoss:
        """wav2vec's loss of codes, and what brings these and frames together; recordings are of one length."""
        config = self.config
        frames, lengths = self.encoder.frames(batch.wavs, batch.wav_lengths)
        temperature = max(config.gumbel_start * config.gumbel_decay**batch.step, config.gumbel_end)
        coded = self.encoder.coded(frames, lengths, temperature)
        loss, figures = self.distinguished(coded.frames, self.encoder.contexts(coded.frames, lengths), generator)
        used = [code_perplexity(group, config.codes) for group in coded.chosen.unbind(dim=2)]
        figures["code_perplexity"] = torch.stack(used).min()
        return PretrainLoss(loss + coded.loss, {**figures, **self.probed(frames)})

    def collapsed(self, figures: Mapping[str, float], done: float) -> str | None:
        """See TrainableUpstream.collapsed."""
        used, codes = figures["code_perplexity"], self.config.codes
        if used < DEAD_CODEBOOK * codes:
            return f"dead codebook: {used:.1f} of {codes} codes in use in a group"
        return super().collapsed(figures, done)
