"""What `prepare` examines of a corpus before anybody computes on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from core.fingerprints import Copy, Fingerprint, copies, fingerprint
from core.manifest import SPLITS, Manifest, Utterance, validate
from downstreams._base import HEADS
from frostbench.jobs.progress import Watcher
from tasks._base import TASKS, Task
from tasks._doubts import doubts, words_without_spaces

SHOWN = 5


def examine(manifest: Manifest, watcher: Watcher) -> None:
    """Decodes every recording, and compares across splits the labels that tasks can only predict if train has them.

    Of a corpus with missing parts labels are not compared: what is left can't be expected to hold every one in train.

    Raises: ManifestError: names every row that is not usable.
    """
    closed = [task.label for task in TASKS if HEADS.get(task.head).label_kind.closed_set]
    watcher.stage("checking recordings", len(manifest.utterances), "recordings")
    prints = fingerprints_of(manifest, [] if manifest.missing else closed, lambda: watcher.advance(1))
    asked = {row.id for row in manifest.utterances if row.split != "train"} & set(prints)
    found = list(copies({name: prints[name] for name in sorted(asked)}, prints))
    for line in dict.fromkeys(line for task in TASKS for line in _doubts(manifest, task, found)):
        watcher.say(f"note: {line}")


def fingerprints_of(
    manifest: Manifest, categorical: Sequence[str] = (), advance: Callable[[], None] = lambda: None
) -> dict[str, Fingerprint]:
    """Validates a corpus, and gives utterance id -> fingerprint, of recordings that are no mixtures.

    Raises: ManifestError: names every row that is not usable.
    """
    found: dict[str, Fingerprint] = {}

    def decoded(utterance: Utterance, wav: torch.Tensor) -> None:
        found[utterance.id] = fingerprint(wav)

    validate(manifest, categorical, advance, decoded)
    return {row.id: found[row.id] for row in manifest.utterances if row.id in found}  # in their order


def in_two_splits(found: Sequence[Copy], split_of: Mapping[str, str]) -> list[Copy]:
    """The copies that stand in two splits, each once, the one in the later split first.

    Args:
        found: of any recordings.
        split_of: utterance id -> split, of the rows that a task takes.
    """
    order = {split: place for place, split in enumerate(SPLITS)}
    return [
        copy
        for copy in found
        if copy.asked in split_of
        and copy.known in split_of
        and order[split_of[copy.asked]] > order[split_of[copy.known]]
    ]


def line_of_copies(shared: Sequence[Copy], split_of: Mapping[str, str]) -> str:
    """What to tell a person of recordings that are in two splits."""
    shown = ", ".join(
        f"'{copy.asked}' of {split_of[copy.asked]} is '{copy.known}' of {split_of[copy.known]}"
        for copy in shared[:SHOWN]
    )
    more = f", and {len(shared) - SHOWN} more" if len(shared) > SHOWN else ""
    return f"one recording is in two splits, in different files: {shown}{more}; whoever has learned it knows the answer"


def _doubts(manifest: Manifest, task: Task, found: Sequence[Copy]) -> list[str]:
    """What is doubtful of the rows that carry a task's label."""
    label = task.label
    if task.against is not None:  # nothing is learnt, so nothing can be known beforehand
        return []
    labelled = [row for row in manifest.utterances if row.labels.get(label) is not None]
    rows = {split: [row for row in labelled if row.split == split] for split in SPLITS}
    if not labelled:
        return []
    spelt = words_without_spaces(rows["train"], label, task.metrics)
    files = {row.id: (manifest.audio_digests[row.id], row.start, row.stop) for row in labelled}
    split_of = {row.id: row.split for row in labelled}
    shared = [copy for copy in in_two_splits(found, split_of) if files[copy.asked] != files[copy.known]]
    again = [line_of_copies(shared, split_of)] if shared else []
    return [*doubts(rows, label, manifest.audio_digests), *again, *spelt]
