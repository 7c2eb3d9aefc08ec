"""Sums of recordings, each at its place and level: made whenever they are read, and named in rows of a manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from core._metadata import Files
from core.audio import SAMPLE_RATE, amplified, at_rate, num_samples, read_audio
from core.digest import digest_of
from core.errors import AudioError, ManifestError

RESERVED_IN_MIXTURES = {"mixture", "id", "split", "length"}  # all other keys of such a row are labels or notes
SOURCE_KEYS = {"of", "file_name", "start_sample", "stop_sample", "offset", "gain_db"}


MOST_SAMPLES = 1 << 53  # JSON's numbers are exact up to here
MOST_OFFSET = 3600 * SAMPLE_RATE  # an hour of silence before a source: a mixture is made whole, in memory
MOST_DB = 200
# Half of a Hann window of a second, over which LibriMix fades the end of a noise into its beginning (arXiv:2005.11262).
FADE_SAMPLES = SAMPLE_RATE // 2 + 1


@dataclass(frozen=True)
class Source:
    """A recording, or a piece of it, at its place and level in a mixture; in samples at 16 kHz.

    Attributes:
        path: the file.
        start: first sample of the piece.
        stop: sample behind its last; None is the end of the recording.
        offset: where it begins in the mixture.
        gain_db: level change in decibels.
        channel: which channel of the file it is, from 0; None is the mean of all.
        fills: whether it is noise behind the others: cut to the end of the longest of them, or repeated up to there,
            its end faded into its beginning. A mixture has at least one source that does not.
    """

    path: Path
    start: int = 0
    stop: int | None = None
    offset: int = 0
    gain_db: float = 0.0
    channel: int | None = None
    fills: bool = False


@dataclass(frozen=True)
class Mixture:
    """A sum of sources, which is made whenever it is read.

    Attributes:
        sources: in any order.
        length: "max" lasts until every source has ended, "min" until the first has; those that fill do not count.
    """

    sources: tuple[Source, ...]
    length: Literal["max", "min"] = "max"

    def samples(self) -> int:
        """Length in samples at 16 kHz, as far as the files' headers tell."""
        ends = (
            source.offset + (num_samples(source.path) if source.stop is None else source.stop) - source.start
            for source in self.sources
            if not source.fills
        )
        return max(ends) if self.length == "max" else min(ends)


def read_mixture(mixture: Mixture, sample_rate: int = SAMPLE_RATE) -> torch.Tensor:
    """The sum of the sources, each at its place and level, silence elsewhere; it may exceed [-1, 1].

    Args:
        mixture: whose places are counted at 16 kHz.
        sample_rate: in hertz; every source is resampled to it.

    Returns: float32 (samples,) at `sample_rate`.
    Raises: AudioError: a source is missing, unreadable, empty, with samples that are not finite, or so short that it
        can't be repeated.
    """
    files = [(source.path, source.channel) for source in mixture.sources]
    whole = {  # decoded once
        (path, channel): read_audio(path, sample_rate=sample_rate, channel=channel)
        for path, channel in dict.fromkeys(files)
        if files.count((path, channel)) > 1
    }
    wavs = []
    for source, file in zip(mixture.sources, files, strict=True):
        start, stop = at_rate(source.start, sample_rate), source.stop and at_rate(source.stop, sample_rate)
        wavs.append(
            whole[file][start:stop]
            if file in whole
            else read_audio(source.path, source.start, source.stop, sample_rate, channel=source.channel)
        )
    placed = [
        (source, at_rate(source.offset, sample_rate), wav) for source, wav in zip(mixture.sources, wavs, strict=True)
    ]
    ends = [offset + len(wav) for source, offset, wav in placed if not source.fills]
    mixed = torch.zeros(max(ends) if mixture.length == "max" else min(ends))
    for source, offset, wav in placed:
        laid = _repeated(source.path, wav, max(ends) - offset, sample_rate) if source.fills else wav
        place = mixed[offset : offset + len(laid)]
        place += amplified(laid, source.gain_db)[: len(place)]
    return mixed


