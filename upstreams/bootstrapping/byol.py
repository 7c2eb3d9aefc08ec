"""BYOL: one view predicts what a slow copy of the network makes of the other (Grill et al., arXiv:2006.07733).

For audio as in BYOL-A (Niizumi et al., arXiv:2103.06695): mixed with other recordings, pieces stretched, mean and
maximum over time. There are no negatives; what keeps recordings apart is the predictor and the teacher's lag.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from upstreams._base import UpstreamCard, register_upstream
from upstreams._pretraining import health
from upstreams._pretraining.contract import PretrainLoss, PretrainRecipe, TrainingBatch
from upstreams._pretraining.heads import mean_and_max, mlp
from upstreams._pretraining.pooled import TINY, TINY_RECIPE, PooledConfig, PooledUpstream, base_recipe, frames_by
from upstreams._pretraining.teacher import Teacher, cosine_to_one


@dataclass(frozen=True)
class BYOLConfig(PooledConfig):
    """Sizes of the network, views and the prediction task.

    Attributes:
        resize: whether pieces are stretched in time and in bins.
        projector: hidden and output size.
        predictor_hidden: hidden size of the predictor.
        predictor: whether there is one; without it the vectors of all recordings become one.
        momentum: proportion of its weights that the teacher keeps at every update; 0 has no lag.
        momentum_rises: whether it rises to 1 along a cosine; else it stays.
    """

    resize: bool = True
    projector: tuple[int, int] = (4096, 256)
    predictor_hidden: int = 4096
    predictor: bool = True
    momentum: float = 0.996
    momentum_rises: bool = True


@register_upstream(
    UpstreamCard(
        name="byol", title="Prediction of a slow copy's view of the recording, convolutions", paper="arXiv:2006.07733"
    )
)
class BYOL(PooledUpstream):
    """See MelConv for what the hidden states are."""

    config_type = BYOLConfig
    sizes: ClassVar[Mapping[str, BYOLConfig]] = {
        "base": BYOLConfig(),
        # Of few updates a teacher that keeps 0.996 would never leave its random weights.
        "tiny": BYOLConfig(**TINY, projector=(512, 128), predictor_hidden=512, momentum=0.99),
    }
    recipes: ClassVar[Mapping[str, tuple[PretrainRecipe, ...]]] = {
        "base": (base_recipe(clips=4096, steps=312_500),),  # 1,000 epochs of ImageNet in its batches
        "tiny": (replace(TINY_RECIPE, steps=780),),
    }

    def prepare(self, recipe: PretrainRecipe, recordings: int) -> None:
        """See TrainableUpstream.prepare."""
        hidden, size = self.config.projector
        self.projector = mlp([self.pooled_size, hidden, size])
        self.predictor = mlp([size, self.config.predictor_hidden, size]) if self.config.predictor else nn.Identity()
        self.teacher = Teacher(self._student())

    def _student(self) -> nn.ModuleList:
        """What the teacher is an average of: all but the predictor."""
        return nn.ModuleList([self.encoder, self.projector])

    @torch.no_grad()
    def _taught(self, view: torch.Tensor) -> torch.Tensor:
        encoder, projector = self.teacher.network.children()
        return projector(mean_and_max(frames_by(encoder, view)))

    def loss_of(
        self, pooled: Sequence[torch.Tensor], views: Sequence[torch.Tensor], batch: TrainingBatch
    ) -> PretrainLoss:
        """Squared distance of unit vectors, prediction from one view and teacher of the other, both ways added."""
        projected = [self.projector(each) for each in pooled]
        cosines = [
            functional.cosine_similarity(self.predictor(one).float(), self._taught(other).float())
            for one, other in zip(projected, reversed(views), strict=True)
        ]
        mean = torch.stack(cosines).mean()
        figures = {"cosine": mean.detach(), **health.projected(torch.cat(projected))}
        return PretrainLoss(4 - 4 * mean, figures)  # 2 - 2 cos in each direction

    def after_update(self, kept: Mapping[str, torch.Tensor], done: float) -> None:
        """The teacher follows."""
        momentum = self.config.momentum
        self.teacher.follow(self._student(), cosine_to_one(momentum, done) if self.config.momentum_rises else momentum)
