"""A bidirectional LSTM on padded batches, several times as fast as torch's packed one on a CPU."""

from __future__ import annotations

import torch
from torch import nn


class BidirectionalLSTM(nn.Module):
    """Two LSTMs, the second reading each utterance from its own end.

    Same result as PyTorch's packed bidirectional LSTM on the valid frames, but several times faster on a CPU: packed
    sequences leave the fused kernels, and reversing by length keeps padding out of the backward direction as well.
    """

    def __init__(self, input_size: int, size: int) -> None:
        super().__init__()
        self.forth = nn.LSTM(input_size, size, batch_first=True)
        self.back = nn.LSTM(input_size, size, batch_first=True)

    def forward(self, hidden: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """(batch, frames, input_size) -> (batch, frames, 2 * size); values on padding mean nothing."""
        places = torch.arange(hidden.shape[1], device=hidden.device)[None, :]
        ends = lengths.to(hidden.device)[:, None]
        reversal = torch.where(places < ends, ends - 1 - places, places)[:, :, None]
        back = self.back(hidden.gather(1, reversal.expand_as(hidden)))[0]
        return torch.cat([self.forth(hidden)[0], back.gather(1, reversal.expand_as(back))], dim=2)
