"""Ogg Opus files whose bytes depend on the audio alone."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

_HEADER_BYTES = 27  # of an Ogg page, before its segment table (RFC 3533)
_SERIAL_AT, _CHECKSUM_AT, _SEGMENTS_AT = 14, 22, 26
_REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


def write_opus(path: Path, wav: NDArray[np.float32], sample_rate: int, bitrate: int) -> None:
    """Encode mono `wav`, float32 (samples,), at about `bitrate` bit/s."""
    # libsndfile maps compression_level 0..1 to 256..6 kbit/s a channel for Opus.
    level = (256_000 - bitrate) / 250_000
    soundfile.write(path, wav, sample_rate, format="OGG", subtype="OPUS", compression_level=level)
    path.write_bytes(_with_serial(path.read_bytes(), serial=1))


def _with_serial(stream: bytes, serial: int) -> bytes:
    """Replace the random serial number libsndfile puts on every page, so a rebuild gives the same file."""
    pages, start = bytearray(stream), 0
    while start < len(pages):
        segments = pages[start + _SEGMENTS_AT]
        table = pages[start + _HEADER_BYTES : start + _HEADER_BYTES + segments]
        end = start + _HEADER_BYTES + segments + sum(table)
        struct.pack_into("<I", pages, start + _SERIAL_AT, serial)
        struct.pack_into("<I", pages, start + _CHECKSUM_AT, 0)
        struct.pack_into("<I", pages, start + _CHECKSUM_AT, _checksum(bytes(pages[start:end])))
        start = end
    return bytes(pages)


def _checksum(page: bytes) -> int:
    # Ogg's CRC has zlib's polynomial but the other bit order and no inversions at the ends: mirror the bytes,
    # start zlib's from its inverted zero, undo its last inversion and mirror the result.
    mirrored = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)
