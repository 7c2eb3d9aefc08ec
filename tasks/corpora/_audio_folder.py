"""A folder of recordings without a manifest: all of them to train on, nothing known of them."""

from __future__ import annotations

from pathlib import Path

import soundfile

from core.errors import ManifestError
from core.manifest import FILE_NAME, Manifest, Utterance, metadata_files

OTHER_ENDINGS = {".opus", ".oga", ".aif", ".wave"}  # of formats that libsndfile lists under another name


def is_audio_folder(path: Path) -> bool:
    """Whether it is a folder, and no manifest lies in it."""
    return path.is_dir() and not metadata_files(path)


def is_litter(path: Path) -> bool:
    """Whether a Mac left it in a folder or archive: `._*` files of attributes, and `__MACOSX`; hidden ones as well."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def read_audio_folder(folder: Path) -> Manifest:
    """Every recording below a folder, as a row of split train without labels.

    Raises: ManifestError: there is none.
    """
    endings = {f".{name.lower()}" for name in soundfile.available_formats()} - {".raw"} | OTHER_ENDINGS
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in endings and path.is_file() and not is_litter(path.relative_to(folder))
    )
    if not paths:
        raise ManifestError(f"{folder}: neither a {FILE_NAME} nor a recording there; name a folder that holds some")
    rows = (Utterance(path.relative_to(folder).as_posix(), path, "train") for path in paths)
    return Manifest(folder.resolve().name, folder, tuple(rows))
