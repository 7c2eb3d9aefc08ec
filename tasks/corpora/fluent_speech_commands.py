"""Fluent Speech Commands: requests to a smart home, in three slots (Lugosch et al., arXiv:1904.03670)."""

from __future__ import annotations

from pathlib import Path

from torchaudio.datasets import FluentSpeechCommands

from core.errors import ManifestError
from core.manifest import SPLITS, Manifest, Utterance
from tasks.corpora._base import Corpus, register_corpus
from tasks.corpora._official import checked, count_notes, existing, find_folder

FOLDER = "fluent_speech_commands_dataset"  # its name in the archive, and the only one that torchaudio looks for
OFFICIAL = {"train": 23_132, "valid": 3_118, "test": 3_793}


def load(root: Path) -> Manifest:
    """The manifest of the three lists, with label `intent` and notes `voice` and `transcription`.

    The transcription is not called `text`: the corpus has 248 different sentences, and its splits share them, so that
    a word error rate would measure memory; `--task asr` is not to take it by accident.

    Args:
        root: the folder fluent_speech_commands_dataset, or the one above it.

    Raises: ManifestError: no such folder, or a list is damaged.
    """
    home = find_folder((root / FOLDER, root.resolve()), lambda each: each.name == FOLDER)
    if home is None:
        raise ManifestError(f"{root}: {FOLDER} is missing; unpack the archive there and keep the folder's name")
    listed, missing = [], []
    for split in SPLITS:
        found = _rows(home, split)
        listed += found
        if not found:
            missing.append(
                f"data/{split}_data.csv (split {split}) is missing: unpack the archive anew into {home.parent}"
            )
    rows, causes = existing(listed, "the lists")
    return checked("fluent_speech_commands", home, rows, count_notes(rows, OFFICIAL, causes), missing)


def _rows(home: Path, split: str) -> list[Utterance]:
    if not (home / "data" / f"{split}_data.csv").is_file():
        return []
    try:
        listing = FluentSpeechCommands(home.parent, split)
        found = [listing.get_metadata(number) for number in range(len(listing))]
    except (IndexError, ValueError) as error:
        raise ManifestError(f"{home}/data/{split}_data.csv: damaged ({error}); unpack the archive anew") from None
    return [
        Utterance(
            f"{speaker}/{name}",
            home / path,
            split,
            {
                "intent": {"action": action, "object": thing, "location": location},
                "voice": speaker,
                "transcription": transcription,
            },
        )
        for path, _, name, speaker, transcription, action, thing, location in found
    ]


register_corpus(Corpus(name="fluent_speech_commands", title="Fluent Speech Commands: IC in three slots", load=load))
