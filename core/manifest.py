"""Manifests: one row a recording or mixture, as in Hugging Face's AudioFolder (`metadata.jsonl` beside the audio)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch

from core._file_digests import remembered_digests
from core._metadata import FILE_NAMES, Files, cleaned, read_rows
from core.audio import read_audio
from core.digest import digest_of
from core.errors import AudioError, ManifestError
from core.mixtures import RESERVED_IN_MIXTURES, Mixture, Source, mixture_digest, mixture_of, piece_of
from core.processors import reading_threads

FILE_NAME = "metadata.jsonl"
SPLITS = ("train", "valid", "test")
# First word of a split's name, of a folder or in a row -> ours; the hub's own convention counts "eval" as test.
SPLIT_WORDS = {
    "train": "train", "training": "train",
    "validation": "valid", "valid": "valid", "val": "valid", "dev": "valid",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
RESERVED = {"file_name", "id", "split", "start_sample", "stop_sample"}  # all other keys of a row are labels or notes
MOST_PROBLEMS_SHOWN = 50


@dataclass(frozen=True)
class Utterance:
    """One recording, or a mixture of several, and what is known of it.

    Attributes:
        id: unique in the manifest.
        path: the audio file; of a mixture that of its first source.
        split: train, valid or test.
        labels: whatever the row holds besides: text, speaker, keyword, intent (slot -> value), and unlabelled notes.
        line: where it stands in its metadata.jsonl, from 1; 0 where the corpus has no such file.
        start: first sample (at 16 kHz) of the piece that counts, `start_sample` in a row.
        stop: sample behind its last, `stop_sample` in a row; None is the end of the recording.
        mixture: what it is the sum of; None is a recording. A mixture of one source at its own place and level is
            that recording again, under another id, split and labels.
        folder: that names of files in its labels start from; None is the folder of its own file.
    """

    id: str
    path: Path
    split: str
    labels: Mapping[str, Any] = field(default_factory=dict)
    line: int = 0
    start: int = 0
    stop: int | None = None
    mixture: Mixture | None = None
    folder: Path | None = None

    @property
    def sources(self) -> tuple[Source, ...]:
        """The pieces of recordings that it is the sum of; a recording is its own only one."""
        return self.mixture.sources if self.mixture else (Source(self.path, self.start, self.stop),)

    @property
    def where(self) -> str:
        """For messages."""
        return f"line {self.line} (utterance '{self.id}')" if self.line else f"utterance '{self.id}'"


@dataclass(frozen=True)
class Manifest:
    """The recordings of a corpus, in the order of their rows.

    Attributes:
        name: of the corpus.
        source: the file or folder behind it.
        utterances: the rows.
        notes: what a user should know but need not mend, such as counts that differ from the official ones.
        missing: parts that are not there and how to get them; what is there can be looked at, but not be run.
        memory: folder where digests of audio files are remembered; None computes them each time.
        known_failures: check of the task contract -> reason why it can't hold on this corpus as it was published.
        lacking: label that rows could have but don't -> what it takes, such as a lexicon for phones; other tasks run.
    """

    name: str
    source: Path
    utterances: tuple[Utterance, ...]
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    memory: Path | None = None
    known_failures: Mapping[str, str] = field(default_factory=dict)
    lacking: Mapping[str, str] = field(default_factory=dict)

    def require_complete(self) -> None:
        """Refuses a corpus of which parts are missing.

        Raises: ManifestError: names all of them.
        """
        if self.missing:
            raise ManifestError("\n  ".join([f"{self.source}: {self.name} is incomplete:", *self.missing]))

    def with_label(self, label: str) -> Manifest:
        """The rows that carry a label.

        Raises: ManifestError: no row does.
        """
        rows = tuple(utterance for utterance in self.utterances if utterance.labels.get(label) is not None)
        if not rows:
            if label in self.lacking:
                raise ManifestError(f"{self.source}: no row has the label '{label}': {self.lacking[label]}")
            found = sorted({name for utterance in self.utterances for name in utterance.labels})
            raise ManifestError(
                f"{self.source}: no row has the label '{label}' (labels found: {', '.join(found) or 'none'}); "
                f"add it to the rows or choose another task"
            )
        return replace(self, utterances=rows)

    def split(self, name: str) -> tuple[Utterance, ...]:
        """The rows of one split.

        Raises: ManifestError: it is empty.
        """
        rows = tuple(utterance for utterance in self.utterances if utterance.split == name)
        if not rows:
            self.require_complete()
            raise ManifestError(f'{self.source}: split \'{name}\' is empty; give some rows "split": "{name}"')
        return rows

    def recordings(self, name: str) -> tuple[Utterance, ...]:
        """The rows of one split that are no mixtures."""
        return tuple(utterance for utterance in self.split(name) if utterance.mixture is None)

    @cached_property
    def audio_digests(self) -> Mapping[str, str]:
        """Utterance id -> sha256 of its audio file, or of the sources of a mixture with their places and levels.

        Raises: ManifestError: some are missing; names every recording that is not usable.
        """
        # Several rows may be pieces of one file.
        paths = {source.path for utterance in self.utterances for source in utterance.sources}
        if not all(path.is_file() for path in paths):
            validate(self)  # raises, and names whatever else is wrong
        digests = remembered_digests(paths, self._memory_file)
        return {
            row.id: digests[row.path] if row.mixture is None else mixture_digest(row.mixture, digests)
            for row in self.utterances
        }

    @property
    def _memory_file(self) -> Path | None:
        return self.memory and self.memory / f"{digest_of(str(self.source.resolve()))[:32]}.json"

    @cached_property
    def digest(self) -> str:
        """sha256 of the content: ids, splits, labels and audio bytes, whatever the folder is called."""
        rows = self._in_order
        return digest_of([[row.id, row.split, row.labels, *self._heard_in(row)] for row in rows])

    @cached_property
    def heard_digest(self) -> str:
        """sha256 of what is heard: ids, splits and audio bytes. Training without labels depends on nothing else."""
        return digest_of([[row.id, row.split, *self._heard_in(row)] for row in self._in_order])

    @property
    def _in_order(self) -> list[Utterance]:
        return sorted(self.utterances, key=lambda utterance: utterance.id)

    def _heard_in(self, row: Utterance) -> tuple[str, int, int | None]:
        return self.audio_digests[row.id], row.start, row.stop


def metadata_files(folder: Path) -> list[Path]:
    """The metadata.jsonl or metadata.csv of a folder, or else those of its folders train, validation and test."""
    for place in ([folder], sorted(part for part in folder.iterdir() if part.name.lower() in SPLIT_WORDS)):
        found = [next((part / name for name in FILE_NAMES if (part / name).is_file()), None) for part in place]
        if any(found):
            return [path for path in found if path is not None]
    return []


def read_manifest(source: Path, name: str | None = None) -> Manifest:
    """Reads a metadata file (`metadata.jsonl`, `metadata.csv`), or the folder that holds it, or one in each split's.

    Raises: ManifestError: there is none, or rows are malformed; all of them are named, with line numbers.
    """
    paths = metadata_files(source) if source.is_dir() else [source] if source.is_file() else []
    if not paths:
        raise ManifestError(f"{source}: no {FILE_NAME} there; name a folder that holds one, or the file itself")
    problems: list[str] = []
    notes: list[str] = []
    utterances: list[Utterance] = []
    mixtures: list[_Mixed] = []
    home = source if source.is_dir() else source.parent
    for path in paths:
        files = Files(path.parent)
        inside = path.parent.relative_to(home).as_posix()
        before = "" if len(paths) == 1 else f"{inside}/{path.name}, "
        for number, content in read_rows(path):
            try:
                if isinstance(content, ManifestError):
                    raise content
                if "mixture" in content:
                    mixtures.append(_Mixed(len(utterances), before, number, content, files, inside))
                    continue
                utterances.append(_utterance(content, number, files, inside if inside != "." else ""))
            except ManifestError as problem:
                problems.append(f"{before}line {number}: {problem}")
        if files.matched:
            notes.append(f"{path}: {files.matched} file names differ from their files in case, slashes or composition")
    problems += _add_mixtures(utterances, mixtures)
    problems += _duplicates(utterances)
    origin = paths[0] if len(paths) == 1 else source
    refuse(origin, problems)
    if not utterances:
        raise ManifestError(f"{origin}: has no rows; write one JSON object a recording")
    notes += _mixed_types(utterances)
    return Manifest(name or home.resolve().name, origin, tuple(utterances), tuple(notes))


def _utterance(row: Mapping[str, Any], number: int, files: Files, folder: str) -> Utterance:
    """A row of a metadata file in a folder, which may be called after the split."""
    named = row.get("file_name")
    if not isinstance(named, str):
        raise ManifestError('"file_name" is missing')
    start, stop = piece_of(row)
    path = files.find(named)
    labels = {cleaned(key, "a key"): cleaned(value, key) for key, value in row.items() if key not in RESERVED}
    split = _split_of(row, named.replace("\\", "/"), folder)
    return Utterance(_identifier(row, named, folder), path, split, labels, number, start, stop, folder=files.folder)


class _Mixed(NamedTuple):
    """A row that is a mixture, until every recording is known; the first is how many of them stand before it."""

    place: int
    before: str
    number: int
    row: Mapping[str, Any]
    files: Files
    folder: str

    def utterance(self, known: Mapping[str, Source]) -> Utterance:
        """The row, which is a plain one if there is a single source at its own place and level."""
        mixture = mixture_of(self.row, self.files, known)
        labels = {cleaned(key, "a key"): cleaned(value, key) for key, value in self.row.items()
                  if key not in RESERVED_IN_MIXTURES}  # fmt: skip
        first, *others = mixture.sources
        split = _split_of(self.row, "", self.folder)
        name, home = _identifier(self.row, "", self.folder), self.files.folder
        whole = Utterance(name, first.path, split, labels, self.number, folder=home)
        if not others and first == Source(first.path, first.start, first.stop):
            return replace(whole, start=first.start, stop=first.stop)
        return replace(whole, mixture=mixture)


def _add_mixtures(utterances: list[Utterance], mixtures: Sequence[_Mixed]) -> list[str]:
    """Puts mixtures in their places among the recordings, and returns what is wrong with others."""
    known = {row.id: row.sources[0] for row in utterances}
    problems = []
    added = 0
    for mixed in mixtures:
        try:
            utterances.insert(mixed.place + added, mixed.utterance(known))
            added += 1
        except ManifestError as problem:
            problems.append(f"{mixed.before}line {mixed.number}: {problem}")
    return problems


def _split_of(row: Mapping[str, Any], named: str, folder: str) -> str:
    """What the row says, or else the folder of its metadata or its file, as in the AudioFolder convention."""
    said = row.get("split")
    words = [said] if said is not None else [folder, *Path(named).parts[:-1][:1]]
    for word in words:
        if isinstance(word, str) and word.lower() in SPLIT_WORDS:
            return SPLIT_WORDS[word.lower()]
    raise ManifestError(f"split is {said!r}, must be one of {', '.join(SPLITS)}")


def _identifier(row: Mapping[str, Any], named: str, folder: str) -> str:
    """The row's own, or its file's name without ending; null counts as left out."""
    own = row.get("id")
    if own is None:
        path = Path(folder) / named.replace("\\", "/")
        return (path.with_suffix("") if path.name else path).as_posix()
    if isinstance(own, bool) or not isinstance(own, str | int | float) or not str(own).strip():
        raise ManifestError(f"id is {own!r}, must be text or a number; leave it out to take the file's name")
    return str(cleaned(own, "id"))


def _mixed_types(utterances: Sequence[Utterance]) -> list[str]:
    """A note for each label that is a number in one row and text in another, which become one class."""
    kinds: dict[str, dict[str, set[type]]] = {}
    for utterance in utterances:
        for label, value in utterance.labels.items():
            if isinstance(value, str | int | float):
                kinds.setdefault(label, {}).setdefault(str(value), set()).add(type(value))
    mixed = {label: [text for text, types in found.items() if len(types) > 1] for label, found in kinds.items()}
    return [
        f"{label} '{texts[0]}' is text in one row and a number in another: they count as one class"
        for label, texts in mixed.items()
        if texts
    ]


def _duplicates(utterances: Iterable[Utterance]) -> list[str]:
    first: dict[str, int] = {}
    problems = []
    for utterance in utterances:
        if utterance.id in first:
            problems.append(
                f"line {utterance.line} (utterance '{utterance.id}'): id stands already in line {first[utterance.id]}"
            )
        first.setdefault(utterance.id, utterance.line)
    return problems


def validate(
    manifest: Manifest,
    categorical: Sequence[str] = (),
    advance: Callable[[], None] = lambda: None,
    decoded: Callable[[Utterance, torch.Tensor], None] = lambda utterance, wav: None,
) -> None:
    """Decodes every recording and compares labels across splits.

    Args:
        manifest: what to check.
        categorical: labels whose valid and test values must occur in train.
        advance: called once for each recording, for a progress bar.
        decoded: called with each recording that is no mixture and its piece that counts, float32 (samples,) at 16 kHz,
            by several threads.

    Raises: ManifestError: names every bad row in one go.
    """

    def problem_of(utterance: Utterance) -> str | None:
        try:
            for source in utterance.sources:
                wav = read_audio(source.path, channel=source.channel)
                samples = len(wav)
                if max(source.start + 1, source.stop or 0) > samples:
                    piece = f"{source.start} to {source.stop or 'the end'}"
                    name = f" of {source.path.name}" if utterance.mixture else ""
                    return f"{utterance.where}: piece {piece} of {samples} samples{name}"
                if utterance.mixture is None:
                    decoded(utterance, wav[source.start : source.stop])
        except AudioError as error:
            return f"{utterance.where}: {error}"
        finally:
            advance()
        return None

    with ThreadPoolExecutor(reading_threads()) as pool:
        problems = [problem for problem in pool.map(problem_of, manifest.utterances) if problem]
    for label in categorical:
        problems += unseen_labels(manifest, label)
    refuse(manifest.source, problems)


def unseen_labels(manifest: Manifest, label: str) -> list[str]:
    """A line for each valid or test row with a value of `label` that no train row has; slots are looked at singly."""
    rows = [utterance for utterance in manifest.utterances if utterance.labels.get(label) is not None]
    known = {pair for row in rows if row.split == "train" for pair in slots_of(row.labels[label], label)}
    problems = []
    for row in rows:
        for slot, value in slots_of(row.labels[label], label):
            if (slot, value) not in known:
                problems.append(f"{row.where}: {slot} '{value}' is in {row.split}, but not in train")
    return problems


def slots_of(value: object, label: str) -> list[tuple[str, str]]:
    """A categorical label as (slot, value) pairs: an object has its slots, a plain value is one slot."""
    if isinstance(value, Mapping):
        return [(str(slot), str(item)) for slot, item in sorted(value.items())]
    return [(label, str(value))]


def refuse(source: Path, problems: Sequence[str]) -> None:
    """Raises one ManifestError for all problems of a file, if there are any."""
    if not problems:
        return
    shown = list(problems[:MOST_PROBLEMS_SHOWN])
    if len(problems) > len(shown):
        shown.append(f"... and {len(problems) - len(shown)} more")
    count = f"{len(problems)} bad row{'s' if len(problems) > 1 else ''}"
    raise ManifestError("\n  ".join([f"{source}: {count}; correct or remove:", *shown]))


def summarise(manifest: Manifest) -> dict[str, Counter[str]]:
    """Label -> rows by split, for `prepare` to show."""
    counts: dict[str, Counter[str]] = {}
    for utterance in manifest.utterances:
        for label, value in utterance.labels.items():
            if value is not None:
                counts.setdefault(label, Counter())[utterance.split] += 1
    return counts
