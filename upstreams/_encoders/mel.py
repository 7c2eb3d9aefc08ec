"""Networks on log mel frames that several families share: what they have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import nn

from core.hidden_states import HiddenStates
from upstreams._encoders import kaldi


class MelEncoder(nn.Module):
    """A network on Kaldi's log mel frames, one every 10 ms. A subclass sets its sizes and writes `layers`.

    Args:
        num_mel_bins: of each frame.
        window_type: of the spectrum, in Kaldi's words.
        cmvn: whether the frames of an utterance are brought to zero mean and unit deviation.

    Attributes:
        num_layers: how many hidden states it gives.
        hidden_size: their width.
        blocks: see Upstream.trainable_blocks.
    """

    downsample_rate: int = kaldi.HOP_LENGTH
    min_samples: int = kaldi.WIN_LENGTH
    window_samples: ClassVar[int] = 1
    num_layers: int
    hidden_size: int
    blocks: Iterable[nn.Module]

    def __init__(self, num_mel_bins: int, window_type: str = "povey", cmvn: bool = True) -> None:
        super().__init__()
        self.num_mel_bins = num_mel_bins
        self.window_type = window_type
        self.cmvn = cmvn

    def frame_lengths(self, wav_lengths: torch.Tensor) -> torch.Tensor:
        """See Upstream.frame_lengths."""
        return kaldi.frame_lengths(wav_lengths)

    def encode(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> HiddenStates:
        """See Upstream.encode."""
        mel = self.mel(wavs, wav_lengths)
        return HiddenStates(self.layers(mel.layers[0], mel.lengths), mel.lengths)

    def mel(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> HiddenStates:
        """The frames that the network reads, as the only layer (batch, frames, num_mel_bins)."""
        return kaldi.batch_of(self.mel_of_one, wavs, wav_lengths)

    def mel_of_one(self, wav: torch.Tensor) -> torch.Tensor:
        """The frames of one waveform (samples,) -> (frames, num_mel_bins)."""
        mel = self.spectrum_of_one(wav)
        return kaldi.cmvn(mel) if self.cmvn else mel

    def spectrum(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> HiddenStates:
        """The frames before they are normalised, as the only layer (batch, frames, num_mel_bins)."""
        return kaldi.batch_of(self.spectrum_of_one, wavs, wav_lengths)

    def spectrum_of_one(self, wav: torch.Tensor) -> torch.Tensor:
        """The frames of one waveform before they are normalised, (samples,) -> (frames, num_mel_bins)."""
        return kaldi.fbank(wav, self.num_mel_bins, self.window_type)

    def layers(self, mel: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Hidden states, each (batch, frames, hidden_size).

        Args:
            mel: float (batch, frames, num_mel_bins), altered or not.
            lengths: valid frames, int64 (batch,).
        """
        raise NotImplementedError
