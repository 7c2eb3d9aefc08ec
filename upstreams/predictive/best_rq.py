"""BEST-RQ: codes of masked frames predicted that a random projection gives (Chiu et al., ICML 2022, arXiv:2202.01855).

Nothing is learned for the codes, so there are no stages. The network is a transformer on stacked log mel frames; the
paper's conformer normalises over time.
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
from upstreams._encoders.mel_transformer import MelTransformer
from upstreams._pretraining.contract import PretrainLoss, PretrainRecipe, TrainableUpstream, TrainingBatch
from upstreams._pretraining.masks import mask_starts
from upstreams._pretraining.mixing import mixed
from upstreams._pretraining.quantiser import DEAD_CODEBOOK, ONE_ANSWER, RandomQuantiser, code_perplexity

HALFWAY = 0.5  # of the training: the commonest code is the answer to everything at first
NOISE = 0.1  # deviation of what stands in place of a masked frame


@dataclass(frozen=True)
class BestRQConfig:
    """Sizes of the network and of the masked prediction.

    Attributes:
        num_layers: blocks of the transformer.
        hidden_size: of its blocks.
        num_heads: of its attention.
        feedforward_size: of its blocks.
        num_mel_bins: of each frame.
        dropout: of the blocks.
        stack: mel frames that make one of the network's.
        codes: that are predicted.
        code_size: of the random projection.
        mask_start: probability of a frame to begin a masked run.
        mask_frames: of a run; runs may overlap.
        unmasked_weight: of the loss on frames that are not masked; the paper has none of it.
        mix_proportion: of the recordings that have a piece of another one over them, as in WavLM; codes are those of
            the recording alone.
    """

    num_layers: int = 12
    hidden_size: int = 576
    num_heads: int = 8
    feedforward_size: int = 2048
    num_mel_bins: int = 80
    dropout: float = 0.1
    stack: int = 4
    codes: int = 8192
    code_size: int = 16
    mask_start: float = 0.04  # 0.01 of 10 ms frames
    mask_frames: int = 10
    unmasked_weight: float = 0.0
    mix_proportion: float = 0.0


@register_upstream(
    UpstreamCard(
        name="best_rq", title="Prediction of masked frames' random codes, transformer", paper="arXiv:2202.01855"
    )
)
class BestRQ(TrainableUpstream):
    """See MelTransformer for what the hidden states are."""

    config_type = BestRQConfig
    sizes: ClassVar[Mapping[str, BestRQConfig]] = {
        "base": BestRQConfig(),
        # 8,192 codes would have 19 frames of an hour each.
        "tiny": BestRQConfig(3, 256, 4, 1024, stack=2, codes=256, unmasked_weight=0.5),
    }
    recipes: ClassVar[Mapping[str, tuple[PretrainRecipe, ...]]] = {
        "base": (
            PretrainRecipe(
                steps=300_000,
                batch_seconds=6_400,  # SpeechBrain's, 1.8 hours
                learning_rate=8e-4,
                warmup=0.083,
                clip=10.0,
                weight_decay=0.01,
                betas=(0.9, 0.98),
                micro_batches=32,
            ),
        ),
        "tiny": (
            PretrainRecipe(steps=545, batch_seconds=24, learning_rate=1e-3, weight_decay=0.01, betas=(0.9, 0.98)),
        ),
    }

    def __init__(self, config: BestRQConfig = BestRQConfig()) -> None:
        encoder = MelTransformer(
            config.num_layers,
            config.hidden_size,
            config.num_heads,
            config.feedforward_size,
            config.num_mel_bins,
            config.dropout,
            config.stack,
        )
        super().__init__(config, encoder)

    def prepare(self, recipe: PretrainRecipe, recordings: int) -> None:
        """See TrainableUpstream.prepare."""
        config = self.config
        self.quantiser = RandomQuantiser(config.stack * config.num_mel_bins, config.code_size, config.codes)
        self.head = nn.Linear(config.hidden_size, config.codes)

    def pretrain_loss(self, batch: TrainingBatch, generator: torch.Generator) -> PretrainLoss:
        """Cross-entropy of the masked frames' codes."""
        config, encoder = self.config, self.encoder
        clean = encoder.stacked(encoder.mel(batch.wavs, batch.wav_lengths))
        targets = self.quantiser(clean.layers[0])
        inputs = clean.layers[0]
        if config.mix_proportion:
            wavs = mixed(batch.wavs, batch.wav_lengths, config.mix_proportion, generator)
            inputs = encoder.stacked(encoder.mel(wavs, batch.wav_lengths)).layers[0]
        masked = mask_starts(clean.lengths.cpu(), inputs.shape[1], config.mask_start, config.mask_frames, generator)
        masked = masked.to(inputs.device)
        noise = NOISE * torch.randn(inputs.shape, generator=generator).to(inputs)
        hidden = encoder.layers(torch.where(masked[:, :, None], noise, inputs), clean.lengths)[-1]
        logits = self.head(hidden[masked]).float()
        loss = functional.cross_entropy(logits, targets[masked])
        predictions = logits.detach().argmax(dim=1)
        valid = ~padding_mask(clean.lengths, inputs.shape[1])
        figures = {
            "accuracy": (predictions == targets[masked]).float().mean(),
            "prediction_perplexity": code_perplexity(predictions, config.codes),
            "target_perplexity": code_perplexity(targets[valid], config.codes),
            "masked": loss.detach(),
        }
        if config.unmasked_weight:
            others = valid & ~masked
            plain = functional.cross_entropy(self.head(hidden[others]).float(), targets[others], reduction="sum")
            loss = loss + config.unmasked_weight * plain / others.sum().clamp(min=1)
        return PretrainLoss(loss, figures)

    def collapsed(self, figures: Mapping[str, float], done: float) -> str | None:
        """See TrainableUpstream.collapsed."""
        used, codes = figures["target_perplexity"], self.config.codes
        if used < DEAD_CODEBOOK * codes:
            return f"few targets: {used:.1f} of {codes} random codes in use, so the frames are not normalised"
        if done >= HALFWAY and figures["prediction_perplexity"] < ONE_ANSWER:
            return f"one answer for all frames: {figures['prediction_perplexity']:.1f} of {codes} codes predicted"
        return None
