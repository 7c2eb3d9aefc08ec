"""wav2vec: frames to come distinguished from others (Schneider et al., Interspeech 2019, arXiv:1904.05862)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from upstreams._base import UpstreamCard, register_upstream
from upstreams._encoders.wave_context import WaveContext, WaveContextConfig, first_target
from upstreams._pretraining import health
from upstreams._pretraining.contract import PretrainLoss, PretrainRecipe, TrainableUpstream, TrainingBatch

LATE, CHANCE = (
    0.9,
    0.55,
)  # when in the training it counts, and the balanced accuracy below which nothing is distinguished
PROBED_FRAMES = 64  # of a batch, for the figures of health


@dataclass(frozen=True)
class Wav2VecConfig(WaveContextConfig):
    """Sizes of the network and of the prediction task.

    Attributes:
        steps_ahead: how many frames are predicted; the first is the next that shares no sample with the context's last.
        negatives: frames of the same recording that each true one is distinguished from.
    """

    steps_ahead: int = 12
    negatives: int = 10


# Norms over time let the context see what comes; at this size each frame has its own.
WAVE_TINY: dict[str, Any] = {
    "channels": 64,
    "conv_kernels": (10, 8, 4, 4, 4),
    "conv_strides": (5, 4, 2, 2, 2),
    "context_kernels": (2, 3, 4, 5),
    "norm": "channel",
    "steps_ahead": 4,
}


@register_upstream(
    UpstreamCard(
        name="wav2vec", title="Frames to come distinguished from others, convolutions", paper="arXiv:1904.05862"
    )
)
class Wav2Vec(TrainableUpstream):
    """See WaveContext for what the hidden states are."""

    config_type = Wav2VecConfig
    equal_lengths = True
    sizes: ClassVar[Mapping[str, Any]] = {"base": Wav2VecConfig(), "tiny": Wav2VecConfig(**WAVE_TINY)}
    recipes: ClassVar[Mapping[str, tuple[PretrainRecipe, ...]]] = {
        # 16 GPUs with 1.5 million samples each, in pieces of 150,000.
        "base": (
            PretrainRecipe(
                steps=400_000,
                batch_seconds=1_500,
                learning_rate=5e-3,
                warmup=0.00125,
                crop_seconds=9.375,
                micro_batches=16,
                optimiser="adam",
                schedule="cosine",
            ),
        ),
        "tiny": (PretrainRecipe(steps=950, batch_seconds=24, learning_rate=1e-3, warmup=0.1, crop_seconds=1.5),),
    }

    def __init__(self, config: Wav2VecConfig) -> None:
        super().__init__(config, self.network(config))

    @classmethod
    def network(cls, config: Any) -> WaveContext:
        """The encoder with random weights."""
        return WaveContext(config)

    def prepare(self, recipe: PretrainRecipe, recordings: int) -> None:
        """See TrainableUpstream.prepare."""
        size = self.config.channels
        self.predictor = nn.ConvTranspose2d(size, size, (1, self.config.steps_ahead))  # a linear map a step

    @property
    def offset(self) -> int:
        """How many frames ahead the first prediction is."""
        return first_target(self.config.conv_kernels, self.config.conv_strides)

    @property
    def min_training_samples(self) -> int:
        """As many as give every step two positions."""
        return self.min_samples + (self.offset + self.config.steps_ahead + 1) * self.downsample_rate

    def pretrain_loss(self, batch: TrainingBatch, generator: torch.Generator) -> PretrainLoss:
        """Binary cross-entropy of true frames and negatives, a true frame; recordings are of one length."""
        frames, lengths = self.encoder.frames(batch.wavs, batch.wav_lengths)
        loss, figures = self.distinguished(frames, self.encoder.contexts(frames, lengths), generator)
        return PretrainLoss(loss, {**figures, **self.probed(frames)})

    def distinguished(
        self, frames: torch.Tensor, context: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of predicting frames (batch, frames, channels) from their context, and its accuracy."""
        batch, length, _ = frames.shape
        predicted = self.predictor(context.transpose(1, 2)[..., None]).float()  # (batch, channels, frames, steps)
        away = torch.randint(1, length, (batch, length, self.config.negatives), generator=generator)
        places = torch.arange(length)[None, :, None]
        places = torch.cat([places.expand(batch, -1, 1), (places + away) % length], dim=2).to(frames.device)
        total, right, wrong = frames.new_zeros(()), [], []
        for step, each in enumerate(predicted.unbind(dim=3), start=self.offset):
            scores = each[:, :, : length - step].transpose(1, 2) @ frames.float().transpose(1, 2)
            logits = scores.gather(2, places[:, step:])  # the true one first
            true, others = logits[:, :, 0], logits[:, :, 1:]
            total = total - functional.logsigmoid(true).sum() - functional.logsigmoid(-others).sum()
            right.append((true.detach() > 0).float().flatten())
            wrong.append((others.detach() < 0).float().flatten())
        positives = torch.cat(right)
        # Balanced: "none is the true one" would be right ten times of eleven.
        accuracy = (positives.mean() + torch.cat(wrong).mean()) / 2
        return total / len(positives), {"balanced_accuracy": accuracy}

    def probed(self, frames: torch.Tensor) -> dict[str, torch.Tensor]:
        """Figures of health of some of the frames."""
        flat = frames.detach().flatten(0, 1)
        return health.figures(flat[:: max(1, len(flat) // PROBED_FRAMES)])

    def collapsed(self, figures: Mapping[str, float], done: float) -> str | None:
        """See TrainableUpstream.collapsed."""
        if figures["spread"] < health.ALIKE:
            return f"frames all alike: the spread of their vectors is {figures['spread']:.3f}, 1 is in all directions"
        if done >= LATE and figures["balanced_accuracy"] < CHANCE:
            return f"too hard: {100 * figures['balanced_accuracy']:.1f} % are distinguished, by chance 50 % would be"
        return None
