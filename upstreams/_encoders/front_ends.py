"""Transformers that read either the waveform, by a network of transformers', or log mel frames side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from core.errors import ContractError
from upstreams._encoders.conv_transformer import ConvTransformer
from upstreams._encoders.mel_transformer import MelTransformer
from upstreams._encoders.waveform import WaveformConfig

# Sizes that a core trains in minutes.
MEL_TINY: dict[str, Any] = {
    "front_end": "mel",
    "num_layers": 3,
    "hidden_size": 256,
    "num_heads": 4,
    "feedforward_size": 1024,
    "layer_drop": 0.0,
}


@dataclass(frozen=True)
class FrontEndConfig(WaveformConfig):
    """Sizes of the network and of the masking task.

    Attributes:
        front_end: waveform, which is the published one, or mel, which takes sizes of blocks, heads and dropout alone.
        num_mel_bins: of each mel frame.
        stack: mel frames of 10 ms that make one of the network's.
    """

    front_end: str = "waveform"
    num_mel_bins: int = 80
    stack: int = 2


def encoder_of(config: FrontEndConfig, network: Callable[[], Any]) -> MelTransformer | ConvTransformer:
    """The encoder with random weights.

    Args:
        config: sizes.
        network: makes the model that reads waveforms.

    Raises: ContractError: there is no such front end.
    """
    if config.front_end == "waveform":
        return ConvTransformer(network(), do_normalize=False)
    if config.front_end == "mel":
        return MelTransformer(
            config.num_layers,
            config.hidden_size,
            config.num_heads,
            config.feedforward_size,
            config.num_mel_bins,
            config.dropout,
            config.stack,
        )
    raise ContractError(f"front_end={config.front_end}: must be waveform or mel")
