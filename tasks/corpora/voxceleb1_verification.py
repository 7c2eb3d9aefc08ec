"""VoxCeleb1's verification protocol (Nagrani et al., arXiv:1706.08612): VoxCeleb1-O, the original list of trials.

Train is the dev part but for 40 speakers, who are valid: those of a list of development trials that s3prl ships and
does not read (`sv_voxceleb1/dev_meta_data`). Published runs train on them, too, and choose on test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from core.errors import ManifestError
from core.manifest import Manifest, Utterance, refuse
from tasks.corpora._base import Corpus, register_corpus
from tasks.corpora._official import checked, count_note, count_notes, existing
from tasks.corpora._voxceleb import META, SPEAKERS, TEST_PART, audio_folders, find_audio, find_list, speaker_folders

LABEL = "speaker_to_verify"


class Listed(NamedTuple):
    """What a list of trials holds."""

    trials: int
    recordings: int


# The original list, under the dataset's name and OpenSLR's, then the one that was cleaned of wrong voices.
LISTS = {
    "veri_test.txt": Listed(37_720, 4_715),
    "voxceleb1_test_v2.txt": Listed(37_720, 4_715),
    "veri_test2.txt": Listed(37_611, 4_708),
}
VALID = {
    f"id{number}"
    for number in (
        *(10008, 10025, 10051, 10057, 10059, 10062, 10119, 10120, 10141, 10165, 10195, 10197, 10239, 10397),
        *(10418, 10475, 10551, 10609, 10629, 10673, 10713, 10719, 10722, 10745, 10758, 10809, 10817, 10828),
        *(10889, 10940, 10952, 10955, 11039, 11045, 11123, 11157, 11175, 11177, 11203, 11212),
    )
}
OFFICIAL = {"train": 143_101, "valid": 5_541}  # of 148,642 in the dev part


def load(root: Path) -> Manifest:
    """The manifest of train, valid and the recordings that test's trials name, with `speaker_to_verify` and `trials`.

    Args:
        root: the folder of the corpus, or the one above it; the list of trials lies in one of them.

    Raises: ManifestError: the list, or all audio, is missing, or the list is damaged.
    """
    listing = find_list(root, tuple(LISTS), "the list of trials")
    home = find_audio(root)
    trials = _read(listing)
    named = dict.fromkeys(name for pair in trials for name in pair)
    speakers = speaker_folders(home)
    tested = [
        Utterance(name, speakers.get(_speaker(name), home) / f"{name}.wav", "test", {LABEL: _speaker(name)})
        for name in named
    ]
    found, causes = existing(tested, listing.name)
    kept, dropped = _with_trials(found, trials)
    rows = [*_others(home), *kept]
    official = LISTS[listing.name]
    notes = count_notes(rows, {**OFFICIAL, "test": official.recordings}, causes)
    notes += count_note("test", len(trials) - dropped, official.trials, what="trials")
    notes += count_note("train and valid", _voices(rows, "train", "valid"), SPEAKERS - len(TEST_PART), what="speakers")
    return checked("voxceleb1_verification", home, rows, notes, _missing_parts(home, rows))


def _read(listing: Path) -> list[tuple[str, str]]:
    """The pairs of a list, without suffix, in its order.

    Raises: ManifestError: lines that are no trials, or whose label is not whether both are of one speaker.
    """
    pairs, problems = [], []
    for number, line in enumerate(listing.read_text(encoding="utf-8").splitlines(), start=1):
        label, *names = line.split() or [""]
        if label not in ("0", "1") or len(names) != 2 or any(name.count("/") != 2 for name in names):
            problems.append(f"line {number}: '{line}' is not '1 id10270/VIDEO/00001.wav id10270/VIDEO/00002.wav'")
            continue
        first, second = (name.removesuffix(".wav") for name in names)
        if (label == "1") != (_speaker(first) == _speaker(second)):
            problems.append(f"line {number}: says {label}, but the speakers are {_speaker(first)}, {_speaker(second)}")
        pairs.append((first, second))
    refuse(listing, problems)
    if not pairs:
        raise ManifestError(f"{listing}: has no trials; fetch {META}/{listing.name}")
    return pairs


def _with_trials(rows: Sequence[Utterance], trials: Sequence[tuple[str, str]]) -> tuple[list[Utterance], int]:
    """The rows with the ids that each is compared with, and how many trials name a recording that is not there."""
    there = {row.id for row in rows}
    compared: dict[str, list[str]] = {}
    for first, second in trials:
        if first in there and second in there:
            compared.setdefault(first, []).append(second)
    listed = [_compared(row, compared) for row in rows]
    return listed, len(trials) - sum(map(len, compared.values()))


def _compared(row: Utterance, compared: Mapping[str, list[str]]) -> Utterance:
    named = {"trials": compared[row.id]} if row.id in compared else {}
    return Utterance(row.id, row.path, row.split, {**row.labels, **named})


def _others(home: Path) -> list[Utterance]:
    """All recordings of the dev part."""
    rows = []
    for folder in audio_folders(home):
        for path in sorted(folder.glob("id*/*/[!.]*.wav")):
            name = path.relative_to(folder).with_suffix("").as_posix()
            speaker = _speaker(name)
            if speaker not in TEST_PART:
                rows.append(Utterance(name, path, "valid" if speaker in VALID else "train", {LABEL: speaker}))
    return rows


def _missing_parts(home: Path, rows: Sequence[Utterance]) -> list[str]:
    return [
        f"the {part} part is missing; unpack vox1_{part}_wav.zip into {home / part}"
        for part, split in (("dev", "train"), ("test", "test"))
        if not any(row.split == split for row in rows)
    ]


def _voices(rows: Sequence[Utterance], *splits: str) -> int:
    return len({row.labels[LABEL] for row in rows if row.split in splits})


def _speaker(name: str) -> str:
    return name.split("/")[0]


register_corpus(Corpus(name="voxceleb1_verification", title="VoxCeleb1 with the trials of VoxCeleb1-O: ASV", load=load))
