"""What a run needs of the feature cache, in bytes, and what becomes of frames that are too many."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from core.errors import CacheError
from core.feature_cache import DTYPES, Dtype, FeatureCache, Kind, stored_bytes
from frostbench.byte_sizes import UNITS, format_bytes
from frostbench.cache_space import Need
from frostbench.grid.cell import Cell, Frames
from frostbench.grid.wanted import Amount, WantedClips
from upstreams._extraction.clips import Clip
from upstreams._facts import UpstreamFacts

DEFAULT_LIMIT = "50GB"  # an hour takes 3.6 GB by a base-size transformer in float16, 0.6 GB by apc's tiny size
AskedFrames = Literal["auto", "float16", "int8", "recompute"]


def limit_option(size: int) -> str:
    """The option that lets the cache take so many bytes."""
    unit = "GB" if size >= UNITS["G"] else "MB"
    return f"--cache-limit {math.ceil(size / UNITS[unit[0]])}{unit}"


@dataclass(frozen=True)
class Part:
    """What is to be done with one upstream.

    Attributes:
        upstream: its facts.
        frames: what becomes of them; None where no pending cell needs any.
        wanted: what has to pass it once, and what is kept of each.
        cells: those without a record.
        sizes: bytes of the features of the whole grid, for each way to deal with frames.
    """

    upstream: UpstreamFacts
    frames: Frames | None
    wanted: WantedClips
    cells: list[Cell]
    sizes: Mapping[Frames, int]


def dtypes_of(frames: Frames | None) -> dict[Kind, Dtype]:
    """How each kind is kept."""
    return {**DTYPES, "frames": "int8" if frames == "int8" else "float16"}


def bytes_of(upstream: UpstreamFacts, amount: Amount, kind: Kind, dtype: Dtype) -> int:
    """What a kind of features of so many clips takes."""
    rows = float(amount.clips)
    if kind == "frames":
        rows = amount.samples / upstream.frame_samples + upstream.extra_frames * amount.clips
    return stored_bytes(amount.clips, round(rows), (upstream.num_layers, upstream.hidden_size), dtype)


def size_of(upstream: UpstreamFacts, wanted: WantedClips, frames: Frames | None) -> int:
    """What all features that are kept of these clips take, for a way to deal with frames."""
    amounts = {kind: amount for kind, amount in wanted.amounts.items() if kind != "frames" or frames != "recompute"}
    return sum(bytes_of(upstream, amount, kind, dtypes_of(frames)[kind]) for kind, amount in amounts.items())


def sizes_of(upstream: UpstreamFacts, wanted: WantedClips) -> dict[Frames, int]:
    """What all features of these clips take, for each way to deal with frames."""
    return {frames: size_of(upstream, wanted, frames) for frames in get_args(Frames)}


def choose_frames(sizes: Mapping[Frames, int], limit: int) -> Frames:
    """The first way to deal with frames that fits within the limit."""
    return next((frames for frames, size in sizes.items() if size <= limit), "recompute")


def needs_of(part: Part, folder: Path) -> list[Need]:
    """The entries that one upstream needs."""
    needs = []
    for kind, dtype in dtypes_of(part.frames).items():
        amount, keys = part.wanted.amounts[kind], part.wanted.keys[kind]
        if keys:
            cache = FeatureCache(folder, part.upstream.digest, kind, dtype)
            clips = part.wanted.by_kind[kind]
            lacking = Amount.of(clips[key] for key in cache.lacking(keys)) if len(cache) else amount
            size, coming = (bytes_of(part.upstream, each, kind, dtype) for each in (amount, lacking))
            needs.append(Need(part.upstream.name, cache, keys, size, coming))
    return needs


def lacking_clips(part: Part, needs: Sequence[Need]) -> list[Clip]:
    """The clips of which the cache lacks something that one upstream needs."""
    lacking: dict[str, Clip] = {}
    for need in needs:
        by_key = part.wanted.by_kind[need.cache.kind]
        lacking |= {key: by_key[key] for key in (need.cache.lacking(need.keys) if need.coming else ())}
    return list(lacking.values())


def plan_waves(parts: Sequence[Part], limit: int | None) -> list[list[Part]]:
    """Groups of upstreams whose features fit within the limit together, in the order of the upstreams.

    Raises: CacheError: those of one upstream alone do not.
    """
    waves: list[list[Part]] = []
    room = -1.0
    for part in parts:
        size = size_of(part.upstream, part.wanted, part.frames)
        if limit is not None and size > limit:
            hint = ", or --frames int8, recompute or auto" if part.frames == "float16" else ""
            raise CacheError(
                f"{part.upstream.title}: its features take {format_bytes(size)}, --cache-limit is "
                f"{format_bytes(limit)}; write {limit_option(size)}{hint}"
            )
        if size > room:
            waves.append([])
            room = math.inf if limit is None else limit
        waves[-1].append(part)
        room -= size
    return waves
