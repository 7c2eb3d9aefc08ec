"""What losses on whole recordings share: views of a clip, an encoder of frames, one vector a view, and its health."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from upstreams._encoders import kaldi
from upstreams._encoders.mel import MelEncoder
from upstreams._encoders.mel_conv import MelConv
from upstreams._pretraining import health
from upstreams._pretraining.contract import PretrainLoss, PretrainRecipe, TrainableUpstream, TrainingBatch
from upstreams._pretraining.heads import mean_and_max
from upstreams._pretraining.views import ViewsConfig


@dataclass(frozen=True)
class PooledConfig(ViewsConfig):
    """Sizes of the encoder, and of what a view is.

    The default is as wide as gives vectors of 2,048 numbers, those of a ResNet-50: the published heads stand on these.

    Attributes:
        hidden_size: of every layer of the encoder.
        dilations: of its blocks.
        num_mel_bins: of each frame that is read.
        normalise: how a clip is brought to a common level: level, cmvn or none.
    """

    hidden_size: int = 1024
    dilations: tuple[int, ...] = (1, 1, 2, 2, 4)
    num_mel_bins: int = 80
    normalise: str = "level"


TINY: dict[str, Any] = {"hidden_size": 192}
# Of the papers' optimisers LARS is not in torch, and SGD wants rates of its own: all of these methods take AdamW here.
TINY_RECIPE = PretrainRecipe(
    steps=450, batch_seconds=32, learning_rate=1e-3, warmup=0.1, weight_decay=1e-4, crop_seconds=1.0
)


def base_recipe(clips: int, steps: int, **changes: Any) -> PretrainRecipe:
    """A recipe with as many clips of a second in an update as the published one has images.

    Args:
        clips: of an update.
        steps: updates.
        changes: other fields.
    """
    recipe = replace(TINY_RECIPE, steps=steps, batch_seconds=float(clips), learning_rate=1e-4)
    return replace(recipe, **changes)


class PooledUpstream(TrainableUpstream):
    """Hidden states are frames, see MelConv; the loss is on their mean and maximum over a view.

    A subclass writes `prepare` and `loss_of`.

    Args:
        config: sizes of the encoder, views and what the loss needs.
        encoder: in place of a MelConv.

    Attributes:
        encoded_views: how many of the two views the encoder is trained on; `loss_of` is given both.
    """

    equal_lengths: ClassVar[bool] = True
    min_utterances: ClassVar[int] = 8
    frames_differ: ClassVar[bool] = False  # they are trained to be constant within an utterance
    encoded_views: ClassVar[int] = 2

    def __init__(self, config: PooledConfig, encoder: MelEncoder | None = None) -> None:
        usual = MelConv(config.hidden_size, config.dilations, config.num_mel_bins, config.normalise)
        super().__init__(config, usual if encoder is None else encoder)

    @property
    def min_training_samples(self) -> int:
        """As many as a view needs."""
        return kaldi.WIN_LENGTH + (self.config.piece_frames - 1) * kaldi.HOP_LENGTH

    @property
    def pooled_size(self) -> int:
        """Of the vector of a view."""
        return 2 * int(self.config.hidden_size)

    def pooled(self, mel: torch.Tensor) -> torch.Tensor:
        """The vectors of views (clips, frames, bins), all of their frames valid: (clips, pooled_size)."""
        return mean_and_max(frames_by(self.encoder, mel))

    def pretrain_loss(self, batch: TrainingBatch, generator: torch.Generator) -> PretrainLoss:
        """The loss of two views of each clip; clips are of one length."""
        with torch.no_grad():
            mel = self.encoder.spectrum(batch.wavs, batch.wav_lengths).layers[0]
            made = [self.config.view(mel, self.encoder.normalise, generator) for _ in range(2)]
        views, clean = zip(*made, strict=True)
        frames = frames_by(self.encoder, torch.cat(views[: self.encoded_views]))
        pooled = mean_and_max(frames)
        found = self.loss_of(pooled.chunk(self.encoded_views), views, batch)
        more = self.frame_loss(frames, torch.cat(clean[: self.encoded_views]))
        loss = found.loss if more is None else found.loss + more.loss
        figures = {**found.figures, **({} if more is None else more.figures), **health.figures(pooled)}
        return replace(found, loss=loss, figures=figures)

    def frame_loss(self, frames: torch.Tensor, clean: torch.Tensor) -> PretrainLoss | None:
        """What is added to the loss for the frames of the views, if anything.

        Args:
            frames: the encoder's last layer, (views, frames, hidden_size).
            clean: the same pieces of the spectrum unaltered, (views, mel frames, bins).
        """
        return None

    @abstractmethod
    def loss_of(
        self, pooled: Sequence[torch.Tensor], views: Sequence[torch.Tensor], batch: TrainingBatch
    ) -> PretrainLoss:
        """The loss of a batch.

        Args:
            pooled: the vectors (clips, pooled_size) of the views that the encoder is trained on.
            views: both views, float (clips, frames, bins).
            batch: that they were made of.
        """

    def collapsed(self, figures: Mapping[str, float], done: float) -> str | None:
        """See TrainableUpstream.collapsed."""
        problem = health.alike(figures)
        if problem is None and "contrast_accuracy" in figures:
            problem = health.contrast_problem(figures, done)
        return problem


def frames_by(encoder: Any, mel: torch.Tensor) -> torch.Tensor:
    """An encoder's last layer for spectra without padding, (clips, frames, bins) -> (clips, frames, hidden_size)."""
    return encoder.layers(mel, torch.full((len(mel),), mel.shape[1], device=mel.device))[-1]
