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
# Each sample is coded for itself: after a seek it is the same as when read through.
SEEKABLE = {"PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"}


def read_audio(path: Path, start: int = 0, stop: int | None = None) -> torch.Tensor:
    """Reads a recording of any sample rate, channel count and libsndfile format.

    Args:
        path: the file.
        start: first sample at 16 kHz of the piece that is wanted.
        stop: sample behind its last; None is the end of the recording.

    Returns: float32 (samples,) at 16 kHz; channels are averaged.
    Raises: AudioError: missing, unreadable, empty, or with samples that are not finite.
    """
    if not path.is_file():
        raise AudioError(f"{path}: no such file; correct file_name in the manifest or restore the recording")
    try:
        with soundfile.SoundFile(path) as file:
            rate, frames = file.samplerate, file.frames
            is_piece = rate == SAMPLE_RATE and file.subtype in SEEKABLE  # nothing else has to be read
            first, last = (min(start, frames), min(stop or frames, frames)) if is_piece else (0, frames)
            if first:
                file.seek(first)
            samples = file.read(last - first if is_piece else -1, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        raise AudioError(f"{path}: not readable as audio ({error}); convert it to WAV, FLAC or Ogg") from None
    if frames == 0 or (len(samples) == 0 and first < last):
        raise AudioError(f"{path}: has no samples; remove it from the manifest")
    if not np.isfinite(samples).all():
        raise AudioError(f"{path}: has samples that are NaN or infinite; write the file anew")
    wav = resample(torch.from_numpy(samples.mean(axis=1)), rate)
    return wav if is_piece else wav[start:stop]


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
