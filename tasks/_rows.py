"""The rows of a corpus as a task takes them: examples, and the clips that are made of each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import chain, compress
from pathlib import Path
from typing import Any

from core.digest import canonical_json, digest_of, written_then_renamed
from core.errors import CacheError, ManifestError
from core.extras import require_extra
from core.feature_cache import Kind
from core.manifest import SPLITS, Manifest, Utterance, refuse, unseen_labels
from core.metrics import get_metric
from core.mixtures import mixture_from_json, mixture_to_json
from downstreams._base import HEADS
from downstreams._recipe import Recipe
from tasks._audio import AudioRecipe, crops_of, samples_of, without_pauses
from tasks._base import Task
from tasks._doubts import doubts, drawn_by_class, refuse_one_class, words_without_spaces
from tasks._folds import divided, in_fold
from tasks._signals import Signals, signals_of
from tasks._trials import Trial, searches_of, trials_of
from upstreams._extraction.clips import Clip, is_long

Voices = str | tuple[str, ...] | None  # of a row


@dataclass(frozen=True)
class Example:
    """An utterance as a task sees it.

    Attributes:
        id: of the manifest's row.
        keys: cache keys of its clips: one, or several crops of which training draws one at a time.
        label: what the task asks for; None of a recording that is searched for it.
        speaker: whose voice it is, or whose of a mixture, where the corpus tells; statistics resample whole speakers.
    """

    id: str
    keys: tuple[str, ...]
    label: Any
    speaker: Voices = None


@dataclass(frozen=True)
class Drawn:
    """A part of train that a label budget has drawn, and the whole that it is a part of; see `tasks/_budgets.py`.

    Attributes:
        budget: that was asked for, such as 10min or 10%.
        seconds: of the recordings that were drawn, without what is trimmed.
        whole_seconds: of all of train.
        whole_train: how many recordings all of train has.
        whole: digest of the rows with all of train.
        labels: one of each class of all of train, where labels are classes; else empty.
    """

    budget: str
    seconds: float
    whole_seconds: float
    whole_train: int
    whole: str
    labels: tuple[Any, ...] = ()

    def recorded(self) -> dict[str, Any]:
        """What a record repeats."""
        return {name: value for name, value in asdict(self).items() if name != "labels"}


@dataclass(frozen=True, eq=False)  # compared and hashed as an object: two of 150,000 rows take a second
class TaskRows:
    """What a task takes of a corpus, and what is made of it: made once, the same for every upstream and seed.

    Pickled after `kept_in`, it is its path alone, and each process reads that file once.

    Attributes:
        corpus: its name.
        audio: what is made of the recordings.
        recordings: split -> the whole recording of each row; its samples are 0 where only the file's header knows them.
        examples: split -> examples.
        digest: sha256 of ids, splits, labels and recordings of the rows, whatever is made of the recordings.
        limited: whether rows were left out.
        doubts: what a person should know of the rows before trusting the score.
        fold: that is tested on, where the task has folds.
        trials: of valid and test, where the task compares recordings with each other, or searches them.
        divided: what all folds have in common, as it is recorded; see `tasks/_folds.py`.
        drawn: what a label budget has left of train; None is all of it.
        path: where it is kept; None where it is not.
    """

    corpus: str
    audio: AudioRecipe
    recordings: Mapping[str, Sequence[Clip]]
    examples: Mapping[str, Sequence[Example]]
    digest: str
    limited: bool
    doubts: tuple[str, ...] = ()
    fold: str | None = None
    trials: Mapping[str, Sequence[Trial]] = field(default_factory=dict)
    divided: Mapping[str, Any] = field(default_factory=dict)
    drawn: Drawn | None = None
    path: Path | None = None

    @property
    def known_labels(self) -> list[Any]:
        """What a head's labels are collected from: those of train, of a part of it the classes of the whole."""
        if self.drawn is not None and self.drawn.labels:
            return list(self.drawn.labels)
        return [example.label for example in self.examples["train"]]

    def heard_in(self, condition: str) -> TaskRows:
        """The same rows, those of test heard in a condition."""
        heard = [replace(clip, condition=condition) for clip in self.recordings["test"]]
        tested = zip(self.examples["test"], heard, strict=True)
        return replace(
            self,
            audio=replace(self.audio, condition=condition),
            recordings={**self.recordings, "test": heard},
            examples={**self.examples, "test": [replace(example, keys=(clip.key,)) for example, clip in tested]},
        )

    @cached_property
    def clips(self) -> Mapping[str, list[list[Clip]]]:
        """Split -> for each row the clips that are made of it."""
        return clips_by_split(self.recordings, self.audio)

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
        recordings = {split: [_clip_to_json(clip) for clip in clips] for split, clips in self.recordings.items()}
        examples = {
            split: [[row.id, row.keys, row.label, row.speaker] for row in rows] for split, rows in self.examples.items()
        }
        text = canonical_json(
            [
                self.corpus,
                self.audio,
                recordings,
                examples,
                self.digest,
                self.limited,
                self.fold,
                self.trials,
                self.divided,
                self.drawn,
            ]
        ).encode()
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
    corpus, audio, recordings, examples, digest, limited, fold, trials, divided, drawn = json.loads(text)
    made = AudioRecipe.from_json(audio)
    return TaskRows(
        corpus,
        made,
        {
            split: [_clip_from_json(clip, made, made.condition if split == "test" else None) for clip in clips]
            for split, clips in recordings.items()
        },
        {
            split: [Example(name, tuple(keys), label, _voices(speaker)) for name, keys, label, speaker in rows]
            for split, rows in examples.items()
        },
        digest,
        limited,
        fold=fold,
        trials={split: [Trial(*trial) for trial in pairs] for split, pairs in trials.items()},
        divided=divided,
        drawn=drawn and Drawn(**{**drawn, "labels": tuple(drawn["labels"])}),
        path=path,
    )


