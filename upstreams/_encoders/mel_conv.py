"""Residual convolutions on log mel frames, every 20 ms a frame: the small network of losses on whole recordings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional

from core.hidden_states import HiddenStates
from core.lengths import padding_mask
from upstreams._encoders import kaldi
from upstreams._encoders.mel import MelEncoder

STRIDE = 2
STEM_KERNEL = 5
BLOCK_KERNEL = 3
# How the frames (frames, bins) of one recording are brought to a common level.
NORMALISATIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "level": kaldi.level,
    "cmvn": kaldi.cmvn,
    "none": lambda mel: mel,
}


class Residual(nn.Module):
    """Adds to frames what two convolutions, the first of which reads their neighbours, make of them.

    Args:
        channels: of the frames.
        dilation: distance of the neighbours.
        causal: whether only earlier neighbours are read.
    """

    def __init__(self, channels: int, dilation: int, causal: bool) -> None:
        super().__init__()
        reach = (BLOCK_KERNEL - 1) * dilation
        self.padding = (reach, 0) if causal else (reach // 2, reach // 2)
        self.norm = nn.LayerNorm(channels)
        self.convolution = nn.Conv1d(channels, channels, BLOCK_KERNEL, dilation=dilation)
        self.pointwise = nn.Conv1d(channels, channels, 1)

    def forward(self, frames: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Frames (batch, frames, channels); mask (batch, frames, 1), True on padding, None if there is none."""
        hidden = self.norm(frames)
        if mask is not None:
            hidden = hidden.masked_fill(mask, 0)  # what a recording alone reads behind its end
        hidden = self.convolution(functional.pad(hidden.transpose(1, 2), self.padding))
        return frames + self.pointwise(functional.gelu(hidden)).transpose(1, 2)


class StridedMelEncoder(MelEncoder):
    """A network on log mel frames that makes one hidden frame of two, 20 ms each.

    Args:
        num_mel_bins: of each frame that is read.
        normalise: a name of NORMALISATIONS.
    """

    downsample_rate = STRIDE * kaldi.HOP_LENGTH

    def __init__(self, num_mel_bins: int, normalise: str) -> None:
        super().__init__(num_mel_bins, cmvn=False)
        self.normalise = NORMALISATIONS[normalise]

    def frame_lengths(self, wav_lengths: torch.Tensor) -> torch.Tensor:
        """See Upstream.frame_lengths."""
        return strided(super().frame_lengths(wav_lengths))

    def encode(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> HiddenStates:
        """See Upstream.encode."""
        mel = self.mel(wavs, wav_lengths)
        return HiddenStates(self.layers(mel.layers[0], mel.lengths), strided(mel.lengths))

    def mel_of_one(self, wav: torch.Tensor) -> torch.Tensor:
        """See MelEncoder.mel_of_one."""
        return self.normalise(self.spectrum_of_one(wav))


class MelConv(StridedMelEncoder):
    """Hidden states are the output of the stem and of every block, the last one behind a layer norm.

    Norms go over the channels of one frame, and frames behind the end of a recording are zero wherever a convolution
    reads them, as they are where the recording is alone: padding changes nothing.

    Args:
        channels: of every layer.
        dilations: one a block; (1, 1, 2, 2, 4) see 0.42 s.
        num_mel_bins: of each frame that is read.
        normalise: a name of NORMALISATIONS.
        causal: whether a frame sees nothing behind it.
    """

    def __init__(
        self,
        channels: int,
        dilations: Sequence[int] = (1, 1, 2, 2, 4),
        num_mel_bins: int = 80,
        normalise: str = "level",
        causal: bool = False,
    ) -> None:
        super().__init__(num_mel_bins, normalise)
        self.num_layers = len(dilations) + 1
        self.hidden_size = channels
        self.stem_padding = (STEM_KERNEL - 1, 0) if causal else (STEM_KERNEL // 2, STEM_KERNEL // 2)
        self.stem = nn.Conv1d(num_mel_bins, channels, STEM_KERNEL, stride=STRIDE)
        self.stem_norm = nn.LayerNorm(channels)
        self.blocks = nn.ModuleList(Residual(channels, dilation, causal) for dilation in dilations)
        self.final_norm = nn.LayerNorm(channels)

    def layers(self, mel: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """See MelEncoder.layers; the hidden states have half as many frames."""
        hidden = self.stem(functional.pad(mel.transpose(1, 2), self.stem_padding)).transpose(1, 2)
        layers = [self.stem_norm(functional.gelu(hidden))]
        frames = strided(lengths)
        mask = padding_mask(frames, hidden.shape[1])[:, :, None] if int(frames.min()) < hidden.shape[1] else None
        for block in self.blocks:
            layers.append(block(layers[-1], mask))
        return (*layers[:-1], self.final_norm(layers[-1]))


class SplitMelConv(StridedMelEncoder):
    """Two networks, one on the low and one on the high bins; a hidden state is that of both side by side.

    Args:
        channels: of both together.
        low_bins: how many bins the first one reads.
        dilations: see MelConv.
        num_mel_bins: of each frame that is read.
        normalise: see MelConv; bins are normalised before they are split.
    """

    def __init__(
        self, channels: int, low_bins: int, dilations: Sequence[int], num_mel_bins: int = 80, normalise: str = "level"
    ) -> None:
        super().__init__(num_mel_bins, normalise)
        self.num_layers = len(dilations) + 1
        self.hidden_size = 2 * (channels // 2)
        self.low_bins = low_bins
        self.low = MelConv(channels // 2, dilations, low_bins)
        self.high = MelConv(channels // 2, dilations, num_mel_bins - low_bins)

    @property
    def blocks(self) -> Sequence[nn.Module]:  # type: ignore[override]  # nobody sets it
        """See Upstream.trainable_blocks."""
        return [nn.ModuleList(pair) for pair in zip(self.low.blocks, self.high.blocks, strict=True)]

    def layers(self, mel: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """See MelConv.layers."""
        low = self.low.layers(mel[:, :, : self.low_bins], lengths)
        high = self.high.layers(mel[:, :, self.low_bins :], lengths)
        return tuple(torch.cat(pair, dim=2) for pair in zip(low, high, strict=True))


def strided(lengths: torch.Tensor) -> torch.Tensor:
    """How many frames the stem makes of so many mel frames."""
    return (lengths - 1).div(STRIDE, rounding_mode="floor") + 1
