"""Whisper's encoder (Radford et al., 2022, arXiv:2212.04356) as an upstream.

It always reads 30 seconds: shorter utterances are padded with silence, which is how it was trained, so a batch changes
nothing. Frames that begin behind the end are cut off. Longer utterances are read in windows of 30 seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from core.audio import SAMPLE_RATE
from core.hidden_states import HiddenStates
from core.lengths import pad, unpad
from upstreams._base import full_precision
from upstreams._encoders.fingerprint import (
    PROBE_FRAMES,
    fixed_noise,
    in_float64,
    mel_bands,
    rounded,
    second_of_noise,
)


class WhisperEncoder(nn.Module):
    """The encoder half of a WhisperModel with its feature extractor."""

    min_samples = 160  # one hop of the mel spectrogram

    def __init__(self, model: Any, extractor: Any) -> None:
        super().__init__()
        self.encoder = model.get_encoder()
        self.extractor = extractor
        config = model.config
        self.num_layers = int(config.encoder_layers) + 1
        self.hidden_size = int(config.d_model)
        self.downsample_rate = int(extractor.hop_length) * 2  # the second convolution has stride 2
        self.window_samples = int(config.max_source_positions) * self.downsample_rate

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """See Upstream.trainable_blocks."""
        return list(self.encoder.layers)

    def frame_lengths(self, wav_lengths: torch.Tensor) -> torch.Tensor:
        """Frames that begin before the end."""
        return (wav_lengths - 1).div(self.downsample_rate, rounding_mode="floor") + 1

    def encode(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> HiddenStates:
        """See Upstream.encode."""
        windows = [wav.split(self.window_samples) for wav in unpad(wavs, wav_lengths)]
        mel = self._mel([window for parts in windows for window in parts])
        states = torch.stack(self._layers(mel.to(wavs)), dim=2)  # (windows, frames, num_layers, hidden_size)
        lengths = self.frame_lengths(wav_lengths)
        rows = states.split([len(parts) for parts in windows])
        joined, _ = pad([row.flatten(0, 1)[:length] for row, length in zip(rows, lengths.tolist(), strict=True)])
        return HiddenStates(joined.unbind(dim=2), lengths)

    def fingerprint(self) -> list[str]:
        """What this version of transformers computes: from noise in place of a spectrogram, and the spectrogram."""
        bins = self.encoder.conv1.in_channels
        with in_float64(self), self._short_windows():
            layers = self._layers(10 * fixed_noise(bins * 2 * PROBE_FRAMES).view(1, bins, -1))
        wavs, _ = second_of_noise()
        mel = self._mel([wavs[0].float()])[0, :, : SAMPLE_RATE // int(self.extractor.hop_length)]
        return [*rounded(layers), *mel_bands(mel)]

    def _mel(self, wavs: list[torch.Tensor]) -> torch.Tensor:
        with full_precision(torch.empty(0)):  # transformers computes it on the CPU
            samples = [wav.cpu().numpy() for wav in wavs]
            return self.extractor(samples, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features

    def _layers(self, mel: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = self.encoder(mel, output_hidden_states=True)
        return (*outputs.hidden_states[:-1], outputs.last_hidden_state)  # the last one after the final layer norm

    @contextmanager
    def _short_windows(self) -> Iterator[None]:
        """Inside it the encoder reads windows of `PROBE_FRAMES`: 30 s of a large model take too long for a probe."""
        config, positions = self.encoder.config, self.encoder.embed_positions
        frames = config.max_source_positions
        try:
            self.encoder.embed_positions = nn.Embedding.from_pretrained(positions.weight[:PROBE_FRAMES])
            config.max_source_positions = min(frames, PROBE_FRAMES)
            yield
        finally:
            self.encoder.embed_positions = positions
            config.max_source_positions = frames
