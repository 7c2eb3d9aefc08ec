"""What heads with one answer an utterance share: projector, pooling over time, a classifier, loss and prediction."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from downstreams._base import FeatureShape, Head
from downstreams._data import Targets, stacked
from downstreams.labels._base import Labels
from downstreams.labels.slots import SlotLabels


@dataclass(frozen=True)
class UtteranceOptions:
    """Sizes of the head."""

    projector_size: int = 256


class UtteranceHead(Head):
    """Linear -> pooling over the valid frames -> Linear over the classes of all slots."""

    labels: SlotLabels
    label_kind = SlotLabels
    options_type = UtteranceOptions
    small_options = ({"projector_size": 16},)

    def __init__(self, shape: FeatureShape, labels: Labels, options: Any) -> None:
        super().__init__(shape, labels, options)
        self.projector = nn.Linear(shape.hidden_size, options.projector_size)
        self.classifier = nn.Linear(options.projector_size, sum(labels.sizes))

    @abstractmethod
    def pool(self, hidden: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """One vector an utterance: (batch, frames, projector_size) -> (batch, projector_size)."""

    def forward(self, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Logits of all slots (batch, classes)."""
        return self.classifier(self.pool(self.projector(features), lengths))

    def loss(self, logits: torch.Tensor, lengths: torch.Tensor, targets: Targets) -> torch.Tensor:
        """Sum over the slots of the mean cross-entropy."""
        classes = stacked(targets).to(logits.device)  # (batch, slots)
        slots = logits.split(self.labels.sizes, dim=1)
        losses = [functional.cross_entropy(slot, classes[:, index]) for index, slot in enumerate(slots)]
        return torch.stack(losses).sum()

    def predict(self, logits: torch.Tensor, lengths: torch.Tensor) -> list[Any]:
        """The best class of every slot."""
        best = torch.stack([slot.argmax(dim=1) for slot in logits.split(self.labels.sizes, dim=1)], dim=1)
        return [self.labels.decode(row) for row in best.tolist()]
