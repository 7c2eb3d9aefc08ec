"""Whisper's encoder (Radford et al., 2022, arXiv:2212.04356) as an upstream.

It always reads 30 seconds: shorter utterances are padded with silence, which is how it was trained, so a batch changes
nothing. Frames that begin behind the end are cut off. Longer utterances are read in windows of 30 seconds.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from core.audio import SAMPLE_RATE
from core.hidden_states import HiddenStates
from core.lengths import pad, unpad
from upstreams._base import full_precision


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

    def frame_lengths(self, wav_lengths: torch.Tensor) -> torch.Tensor:
        """Frames that begin before the end."""
        return (wav_lengths - 1).div(self.downsample_rate, rounding_mode="floor") + 1

    def encode(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> HiddenStates:
        """See Upstream.encode."""
        windows = [wav.split(self.window_samples) for wav in unpad(wavs, wav_lengths)]
        with full_precision(torch.empty(0)):  # transformers computes it on the CPU
            mel = self.extractor(
                [window.cpu().numpy() for parts in windows for window in parts],
                sampling_rate=SAMPLE_RATE,
                return_tensors="pt",
            ).input_features
        outputs = self.encoder(mel.to(wavs), output_hidden_states=True)
        layers = (*outputs.hidden_states[:-1], outputs.last_hidden_state)  # the last one after the final layer norm
        states = torch.stack(layers, dim=2)  # (windows, frames, num_layers, hidden_size)
        lengths = self.frame_lengths(wav_lengths)
        rows = states.split([len(parts) for parts in windows])
        joined, _ = pad([row.flatten(0, 1)[:length] for row, length in zip(rows, lengths.tolist(), strict=True)])
        return HiddenStates(joined.unbind(dim=2), lengths)
