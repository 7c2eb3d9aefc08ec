"""The featurizer: a learned softmax-weighted sum over an upstream's layers (SUPERB, arXiv:2105.01051)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class Featurizer(nn.Module):
    """Mixes the layers of hidden states.

    The sum is linear, so it commutes with the mean over time: fed with layer means it gives the mean of what it would
    give frame by frame. The optional layer norm does not, so it has to be done before the mean is taken.

    Args:
        num_layers: how many layers come in.
        normalise: layer-normalise every hidden state over its width, without gain or bias, before the sum.
    """

    def __init__(self, num_layers: int, normalise: bool = False) -> None:
        super().__init__()
        self.normalise = normalise
        self.weights = nn.Parameter(torch.zeros(num_layers))

    def forward(self, layers: torch.Tensor) -> torch.Tensor:
        """Weighted sum over the second last axis: (..., num_layers, hidden_size) -> (..., hidden_size)."""
        if self.normalise:
            layers = functional.layer_norm(layers, layers.shape[-1:])
        return self.layer_weights() @ layers

    def layer_weights(self) -> torch.Tensor:
        """The weights after softmax (num_layers,): they start equal and always sum to one."""
        return self.weights.softmax(dim=0)
