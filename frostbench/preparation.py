"""What `prepare` examines of a corpus before anybody computes on it."""

from __future__ import annotations

from core.manifest import SPLITS, Manifest, validate
from downstreams._base import HEADS
from frostbench.jobs.progress import Watcher
from tasks._base import TASKS, Task
from tasks._doubts import doubts, words_without_spaces


def examine(manifest: Manifest, watcher: Watcher) -> None:
    """Decodes every recording, and compares across splits the labels that tasks can only predict if train has them.

    Of a corpus with missing parts labels are not compared: what is left can't be expected to hold every one in train.

    Raises: ManifestError: names every row that is not usable.
    """
    closed = [task.label for task in TASKS if HEADS.get(task.head).label_kind.closed_set]
    watcher.stage("checking recordings", len(manifest.utterances), "recordings")
    validate(manifest, [] if manifest.missing else closed, advance=lambda: watcher.advance(1))
    for line in dict.fromkeys(line for task in TASKS for line in _doubts(manifest, task)):
        watcher.say(f"note: {line}")


def _doubts(manifest: Manifest, task: Task) -> list[str]:
    """What is doubtful of the rows that carry a task's label."""
    label = task.label
    if task.against is not None:  # nothing is learnt, so nothing can be known beforehand
        return []
    labelled = [row for row in manifest.utterances if row.labels.get(label) is not None]
    rows = {split: [row for row in labelled if row.split == split] for split in SPLITS}
    if not labelled:
        return []
    spelt = words_without_spaces(rows["train"], label, task.metrics)
    return [*doubts(rows, label, manifest.audio_digests), *spelt]
