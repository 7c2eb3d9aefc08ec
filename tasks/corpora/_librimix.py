"""Libri2Mix mixed while it is read: LibriSpeech, WHAM's noise, and LibriMix's lists of sources, noise and gains.

A mixture is the sum of its sources and noise, each times its gain, from the first sample on. Noise is WHAM's first
channel. LibriMix writes the same sums to files with 16 bits a sample (github.com/JorisCos/LibriMix).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from core.errors import ManifestError
from core.manifest import Utterance
from core.mixtures import Mixture, Source
from tasks.corpora._official import find_folder

SUBSETS = {"train": "train-clean-100", "valid": "dev-clean", "test": "test-clean"}  # of LibriSpeech and of the lists
NOISES = {"train": "tr", "valid": "cv", "test": "tt"}  # folders of wham_noise
SPEECH, NOISE = ("source_1", "source_2"), "noise"  # columns are NAME_path and NAME_gain
AGAIN = "take it from LibriMix's repository anew"


def find_metadata(root: Path) -> Path | None:
    """The folder `metadata/` of LibriMix, with lists of mixtures of two."""
    return find_folder(
        (root / "metadata", root / "LibriMix" / "metadata"),
        lambda each: any(_list_of(each, split).is_file() for split in SUBSETS),
    )


def lacking(root: Path, metadata: Path, split: str, *, noise: bool) -> list[str]:
    """What of a split is not there, and how to get it.

    Args:
        root: the folder that holds `LibriSpeech/` and `wham_noise/`.
        metadata: LibriMix's.
        split: ours.
        noise: whether it takes noise.
    """
    listed, subset = _list_of(metadata, split), SUBSETS[split]
    needed = {
        listed: f"take it from LibriMix's repository, folder metadata/{listed.parent.name}",
        root / "LibriSpeech" / subset: f"unpack {subset}.tar.gz of openslr.org/12 into {root}",
    }
    if noise:
        needed[root / "wham_noise" / NOISES[split]] = f"unpack wham_noise.zip into {root}"
    return [f"split {split}: {path} is missing: {how}" for path, how in needed.items() if not path.exists()]


def listed_mixtures(
    root: Path, metadata: Path, split: str, length: Literal["max", "min"], *, noise: bool
) -> Iterator[Utterance]:
    """The mixtures of a split in the order of their list, without labels; their recordings may not be there.

    Args:
        root: the folder that holds `LibriSpeech/` and `wham_noise/`.
        metadata: LibriMix's.
        split: ours.
        length: "max" lasts as long as the longer source, "min" as long as the shorter one.
        noise: whether it is part of them.

    Raises: ManifestError: the list is damaged; names the line.
    """
    path = _list_of(metadata, split)
    with path.open(encoding="utf-8", newline="") as file:
        table = csv.DictReader(file)
        names = [*SPEECH, *([NOISE] if noise else [])]
        columns = ["mixture_ID", *(f"{name}_{what}" for name in names for what in ("path", "gain"))]
        absent = [column for column in columns if column not in (table.fieldnames or ())]
        if absent:
            raise ManifestError(f"{path}: has no column '{absent[0]}'; {AGAIN}")
        for row in table:
            if any(not row[column] for column in columns):
                raise ManifestError(f"{path}, line {table.line_num}: has an empty or missing column; {AGAIN}")
            sources = [
                Source(root / "LibriSpeech" / row[f"{name}_path"], gain_db=_decibels(row, name, path, table.line_num))
                for name in SPEECH
            ]
            if noise:
                gain_db = _decibels(row, NOISE, path, table.line_num)
                heard = root / "wham_noise" / row[f"{NOISE}_path"]
                sources.append(Source(heard, gain_db=gain_db, channel=0, fills=True))
            yield Utterance(row["mixture_ID"], sources[0].path, split, mixture=Mixture(tuple(sources), length))


def _list_of(metadata: Path, split: str) -> Path:
    return metadata / "Libri2Mix" / f"libri2mix_{SUBSETS[split]}.csv"


def _decibels(row: Mapping[str, str], name: str, path: Path, line: int) -> float:
    """A gain, which the list has as a factor."""
    try:
        gain = float(row[f"{name}_gain"])
    except ValueError:
        gain = math.nan
    if not 0 < gain < math.inf:
        raise ManifestError(f"{path}, line {line}: {name}_gain is '{row[f'{name}_gain']}', must be above 0; {AGAIN}")
    return 20 * math.log10(gain)
