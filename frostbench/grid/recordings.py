"""Looking at the recordings of a corpus once, before anything is made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from core.digest import digest_of, parsed_json, write_json, written_then_renamed
from core.fingerprints import Copy, Fingerprint, copies
from core.manifest import Manifest
from frostbench.grid.costs import Costs
from frostbench.grid.stages import Stages
from frostbench.jobs.forecast import Work
from frostbench.preparation import fingerprints_of
from tasks._rows import TaskRows


def validate_once(
    manifest: Manifest, taken: Sequence[TaskRows], cache: Path, stages: Stages
) -> Mapping[str, Fingerprint]:
    """Decodes the recordings that the tasks use, unless rows and audio of this digest were found good before.

    Returns: utterance id -> fingerprint, of recordings that are no mixtures.
    Raises: ManifestError: names every recording that is not usable.
    """
    part, marker = _used(manifest, taken, cache)
    work = work_of_recordings(manifest, taken, cache, stages.costs)
    if work is None and (known := _read(_prints_beside(marker))) is not None:
        return known
    work = work or stages.costs.checking_recordings(manifest.name, len(part.utterances))
    with stages.here("checking recordings", "recordings", work) as advance:
        found = fingerprints_of(part, advance=lambda: advance(1))
    _write(_prints_beside(marker), found)
    write_json(marker, {"corpus": manifest.name, "digest": part.digest, "recordings": len(part.utterances)})
    return found


def copies_once(prints: Mapping[str, Fingerprint], taken: Sequence[TaskRows], cache: Path) -> Sequence[Copy]:
    """Which recordings of valid and test, of any task, are others once more; found once and kept.

    Args:
        prints: of all recordings that the tasks use.
        taken: what each task takes.
        cache: folder of the cache.
    """
    asked = sorted({example.id for rows in taken for split in ("valid", "test") for example in rows.examples[split]})
    key = digest_of([[name, each.tobytes().hex()] for name, each in sorted(prints.items())] + asked)
    path = cache / "validated" / f"{key[:32]}-copies.json"
    with suppress(OSError, ValueError, TypeError):  # absent or damaged: found anew
        return [Copy(*each) for each in parsed_json(path.read_text(encoding="utf-8"))]
    found = list(copies({name: prints[name] for name in asked if name in prints}, prints))
    write_json(path, found)
    return found


def work_of_recordings(manifest: Manifest, taken: Sequence[TaskRows], cache: Path, costs: Costs) -> Work | None:
    """What it takes to decode the recordings that tasks use; None where they were found good before."""
    part, marker = _used(manifest, taken, cache)
    known = marker.is_file() and _prints_beside(marker).is_file()
    return None if known else costs.checking_recordings(manifest.name, len(part.utterances))


def _used(manifest: Manifest, taken: Sequence[TaskRows], cache: Path) -> tuple[Manifest, Path]:
    """The recordings that tasks use, and the file that says that these were found good."""
    used = {example.id for rows in taken for examples in rows.examples.values() for example in examples}
    part = replace(manifest, utterances=tuple(row for row in manifest.utterances if row.id in used))
    return part, cache / "validated" / f"{part.digest[:32]}.json"


def _prints_beside(marker: Path) -> Path:
    return marker.with_suffix(".npz")


def _write(path: Path, prints: Mapping[str, Fingerprint]) -> None:
    with written_then_renamed(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            ids=np.frombuffer("\n".join(prints).encode(), np.uint8),
            counts=np.array([len(each) for each in prints.values()], np.int64),
            rows=np.concatenate([np.zeros((0, 9), np.uint64), *prints.values()]),
        )


def _read(path: Path) -> dict[str, Fingerprint] | None:
    """What `_write` wrote; None where it is damaged."""
    try:
        with path.open("rb") as opened, np.load(opened) as file:
            names = file["ids"].tobytes().decode().split("\n")
            parts = np.split(file["rows"], np.cumsum(file["counts"])[:-1])
            return dict(zip(names, parts, strict=True))
    except (OSError, EOFError, ValueError, KeyError, RuntimeError, BadZipFile):
        return None
