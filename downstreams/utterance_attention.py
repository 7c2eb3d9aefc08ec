"""One linear classifier on an attentive mean over time: self-attentive pooling (Safari et al., arXiv:2008.01077)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from core.lengths import padding_mask
from downstreams._base import FeatureShape, register_head
from downstreams._utterance import UtteranceHead
from downstreams.labels._base import Labels


@register_head("utterance_attention")
class UtteranceAttention(UtteranceHead):
    """Linear -> mean over valid frames, weighted by a learned softmax -> Linear over the classes of all slots.

    As s3prl's attentive pooling on an utterance alone. In a batch s3prl adds its 0/1 mask to the scores, which leaves
    padding a weight; here padding has none. Its score has a bias besides, which the softmax cancels.
    """

    needs = "frames"

    def __init__(self, shape: FeatureShape, labels: Labels, options: Any) -> None:
        super().__init__(shape, labels, options)
        self.attention = nn.Linear(options.projector_size, options.projector_size)
        self.score = nn.Linear(options.projector_size, 1, bias=False)

    def pool(self, hidden: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """The weighted mean over the valid frames."""
        mask = padding_mask(lengths, hidden.shape[1])[:, :, None]
        scores = self.score(self.attention(hidden).relu())  # (batch, frames, 1)
        weights = scores.masked_fill(mask, -torch.inf).softmax(dim=1)
        return (weights * hidden.masked_fill(mask, 0)).sum(dim=1)
