"""One-way recurrent layers on log mel frames: the network of APC and of VQ-APC."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from upstreams._encoders.mel import MelEncoder


class MelGRU(MelEncoder):
    """Hidden states are the outputs of the GRU layers, residual connections included; time never runs backwards.

    Args:
        num_layers: GRUs, one above the other.
        hidden_size: of each.
        num_mel_bins: of each frame.
        dropout: behind each GRU.
        residual: whether a layer's input is added to its output, from the second layer on.
        window_type: of the spectrum, in Kaldi's words.
        cmvn: whether the frames of an utterance are brought to zero mean and unit deviation.
    """

    def __init__(
        self,
        num_layers: int,
        hidden_size: int,
        num_mel_bins: int = 80,
        *,
        dropout: float = 0.0,
        residual: bool = True,
        window_type: str = "hamming",
        cmvn: bool = True,
    ) -> None:
        super().__init__(num_mel_bins, window_type, cmvn)
        self.num_layers = num_layers
        self.hidden_size = hidden_size
        self.residual = residual
        inputs = [num_mel_bins] + [hidden_size] * (num_layers - 1)
        self.rnn_layers = nn.ModuleList(nn.GRU(size, hidden_size, batch_first=True) for size in inputs)
        self.dropout = nn.Dropout(dropout)

    @property
    def blocks(self) -> Sequence[nn.Module]:  # type: ignore[override]  # nobody sets it
        """See Upstream.trainable_blocks."""
        return list(self.rnn_layers)

    def layers(self, mel: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """See MelEncoder.layers. What comes behind the end of an utterance reaches none of its frames."""
        layers: list[torch.Tensor] = []
        for rnn in self.rnn_layers:
            inputs = layers[-1] if layers else mel
            outputs = self.dropout(rnn(inputs)[0])
            layers.append(outputs + inputs if layers and self.residual else outputs)
        return tuple(layers)
