"""SUPERB's own suite: which runs stand on its board, by the content of what was run, not by what it is called.

`superb.json` holds the digests of task, recipe and audio as they are declared in tasks/, which this folder can't see;
a test compares them, and `pytest tests/test_protocol.py --update-golden` writes them anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from core.digest import digest_of
from core.records import ResultRecord, task_digest

FILE = Path(__file__).parent / "superb.json"


@dataclass(frozen=True)
class SuperbTask:
    """A task of the suite, as it is defined here.

    Attributes:
        title: one line.
        metrics: names of the metrics that are published, the task's first one first.
        head: name of the head.
        corpus: name of the corpus.
        train, valid, test: utterances of the whole corpus; of folds the mean in train and valid, and the sum in test.
        in_both: how many rows beside those may stand in train and in valid alike, as seconds of background do.
        too_short: how many of train at most the recipe may leave out, as recordings are that lose most of their time
            with their pauses.
        left_out: share of a split at most that the corpus's adapter leaves out by SUPERB's rules, where nobody
            publishes how many rows they are.
        trials: of test, where pairs are judged; else 0.
        task: digest of what decides a result besides recipe and data.
        recipe: digest of the recipe's fields.
        audio: digest of what is made of the recordings.
        folds: value that is tested on -> its utterances of train, valid and test; empty where splits are fixed.
    """

    title: str
    metrics: Sequence[str]
    head: str
    corpus: str
    train: int
    valid: int
    test: int
    in_both: int
    task: str
    recipe: str
    audio: str
    folds: Mapping[str | None, Sequence[int]] = field(default_factory=dict)
    too_short: int = 0
    trials: int = 0
    left_out: float = 0.0

    def is_of(self, record: ResultRecord) -> bool:
        """Whether a run is of this task, with its recipe, on its corpus, as many utterances as the whole one has."""
        digests = (task_digest(record.task), record.recipe.get("digest"), digest_of(record.clean_audio))
        sizes = self.folds or {None: (self.train, self.valid, self.test)}
        if record.fold not in sizes:
            return False
        return (
            record.corpus["name"] == self.corpus
            and digests == (self.task, self.recipe, self.audio)
            and self._is_whole(record.counts, sizes[record.fold])
            and record.counts.get("trials", 0) == self.trials
        )

    def _is_whole(self, counts: Mapping[str, int], sizes: Sequence[int]) -> bool:
        """Whether the splits have as many utterances as they should."""
        train, valid, test = (counts.get(split, 0) for split in ("train", "valid", "test"))
        if self.left_out:
            pairs = zip((train, valid, test), sizes, strict=True)
            return all((1 - self.left_out) * size <= count <= size for count, size in pairs)
        more = train - sizes[0]
        return -self.too_short <= more <= self.in_both and [valid - max(0, more), test] == list(sizes[1:])


@cache
def superb_tasks() -> Mapping[str, SuperbTask]:
    """Name of a task -> what it has to be, in the order of the names."""
    found = json.loads(FILE.read_text(encoding="utf-8"))
    return {name: SuperbTask(**found[name]) for name in sorted(found)}