def _repeated(path: Path, wav: torch.Tensor, samples: int, sample_rate: int) -> torch.Tensor:
    """Noise as long as it has to be, as LibriMix makes it."""
    fade = at_rate(FADE_SAMPLES, sample_rate)
    if len(wav) < min(samples, 2 * fade):
        raise AudioError(
            f"{path}: is shorter than a second, and than what it is the noise of: can't be repeated; restore the file"
        )
    rise = torch.hann_window(2 * fade - 1, periodic=False)[:fade]
    laid = wav
    while len(laid) < samples:
        laid = torch.cat([laid[:-fade], laid[-fade:] * rise.flip(0) + wav[:fade] * rise, wav[fade:]])
    return laid[:samples]


def mixture_of(row: Mapping[str, Any], files: Files, known: Mapping[str, Source]) -> Mixture:
    """What a row with the key `mixture` is the sum of.

    Args:
        row: of a metadata file.
        files: beside it.
        known: id of each recording's row -> its piece.

    Raises: ManifestError: it is malformed; says how.
    """
    length = row.get("length") or "max"
    if not isinstance(row["mixture"], list) or not row["mixture"] or "file_name" in row or row.get("id") is None:
        raise ManifestError('a mixture has an "id", a list of sources that is not empty, and no "file_name"')
    if length not in ("max", "min"):
        raise ManifestError(f"length is {length!r}, must be max or min")
    sources = tuple(_source(source, files, known) for source in row["mixture"])
    return Mixture(sources, "max" if length == "max" else "min")


def piece_of(row: Mapping[str, Any]) -> tuple[int, int | None]:
    """First sample of the piece that a row names, and the one behind its last.

    Raises: ManifestError: they are no such places.
    """
    start, stop = row.get("start_sample") or 0, row.get("stop_sample")
    if not _is_place(start) or not (stop is None or (_is_place(stop) and start < stop)):
        raise ManifestError(f"start_sample {start!r} and stop_sample {stop!r} must be whole numbers, 0 <= start < stop")
    return start, stop


def _is_place(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST_SAMPLES


def _is_level(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -MOST_DB <= value <= MOST_DB


def _source(source: Any, files: Files, known: Mapping[str, Source]) -> Source:
    """A source names a file, or another row by `of`, whose piece it then is."""
    if not isinstance(source, dict) or not set(source) <= SOURCE_KEYS or ("of" in source) == ("file_name" in source):
        keys = ", ".join(sorted(SOURCE_KEYS))
        raise ManifestError(
            f"source {source!r} must be an object with either of or file_name, and no other keys than {keys}"
        )
    offset, gain = source.get("offset", 0), source.get("gain_db", 0.0)
    if not _is_place(offset) or offset > MOST_OFFSET or not _is_level(gain):
        raise ManifestError(
            f"offset {offset!r} must be a whole number from 0 to {MOST_OFFSET:,}, gain_db {gain!r} a number from "
            f"{-MOST_DB} to {MOST_DB}"
        )
    if "of" not in source:
        if not isinstance(source["file_name"], str):
            raise ManifestError(f"file_name of a source is {source['file_name']!r}, must be text")
        return Source(files.find(source["file_name"]), *piece_of(source), offset, float(gain))
    row = known.get(str(source["of"]))
    if row is None or "start_sample" in source or "stop_sample" in source:
        raise ManifestError(f"source of {source['of']!r}: must be the id of a recording's row, taken whole")
    return Source(row.path, row.start, row.stop, offset, float(gain))


def mixture_to_json(mixture: Mixture) -> list[Any]:
    """What JSON can hold."""
    return [
        mixture.length,
        [[str(each.path), *_placing(each)] for each in mixture.sources],
    ]


def mixture_from_json(content: Sequence[Any]) -> Mixture:
    """The inverse of `mixture_to_json`."""
    length, sources = content
    return Mixture(tuple(Source(Path(path), *rest) for path, *rest in sources), length)


def mixture_digest(mixture: Mixture, digests: Mapping[Path, str]) -> str:
    """sha256 of what a mixture is made of.

    Args:
        mixture: of sources anywhere.
        digests: path -> sha256 of the file.
    """
    sources = [[digests[source.path], *_placing(source)] for source in mixture.sources]
    return digest_of([sources, mixture.length])


def _placing(source: Source) -> list[Any]:
    """What is known of a source besides its file; of one of all channels at its own length as older versions had it."""
    later = [source.channel, source.fills]
    return [source.start, source.stop, source.offset, source.gain_db, *([] if later == [None, False] else later)]
