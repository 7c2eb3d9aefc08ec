"""Looking at the recordings of a corpus once, before anything is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from core.digest import write_json
from core.manifest import Manifest, validate
from frostbench.grid.costs import Costs
from frostbench.grid.stages import Stages
from frostbench.jobs.forecast import Work
from tasks._rows import TaskRows


def validate_once(manifest: Manifest, taken: Sequence[TaskRows], cache: Path, stages: Stages) -> None:
    """Decodes the recordings that the tasks use, unless rows and audio of this digest were found good before.

    Raises: ManifestError: names every recording that is not usable.
    """
    part, marker = _used(manifest, taken, cache)
    work = work_of_recordings(manifest, taken, cache, stages.costs)
    if work is None:
        return
    with stages.here("checking recordings", "recordings", work) as advance:
        validate(part, advance=lambda: advance(1))
    write_json(marker, {"corpus": manifest.name, "digest": part.digest, "recordings": len(part.utterances)})


def work_of_recordings(manifest: Manifest, taken: Sequence[TaskRows], cache: Path, costs: Costs) -> Work | None:
    """What it takes to decode the recordings that tasks use; None where they were found good before."""
    part, marker = _used(manifest, taken, cache)
    return None if marker.is_file() else costs.checking_recordings(manifest.name, len(part.utterances))


def _used(manifest: Manifest, taken: Sequence[TaskRows], cache: Path) -> tuple[Manifest, Path]:
    """The recordings that tasks use, and the file that says that these were found good."""
    used = {example.id for rows in taken for examples in rows.examples.values() for example in examples}
    part = replace(manifest, utterances=tuple(row for row in manifest.utterances if row.id in used))
    return part, cache / "validated" / f"{part.digest[:32]}.json"
