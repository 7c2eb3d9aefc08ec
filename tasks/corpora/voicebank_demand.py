"""VoiceBank-DEMAND (Valentini-Botinhao et al., Interspeech 2016): voices under noise, and the same without.

SUPERB-SG takes the set of 28 speakers, of whom two choose on valid.
"""

from __future__ import annotations

from pathlib import Path

from core.manifest import Manifest, Utterance
from tasks.corpora._base import Corpus, register_corpus
from tasks.corpora._official import checked, count_notes, find_folder

PARTS = {"train": "trainset_28spk_wav", "test": "testset_wav"}
ENDINGS = ("", "_16k")  # of the folders, as they come, and as scripts that resample call theirs
VALID_SPEAKERS = ("p226", "p287")
OFFICIAL = {"train": 10_802, "valid": 770, "test": 824}
AGAIN = "unpack {noisy,clean}_{trainset_28spk,testset}_wav.zip of doi:10.7488/ds/2117 anew"


def load(root: Path) -> Manifest:
    """The manifest of the noisy recordings, with label `clean`, the same recording without noise, and `voice`.

    Args:
        root: the folder that holds the four folders.

    Raises: ManifestError: none is there.
    """
    rows: list[Utterance] = []
    missing: list[str] = []
    causes: dict[str, str] = {}
    for part, name in PARTS.items():
        noisy, clean = (
            find_folder((root / f"{kind}_{name}{ending}" for ending in ENDINGS), lambda each: any(each.glob("*.wav")))
            for kind in ("noisy", "clean")
        )
        if noisy is None or clean is None:
            lacking = [kind for kind, found in (("noisy", noisy), ("clean", clean)) if found is None]
            missing += [f"{part}: {root / f'{kind}_{name}'} is missing or has no wav: {AGAIN}" for kind in lacking]
            continue
        there = {path.name for path in clean.glob("*.wav")}
        found = sorted(noisy.glob("*.wav"))
        for path in found:
            if path.name in there:
                rows.append(_row(root, part, path, clean / path.name))
        lost = len([path for path in found if path.name not in there])
        causes |= {part: f"{lost:,} recordings of {noisy} are not in {clean}: {AGAIN}"} if lost else {}
    return checked("voicebank_demand", root, rows, count_notes(rows, OFFICIAL, causes), missing)


def _row(root: Path, part: str, noisy: Path, clean: Path) -> Utterance:
    voice = noisy.stem.split("_")[0]
    split = "valid" if part == "train" and voice in VALID_SPEAKERS else part
    labels = {"clean": clean.relative_to(root).as_posix(), "voice": voice}
    return Utterance(noisy.stem, noisy, split, labels, folder=root)


register_corpus(Corpus(name="voicebank_demand", title="VoiceBank-DEMAND, 28 speakers: SE", load=load))
