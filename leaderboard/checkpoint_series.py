"""Series over checkpoints (`run --upstream 'hf:runs/step-*'`): which rows are of one training, and at which step.

A record says the pattern by which its upstream was asked for. Others that the pattern names belong to the series as
well, whether they were run before it or elsewhere, so that it grows with its training and outlives `merge`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from core.checkpoint_series import belongs, steps_of, told_apart
from core.records import ResultRecord
from leaderboard.board import Board, Column, ResultCell, Row


class Place(NamedTuple):
    """Where an upstream stands in a series.

    Attributes:
        series: the pattern that names it.
        step: of the training; None where the names of the checkpoints don't tell.
        spec: as it was asked for.
    """

    series: str
    step: int | None
    spec: str


@dataclass(frozen=True)
class Checkpoint:
    """A point of a curve.

    Attributes:
        step: of the training.
        row: of the board.
        cell: of the column that the curve is of.
    """

    step: int
    row: Row
    cell: ResultCell


def places_in_series(records: Sequence[ResultRecord]) -> dict[str, Place]:
    """Digest of an upstream -> its place, of those that a pattern names."""
    patterns = list(dict.fromkeys(filter(None, map(_asked, records))))
    found: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for record in records if patterns else ():
        spec = str(record.circumstances.get("upstream_spec", ""))
        pattern = _asked(record) or next((each for each in patterns if belongs(spec, each)), None)
        if pattern is not None:
            found[record.upstream["digest"]].add((pattern, spec))
    chosen = {digest: min(named) for digest, named in found.items()}  # one upstream may have several names
    places: dict[str, Place] = {}
    for pattern in patterns:
        specs = {digest: spec for digest, (own, spec) in chosen.items() if own == pattern}
        steps = steps_of(pattern, dict.fromkeys(specs.values()))
        places |= {digest: Place(pattern, steps.get(spec), spec) for digest, spec in specs.items()}
    return places


def _asked(record: ResultRecord) -> str:
    series = record.circumstances.get("series")
    return series if isinstance(series, str) else ""


def names_in_series(records: Sequence[ResultRecord]) -> dict[str, str]:
    """Digest of an upstream -> its name, told apart by the path of its checkpoint, of those in a series."""
    places = places_in_series(records)
    names = {record.upstream["digest"]: record.upstream["name"] for record in records}
    return told_apart({digest: (names[digest], place.spec) for digest, place in places.items()})


def in_series(rows: Sequence[Row], records: Mapping[str, ResultRecord], places: Mapping[str, Place]) -> list[Row]:
    """Rows with their places in series.

    Args:
        rows: of a board.
        records: row name -> one of its records.
        places: digest of an upstream -> its place.
    """
    made = []
    for row in rows:
        record, place = records[row.name], places.get(row.digest)
        if place is not None:
            row = replace(row, series=series_of(record, place), step=place.step)
        made.append(row)
    return made


def series_of(record: ResultRecord, place: Place) -> str:
    """The series of a record: what differs in precision or was fine-tuned is one of its own."""
    precision = record.upstream.get("precision", "float32")
    apart = [str(each) for each in (precision, record.finetuning) if each not in ("float32", None)]
    return place.series + (f" ({', '.join(apart)})" if apart else "")


def curves_of_series(board: Board, column: Column) -> Iterator[tuple[str, list[Checkpoint]]]:
    """Each series of a board with its checkpoints in the order of their steps, where there are two or more.

    Args:
        board: with all its rows.
        column: that the values are of.
    """
    for series, rows in _by_series(board).items():
        there = [
            Checkpoint(row.step, row, row.cells[column.key])
            for row in rows
            if row.step is not None and column.key in row.cells
        ]
        there.sort(key=lambda each: each.step)
        if len(there) > 1 and not _doubled(rows):
            yield series, there


def series_notes(board: Board) -> Iterator[str]:
    """Why a series of several checkpoints has no curve."""
    for series, rows in _by_series(board).items():
        names = ", ".join(row.name for row in _doubled(rows))
        if names:
            yield (
                f"Series {series} has no curve: {names} are of the same step; give trainings folders of their own, or "
                f"results."
            )
        elif len(rows) > 1 and all(row.step is None for row in rows):
            yield f"Series {series} has no curve: no number in the names of its checkpoints tells all of them apart."


def _by_series(board: Board) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in board.rows:
        if row.series:
            found[row.series].append(row)
    return found


def _doubled(rows: Sequence[Row]) -> list[Row]:
    """Rows of one step, the smallest that several have: a folder that another training was written to later."""
    by_step: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        if row.step is not None:
            by_step[row.step].append(row)
    return next((found for _, found in sorted(by_step.items()) if len(found) > 1), [])
