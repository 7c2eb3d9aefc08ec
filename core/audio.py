"""Reading, resampling and writing audio: float32 mono in [-1, 1] at 16 kHz, whatever the file holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio

from core.errors import AudioError

SAMPLE_RATE = 16_000

# Enters every feature digest: change the version when the waveform of some file could change.
PREPROCESSING = {"version": 1, "sample_rate": SAMPLE_RATE, "channels": "mean", "resampler": "sinc_interp_hann"}


def read_audio(path: Path) -> torch.Tensor:
    """Reads a recording of any sample rate, channel count and libsndfile format.

    Args:
        path: the file.

    Returns: float32 (samples,) at 16 kHz; channels are averaged.
    Raises: AudioError: missing, unreadable, empty, or with samples that are not finite.
    """
    if not path.is_file():
        raise AudioError(f"{path}: no such file; correct file_name in the manifest or restore the recording")
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        raise AudioError(f"{path}: not readable as audio ({error}); convert it to WAV, FLAC or Ogg") from None
    if len(samples) == 0:
        raise AudioError(f"{path}: has no samples; remove it from the manifest")
    if not np.isfinite(samples).all():
        raise AudioError(f"{path}: has samples that are NaN or infinite; write the file anew")
    return resample(torch.from_numpy(samples.mean(axis=1)), rate)


def resample(wav: torch.Tensor, rate: int) -> torch.Tensor:
    """Brings a waveform (samples,) from `rate` hertz to 16 kHz by windowed sinc interpolation."""
    return wav if rate == SAMPLE_RATE else torchaudio.functional.resample(wav, rate, SAMPLE_RATE)


def duration_seconds(path: Path) -> float:
    """Length of a recording from its header, without decoding it.

    Raises: AudioError: missing or not audio.
    """
    if not path.is_file():
        raise AudioError(f"{path}: no such file; correct file_name in the manifest or restore the recording")
    try:
        info = soundfile.info(path)
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        raise AudioError(f"{path}: not readable as audio ({error}); convert it to WAV, FLAC or Ogg") from None
    return float(info.frames / info.samplerate)
