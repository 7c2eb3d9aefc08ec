"""SBCSAE: spontaneous conversations (Du Bois et al., Santa Barbara Corpus of Spoken American English, 2000-2005).

The folder is the one that vectominist/SBCSAE-preprocess makes, as SUPERB-SG's speech recognition takes it.
"""

from __future__ import annotations

from pathlib import Path

from core.errors import ManifestError
from core.manifest import Manifest, Utterance
from tasks.corpora._base import Corpus, register_corpus
from tasks.corpora._official import checked, existing, find_folder
from tasks.corpora._tables import read_table

LISTS = {"train": "train.tsv", "valid": "dev.tsv", "test": "test.tsv"}
COLUMNS = ("path", "sentence")


def load(root: Path) -> Manifest:
    """The manifest of `wav/` and three lists, with labels `text` and `voice`.

    Who speaks is not in the lists: `voice` is the conversation, which is what the splits share none of.

    Args:
        root: the folder with `wav/`, and the lists in it or in `tsv/`.

    Raises: ManifestError: no list is there, or one is damaged.
    """
    lists = find_folder((root, root / "tsv"), lambda each: any((each / name).is_file() for name in LISTS.values()))
    if lists is None:
        raise ManifestError(
            f"{root}: {LISTS['train']} is missing; name the folder that vectominist/SBCSAE-preprocess made"
        )
    rows: list[Utterance] = []
    notes, missing = [], []
    for split, name in LISTS.items():
        if not (lists / name).is_file():
            missing.append(f"{name} (split {split}) is missing: prepare the corpus anew")
            continue
        found, causes = existing(
            [_utterance(root, split, row["path"], row["sentence"]) for row in read_table(lists / name, COLUMNS)], name
        )
        rows += found
        notes += [f"{split}: {cause}" for cause in causes.values()]
    return checked("sbcsae", root, rows, notes, missing)


def _utterance(home: Path, split: str, name: str, sentence: str) -> Utterance:
    """A clip of a conversation, such as `SBC009_000000-001316.wav`."""
    labels = {"text": sentence, "voice": name.partition("_")[0]}
    return Utterance(Path(name).stem, home / "wav" / name, split, labels)


register_corpus(Corpus(name="sbcsae", title="Santa Barbara Corpus, prepared: OOD-ASR on conversations", load=load))
