"""Libri2Mix (Cosentino et al., arXiv:2005.11262) as SUPERB-SG separates it: two speakers, no noise, as long as the
shorter one.

It is read from the folders that LibriMix makes, `wav16k/min/`, with `mix_clean`, `s1` and `s2` of each set, or mixed
while it is read from LibriSpeech and LibriMix's `metadata/`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from core.manifest import Manifest, Utterance
from tasks.corpora._base import Corpus, register_corpus
from tasks.corpora._librimix import SUBSETS, find_metadata, lacking, listed_mixtures
from tasks.corpora._official import checked, count_notes, existing, find_folder

FOLDERS = {"train": "train-100", "valid": "dev", "test": "test"}
HEARD, SOURCES = "mix_clean", ("s1", "s2")
OFFICIAL = {"train": 13_900, "valid": 1_000, "test": 3_000}
CHOSEN, SEED = 1_000, 7  # of dev, as SUPERB-SG draws them
AGAIN = "make it with LibriMix, in min mode at 16 kHz with mix_clean"
MIXED = "or name a folder with LibriSpeech/ and LibriMix's metadata/, and it is mixed while it is read"


def load(root: Path) -> Manifest:
    """The manifest of `train-100/`, `dev/` and `test/`, with labels `targets`, both sources, and `voice`.

    Args:
        root: the folder that holds them, or one above it: `min/`, `wav16k/`, `Libri2Mix/` or that one's own; where none
            is there, the one that holds `LibriSpeech/` and `metadata/`.

    Raises: ManifestError: none is there.
    """
    inside = ("", "min", "wav16k/min", "Libri2Mix/wav16k/min")
    home = find_folder(
        (root / each for each in inside), lambda each: any((each / name).is_dir() for name in FOLDERS.values())
    )
    metadata = find_metadata(root)
    if home is None and metadata is not None:
        return _mixed(root, metadata)
    rows: list[Utterance] = []
    missing: list[str] = []
    causes: dict[str, str] = {}
    for split, name in FOLDERS.items():
        folder = (home or root) / name
        absent = [str(folder / part) for part in (HEARD, *SOURCES) if not (folder / part).is_dir()]
        missing += [f"split {split}: {part} is missing: {AGAIN}" for part in absent]
        if absent:
            continue
        names = sorted(path.name for path in (folder / HEARD).glob("*.wav"))
        names = _drawn(names) if split == "valid" else names
        found = list(_rows(folder, split, names))
        rows += found
        if len(found) < len(names):
            causes[split] = (
                f"{len(names) - len(found):,} mixtures of {folder / HEARD} lack a source in s1 or s2: {AGAIN}"
            )
    missing += [] if home else [MIXED]
    return checked("libri2mix_separation", home or root, rows, count_notes(rows, OFFICIAL, causes), missing)


def _mixed(root: Path, metadata: Path) -> Manifest:
    """The manifest of mixtures that are made while they are read, equal to that of the folders but for rounding."""
    listed: list[Utterance] = []
    missing: list[str] = []
    for split in SUBSETS:
        absent = lacking(root, metadata, split, noise=False)
        missing += absent
        mixtures = [] if absent else list(listed_mixtures(root, metadata, split, "min", noise=False))
        named = {f"{row.id}.wav": row for row in mixtures}
        names = _drawn(sorted(named)) if split == "valid" else sorted(named)
        listed += [
            replace(named[name], labels={"targets": list(range(len(SOURCES))), "voice": _voices(name)})
            for name in names
        ]
    rows, causes = existing(listed, "LibriMix's lists")
    return checked("libri2mix_separation", root, rows, count_notes(rows, OFFICIAL, causes), missing)


def _drawn(names: Sequence[str]) -> list[str]:
    """As many as SUPERB-SG takes, by its seed: the same of a complete set."""
    drawn = list(names)
    random.Random(SEED).shuffle(drawn)
    return sorted(drawn[:CHOSEN])


def _rows(folder: Path, split: str, names: Sequence[str]) -> Iterator[Utterance]:
    """The mixtures whose sources are there; both speakers stand in a file's name."""
    there = [{path.name for path in (folder / part).glob("*.wav")} for part in SOURCES]
    for name in names:
        if all(name in part for part in there):
            labels = {"targets": [f"{part}/{name}" for part in SOURCES], "voice": _voices(name)}
            yield Utterance(Path(name).stem, folder / HEARD / name, split, labels, folder=folder)


def _voices(name: str) -> list[str]:
    """The speakers of a mixture, by the name of its file."""
    return sorted({half.split("-")[0] for half in name.split("_")})


register_corpus(Corpus(name="libri2mix_separation", title="Libri2Mix, shortest clean mixtures: SS", load=load))
