"""One linear classifier on the mean over time: SUPERB's head for KS, SID, IC and ER (arXiv:2105.01051)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from core.lengths import mean_over_valid
from downstreams._base import FeatureShape, Head, register_head
from downstreams._labels import Labels, SlotLabels


@dataclass(frozen=True)
class UtteranceLinearOptions:
    """Sizes of the head."""

    projector_size: int = 256


@register_head("utterance_linear")
class UtteranceLinear(Head):
    """Linear -> mean over valid frames -> Linear over the classes of all slots. No activation anywhere.

    Both layers and the mean are linear, so the mean over time may as well be taken first: that is what "pooled" means.
    """

    needs = "pooled"
    label_kind = SlotLabels
    options_type = UtteranceLinearOptions

    def __init__(self, shape: FeatureShape, labels: Labels, options: Any) -> None:
        super().__init__(shape, labels, options)
        self.projector = nn.Linear(shape.hidden_size, options.projector_size)
        self.classifier = nn.Linear(options.projector_size, sum(labels.sizes))

    def forward(self, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Logits of all slots (batch, classes)."""
        return self.classifier(mean_over_valid(self.projector(features), lengths))

    def loss(self, logits: torch.Tensor, lengths: torch.Tensor, targets: Sequence[torch.Tensor]) -> torch.Tensor:
        """Sum over the slots of the mean cross-entropy."""
        stacked = torch.stack(list(targets)).to(logits.device)  # (batch, slots)
        slots = logits.split(self.labels.sizes, dim=1)
        losses = [functional.cross_entropy(slot, stacked[:, index]) for index, slot in enumerate(slots)]
        return torch.stack(losses).sum()

    def predict(self, logits: torch.Tensor, lengths: torch.Tensor) -> list[Any]:
        """The best class of every slot."""
        best = torch.stack([slot.argmax(dim=1) for slot in logits.split(self.labels.sizes, dim=1)], dim=1)
        return [self.labels.decode(row) for row in best.tolist()]
