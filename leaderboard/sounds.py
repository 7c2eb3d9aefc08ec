"""Recordings to listen to and to look at, as data that stand within a page: MP3, which every browser plays, and PNG."""

from __future__ import annotations

import base64
import io
import struct
import zlib

import numpy as np
import numpy.typing as npt
import soundfile

from core.audio import SAMPLE_RATE

WINDOW, HOP, BANDS = 512, 256, 48  # samples (32 ms, 16 ms) and mel bands
RANGE_DB = 60  # from black to white
SHADES = 16  # of grey: four bits a pixel
Wav = npt.NDArray[np.float32]


def mp3(wav: Wav) -> str:
    """A data URI of a waveform (samples,); what is beyond full scale is clipped."""
    file = io.BytesIO()
    soundfile.write(file, np.clip(wav, -1, 1), SAMPLE_RATE, format="MP3", compression_level=0.6)
    return _data_uri("audio/mpeg", file.getvalue())


def log_mel(wav: Wav) -> npt.NDArray[np.float64]:
    """Energies in decibels: (bands, frames), of 16 ms each; the lowest band first."""
    padded = np.pad(wav.astype(np.float64), (WINDOW // 2, WINDOW // 2 + HOP))
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[: len(wav) + 1 : HOP] * np.hanning(WINDOW)
    energies = np.abs(np.fft.rfft(frames)) ** 2  # (frames, bins)
    return 10 * np.log10(_mel_filters() @ energies.T + 1e-12)


def spectrogram(energies: npt.NDArray[np.float64], loudest: float) -> str:
    """A data URI of a picture, the louder the darker: a pixel a frame and band, the highest band on top.

    Args:
        energies: of `log_mel`.
        loudest: what is black, in decibels; the same for all pictures that are compared.
    """
    darkness = np.clip((energies - loudest) / RANGE_DB + 1, 0, 1)
    grey = np.rint((1 - darkness[::-1]) * (SHADES - 1)).astype(np.uint8)
    return _data_uri("image/png", _png(grey))


def _mel_filters() -> npt.NDArray[np.float64]:
    """Triangles (bands, bins), evenly spaced on the mel scale."""
    top = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, BANDS + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(WINDOW, 1 / SAMPLE_RATE)
    low, middle, high = (edges[place : place + BANDS, None] for place in range(3))
    # The lowest bands are narrower than the spacing of the bins.
    width = SAMPLE_RATE / WINDOW
    rise, fall = (bins - low) / np.maximum(middle - low, width), (high - bins) / np.maximum(high - middle, width)
    return np.maximum(0, np.minimum(rise, fall))


def _png(grey: npt.NDArray[np.uint8]) -> bytes:
    """A picture (rows, columns) of 16 shades."""
    rows, columns = grey.shape
    even = np.pad(grey, ((0, 0), (0, columns % 2)))
    packed = (even[:, ::2] << 4) | even[:, 1::2]
    lines = np.concatenate([np.zeros((rows, 1), np.uint8), packed], axis=1)  # each begins with its filter: none
    header = struct.pack(">IIBBBBB", columns, rows, 4, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in parts
    )


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
