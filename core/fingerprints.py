"""Recognising a recording again: after another codec, rate or level, or with its ends cut off, by 216 bytes of it.

A fingerprint holds a few excerpts, around the places where most of a recording's energy lies. Of each it keeps

- 64 bits of its shape: signs of random projections of the log energies of 12 bands in 220 ms (Charikar, STOC 2002).
  Near shapes differ in few bits, so the excerpts that are worth a comparison are found without the audio;
- 512 bits of its waveform: signs of 256 ms between 150 and 800 Hz. Two takes of one word by one voice share the shape,
  not the phase: their signs hardly correlate, whatever the lag, those of a copy do, through any codec of waveforms.

Measured on 3,000 spoken digits (50 takes of each by each of 6 voices), Speech Commands, LibriSpeech and mini: copies
correlate by 0.9 or so, pairs that are none by 0.81 at most (benchmarks/README.md).
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import maximum_filter1d

from core.audio import SAMPLE_RATE

Fingerprint = npt.NDArray[np.uint64]  # (excerpts, 9): a word of shape and eight of waveform each; none of silence
Floats = npt.NDArray[np.float32]

EXCERPTS = 3  # the middle of the energy, and its two highest peaks
WORDS = 9  # 64 bits each

HOP, WINDOW = 160, 512  # samples: 10 and 32 ms
CHUNK = 4096  # frames at a time: memory does not depend on the length of a recording
BANDS, LOW, HIGH = 12, 300.0, 3_400.0  # hertz: what a telephone leaves of speech
FLOOR = 1e-4  # of the loudest band: 40 dB below it codecs do as they like
SMOOTHED = 13  # frames of the envelope
APART, QUIET = 12, 1e-3  # peaks: frames between two, and the share of the highest that is still one
SHAPE, SHAPE_STEP = 11, 2  # frames of a shape, each so many after the other: 220 ms

BITS, RATE = 512, 2_000  # of a waveform: 256 ms
LOW_WAVE, HIGH_WAVE = 150.0, 800.0  # hertz: voiced speech, below what codecs of few bits make up
MARGIN = SAMPLE_RATE // 20  # samples beside it, so that the filter sees no edge
LAGS = 128  # samples at RATE: 64 ms, so that 50 may be cut off
REPEATED = 8  # samples at RATE: a lag of 4 ms, beyond which a tone is like itself again

NEAREST, NEAR = 32, 24  # shapes that are compared, and bits in which they differ at most
SAME = 0.82  # correlation of signs, from which two excerpts are one
# Correlation with itself from which an excerpt tells nothing, as a hum is like any other of its pitch: at any lag, and
# at lags that no voice keeps its pitch for.
TONE, STEADY = 0.85, 0.45
LONG = 80  # samples at RATE: 40 ms


class Copy(NamedTuple):
    """Two recordings that are one.

    Attributes:
        asked: id of the recording that was looked for.
        known: id of the one that it was found to be.
        likeness: correlation of their signs, from SAME to 1.
    """

    asked: str
    known: str
    likeness: float


def fingerprint(wav: torch.Tensor) -> Fingerprint:
    """What a recording is recognised by.

    Args:
        wav: float32 (samples,) at 16 kHz.

    Returns: uint64 (excerpts, 9), at most 3 excerpts; none where there is nothing but silence.
    """
    samples = wav.numpy()
    energies = _band_energies(samples)
    places = _places(energies)
    if not places:
        return np.zeros((0, WORDS), np.uint64)
    shapes = np.stack([_shape(energies, place) for place in places]) @ _projections() > 0
    waves = np.stack([_wave_signs(samples, place) for place in places])
    packed = np.packbits(np.concatenate([shapes, waves], axis=1), axis=1)
    return packed.view("<u8").astype(np.uint64)


def copies(asked: Mapping[str, Fingerprint], known: Mapping[str, Fingerprint]) -> Iterator[Copy]:
    """Recordings that are among known ones, with each of these that they are; one of the same id is left out.

    Args:
        asked: id -> fingerprint.
        known: id -> fingerprint.
    """
    rows, owners = _joined(known)
    if len(rows) == 0:
        return
    names = list(known)
    for name, excerpts in asked.items():
        best: dict[str, float] = {}
        for excerpt in excerpts:
            for row, likeness in _like(excerpt, rows):
                other = names[owners[row]]
                best[other] = max(likeness, best.get(other, 0.0))
        yield from (Copy(name, other, likeness) for other, likeness in best.items() if other != name)


def to_text(prints: Sequence[Fingerprint]) -> str:
    """Fingerprints as text for a file of metadata; which excerpt is whose is not kept."""
    rows = np.concatenate([np.zeros((0, WORDS), np.uint64), *prints])
    return base64.b64encode(rows.astype("<u8").tobytes()).decode("ascii")


def from_text(text: str) -> dict[str, Fingerprint]:
    """What `to_text` wrote, under numbers, an excerpt each.

    Raises: ValueError: it is damaged.
    """
    try:
        content = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"not fingerprints ({error})") from None
    rows = np.frombuffer(content, "<u8").astype(np.uint64).reshape(-1, 1, WORDS)  # ValueError where it does not fit
    return {str(number): row for number, row in enumerate(rows)}


def _band_energies(samples: Floats) -> Floats:
    """(frames, bands)."""
    padded = np.pad(samples, (WINDOW // 2, WINDOW // 2 + HOP))
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    window = np.hanning(WINDOW + 1)[:-1].astype(np.float32)
    hertz = np.fft.rfftfreq(WINDOW, 1 / SAMPLE_RATE)
    edges = np.geomspace(LOW, HIGH, BANDS + 1)
    bands = ((hertz[:, None] >= edges[:-1]) & (hertz[:, None] < edges[1:])).astype(np.float32)
    parts = [frames[first : first + CHUNK] * window for first in range(0, len(frames), CHUNK)]
    return np.concatenate([np.square(np.abs(np.fft.rfft(part, axis=1))) @ bands for part in parts])


def _places(energies: Floats) -> list[int]:
    """Frames around which excerpts are taken: a codec moves neither the middle of the energy nor its peaks."""
    weights = np.hanning(SMOOTHED + 2)[1:-1]
    envelope = np.convolve(energies.sum(axis=1), weights / weights.sum(), "same")
    highest = envelope.max()
    if not highest > 0:
        return []
    middle = round(float((envelope * np.arange(len(envelope))).sum() / envelope.sum()))
    is_peak = (envelope == maximum_filter1d(envelope, 2 * APART + 1, mode="nearest")) & (envelope > QUIET * highest)
    peaks = np.flatnonzero(is_peak)
    return [middle, *peaks[np.argsort(-envelope[peaks], kind="stable")][: EXCERPTS - 1].tolist()]


def _shape(energies: Floats, place: int) -> Floats:
    """Log energies around a frame without each band's mean, (SHAPE * BANDS,); what lies outside counts nothing."""
    frames = place + SHAPE_STEP * (np.arange(SHAPE) - SHAPE // 2)
    inside = (frames >= 0) & (frames < len(energies))
    found = energies[frames[inside]]
    logs = np.log10(found / max(float(found.max()), 1e-20) + FLOOR)
    shape = np.zeros((SHAPE, BANDS), np.float32)
    shape[inside] = logs - logs.mean(axis=0)
    return shape.ravel()


def _projections() -> Floats:
    """(SHAPE * BANDS, 64), the same everywhere: numpy keeps the stream of its old generator."""
    return np.random.RandomState(0).standard_normal((SHAPE * BANDS, 64)).astype(np.float32)


def _wave_signs(samples: Floats, place: int) -> npt.NDArray[np.bool_]:
    """Signs of the waveform around a frame, (BITS,); those of a shorter recording go on by chance."""
    length = BITS * SAMPLE_RATE // RATE
    start = min(max(0, place * HOP - length // 2), max(0, len(samples) - length))
    piece = np.zeros(length + 2 * MARGIN, np.float32)
    first, last = max(0, start - MARGIN), min(len(samples), start + length + MARGIN)
    piece[first - start + MARGIN : last - start + MARGIN] = samples[first:last]
    spectrum = np.fft.rfft(piece)
    hertz = np.fft.rfftfreq(len(piece), 1 / SAMPLE_RATE)
    spectrum[(hertz < LOW_WAVE) | (hertz > HIGH_WAVE)] = 0
    count = len(piece) * RATE // SAMPLE_RATE
    wave = np.fft.irfft(spectrum[: count // 2 + 1], count)
    signs = wave[MARGIN * RATE // SAMPLE_RATE :][:BITS] > 0
    inside = min(BITS, (len(samples) - start) * RATE // SAMPLE_RATE)
    if inside < BITS:  # two short ones shall not agree in what neither has
        seed = zlib.crc32(np.packbits(signs[:inside]).tobytes())
        signs[inside:] = np.random.RandomState(seed).randint(0, 2, BITS - inside) > 0
    return signs


def _joined(prints: Mapping[str, Fingerprint]) -> tuple[Fingerprint, npt.NDArray[np.int64]]:
    """All excerpts (rows, 9), and the place of the recording that each is of."""
    rows = np.concatenate([np.zeros((0, WORDS), np.uint64), *prints.values()])
    return rows, np.repeat(np.arange(len(prints)), [len(each) for each in prints.values()])


def _like(excerpt: npt.NDArray[np.uint64], rows: Fingerprint) -> Iterator[tuple[int, float]]:
    """The rows that an excerpt is, and how much they are alike."""
    differing = np.bitwise_count(excerpt[0] ^ rows[:, 0])
    near = np.flatnonzero(differing <= NEAR)
    if len(near) > NEAREST:
        near = near[np.argpartition(differing[near], NEAREST)[:NEAREST]]
    if len(near) == 0:
        return
    signs = _signs(excerpt[None])[0]
    shifted = np.lib.stride_tricks.sliding_window_view(np.pad(signs, LAGS), BITS)  # (lags, BITS)
    lags = np.abs(np.arange(-LAGS, LAGS + 1))
    overlap = (BITS - lags)[:, None]
    itself = np.abs(shifted @ signs) / overlap[:, 0]
    if itself[lags >= REPEATED].max() >= TONE or itself[lags >= LONG].max() >= STEADY:
        return
    likeness = np.abs(shifted @ _signs(rows[near]).T / overlap).max(axis=0)  # of a wave turned upside down as well
    for place in np.flatnonzero(likeness >= SAME):
        yield int(near[place]), round(float(likeness[place]), 3)


def _signs(rows: Fingerprint) -> Floats:
    """+1 and -1 of the waveforms, (rows, BITS)."""
    bits = np.unpackbits(np.ascontiguousarray(rows[:, 1:]).astype("<u8").view(np.uint8), axis=1)
    return 2.0 * bits.astype(np.float32) - 1.0
