"""Neural audio codecs of transformers as encoders: what they compute before anything is decoded.

EnCodec and DAC have convolutions of growing width and falling rate, of which the last output alone can stand beside
others: hidden states are these latents, and what the decoder is given in their place with few and with more codebooks.
Mimi has a transformer behind its convolutions, whose states are those of any transformer; its latents behind that run
at half the rate. Every utterance is computed alone: convolutions mirror or pad what is at the end.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import nn

from upstreams.pretrained._each_alone import EachAlone


class States(NamedTuple):
    """What transformers' models return, as far as it is asked for."""

    last_hidden_state: torch.Tensor
    hidden_states: tuple[torch.Tensor, ...]


class _EncoderOnly(nn.Module, ABC):
    """What a codec computes until it would decode: the parts that files have under `encoder` and the like."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        config._attn_implementation = "sdpa"  # which transformers decides for whole models only
        self.config = config

    def forward(self, input_values: torch.Tensor, output_hidden_states: bool = True) -> States:
        """A waveform (1, samples) at the codec's rate -> all hidden states (1, frames, hidden_size)."""
        assert output_hidden_states, "there is nothing else to give"
        layers = tuple(self.layers(input_values[:, None]))
        return States(layers[-1], layers)

    @abstractmethod
    def layers(self, waveform: torch.Tensor) -> list[torch.Tensor]:
        """(1, 1, samples) -> hidden states."""

    @abstractmethod
    def blocks(self) -> Iterable[nn.Module]:
        """See Upstream.trainable_blocks."""


class EncodecStates(_EncoderOnly):
    """EnCodec's latents, and their sums of code vectors at each bandwidth that it was trained for."""

    def __init__(self, config: Any) -> None:
        from transformers.models.encodec.modeling_encodec import EncodecEncoder, EncodecResidualVectorQuantizer

        super().__init__(config)
        self.encoder = EncodecEncoder(config)
        self.quantizer = EncodecResidualVectorQuantizer(config)
        counts = map(self.quantizer.get_num_quantizers_for_bandwidth, config.target_bandwidths)
        self.counts = sorted({min(count, len(self.quantizer.layers)) for count in counts})

    def layers(self, waveform: torch.Tensor) -> list[torch.Tensor]:
        """See _EncoderOnly.layers. Codes of few codebooks are the first of those of more."""
        latents = self.encoder(waveform)  # (1, hidden_size, frames)
        codes = self.quantizer.encode(latents)  # (codebooks, 1, frames)
        quantised = [self.quantizer.decode(codes[:count]) for count in self.counts]
        return [layer.transpose(1, 2) for layer in (latents, *quantised)]

    def blocks(self) -> Iterable[nn.Module]:
        """See _EncoderOnly.blocks."""
        return [layer for layer in self.encoder.layers if any(True for _ in layer.parameters())]


class DacStates(_EncoderOnly):
    """DAC's latents, and their sums of code vectors of one codebook, of two, and so on."""

    def __init__(self, config: Any) -> None:
        from transformers.models.dac.modeling_dac import DacEncoder, DacResidualVectorQuantizer

        super().__init__(config)
        self.encoder = DacEncoder(config)
        self.quantizer = DacResidualVectorQuantizer(config)
        self.counts = list(range(1, config.n_codebooks + 1))

    def layers(self, waveform: torch.Tensor) -> list[torch.Tensor]:
        """See _EncoderOnly.layers."""
        latents = self.encoder(waveform)  # (1, hidden_size, frames)
        quantised = [self.quantizer(latents, count)[0] for count in self.counts]
        return [layer.transpose(1, 2) for layer in (latents, *quantised)]

    def blocks(self) -> Iterable[nn.Module]:
        """See _EncoderOnly.blocks."""
        return list(self.encoder.block)


class MimiStates(_EncoderOnly):
    """The input of the first block of Mimi's encoder transformer, and the output of every block."""

    def __init__(self, config: Any) -> None:
        from transformers.models.mimi.modeling_mimi import MimiEncoder, MimiTransformerModel

        super().__init__(config)
        self.encoder = MimiEncoder(config)
        self.encoder_transformer = MimiTransformerModel(config)
        self.counts = list(range(config.num_hidden_layers))

    def layers(self, waveform: torch.Tensor) -> list[torch.Tensor]:
        """See _EncoderOnly.layers."""
        states = [self.encoder(waveform).transpose(1, 2)]  # (1, frames, hidden_size)

        def keep(block: nn.Module, inputs: object, output: Any) -> None:
            states.append(output[0] if isinstance(output, tuple) else output)

        hooks = [block.register_forward_hook(keep) for block in self.encoder_transformer.layers]
        try:
            self.encoder_transformer(states[0])
        finally:
            for hook in hooks:
                hook.remove()
        return states

    def blocks(self) -> Iterable[nn.Module]:
        """See _EncoderOnly.blocks."""
        return list(self.encoder_transformer.layers)


def of_encodec(model: Any, extractor: Any) -> EachAlone:
    """EnCodec and Mimi, whose convolutions fill up the last frame themselves."""
    return _of_frames(model, _product(model.config.upsampling_ratios), lambda wav: wav)


def of_dac(model: Any, extractor: Any) -> EachAlone:
    """DAC, whose feature extractor fills up the last frame with zeros."""
    hop = _product(model.config.downsampling_ratios)
    return _of_frames(model, hop, lambda wav: nn.functional.pad(wav, (0, -len(wav) % hop)))


def _of_frames(model: Any, hop: int, filled: Callable[[torch.Tensor], torch.Tensor]) -> EachAlone:
    def frames(wav_lengths: torch.Tensor) -> torch.Tensor:
        return (wav_lengths - 1).div(hop, rounding_mode="floor") + 1

    return EachAlone(
        model,
        lambda wav: {"input_values": filled(wav)[None]},
        frames,
        hop,
        hop,  # of less, most of the only frame would be padding
        num_layers=len(model.counts) + 1,
        blocks_of=lambda codec: codec.blocks(),
    )


def _product(ratios: Any) -> int:
    product = 1
    for ratio in ratios:
        product *= int(ratio)
    return product
