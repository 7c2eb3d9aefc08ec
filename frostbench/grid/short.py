"""Recordings that are too short for an upstream: all of them in one go, before the first is passed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

from core.audio import SAMPLE_RATE
from frostbench.grid.cell import Cell
from frostbench.grid.needs import Part

SHOWN = 20


def too_short(parts: Sequence[Part]) -> dict[str, str]:
    """Names of upstreams that can't take the same recordings -> which ones, and what to do.

    Args:
        parts: what is to be done with each upstream.
    """
    found: dict[tuple[int, tuple[str, ...]], list[str]] = defaultdict(list)
    for part in parts:
        least = part.upstream.min_samples
        keys = {clip.key for clip in part.wanted.clips if clip.samples < least}
        if keys:
            found[least, tuple(_rows_with(keys, part.cells))].append(part.upstream.title)
    return {", ".join(upstreams): _message(least, names) for (least, names), upstreams in found.items()}


def _rows_with(keys: AbstractSet[str], cells: Sequence[Cell]) -> Iterable[str]:
    """Ids of the rows that have one of these clips, of several rows with the same audio all."""
    rows = (row for cell in cells for split in cell.rows.examples.values() for row in split)
    return dict.fromkeys(row.id for row in rows if not keys.isdisjoint(row.keys))


def _message(least: int, names: Sequence[str]) -> str:
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    shown = ", ".join(names[:SHOWN])
    return (
        f"{len(names)} recordings are shorter than the shortest legal input, {least} samples at 16 kHz "
        f"({least / SAMPLE_RATE:.3f} s): {shown}{more}; take them out of the manifest"
    )
