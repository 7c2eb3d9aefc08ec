"""InstDisc: every recording is a class of its own (Wu et al., CVPR 2018, arXiv:1805.01978).

A memory bank has a row for each, the vector with which it was last met.
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
from upstreams._pretraining.stores import Bank


@dataclass(frozen=True)
class InstDiscConfig(PooledConfig):
    """Sizes of the network, views and the classification.

    Attributes:
        projection_size: of the vectors and of the rows of the bank.
        temperature: of the softmax over all recordings.
        momentum: proportion of a row that stays when its recording is met again.
    """

    projection_size: int = 128
    temperature: float = 0.07
    momentum: float = 0.5


@register_upstream(
    UpstreamCard(
        name="inst_disc", title="Each recording among a memory bank of all, convolutions", paper="arXiv:1805.01978"
    )
)
class InstDisc(PooledUpstream):
    """See MelConv for what the hidden states are."""

    config_type = InstDiscConfig
    encoded_views = 1
    sizes: ClassVar[Mapping[str, InstDiscConfig]] = {
        "base": InstDiscConfig(),
        "tiny": InstDiscConfig(**TINY, temperature=0.1, strength=0.5),
    }
    recipes: ClassVar[Mapping[str, tuple[PretrainRecipe, ...]]] = {
        "base": (base_recipe(clips=256, steps=1_000_000),),  # 200 epochs of ImageNet
        "tiny": (replace(TINY_RECIPE, steps=1_120),),  # about a dozen epochs of an hour: rows move once in each
    }

    def prepare(self, recipe: PretrainRecipe, recordings: int) -> None:
        """See TrainableUpstream.prepare."""
        self.head = nn.Linear(self.pooled_size, self.config.projection_size)
        self.bank = Bank(recordings, self.config.projection_size, self.config.momentum)

    def loss_of(
        self, pooled: Sequence[torch.Tensor], views: Sequence[torch.Tensor], batch: TrainingBatch
    ) -> PretrainLoss:
        """Cross-entropy of the recording among all of them, by the rows of the bank; these move behind the update."""
        vectors = functional.normalize(self.head(pooled[0]).float(), dim=1)
        found = self.bank.contrast(vectors, batch.rows, self.config.temperature)
        kept = vectors.detach()
        # 1 is a bank that no longer moves, 0 one that is of no use.
        figures = {
            **found.figures(),
            **health.projected(vectors),
            "stale": (kept * self.bank.rows[batch.rows]).sum(dim=1).mean(),
        }
        return PretrainLoss(found.loss, figures, {"vectors": kept, "rows": batch.rows})

    def after_update(self, kept: Mapping[str, torch.Tensor], done: float) -> None:
        """The rows of the recordings that were met move."""
        self.bank.move(kept["rows"], kept["vectors"])
