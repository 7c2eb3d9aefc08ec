"""k nearest neighbours, weighted, with the numbers of Wu et al. (CVPR 2018, arXiv:1805.01978) as DINO has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from downstreams._base import register_head
from downstreams._probe import Probe


@dataclass(frozen=True)
class NeighboursOptions:
    """How neighbours vote.

    Attributes:
        neighbours: so many of train, or all where there are fewer; 20 was best of DINO's (arXiv:2104.14294).
        temperature: a neighbour's vote counts exp(cosine / temperature).
    """

    neighbours: int = 20
    temperature: float = 0.07


@register_head("nearest_neighbours")
class NearestNeighbours(Probe):
    """The label that the nearest recordings of train have, by cosine, the nearer the more it counts; not trained."""

    options_type = NeighboursOptions
    small_options: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"neighbours": 1})

    def predict(self, logits: torch.Tensor, lengths: torch.Tensor) -> list[Any]:
        """The label of all slots that has most votes."""
        nearest = logits.topk(min(self.options.neighbours, logits.shape[1]), dim=1)
        votes = logits.new_zeros(len(logits), len(self.classes))
        votes.scatter_add_(1, self.members[nearest.indices], (nearest.values / self.options.temperature).exp())
        return [self.labels.decode(row) for row in self.classes[votes.argmax(dim=1)].tolist()]
