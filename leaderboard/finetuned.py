"""Frozen against fine-tuned: what training an upstream with its head adds on the same test utterances, and costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean
from typing import Any

from leaderboard.board import Column, Pair, ResultCell, Row, SeedRun, Tuning
from leaderboard.board_curves import Interval
from leaderboard.grouping import Entry


def tunings(
    entries: Sequence[Entry], columns: Mapping[str, Column], rows: Sequence[Row], pairs: Sequence[Pair]
) -> Iterator[Tuning]:
    """For every task and fine-tuned row what it comes to beside its frozen one, by the task's first metric.

    Args:
        entries: of the board.
        columns: of the board.
        rows: of the board.
        pairs: all pairwise tests of the board.
    """
    cells = {row.name: row.cells for row in rows}
    frozen = {entry.record.run: entry.upstream for entry in entries if entry.record.finetuning is None}
    names = {
        entry.upstream: (entry.record.finetuning, frozen[entry.record.run_of_frozen()])
        for entry in entries
        if entry.record.finetuning is not None and entry.record.run_of_frozen() in frozen
    }
    for key, column in columns.items():
        for name, (how, plain) in names.items():
            found, before = cells.get(name, {}).get(key), cells.get(plain, {}).get(key)
            if column.primary and found is not None and before is not None and how is not None:
                yield _tuning(column, (plain, before), (name, found), how, pairs)


def _tuning(
    column: Column, frozen: tuple[str, ResultCell], tuned: tuple[str, ResultCell], how: str, pairs: Sequence[Pair]
) -> Tuning:
    (plain, before), (name, found) = frozen, tuned
    tested = next(
        (pair for pair in pairs if (pair.task, pair.metric) == (column.task, column.metric)
         and {pair.first, pair.second} == {plain, name}),
        None,
    )  # fmt: skip
    sign = 1 if tested is None or tested.first == name else -1
    ends = () if tested is None else sorted(sign * end for end in tested.interval)
    return Tuning(
        task=column.task,
        upstream=plain,
        name=name,
        how=how,
        frozen_mean=before.mean,
        frozen_interval=before.interval,
        mean=found.mean,
        interval=found.interval,
        difference=found.mean - before.mean,
        difference_interval=Interval(*ends) if ends else None,
        p_holm=None if tested is None else tested.p_holm,
        p_same_speakers=None if tested is None else tested.p_same_speakers,
        different=tested is not None and tested.different,
        trained_parameters=_of(found, "trained_parameters"),
        frozen_trained_parameters=_of(found, "frozen_trained_parameters"),
        audio_seconds=_of(found, "audio_seconds"),
        frozen_audio_seconds=_of(found, "frozen_audio_seconds"),
        seconds=_training_seconds(found.seeds),
        frozen_seconds=_training_seconds(before.seeds),
    )


def _of(cell: ResultCell, name: str) -> float | None:
    """The mean over seeds of what their records say of a cost; None where one does not."""
    return _mean(run.circumstances.get("finetuning", {}).get(name) for run in cell.seeds)


def _training_seconds(runs: Sequence[SeedRun]) -> float | None:
    return _mean(run.circumstances.get("wall_seconds", {}).get("train") for run in runs)


def _mean(values: Iterator[Any]) -> float | None:
    known = list(values)
    return None if None in known or not known else float(mean(known))
