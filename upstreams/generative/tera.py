"""TERA: frames reconstructed that were altered in time, in channel and in magnitude (Liu et al., arXiv:2007.06028).

Mockingjay's network and its masks in time; masked bins ask for the speaker, noise on all frames for robustness.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from core.lengths import padding_mask
from upstreams._base import UpstreamCard, register_upstream
from upstreams._pretraining.contract import PretrainRecipe
from upstreams._pretraining.masks import mask_bins
from upstreams.generative.mockingjay import Mockingjay, MockingjayConfig


@dataclass(frozen=True)
class TeraConfig(MockingjayConfig):
    """Sizes of the network and of the alterations, any of which may be left out.

    Attributes:
        num_layers: blocks of the transformer.
        mask_proportion: of the frames that are altered in time; 0 alters none.
        mask_bins: bins that are masked in all frames of an utterance at most, 0 masks none.
        noise_probability: of an utterance to get noise on all of its frames. The authors draw once for a batch.
        noise_deviation: of that noise, in deviations of the utterance.
    """

    num_layers: int = 3
    mask_bins: int = 16  # a fifth of 80
    noise_probability: float = 0.15
    noise_deviation: float = 0.2


@register_upstream(
    UpstreamCard(
        name="tera", title="Reconstruction of altered times, channels and magnitudes", paper="arXiv:2007.06028"
    )
)
class Tera(Mockingjay):
    """See MelTransformer for what the hidden states are."""

    config_type = TeraConfig
    formerly_saved: ClassVar[tuple[str, ...]] = ()
    sizes: ClassVar[Mapping[str, TeraConfig]] = {
        "base": TeraConfig(),
        "tiny": TeraConfig(num_layers=3, hidden_size=256, num_heads=4, feedforward_size=1024),
    }
    recipes: ClassVar[Mapping[str, tuple[PretrainRecipe, ...]]] = {
        # 32 utterances of about 12 s an update.
        "base": (PretrainRecipe(steps=1_000_000, batch_seconds=400, learning_rate=2e-4, weight_decay=0.01),),
        "tiny": (PretrainRecipe(steps=260, batch_seconds=24, learning_rate=1e-3, weight_decay=0.01),),
    }

    def __init__(self, config: TeraConfig = TeraConfig()) -> None:
        super().__init__(config)

    def alter(
        self, mel: torch.Tensor, lengths: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See Mockingjay.alter. Noise alone asks for no reconstruction."""
        config = self.config
        cells, altered = torch.zeros_like(mel, dtype=torch.bool), mel
        if config.mask_proportion:
            cells, altered = super().alter(mel, lengths, generator)
        if config.mask_bins:
            bins = mask_bins(len(mel), mel.shape[2], config.mask_bins, generator).to(mel.device)[:, None]
            altered = altered.masked_fill(bins, 0)
            cells = cells | (bins & ~padding_mask(lengths, mel.shape[1])[:, :, None])
        if config.noise_probability:
            noisy = torch.rand(len(mel), generator=generator) < config.noise_probability
            noise = torch.randn(mel.shape, generator=generator) * config.noise_deviation * noisy[:, None, None]
            altered = altered + noise.to(mel)
        return cells, altered
