"""Libri2Mix (Cosentino et al., arXiv:2005.11262) as SUPERB diarises it: two speakers of LibriSpeech and noise of WHAM.

It is read from the folders in Kaldi's form that s3prl's fork of LibriMix makes (`generate_librimix_sd.sh`, then
`prepare_diarization.py`): mixtures in their longest form at 16 kHz, and speech of each source by forced alignment.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from core.errors import ManifestError
from core.manifest import Manifest, Utterance
from tasks.corpora._base import Corpus, register_corpus
from tasks.corpora._official import checked, count_notes, existing, find_folder

FOLDERS = {"train": "train", "valid": "dev", "test": "test"}
FILES = {"wav.scp": 2, "segments": 4, "utt2spk": 2}  # -> fields of a line
OFFICIAL = {"train": 13_900, "valid": 3_000, "test": 3_000}
AGAIN = "prepare it anew with s3prl's fork of LibriMix"


def load(root: Path) -> Manifest:
    """The manifest of `train/`, `dev/` and `test/`, with label `turns`, and `voice`, the speakers of a mixture.

    Args:
        root: the folder that holds them, or the one above `data/`.

    Raises: ManifestError: none is there, or a file of one is damaged.
    """
    home = find_folder((root / "data", root), lambda each: any((each / name).is_dir() for name in FOLDERS.values()))
    listed: list[Utterance] = []
    missing: list[str] = []
    for split, name in FOLDERS.items():
        folder = (home or root) / name
        lacking = [file for file in FILES if not (folder / file).is_file()]
        missing += [f"split {split}: {folder / file} is missing: {AGAIN}" for file in lacking]
        listed += [] if lacking else _listed(folder, split)
    rows, causes = existing(listed, "wav.scp")
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


register_corpus(Corpus(name="libri2mix", title="Libri2Mix, longest mixtures with noise: SD", load=load))
