"""What a person should know of a grid before its work starts: how much of the features is kept, and why not more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from frostbench.byte_sizes import format_bytes
from frostbench.cache_space import Need
from frostbench.grid.cell import Frames
from frostbench.grid.needs import AskedFrames, Part, limit_option

SAID_ABOVE = 10**9  # bytes: what takes less is nobody's concern


def announcements(
    parts: Sequence[Part],
    needs: Sequence[Sequence[Need]],
    waves: int,
    asked: AskedFrames,
    limit: int | None,
) -> list[str]:
    """The lines to show.

    Args:
        parts: an upstream each.
        needs: what each part needs of the cache.
        waves: how many groups of upstreams follow each other.
        asked: how frames shall be kept.
        limit: bytes of the cache; None is no limit.
    """
    lines = []
    for part in parts:
        if asked == "auto" and limit is not None and part.frames not in (None, "float16"):
            lines.append(explained(part.upstream.title, part.frames, part.sizes, limit))
    coming = sum(need.coming for each in needs for need in each)
    if coming > SAID_ABOVE or waves > 1:
        each = ", ".join(
            f"{part.upstream.title} {format_bytes(sum(need.size for need in of_part))}"
            for part, of_part in zip(parts, needs, strict=True)
        )
        bound = "no limit" if limit is None else f"limit {format_bytes(limit)}"
        more = f"; more than fits at once, so {waves} groups of upstreams follow each other" if waves > 1 else ""
        lines.append(f"features: {each}; {format_bytes(coming)} of it to be computed, {bound}{more}")
    return lines


def explained(name: str, chosen: Frames, sizes: Mapping[Frames, int], limit: int) -> str:
    """Why frames are not kept in float16, and what else could be done, in one line."""
    what: dict[Frames, str] = {
        "int8": "they are kept in 8 bits, which moved a WER of 30 by 1 where measured (docs/caching.md)",
        "recompute": "the upstream computes them anew whenever they are drawn, in every epoch",
    }
    other = "--frames recompute keeps none" if chosen == "int8" else f"{limit_option(sizes['int8'])} keeps 8 bits"
    return (
        f"{name}: features take {format_bytes(sizes['float16'])} with frames in float16, {format_bytes(sizes['int8'])} "
        f"in int8, the limit is {format_bytes(limit)}: {what[chosen]} "
        f"({limit_option(sizes['float16'])} keeps float16, {other})"
    )
