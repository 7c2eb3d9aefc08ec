"""Recordings of test that are elsewhere, too: in train or valid of the task, or in what an upstream was trained on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from core.fingerprints import Copy, Fingerprint, copies
from frostbench.grid.cell import Cell
from frostbench.grid.needs import Part
from frostbench.preparation import SHOWN, in_two_splits, line_of_copies
from tasks._rows import TaskRows
from upstreams._resolve import heard_in_pretraining

Waves = list[list[Part]]


def find_leaks(
    waves: Sequence[Sequence[Part]], prints: Mapping[str, Fingerprint], found: Sequence[Copy]
) -> tuple[Waves, list[str]]:
    """The cells with their leaks, and lines for a person.

    Args:
        waves: groups of upstreams with their cells.
        prints: utterance id -> fingerprint.
        found: recordings that are in the corpus more than once.
    """
    lines: dict[str, None] = {}
    known: dict[tuple[str, str | None, str], Mapping[str, Any]] = {}
    marked = []
    for wave in waves:
        parts = []
        for part in wave:
            heard = heard_in_pretraining(part.upstream.spec)
            cells = []
            for cell in part.cells:
                key = cell.rows.digest, cell.fold, cell.upstream.digest
                if key not in known:
                    known[key] = _leaks_of(cell, prints, found, heard)
                    lines |= dict.fromkeys(_lines(cell, known[key], found))
                cells.append(replace(cell, leaks=known[key]))
            parts.append(replace(part, cells=cells))
        marked.append(parts)
    return marked, list(lines)


def _leaks_of(
    cell: Cell, prints: Mapping[str, Fingerprint], found: Sequence[Copy], heard: Mapping[str, Fingerprint]
) -> dict[str, Any]:
    """What is recorded: nothing where all is well. Of a task that searches, nothing is learned from its corpus."""
    test = [example.id for example in cell.examples["test"]]
    split_of = _splits(cell.rows)
    shared = in_two_splits(found, split_of) if cell.task.against is None else []
    twice = {copy.asked for copy in shared if split_of[copy.asked] == "test"}
    asked = {name: prints[name] for name in test if name in prints}
    learned = {copy.asked for copy in copies(asked, {f"heard {name}": each for name, each in heard.items()})}
    leaks = {"two_splits": twice, "pretraining": learned}
    return {kind: _counted(test, names) for kind, names in leaks.items() if names}


def _counted(test: Sequence[str], names: Iterable[str]) -> dict[str, Any]:
    among = set(names)
    ids = [name for name in test if name in among]
    return {"count": len(ids), "of": len(test), "ids": ids[:SHOWN]}


def _lines(cell: Cell, leaks: Mapping[str, Any], found: Sequence[Copy]) -> Iterable[str]:
    """What is in two files; what is in one is said by the task's own doubts."""
    if cell.task.against is None:
        split_of, files = _splits(cell.rows), _files(cell.rows)
        shared = [copy for copy in in_two_splits(found, split_of) if files[copy.asked] != files[copy.known]]
        if shared:
            yield line_of_copies(shared, split_of)
    if "pretraining" in leaks:
        held = leaks["pretraining"]
        shown = ", ".join(f"'{name}'" for name in held["ids"])
        yield (
            f"{cell.upstream.title} was trained on {held['count']} of the {held['of']} recordings of "
            f"{cell.task.name}'s test: {shown}{', ...' if held['count'] > SHOWN else ''}; its row will say so"
        )


def _splits(rows: TaskRows) -> dict[str, str]:
    """Utterance id -> split."""
    return {example.id: split for split, examples in rows.examples.items() for example in examples}


def _files(rows: TaskRows) -> dict[str, tuple[str, int, int | None]]:
    """Utterance id -> what file it is, and which piece."""
    return {
        example.id: (clip.audio_digest, clip.start, clip.stop)
        for split, examples in rows.examples.items()
        for example, clip in zip(examples, rows.recordings[split], strict=True)
    }
