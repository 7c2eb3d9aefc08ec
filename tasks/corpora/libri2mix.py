"""Libri2Mix (Cosentino et al., arXiv:2005.11262) as SUPERB diarises it: two speakers of LibriSpeech and noise of WHAM.

Mixtures are as long as their longer source, at 16 kHz; who speaks when is known by forced alignment of each source.
They are read from the folders in Kaldi's form that s3prl's fork of LibriMix makes (`generate_librimix_sd.sh`, then
`prepare_diarization.py`), or mixed while they are read from LibriSpeech, WHAM and that fork's `metadata/`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.errors import ManifestError
from core.manifest import Manifest, Utterance
from tasks.corpora._base import Corpus, register_corpus
from tasks.corpora._librimix import SUBSETS, find_metadata, lacking, listed_mixtures
from tasks.corpora._official import checked, count_notes, existing, find_folder

FOLDERS = {"train": "train", "valid": "dev", "test": "test"}
FILES = {"wav.scp": 2, "segments": 4, "utt2spk": 2}  # -> fields of a line
OFFICIAL = {"train": 13_900, "valid": 3_000, "test": 3_000}
AGAIN = "prepare it anew with s3prl's fork of LibriMix"
TAKE = "take it from s3prl's fork of LibriMix (github.com/s3prl/LibriMix), which alone has it"
MIXED = "or name a folder with LibriSpeech/, wham_noise/ and LibriMix's metadata/, and it is mixed while it is read"
Turns = list[dict[str, Any]]


def load(root: Path) -> Manifest:
    """The manifest of `train/`, `dev/` and `test/`, with label `turns`, and `voice`, the speakers of a mixture.

    Args:
        root: the folder that holds them, or the one above `data/`; where neither is there, the one that holds
            `LibriSpeech/`, `wham_noise/` and `metadata/`.

    Raises: ManifestError: none is there, or a file of one is damaged.
    """
    home = find_folder((root / "data", root), lambda each: any((each / name).is_dir() for name in FOLDERS.values()))
    metadata = find_metadata(root)
    if home is None and metadata is not None:
        return _mixed(root, metadata)
    listed: list[Utterance] = []
    missing: list[str] = []
    for split, name in FOLDERS.items():
        folder = (home or root) / name
        lacking = [file for file in FILES if not (folder / file).is_file()]
        missing += [f"split {split}: {folder / file} is missing: {AGAIN}" for file in lacking]
        listed += [] if lacking else _listed(folder, split)
    rows, causes = existing(listed, "wav.scp")
    missing += [] if home else [MIXED]
    return checked("libri2mix", home or root, rows, count_notes(rows, OFFICIAL, causes), missing)


def _listed(folder: Path, split: str) -> Iterator[Utterance]:
    """The mixtures of a folder, whose recordings may not be there."""
    speakers = {utterance: speaker for _, (utterance, speaker) in _lines(folder / "utt2spk")}
    turns: dict[str, list[dict[str, object]]] = defaultdict(list)
    for number, (utterance, recording, start, stop) in _lines(folder / "segments"):
        try:
            turn = {"start": float(start), "stop": float(stop), "speaker": speakers[utterance]}
        except (ValueError, KeyError) as error:
            what = f"'{utterance}' is not in utt2spk" if isinstance(error, KeyError) else str(error)
            raise ManifestError(f"{folder / 'segments'}, line {number}: {what}; {AGAIN}") from None
        turns[recording].append(turn)
    for _, (recording, path) in _lines(folder / "wav.scp"):
        voices = sorted({str(turn["speaker"]) for turn in turns[recording]})
        yield Utterance(recording, folder / path, split, {"turns": turns[recording], "voice": voices})


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and fields of each line; the last field may hold spaces."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fields = line.strip().split(None, FILES[path.name] - 1)
        if len(fields) != FILES[path.name] or fields[-1].endswith("|"):
            raise ManifestError(f"{path}, line {number}: '{line}' has not {FILES[path.name]} fields, or is a command; "
                                f"{AGAIN}")  # fmt: skip
        yield number, fields


def _mixed(root: Path, metadata: Path) -> Manifest:
    """The manifest of mixtures that are made while they are read, equal to that of the folders but for rounding."""
    listed: list[Utterance] = []
    missing: list[str] = []
    for split, subset in SUBSETS.items():
        turns = metadata / "LibriSpeech" / f"{subset.replace('-', '_')}.rttm"
        absent = lacking(root, metadata, split, noise=True)
        absent += [] if turns.is_file() else [f"split {split}: {turns} is missing: {TAKE}"]
        missing += absent
        if not absent:
            spoken = _turns(turns)
            mixtures = listed_mixtures(root, metadata, split, "max", noise=True)
            listed += [replace(row, labels=_labels(row, spoken, turns)) for row in mixtures]
    rows, causes = existing(listed, "LibriMix's lists")
    return checked("libri2mix", root, rows, count_notes(rows, OFFICIAL, causes), missing)


def _turns(path: Path) -> Mapping[str, Turns]:
    """Utterance, named by chapter and number as in `61-0001` -> who speaks when, by a file in NIST's RTTM form."""
    turns: dict[str, Turns] = defaultdict(list)
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            _, utterance, _, start, duration, _, _, speaker, *_ = line.split()
            turn = {"start": float(start), "stop": float(start) + float(duration), "speaker": speaker}
        except ValueError:
            raise ManifestError(f"{path}, line {number}: '{line}' is no turn of RTTM; {TAKE}") from None
        turns[utterance].append(turn)
    return turns


def _labels(row: Utterance, spoken: Mapping[str, Turns], path: Path) -> dict[str, Any]:
    """Turns of both sources, which begin with the mixture; their names are the two halves of its own."""
    turns: Turns = []
    for source in row.id.split("_"):
        utterance = source.partition("-")[2]
        if utterance not in spoken:
            raise ManifestError(f"{path}: has no turn of '{utterance}', a source of mixture '{row.id}'; {TAKE}")
        turns += spoken[utterance]
    return {"turns": turns, "voice": sorted({str(turn["speaker"]) for turn in turns})}


register_corpus(Corpus(name="libri2mix", title="Libri2Mix, longest mixtures with noise: SD", load=load))
