"""SimSiam: one view predicts the other's vector, through which no gradient runs (Chen & He, arXiv:2011.10566).

Neither negatives nor a teacher. Without the stop-gradient or without the predictor all recordings get one vector.
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
from upstreams._pretraining.heads import mlp
from upstreams._pretraining.pooled import TINY, TINY_RECIPE, PooledConfig, PooledUpstream, base_recipe


@dataclass(frozen=True)
class SimSiamConfig(PooledConfig):
    """Sizes of the network, views and the prediction task.

    Attributes:
        projector: width of each of the three layers.
        predictor_hidden: hidden size of the predictor, its bottleneck.
        predictor: whether there is one.
        stop_gradient: whether what is predicted is taken as given.
    """

    projector: tuple[int, ...] = (2048, 2048, 2048)
    predictor_hidden: int = 512
    predictor: bool = True
    stop_gradient: bool = True


@register_upstream(
    UpstreamCard(
        name="simsiam", title="Prediction of another view, its gradient stopped, convolutions", paper="arXiv:2011.10566"
    )
)
class SimSiam(PooledUpstream):
    """See MelConv for what the hidden states are."""

    config_type = SimSiamConfig
    sizes: ClassVar[Mapping[str, SimSiamConfig]] = {
        "base": SimSiamConfig(),
        "tiny": SimSiamConfig(**TINY, projector=(384, 384, 384), predictor_hidden=96),
    }
    recipes: ClassVar[Mapping[str, tuple[PretrainRecipe, ...]]] = {
        # 100 epochs of ImageNet; the paper keeps the predictor's learning rate constant, here there is one rate.
        "base": (base_recipe(clips=512, steps=250_000, schedule="cosine"),),
        "tiny": (replace(TINY_RECIPE, steps=940),),
    }

    def prepare(self, recipe: PretrainRecipe, recordings: int) -> None:
        """See TrainableUpstream.prepare."""
        sizes = self.config.projector
        self.projector = mlp([self.pooled_size, *sizes], hidden_bias=False, last_norm=True)
        hidden = self.config.predictor_hidden
        head = mlp([sizes[-1], hidden, sizes[-1]], hidden_bias=False) if self.config.predictor else nn.Identity()
        self.predictor = head

    def loss_of(
        self, pooled: Sequence[torch.Tensor], views: Sequence[torch.Tensor], batch: TrainingBatch
    ) -> PretrainLoss:
        """Minus the mean cosine of one view's prediction and the other's projection."""
        projected = [self.projector(each).float() for each in pooled]
        predicted = [self.predictor(each).float() for each in projected]
        wanted = [each.detach() for each in projected] if self.config.stop_gradient else projected
        cosines = [
            functional.cosine_similarity(one, other) for one, other in zip(predicted, reversed(wanted), strict=True)
        ]
        mean = torch.stack(cosines).mean()
        return PretrainLoss(-mean, {"cosine": mean.detach(), **health.projected(torch.cat(projected))})
