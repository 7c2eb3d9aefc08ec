"""Folds: a corpus divided by the values of a key, each of which is tested on once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from core.digest import digest_of
from core.errors import ManifestError
from core.manifest import Manifest, Utterance, refuse
from tasks._base import Task

TRAIN_SHARE = 0.8  # of the rows that are not tested on; the others choose, as in SUPERB's emotion recognition


def folds_of(manifest: Manifest, task: Task) -> Sequence[str | None]:
    """What a task is tested on, one after the other: the values of its key, in alphabetical order; or None alone.

    Raises: ManifestError: rows without the key, or fewer than two values.
    """
    if task.folds is None:
        return [None]
    rows = manifest.with_label(task.label).utterances
    lacking = [row for row in rows if row.labels.get(task.folds) is None]
    refuse(manifest.source, [f"{row.where}: has no '{task.folds}', by which {task.name} is divided" for row in lacking])
    found = sorted({str(row.labels[task.folds]) for row in rows})
    if len(found) < 2:
        raise ManifestError(
            f"{manifest.source}: every row has {task.folds} '{found[0]}', {task.name} needs two at least"
        )
    return found


def in_fold(manifest: Manifest, task: Task, fold: str | None) -> Manifest:
    """The corpus with the splits of a fold: its rows are tested on, a fifth of the others chooses on valid.

    Which rows choose follows from the fold and their ids alone, so it is the same everywhere, in whatever order they
    come, and each fold has others. Without a fold the corpus is as it was.
    """
    if task.folds is None or fold is None:
        return manifest
    rows = manifest.with_label(task.label).utterances
    others = sorted((row for row in rows if str(row.labels[task.folds]) != fold), key=lambda row: _drawn(row, fold))
    train = {row.id for row in others[: int(TRAIN_SHARE * len(others))]}
    split = {row.id: "train" if row.id in train else "valid" for row in others}
    return replace(manifest, utterances=tuple(replace(row, split=split.get(row.id, "test")) for row in rows))


def divided(manifest: Manifest, task: Task, limit: int | None) -> Mapping[str, Any]:
    """What all folds of a corpus have in common, to be recorded with each of them; nothing where there are none.

    Returns: `folds`, the values that are tested on; `undivided`, the digest of the rows whatever their splits.
    """
    if task.folds is None:
        return {}
    digests = manifest.audio_digests
    rows = manifest.with_label(task.label).utterances
    facts = [
        [
            row.id,
            row.labels[task.label],
            row.labels[task.folds],
            row.labels.get("voice"),
            digests[row.id],
            row.start,
            row.stop,
        ]
        for row in rows
    ]
    return {"folds": list(folds_of(manifest, task)), "undivided": digest_of([sorted(facts, key=str), limit])}


def _drawn(row: Utterance, fold: str) -> str:
    return hashlib.sha256(f"{fold}|{row.id}".encode()).hexdigest()
