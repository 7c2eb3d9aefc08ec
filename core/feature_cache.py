"""The feature cache: what a frozen upstream computed, kept under the digest of all it was computed from.

    <folder>/<upstream and preprocessing digest>/<entry>/<segment>.npy    rows of all its utterances, memory-mapped
                                                        /<segment>.json   audio digest -> rows, in order; written last

A segment is never changed. A segment without its index does not exist, so a half-written one is never read. Segments
may be merged or evicted at any time by another process: the merged one is whole before the old ones go, and maps that
are open stay readable.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import numpy.typing as npt
import torch

from core.digest import digest_of, parsed_json, write_json, written_then_renamed
from core.errors import CacheError

Kind = Literal["pooled", "pooled_normalised", "frames"]
Dtype = Literal["float32", "float16", "int8"]
KINDS: tuple[Kind, ...] = ("pooled", "pooled_normalised", "frames")
# Half precision for frames: their number makes the disk, and the means of the pooled kinds are kept whole.
DTYPES: Mapping[Kind, Dtype] = {"pooled": "float32", "pooled_normalised": "float32", "frames": "float16"}
LARGEST: Mapping[Dtype, float] = {
    "float32": float(np.finfo(np.float32).max),
    "float16": float(np.finfo(np.float16).max),
    "int8": float(np.finfo(np.float16).max),  # as which it is read
}
INT8_LARGEST = 127
SCALE_ROWS = 2  # an int8 utterance begins with its scales: float16, two rows of bytes
STALE_SECONDS = 24 * 3600.0  # what has no index after a day was left behind by a kill
Features = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Slot:
    """Where an utterance's rows lie, its scales included."""

    segment: Path
    first: int
    rows: int


