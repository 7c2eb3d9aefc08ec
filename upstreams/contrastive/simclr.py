"""SimCLR: two views of a recording find each other among all views of the batch (Chen et al., arXiv:2002.05709).

Two relatives by option. Speech SimCLR (Jiang et al., arXiv:2010.13991) reconstructs the unaltered frames besides:
`reconstruction=1`. COLA (Saeed et al., arXiv:2010.10915) compares two pieces that are not altered by a bilinear form,
in one direction: `similarity=bilinear` with `strength=0`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn

from core.errors import ContractError
from upstreams._base import UpstreamCard, register_upstream
from upstreams._encoders.mel_conv import STRIDE
from upstreams._pretraining import health
from upstreams._pretraining.contract import PretrainLoss, PretrainRecipe, TrainingBatch
from upstreams._pretraining.contrast import batch_contrast, nt_xent
from upstreams._pretraining.heads import mlp
from upstreams._pretraining.pooled import TINY, TINY_RECIPE, PooledConfig, PooledUpstream, base_recipe

SIMILARITIES = ("cosine", "bilinear")


@dataclass(frozen=True)
class SimCLRConfig(PooledConfig):
    """Sizes of the network, views and the contrast.

    Attributes:
        projector: hidden and output size; a single one is a linear head.
        temperature: of the softmax over cosines; the bilinear form has none.
        similarity: cosine or bilinear.
        reconstruction: weight of the distance to the frames before they were altered.
    """

    projector: tuple[int, ...] = (2048, 128)
    temperature: float = 0.1
    similarity: str = "cosine"
    reconstruction: float = 0.0


class Bilinear(nn.Module):
    """COLA's similarity a' W b of every vector of one view with every one of the other.

    Args:
        size: of the vectors.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size)
        self.matrix = nn.Linear(size, size, bias=False)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries and keys whose dot products are the similarities."""
        return self.matrix(torch.tanh(self.norm(first))), torch.tanh(self.norm(second))


@register_upstream(
    UpstreamCard(name="simclr", title="Contrast of two views in a batch, convolutions", paper="arXiv:2002.05709")
)
class SimCLR(PooledUpstream):
    """See MelConv for what the hidden states are."""

    config_type = SimCLRConfig
    sizes: ClassVar[Mapping[str, SimCLRConfig]] = {
        "base": SimCLRConfig(),
        # Of 32 clips one or two others have the same voice: a low temperature would push these farthest.
        "tiny": SimCLRConfig(**TINY, projector=(256, 128), temperature=0.2),
    }
    recipes: ClassVar[Mapping[str, tuple[PretrainRecipe, ...]]] = {
        "base": (base_recipe(clips=4096, steps=312_500, schedule="cosine"),),  # 1,000 epochs of ImageNet
        "tiny": (replace(TINY_RECIPE, steps=920),),
    }

    def prepare(self, recipe: PretrainRecipe, recordings: int) -> None:
        """See TrainableUpstream.prepare.

        Raises: ContractError: there is no such similarity.
        """
        config = self.config
        if config.similarity not in SIMILARITIES:
            raise ContractError(f"similarity={config.similarity}: must be one of {', '.join(SIMILARITIES)}")
        self.projector = mlp([self.pooled_size, *config.projector], batch_norm=False)
        if config.similarity == "bilinear":
            self.bilinear = Bilinear(config.projector[-1])
        if config.reconstruction:
            self.frame_head = nn.Linear(config.hidden_size, STRIDE * config.num_mel_bins)

    def loss_of(
        self, pooled: Sequence[torch.Tensor], views: Sequence[torch.Tensor], batch: TrainingBatch
    ) -> PretrainLoss:
        """Cross-entropy of each view's partner."""
        first, second = (self.projector(each).float() for each in pooled)
        if self.config.similarity == "bilinear":
            queries, keys = self.bilinear(first, second)
            found = batch_contrast(queries, keys, temperature=1.0)
        else:
            found = nt_xent(first, second, self.config.temperature)
        return PretrainLoss(
            found.loss,
            {**found.figures(), "contrast": found.loss.detach(), **health.projected(torch.cat([first, second]))},
        )

    def frame_loss(self, frames: torch.Tensor, clean: torch.Tensor) -> PretrainLoss | None:
        """Mean distance of the unaltered frames, two of which a hidden frame stands for, from a linear map of it."""
        if not self.config.reconstruction:
            return None
        whole = clean.shape[1] // STRIDE
        wanted = clean[:, : whole * STRIDE].reshape(len(clean), whole, -1)
        distance = (self.frame_head(frames[:, :whole]) - wanted).abs().mean()
        return PretrainLoss(self.config.reconstruction * distance, {"reconstruction": distance.detach()})
