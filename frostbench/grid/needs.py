"""What a run needs of the feature cache, in bytes, and what becomes of frames that are too many."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from core.errors import CacheError
from core.feature_cache import DTYPES, KINDS, Dtype, FeatureCache, Kind, stored_bytes
from frostbench.grid.cell import Cell, Frames
from upstreams._extraction.clips import Clip
from upstreams._facts import UpstreamFacts

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
         "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}  # fmt: skip
DEFAULT_LIMIT = "50GB"  # an hour takes 3.6 GB by a base-size transformer in float16, 0.6 GB by apc's tiny size
SAID_ABOVE = 10**9  # bytes: what takes less is nobody's concern
AskedFrames = Literal["auto", "float16", "int8", "recompute"]


@dataclass(frozen=True)
class Need:
    """An entry of the cache that a run needs.

    Attributes:
        upstream: its display name.
        cache: the entry.
        keys: of the utterances.
        size: bytes of all of them.
        coming: bytes of those that are not there yet.
    """

    upstream: str
    cache: FeatureCache
    keys: frozenset[str]
    size: int
    coming: int


def parse_size(text: str) -> int | None:
    """Bytes of "50GB", "1.5 TB" or "800MiB"; None of "none", which means no limit.

    Raises: CacheError: it is no size.
    """
    if text.strip().lower() == "none":
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([KMGT]?I?)B?\s*", text.upper())
    if found is None or found[2] not in UNITS:
        raise CacheError(f"'{text}' is no size: write a number with MB, GB or TB, such as 50GB, or none for no limit")
    return int(float(found[1]) * UNITS[found[2]])


def format_bytes(size: float) -> str:
    """Bytes for a person: 1.2 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 9.95 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


@dataclass(frozen=True)
class Part:
    """What is to be done with one upstream.

    Attributes:
        upstream: its facts.
        frames: what becomes of them; None where no pending cell needs any.
        clips: what has to pass it once, and what is kept of each.
        cells: those without a record.
        sizes: bytes of the features of the whole grid, for each way to deal with frames.
    """

    upstream: UpstreamFacts
    frames: Frames | None
    clips: list[Clip]
    cells: list[Cell]
    sizes: Mapping[Frames, int]


def dtypes_of(frames: Frames | None) -> dict[Kind, Dtype]:
    """How each kind is kept."""
    return {**DTYPES, "frames": "int8" if frames == "int8" else "float16"}


def bytes_of(upstream: UpstreamFacts, clips: Sequence[Clip], kind: Kind, dtype: Dtype) -> int:
    """What a kind of features of these clips takes."""
    rows = float(len(clips))
    if kind == "frames":
        rows = sum(clip.samples for clip in clips) / upstream.downsample_rate + upstream.extra_frames * len(clips)
    return stored_bytes(len(clips), round(rows), (upstream.num_layers, upstream.hidden_size), dtype)


def sizes_of(upstream: UpstreamFacts, clips: Sequence[Clip]) -> dict[Frames, int]:
    """What all features of these clips take, for each way to deal with frames."""
    sizes: dict[Frames, int] = {}
    for frames in get_args(Frames):
        kinds = [kind for kind in KINDS if kind != "frames" or frames != "recompute"]
        sizes[frames] = sum(
            bytes_of(upstream, [clip for clip in clips if kind in clip.kinds], kind, dtypes_of(frames)[kind])
            for kind in kinds
        )
    return sizes


def choose_frames(sizes: Mapping[Frames, int], limit: int) -> Frames:
    """The first way to deal with frames that fits within the limit."""
    return next((frames for frames, size in sizes.items() if size <= limit), "recompute")


def explained(name: str, chosen: Frames, sizes: Mapping[Frames, int], limit: int) -> str:
    """Why frames are not kept in float16, and what else could be done, in one line."""
    what: dict[Frames, str] = {
        "int8": "they are kept in 8 bits, which moved a WER of 30 by 1 where measured (docs/caching.md)",
        "recompute": "the upstream computes them anew whenever they are drawn, in every epoch",
    }
    other = "--frames recompute keeps none" if chosen == "int8" else f"{_option(sizes['int8'])} keeps 8 bits"
    return (
        f"{name}: features take {format_bytes(sizes['float16'])} with frames in float16, {format_bytes(sizes['int8'])} "
        f"in int8, the limit is {format_bytes(limit)}: {what[chosen]} "
        f"({_option(sizes['float16'])} keeps float16, {other})"
    )


def _option(size: int) -> str:
    unit = "GB" if size >= UNITS["G"] else "MB"
    return f"--cache-limit {math.ceil(size / UNITS[unit[0]])}{unit}"


def needs_of(part: Part, folder: Path) -> list[Need]:
    """The entries that one upstream needs."""
    needs = []
    for kind, dtype in dtypes_of(part.frames).items():
        wanted = [clip for clip in part.clips if kind in clip.kinds]
        if wanted:
            cache = FeatureCache(folder, part.upstream.digest, kind, dtype)
            lacking = [clip for clip in wanted if clip.key not in cache]
            size, coming = (bytes_of(part.upstream, clips, kind, dtype) for clips in (wanted, lacking))
            needs.append(Need(part.upstream.name, cache, frozenset(clip.key for clip in wanted), size, coming))
    return needs


def plan_waves(parts: Sequence[Part], folder: Path, limit: int | None) -> list[list[Part]]:
    """Groups of upstreams whose features fit within the limit together, in the order of the upstreams.

    Raises: CacheError: those of one upstream alone do not.
    """
    waves: list[list[Part]] = []
    room = -1.0
    for part in parts:
        size = sum(need.size for need in needs_of(part, folder))
        if limit is not None and size > limit:
            hint = ", or --frames int8, recompute or auto" if part.frames == "float16" else ""
            raise CacheError(
                f"{part.upstream.name}: its features take {format_bytes(size)}, --cache-limit is "
                f"{format_bytes(limit)}; write {_option(size)}{hint}"
            )
        if size > room:
            waves.append([])
            room = math.inf if limit is None else limit
        waves[-1].append(part)
        room -= size
    return waves


def announcements(
    parts: Sequence[Part], waves: Sequence[Sequence[Part]], folder: Path, asked: AskedFrames, limit: int | None
) -> list[str]:
    """What a person should know before the work starts: how much will be kept, and why not more."""
    lines = []
    for part in parts:
        if asked == "auto" and limit is not None and part.frames not in (None, "float16"):
            lines.append(explained(part.upstream.name, part.frames, part.sizes, limit))
    needs = [needs_of(part, folder) for part in parts]
    coming = sum(need.coming for each in needs for need in each)
    if coming > SAID_ABOVE or len(waves) > 1:
        each = ", ".join(
            f"{part.upstream.name} {format_bytes(sum(need.size for need in of_part))}"
            for part, of_part in zip(parts, needs, strict=True)
        )
        bound = "no limit" if limit is None else f"limit {format_bytes(limit)}"
        more = (
            f"; more than fits at once, so {len(waves)} groups of upstreams follow each other" if len(waves) > 1 else ""
        )
        lines.append(f"features: {each}; {format_bytes(coming)} of it to be computed, {bound}{more}")
    return lines
