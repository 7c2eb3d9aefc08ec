"""DINO: the student's answer over prototypes is the teacher's, centred and sharpened (Caron et al., arXiv:2104.14294).

Sharpening alone leads to one prototype for all, centring alone to all prototypes alike; each holds the other off. Two
views of a clip; the paper's many small crops are left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from upstreams._base import UpstreamCard, register_upstream
from upstreams._pretraining import health
from upstreams._pretraining.contract import PretrainLoss, PretrainRecipe, TrainingBatch
from upstreams._pretraining.heads import BatchNorm, mean_and_max
from upstreams._pretraining.pooled import TINY, TINY_RECIPE, PooledConfig, PooledUpstream, base_recipe, frames_by
from upstreams._pretraining.quantiser import ONE_ANSWER, perplexity
from upstreams._pretraining.teacher import Teacher, cosine_to_one

UNIFORM = 0.98  # of the largest entropy there is


@dataclass(frozen=True)
class DINOConfig(PooledConfig):
    """Sizes of the network, views and the classification.

    Attributes:
        hidden_projection: of the two hidden layers of the head.
        bottleneck: size of its unit vectors.
        prototypes: how many they are compared with.
        student_temperature: of the student's softmax.
        teacher_temperature: of the teacher's, lower: sharpening. As high as the student's, there is none.
        centre_momentum: proportion of the centre that stays at every update; 1 has no centring.
        momentum: proportion of its weights that the teacher keeps, rising to 1.
        frozen: proportion of the training in which the prototypes stay as they are.
        batch_norm: whether the head's hidden layers have one, which the authors' code leaves to choice.
    """

    hidden_projection: int = 2048
    bottleneck: int = 256
    prototypes: int = 65_536
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    centre_momentum: float = 0.9
    momentum: float = 0.996
    frozen: float = 0.01
    batch_norm: bool = False


class PrototypeHead(nn.Module):
    """Three layers to unit vectors, and their cosines with the prototypes.

    Args:
        input_size: of a pooled vector.
        hidden: size of two hidden layers.
        bottleneck: size of the unit vectors.
        prototypes: how many.
        batch_norm: whether one stands behind each hidden layer.
    """

    def __init__(self, input_size: int, hidden: int, bottleneck: int, prototypes: int, batch_norm: bool) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for size in (input_size, hidden):
            parts += [nn.Linear(size, hidden), *([BatchNorm(hidden)] if batch_norm else []), nn.GELU()]
        self.layers = nn.Sequential(*parts, nn.Linear(hidden, bottleneck))
        self.prototypes = nn.Parameter(torch.randn(prototypes, bottleneck) * bottleneck**-0.5)

    def forward(self, vectors: torch.Tensor, frozen: bool = False) -> torch.Tensor:
        """Cosines (clips, prototypes); frozen prototypes get a gradient of zero, which every process expects."""
        prototypes = self.prototypes.detach() + 0 * self.prototypes if frozen else self.prototypes
        unit = functional.normalize(self.layers(vectors).float(), dim=1)
        return unit @ functional.normalize(prototypes.float(), dim=1).T


@register_upstream(
    UpstreamCard(
        name="dino", title="A slow copy's centred answer over prototypes, convolutions", paper="arXiv:2104.14294"
    )
)
class DINO(PooledUpstream):
    """See MelConv for what the hidden states are."""

    config_type = DINOConfig
    sizes: ClassVar[Mapping[str, DINOConfig]] = {
        "base": DINOConfig(),
        # Of 32 clips most of the published prototypes would never be the answer.
        "tiny": DINOConfig(
            **TINY,
            hidden_projection=256,
            bottleneck=64,
            prototypes=256,
            strength=0.5,  # with stronger views all prototypes alike are the best guess
            momentum=0.99,
            frozen=0.05,
            batch_norm=True,  # without, the few clips' vectors differ too little for any answer
        ),
    }
    recipes: ClassVar[Mapping[str, tuple[PretrainRecipe, ...]]] = {
        # 100 epochs of ImageNet; weight decay rises in the paper from 0.04 to 0.4, here it stays.
        "base": (
            base_recipe(clips=1024, steps=125_000, learning_rate=2e-3, clip=3.0, weight_decay=0.04, schedule="cosine"),
        ),
        "tiny": (replace(TINY_RECIPE, steps=830),),
    }

    def prepare(self, recipe: PretrainRecipe, recordings: int) -> None:
        """See TrainableUpstream.prepare."""
        config = self.config
        self.head = PrototypeHead(
            self.pooled_size, config.hidden_projection, config.bottleneck, config.prototypes, config.batch_norm
        )
        self.teacher = Teacher(self._student())
        self.register_buffer("centre", torch.zeros(1, config.prototypes))
        self.centre: torch.Tensor

    def _student(self) -> nn.ModuleList:
        """What the teacher is an average of."""
        return nn.ModuleList([self.encoder, self.head])

    @torch.no_grad()
    def _taught(self, view: torch.Tensor) -> torch.Tensor:
        """The teacher's cosines (clips, prototypes)."""
        encoder, head = self.teacher.network.children()
        return head(mean_and_max(frames_by(encoder, view)))

    def loss_of(
        self, pooled: Sequence[torch.Tensor], views: Sequence[torch.Tensor], batch: TrainingBatch
    ) -> PretrainLoss:
        """Cross-entropy of the teacher's answer to one view and the student's to the other, mean of both ways."""
        config = self.config
        taught = [self._taught(view) for view in views]
        answers = [((each - self.centre) / config.teacher_temperature).softmax(dim=1) for each in taught]
        given = [self.head(each, batch.done < config.frozen) / config.student_temperature for each in pooled]
        losses = [functional.cross_entropy(one, other) for one, other in zip(given, reversed(answers), strict=True)]
        both = torch.cat(answers)
        entropy = torch.xlogy(both, both).sum(dim=1).neg().mean() / math.log(config.prototypes)
        figures = {"teacher_entropy": entropy, "answers": perplexity(both.mean(dim=0))}
        kept = {"centre": torch.cat(taught).mean(dim=0, keepdim=True)}
        return PretrainLoss(torch.stack(losses).mean(), figures, kept)

    def after_update(self, kept: Mapping[str, torch.Tensor], done: float) -> None:
        """The centre moves to the mean of the teacher's cosines, and the teacher follows."""
        self.centre.lerp_(kept["centre"].mean(dim=0, keepdim=True), 1 - self.config.centre_momentum)
        self.teacher.follow(self._student(), cosine_to_one(self.config.momentum, done))

    def collapsed(self, figures: Mapping[str, float], done: float) -> str | None:
        """See TrainableUpstream.collapsed."""
        if figures["answers"] < ONE_ANSWER:
            return f"one answer for all recordings: {figures['answers']:.1f} of {self.config.prototypes} prototypes"
        if figures["teacher_entropy"] > UNIFORM:
            return f"no answer: the teacher's entropy is {figures['teacher_entropy']:.3f} of the largest"
        return health.alike(figures)
