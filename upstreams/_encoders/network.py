"""What a network has to offer to stand behind an upstream, and the upstream that adds nothing to one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from core.audio import SAMPLE_RATE
from core.hidden_states import HiddenStates
from upstreams._base import Upstream


class Network(Protocol):
    """A torch module with the four sizes of an upstream, `encode` and `frame_lengths`."""

    @property
    def num_layers(self) -> int:
        """See Upstream."""

    @property
    def hidden_size(self) -> int:
        """See Upstream."""

    @property
    def downsample_rate(self) -> int:
        """See Upstream."""

    @property
    def min_samples(self) -> int:
        """See Upstream."""

    @property
    def window_samples(self) -> int:
        """See Upstream."""

    @property
    def blocks(self) -> Iterable[nn.Module]:
        """See Upstream.trainable_blocks."""

    def frame_lengths(self, wav_lengths: torch.Tensor) -> torch.Tensor:
        """See Upstream.frame_lengths."""

    def encode(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> HiddenStates:
        """See Upstream.encode."""


def take_sizes(upstream: Upstream, network: Network) -> None:
    """Gives an upstream the sizes of the network behind it."""
    upstream.num_layers = network.num_layers
    upstream.hidden_size = network.hidden_size
    upstream.downsample_rate = network.downsample_rate
    upstream.min_samples = network.min_samples
    upstream.window_samples = network.window_samples
    upstream.sample_rate = getattr(network, "sample_rate", SAMPLE_RATE)


class NetworkUpstream(Upstream):
    """An upstream whose work is done by a network. A subclass writes `from_checkpoint`.

    Args:
        network: the loaded model.
        label: the name in tables.
        config: all that shapes the output besides the weights.
    """

    def __init__(self, network: Network, label: str, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.network = network
        self.label = label
        self.config = config
        take_sizes(self, network)

    def configuration(self) -> Mapping[str, Any]:
        """See Upstream.configuration. Of a network whose code is a library's, what it computes is part of it."""
        fingerprint = getattr(self.network, "fingerprint", None)
        return self.config if fingerprint is None else {**self.config, "fingerprint": fingerprint()}

    def trainable_blocks(self) -> Sequence[nn.Module]:
        """See Upstream.trainable_blocks."""
        return tuple(self.network.blocks)

    def frame_lengths(self, wav_lengths: torch.Tensor) -> torch.Tensor:
        """See Upstream.frame_lengths."""
        return self.network.frame_lengths(wav_lengths)

    def encode(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> HiddenStates:
        """See Upstream.encode."""
        return self.network.encode(wavs, wav_lengths)
