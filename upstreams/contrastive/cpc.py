"""CPC: the true frames to come among others, from a recurrent context (van den Oord et al., arXiv:1807.03748).

`base` is the modified form that its authors released (Rivière et al., arXiv:2002.02848) with the original's linear
predictors: convolutions on the waveform, norms over the channels of a frame, an LSTM. `tiny` reads log mel frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from core.errors import ContractError
from upstreams._base import UpstreamCard, register_upstream
from upstreams._encoders.mel_conv import MelConv
from upstreams._encoders.recurrent_context import RecurrentContext
from upstreams._encoders.wave_conv import WaveConv
from upstreams._pretraining import health
from upstreams._pretraining.contract import PretrainLoss, PretrainRecipe, TrainableUpstream, TrainingBatch
from upstreams._pretraining.contrast import from_logits

SOURCES = ("same", "batch")
PROBED_FRAMES = 64  # of a batch, for the figures of health


@dataclass(frozen=True)
class CPCConfig:
    """Sizes of the network and of the prediction task.

    Attributes:
        front_end: waveform or mel.
        hidden_size: of frames and context.
        dilations: blocks on mel frames.
        recurrent: lstm or gru.
        steps_ahead: how many frames to come are predicted.
        negatives: frames that each true one is compared with.
        source: of the negatives: same recording, or all of the batch.
        scale: factor on the mean product of prediction and frame. 1 is the released code's; the root of hidden_size
            gives dot products over that root.
    """

    front_end: str = "waveform"
    hidden_size: int = 256
    dilations: tuple[int, ...] = (1, 2)
    recurrent: str = "lstm"
    steps_ahead: int = 12
    negatives: int = 128
    source: str = "batch"
    scale: float = 1.0


@register_upstream(
    UpstreamCard(name="cpc", title="Contrast of the frames to come, recurrent context", paper="arXiv:1807.03748")
)
class CPC(TrainableUpstream):
    """Hidden states are the frames that are predicted, and the context."""

    config_type = CPCConfig
    equal_lengths = True
    sizes: ClassVar[Mapping[str, CPCConfig]] = {
        "base": CPCConfig(),
        # Of negatives from other recordings the room alone would give the true one away. One block, since frames
        # that reach back far hold what the context has seen, and are found without any prediction.
        "tiny": CPCConfig(
            "mel", 192, (1,), recurrent="gru", steps_ahead=8, negatives=32, source="same", scale=192**0.5
        ),
    }
    recipes: ClassVar[Mapping[str, tuple[PretrainRecipe, ...]]] = {
        # 200 epochs of LibriSpeech's 100 hours in windows of 20,480 samples, 64 an update.
        "base": (PretrainRecipe(steps=880_000, batch_seconds=82, learning_rate=2e-4, crop_seconds=1.28),),
        "tiny": (PretrainRecipe(steps=1_400, batch_seconds=24, learning_rate=1e-3, warmup=0.1, crop_seconds=1.5),),
    }

    def __init__(self, config: CPCConfig) -> None:
        if config.front_end == "mel":
            front: MelConv | WaveConv = MelConv(config.hidden_size, config.dilations, causal=True)
        elif config.front_end == "waveform":
            front = WaveConv(config.hidden_size)
        else:
            raise ContractError(f"front_end={config.front_end}: must be waveform or mel")
        super().__init__(config, RecurrentContext(front, config.recurrent))

    def prepare(self, recipe: PretrainRecipe, recordings: int) -> None:
        """See TrainableUpstream.prepare.

        Raises: ContractError: there is no such source of negatives.
        """
        if self.config.source not in SOURCES:
            raise ContractError(f"source={self.config.source}: must be one of {', '.join(SOURCES)}")
        size = self.config.hidden_size
        self.predictors = nn.ModuleList(nn.Linear(size, size, bias=False) for _ in range(self.config.steps_ahead))

    @property
    def min_training_samples(self) -> int:
        """As many as give a context and twice the frames that it predicts."""
        return self.min_samples + 2 * self.config.steps_ahead * self.downsample_rate

    def pretrain_loss(self, batch: TrainingBatch, generator: torch.Generator) -> PretrainLoss:
        """Cross-entropy of the true frame, mean over positions and steps; recordings are of one length."""
        frames, context = self.encoder.encode(batch.wavs, batch.wav_lengths).layers
        positions = frames.shape[1] - self.config.steps_ahead
        found = []
        for step, predictor in enumerate(self.predictors, start=1):
            predicted = predictor(context[:, :positions]).float()
            found.append(from_logits(*self._logits(predicted, frames.float(), step, generator)))
        loss = torch.stack([each.loss for each in found]).mean()
        every = max(1, frames.shape[0] * frames.shape[1] // PROBED_FRAMES)
        figures = {
            "first_accuracy": found[0].accuracy,
            "last_accuracy": found[-1].accuracy,
            **health.figures(frames.detach().flatten(0, 1)[::every]),
        }
        return PretrainLoss(loss, figures)

    def _logits(
        self, predicted: torch.Tensor, frames: torch.Tensor, step: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores of the true frame and of its negatives, and where the true one stands: in the first place.

        Args:
            predicted: float (batch, positions, size).
            frames: of all positions, float (batch, frames, size).
            step: how many frames ahead the true one lies.
            generator: draws the negatives.
        """
        batch, positions, size = predicted.shape
        length = frames.shape[1]
        true = torch.arange(positions) + step
        if self.config.source == "same":
            scores, most = predicted @ frames.transpose(1, 2), length  # (batch, positions, frames)
            true = true.expand(batch, -1)
        else:
            scores, most = predicted.flatten(0, 1) @ frames.flatten(0, 1).T, batch * length
            scores = scores.unflatten(0, (batch, positions))
            true = true + length * torch.arange(batch)[:, None]
        away = torch.randint(1, most, (batch, positions, self.config.negatives), generator=generator)
        places = torch.cat([true[:, :, None], (true[:, :, None] + away) % most], dim=2).to(scores.device)
        logits = scores.gather(2, places).flatten(0, 1) * (self.config.scale / size)
        return logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device)

    def collapsed(self, figures: Mapping[str, float], done: float) -> str | None:
        """See TrainableUpstream.collapsed."""
        if figures["spread"] < health.ALIKE:
            return f"frames all alike: the spread of their vectors is {figures['spread']:.3f}, 1 is in all directions"
        chance = 1 / (1 + self.config.negatives)
        if figures["last_accuracy"] >= health.EASY:
            easy = health.contrast_problem({"contrast_accuracy": figures["last_accuracy"], "chance": chance}, done)
            if easy is not None:
                return easy
        return health.contrast_problem({"contrast_accuracy": figures["first_accuracy"], "chance": chance}, done)
