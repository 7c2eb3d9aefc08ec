"""Hugging Face datasets: `hf:ORG/NAME[:CONFIG]` from the hub or its cache, `hf:FOLDER[:CONFIG]` from a local folder.

Audio is never decoded by `datasets`, so neither torchcodec nor ffmpeg is needed: embedded bytes become files, named by
their content, which soundfile reads as any other recording. Local folders are streamed and hub datasets are
memory-mapped, so a dataset need not fit in memory.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import soundfile
from huggingface_hub import snapshot_download

from core.digest import written_then_renamed
from core.errors import ManifestError
from core.manifest import SPLIT_WORDS, SPLITS, Manifest, Utterance, metadata_files, read_manifest, refuse
from tasks.corpora._columns import AUDIO, choose_columns, labels_of

EXTENSIONS = {".wav", ".flac", ".mp3", ".ogg", ".opus", ".aiff", ".aif", ".au"}
# What `datasets` raises for a missing or damaged dataset; a TypeError is a column that is not of the declared type.
# RuntimeError is what a folder with a script of its own gets.
FAILURES = (OSError, ValueError, TypeError, ImportError, RuntimeError, datasets.exceptions.DatasetsError)
NO_CODE = {"trust_remote_code": False}  # what `datasets` does anyway since version 4
PLAIN_AUDIO = {"binary", "large_binary", "string", "large_string"}
Splits = Mapping[str, Any]  # name -> Dataset or IterableDataset


class UndecodedAudio(datasets.Audio):  # type: ignore[misc]
    """An audio column that takes a path as it is: `encode_example` of datasets 5 wants torchcodec even for that."""

    def encode_example(self, value: Any) -> dict[str, Any]:
        """A path, or the pair of bytes and path, as that pair."""
        return value if isinstance(value, dict) else {"bytes": None, "path": str(value)}


def load_huggingface(place: str, columns: Mapping[str, tuple[str, ...]], cache: Path) -> Manifest:
    """The manifest of a Hugging Face dataset.

    Args:
        place: what stands behind `hf:`.
        columns: label -> columns, where the names known without do not do.
        cache: embedded audio is written to `<cache>/hf/`.

    Raises: ManifestError: no such dataset or column, or rows without audio.
    """
    if Path(place).is_dir() and metadata_files(Path(place)):
        return _audio_folder(Path(place), columns)
    splits = _open(place)
    features = next(iter(splits.values())).features or {}
    audio = _audio_column(features, columns, place)
    chosen = choose_columns(columns, list(features), audio)
    rows: list[Utterance] = []
    notes, problems = [], []
    has_splits = len(splits) == 1 and "split" in features  # all rows lie in one, and a column says where they belong
    for name, data in splits.items():
        split = SPLIT_WORDS.get(re.split(r"[._-]", name.lower())[0])
        if split is None and not has_splits:
            notes.append(f"split '{name}' is left out: its name is none of {', '.join(SPLIT_WORDS)}")
            continue
        if name.lower() not in SPLIT_WORDS and not has_splits:
            notes.append(f"split '{name}' is counted as {split}")
        for number, row in enumerate(_named(data, audio)):
            try:
                path = _file_of(row[audio], Path(place), cache / "hf")
                here = _split_said(row["split"]) if has_splits else str(split)
                rows.append(Utterance(f"{name}/{number:06d}", path, here, labels_of(row, chosen)))
            except ManifestError as problem:
                problems.append(f"split '{name}', row {number}: {problem}")
    refuse(Path(f"hf:{place}"), problems)
    missing = [
        f"split {split} is missing: the dataset has {', '.join(splits)}; write a manifest with splits of your own"
        for split in SPLITS
        if not any(row.split == split for row in rows)
    ]
    name = Path(place).resolve().name if Path(place).is_dir() else place
    return Manifest(name, Path(f"hf:{place}"), tuple(rows), tuple(notes), tuple(missing))


def _split_said(word: object) -> str:
    if str(word).lower() not in SPLIT_WORDS:
        raise ManifestError(f"its column split says {word!r}, must be one of {', '.join(SPLITS)}")
    return SPLIT_WORDS[str(word).lower()]


def _audio_folder(folder: Path, columns: Mapping[str, tuple[str, ...]]) -> Manifest:
    """A folder in the AudioFolder convention, read by us: inside of `datasets`, pandas takes "null" for no label."""
    manifest = read_manifest(folder)
    names = dict.fromkeys(name for row in manifest.utterances for name in row.labels)
    chosen = choose_columns(columns, list(names), AUDIO)
    rows = tuple(
        replace(row, labels=labels_of({**dict.fromkeys(names), **row.labels}, chosen)) for row in manifest.utterances
    )
    return replace(manifest, source=Path(f"hf:{folder}"), utterances=rows)


def _open(place: str) -> Splits:
    folder, colon, config = place.rpartition(":")
    if Path(place).is_dir() or not colon:
        folder, config = place, ""
    try:
        return _local(Path(folder), config or None) if Path(folder).is_dir() else _hub(folder, config or None)
    except FAILURES as error:
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise ManifestError(
            f"hf:{place}: can't be opened ({reason}); write hf:ORG/NAME[:CONFIG] or hf:FOLDER[:CONFIG]. A dataset of "
            f"loose audio files has to be in the hub's cache: hf download --repo-type dataset {folder}"
        ) from None


def _local(folder: Path, config: str | None) -> Splits:
    if (folder / "dataset_dict.json").is_file():  # written by save_to_disk
        return dict(datasets.load_from_disk(folder))
    tables = _tables_beside_recordings(folder) if config is None else {}
    if tables:  # `datasets` would take whatever there are more files of, and leave the others out without a word
        return dict(datasets.load_dataset("parquet", data_files=tables, streaming=True, **NO_CODE))
    return dict(datasets.load_dataset(str(folder), config, streaming=True, **NO_CODE))


def _tables_beside_recordings(folder: Path) -> dict[str, list[str]]:
    """Split -> Parquet files, named after it, in a folder that holds recordings as well; empty for other folders."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    tables: dict[str, list[str]] = {}
    if any(path.suffix.lower() in EXTENSIONS for path in files):
        for path in files:
            if path.suffix.lower() == ".parquet":
                words = re.split(r"[/._-]", path.relative_to(folder).as_posix().lower())
                tables.setdefault(next((word for word in words if word in SPLIT_WORDS), "train"), []).append(str(path))
    return tables


