"""What a run consists of: cells (upstream x task x seed), their examples, and the clips they need extracted."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import torch

from core.audio import SAMPLE_RATE, duration_seconds
from core.digest import digest_of
from core.errors import ManifestError
from core.feature_cache import DTYPES, Dtype, Kind
from core.manifest import SPLITS, Manifest, Utterance, refuse, unseen_labels
from core.records import run_digest
from downstreams._base import HEADS
from downstreams._labels import SlotLabels
from downstreams._recipe import Recipe
from tasks._base import Task
from upstreams._base import Precision, Upstream
from upstreams._clips import LONGEST_SECONDS, Clip, is_long

PROTOCOL_VERSION = 3  # raised whenever the same inputs could give another result
# What becomes of frames: kept as float16 or int8, or computed anew whenever a clip is drawn.
Frames = Literal["float16", "int8", "recompute"]
FRAME_PROBES = 8


@dataclass(frozen=True)
class UpstreamFacts:
    """What is recorded of an upstream; `spec` builds it again.

    Attributes:
        name: in tables; another precision than float32 is part of it.
        spec: as typed.
        digest: of all that decides the features, the precision included.
        params: how many parameters.
        num_layers: of the hidden states.
        hidden_size: their width.
        downsample_rate: samples a frame.
        window_samples: see Upstream.
        batch_seconds: see Upstream.
        precision: in which it computes.
        extra_frames: how many frames a clip has beyond samples / downsample_rate, in the mean.
    """

    name: str
    spec: str
    digest: str
    params: int
    num_layers: int
    hidden_size: int
    downsample_rate: int
    window_samples: int
    batch_seconds: float
    precision: Precision = "float32"
    extra_frames: float = 0.0
    gflops_per_second: float | None = None

    @classmethod
    def of(cls, spec: str, upstream: Upstream, precision: Precision = "float32") -> UpstreamFacts:
        """Reads them off a built upstream."""
        exact = precision == "float32"
        return cls(
            name=upstream.display_name if exact else f"{upstream.display_name} ({precision})",
            spec=spec,
            digest=upstream.digest() if exact else digest_of([upstream.digest(), precision]),
            params=upstream.num_params(),
            num_layers=upstream.num_layers,
            hidden_size=upstream.hidden_size,
            downsample_rate=upstream.downsample_rate,
            window_samples=upstream.window_samples,
            batch_seconds=upstream.batch_seconds,
            precision=precision,
            extra_frames=_extra_frames(upstream),
        )

    def recorded(self) -> dict[str, Any]:
        """What belongs to the result; where the checkpoint lies on this machine does not."""
        return {key: value for key, value in asdict(self).items() if key not in PLANNING | {"spec"}}


PLANNING = {"window_samples", "batch_seconds", "extra_frames"}  # not part of a result


def _extra_frames(upstream: Upstream) -> float:
    """Asked for a few lengths only: an s3prl upstream has to compute each of them."""
    rate = upstream.downsample_rate
    lengths = max(SAMPLE_RATE, upstream.min_samples) + torch.arange(FRAME_PROBES) * rate // FRAME_PROBES
    return float((upstream.frame_lengths(lengths) - lengths / rate).mean())


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


@dataclass(frozen=True)
class Cell:
    """One run: everything that decides its result.

    Attributes:
        upstream: facts of the frozen upstream.
        task: what is asked.
        recipe: how the head is trained.
        corpus: name of the corpus.
        examples: split -> examples.
        seed: of the head's training.
        custom: whether it stays off the leaderboard.
        frames: what becomes of them, where the head needs frames; else None.
        live: split -> its clips, where they pass the upstream whenever they are drawn instead of once.
        long: how many recordings pass in pieces; found once it is clear that the cell has to be run.
    """

    upstream: UpstreamFacts
    task: Task
    recipe: Recipe
    corpus: str
    examples: Mapping[str, Sequence[Example]]
    seed: int
    custom: bool
    frames: Frames | None = None
    live: Mapping[str, tuple[Clip, ...]] = field(default_factory=dict)
    long: int = 0

    @property
    def kind(self) -> Kind:
        """The kind of features that the head is trained on."""
        return kind_of(self.task, self.recipe)

    @property
    def dtype(self) -> Dtype:
        """How they are kept; what is not kept is float32."""
        if self.frames is None:
            return DTYPES[self.kind]
        return "float32" if self.frames == "recompute" else self.frames

    @property
    def exact(self) -> bool:
        """Whether crops pass the upstream anew at every update."""
        return bool(self.recipe.crop_samples) and "train" in self.live

    @property
    def name(self) -> str:
        """For progress and messages."""
        return f"{self.upstream.name} / {self.task.name} / seed {self.seed}"

    @cached_property
    def corpus_digest(self) -> str:
        """sha256 of ids, splits, labels and audio of the rows that the task takes."""
        return digest_of({split: [asdict(row) for row in rows] for split, rows in self.examples.items()})

    @cached_property
    def run(self) -> str:
        """sha256 of all inputs: the name of the record."""
        return run_digest(
            protocol=PROTOCOL_VERSION,
            upstream=self.upstream.digest,
            task=self.task.recorded(),
            recipe=self.recipe,
            corpus=self.corpus_digest,
            live=self.exact,
            frames=self.frames,
            seed=self.seed,
        )


def _speaker(row: Utterance) -> str | None:
    """The note `voice`, or where speakers are the labels, those."""
    speaker = row.labels.get("voice", row.labels.get("speaker"))
    return None if speaker is None else str(speaker)


def departures(cell: Cell) -> list[str]:
    """Where the features differ from what the recipe asks for."""
    found = []
    if cell.recipe.crop_samples and "train" not in cell.live:
        seconds = cell.recipe.crop_samples / SAMPLE_RATE
        found.append(
            f"{cell.recipe.crops} fixed random crops of {seconds:g} s a recording instead of a new one every time"
        )
    if cell.upstream.precision != "float32":
        found.append(f"the upstream computed in {cell.upstream.precision}")
    if cell.frames == "int8":
        found.append("frames kept in 8 bits")
    if cell.long:
        found.append(f"{cell.long} recordings above {LONGEST_SECONDS:g} s passed the upstream in pieces")
    return found


def kind_of(task: Task, recipe: Recipe) -> Kind:
    """The kind of features that a task's head is trained on."""
    if HEADS.get(task.head).needs == "frames":
        return "frames"
    return "pooled_normalised" if recipe.normalise else "pooled"


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


