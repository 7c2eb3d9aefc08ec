"""Pronunciation lexica: a word a line and its phones behind it, as LibriSpeech's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from core.errors import ManifestError
from core.manifest import Manifest


def read_lexicon(path: Path) -> dict[str, str]:
    """Word in lower case -> its phones with spaces between them; of several pronunciations the first.

    Args:
        path: UTF-8, `WORD PHONE PHONE ...` a line.

    Raises: ManifestError: the file is missing or no UTF-8, or a word has no phones.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ManifestError(f"{path}: the lexicon can't be read ({error.strerror or error})") from error
    except UnicodeDecodeError:
        raise ManifestError(f"{path}: the lexicon is no UTF-8") from None
    found: dict[str, str] = {}
    for number, (word, *phones) in enumerate((line.split() for line in lines if line.strip()), 1):
        if not phones:
            raise ManifestError(f"{path}: line {number}: '{word}' has no phones behind it")
        found.setdefault(word.lower(), " ".join(phones))
    return found


def with_phones(manifest: Manifest, lexicon: Mapping[str, str]) -> Manifest:
    """Every row with a `text` gets `phones`: those of its words, without silence between them, as SUPERB's PR.

    Raises: ManifestError: a word is not in the lexicon.
    """
    utterances = []
    for row in manifest.utterances:
        text = row.labels.get("text")
        if text is not None:
            unknown = [word for word in text.lower().split() if word not in lexicon]
            if unknown:
                raise ManifestError(f"{manifest.source}: {row.where}: '{unknown[0]}' is not in the lexicon")
            phones = " ".join(lexicon[word] for word in text.lower().split())
            row = replace(row, labels={**row.labels, "phones": phones})
        utterances.append(row)
    return replace(manifest, utterances=tuple(utterances))