def _clip_to_json(clip: Clip) -> list[Any]:
    mixture = None if clip.mixture is None else mixture_to_json(clip.mixture)
    return [clip.audio_digest, str(clip.path), clip.samples, clip.start, clip.stop, mixture]


def _clip_from_json(content: Sequence[Any], audio: AudioRecipe, condition: str | None) -> Clip:
    digest, path, samples, start, stop, mixed = content
    mixture = mixed and mixture_from_json(mixed)
    return Clip(digest, Path(path), samples, frozenset(), start, stop, audio.gain_db, mixture, condition)


SPEAKERS = ("voice", "speaker", "speaker_to_verify")  # keys of a row that say who speaks; the first there counts


def _speaker(row: Utterance) -> Voices:
    """The note `voice`, or where speakers are the labels, those: without one, an interval would draw rows alone."""
    return next((_voices(row.labels[key]) for key in SPEAKERS if row.labels.get(key) is not None), None)


def _voices(value: Any) -> Voices:
    """One voice, or those of a list."""
    if isinstance(value, list | tuple):
        return tuple(sorted({str(each) for each in value}))
    return None if value is None else str(value)


def task_rows(
    manifest: Manifest,
    task: Task,
    recipe: Recipe | None = None,
    limit: int | None = None,
    fold: str | None = None,
) -> TaskRows:
    """The rows a task takes, checked against its needs.

    Args:
        manifest: of the whole corpus.
        task: whose label the rows must carry.
        recipe: decides what is made of the recordings; None is the task's default.
        limit: rows a split at most; None takes all.
        fold: that is tested on, where the task has folds.

    Raises: ManifestError: parts of the corpus are missing, no row has the label, a split is empty, a label is not in
        train, a voice in two splits, or a recording that can't be trimmed. TrainingError: the labels of train can't be
        learned.
    """
    recipe = task.recipe(None) if recipe is None else recipe
    audio = task.audio_of(recipe)
    for metric in map(get_metric, task.metrics):
        if metric.extra is not None:
            require_extra(metric.extra, f"task {task.name}: metric {metric.name}")
    utterances: Rows = _chosen(in_fold(manifest, task, fold), task, limit)
    digests = manifest.audio_digests
    recordings: Recordings = {
        split: [recording_of(row, digests[row.id], audio) for row in rows] for split, rows in utterances.items()
    }
    trials = {split: _trials(manifest, utterances[split], task) for split in SPLITS[1:] if task.scorer}
    signals = _signals(manifest, utterances, task, audio)
    rows_digest = _digest_of(utterances, task.label, digests, trials, signals)
    if audio.trim is not None:
        recordings = {split: without_pauses(made, audio.trim, manifest.memory) for split, made in recordings.items()}
    utterances, recordings = _long_enough(utterances, recordings, audio.min_samples)
    clips = clips_by_split(recordings, audio)
    examples = {split: _examples(rows, clips[split], task.label, signals) for split, rows in utterances.items()}
    values = [example.label for example in examples["train"]]
    HEADS.get(task.head).labels_from_train(values, task.label, recipe)  # raises where they can't be learned
    spelt = words_without_spaces(utterances["train"], task.label, task.metrics)
    found = (*doubts(utterances, task.label, digests), *spelt) if task.against is None else ()
    common = divided(manifest, task, limit)
    taken = TaskRows(
        manifest.name, audio, recordings, examples, rows_digest, limit is not None, found, fold, trials, common
    )
    vars(taken)["clips"] = clips  # which the property would make again
    return taken


