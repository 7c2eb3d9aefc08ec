"""CMC: the low and the high bins of a recording's spectrum find each other (Tian et al., ECCV 2020, arXiv:1906.05849).

Two networks of half the width, one a view; a hidden state holds both, side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from upstreams._base import UpstreamCard, register_upstream
from upstreams._encoders.mel_conv import SplitMelConv
from upstreams._pretraining import health
from upstreams._pretraining.contract import PretrainLoss, PretrainRecipe, TrainingBatch
from upstreams._pretraining.contrast import batch_contrast
from upstreams._pretraining.pooled import TINY, TINY_RECIPE, PooledConfig, PooledUpstream, base_recipe
from upstreams._pretraining.stores import Bank


@dataclass(frozen=True)
class CMCConfig(PooledConfig):
    """Sizes of the two networks together, how the spectrum is altered before it is split, and the contrast.

    Attributes:
        low_bins: how many bins the first view has; the second has the others.
        projection_size: of the vectors that are compared.
        temperature: of the softmax over cosines.
        bank: whether a view is compared with all recordings, in a memory bank of the other view, as published;
            else among those of the batch.
        momentum: proportion of a row of the bank that stays.
    """

    low_bins: int = 40
    projection_size: int = 128
    temperature: float = 0.07
    bank: bool = True
    momentum: float = 0.5


@register_upstream(
    UpstreamCard(name="cmc", title="Contrast of a spectrum's low and high bins, convolutions", paper="arXiv:1906.05849")
)
class CMC(PooledUpstream):
    """See SplitMelConv for what the hidden states are."""

    config_type = CMCConfig
    encoded_views = 1
    sizes: ClassVar[Mapping[str, CMCConfig]] = {
        "base": CMCConfig(),
        # Rows of a bank that is met seven times are too old: the batch has fresh ones.
        "tiny": CMCConfig(**TINY, temperature=0.2, bank=False),
    }
    recipes: ClassVar[Mapping[str, tuple[PretrainRecipe, ...]]] = {
        "base": (base_recipe(clips=128, steps=2_400_000),),  # 240 epochs of ImageNet
        "tiny": (replace(TINY_RECIPE, steps=1_270),),
    }

    def __init__(self, config: CMCConfig) -> None:
        encoder = SplitMelConv(
            config.hidden_size, config.low_bins, config.dilations, config.num_mel_bins, config.normalise
        )
        super().__init__(config, encoder)

    def prepare(self, recipe: PretrainRecipe, recordings: int) -> None:
        """See TrainableUpstream.prepare."""
        config = self.config
        self.heads = nn.ModuleList(nn.Linear(self.pooled_size // 2, config.projection_size) for _ in range(2))
        if config.bank:
            self.low_bank, self.high_bank = (
                Bank(recordings, config.projection_size, config.momentum) for _ in range(2)
            )

    def loss_of(
        self, pooled: Sequence[torch.Tensor], views: Sequence[torch.Tensor], batch: TrainingBatch
    ) -> PretrainLoss:
        """Cross-entropies of the high bins' vector given the low ones' and the other way round, added."""
        # Means of the low and the high bins, then their maxima.
        halves = pooled[0].unflatten(1, (2, 2, -1)).unbind(dim=2)
        low, high = (
            functional.normalize(head(half.flatten(1)).float(), dim=1)
            for head, half in zip(self.heads, halves, strict=True)
        )
        tau = self.config.temperature
        if self.config.bank:
            pairs = ((low, self.high_bank), (high, self.low_bank))
            found = [bank.contrast(own, batch.rows, tau) for own, bank in pairs]
        else:
            found = [batch_contrast(low, high, tau), batch_contrast(high, low, tau)]
        figures = {
            "contrast_accuracy": (found[0].accuracy + found[1].accuracy) / 2,
            "chance": found[0].chance,
            "cosine": (low * high).sum(dim=1).mean().detach(),
            **health.projected(low),
        }
        kept = {"low": low.detach(), "high": high.detach(), "rows": batch.rows} if self.config.bank else {}
        return PretrainLoss(found[0].loss + found[1].loss, figures, kept)

    def after_update(self, kept: Mapping[str, torch.Tensor], done: float) -> None:
        """The rows of the recordings that were met move, each bank's by its own view."""
        if self.config.bank:
            self.low_bank.move(kept["rows"], kept["low"])
            self.high_bank.move(kept["rows"], kept["high"])
