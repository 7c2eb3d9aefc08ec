"""Speech Commands v0.01: 30 words of a second each (Warden, arXiv:1804.03209), in SUPERB's 12 classes.

Train and valid come from the large archive, by its own rule on the speaker in the file name. Test is the separate
archive of 12 classes; the recordings that the rule would put in a test split are left out, as in the protocol.

Silence: the six background recordings are the only ones, and serve train and valid alike. They are cut into consecutive
pieces of one second, as in s3prl's newer recipe: its older one draws a random second each time, which no cache of
features can follow and which makes the valid score random. What is left behind the last whole second is not taken, so
that all silence has the length that the older recipe trains on and the test archive holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from torchaudio.datasets import SPEECHCOMMANDS

from core.audio import SAMPLE_RATE, num_samples
from core.errors import ManifestError
from core.manifest import Manifest, Utterance
from tasks.corpora._base import Corpus, register_corpus
from tasks.corpora._official import checked, count_note, count_notes, find_folder

WORDS_FOLDER, TEST_FOLDER = "speech_commands_v0.01", "speech_commands_test_set_v0.01"
DOWNLOADS = "download.tensorflow.org/data"
KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
UNKNOWN, SILENCE, BACKGROUND = "_unknown_", "_silence_", "_background_noise_"
ONLY_IN_V2 = "backward"  # one of the five words that version 0.02 added
OFFICIAL = {"train": 51_088, "valid": 6_798, "test": 3_081}  # words in train and valid, everything in test
OFFICIAL_BACKGROUNDS = 6
KNOWN_FAILURES = {
    "check_splits_share_no_recording": "as published: the background noise is the silence of train and of valid",
}
HASHES = 2**27  # the dataset's MAX_NUM_WAVS_PER_CLASS + 1


def load(root: Path) -> Manifest:
    """The manifest of both archives, with label `keyword` and note `voice`.

    Args:
        root: the folder that holds both unpacked archives, or the one of the words with the other beside it.

    Raises: ManifestError: neither archive is there, or it is another version.
    """
    folders = [root, *_subfolders(root), *_subfolders(root / "SpeechCommands")]
    words = find_folder(folders, lambda each: (each / KEYWORDS[0]).is_dir() and not _is_test(each))
    if words is not None and (words / ONLY_IN_V2).is_dir():
        raise ManifestError(
            f"{words}: is version 0.02 (it has the word '{ONLY_IN_V2}'), but SUPERB is defined on 0.01; unpack "
            f"{DOWNLOADS}/{WORDS_FOLDER}.tar.gz"
        )
    test = find_folder([*folders, root.resolve().parent / TEST_FOLDER], _is_test)
    spoken = [] if words is None else list(_spoken(words.resolve()))
    silent = [] if words is None else list(_silent(words))
    tested = [] if test is None else list(_tested(test))
    notes = count_notes([*spoken, *tested], OFFICIAL, {})
    if silent:
        found = len({row.path for row in silent})
        notes += count_note(BACKGROUND, found, OFFICIAL_BACKGROUNDS)
    above = words.resolve().parent if words is not None else root
    missing = [*_missing_words(above, words, spoken, silent), *_missing_test(above, test, tested)]
    manifest = checked("speech_commands", root, [*spoken, *silent, *tested], notes, missing)
    return replace(manifest, known_failures=KNOWN_FAILURES if silent else {})


def split_of(speaker: str) -> str | None:
    """The dataset's rule, its `which_set`: a tenth of the speakers is valid, a tenth is left out, the others train.

    Args:
        speaker: the file name before `_nohash_`.
    """
    percentage = int(hashlib.sha1(speaker.encode()).hexdigest(), 16) % HASHES * (100.0 / (HASHES - 1))
    return "valid" if percentage < 10 else None if percentage < 20 else "train"


def _spoken(words: Path) -> Iterator[Utterance]:
    # ".tar.gz", since torchaudio takes the last two suffixes off the name, and "v0.01" has one.
    listing = SPEECHCOMMANDS(words.parent, url=f"{words.name}.tar.gz", folder_in_archive=".")
    for number in range(len(listing)):
        path, _, word, speaker, _ = listing.get_metadata(number)
        split = split_of(speaker)
        if split is not None:
            labels = {"keyword": word if word in KEYWORDS else UNKNOWN, "voice": speaker}
            yield Utterance(f"{word}/{Path(path).stem}", words.parent / path, split, labels)


def _silent(words: Path) -> Iterator[Utterance]:
    for path in sorted((words / BACKGROUND).glob("*.wav")):
        samples = num_samples(path)
        for number, start in enumerate(range(0, samples - SAMPLE_RATE + 1, SAMPLE_RATE)):
            for split in ("train", "valid"):
                name = f"{split}/{SILENCE}/{path.stem}-{number:02d}"
                yield Utterance(name, path, split, {"keyword": SILENCE}, 0, start, start + SAMPLE_RATE)


def _tested(test: Path) -> Iterator[Utterance]:
    # Not through torchaudio: it wants `_nohash_` in every file name, which silence does not have.
    for keyword in (*KEYWORDS, UNKNOWN, SILENCE):
        for path in sorted((test / keyword).glob("*.wav")):
            speaker, mark, _ = path.name.partition("_nohash_")
            labels = {"keyword": keyword} | ({"voice": speaker} if mark else {})
            yield Utterance(f"test/{keyword}/{path.stem}", path, "test", labels)


def _missing_words(above: Path, words: Path | None, spoken: list[Utterance], silent: list[Utterance]) -> list[str]:
    if words is None:
        return [f"{WORDS_FOLDER} (splits train and valid) is missing: unpack {_archive(WORDS_FOLDER, above)}"]
    found = {row.split for row in spoken}
    lacking = [
        f"{words}: no recording falls in split {split}: {_anew(words)}"
        for split in ("train", "valid")
        if split not in found
    ]
    if not silent:
        lacking.append(f"{words / BACKGROUND} (class {SILENCE} of train and valid) is missing: {_anew(words)}")
    return lacking


def _missing_test(above: Path, test: Path | None, tested: list[Utterance]) -> list[str]:
    if test is None:
        return [f"testing archive missing (split test, 12 classes): unpack {_archive(TEST_FOLDER, above)}"]
    found = {row.labels["keyword"] for row in tested}
    lacking = [keyword for keyword in (*KEYWORDS, UNKNOWN, SILENCE) if keyword not in found]
    return [f"{test}: testing archive has no {', '.join(lacking)}: unpack it anew"] if lacking else []


def _archive(folder: str, above: Path) -> str:
    return f"{DOWNLOADS}/{folder}.tar.gz into {above / folder}"


def _anew(words: Path) -> str:
    return f"unpack {WORDS_FOLDER}.tar.gz anew into {words}"


def _is_test(folder: Path) -> bool:
    return (folder / UNKNOWN).is_dir() and "v0.02" not in folder.name


def _subfolders(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if each.is_dir()) if folder.is_dir() else []


register_corpus(
    Corpus(name="speech_commands", title="Speech Commands v0.01 with its 12-class test archive: KS", load=load)
)