def _trials(manifest: Manifest, rows: Sequence[Utterance], task: Task) -> list[Trial]:
    if task.against is None:
        return trials_of(manifest, rows, task.label)
    return searches_of(manifest, rows, task.label, task.against)


def _signals(manifest: Manifest, rows: Rows, task: Task, audio: AudioRecipe) -> Mapping[str, Signals]:
    """What the labels name, where they name waveforms."""
    if not HEADS.get(task.head).label_kind.heard:
        return {}
    return signals_of(manifest, [row for part in rows.values() for row in part], task.label, audio.gain_db)


def _examples(
    rows: Sequence[Utterance], clips: Sequence[Sequence[Clip]], label: str, signals: Mapping[str, Signals]
) -> list[Example]:
    return [
        Example(
            row.id,
            tuple(clip.key for clip in made),
            signals[row.id].label if signals else row.labels.get(label),
            _speaker(row),
        )
        for row, made in zip(rows, clips, strict=True)
    ]


def _digest_of(
    rows: Rows,
    label: str,
    digests: Mapping[str, str],
    trials: Mapping[str, Sequence[Trial]],
    signals: Mapping[str, Signals],
) -> str:
    def meaning(row: Utterance) -> Any:
        return signals[row.id].digests if signals else row.labels.get(label)

    facts: dict[str, Any] = {
        split: [[row.id, meaning(row), _speaker(row), digests[row.id], row.start, row.stop] for row in part]
        for split, part in rows.items()
    }
    return digest_of(facts | ({"trials": trials} if trials else {}))


Rows = Mapping[str, Sequence[Utterance]]
Recordings = Mapping[str, Sequence[Clip]]


def _long_enough(rows: Rows, recordings: Recordings, min_samples: int) -> tuple[Rows, Recordings]:
    """Without the rows of train whose recordings have no more samples."""
    if not min_samples:
        return rows, recordings
    kept = [samples_of(clip) > min_samples for clip in recordings["train"]]
    if not any(kept):
        raise ManifestError(f"no recording of train has more than {min_samples} samples, which the recipe asks for")
    return (
        {**rows, "train": tuple(compress(rows["train"], kept))},
        {**recordings, "train": list(compress(recordings["train"], kept))},
    )


def _chosen(manifest: Manifest, task: Task, limit: int | None) -> dict[str, tuple[Utterance, ...]]:
    """Split -> the rows that a task takes; see `task_rows`."""
    manifest.require_complete()
    chosen = task.rows_of(manifest)
    closed_set = HEADS.get(task.head).label_kind.closed_set
    if closed_set:
        refuse(manifest.source, unseen_labels(chosen, task.label))
    if task.disjoint is not None:
        refuse(manifest.source, _shared(chosen, task.disjoint, task.folds is not None))
    utterances = {
        split: drawn_by_class(chosen.split(split), task.label, limit) if split in task.splits else ()
        for split in SPLITS
    }
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


def values_of(row: Utterance, key: str) -> list[str]:
    """What a row has under a key: nothing, a value, or those of a list."""
    value = row.labels.get(key)
    return [] if value is None else [str(each) for each in (value if isinstance(value, list | tuple) else [value])]


def _shared(manifest: Manifest, key: str, folds: bool) -> list[str]:
    """A line for each row whose value of the key is in another split, too; in folds, valid is a part of train."""
    first: dict[str, Utterance] = {}
    problems = []
    for row in manifest.utterances:
        for value in values_of(row, key):
            other = first.setdefault(value, row)
            both = {other.split, row.split}
            if len(both - ({"valid"} if folds and "test" not in both else set())) > 1:
                where = f"{row.split}, but in {other.split} at {other.where}"
                problems.append(f"{row.where}: {key} '{value}' is in {where}")
    return problems


def recording_of(row: Utterance, audio_digest: str, audio: AudioRecipe) -> Clip:
    """The whole of a row, at its level."""
    samples = _known_samples(row.start, row.stop)
    return Clip(audio_digest, row.path, samples, frozenset(), row.start, row.stop, audio.gain_db, row.mixture)


def _known_samples(start: int, stop: int | None) -> int:
    return 0 if stop is None else stop - start


def clips_by_split(recordings: Mapping[str, Sequence[Clip]], audio: AudioRecipe) -> dict[str, list[list[Clip]]]:
    """Split -> for each recording the clips that are made of it; only train is cropped."""
    return {
        split: [crops_of(clip, audio) for clip in clips] if split == "train" else [[clip] for clip in clips]
        for split, clips in recordings.items()
    }


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
