"""QUESST 2014: spoken queries in documents of six languages (Anguera et al., MediaEval 2014), the English part.

SUPERB takes what the lists call `nnenglish`; both sets of queries are searched in the same documents.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from core.errors import ManifestError
from core.manifest import Manifest, Utterance
from tasks.corpora._base import Corpus, register_corpus
from tasks.corpora._official import checked, count_note, existing, find_folder

LANGUAGE = "nnenglish"  # English of people whose mother tongue it is not
DOCUMENTS = "scoring/language_key_utterances.lst"
SETS = {"valid": "dev", "test": "eval"}  # split -> what the corpus calls its queries
OFFICIAL = {"queries": 138, "documents": 2_438}
AGAIN = "unpack quesst14Database.tgz anew"


def load(root: Path) -> Manifest:
    """The manifest of both sets of queries, with label `query`, and of the documents in each split, with `contains`.

    A query is called by its name, and a document holds those of its split that the ground truth finds in it.

    Args:
        root: the folder quesst14Database, or the one above it.

    Raises: ManifestError: nothing of it is there, or a list is damaged.
    """
    home = find_folder((root / "quesst14Database", root), lambda each: (each / DOCUMENTS).is_file())
    rows: list[Utterance] = []
    notes: list[str] = []
    missing: list[str] = [] if home else [f"{DOCUMENTS} is missing: {AGAIN} into {root}"]
    for split, name in SETS.items():
        listed = {} if home is None else _listed(home, split, name, missing)
        for what, recordings in listed.items():
            found, causes = existing(recordings, "scoring/*.lst")
            rows += found
            if found:
                notes += count_note(split, len(found), OFFICIAL[what], what=what, cause=causes.get(split, ""))
            elif recordings:
                missing.append(f"{split}: no {what} in {recordings[0].path.parent}: {AGAIN}")
    return checked("quesst14", home or root, rows, notes, missing, splits=tuple(SETS))


def _listed(home: Path, split: str, name: str, missing: list[str]) -> Mapping[str, Sequence[Utterance]]:
    """Queries and documents of a split, whose recordings may not be there; lists that are not are added to those."""
    queries, truth = f"scoring/language_key_{name}.lst", f"scoring/groundtruth_quesst14_{name}/quesst14_{name}.rttm"
    lacking = [file for file in (queries, truth) if not (home / file).is_file()]
    missing += [f"{file} is missing: {AGAIN} into {home.parent}" for file in lacking]
    if lacking:
        return {}
    held = _held(home / truth)
    return {
        "queries": [Utterance(path.stem, path, split, {"query": path.stem}) for path in _english(home, queries)],
        "documents": [
            Utterance(f"{split}/{path.stem}", path, split, {"contains": held.get(path.stem, [])})
            for path in _english(home, DOCUMENTS)
        ],
    }


def _english(home: Path, listing: str) -> list[Path]:
    """The recordings of a list whose lines are `quesst14Database/FOLDER/NAME.wav LANGUAGE`."""
    found = []
    for number, line in enumerate((home / listing).read_text(encoding="utf-8").splitlines(), start=1):
        path, _, language = line.strip().partition(" ")
        if "/" not in path or not language:
            raise ManifestError(f"{home / listing}, line {number}: '{line}' is no recording with its language; {AGAIN}")
        if language.strip() == LANGUAGE:
            found.append(home / path.partition("/")[2])
    return found


def _held(truth: Path) -> Mapping[str, list[str]]:
    """Document -> the queries in it, by lines `LEXEME DOCUMENT CHANNEL START SECONDS QUERY ...`."""
    held: dict[str, list[str]] = defaultdict(list)
    for number, line in enumerate(truth.read_text(encoding="utf-8").splitlines(), start=1):
        kind, *fields = line.split() or [""]
        if kind != "LEXEME":
            continue
        if len(fields) < 5:
            raise ManifestError(f"{truth}, line {number}: '{line}' says no document with a query; {AGAIN}")
        document, query = fields[0], fields[4]
        if query not in held[document]:
            held[document].append(query)
    return held


register_corpus(Corpus(name="quesst14", title="QUESST 2014, its English part: QbE", load=load))
