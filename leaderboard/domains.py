"""What tasks ask of speech, as SUPERB groups them (arXiv:2105.01051, 2203.06849): headings above many columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from leaderboard.board import Board, Column

DOMAINS: Mapping[str, Sequence[str]] = {
    "content": ("pr", "asr", "ood_asr", "ks", "qbe"),
    "speaker": ("sid", "asv", "sd"),
    "semantics": ("ic", "sf", "st"),
    "paralinguistics": ("er",),
    "generation": ("se", "ss"),
}
OTHER = "other"
MOST_UNGROUPED = 6  # columns


def domain_of(task: str) -> str:
    """The domain of a task's name; tasks of one's own are others."""
    return next((domain for domain, tasks in DOMAINS.items() if task in tasks), OTHER)


def in_domains(board: Board) -> Board:
    """The board with many columns in the order of the domains, and in each in that of SUPERB; few stay as they are."""
    if len(board.columns) <= MOST_UNGROUPED:
        return board
    order = [task for tasks in DOMAINS.values() for task in tasks]
    place = {column.task: order.index(column.task) if column.task in order else len(order) for column in board.columns}
    return replace(board, columns=tuple(sorted(board.columns, key=lambda column: place[column.task])))


def headings_of(columns: Sequence[Column]) -> list[tuple[str, int]]:
    """Domain and how many neighbouring columns it has; none of few columns, or of a single domain."""
    found = [(domain, len(list(group))) for domain, group in groupby(columns, lambda column: domain_of(column.task))]
    return found if len(columns) > MOST_UNGROUPED and len(found) > 1 else []
