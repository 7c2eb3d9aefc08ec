"""How far apart two pieces of a recording are, and which came first (after Tagliasacchi et al., arXiv:1905.11796).

Rooms say nothing of it, continuity and the edges of recordings do: a task that is hard, or solved without the words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional

from upstreams._base import UpstreamCard, register_upstream
from upstreams._encoders import kaldi
from upstreams._encoders.mel_conv import MelConv
from upstreams._pretraining import health
from upstreams._pretraining.contract import PretrainLoss, PretrainRecipe, TrainableUpstream, TrainingBatch
from upstreams._pretraining.heads import mean_and_max, mlp
from upstreams._pretraining.pooled import frames_by
from upstreams._pretraining.quantiser import ONE_ANSWER, code_perplexity

LATE, NO_BETTER = 0.9, 1.2  # when in the training it counts, and multiple of the commonest answer's share


@dataclass(frozen=True)
class SegmentGapConfig:
    """Sizes of the network and of the classification.

    Attributes:
        hidden_size: of the encoder.
        dilations: of its blocks.
        num_mel_bins: of each frame.
        normalise: how a recording is brought to a common level.
        piece_frames: mel frames of each piece.
        gap_bins: into how many classes gaps fall.
        bin_frames: mel frames of a class.
        order: whether it is asked, too, which piece came first.
        classifier: hidden size of the head.
    """

    hidden_size: int = 512
    dilations: tuple[int, ...] = (1, 1, 2, 2, 4)
    num_mel_bins: int = 80
    normalise: str = "level"
    piece_frames: int = 30
    gap_bins: int = 5
    bin_frames: int = 12
    order: bool = True
    classifier: int = 64


@register_upstream(
    UpstreamCard(name="segment_gap", title="Distance of two pieces in time, convolutions", paper="arXiv:1905.11796")
)
class SegmentGap(TrainableUpstream):
    """See MelConv for what the hidden states are."""

    config_type = SegmentGapConfig
    equal_lengths = True
    frames_differ = False
    min_utterances = 8
    sizes: ClassVar[Mapping[str, SegmentGapConfig]] = {
        "base": SegmentGapConfig(),
        "tiny": SegmentGapConfig(hidden_size=192),
    }
    recipes: ClassVar[Mapping[str, tuple[PretrainRecipe, ...]]] = {
        "base": (PretrainRecipe(steps=200_000, batch_seconds=400, learning_rate=1e-3, crop_seconds=1.215),),
        # Crops of a length that the last gap just fits, so that edges of recordings are seldom seen.
        "tiny": (PretrainRecipe(steps=970, batch_seconds=48, learning_rate=1e-3, warmup=0.1, crop_seconds=1.215),),
    }

    def __init__(self, config: SegmentGapConfig) -> None:
        super().__init__(config, MelConv(config.hidden_size, config.dilations, config.num_mel_bins, config.normalise))

    def prepare(self, recipe: PretrainRecipe, recordings: int) -> None:
        """See TrainableUpstream.prepare."""
        # Halves of a piece keep some order in time: mean and maximum of each, of both pieces, and their difference.
        size = 4 * self.config.hidden_size
        self.head = mlp([3 * size, self.config.classifier, self.classes], batch_norm=False)

    @property
    def classes(self) -> int:
        """Gaps, twice if it is asked which piece came first."""
        return int(self.config.gap_bins) * (2 if self.config.order else 1)

    @property
    def min_training_samples(self) -> int:
        """As many as two pieces with the longest gap between them need."""
        config = self.config
        frames = 2 * config.piece_frames + config.gap_bins * config.bin_frames
        return kaldi.WIN_LENGTH + (frames - 1) * kaldi.HOP_LENGTH

    def pretrain_loss(self, batch: TrainingBatch, generator: torch.Generator) -> PretrainLoss:
        """Cross-entropy of the class of gap and order; recordings are of one length."""
        with torch.no_grad():
            mel = self.encoder.mel(batch.wavs, batch.wav_lengths).layers[0]
            first, second, targets = self.pieces(mel, generator)
        one, other = self.pooled(torch.cat([first, second])).chunk(2)
        logits = self.head(torch.cat([one, other, one - other], dim=1)).float()
        targets = targets.to(logits.device)
        answers = logits.detach().argmax(dim=1)
        figures = {
            "accuracy": (answers == targets).float().mean(),
            "commonest": torch.bincount(targets).max() / len(targets),
            "prediction_perplexity": code_perplexity(answers, self.classes),
            **health.figures(torch.cat([one, other])),
        }
        return PretrainLoss(functional.cross_entropy(logits, targets), figures)

    def pieces(self, mel: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Two pieces of each clip (clips, frames, bins) in any order, and the class of their gap and order.

        The class is the gap's, from 0; behind all of these come those of pieces the later of which stands first.
        """
        config = self.config
        gaps = torch.randint(config.gap_bins * config.bin_frames, (len(mel),), generator=generator)
        room = mel.shape[1] - 2 * config.piece_frames - gaps + 1
        starts = (torch.rand(len(mel), generator=generator) * room).long()
        turned = torch.rand(len(mel), generator=generator) < (0.5 if config.order else 0.0)
        behind = starts + config.piece_frames + gaps
        pairs = []
        for begins in (torch.where(turned, behind, starts), torch.where(turned, starts, behind)):
            cut = [clip[begin : begin + config.piece_frames] for clip, begin in zip(mel, begins.tolist(), strict=True)]
            pairs.append(torch.stack(cut))
        return pairs[0], pairs[1], gaps // config.bin_frames + config.gap_bins * turned.long()

    def pooled(self, mel: torch.Tensor) -> torch.Tensor:
        """Mean and maximum of each half of pieces (pieces, frames, bins): (pieces, 4 x hidden_size)."""
        frames = frames_by(self.encoder, mel)
        middle = frames.shape[1] // 2
        return torch.cat([mean_and_max(half) for half in (frames[:, :middle], frames[:, middle:])], dim=1)

    def collapsed(self, figures: Mapping[str, float], done: float) -> str | None:
        """See TrainableUpstream.collapsed."""
        if figures["prediction_perplexity"] < ONE_ANSWER:
            return f"one answer for all pairs: {figures['prediction_perplexity']:.1f} of {self.classes} classes"
        if done >= LATE and figures["accuracy"] < NO_BETTER * figures["commonest"]:
            return (
                f"gap not predicted: {100 * figures['accuracy']:.1f} % right, the commonest answer has "
                f"{100 * figures['commonest']:.1f} %"
            )
        return health.alike(figures)
