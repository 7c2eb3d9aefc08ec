"""What a grid has to do before it has begun: passes, time, disk and memory, for the run itself and for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from core.audio import SAMPLE_RATE
from core.manifest import Manifest
from frostbench.byte_sizes import format_bytes
from frostbench.cache_space import Need
from frostbench.grid.candidates import Folders
from frostbench.grid.cell import Cell
from frostbench.grid.costs import Costs
from frostbench.grid.needs import Part, lacking_clips, needs_of, plan_waves
from frostbench.grid.plan import Plan
from frostbench.grid.planned import planned_stages
from frostbench.grid.recordings import work_of_recordings
from frostbench.grid.short import too_short
from frostbench.jobs.forecast import Forecast, Stage

# Bytes of resident memory, measured on CPUs: of a process that has imported what it needs, and what a pass takes above
# its upstream's weights, whatever the length of the corpus (benchmarks/memory.py).
PROCESS, PASS = 0.9e9, 1.5e9


@dataclass(frozen=True)
class Prepared:
    """What is known once the cells are.

    Attributes:
        parts: the upstreams that have something to do.
        short: names of upstreams -> why they can't hear this corpus.
        waves: groups of parts whose features fit into the cache together.
        needs: of each part, what it needs of the cache.
        stages: all that will come.
        costs: of each kind of work.
    """

    parts: list[Part]
    short: dict[str, str]
    waves: list[list[Part]]
    needs: list[list[Need]]
    stages: list[Stage]
    costs: Costs


@dataclass(frozen=True)
class Listening:
    """What one upstream has to hear.

    Attributes:
        upstream: its name.
        clips: that pass it, each once.
        seconds: of audio.
        bytes: of the features to be computed.
        kept: bytes of those that are there.
    """

    upstream: str
    clips: int
    seconds: float
    bytes: int
    kept: int


@dataclass(frozen=True)
class PlannedRun:
    """A run, before it begins.

    Attributes:
        cells: how many were asked for.
        there: how many of them are recorded already.
        refused: names of upstreams -> why they can't be run.
        workers: jobs at a time.
        upstreams: those with something to do.
        stages: title -> seconds.
        seconds: until the end, as measured here before, else by what is built in.
        disk: bytes that are to be written to the cache.
        memory: bytes that all processes take at most, about.
        waves: groups of upstreams that follow each other, as the cache has no room for all at once.
    """

    cells: int
    there: int
    refused: dict[str, str]
    workers: int
    upstreams: list[Listening]
    stages: dict[str, float]
    seconds: float
    disk: int
    memory: int
    waves: int

    def line(self) -> str:
        """The whole of it, for a person."""
        cells = _counted(self.cells, "cell")
        if self.there == self.cells:
            return f"plan: {cells}, all there"
        there = f", {self.there} of them there" if self.there else ""
        heard = duration(sum(each.seconds for each in self.upstreams))
        return (
            f"plan: {cells}{there}; {_counted(len(self.upstreams), 'upstream')} to hear {heard} of audio; "
            f"about {duration(self.seconds)} by {self.workers} at a time, {format_bytes(self.disk)} of disk, "
            f"at most about {format_bytes(self.memory)} of memory"
        )

    def details(self) -> list[str]:
        """What each upstream hears, and what each stage takes."""
        heard = [
            f"  {each.upstream}: {each.clips} clips of {each.seconds / 60:.1f} min pass it, each once; features take "
            f"{format_bytes(each.bytes)}" + (f", {format_bytes(each.kept)} are there" if each.kept else "")
            for each in self.upstreams
        ]
        stages = [f"  {title}: about {duration(seconds)}" for title, seconds in self.stages.items()]
        return [*heard, *stages, *(f"  can't run: {names}: {why}" for names, why in self.refused.items())]

    def recorded(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def prepare(
    plan: Plan, parts: Sequence[Part], manifest: Manifest, folders: Folders, limit: int | None, workers: int
) -> Prepared:
    """What has to be known before the first job.

    Args:
        plan: the cells and the rows they take.
        parts: the upstreams with something to do.
        manifest: of the corpus.
        folders: of features and trained candidates.
        limit: bytes of the cache; None is no limit.
        workers: jobs at a time.

    Raises: CacheError: the features of one upstream do not fit into the cache.
    """
    short = too_short(parts)
    refused = {name for names in short for name in names.split(", ")}
    able = [part for part in parts if part.upstream.title not in refused]
    waves = plan_waves(able, limit)
    costs = Costs(folders.cache)
    recordings = work_of_recordings(manifest, plan.rows, folders.cache, costs)
    stages = planned_stages(recordings, waves, folders, costs, workers)
    return Prepared(able, short, waves, [needs_of(part, folders.cache) for part in able], stages, costs)


def planned_run(cells: Sequence[Cell], prepared: Prepared, workers: int) -> PlannedRun:
    """A prepared run, for people.

    Args:
        cells: all that were asked for.
        prepared: what is to be done.
        workers: jobs at a time.
    """
    pending = sum(len(part.cells) for part in prepared.parts)
    refused = [cell for cell in cells if any(cell.upstream.title in names.split(", ") for names in prepared.short)]
    stages: dict[str, float] = {}
    for stage in prepared.stages:
        stages[stage.title] = stages.get(stage.title, 0.0) + Forecast([stage], workers).left()
    parts = list(zip(prepared.parts, prepared.needs, strict=True))
    return PlannedRun(
        cells=len(cells),
        there=len(cells) - pending - len(refused),
        refused=dict(prepared.short),
        workers=workers,
        upstreams=[_listening(part, needs) for part, needs in parts],
        stages=stages if pending else {},
        seconds=Forecast(prepared.stages, workers).left() if pending else 0.0,
        disk=sum(need.coming for _, needs in parts for need in needs),
        memory=_memory(parts, workers) if pending else 0,
        waves=len(prepared.waves),
    )


def duration(seconds: float) -> str:
    """Seconds for a person."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _listening(part: Part, needs: Sequence[Need]) -> Listening:
    lacking = lacking_clips(part, needs)
    coming = sum(need.coming for need in needs)
    seconds = sum(clip.samples for clip in lacking) / SAMPLE_RATE
    return Listening(part.upstream.title, len(lacking), seconds, coming, sum(need.size for need in needs) - coming)


def _memory(parts: Sequence[tuple[Part, Sequence[Need]]], workers: int) -> int:
    """Of all processes: weights and a pass, or the means that a head is trained on, whichever is more."""
    most = 0.0
    for part, needs in parts:
        means = sum(need.size for need in needs if need.cache.kind != "frames")
        most = max(most, 4 * (part.upstream.params or 0) + PASS, 2.0 * means)
    processes = workers + (workers > 1)
    return round(processes * PROCESS + workers * most)
