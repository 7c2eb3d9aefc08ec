"""What the header of an audio file says of its length, held against the file: cut-off, streamed and mislabelled files.

libsndfile believes headers. A WAV that was cut off is read as far as it goes without a word, an MP3 whose Xing header
counts a quarter of its frames gives a quarter of the recording, and what was written to a pipe has no length at all.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from core.errors import AudioError

UNKNOWN_ABOVE = 0x7FFF_F000  # bytes of a WAV's data: pipes cannot go back, so programs write some number near 2 or 4 GB
SKIPPED_BYTES = 1 << 16  # between two frames of an MP3
W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
KILOBITS = {  # (MPEG version 1, layer) -> of bitrate indices 1 to 14 (ISO/IEC 11172-3, 13818-3)
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}  # by version bits


class Source(NamedTuple):
    """What libsndfile shall read, whether it can know the length before the end, and begin at a place within."""

    file: Path | BinaryIO
    length_known: bool = True
    seekable: bool = True


def source_of(path: Path) -> Source:
    """The file, or its content with a header that is true.

    Raises: AudioError: the header promises more than is there.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = _behind_id3(file)
        file.seek(start)
        head = file.read(64)
        if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
            return _wav(path, file, size)
        if head[:4] == b"fLaC":
            total = int.from_bytes(head[21:26], "big") & ((1 << 36) - 1)
            if len(head) == 64 and not _flac_blocks_fit(file, start, head, total):
                raise AudioError(f"{path}: is damaged: its header speaks of blocks that are not there; write it anew")
            # Where blocks are not all of one length, libFLAC can be led to wrong places, which it does not notice.
            return Source(path, length_known=total > 0, seekable=head[8:10] == head[10:12])
        if _mpeg_frame(head, 0) is not None:
            return _mpeg(path, start)
        _refuse_if_cut_off(path, _promised(file, head), size)
    return Source(path)


def _flac_blocks_fit(file: BinaryIO, start: int, head: bytes, total: int) -> bool:
    """Whether the block sizes of a FLAC header can be true; by others libFLAC finds wrong samples, or zeros.

    The first block is compared with them; where it is the only one, it may be smaller.
    """
    low, high = int.from_bytes(head[8:10], "big"), int.from_bytes(head[10:12], "big")
    if not 16 <= low <= high:
        return False
    place, is_last = start + 4, False
    while not is_last:  # metadata blocks: a byte of kind, three of size
        file.seek(place)
        block = file.read(4)
        if len(block) < 4:
            return True  # cut off, which decoding tells
        is_last, place = block[0] >= 0x80, place + 4 + int.from_bytes(block[1:], "big")
    file.seek(place)
    code = (file.read(3)[2:] or b"\0")[0] >> 4
    size = {1: 192, **{n: 576 << n - 2 for n in range(2, 6)}, **{n: 256 << n - 8 for n in range(8, 16)}}.get(code)
    return size is None or low <= size <= high or total <= size <= high


def _refuse_if_cut_off(path: Path, promised: int | None, size: int) -> None:
    if promised is not None and promised > size:
        raise AudioError(
            f"{path}: is cut off: its header promises {promised:,} bytes, {size:,} are there; fetch or convert it again"
        )


def _promised(file: BinaryIO, head: bytes) -> int | None:
    """Bytes of the file as an AIFF, AU, W64 or CAF header has them; None where it does not say."""
    if head[:4] == b"FORM":
        size = int.from_bytes(head[4:8], "big")
        return size + 8 if 0 < size < UNKNOWN_ABOVE else None
    if head[:4] == b".snd":
        size = int.from_bytes(head[8:12], "big")
        return int.from_bytes(head[4:8], "big") + size if size < UNKNOWN_ABOVE else None
    if head[:16] == W64_RIFF:
        return int.from_bytes(head[16:24], "little")
    if head[:4] == b"caff":
        return next((place + size for name, place, size in _caf_chunks(file) if name == b"data" and size >= 0), None)
    return None


def _caf_chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    place, end = 8, file.seek(0, os.SEEK_END)
    while place < end:
        file.seek(place)
        head = file.read(12)
        if len(head) < 12:
            return
        size = int.from_bytes(head[4:12], "big", signed=True)
        yield head[:4], place + 12, size
        if size < 0:
            return
        place += 12 + size


def _behind_id3(file: BinaryIO) -> int:
    """Where the audio begins behind an ID3v2 tag."""
    head = file.read(10)
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    return 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))


