"""A one-way recurrent layer on a front end: the frames, and what each of them and all before it say together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from core.errors import ContractError
from core.hidden_states import HiddenStates
from upstreams._encoders.network import Network

LAYERS = {"lstm": nn.LSTM, "gru": nn.GRU}


class RecurrentContext(nn.Module):
    """Hidden states are the front end's last layer and the recurrent layer's output, of one width.

    Args:
        front: a network that keeps the contract.
        recurrent: lstm or gru.

    Raises: ContractError: there is no such layer.
    """

    num_layers = 2

    def __init__(self, front: Network, recurrent: str) -> None:
        super().__init__()
        if recurrent not in LAYERS:
            raise ContractError(f"recurrent={recurrent}: must be one of {', '.join(LAYERS)}")
        self.front: Any = front
        self.hidden_size = front.hidden_size
        self.downsample_rate = front.downsample_rate
        self.min_samples = front.min_samples
        self.window_samples = front.window_samples
        self.recurrent = LAYERS[recurrent](front.hidden_size, front.hidden_size, batch_first=True)

    def frame_lengths(self, wav_lengths: torch.Tensor) -> torch.Tensor:
        """See Upstream.frame_lengths."""
        return self.front.frame_lengths(wav_lengths)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """See Upstream.trainable_blocks."""
        return [self.recurrent]

    def encode(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> HiddenStates:
        """See Upstream.encode. What comes behind the end of an utterance reaches none of its frames."""
        states = self.front.encode(wavs, wav_lengths)
        frames = states.layers[-1]
        return HiddenStates((frames, self.recurrent(frames)[0]), states.lengths)
