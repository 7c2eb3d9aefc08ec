"""Bytes as people write and read them."""

from __future__ import annotations

import re

from core.errors import CacheError

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
         "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}  # fmt: skip


def parse_size(text: str) -> int | None:
    """Bytes of "50GB", "1.5 TB" or "800MiB"; None of "none", which means no limit.

    Raises: CacheError: it is no size.
    """
    if text.strip().lower() == "none":
        return None
    found = re.fullmatch(r"\s*(\d{1,18}(?:\.\d*)?)\s*([KMGT]?I?)B?\s*", text.upper())
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
