"""Kaldi features of padded batches, by torchaudio's compliance functions: shared by the spectral and generative files.

Every utterance is computed alone, so padding cannot reach it. Samples stay in [-1, 1], as in s3prl: Kaldi's 16-bit
scale would add a constant to log energies.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torchaudio.compliance import kaldi
from torchaudio.functional import compute_deltas

from core.audio import SAMPLE_RATE
from core.hidden_states import HiddenStates
from core.lengths import pad, unpad
from upstreams._base import full_precision

WIN_LENGTH = 400  # 25 ms at 16 kHz
HOP_LENGTH = 160  # 10 ms at 16 kHz
CMVN_EPSILON = 1e-10  # s3prl's
CONSTANT = 1e-4  # deviation of a column below it is rounding: log energies vary by tenths and more

Extractor = Callable[[torch.Tensor], torch.Tensor]


def frame_lengths(wav_lengths: torch.Tensor) -> torch.Tensor:
    """Frames of Kaldi's snip-edges rule: only whole windows count."""
    return (wav_lengths - WIN_LENGTH).div(HOP_LENGTH, rounding_mode="floor") + 1


def fbank(wav: torch.Tensor, num_mel_bins: int = 80, window_type: str = "povey") -> torch.Tensor:
    """Log mel filter bank energies of one waveform (samples,) -> (frames, num_mel_bins)."""
    return kaldi.fbank(
        wav[None],
        num_mel_bins=num_mel_bins,
        window_type=window_type,
        sample_frequency=SAMPLE_RATE,
        frame_length=WIN_LENGTH * 1000 / SAMPLE_RATE,
        frame_shift=HOP_LENGTH * 1000 / SAMPLE_RATE,
    )


def mfcc(wav: torch.Tensor, num_ceps: int = 13) -> torch.Tensor:
    """Mel cepstra of one waveform (samples,) -> (frames, num_ceps)."""
    return kaldi.mfcc(
        wav[None],
        num_ceps=num_ceps,
        sample_frequency=SAMPLE_RATE,
        frame_length=WIN_LENGTH * 1000 / SAMPLE_RATE,
        frame_shift=HOP_LENGTH * 1000 / SAMPLE_RATE,
    )


def with_deltas(features: torch.Tensor, order: int = 2, win_length: int = 5) -> torch.Tensor:
    """Appends time derivatives: (frames, size) -> (frames, size * (order + 1))."""
    parts = [features.T]  # (size, frames), as torchaudio wants it
    for _ in range(order):
        parts.append(compute_deltas(parts[-1], win_length=win_length))
    return torch.cat(parts).T


def cmvn(features: torch.Tensor) -> torch.Tensor:
    """Zero mean and unit (unbiased) deviation over the frames of one utterance; a single frame becomes zero.

    So does a column that is constant but for rounding, such as the bins above 4 kHz of a recording made at 8 kHz: a
    division by its deviation would blow the rounding up to thousands, as it does in s3prl.
    """
    centred = features - features.mean(dim=0)
    if len(features) == 1:
        return centred
    deviations = features.std(dim=0)
    return torch.where(deviations > CONSTANT, centred / (deviations + CMVN_EPSILON), 0.0)


def level(features: torch.Tensor) -> torch.Tensor:
    """Zero mean and unit (unbiased) deviation over all frames and columns of one utterance together.

    Unlike cmvn it leaves the shape of the mean spectrum, in which voices and rooms differ. What is constant but for
    rounding, such as digital silence, becomes zero.
    """
    centred = features - features.mean()
    deviation = features.std()
    return torch.where(deviation > CONSTANT, centred / deviation, 0.0)


def batch_of(extractor: Extractor, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> HiddenStates:
    """Runs an extractor on each waveform of a padded batch: one layer (batch, frames, size)."""
    with full_precision(wavs):
        features, lengths = pad([extractor(wav) for wav in unpad(wavs, wav_lengths)])
    return HiddenStates((features,), lengths.to(wavs.device))
