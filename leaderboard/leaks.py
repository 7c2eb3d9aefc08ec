"""What records say of recordings of test that are elsewhere, too: in what an upstream was trained on, or in train."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from leaderboard.board import Board, ResultCell

FLAG = "(leak)"  # behind an upstream's name
MEANING = "its values say little of recordings that it does not know"


def pretraining_leaks(cells: Mapping[str, ResultCell]) -> Iterator[str]:
    """A line a task whose test the upstream was trained on.

    Args:
        cells: of a row, `Column.key` -> cell.
    """
    for task, found in _by_task(cells, "pretraining").items():
        yield f"{task.upper()}: it was trained on {_some(found)}"


def leak_notes(board: Board) -> Iterator[str]:
    """What has to be said of a board: rows that are flagged, and tasks with one recording in two splits."""
    for row in board.rows:
        if row.leaks:
            yield f"{row.name} {FLAG}: {'; '.join(row.leaks)}; {MEANING}."
    twice: dict[str, Mapping[str, Any]] = {}
    for row in board.rows:
        twice |= _by_task(row.cells, "two_splits")
    for task, found in twice.items():
        yield f"{task.upper()}: {_some(found)} are in train or valid as well, so that heads may know their answers."


def _by_task(cells: Mapping[str, ResultCell], kind: str) -> dict[str, Mapping[str, Any]]:
    """Task -> the largest leak of a kind over its runs: folds have tests of their own."""
    most: dict[str, Mapping[str, Any]] = {}
    for key, cell in cells.items():
        for run in cell.seeds:
            found = run.circumstances.get("leaks", {}).get(kind)
            task = key.split(" ")[0]
            if found and found["count"] > most.get(task, {"count": 0})["count"]:
                most[task] = found
    return most


def _some(found: Mapping[str, Any]) -> str:
    shown = ", ".join(f"'{name}'" for name in found["ids"])
    more = ", ..." if found["count"] > len(found["ids"]) else ""
    return f"{found['count']} of the {found['of']} recordings of test ({shown}{more})"
