"""What a checkpoint notes of the recordings that it was trained on, so that a benchmark can tell that it knows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.digest import parsed_json
from core.errors import CheckpointError
from core.fingerprints import Fingerprint, from_text, to_text

NOTES_FILE = "frostbench.json"  # in a folder of save_pretrained that `pretrain` wrote
KEY = "recordings"  # of the notes
MOST = 20_000  # recordings, 216 bytes each: of more of them a part drawn evenly, which shows a leak as well


def recordings_note(prints: Sequence[Fingerprint]) -> dict[str, Any]:
    """The note of a checkpoint: fingerprints as text, of how many of its recordings."""
    step = max(1.0, len(prints) / MOST)
    kept = [prints[int(place * step)] for place in range(min(len(prints), MOST))]
    return {"fingerprints": to_text(kept), "kept": len(kept), "of": len(prints)}


def heard_by(notes: Mapping[str, Any], source: str) -> dict[str, Fingerprint]:
    """Fingerprints of what a checkpoint with these notes was trained on; empty where they do not tell.

    Raises: CheckpointError: damaged; names the source.
    """
    if KEY not in notes:
        return {}
    try:
        return from_text(notes[KEY]["fingerprints"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{source}: what it notes of its recordings is damaged ({error}); delete '{KEY}' from its notes, or train "
            f"it anew"
        ) from None


def heard_by_folder(folder: Path) -> dict[str, Fingerprint]:
    """The same of a folder of save_pretrained, which only `pretrain` gives notes.

    Raises: CheckpointError: damaged.
    """
    file = folder / NOTES_FILE
    try:
        notes = parsed_json(file.read_text(encoding="utf-8"))["notes"]
        return heard_by(notes, str(file)) if isinstance(notes, dict) else {}
    except (OSError, ValueError, KeyError, TypeError):  # not there, or somebody else's
        return {}
