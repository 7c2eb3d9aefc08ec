"""The families of self-supervision: their order, and which of them a board has."""

from __future__ import annotations

from collections.abc import Sequence

from leaderboard.board import Row

# What needs no training, the five ways to learn without labels, then weights whose training is not one of them.
FAMILIES = (
    "spectral", "generative", "predictive", "contrastive", "bootstrapping", "regularised", "pretrained", "other",
)  # fmt: skip


def place_of(family: str) -> tuple[int, str]:
    """What families are ordered by: those of `FAMILIES`, before "other" those that plug-ins name, last the unknown."""
    if family in FAMILIES[:-1]:
        return FAMILIES.index(family), ""
    last = len(FAMILIES) - 1
    return (last + 2, "") if not family else (last + 1, "") if family == FAMILIES[-1] else (last, family)


def families_of(rows: Sequence[Row]) -> list[str]:
    """Those that rows are known to be of, each once, in order."""
    return sorted({row.family for row in rows if row.family}, key=place_of)
