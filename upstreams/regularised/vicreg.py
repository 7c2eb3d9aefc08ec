"""VICReg: views alike, every dimension in use, no two dimensions alike (Bardes et al., ICLR 2022, arXiv:2105.04906).

Variance, invariance, covariance: the variance term is what keeps recordings apart, without negatives or a teacher.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch.nn import functional

from upstreams._base import UpstreamCard, register_upstream
from upstreams._pretraining import health
from upstreams._pretraining.contract import PretrainLoss, PretrainRecipe, TrainingBatch
from upstreams._pretraining.heads import mlp
from upstreams._pretraining.pooled import TINY, TINY_RECIPE, PooledConfig, PooledUpstream, base_recipe

VARIANCE_EPSILON = 1e-4
NARROW = 0.1  # mean deviation of the expanded vectors, of which 1 is wanted


@dataclass(frozen=True)
class VICRegConfig(PooledConfig):
    """Sizes of the network, views and the weights of the three terms, each of which may be 0.

    Attributes:
        expander: width of each layer behind the pooled vector; the last one's is best four times the clips of a batch,
            or the sampling noise of the covariance outweighs the variance term.
        invariance: weight of the distance between views.
        variance: weight of the term that wants every deviation to be 1.
        covariance: weight of the term that wants none between dimensions.
    """

    expander: tuple[int, ...] = (8192, 8192, 8192)
    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0


@register_upstream(
    UpstreamCard(
        name="vicreg",
        title="Views alike, dimensions in use and uncorrelated, convolutions",
        paper="arXiv:2105.04906",
    )
)
class VICReg(PooledUpstream):
    """See MelConv for what the hidden states are."""

    config_type = VICRegConfig
    sizes: ClassVar[Mapping[str, VICRegConfig]] = {
        "base": VICRegConfig(),
        "tiny": VICRegConfig(**TINY, expander=(256, 256, 256)),
    }
    recipes: ClassVar[Mapping[str, tuple[PretrainRecipe, ...]]] = {
        "base": (base_recipe(clips=2048, steps=625_000, weight_decay=1e-6, schedule="cosine"),),  # 1,000 epochs
        "tiny": (replace(TINY_RECIPE, steps=470, batch_seconds=64),),
    }

    def prepare(self, recipe: PretrainRecipe, recordings: int) -> None:
        """See TrainableUpstream.prepare."""
        self.expander = mlp([self.pooled_size, *self.config.expander], last_bias=False)

    def loss_of(
        self, pooled: Sequence[torch.Tensor], views: Sequence[torch.Tensor], batch: TrainingBatch
    ) -> PretrainLoss:
        """The weighted sum of the three terms."""
        first, second = (self.expander(each).float() for each in pooled)
        terms = vicreg_terms(first, second)
        config = self.config
        weights = (config.invariance, config.variance, config.covariance)
        loss = sum((weight * term for weight, term in zip(weights, terms.values(), strict=True)), first.new_zeros(()))
        figures = {name: term.detach() for name, term in terms.items()}
        figures["deviation"] = torch.cat([first, second]).detach().std(dim=0).mean()
        return PretrainLoss(loss, figures)

    def collapsed(self, figures: Mapping[str, float], done: float) -> str | None:
        """See TrainableUpstream.collapsed."""
        if figures["deviation"] < NARROW:
            return f"recordings all alike: the mean deviation of their vectors is {figures['deviation']:.3f}, not 1"
        return health.alike(figures)


def vicreg_terms(first: torch.Tensor, second: torch.Tensor) -> dict[str, torch.Tensor]:
    """Invariance, variance and covariance of two views (clips, size), as the published weights count them.

    Invariance is the mean square difference. Variance is half the sum over the views of the mean shortfall of the
    (unbiased) deviations below 1. Covariance is the sum over the views of the squared covariances off the diagonal,
    over the size, not halved.
    """
    shortfalls = [functional.relu(1 - (view.var(dim=0) + VARIANCE_EPSILON).sqrt()).mean() for view in (first, second)]
    covariances = []
    for view in (first, second):
        centred = view - view.mean(dim=0)
        matrix = centred.T @ centred / (len(view) - 1)
        covariances.append(off_diagonal_squares(matrix) / view.shape[1])
    return {
        "invariance": functional.mse_loss(first, second),
        "variance": (shortfalls[0] + shortfalls[1]) / 2,
        "covariance": covariances[0] + covariances[1],
    }


def off_diagonal_squares(matrix: torch.Tensor) -> torch.Tensor:
    """Sum of the squares of a square matrix besides its diagonal."""
    return (matrix - matrix.diagonal().diag()).square().sum()
