"""Recordings that several upstreams hear are decoded once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from core.audio import SAMPLE_RATE
from frostbench.cache_space import decoded_folder
from frostbench.grid.needs import Part, lacking_clips, needs_of
from upstreams._extraction.clips import Clip

MOST_BYTES = (
    4_000_000_000  # 17 hours; beyond it the disk is better used for features, and is hardly faster than decoding
)


@contextmanager
def decoded_once(wave: Sequence[Part], cache: Path, limit: int | None) -> Iterator[dict[int, Path]]:
    """Sample rate -> a folder for the waveforms that several upstreams of a wave hear at it, where there is room.

    Args:
        wave: upstreams whose features fit into the cache together.
        cache: its folder.
        limit: bytes of the cache; None is no limit.
    """
    needs = {part.upstream.digest: needs_of(part, cache) for part in wave}
    features = sum(need.size for each in needs.values() for need in each)
    coming = sum(need.coming for each in needs.values() for need in each)
    hearing: dict[int, list[list[Clip]]] = {}
    for part in wave:
        lacking = lacking_clips(part, needs[part.upstream.digest])
        if lacking:
            hearing.setdefault(part.upstream.sample_rate, []).append(lacking)
    shared = {rate: heard for rate, heard in hearing.items() if len(heard) > 1}
    size = sum(max(map(_bytes, heard)) * rate // SAMPLE_RATE for rate, heard in shared.items())
    room = min(MOST_BYTES, MOST_BYTES if limit is None else limit - features, shutil.disk_usage(cache).free - coming)
    if not shared or size > room:
        yield {}
        return
    with decoded_folder(cache) as folder:
        yield dict.fromkeys(shared, folder)


def _bytes(clips: Sequence[Clip]) -> int:
    """Of waveforms at 16 kHz, as far as headers tell."""
    return sum(4 * clip.samples for clip in clips)
