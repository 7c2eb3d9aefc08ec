"""Where VoxCeleb1 lies, whichever of its two protocols is read of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from core.errors import ManifestError
from tasks.corpora._official import find_folder

META = "www.robots.ox.ac.uk/~vgg/data/voxceleb/meta"  # where the lists are published
# Where the parts may lie: merged, as the archives unpack into folders of their own, or under the archives' names.
AUDIO = ("wav", "dev/wav", "test/wav", "vox1_dev_wav/wav", "vox1_test_wav/wav", "vox1_dev_wav", "vox1_test_wav")
# The test part (of the verification task) holds the speakers whose names begin with E, the dev part all others.
TEST_PART = {f"id{number}" for number in range(10_270, 10_310)}
SPEAKERS = 1_251


def homes_in(root: Path) -> tuple[Path, ...]:
    """The folders that may be the corpus."""
    return root, root / "VoxCeleb1", root / "voxceleb1"


def find_list(root: Path, names: Sequence[str], what: str) -> Path:
    """The first of these lists that is there.

    Raises: ManifestError: none is.
    """
    found = (home / name for home in homes_in(root) for name in names if (home / name).is_file())
    listing = next(found, None)
    if listing is None:
        raise ManifestError(f"{root}: {what} ({' or '.join(names)}) is missing; put {META}/{names[0]} into that folder")
    return listing


def find_audio(root: Path) -> Path:
    """The folder that holds the parts.

    Raises: ManifestError: there is none.
    """
    home = find_folder(homes_in(root), lambda each: bool(audio_folders(each)))
    if home is None:
        raise ManifestError(f"{root}: no audio there, neither wav/ nor dev/wav/ and test/wav/; unpack vox1_*_wav.zip")
    return home


def audio_folders(home: Path) -> list[Path]:
    """The folders of speakers."""
    return [home / name for name in AUDIO if next((home / name).glob("id*"), None) is not None]


def speaker_folders(home: Path) -> dict[str, Path]:
    """Speaker -> the folder that holds the speaker's."""
    return {speaker.name: folder for folder in audio_folders(home) for speaker in folder.glob("id*")}
