"""IEMOCAP: ten actors in five sessions, scripted and improvised (Busso et al., 2008, doi:10.1007/s10579-008-9076-6).

SUPERB takes four emotions of it, of both kinds of dialogs, and each session is tested on once.
"""

from __future__ import annotations

import re
from pathlib import Path

from core.errors import ManifestError
from core.manifest import Manifest, Utterance
from tasks.corpora._base import Corpus, register_corpus
from tasks.corpora._official import checked, count_note, existing, find_folder

EMOTIONS = {"neu": "neu", "hap": "hap", "exc": "hap", "ang": "ang", "sad": "sad"}  # as annotated -> as SUPERB has it
OFFICIAL = {"Session1": 1_085, "Session2": 1_023, "Session3": 1_151, "Session4": 1_031, "Session5": 1_241}
# `[6.2901 - 8.2357]<tab>Ses01F_impro01_F000<tab>neu<tab>[2.5000, 2.5000, 2.5000]`: who speaks is the last letter.
LINE = re.compile(r"\[[^\]]*\]\t((Ses\d\d)[FM]_\S+_([FM])[^_\s]*)\t(\S+)\t")


def load(root: Path) -> Manifest:
    """The manifest of `Session<k>/`, with labels `emotion`, `session` and `voice`; all rows are in split train.

    Args:
        root: the folder IEMOCAP_full_release, or the one above it.

    Raises: ManifestError: no session is there, or a list of emotions is damaged.
    """
    home = find_folder(
        (root / "IEMOCAP_full_release", root / "IEMOCAP", root),
        lambda each: any((each / name).is_dir() for name in OFFICIAL),
    )
    rows: list[Utterance] = []
    notes: list[str] = []
    missing: list[str] = []
    for session, official in OFFICIAL.items():
        listed = [] if home is None else _listed(home, session)
        found, causes = existing(listed, f"{session}/dialog/EmoEvaluation")
        rows += found
        if found:
            notes += count_note(session, len(found), official, cause=causes.get("train", ""))
        else:
            lists = f"{session}/dialog/EmoEvaluation" if not listed else f"{session}/sentences/wav"
            missing.append(f"{session} is missing ({lists}): unpack IEMOCAP_full_release anew into {home or root}")
    return checked("iemocap", home or root, rows, notes, missing, splits=("train",))


def _listed(home: Path, session: str) -> list[Utterance]:
    """The turns of a session with one of the emotions, whose recordings may not be there."""
    rows = []
    for path in sorted((home / session / "dialog" / "EmoEvaluation").glob("Ses*.txt")):
        turns = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line[:1] == "["]
        for turn in turns:
            found = LINE.match(turn)
            if found is None:
                raise ManifestError(f"{path}: '{turn}' is no turn with an emotion; unpack IEMOCAP_full_release anew")
            name, pair, sex, emotion = found.groups()
            if emotion in EMOTIONS:
                wav = home / session / "sentences" / "wav" / path.stem / f"{name}.wav"
                labels = {"emotion": EMOTIONS[emotion], "session": session, "voice": f"{pair}{sex}"}
                rows.append(Utterance(name, wav, "train", labels))
    return rows


register_corpus(Corpus(name="iemocap", title="IEMOCAP: ER in five folds, the four emotions of SUPERB", load=load))
