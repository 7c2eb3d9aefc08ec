"""VoxCeleb1: celebrities in interviews (Nagrani et al., arXiv:1706.08612), the identification split.

torchaudio's VoxCeleb1Identification is not used: it wants both parts merged in one folder, downloads the list of the
split when it is not there, and does not look whether the recordings are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from core.errors import ManifestError
from core.manifest import Manifest, Utterance
from tasks.corpora._base import Corpus, register_corpus
from tasks.corpora._official import checked, count_note, count_notes, existing
from tasks.corpora._voxceleb import META, SPEAKERS, TEST_PART, find_audio, find_list, speaker_folders

LISTS = ("iden_split.txt", "veri_test_class.txt")  # the dataset's name for it, and s3prl's
SPLITS_BY_NUMBER = {"1": "train", "2": "valid", "3": "test"}
OFFICIAL = {"train": 138_361, "valid": 6_904, "test": 8_251}


def load(root: Path) -> Manifest:
    """The manifest of the identification split, with label `speaker`.

    Args:
        root: the folder of the corpus, or the one above it; the list of the split lies in one of them.

    Raises: ManifestError: the list, or all audio, is missing.
    """
    listing = find_list(root, LISTS, "the identification split")
    home = find_audio(root)
    listed = _listed(listing, home)
    rows, causes = existing(listed, listing.name)
    missing = _missing_parts(home, listed, rows)
    if missing:
        causes = dict.fromkeys(causes, missing[0].partition(":")[0])  # such as "dev part only"
    notes = count_notes(rows, OFFICIAL, causes)
    notes += count_note("all splits", len({row.labels["speaker"] for row in rows}), SPEAKERS, what="speakers")
    return checked("voxceleb1", home, rows, notes, missing)


def _listed(listing: Path, home: Path) -> list[Utterance]:
    speakers = speaker_folders(home)
    rows = []
    for number, line in enumerate(listing.read_text(encoding="utf-8").splitlines(), start=1):
        split, _, path = line.strip().partition(" ")
        if split not in SPLITS_BY_NUMBER or path.count("/") != 2:
            raise ManifestError(
                f"{listing}, line {number}: '{line}' is not '1 id10001/VIDEO/00001.wav'; fetch {META}/{LISTS[0]}"
            )
        speaker = path.split("/")[0]
        file = speakers.get(speaker, home) / path
        rows.append(Utterance(path.removesuffix(".wav"), file, SPLITS_BY_NUMBER[split], {"speaker": speaker}))
    return rows


def _missing_parts(home: Path, listed: Sequence[Utterance], rows: Sequence[Utterance]) -> list[str]:
    wanted, found = ({row.labels["speaker"] for row in each} for each in (listed, rows))
    parts = (
        ("dev", "test", wanted & TEST_PART, found & TEST_PART),
        ("test", "dev", wanted - TEST_PART, found - TEST_PART),
    )
    return [
        f"{there} part only: the {len(speakers)} speakers of the {lacking} part are missing, and identification mixes "
        f"both; unpack vox1_{lacking}_wav.zip into {home / lacking}"
        for there, lacking, speakers, present in parts
        if rows and speakers and not present
    ]


register_corpus(Corpus(name="voxceleb1", title="VoxCeleb1 with its identification split: SID", load=load))
