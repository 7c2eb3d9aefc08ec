"""Convolutions on the waveform and causal convolutions on what they give: the network of wav2vec and vq-wav2vec."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from core.errors import ContractError
from core.hidden_states import HiddenStates
from core.lengths import padding_mask
from upstreams._encoders.conv_transformer import frames_after

NORM_EPSILON = 1e-5
ACTIVATIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {"relu": functional.relu, "gelu": functional.gelu}
NORMS = ("group", "channel")


@dataclass(frozen=True)
class WaveContextConfig:
    """Sizes of the network.

    Attributes:
        channels: of every convolution.
        conv_kernels: of those on the waveform.
        conv_strides: their product is the width of a frame in samples.
        context_kernels: of the causal ones.
        norm: group brings all channels and all time of a recording to one mean and deviation together, as published;
            channel the channels of each frame.
        activation: relu or gelu.
        log_compression: whether frames become the logarithm of their size and 1, as wav2vec's do.
    """

    channels: int = 512
    conv_kernels: tuple[int, ...] = (10, 8, 4, 4, 4, 1, 1)
    conv_strides: tuple[int, ...] = (5, 4, 2, 2, 2, 1, 1)
    context_kernels: tuple[int, ...] = tuple(range(2, 14))
    norm: str = "group"
    activation: str = "relu"
    log_compression: bool = True


class ValidNorm(nn.Module):
    """A norm over the channels of valid frames: of all of a recording's together, or of each frame by itself.

    Args:
        channels: each has a scale and a bias.
        over_time: whether a recording's frames have one mean and deviation.
        groups: of channels, each with statistics of its own.
    """

    def __init__(self, channels: int, over_time: bool, groups: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.over_time = over_time
        self.groups = groups

    def forward(self, frames: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Frames (batch, channels, frames), of which `valid`, bool (batch, 1, frames), count."""
        parts = frames.unflatten(1, (self.groups, -1))
        dims = (2, 3) if self.over_time else (2,)
        counted = valid[:, None].to(frames)
        count = (counted.sum(dim=3, keepdim=True) if self.over_time else 1) * parts.shape[2]
        kept = parts * counted if self.over_time else parts
        mean = kept.sum(dim=dims, keepdim=True) / count
        apart = (parts - mean) * counted if self.over_time else parts - mean
        variance = apart.square().sum(dim=dims, keepdim=True) / count
        normed = ((parts - mean) * torch.rsqrt(variance + NORM_EPSILON)).flatten(1, 2)
        return normed * self.weight[:, None] + self.bias[:, None]


class WaveContext(nn.Module):
    """Hidden states are the frames of the first convolutions, and the context of the causal ones.

    A subclass may put something between the two.

    Args:
        config: sizes.

    Raises: ContractError: a norm or an activation that there is not.
    """

    window_samples = 1

    def __init__(self, config: WaveContextConfig) -> None:
        super().__init__()
        if config.norm not in NORMS or config.activation not in ACTIVATIONS:
            raise ContractError(
                f"norm={config.norm}, activation={config.activation}: must be one of {', '.join(NORMS)}, and one of "
                f"{', '.join(ACTIVATIONS)}"
            )
        size, over_time = config.channels, config.norm == "group"
        self.num_layers = 2
        self.hidden_size = size
        self.kernels_and_strides = list(zip(config.conv_kernels, config.conv_strides, strict=True))
        self.downsample_rate = math.prod(config.conv_strides)
        self.activation = ACTIVATIONS[config.activation]
        self.log_compression = config.log_compression
        inputs = [1] + [size] * (len(self.kernels_and_strides) - 1)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width, size, kernel, stride, bias=False)
            for width, (kernel, stride) in zip(inputs, self.kernels_and_strides, strict=True)
        )
        self.norms = nn.ModuleList(ValidNorm(size, over_time) for _ in inputs)
        self.context_kernels = config.context_kernels
        self.context = nn.ModuleList(nn.Conv1d(size, size, kernel) for kernel in config.context_kernels)
        self.context_norms = nn.ModuleList(ValidNorm(size, over_time) for _ in config.context_kernels)

    @property
    def min_samples(self) -> int:
        """Receptive field of one frame."""
        samples = 1
        for kernel, stride in reversed(self.kernels_and_strides):
            samples = (samples - 1) * stride + kernel
        return samples

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """See Upstream.trainable_blocks."""
        return list(self.context)

    def frame_lengths(self, wav_lengths: torch.Tensor) -> torch.Tensor:
        """See Upstream.frame_lengths."""
        return frames_after(self.kernels_and_strides, wav_lengths)

    def encode(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> HiddenStates:
        """See Upstream.encode."""
        frames, lengths = self.frames(wavs, wav_lengths)
        return HiddenStates((frames, self.contexts(frames, lengths)), lengths)

    def frames(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the convolutions on the waveform give, (batch, frames, channels), and valid frames, int64 (batch,)."""
        hidden, lengths = wavs[:, None], wav_lengths
        for convolution, norm, shape in zip(self.convolutions, self.norms, self.kernels_and_strides, strict=True):
            hidden, lengths = convolution(hidden), frames_after([shape], lengths)
            hidden = self.activation(norm(hidden, _valid(lengths, hidden)))
        if self.log_compression:
            hidden = (hidden.abs() + 1).log()
        return hidden.transpose(1, 2), lengths

    def contexts(self, frames: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """The context of each frame, (batch, frames, channels); it sees that frame and earlier ones."""
        hidden = frames.transpose(1, 2)
        valid = _valid(lengths, hidden)
        for kernel, convolution, norm in zip(self.context_kernels, self.context, self.context_norms, strict=True):
            padded = functional.pad(hidden, (kernel - 1, 0), mode="replicate")
            hidden = (self.activation(norm(convolution(padded), valid)) + hidden) * math.sqrt(0.5)
        return hidden.transpose(1, 2)


def _valid(lengths: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    return ~padding_mask(lengths, hidden.shape[2])[:, None]


def first_target(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """How many frames ahead the first lies whose samples the frame itself has not seen."""
    samples = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        samples = (samples - 1) * stride + kernel
    return math.ceil(samples / math.prod(strides))
