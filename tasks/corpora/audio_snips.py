"""Audio SNIPS: requests to an assistant by 16 synthetic voices (Lai et al., arXiv:2010.13826), as SUPERB has it.

The folder is the one that s3prl's `preprocess/snips_prepare_data.sh` makes, or that its authors offer ready-made.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from core.errors import ManifestError
from core.manifest import SPLITS, Manifest, Utterance
from tasks.corpora._base import Corpus, register_corpus
from tasks.corpora._official import checked, count_notes, existing, find_folder

LIST = "all.iob.snips.txt"
VOICES = {
    "train": ("Ivy", "Joanna", "Joey", "Justin", "Kendra", "Kimberly", "Matthew", "Salli"),
    "valid": ("Aditi", "Amy", "Geraint", "Nicole"),
    "test": ("Brian", "Emma", "Raveena", "Russell"),
}
OFFICIAL = {"train": 104_672, "valid": 2_800, "test": 2_800}  # 13,084, 700 and 700 sentences by each voice
SUFFIXES = (".wav", ".mp3")  # as prepared, as recorded
DROPPED = "?!.,;-"
OUTSIDE = "O"  # tag of a word that is in no slot


def load(root: Path) -> Manifest:
    """The manifest of `SNIPS/<split>/<voice>-snips-<split>-<number>.wav`, with labels `marked`, `text` and `voice`.

    Of each split the voices are taken that SUPERB takes; the folders hold the others as well.

    Args:
        root: the folder SNIPS, or the one above it.

    Raises: ManifestError: the list of sentences is missing or damaged, or no split is there.
    """
    home = find_folder((root / "SNIPS", root), lambda each: (each / LIST).is_file())
    if home is None:
        raise ManifestError(
            f"{root}: {LIST} is missing; name the folder SNIPS that s3prl's preprocess/snips_prepare_data.sh makes"
        )
    listed, uneven = _listed(home)
    rows, causes = existing(listed, LIST)
    missing = [
        f"{split}/ (split {split}) is missing: prepare or unpack the recordings of SNIPS anew into {home}"
        for split in SPLITS
        if not any(row.split == split for row in rows)
    ]
    notes = count_notes(rows, OFFICIAL, causes)
    if uneven:
        more = f"{len(uneven):,} sentences have other numbers of words and of tags, such as {uneven[0]}"
        notes.append(f"{LIST}: {more}; what is left over is dropped, as in s3prl")
    return checked("audio_snips", home, rows, notes, missing)


def _listed(home: Path) -> tuple[list[Utterance], list[str]]:
    """The sentences of the list by the voices of their split, whose recordings may not be there, and the ids of those
    whose words and tags are not equally many.
    """
    suffixes = {
        split: next((suffix for suffix in SUFFIXES if next((home / split).glob(f"*{suffix}"), None)), SUFFIXES[0])
        for split in SPLITS
    }
    rows, uneven = [], []
    with (home / LIST).open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                name, words, tags = _parsed(line)
                voice, _, split, _ = name.split("-")
                taken = voice in VOICES[split]
            except (KeyError, ValueError):
                raise ManifestError(
                    f"{home / LIST}, line {number}: damaged; prepare or unpack the folder anew"
                ) from None
            if taken:
                if len(words) != len(tags):
                    uneven.append(name)
                    words, tags = words[: len(tags)], tags[: len(words)]
                labels = {"marked": marked(words, tags), "text": marked(words, [OUTSIDE] * len(words)), "voice": voice}
                rows.append(Utterance(name, home / split / f"{name}{suffixes[split]}", split, labels))
    return rows, uneven


def _parsed(line: str) -> tuple[str, list[str], list[str]]:
    """Id, words and tags of a line `ID BOS WORD ... EOS<tab>O TAG ... INTENT`.

    Raises: ValueError: it is another one.
    """
    said, tagged = line.strip().split("\t")
    name, begin, *words, end = said.split(" ")
    _, *tags, _ = tagged.split(" ")
    if (begin, end) != ("BOS", "EOS"):
        raise ValueError(line)
    return name, words, tags


def marked(words: Sequence[str], tags: Sequence[str]) -> str:
    """A sentence with its slots, as `FLY TO B-city NEW YORK E-city`.

    A slot is a run of words of one tag. Punctuation that is a word is dropped, which makes no mark vanish, unlike in
    s3prl, where the first or last word of a slot takes its mark with it.
    """
    parts = []
    for tag, run in groupby(zip(words, tags, strict=True), key=lambda pair: pair[1]):
        kept = ["AND" if word == "&" else word for word, _ in run if word not in DROPPED]
        parts += [f"B-{tag}", *kept, f"E-{tag}"] if kept and tag != OUTSIDE else kept
    return " ".join(parts)


register_corpus(Corpus(name="audio_snips", title="Audio SNIPS: SF, the voices that SUPERB takes", load=load))
