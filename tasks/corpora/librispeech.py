"""LibriSpeech: read English audiobooks (Panayotov et al., ICASSP 2015; openslr.org/12), the part that SUPERB takes.

Phones come from SUPERB's lexicon, two files of s3prl's repository, where they lie beside the recordings.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torchaudio.datasets import LIBRISPEECH

from core.errors import ManifestError
from core.manifest import Manifest, Utterance
from tasks.corpora._base import Corpus, register_corpus
from tasks.corpora._lexicon import read_lexicon, with_phones
from tasks.corpora._official import checked, count_notes, find_folder

SUBSETS = {"train": "train-clean-100", "valid": "dev-clean", "test": "test-clean"}
OFFICIAL = {"train": 28_539, "valid": 2_703, "test": 2_620}  # utterances; openslr.org gives hours only
# In the order in which a word's first pronunciation is taken.
LEXICON = ("librispeech-lexicon-200k-g2p.txt", "librispeech-lexicon-allothers-g2p.txt")


def load(root: Path) -> Manifest:
    """The manifest of `LibriSpeech/<subset>/<speaker>/<chapter>/`, with labels `text`, `voice` and `phones`.

    Without the whole lexicon there are no phones, and the manifest says what it takes; other tasks work all the same.

    Args:
        root: the folder LibriSpeech, or the one above it.

    Raises: ManifestError: none of the three subsets is there, or a transcript is not.
    """
    folder = find_folder(
        (root / "LibriSpeech", root), lambda each: any((each / name).is_dir() for name in SUBSETS.values())
    )
    above = root if folder != root else root.resolve().parent
    rows: list[Utterance] = []
    missing, causes = [], {}
    for split, subset in SUBSETS.items():
        found = [] if folder is None else _rows(folder, split, subset)
        rows += found
        if not found:
            missing.append(
                f"{subset} (split {split}) is missing: unpack {subset}.tar.gz of openslr.org/12 into {above}"
            )
        elif folder is not None and (silent := _transcripts(folder / subset) - len(found)) > 0:
            causes[split] = f"{silent:,} transcripts have no recording: an interrupted download"
    return _spelt(checked("librispeech", folder or root, rows, count_notes(rows, OFFICIAL, causes), missing), above)


def _spelt(manifest: Manifest, above: Path) -> Manifest:
    """With phones, or with what it takes to have them."""
    found = {name: path for name in LEXICON if (path := _lexicon_file(name, (manifest.source, above)))}
    lacking = [name for name in LEXICON if name not in found]
    how = f"put {' and '.join(lacking or LEXICON)} of s3prl (s3prl/downstream/ctc/lexicon) into {above}"
    try:
        if not lacking:
            second, first = (read_lexicon(found[name]) for name in reversed(LEXICON))
            return with_phones(manifest, {**second, **first})
    except ManifestError as error:
        how = f"{error}; {how}"
    return replace(manifest, lacking={"phones": how})


def _lexicon_file(name: str, folders: tuple[Path, ...]) -> Path | None:
    places = [place / name for folder in folders for place in (folder, folder / "lexicon")]
    return next((path for path in places if path.is_file()), None)


def _rows(folder: Path, split: str, subset: str) -> list[Utterance]:
    if not (folder / subset).is_dir():
        return []
    listing = LIBRISPEECH(folder, url=subset, folder_in_archive=".")
    try:
        found = [listing.get_metadata(number) for number in range(len(listing))]
    except (OSError, ValueError) as error:  # a transcript file, or a line in it, is not there or damaged
        raise ManifestError(
            f"{folder / subset}: a transcript can't be read ({error}); unpack the subset anew"
        ) from None
    return [
        Utterance(Path(path).stem, folder / path, split, {"text": text, "voice": str(speaker)})
        for path, _, text, speaker, *_ in found
    ]


def _transcripts(folder: Path) -> int:
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in folder.glob("*/*/*.trans.txt"))


register_corpus(
    Corpus(name="librispeech", title="LibriSpeech train-clean-100, dev-clean, test-clean: ASR, PR", load=load)
)