def clips_of(needs: Iterable[tuple[TaskData, Recipe, Kind]]) -> list[Clip]:
    """What has to pass an upstream: each clip once, with all kinds that any task wants of it."""
    kinds: dict[str, set[Kind]] = defaultdict(set)
    clips: dict[str, Clip] = {}
    for data, recipe, kind in needs:
        for clip in chain.from_iterable(chain.from_iterable(data.clips(recipe).values())):
            kinds[clip.key].add(kind)
            clips.setdefault(clip.key, clip)
    return [replace(clip, samples=samples_of(clip), kinds=frozenset(kinds[key])) for key, clip in clips.items()]


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


def count_long(data: TaskData, recipe: Recipe, upstream: UpstreamFacts) -> int:
    """How many rows have a clip that passes in pieces; an upstream with windows of its own cuts no other way alone."""
    if upstream.window_samples > 1:
        return 0
    rows = chain.from_iterable(data.clips(recipe).values())
    return sum(any(is_long(samples_of(clip)) for clip in row) for row in rows)


@cache
def _recording_samples(path: Path) -> int:
    return round(duration_seconds(path) * SAMPLE_RATE)


def samples_of(clip: Clip) -> int:
    """Its length at 16 kHz, as far as the file's header tells."""
    return (_recording_samples(clip.path) if clip.stop is None else clip.stop) - clip.start