def _wav(path: Path, file: BinaryIO, size: int) -> Source:
    place, wide = 12, None
    while place + 8 <= size:
        file.seek(place)
        name, promised = struct.unpack("<4sI", file.read(8))
        if name == b"ds64":
            wide = int.from_bytes(file.read(16)[8:], "little")
        if name == b"data":
            promised = wide if promised == 0xFFFF_FFFF and wide is not None else promised
            there = size - place - 8
            if there < promised < UNKNOWN_ABOVE:
                _refuse_if_cut_off(path, place + 8 + promised, size)
            if promised == 0 and there > 0:
                content = bytearray(path.read_bytes())
                content[place + 4 : place + 8] = struct.pack("<I", there)
                content[4:8] = struct.pack("<I", size - 8)
                return Source(io.BytesIO(bytes(content)))
            return Source(path)
        place += 8 + promised + promised % 2
    _refuse_if_cut_off(path, place if place > size else None, size)
    return Source(path)


class _Frame(NamedTuple):
    place: int
    size: int
    is_mpeg1: bool
    is_mono: bool


def _mpeg(path: Path, start: int) -> Source:
    """With a Xing frame that counts the frames there are: without one, the first bitrate is taken for all of them."""
    content = path.read_bytes()
    frames = list(_mpeg_frames(content, start))
    if len(frames) < 2:
        return Source(path)
    place = _place_of_count(content, frames[0])
    if place is None:
        largest = max(frames, key=lambda frame: frame.size)
        first = _xing_frame(content, largest, len(frames))
    elif int.from_bytes(content[place : place + 4], "big") == len(frames) - 1:
        return Source(path)
    else:
        counted = (len(frames) - 1).to_bytes(4, "big")
        first = content[frames[0].place : place] + counted + content[place + 4 : frames[1].place]
        frames = frames[1:]
    return Source(io.BytesIO(first + content[frames[0].place : frames[-1].place + frames[-1].size]))


def _side_bytes(frame: _Frame) -> int:
    return {(True, False): 32, (True, True): 17, (False, False): 17, (False, True): 9}[frame.is_mpeg1, frame.is_mono]


def _place_of_count(content: bytes, first: _Frame) -> int | None:
    """Where the number of frames stands; None where no frame says it."""
    place = first.place + 4 + _side_bytes(first)
    if (
        content[place : place + 4] in (b"Xing", b"Info")
        and content[place + 7 : place + 8] > b"\0"
        and content[place + 7] & 1
    ):
        return place + 8
    place = first.place + 4 + 32
    return place + 14 if content[place : place + 4] == b"VBRI" else None


def _xing_frame(content: bytes, like: _Frame, frames: int) -> bytes:
    tag = bytes(_side_bytes(like)) + b"Xing" + (1).to_bytes(4, "big") + frames.to_bytes(4, "big")
    return (content[like.place : like.place + 4] + tag).ljust(like.size, b"\0")[: like.size]


def _mpeg_frames(content: bytes, start: int) -> Iterator[_Frame]:
    """The whole frames of an MPEG audio stream; what lies between them is skipped, up to a bound."""
    place: int | None = start
    while place is not None:
        frame = _mpeg_frame(content, place)
        if frame is None:
            place = _next_frame(content, place)
        elif place + frame.size > len(content):
            return
        else:
            yield frame
            place += frame.size


def _next_frame(content: bytes, place: int) -> int | None:
    """Where two frames follow each other again; None where none do within reach."""
    end = place + SKIPPED_BYTES
    while (place := content.find(b"\xff", place + 1, end)) >= 0:
        frame = _mpeg_frame(content, place)
        if frame is not None and _mpeg_frame(content, place + frame.size) is not None:
            return place
    return None


def _mpeg_frame(content: bytes, place: int) -> _Frame | None:
    head = int.from_bytes(content[place : place + 4], "big")
    version, layer = head >> 19 & 3, 4 - (head >> 17 & 3)
    bitrate, rate = head >> 12 & 15, head >> 10 & 3
    if head >> 21 != 0x7FF or version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return None
    bits = 1000 * KILOBITS[version == 3, layer][bitrate - 1]
    padding = head >> 9 & 1
    if layer == 1:
        size = (12 * bits // RATES[version][rate] + padding) * 4
    else:
        size = (72 if layer == 3 and version != 3 else 144) * bits // RATES[version][rate] + padding
    return _Frame(place, size, version == 3, head >> 6 & 3 == 3)


def stamp_of(path: Path) -> tuple[str, int, int, int]:
    """Changes when the file does, also when its size and time are set back: what a remembered length belongs to."""
    found = os.stat(path)  # noqa: PTH116  # as fast as it gets: asked for every recording of every plan
    return str(path), found.st_size, found.st_mtime_ns, found.st_ctime_ns
