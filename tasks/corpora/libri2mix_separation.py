"""Libri2Mix (Cosentino et al., arXiv:2005.11262) as SUPERB-SG separates it: two speakers, no noise, as long as the
shorter one.

It is read from the folders that LibriMix makes: `wav16k/min/`, with `mix_clean`, `s1` and `s2` of each set.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from core.manifest import Manifest, Utterance
from tasks.corpora._base import Corpus, register_corpus
from tasks.corpora._official import checked, count_notes, find_folder

FOLDERS = {"train": "train-100", "valid": "dev", "test": "test"}
HEARD, SOURCES = "mix_clean", ("s1", "s2")
OFFICIAL = {"train": 13_900, "valid": 1_000, "test": 3_000}
CHOSEN, SEED = 1_000, 7  # of dev, as SUPERB-SG draws them
AGAIN = "make it with LibriMix, in min mode at 16 kHz with mix_clean"


def load(root: Path) -> Manifest:
    """The manifest of `train-100/`, `dev/` and `test/`, with label `targets`, the files of both sources, and `voice`.

    Args:
        root: the folder that holds them, or one above it: `min/`, `wav16k/`, `Libri2Mix/` or that one's own.

    Raises: ManifestError: none is there.
    """
    inside = ("", "min", "wav16k/min", "Libri2Mix/wav16k/min")
    home = find_folder(
        (root / each for each in inside), lambda each: any((each / name).is_dir() for name in FOLDERS.values())
    )
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
    return checked("libri2mix_separation", home or root, rows, count_notes(rows, OFFICIAL, causes), missing)


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
            voices = [half.split("-")[0] for half in Path(name).stem.split("_")]
            labels = {"targets": [f"{part}/{name}" for part in SOURCES], "voice": sorted(set(voices))}
            yield Utterance(Path(name).stem, folder / HEARD / name, split, labels, folder=folder)


register_corpus(Corpus(name="libri2mix_separation", title="Libri2Mix, shortest clean mixtures: SS", load=load))
