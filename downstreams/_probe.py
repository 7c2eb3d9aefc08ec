"""What probes share: heads that are not trained, and judge where the recordings of train lie by themselves.

Recordings are compared by the cosine of their means over time, after every dimension was standardised over train: a few
dimensions of large values would decide alone otherwise (Timkey & van Schijndel, EMNLP 2021, arXiv:2109.04404).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn import functional

from core.lengths import mean_over_valid
from downstreams._base import FeatureShape, Head
from downstreams.labels._base import Labels
from downstreams.labels.slots import SlotLabels


@dataclass(frozen=True)
class ProbeOptions:
    """None."""


class Probe(Head):
    """Points that recordings are compared with; the labels of all slots together are a class.

    Attributes:
        mean, deviation: of every dimension over train (hidden_size,).
        points: what train has come to, float16 (points, hidden_size): 138,361 recordings of VoxCeleb1 take 0.2 GB.
        classes: the different labels of train, as class ids of the slots (classes, slots).
        members: the class of each recording of train (utterances,).
    """

    labels: SlotLabels
    needs = "pooled"
    trains = False
    label_kind = SlotLabels
    options_type: ClassVar[type[Any]] = ProbeOptions
    mean: torch.Tensor
    deviation: torch.Tensor
    points: torch.Tensor
    classes: torch.Tensor
    members: torch.Tensor

    def __init__(self, shape: FeatureShape, labels: Labels, options: Any) -> None:
        super().__init__(shape, labels, options)
        self.register_buffer("mean", torch.zeros(shape.hidden_size))
        self.register_buffer("deviation", torch.ones(shape.hidden_size))
        self.register_buffer("points", torch.zeros(0, shape.hidden_size, dtype=torch.float16))
        self.register_buffer("classes", torch.zeros(0, len(labels.sizes), dtype=torch.int64))
        self.register_buffer("members", torch.zeros(0, dtype=torch.int64))

    def fit(self, features: torch.Tensor, targets: torch.Tensor, seed: int) -> None:
        """See Head.fit."""
        deviation = features.std(dim=0, correction=0)
        self.mean, self.deviation = features.mean(dim=0), deviation.where(deviation > 0, torch.ones_like(deviation))
        self.classes, self.members = targets.unique(dim=0, return_inverse=True)
        self.points = self.points_of(self._directions(features), seed).half()

    def points_of(self, directions: torch.Tensor, seed: int) -> torch.Tensor:
        """What recordings are compared with: those of train (utterances, hidden_size), each of length 1."""
        return directions

    def forward(self, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Products with the points (batch, points): of recordings of train the cosines."""
        directions = self._directions(mean_over_valid(features, lengths))
        return directions @ self.points.to(directions.dtype).T

    def _directions(self, means: torch.Tensor) -> torch.Tensor:
        return functional.normalize((means - self.mean) / self.deviation, dim=1)
