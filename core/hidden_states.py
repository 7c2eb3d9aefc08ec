"""What an upstream returns: one tensor a layer, and how many of their frames are valid."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from core.lengths import mean_over_valid


@dataclass(frozen=True)
class HiddenStates:
    """Hidden states of a padded batch.

    Attributes:
        layers: one float tensor (batch, frames, hidden_size) a layer; in a transformer index 0 feeds block 1.
        lengths: valid frames, int64 (batch,).
    """

    layers: tuple[torch.Tensor, ...]
    lengths: torch.Tensor

    def stacked(self) -> torch.Tensor:
        """All layers in one tensor (batch, frames, num_layers, hidden_size)."""
        return torch.stack(self.layers, dim=2)

    def pooled(self) -> torch.Tensor:
        """Mean over the valid frames of each layer (batch, num_layers, hidden_size)."""
        return torch.stack([mean_over_valid(layer, self.lengths) for layer in self.layers], dim=1)
