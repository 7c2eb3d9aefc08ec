"""The feature cache: what a frozen upstream computed, kept under the digest of all it was computed from.

    <folder>/<upstream and preprocessing digest>/<kind>/<segment>.npy    rows of all its utterances, memory-mapped
                                                       /<segment>.json   audio digest -> first row, rows; written last

A segment is never changed. A segment without its index does not exist, so a half-written one is never read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from core.digest import digest_of, write_json, written_then_renamed
from core.errors import CacheError

Kind = Literal["pooled", "pooled_normalised", "frames"]
KINDS: tuple[Kind, ...] = ("pooled", "pooled_normalised", "frames")
# Half precision for frames: their number makes the disk, and the means of the pooled kinds are kept whole.
DTYPES: Mapping[Kind, type[np.floating]] = {
    "pooled": np.float32,
    "pooled_normalised": np.float32,
    "frames": np.float16,
}
Features = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Slot:
    """Where an utterance's rows lie."""

    segment: Path
    first: int
    rows: int


class FeatureCache:
    """The features of one kind of one upstream.

    Each utterance has an array (rows, num_layers, hidden_size): one row for the pooled kinds, else one a frame.

    Args:
        folder: root of the cache.
        source: digest of the upstream's weights and configuration and of the preprocessing.
        kind: pooled (mean over time of each layer), pooled_normalised (the same after layer norm), or frames.
    """

    def __init__(self, folder: Path, source: str, kind: Kind) -> None:
        self.kind = kind
        self.folder = folder / source[:32] / kind
        self._slots: dict[str, Slot] = {}
        self._segments: dict[Path, Features] = {}
        self.refresh()

    def refresh(self) -> None:
        """Takes in the segments that were written since."""
        read = {slot.segment.stem for slot in self._slots.values()}
        for index in sorted(self.folder.glob("[!.]*.json")):
            if index.stem not in read:
                self._take(index)

    def _take(self, index: Path) -> None:
        try:
            content = [(str(key), int(rows)) for key, rows in json.loads(index.read_text(encoding="utf-8"))]
        except (ValueError, TypeError) as error:
            raise _damaged(index, str(error)) from None
        first = 0
        for key, rows in content:
            self._slots.setdefault(key, Slot(index.with_suffix(".npy"), first, rows))
            first += rows

    def __contains__(self, key: str) -> bool:
        return key in self._slots

    def rows(self, key: str) -> int:
        """How many rows an utterance has."""
        return self._slots[key].rows

    def get(self, key: str) -> Features:
        """The features of an utterance (rows, num_layers, hidden_size), mapped from disk.

        Raises: CacheError: not there, so the extraction has to run first; or its segment is damaged.
        """
        slot = self._slots.get(key)
        if slot is None:
            raise CacheError(f"{self.folder}: no features of audio {key[:12]}; run the same command again")
        if slot.segment not in self._segments:
            self._segments[slot.segment] = _mapped(slot.segment)
        features = self._segments[slot.segment][slot.first : slot.first + slot.rows]
        if len(features) != slot.rows:
            raise _damaged(slot.segment, f"{len(features)} of {slot.rows} rows")
        return features

    def add(self, features: Mapping[str, Features]) -> None:
        """Writes one segment: the array first, its index last.

        Raises: CacheError: a value does not fit the number format.
        """
        if not features:
            return
        arrays = [self._converted(key, array) for key, array in features.items()]
        index = [[key, len(array)] for key, array in zip(features, arrays, strict=True)]
        path = self.folder / f"{digest_of(index)[:24]}.npy"
        with written_then_renamed(path) as temporary, temporary.open("wb") as file:
            np.save(file, np.concatenate(arrays))
        write_json(path.with_suffix(".json"), index)
        self._take(path.with_suffix(".json"))

    def _converted(self, key: str, array: Features) -> Features:
        with np.errstate(over="ignore"):
            converted = array.astype(DTYPES[self.kind], copy=False)
        if not np.isfinite(converted).all():
            raise CacheError(
                f"features of audio {key[:12]} hold values beyond {np.finfo(DTYPES[self.kind]).max:.0f} or NaN: "
                f"they can't be kept as {np.dtype(DTYPES[self.kind]).name}; look at the upstream's weights"
            )
        return converted


def _mapped(path: Path) -> Features:
    try:
        return np.load(path, mmap_mode="c")  # never written to, but torch wants arrays that could be
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(path, str(error)) from None


def _damaged(path: Path, how: str) -> CacheError:
    return CacheError(f"{path}: damaged ({how}); delete {path.parent} and run again")


def missing(caches: Sequence[FeatureCache], key: str) -> bool:
    """Whether any of the caches lacks an utterance."""
    return any(key not in cache for cache in caches)
