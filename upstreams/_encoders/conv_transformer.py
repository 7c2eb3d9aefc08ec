"""Hugging Face encoders of the wav2vec 2.0 shape (convolutions, then a transformer), made exact under padding.

transformers lets padding in at four places: a group norm over time takes its statistics from padded samples, models
published with `return_attention_mask: false` attend to padding, data2vec's stacked positional convolutions read frames
behind the end, and so does a positional convolution behind a batch norm, whose bias every zero becomes. Here each is
confined to the valid frames, so that an utterance has the same hidden states alone and in a batch; alone, nothing
differs from transformers.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from core.hidden_states import HiddenStates
from core.lengths import padding_mask
from upstreams._encoders.fingerprint import in_float64, rounded, second_of_noise

NORMALISATION_EPSILON = 1e-7  # Wav2Vec2FeatureExtractor's


class ValidGroupNorm(nn.GroupNorm):
    """A GroupNorm over (batch, channels, frames) whose statistics come from the valid frames alone.

    It shares the parameters of the norm in whose place it stands, under their names.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__(norm.num_groups, norm.num_channels, norm.eps)
        self.weight, self.bias = norm.weight, norm.bias
        self.lengths: list[int] = []

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Normalises each row over its own valid frames; frames behind them become zero."""
        if all(length == hidden.shape[2] for length in self.lengths):
            return super().forward(hidden)
        normed = torch.zeros_like(hidden)
        for row, length in enumerate(self.lengths):
            normed[row : row + 1, :, :length] = super().forward(hidden[row : row + 1, :, :length])
        return normed


def frames_after(kernels_and_strides: Sequence[tuple[int, int]], wav_lengths: torch.Tensor) -> torch.Tensor:
    """Valid frames behind convolutions: each one's own formula, one after the other."""
    for kernel, stride in kernels_and_strides:
        wav_lengths = (wav_lengths - kernel).div(stride, rounding_mode="floor") + 1
    return wav_lengths


class ConvTransformer(nn.Module):
    """A transformers model with convolutional front end, padding confined.

    Args:
        model: Wav2Vec2Model, HubertModel, WavLMModel, Data2VecAudioModel or a relative.
        do_normalize: whether a waveform is brought to zero mean and unit variance first.
        epsilon: added to that variance; fairseq and torchaudio have 1e-5.
    """

    window_samples = 1  # any length is computed as it is

    def __init__(self, model: Any, do_normalize: bool, epsilon: float = NORMALISATION_EPSILON) -> None:
        super().__init__()
        self.model = model
        self.do_normalize = do_normalize
        self.epsilon = epsilon
        self.kernels_and_strides = list(zip(model.config.conv_kernel, model.config.conv_stride, strict=True))
        first = model.feature_extractor.conv_layers[0]
        self.group_norm = None
        if isinstance(getattr(first, "layer_norm", None), nn.GroupNorm):
            self.group_norm = first.layer_norm = ValidGroupNorm(first.layer_norm).train(first.training)
        if getattr(model, "adapter", None) is not None:
            model.adapter = None  # added for fine-tuning; it would shorten and change the last hidden state
        self._mask: torch.Tensor | None = None
        positions = model.encoder.pos_conv_embed
        for layer in getattr(positions, "layers", ()):
            layer.register_forward_hook(self._confine)
        if getattr(positions, "batch_norm", None) is not None:
            positions.batch_norm.register_forward_hook(self._confine)

    def _confine(self, layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        assert self._mask is not None, "encode sets the mask before the model runs"
        return output.masked_fill(self._mask[:, None, :], 0)  # output: (batch, hidden_size, frames)

    def expect_no_padding(self, wavs: torch.Tensor) -> None:
        """Says of a batch that is given to the model itself, as in training, that all of it is valid."""
        self._mask = torch.zeros(
            len(wavs), int(self.frame_lengths(torch.tensor(wavs.shape[1]))), dtype=torch.bool, device=wavs.device
        )

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """See Upstream.trainable_blocks."""
        return list(self.model.encoder.layers)

    @property
    def num_layers(self) -> int:
        """The input of the first block, and the output of every block."""
        return int(self.model.config.num_hidden_layers) + 1

    @property
    def hidden_size(self) -> int:
        """Width of the transformer."""
        return int(self.model.config.hidden_size)

    @property
    def downsample_rate(self) -> int:
        """Product of the convolutions' strides."""
        rate = 1
        for _, stride in self.kernels_and_strides:
            rate *= stride
        return rate

    @property
    def min_samples(self) -> int:
        """Receptive field of one frame."""
        samples = 1
        for kernel, stride in reversed(self.kernels_and_strides):
            samples = (samples - 1) * stride + kernel
        return samples

    def frame_lengths(self, wav_lengths: torch.Tensor) -> torch.Tensor:
        """See frames_after."""
        return frames_after(self.kernels_and_strides, wav_lengths)

    def encode(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> HiddenStates:
        """See Upstream.encode."""
        lengths = self.frame_lengths(wav_lengths)
        if self.group_norm is not None:
            kernel, stride = self.kernels_and_strides[0]
            self.group_norm.lengths = ((wav_lengths - kernel).div(stride, rounding_mode="floor") + 1).tolist()
        self._mask = padding_mask(lengths, int(self.frame_lengths(torch.tensor(wavs.shape[1]))))
        with warnings.catch_warnings():
            # transformers' WavLM gives torch a bool and a float mask, which is what it means and is said each time.
            warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask and attn_mask")
            outputs = self.model(
                self._normalised(wavs, wav_lengths) if self.do_normalize else wavs,
                attention_mask=(~padding_mask(wav_lengths, wavs.shape[1])).long(),  # transformers: 1 is valid
                output_hidden_states=True,
            )
        if self.group_norm is not None:
            self.group_norm.lengths = []
        # transformers 5 records the last block before the encoder's final layer norm, transformers 4 after it, which
        # is what the field reports; where there is no final norm both are the same.
        return HiddenStates((*outputs.hidden_states[:-1], outputs.last_hidden_state), lengths)

    def fingerprint(self) -> list[str]:
        """What this version of transformers computes from a second of noise."""
        with in_float64(self):
            states = self.encode(*second_of_noise())
        return rounded(states.layers)

    def _normalised(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> torch.Tensor:
        normed = torch.zeros_like(wavs)
        for row, length in enumerate(wav_lengths.tolist()):
            wav = wavs[row, :length]
            normed[row, :length] = (wav - wav.mean()) / (wav.var(correction=0) + self.epsilon).sqrt()
        return normed
