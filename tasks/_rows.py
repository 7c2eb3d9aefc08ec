"""The rows of a corpus as a task takes them: examples, and the clips that a recipe makes of each."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from core.audio import SAMPLE_RATE, duration_seconds
from core.digest import canonical_json, digest_of, written_then_renamed
from core.errors import CacheError, ManifestError
from core.feature_cache import Kind
from core.manifest import SPLITS, Manifest, Utterance, refuse, unseen_labels
from downstreams._base import HEADS
from downstreams._recipe import Recipe
from tasks._base import Task
from tasks._doubts import doubts, drawn_by_class, refuse_one_class
from upstreams._extraction.clips import Clip, is_long


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


@dataclass(frozen=True, eq=False)  # compared and hashed as an object: two of 150,000 rows take a second
class TaskRows:
    """What a task takes of a corpus under a recipe: made once, the same for every upstream and seed.

    Pickled after `kept_in`, it is its path alone, and each process reads that file once.

    Attributes:
        corpus: its name.
        recipe: decides what is made of each row.
        recordings: split -> the whole recording of each row; its samples are 0 where only the file's header knows them.
        examples: split -> examples.
        digest: sha256 of the examples: ids, splits, labels and audio.
        limited: whether rows were left out.
        doubts: what a person should know of the rows before trusting the score.
        path: where it is kept; None where it is not.
    """

    corpus: str
    recipe: Recipe
    recordings: Mapping[str, Sequence[Clip]]
    examples: Mapping[str, Sequence[Example]]
    digest: str
    limited: bool
    doubts: tuple[str, ...] = ()
    path: Path | None = None

    @cached_property
    def clips(self) -> Mapping[str, list[list[Clip]]]:
        """Split -> for each row the clips that the recipe makes of it."""
        return clips_by_split(self.recordings, self.recipe)

    def all_clips(self, splits: Sequence[str] = SPLITS) -> Iterator[Clip]:
        """The clips of these splits, one after the other."""
        return chain.from_iterable(row for split in splits for row in self.clips[split])

    @cached_property
    def long(self) -> int:
        """How many rows have a clip that passes an upstream in pieces."""
        return sum(any(is_long(samples_of(clip)) for clip in row) for row in chain.from_iterable(self.clips.values()))

    def whole(self, split: str) -> list[Clip]:
        """The recordings of a split with their lengths."""
        return [replace(clip, samples=samples_of(clip)) for clip in self.recordings[split]]

    def kept_in(self, folder: Path) -> TaskRows:
        """The same value, written under its digest for the processes that it is sent to."""
        fields = ("audio_digest", "path", "start", "stop")
        recordings = {
            split: [[str(clip.path) if name == "path" else getattr(clip, name) for name in fields] for clip in clips]
            for split, clips in self.recordings.items()
        }
        examples = {
            split: [[row.id, row.keys, row.label, row.speaker] for row in rows] for split, rows in self.examples.items()
        }
        text = canonical_json([self.corpus, self.recipe, recordings, examples, self.digest, self.limited]).encode()
        path = folder / f"{hashlib.sha256(text).hexdigest()[:32]}.json"
        if not path.is_file():
            with written_then_renamed(path) as temporary:
                temporary.write_bytes(text)
        return replace(self, path=path)

    def __reduce__(self) -> str | tuple[Any, ...]:
        return super().__reduce__() if self.path is None else (read_rows, (self.path,))


@lru_cache(maxsize=2)  # jobs come task by task; of 150,000 rows it takes some 300 MB
def read_rows(path: Path) -> TaskRows:
    """What `TaskRows.kept_in` wrote.

    Raises: CacheError: it is gone or damaged.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise CacheError(f"{path}: gone while a run needed it; run the same command again") from None
    if hashlib.sha256(text).hexdigest()[:32] != path.stem:
        raise CacheError(f"{path}: damaged; delete it and run the same command again")
    corpus, recipe, recordings, examples, digest, limited = json.loads(text)
    made = Recipe.from_json(recipe)
    return TaskRows(
        corpus,
        made,
        {
            split: [
                Clip(audio, Path(file), _known_samples(start, stop), frozenset(), start, stop, made.gain_db)
                for audio, file, start, stop in clips
            ]
            for split, clips in recordings.items()
        },
        {
            split: [Example(name, tuple(keys), label, speaker) for name, keys, label, speaker in rows]
            for split, rows in examples.items()
        },
        digest,
        limited,
        path=path,
    )


def _speaker(row: Utterance) -> str | None:
    """The note `voice`, or where speakers are the labels, those."""
    speaker = row.labels.get("voice", row.labels.get("speaker"))
    return None if speaker is None else str(speaker)


