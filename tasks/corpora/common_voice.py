"""Common Voice: sentences read by volunteers (Ardila et al., LREC 2020, arXiv:1912.06670), one language at a time.

SUPERB-SG takes Mexican Spanish, Mandarin (zh-CN) and Arabic of version 7.0; other languages get its rules as well.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from string import ascii_letters, punctuation

from core.errors import ManifestError
from core.manifest import Manifest, Utterance
from tasks.corpora._base import Corpus, register_corpus
from tasks.corpora._official import checked, existing
from tasks.corpora._tables import read_table

LISTS = {"train": "train.tsv", "valid": "dev.tsv", "test": "test.tsv"}
ACCENTS = {"es": {"mexicano", "México"}}  # language -> the only ones that are taken, by their older and newer names
WITHOUT_SPACES = {"zh-CN", "zh-TW", "ja"}
WITHOUT_LATIN = {*WITHOUT_SPACES, "ar", "ru"}
# Letters of other scripts, in the two languages where SUPERB-SG leaves out sentences that have one.
FOREIGN = {"es": "しらゴミムラ消箱良", "zh-CN": "ΜИТオカドヤ䴕", "zh-TW": "ΜИТオカドヤ䴕"}
# SUPERB-SG's signs that are no letters, among them accents that stand alone.
SIGNS = (set(punctuation) - {"'"}) | set("「」、⋯。《》丶–—―‘“”『』〜ー・☭«»،؛؟‐−¡¿ː×─〈〉") | set("\u0301\u0303\u030c")
LETTERS = str.maketrans({**dict.fromkeys(SIGNS, " "), "’": "'", "ㄧ": "一"})


def load(root: Path) -> Manifest:
    """The manifest of a language's three lists, with labels `text` and `voice`.

    Args:
        root: the folder of a language, such as cv-corpus-7.0-2021-07-21/es.

    Raises: ManifestError: it is no such folder, or a list is damaged.
    """
    if not any((root / name).is_file() for name in LISTS.values()):
        found = sorted(path.parent.name for path in root.glob(f"*/{LISTS['train']}"))
        which = f"one of {', '.join(found)}" if found else "such as cv-corpus-7.0-2021-07-21/es"
        raise ManifestError(f"{root}: {LISTS['train']} is missing; name the folder of a language, {which}")
    rows: list[Utterance] = []
    notes, missing, languages = [], [], set()
    for split, name in LISTS.items():
        if not (root / name).is_file():
            missing.append(f"{name} (split {split}) is missing: unpack the language anew into {root.resolve().parent}")
            continue
        listed, dropped, language = _listed(root, split)
        found_rows, causes = existing(listed, name)
        rows += found_rows
        languages.add(language)
        notes += [f"{split}: {cause}" for cause in causes.values()]
        if dropped:
            notes.append(f"{split}: {dropped:,} sentences with letters of another script are left out, as in SUPERB-SG")
    return checked(f"common_voice_{min(languages)}", root, rows, notes, missing)


def _listed(home: Path, split: str) -> tuple[list[Utterance], int, str]:
    """The sentences of a list, how many were left out, and the language."""
    table = read_table(home / LISTS[split], ("client_id", "path", "sentence", "locale"))
    rows, dropped = [], 0
    language = table[0]["locale"] if table else home.resolve().name
    for row in table:
        accent = row.get("accent") or row.get("accents") or ""
        if language in ACCENTS and accent not in ACCENTS[language]:
            continue
        text = normalised(row["sentence"], language)
        if not text:
            dropped += 1
            continue
        path = home / "clips" / row["path"]
        rows.append(Utterance(path.stem, path, split, {"text": text, "voice": row["client_id"][:16]}))
    return rows, dropped, language


def normalised(sentence: str, language: str) -> str:
    """A sentence in upper case without signs, as SUPERB-SG has it; empty where it has letters of another script."""
    text = re.sub(" +", " ", unicodedata.normalize("NFKC", sentence).upper().translate(LETTERS)).strip()
    if language in WITHOUT_SPACES:
        text = text.replace(" ", "")
    foreign = set(FOREIGN.get(language, "")) | (set(f"{ascii_letters}'") if language in WITHOUT_LATIN else set())
    return "" if foreign & set(text) else text


register_corpus(
    Corpus(name="common_voice", title="Common Voice, one language: OOD-ASR, with SUPERB-SG's rules", load=load)
)
