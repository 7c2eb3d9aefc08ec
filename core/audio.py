"""Reading, resampling and writing audio: float32 mono in [-1, 1] at 16 kHz, whatever the file holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr
import torch

from core._containers import Source, source_of, stamp_of
from core.errors import AudioError

SAMPLE_RATE = 16_000

# Enters every feature digest: change the version when the waveform of some file could change.
PREPROCESSING = {"version": 2, "sample_rate": SAMPLE_RATE, "channels": "mean", "resampler": "soxr HQ"}
# Each sample is coded for itself: after a seek it is the same as when read through.
SEEKABLE = {"PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"}
RATES = range(1_000, 768_001)  # hertz: what is beyond is a damaged header, and would be resampled to gigabytes
BLOCK_FRAMES = 1 << 16  # decoded, averaged and resampled at a time: memory is bounded by what is returned
CANCELLED = 1e-3  # of the channels' level: where their mean is below it, they are one signal in opposite phase
Samples = npt.NDArray[np.float32]


def read_audio(
    path: Path, start: int = 0, stop: int | None = None, sample_rate: int = SAMPLE_RATE, *, channel: int | None = None
) -> torch.Tensor:
    """Reads a recording of any sample rate, channel count and libsndfile format.

    Args:
        path: the file.
        start: first sample of the piece that is wanted, counted at 16 kHz whatever is asked for.
        stop: sample behind its last, counted at 16 kHz; None is the end of the recording.
        sample_rate: in hertz; the recording is resampled to it once, from its own rate.
        channel: which one is read, from 0; None is the mean of all.

    Returns: float32 (samples,) at `sample_rate`.
    Raises: AudioError: missing, unreadable, cut off, empty, without that channel, with samples that are not finite, or
        with channels that cancel each other in their mean.
    """
    first, last = at_rate(start, sample_rate), None if stop is None else at_rate(stop, sample_rate)
    try:
        return _read(path, first, last, sample_rate, channel)
    except AudioError:
        if first == 0:
            raise
    # A FLAC with a damaged table of its frames can be decoded from its beginning, and not from a place within.
    return _read(path, 0, None, sample_rate, channel)[first:last]


def _read(path: Path, start: int, stop: int | None, sample_rate: int, channel: int | None) -> torch.Tensor:
    with _opened(path) as (file, source):
        rate, length_known = file.samplerate, source.length_known
        # Nothing else has to be read.
        is_piece = rate == sample_rate and file.subtype in SEEKABLE and length_known and source.seekable
        first, last = (min(start, file.frames), min(stop or file.frames, file.frames)) if is_piece else (0, file.frames)
        if file.frames == 0:
            raise _empty(path)
        if channel is not None and channel >= file.channels:
            raise AudioError(f"{path}: has {file.channels} channels, none with number {channel}, counted from 0")
        if first:
            file.seek(first)
        blocks = _blocks(file, last - first if length_known else None)
        wav = _joined(_resampled(_mono(path, blocks, channel), rate, sample_rate))
        expected = resampled_length(last - first, rate, sample_rate)
    if not is_piece and (expected == 0 or len(wav) == 0):
        raise _empty(path)
    if length_known and len(wav) != expected:
        raise AudioError(
            f"{path}: is cut off or damaged: its header promises {expected:,} samples at {sample_rate / 1000:g} kHz, "
            f"{len(wav):,} can be decoded; fetch or convert it again"
        )
    return wav if is_piece else wav[start:stop]


def amplified(wav: torch.Tensor, gain_db: float) -> torch.Tensor:
    """A waveform at another level."""
    return wav if gain_db == 0 else wav * 10 ** (gain_db / 20)


def resample(wav: torch.Tensor, rate: int, sample_rate: int = SAMPLE_RATE) -> torch.Tensor:
    """Brings a waveform (samples,) from `rate` hertz to `sample_rate`."""
    return _joined(_resampled(iter([wav.numpy()]), rate, sample_rate))


def _joined(blocks: Iterator[Samples]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([*blocks, np.zeros(0, np.float32)]))


def resampled_length(samples: int, rate: int, sample_rate: int = SAMPLE_RATE) -> int:
    """How many samples at `sample_rate` hertz so many at `rate` hertz become."""
    return samples if rate == sample_rate else (2 * samples * sample_rate + rate) // (2 * rate)


def at_rate(samples: int, sample_rate: int) -> int:
    """The place of a sample that was counted at 16 kHz, counted at another rate."""
    return samples if sample_rate == SAMPLE_RATE else round(samples * sample_rate / SAMPLE_RATE)


def duration_seconds(path: Path) -> float:
    """Length of a recording, from its header where that can be believed, else by decoding it.

    Raises: AudioError: missing, not audio, or cut off.
    """
    return num_samples(path) / SAMPLE_RATE


def num_samples(path: Path) -> int:
    """How many samples `read_audio` gives of a whole recording, without decoding it where its header is true.

    Raises: AudioError: missing, not audio, or cut off.
    """
    if not path.is_file():
        raise _missing(path)
    return _num_samples(*stamp_of(path))


@lru_cache(maxsize=1 << 20)
def _num_samples(path: str, size: int, modified: int, changed: int) -> int:
    with _opened(Path(path)) as (file, source):
        if source.length_known:
            samples = resampled_length(file.frames, file.samplerate)
            if samples == 0:
                raise _empty(Path(path))
            return samples
    return len(read_audio(Path(path)))


def _empty(path: Path) -> AudioError:
    return AudioError(f"{path}: has no samples, or is cut off; remove it from the manifest or fetch it again")


def _missing(path: Path) -> AudioError:
    return AudioError(f"{path}: no such file; correct file_name in the manifest or restore the recording")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[soundfile.SoundFile, Source]]:
    """The file, and what is known of it."""
    if not path.is_file():
        raise _missing(path)
    try:
        source = source_of(path)
    except OSError as error:
        raise AudioError(f"{path}: can't be read ({error.strerror}); restore it, or take it out") from None
    try:
        with soundfile.SoundFile(source.file) as file:
            if file.samplerate not in RATES:
                raise AudioError(
                    f"{path}: its header says {file.samplerate:,} Hz, which no recording has; write the file anew"
                )
            yield file, source
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        raise AudioError(
            f"{path}: not readable as audio ({error}); if it is cut off, fetch it again, or convert it to WAV or FLAC"
        ) from None


def _blocks(file: soundfile.SoundFile, frames: int | None) -> Iterator[Samples]:
    """The decoded frames (frames, channels) block by block; None reads until there are no more."""
    left = frames if frames is not None else 1 << 62
    block = np.empty((BLOCK_FRAMES, file.channels), np.float32)
    while left > 0:
        here = block[: min(left, BLOCK_FRAMES)]
        read = _read_to_the_end(file, here) if frames is None else len(file.read(out=here))
        if read == 0:
            return
        yield here[:read]
        left -= read


def _read_to_the_end(file: soundfile.SoundFile, block: Samples) -> int:
    """Reads a block of a file of unknown length, whose end libsndfile takes for an error; tells what was decoded."""
    block.fill(np.nan)
    try:
        return len(file.read(out=block))
    except soundfile.LibsndfileError:
        return int((~np.isnan(block[:, 0])).sum())


def _mono(path: Path, blocks: Iterator[Samples], channel: int | None) -> Iterator[Samples]:
    """One channel, or the mean of all."""
    levels = np.zeros(2)  # energies of the mean and of the channels
    for frames in blocks:
        block = frames if channel is None else frames[:, channel : channel + 1]
        with np.errstate(over="ignore", invalid="ignore"):
            mean = block.mean(axis=1)  # infinite also where samples are finite, but their sum is not
        if not (np.isfinite(block).all() and np.isfinite(mean).all()):
            raise AudioError(f"{path}: has samples that are NaN or infinite; write the file anew")
        if block.shape[1] > 1:
            levels += np.square(mean, dtype=np.float64).sum(), np.square(block, dtype=np.float64).mean(axis=1).sum()
        yield mean
    if levels[1] > 0 and levels[0] < CANCELLED**2 * levels[1]:
        raise AudioError(
            f"{path}: its channels cancel each other: they hold one signal in opposite phase; keep one of them"
        )


def _resampled(blocks: Iterator[Samples], rate: int, sample_rate: int) -> Iterator[Samples]:
    """Blocks (frames,) at `sample_rate`. soxr streams, so memory does not depend on the ratio of the rates."""
    if rate == sample_rate:
        for block in blocks:
            yield block.copy()
        return
    stream = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(np.ascontiguousarray(block))
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)
