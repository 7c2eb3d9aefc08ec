"""The rows of a corpus as a task takes them: examples, and the clips that a recipe makes of each."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from core.audio import SAMPLE_RATE, duration_seconds
from core.errors import ManifestError
from core.feature_cache import Kind
from core.manifest import SPLITS, Manifest, Utterance, refuse, unseen_labels
from downstreams._base import HEADS
from downstreams._labels import SlotLabels
from downstreams._recipe import Recipe
from tasks._base import Task
from upstreams._extraction.clips import Clip


@dataclass(frozen=True)
class Example:
    """An utterance as a task sees it.

    Attributes:
        id: of the manifest's row.
        keys: cache keys of its clips: one, or several crops of which training draws one at a time.
        label: what the task asks for.
        speaker: whose voice it is, where the corpus tells; statistics resample whole speakers.
    """

    id: str
    keys: tuple[str, ...]
    label: Any
    speaker: str | None = None


@dataclass(frozen=True)
class TaskData:
    """The rows of a corpus that a task takes.

    Attributes:
        corpus: its name.
        utterances: split -> rows.
        digests: utterance id -> audio digest.
        limited: whether rows were left out.
    """

    corpus: str
    utterances: Mapping[str, tuple[Utterance, ...]]
    digests: Mapping[str, str]
    limited: bool

    def without_train(self) -> TaskData:
        """The rows that are only evaluated on."""
        return replace(self, utterances={**self.utterances, "train": ()})

    def clips(self, recipe: Recipe) -> dict[str, list[list[Clip]]]:
        """Split -> for each row the clips that the recipe makes of it."""
        return {
            split: [clips_of_row(row, self.digests[row.id], recipe, crop=split == "train") for row in rows]
            for split, rows in self.utterances.items()
        }

    def examples(self, label: str, recipe: Recipe) -> dict[str, list[Example]]:
        """Split -> examples."""
        clips = self.clips(recipe)
        return {
            split: [
                Example(row.id, tuple(clip.key for clip in made), row.labels[label], _speaker(row))
                for row, made in zip(rows, clips[split], strict=True)
            ]
            for split, rows in self.utterances.items()
        }


def _speaker(row: Utterance) -> str | None:
    """The note `voice`, or where speakers are the labels, those."""
    speaker = row.labels.get("voice", row.labels.get("speaker"))
    return None if speaker is None else str(speaker)


def task_data(manifest: Manifest, task: Task, limit: int | None = None) -> TaskData:
    """The rows a task takes, checked against its needs.

    Args:
        manifest: of the whole corpus.
        task: whose label the rows must carry.
        limit: rows a split at most; None takes all.

    Raises: ManifestError: parts of the corpus are missing, no row has the label, a split is empty, a label is not in
        train, or a voice in two splits.
    """
    manifest.require_complete()
    chosen = manifest.with_label(task.label)
    if HEADS.get(task.head).label_kind is SlotLabels:
        refuse(manifest.source, unseen_labels(chosen, task.label))
    if task.disjoint is not None:
        refuse(manifest.source, _shared(chosen, task.disjoint))
    utterances = {split: chosen.split(split)[:limit] for split in SPLITS}
    if limit is not None:  # cutting may lose classes of train; what is left has to fit together
        known = {str(row.labels[task.label]) for row in utterances["train"]}
        if HEADS.get(task.head).label_kind is SlotLabels:
            utterances = _with_known_labels(utterances, task.label, known)
    return TaskData(manifest.name, utterances, manifest.audio_digests, limit is not None)


def _with_known_labels(
    utterances: Mapping[str, tuple[Utterance, ...]], label: str, known: set[str]
) -> dict[str, tuple[Utterance, ...]]:
    kept = {split: tuple(row for row in rows if str(row.labels[label]) in known) for split, rows in utterances.items()}
    for split, rows in kept.items():
        if not rows:
            raise ManifestError(f"--limit leaves no row of split '{split}' with a '{label}' seen in train; raise it")
    return kept


def _shared(manifest: Manifest, key: str) -> list[str]:
    first: dict[str, Utterance] = {}
    problems = []
    for row in manifest.utterances:
        value = row.labels.get(key)
        if value is not None and first.setdefault(str(value), row).split != row.split:
            other = first[str(value)]
            problems.append(f"{row.where}: {key} '{value}' is in {row.split}, but in {other.split} at {other.where}")
    return problems


def clips_of_row(row: Utterance, audio_digest: str, recipe: Recipe, crop: bool) -> list[Clip]:
    """The clips that a recipe makes of a row: the recording, or random pieces of a long one.

    The places of the pieces follow from the audio alone, so they are the same everywhere and for every upstream.
    """
    whole = Clip(audio_digest, row.path, 0, frozenset(), row.start, row.stop, recipe.gain_db)
    if not crop or not recipe.crop_samples:
        return [whole]
    room = samples_of(whole) - recipe.crop_samples
    if room <= 0:
        return [whole]
    starts = random.Random(f"{audio_digest}{row.start}").sample(range(room + 1), min(recipe.crops, room + 1))
    begins = [row.start + start for start in sorted(starts)]
    return [replace(whole, start=begin, stop=begin + recipe.crop_samples) for begin in begins]


@cache
def _recording_samples(path: Path) -> int:
    return round(duration_seconds(path) * SAMPLE_RATE)


def samples_of(clip: Clip) -> int:
    """Its length at 16 kHz, as far as the file's header tells."""
    return (_recording_samples(clip.path) if clip.stop is None else clip.stop) - clip.start


def clips_of(needs: Iterable[tuple[TaskData, Recipe, Kind]]) -> list[Clip]:
    """What has to pass an upstream: each clip once, with all kinds that any task wants of it."""
    kinds: dict[str, set[Kind]] = defaultdict(set)
    clips: dict[str, Clip] = {}
    for data, recipe, kind in needs:
        for clip in chain.from_iterable(chain.from_iterable(data.clips(recipe).values())):
            kinds[clip.key].add(kind)
            clips.setdefault(clip.key, clip)
    return [replace(clip, samples=samples_of(clip), kinds=frozenset(kinds[key])) for key, clip in clips.items()]