class FeatureCache:
    """The features of one kind of one upstream: an entry.

    Each utterance has an array (rows, num_layers, hidden_size): one row for the pooled kinds, else one a frame.

    Args:
        folder: root of the cache.
        source: digest of the upstream's weights, configuration and precision and of the preprocessing.
        kind: pooled (mean over time of each layer), pooled_normalised (the same after layer norm), or frames.
        dtype: how numbers are kept, DTYPES' if left out. Frames in int8 have a scale for every layer and dimension of
            an utterance; they are read as float16.
    """

    def __init__(self, folder: Path, source: str, kind: Kind, dtype: Dtype | None = None) -> None:
        self.kind = kind
        self.dtype: Dtype = dtype or DTYPES[kind]
        self.folder = folder / source[:32] / entry_name(kind, self.dtype)
        self._scale_rows = SCALE_ROWS if self.dtype == "int8" else 0
        self._slots: dict[str, Slot] = {}
        self._segments: dict[Path, npt.NDArray[np.generic]] = {}
        self._indices: set[Path] = set()
        self.refresh()

    def refresh(self) -> None:
        """Takes in what was written, merged or evicted since."""
        while True:
            found = set(self.folder.glob("[!.]*.json"))
            gone = {index.with_suffix(".npy") for index in self._indices - found}
            if gone:
                self._slots = {key: slot for key, slot in self._slots.items() if slot.segment not in gone}
                self._segments = {path: array for path, array in self._segments.items() if path not in gone}
                self._indices &= found
            try:
                for index in sorted(found - self._indices):
                    self._take(index)
            except FileNotFoundError:  # merged into another since the folder was listed
                continue
            return

    def _take(self, index: Path) -> None:
        try:
            content = [(str(key), int(rows)) for key, rows in parsed_json(index.read_text(encoding="utf-8"))]
        except (ValueError, TypeError) as error:
            raise _damaged(index, str(error)) from None
        except FileNotFoundError:
            if index.is_symlink():  # else it was merged into another
                raise _damaged(index, "it is a link to nothing") from None
            raise
        except OSError as error:
            raise _damaged(index, str(error.strerror)) from None
        first, segment = 0, index.with_suffix(".npy")
        for key, rows in content:
            self._slots.setdefault(key, Slot(segment, first, rows + self._scale_rows))
            first += rows + self._scale_rows
        self._indices.add(index)

    def __contains__(self, key: str) -> bool:
        return key in self._slots

    def __len__(self) -> int:
        return len(self._slots)

    def lacking(self, keys: Collection[str]) -> set[str]:
        """Which of these utterances are not there."""
        return {key for key in keys if key not in self._slots}

    def rows(self, key: str) -> int:
        """How many rows an utterance has."""
        return self._slots[key].rows - self._scale_rows

    def get(self, key: str) -> Features:
        """The features of an utterance (rows, num_layers, hidden_size): float32 if pooled, frames float16.

        They are mapped from disk, but for int8 ones, which are computed.

        Raises: CacheError: not there, so the extraction has to run first; or its segment is damaged.
        """
        stored: Features = self._stored(key)  # type: ignore[assignment]
        return dequantised(stored) if self.dtype == "int8" else stored

    def _stored(self, key: str) -> npt.NDArray[np.generic]:
        slot = self._slots.get(key)
        if slot is None or not self._is_open(slot.segment):
            self.refresh()
            slot = self._slots.get(key)
        if slot is None:
            raise CacheError(f"{self.folder}: no features of audio {key[:12]}; run the same command again")
        if not self._is_open(slot.segment):
            raise _damaged(slot.segment, "it is gone, its index is not")
        stored = self._segments[slot.segment][slot.first : slot.first + slot.rows]
        if len(stored) != slot.rows:
            raise _damaged(slot.segment, f"{len(stored)} of {slot.rows} rows")
        return stored

    def _is_open(self, segment: Path) -> bool:
        """Maps a segment if it has not been, and tells whether it is there."""
        if segment not in self._segments:
            try:
                self._segments[segment] = np.load(
                    segment, mmap_mode="c"
                )  # never written to, but torch wants it writable
            except FileNotFoundError:
                return False
            except (OSError, ValueError, EOFError) as error:
                raise _damaged(segment, str(error)) from None
        return True

    def add(self, features: Mapping[str, Features], names: Mapping[str, str] | None = None) -> None:
        """Writes one segment.

        Args:
            features: of utterances, by key.
            names: key -> recording, for messages.

        Raises: CacheError: a value does not fit the number format.
        """
        if features:
            said = names or {}
            self._write({key: self._converted(said.get(key, key[:12]), array) for key, array in features.items()})

    def _converted(self, name: str, array: Features) -> npt.NDArray[np.generic]:
        low, high = float(array.min()), float(array.max())  # both NaN if one value is: no comparison holds
        largest = LARGEST[self.dtype]
        if not low <= high:
            raise CacheError(f"{name}: its features hold NaN; look at the upstream's weights")
        if not -largest <= low <= high <= largest:
            way_out = "keep none with --frames recompute, or look" if self.kind == "frames" else "look"
            raise CacheError(
                f"{name}: its features hold {low if -low > high else high:.4g}, {self.dtype} holds no more than "
                f"{largest:.4g}: {way_out} at the upstream's weights"
            )
        if self.dtype == "int8":
            return quantised(array)
        # torch converts to half precision ten times as fast as numpy.
        return torch.from_numpy(array).to(getattr(torch, self.dtype)).numpy()

    def _write(self, arrays: Mapping[str, npt.NDArray[np.generic]]) -> Path:
        """One segment: the array first, its index last."""
        index = [[key, len(array) - self._scale_rows] for key, array in arrays.items()]
        path = self.folder / f"{digest_of(index)[:24]}.npy"
        with written_then_renamed(path) as temporary, temporary.open("wb") as file:
            _save_joined(file, list(arrays.values()))
        write_json(path.with_suffix(".json"), index)
        self._take(path.with_suffix(".json"))
        return path.with_suffix(".json")

    def merge(self) -> None:
        """Makes one segment of several: the new one is whole before the old ones go. What kills left goes, too.

        Segments of a cache that is read-only, and shown by links, stay as they are.
        """
        self.refresh()
        old = set(self._indices)
        if any(index.is_symlink() for index in old):
            return
        if len(old) > 1:
            try:
                merged = self._write({key: self._stored(key) for key in self._slots})
            except (FileNotFoundError, CacheError):  # another process has just merged or evicted them
                return
            _remove(old - {merged})
            self._slots, self._segments, self._indices = {}, {}, set()
            self.refresh()
        known = {path for index in self._indices for path in (index, index.with_suffix(".npy"))}
        for path in (path for path in self.folder.glob("*.*") if path.suffix in {".npy", ".json"}):
            if path not in known and _age(path) > STALE_SECONDS:
                path.unlink(missing_ok=True)

    def drop_segments_without(self, keys: Collection[str]) -> None:
        """Deletes the segments that hold none of these utterances."""
        self.refresh()
        wanted = {slot.segment.with_suffix(".json") for key, slot in self._slots.items() if key in keys}
        _remove(self._indices - wanted)
        self.refresh()


