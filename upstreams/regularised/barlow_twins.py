"""Barlow Twins: two views' correlations become the identity (Zbontar et al., ICML 2021, arXiv:2103.03230)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from upstreams._base import UpstreamCard, register_upstream
from upstreams._pretraining import health
from upstreams._pretraining.contract import PretrainLoss, PretrainRecipe, TrainingBatch
from upstreams._pretraining.heads import mlp
from upstreams._pretraining.pooled import TINY, TINY_RECIPE, PooledConfig, PooledUpstream, base_recipe

DEAD = 1e-5  # variance of a dimension that would be divided by
NOT_ALIKE, LATE = 0.2, 0.9  # correlation between the views of a dimension, and from when on in the training it counts


@dataclass(frozen=True)
class BarlowTwinsConfig(PooledConfig):
    """Sizes of the network, views and the weights of the two terms, each of which may be 0.

    Attributes:
        projector: width of each layer behind the pooled vector.
        invariance: weight of what the diagonal lacks of 1.
        redundancy: weight of the squares off the diagonal.
        scale: factor on the whole loss.
    """

    projector: tuple[int, ...] = (8192, 8192, 8192)
    invariance: float = 1.0
    redundancy: float = 0.0051
    scale: float = 1.0


@register_upstream(
    UpstreamCard(
        name="barlow_twins", title="Correlation of two views made the identity, convolutions", paper="arXiv:2103.03230"
    )
)
class BarlowTwins(PooledUpstream):
    """See MelConv for what the hidden states are."""

    config_type = BarlowTwinsConfig
    sizes: ClassVar[Mapping[str, BarlowTwinsConfig]] = {
        "base": BarlowTwinsConfig(),
        # At 256 dimensions the published weight would pull 32 times less at each of them.
        "tiny": BarlowTwinsConfig(**TINY, projector=(256, 256, 256), redundancy=0.02, scale=1 / 256),
    }
    recipes: ClassVar[Mapping[str, tuple[PretrainRecipe, ...]]] = {
        "base": (base_recipe(clips=2048, steps=625_000, weight_decay=1.5e-6, schedule="cosine"),),  # 1,000 epochs
        "tiny": (replace(TINY_RECIPE, steps=490, batch_seconds=64),),
    }

    def prepare(self, recipe: PretrainRecipe, recordings: int) -> None:
        """See TrainableUpstream.prepare."""
        self.projector = mlp([self.pooled_size, *self.config.projector], hidden_bias=False, last_bias=False)

    def loss_of(
        self, pooled: Sequence[torch.Tensor], views: Sequence[torch.Tensor], batch: TrainingBatch
    ) -> PretrainLoss:
        """The weighted sum of the two terms."""
        matrix = correlations(*(self.projector(each).float() for each in pooled))
        diagonal = matrix.diagonal()
        invariance = (diagonal - 1).square().sum()
        redundancy = (matrix - diagonal.diag()).square().sum()
        config = self.config
        loss = config.scale * (config.invariance * invariance + config.redundancy * redundancy)
        figures = {"diagonal": diagonal.mean(), "invariance": invariance, "redundancy": redundancy}
        return PretrainLoss(loss, {name: each.detach() for name, each in figures.items()})

    def collapsed(self, figures: Mapping[str, float], done: float) -> str | None:
        """See TrainableUpstream.collapsed."""
        if done >= LATE and self.config.invariance and figures["diagonal"] < NOT_ALIKE:
            return f"views not alike: they correlate by {figures['diagonal']:.2f} in the mean dimension, not by 1"
        return health.alike(figures)


def correlations(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Correlation over the clips of every dimension of one view with every one of the other, (size, size).

    Deviations are biased, so that a view correlates with itself by 1.
    """
    normed = []
    for view in (first, second):
        centred = view - view.mean(dim=0)
        normed.append(centred / (centred.square().mean(dim=0) + DEAD).sqrt())
    return normed[0].T @ normed[1] / len(first)
