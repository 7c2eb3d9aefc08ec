"""CoVoST 2, English to German (Wang et al., arXiv:2007.10310): Common Voice 4 translated, as SUPERB-SG takes it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from core.errors import ManifestError
from core.manifest import Manifest, Utterance
from tasks.corpora._base import Corpus, register_corpus
from tasks.corpora._official import checked, count_notes, existing, find_folder
from tasks.corpora._punctuation import normalised
from tasks.corpora._tables import read_table

VALIDATED, TRANSLATIONS = "validated.tsv", "covost_v2.en_de.tsv"
SPLITS = {"train": "train", "train_covost": "train", "dev": "valid", "test": "test"}  # others are of version 1 alone
OFFICIAL = {"train": 289_430, "valid": 15_531, "test": 15_531}  # translations, before some are left out
REMOVED = "REMOVE"  # stands in place of a translation that is none
MOST_WORDS = 5  # of one language, for each of the other


def load(root: Path) -> Manifest:
    """The manifest of Common Voice's English recordings that are translated, with labels `translation` and `voice`.

    What is said is called `transcription`.

    Args:
        root: the folder of English, such as cv-corpus-4-2019-12-10/en, or the one above it; the list of translations
            lies in one of them.

    Raises: ManifestError: a list is not there, or damaged.
    """
    home = find_folder((root, root / "en"), lambda each: (each / VALIDATED).is_file())
    if home is None:
        raise ManifestError(f"{root}: {VALIDATED} is missing; name the folder of English of Common Voice 4")
    lists = [each / TRANSLATIONS for each in (home, root, home.resolve().parent) if (each / TRANSLATIONS).is_file()]
    if not lists:
        raise ManifestError(
            f"{root}: {TRANSLATIONS} is missing; unpack {TRANSLATIONS}.tar.gz of facebookresearch/covost into {home}"
        )
    rows, causes = existing(_translated(home, lists[0]), VALIDATED)
    kept = [row for row in rows if fit_together(row.labels["transcription"], row.labels["translation"])]
    dropped = Counter(row.split for row in rows) - Counter(row.split for row in kept)
    notes = count_notes(rows, OFFICIAL, causes)
    notes += [f"{split}: {count:,} translations are left out, as in SUPERB-SG: empty, marked as none, or of another "
              f"length than what is said" for split, count in dropped.items()]  # fmt: skip
    clean = (normalised(row.labels["translation"]) for row in kept)
    rows = [replace(row, labels={**row.labels, "translation": text}) for row, text in zip(kept, clean, strict=True)]
    return checked("covost2", home, rows, notes, [])


def _translated(home: Path, translations: Path) -> list[Utterance]:
    """All recordings of both lists, which pandas wrote, with a backslash before quotation marks."""
    known = {row["path"]: row for row in read_table(translations, ("path", "translation", "split"), "\\")}
    rows = []
    for row in read_table(home / VALIDATED, ("client_id", "path", "sentence"), "\\"):
        found = known.get(row["path"])
        if found is not None and found["split"] in SPLITS:
            path, voice = home / "clips" / row["path"], row["client_id"][:16]
            labels = {"translation": found["translation"], "transcription": row["sentence"], "voice": voice}
            rows.append(Utterance(path.stem, path, SPLITS[found["split"]], labels))
    return rows


def fit_together(sentence: str, translation: str) -> bool:
    """Whether a translation is one, and neither text has more than five times as many words as the other."""
    counts = len(sentence.split()), len(translation.split())
    return REMOVED not in sentence + translation and 0 < max(counts) <= MOST_WORDS * min(counts)


register_corpus(Corpus(name="covost2", title="CoVoST 2, English to German on Common Voice 4: ST", load=load))