def task_rows(manifest: Manifest, task: Task, recipe: Recipe | None = None, limit: int | None = None) -> TaskRows:
    """The rows a task takes, checked against its needs.

    Args:
        manifest: of the whole corpus.
        task: whose label the rows must carry.
        recipe: decides what is made of them; None is the task's default.
        limit: rows a split at most; None takes all.

    Raises: ManifestError: parts of the corpus are missing, no row has the label, a split is empty, a label is not in
        train, or a voice in two splits. TrainingError: the labels of train can't be learned.
    """
    recipe = task.recipe(None) if recipe is None else recipe
    utterances = _chosen(manifest, task, limit)
    digests = manifest.audio_digests
    recordings = {
        split: [recording_of(row, digests[row.id], recipe) for row in rows] for split, rows in utterances.items()
    }
    clips = clips_by_split(recordings, recipe)
    examples = {
        split: [
            Example(row.id, tuple(clip.key for clip in made), row.labels[task.label], _speaker(row))
            for row, made in zip(rows, clips[split], strict=True)
        ]
        for split, rows in utterances.items()
    }
    values = [example.label for example in examples["train"]]
    HEADS.get(task.head).labels_from_train(values, task.label, recipe)  # raises where they can't be learned
    found = tuple(doubts(utterances, task.label, digests))
    taken = TaskRows(manifest.name, recipe, recordings, examples, digest_of(examples), limit is not None, found)
    vars(taken)["clips"] = clips  # which the property would make again
    return taken


def _chosen(manifest: Manifest, task: Task, limit: int | None) -> dict[str, tuple[Utterance, ...]]:
    """Split -> the rows that a task takes; see `task_rows`."""
    manifest.require_complete()
    chosen = manifest.with_label(task.label)
    closed_set = HEADS.get(task.head).label_kind.closed_set
    if closed_set:
        refuse(manifest.source, unseen_labels(chosen, task.label))
    if task.disjoint is not None:
        refuse(manifest.source, _shared(chosen, task.disjoint))
    utterances = {split: drawn_by_class(chosen.split(split), task.label, limit) for split in SPLITS}
    if closed_set:
        refuse_one_class(manifest.source, utterances, task.label)
    if limit is not None:  # cutting may lose classes of train; what is left has to fit together
        known = {str(row.labels[task.label]) for row in utterances["train"]}
        if closed_set:
            utterances = _with_known_labels(utterances, task.label, known)
    return utterances


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


def recording_of(row: Utterance, audio_digest: str, recipe: Recipe) -> Clip:
    """The whole of a row, at the recipe's level."""
    samples = _known_samples(row.start, row.stop)
    return Clip(audio_digest, row.path, samples, frozenset(), row.start, row.stop, recipe.gain_db)


def clips_by_split(recordings: Mapping[str, Sequence[Clip]], recipe: Recipe) -> dict[str, list[list[Clip]]]:
    """Split -> for each recording the clips that a recipe makes of it; only train is cropped."""
    return {
        split: [crops_of(clip, recipe) for clip in clips] if split == "train" else [[clip] for clip in clips]
        for split, clips in recordings.items()
    }


def crops_of(whole: Clip, recipe: Recipe) -> list[Clip]:
    """The clips that a recipe makes of a recording to train on: itself, or random pieces of a long one.

    The places of the pieces follow from the audio alone, so they are the same everywhere and for every upstream.
    """
    if not recipe.crop_samples:
        return [whole]
    room = samples_of(whole) - recipe.crop_samples
    if room <= 0:
        return [whole]
    starts = random.Random(f"{whole.audio_digest}{whole.start}").sample(range(room + 1), min(recipe.crops, room + 1))
    begins = [whole.start + start for start in sorted(starts)]
    return [
        replace(whole, start=begin, stop=begin + recipe.crop_samples, samples=recipe.crop_samples) for begin in begins
    ]


@cache
def _recording_samples(path: Path) -> int:
    return round(duration_seconds(path) * SAMPLE_RATE)


def _known_samples(start: int, stop: int | None) -> int:
    return 0 if stop is None else stop - start


def samples_of(clip: Clip) -> int:
    """Its length at 16 kHz, as far as the file's header tells."""
    return clip.samples or _recording_samples(clip.path) - clip.start


def clips_of(needs: Iterable[tuple[Iterable[Clip], Kind]]) -> list[Clip]:
    """What has to pass an upstream: each clip once, with its length and all kinds that any task wants of it."""
    kinds: dict[str, set[Kind]] = {}
    clips: dict[str, Clip] = {}
    for wanted, kind in needs:
        for clip in wanted:
            key = clip.key
            if key not in clips:
                clips[key], kinds[key] = clip, set()
            kinds[key].add(kind)
    shared = {found: frozenset(found) for found in map(frozenset, kinds.values())}
    return [replace(clip, samples=samples_of(clip), kinds=shared[frozenset(kinds[key])]) for key, clip in clips.items()]
