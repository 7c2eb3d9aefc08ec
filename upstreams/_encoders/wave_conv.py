"""Convolutions on the waveform, a frame every 10 ms: the front end of CPC as its authors released it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from core.hidden_states import HiddenStates
from core.lengths import padding_mask

# Kernel, stride and padding on each side.
SHAPES = ((10, 5, 3), (8, 4, 2), (4, 2, 1), (4, 2, 1), (4, 2, 1))
NORM_EPSILON = 1e-5


class ChannelNorm(nn.Module):
    """Brings the channels of each frame to zero mean and unit (unbiased) deviation, then scales and shifts each.

    Args:
        channels: of a frame.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames (batch, channels, frames)."""
        variance, mean = torch.var_mean(frames, dim=1, keepdim=True)
        normed = (frames - mean) * torch.rsqrt(variance + NORM_EPSILON)
        return normed * self.weight[:, None] + self.bias[:, None]


class WaveConv(nn.Module):
    """The only hidden state is the output of the last convolution.

    What is behind the end of a recording is zero wherever a convolution reads it, as it is where the recording is
    alone.

    Args:
        channels: of every convolution.
    """

    num_layers = 1
    window_samples = 1
    downsample_rate = 160

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.hidden_size = channels
        inputs = [1] + [channels] * (len(SHAPES) - 1)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(size, channels, kernel, stride, padding)
            for size, (kernel, stride, padding) in zip(inputs, SHAPES, strict=True)
        )
        self.norms = nn.ModuleList(ChannelNorm(channels) for _ in SHAPES)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """See Upstream.trainable_blocks."""
        return list(self.convolutions)

    @property
    def min_samples(self) -> int:
        """As many as give a frame that sees samples alone, no padding."""
        samples = 1
        for kernel, stride, _ in reversed(SHAPES):
            samples = (samples - 1) * stride + kernel
        return samples

    def frame_lengths(self, wav_lengths: torch.Tensor) -> torch.Tensor:
        """See Upstream.frame_lengths."""
        for shape in SHAPES:
            wav_lengths = _after(wav_lengths, shape)
        return wav_lengths

    def encode(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> HiddenStates:
        """See Upstream.encode."""
        hidden, lengths = wavs[:, None], wav_lengths
        for convolution, norm, shape in zip(self.convolutions, self.norms, SHAPES, strict=True):
            if int(lengths.min()) < hidden.shape[2]:
                hidden = hidden.masked_fill(padding_mask(lengths, hidden.shape[2])[:, None], 0)
            hidden, lengths = functional.relu(norm(convolution(hidden))), _after(lengths, shape)
        return HiddenStates((hidden.transpose(1, 2),), lengths)


def _after(lengths: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    """Frames behind one convolution."""
    kernel, stride, padding = shape
    return (lengths + 2 * padding - kernel).div(stride, rounding_mode="floor") + 1