def _hub(name: str, config: str | None) -> Splits:
    try:
        return dict(datasets.load_dataset(name, config, **NO_CODE))
    except FAILURES as error:
        try:  # files that were fetched with `hf download`, of which `datasets` knows nothing without a network
            return _local(Path(snapshot_download(name, repo_type="dataset", local_files_only=True)), config)
        except FileNotFoundError:
            raise error from None


def _audio_column(features: Mapping[str, Any], columns: Mapping[str, tuple[str, ...]], place: str) -> str:
    typed = [name for name, feature in features.items() if _is_audio(feature)]
    # Other tools write plain bytes, or paths: which column that is, its name has to say.
    plain = [name for name, feature in features.items() if getattr(feature, "dtype", "") in PLAIN_AUDIO]
    if AUDIO in columns:
        typed = [name for name in columns[AUDIO] if name in typed or name in plain]
    elif not typed and AUDIO in plain:
        typed = [AUDIO]
    if len(typed) != 1:
        found = f"there is no column of audio (there are: {', '.join(features)})"
        several = f"several columns hold audio ({', '.join(typed)})"
        raise ManifestError(f"hf:{place}: {several if typed else found}; name one with --columns audio=COLUMN")
    return typed[0]


def _is_audio(feature: Any) -> bool:
    # Parquet files that were not written by `datasets` have the pair of bytes and path, but not the type.
    return isinstance(feature, datasets.Audio) or (isinstance(feature, Mapping) and set(feature) == {"bytes", "path"})


def _named(data: Any, audio: str) -> Iterator[dict[str, Any]]:
    """The rows, with names instead of the numbers of classes and with audio left undecoded."""
    classes = {name: each for name, each in (data.features or {}).items() if isinstance(each, datasets.ClassLabel)}
    try:
        is_plain = getattr(data.features[audio], "dtype", "") in PLAIN_AUDIO if data.features else False
        for row in data if is_plain else data.cast_column(audio, UndecodedAudio(decode=False)):
            for name, feature in classes.items():
                number = row[name]
                row[name] = feature.int2str(number) if number is not None and number >= 0 else None
            yield row
    except FAILURES as error:
        raise ManifestError(f"hf: split '{data.split}' can't be read: {error}; fetch it anew") from None


def _file_of(audio: Mapping[str, Any] | bytes | str | None, folder: Path, store: Path) -> Path:
    given: Mapping[str, Any] = {"bytes": audio} if isinstance(audio, bytes) else {"path": audio}
    given = audio if isinstance(audio, Mapping) else given
    content, path = given.get("bytes"), given.get("path")
    if content is not None:
        return _stored(content, Path(path or "").suffix.lower(), store)
    for file in () if path is None else (Path(path), folder / path):
        if file.is_file():
            return file
    raise ManifestError(f"has no audio, and its path {path!r} is no file; unpack archives and keep the files beside")


def _stored(content: bytes, suffix: str, store: Path) -> Path:
    """Writes a recording once, under the digest of its bytes."""
    path = store / f"{hashlib.sha256(content).hexdigest()[:32]}{suffix if suffix in EXTENSIONS else _suffix(content)}"
    if not path.is_file():
        with written_then_renamed(path) as temporary:
            temporary.write_bytes(content)
    return path


def _suffix(content: bytes) -> str:
    try:
        return f".{soundfile.info(io.BytesIO(content)).format.lower()}"
    except soundfile.LibsndfileError:
        return ".bin"  # `prepare` says which row it is and what is wrong with it
