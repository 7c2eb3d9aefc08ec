"""InvaSpread: a view is recognised as its partner and as nothing else (Ye et al., CVPR 2019, arXiv:1904.03436).

One network and no store: what is compared with are the other views of the batch, taken as given.
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
from upstreams._pretraining.pooled import TINY, TINY_RECIPE, PooledConfig, PooledUpstream, base_recipe

LEAST = 1e-7  # of a probability whose logarithm is taken


@dataclass(frozen=True)
class InvaSpreadConfig(PooledConfig):
    """Sizes of the network, views and the contrast.

    Attributes:
        projection_size: of the vectors that are compared.
        temperature: of the softmax over cosines.
        spread: weight of the part that wants the others not to be taken for the clip.
        stop_gradient: whether what a view is compared with is taken as given.
    """

    projection_size: int = 128
    temperature: float = 0.1
    spread: float = 1.0
    stop_gradient: bool = True


@register_upstream(
    UpstreamCard(
        name="inva_spread", title="Views invariant, clips spread out in a batch, convolutions", paper="arXiv:1904.03436"
    )
)
class InvaSpread(PooledUpstream):
    """See MelConv for what the hidden states are."""

    config_type = InvaSpreadConfig
    sizes: ClassVar[Mapping[str, InvaSpreadConfig]] = {"base": InvaSpreadConfig(), "tiny": InvaSpreadConfig(**TINY)}
    recipes: ClassVar[Mapping[str, tuple[PretrainRecipe, ...]]] = {
        "base": (base_recipe(clips=128, steps=117_000),),  # 300 epochs of the 50,000 images of CIFAR-10
        "tiny": (replace(TINY_RECIPE, steps=930),),
    }

    def prepare(self, recipe: PretrainRecipe, recordings: int) -> None:
        """See TrainableUpstream.prepare."""
        self.head = nn.Linear(self.pooled_size, self.config.projection_size)

    def loss_of(
        self, pooled: Sequence[torch.Tensor], views: Sequence[torch.Tensor], batch: TrainingBatch
    ) -> PretrainLoss:
        """Minus the logarithms of being taken for the partner, and of not being taken for anything else."""
        config = self.config
        vectors = functional.normalize(self.head(torch.cat(list(pooled))).float(), dim=1)
        keys = vectors.detach() if config.stop_gradient else vectors
        shares = taken_for(vectors @ keys.T / config.temperature)
        partner = torch.arange(len(vectors), device=vectors.device).roll(len(pooled[0]))
        true = functional.one_hot(partner, len(vectors)).bool()
        invariance = -shares[true].clamp(min=LEAST).log().mean()
        others = (1 - shares.masked_fill(true, 0)).clamp(min=LEAST).log()
        found = shares.detach().argmax(dim=1) == partner
        figures = {
            "invariance": invariance.detach(),
            "contrast_accuracy": found.float().mean(),
            "chance": torch.tensor(1 / (len(vectors) - 1)),
            **health.projected(vectors),
        }
        return PretrainLoss(invariance - config.spread * others.sum(dim=1).mean(), figures)


def taken_for(logits: torch.Tensor) -> torch.Tensor:
    """Softmax of each view's similarities (views, views) over all views but itself, 0 for itself."""
    itself = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    return logits.masked_fill(itself, float("-inf")).softmax(dim=1)
