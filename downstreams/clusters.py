"""Clustering: k-means of train with as many clusters as labels, test by V-measure (Rosenberg & Hirschberg, 2007)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.cluster.vq import kmeans2

from downstreams._base import register_head
from downstreams._probe import Probe


@dataclass(frozen=True)
class ClustersOptions:
    """How clusters are found.

    Attributes:
        starts: k-means is begun so often, and the one with the smallest squared distances is kept.
        iterations: of each.
    """

    starts: int = 5
    iterations: int = 30


@register_head("clusters")
class Clusters(Probe):
    """The nearest of so many clusters of train as it has labels, which nobody tells it; not trained."""

    options_type = ClustersOptions
    metrics: ClassVar[tuple[str, ...]] = ("v_measure",)

    def points_of(self, directions: torch.Tensor, seed: int) -> torch.Tensor:
        """The centres: k-means++ (Arthur & Vassilvitskii, SODA 2007), then Lloyd's iterations."""
        data, rng = directions.double().cpu().numpy(), np.random.default_rng(seed)
        found: list[tuple[float, int, np.ndarray]] = []
        for _ in range(self.options.starts):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # a cluster that became empty stays where it was
                centres, nearest = kmeans2(
                    data, len(self.classes), self.options.iterations, minit="++", missing="warn", rng=rng
                )
            found.append((float(np.square(data - centres[nearest]).sum()), len(found), centres))
        return torch.from_numpy(min(found)[2]).to(directions)

    def predict(self, logits: torch.Tensor, lengths: torch.Tensor) -> list[Any]:
        """The number of the cluster whose centre is nearest."""
        half_squares = self.points.to(logits.dtype).square().sum(dim=1) / 2
        found: list[Any] = (logits - half_squares).argmax(dim=1).tolist()
        return found
