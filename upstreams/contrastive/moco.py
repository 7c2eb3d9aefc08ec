"""MoCo: a view among a queue of what a slow copy of the network made of others (He et al., arXiv:1911.05722).

Version 2 (Chen et al., arXiv:2003.04297), with a hidden layer in the head and a higher temperature, is the default;
`mlp=false` and `temperature=0.07` are the first.
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
from upstreams._pretraining.contrast import info_nce
from upstreams._pretraining.heads import mean_and_max, mlp
from upstreams._pretraining.pooled import TINY, TINY_RECIPE, PooledConfig, PooledUpstream, base_recipe, frames_by
from upstreams._pretraining.stores import Queue
from upstreams._pretraining.teacher import Teacher


@dataclass(frozen=True)
class MoCoConfig(PooledConfig):
    """Sizes of the network, views and the contrast.

    Attributes:
        hidden_projection: hidden size of the head.
        projection_size: of queries and keys.
        mlp: whether the head has the hidden layer; else it is linear.
        queue_size: keys that are kept; fewer than half of the recordings, or a recording is its own negative.
        momentum: proportion of its weights that the key network keeps at every update.
        temperature: of the softmax over cosines.
    """

    hidden_projection: int = 2048
    projection_size: int = 128
    mlp: bool = True
    queue_size: int = 65_536
    momentum: float = 0.999
    temperature: float = 0.2


@register_upstream(
    UpstreamCard(
        name="moco", title="Contrast with a queue of a slow copy's vectors, convolutions", paper="arXiv:1911.05722"
    )
)
class MoCo(PooledUpstream):
    """See MelConv for what the hidden states are."""

    config_type = MoCoConfig
    encoded_views = 1
    sizes: ClassVar[Mapping[str, MoCoConfig]] = {
        "base": MoCoConfig(),
        # After 450 updates a key network that keeps 0.999 has gone 36 % of its way.
        "tiny": MoCoConfig(**TINY, hidden_projection=256, queue_size=1024, momentum=0.99),
    }
    recipes: ClassVar[Mapping[str, tuple[PretrainRecipe, ...]]] = {
        "base": (base_recipe(clips=256, steps=1_000_000, schedule="cosine"),),  # 200 epochs of ImageNet
        "tiny": (replace(TINY_RECIPE, steps=960),),
    }

    def prepare(self, recipe: PretrainRecipe, recordings: int) -> None:
        """See TrainableUpstream.prepare."""
        config = self.config
        hidden = [config.hidden_projection] if config.mlp else []
        self.head = mlp([self.pooled_size, *hidden, config.projection_size], batch_norm=False)
        self.teacher = Teacher(self._student())
        self.queue = Queue(config.queue_size, config.projection_size)

    def _student(self) -> nn.ModuleList:
        """What the key network is an average of."""
        return nn.ModuleList([self.encoder, self.head])

    @torch.no_grad()
    def _keys(self, view: torch.Tensor) -> torch.Tensor:
        encoder, head = self.teacher.network.children()
        return functional.normalize(head(mean_and_max(frames_by(encoder, view))).float(), dim=1)

    def loss_of(
        self, pooled: Sequence[torch.Tensor], views: Sequence[torch.Tensor], batch: TrainingBatch
    ) -> PretrainLoss:
        """Cross-entropy of the other view's key among those of the queue, to which it is added behind the update."""
        queries, keys = functional.normalize(self.head(pooled[0]).float(), dim=1), self._keys(views[1])
        found = info_nce(queries, keys, self.queue.rows, self.config.temperature)
        return PretrainLoss(
            found.loss, {**found.figures(), "key_drift": self._drift(), **health.projected(queries)}, {"keys": keys}
        )

    @torch.no_grad()
    def _drift(self) -> torch.Tensor:
        """How far the key network is from the query network, as a proportion of the latter's length."""
        pairs = list(zip(self._student().parameters(), self.teacher.network.parameters(), strict=True))
        apart = torch.stack([(fast - slow).square().sum() for fast, slow in pairs]).sum()
        return (apart / torch.stack([fast.square().sum() for fast, _ in pairs]).sum()).sqrt()

    def after_update(self, kept: Mapping[str, torch.Tensor], done: float) -> None:
        """The queue takes the keys, and the key network follows."""
        self.queue.push(kept["keys"])
        self.teacher.follow(self._student(), self.config.momentum)