def entry_name(kind: Kind, dtype: Dtype) -> str:
    """The folder of a kind: its name, with the number format where that is not the usual one."""
    return kind if dtype == DTYPES[kind] else f"{kind}_{dtype}"


def caches_of(
    folder: Path, source: str, kinds: Iterable[Kind], dtypes: Mapping[Kind, Dtype] = DTYPES
) -> dict[Kind, FeatureCache]:
    """The caches of the kinds that are asked for."""
    return {kind: FeatureCache(folder, source, kind, dtypes[kind]) for kind in sorted(set(kinds))}


def stored_bytes(utterances: int, rows: int, shape: tuple[int, int], dtype: Dtype) -> int:
    """What so many utterances with so many rows of (num_layers, hidden_size) in all take."""
    rows += SCALE_ROWS * utterances if dtype == "int8" else 0
    return rows * math.prod(shape) * np.dtype(dtype).itemsize


def quantised(features: Features) -> npt.NDArray[np.int8]:
    """Frames (rows, num_layers, hidden_size) in 8 bits: SCALE_ROWS rows with the scales in front.

    Transformers have a few dimensions that are a hundred times as large as the others, always the same ones: with a
    scale for each dimension they cost the others nothing, with one for each frame nearly everything.
    """
    frames = torch.from_numpy(features).float()
    scales = (frames.abs().amax(dim=0) / INT8_LARGEST).half()  # (num_layers, hidden_size)
    steps = torch.where(scales > 0, scales, 1).float()
    whole = (frames / steps).round().clamp(-INT8_LARGEST, INT8_LARGEST).to(torch.int8)
    head = scales.numpy().view(np.int8).reshape(*scales.shape, SCALE_ROWS)
    return np.concatenate([np.moveaxis(head, 2, 0), whole.numpy()])


def dequantised(stored: npt.NDArray[np.generic]) -> npt.NDArray[np.float16]:
    """The inverse of `quantised`, but for rounding: float16 (rows, num_layers, hidden_size)."""
    head = np.ascontiguousarray(np.moveaxis(stored[:SCALE_ROWS], 0, 2))
    scales = torch.from_numpy(head.view(np.float16)[..., 0].astype(np.float32))
    whole = torch.from_numpy(np.array(stored[SCALE_ROWS:]))  # copied: torch wants to own what it is given
    return (whole * scales).clamp(-LARGEST["int8"], LARGEST["int8"]).half().numpy()


def _save_joined(file: BinaryIO, arrays: Sequence[npt.NDArray[np.generic]]) -> None:
    """np.save of their concatenation, without making it."""
    header = {
        "descr": np.lib.format.dtype_to_descr(arrays[0].dtype),
        "fortran_order": False,
        "shape": (sum(map(len, arrays)), *arrays[0].shape[1:]),
    }
    np.lib.format.write_array_header_1_0(file, header)
    for array in arrays:
        file.write(np.ascontiguousarray(array).data)


def _remove(indices: Iterable[Path]) -> None:
    """Deletes segments, their indices first."""
    indices = list(indices)
    for path in (*indices, *(index.with_suffix(".npy") for index in indices)):
        path.unlink(missing_ok=True)


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _damaged(path: Path, how: str) -> CacheError:
    return CacheError(f"{path}: damaged ({how}); delete {path.parent} and run again")


def missing(caches: Iterable[FeatureCache], key: str) -> bool:
    """Whether any of the caches lacks an utterance."""
    return any(key not in cache for cache in caches)
