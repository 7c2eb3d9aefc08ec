"""What the spectral upstreams share: one layer of Kaldi features, no parameters."""

from __future__ import annotations

from abc import abstractmethod

import torch

from core.hidden_states import HiddenStates
from upstreams._base import Upstream
from upstreams._encoders import kaldi


class SpectralUpstream(Upstream):
    """One layer, computed from each waveform alone. A subclass sets `hidden_size` and writes `features`."""

    num_layers = 1
    downsample_rate = kaldi.HOP_LENGTH
    min_samples = kaldi.WIN_LENGTH

    @abstractmethod
    def features(self, wav: torch.Tensor) -> torch.Tensor:
        """Features of one waveform (samples,) -> (frames, hidden_size)."""

    def encode(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> HiddenStates:
        """See Upstream.encode."""
        return kaldi.batch_of(self.features, wavs, wav_lengths)

    def frame_lengths(self, wav_lengths: torch.Tensor) -> torch.Tensor:
        """See Upstream.frame_lengths."""
        return kaldi.frame_lengths(wav_lengths)
