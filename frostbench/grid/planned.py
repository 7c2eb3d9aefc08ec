"""The stages that a grid will come to, with what each job of them is expected to take."""

from __future__ import annotations

from collections.abc import Sequence

from core.audio import SAMPLE_RATE
from frostbench.grid.cell_jobs import Folders
from frostbench.grid.costs import Costs
from frostbench.grid.needs import Part, needs_of
from frostbench.grid.stages import LEAVING
from frostbench.grid.sweeps import quick_first, sweeps_of, training_work
from frostbench.grid.upstream_checks import unchecked
from frostbench.jobs.forecast import Stage, Work


def planned_stages(
    recordings: Work | None, waves: Sequence[Sequence[Part]], folders: Folders, costs: Costs, workers: int
) -> list[Stage]:
    """All stages, in the order in which they come.

    Args:
        recordings: checking them; None if they are known to be good.
        waves: groups of upstreams that follow each other.
        folders: of features and trained candidates.
        costs: of every kind of work.
        workers: jobs at a time.
    """
    stages = [] if recordings is None else [Stage("checking recordings", [recordings])]
    todo = unchecked([part.upstream for wave in waves for part in wave], folders.cache)
    if todo:
        stages.append(Stage("checking upstreams", [costs.checking(upstream) for upstream in todo]))
    for wave in waves:
        shares = [costs.extracting(part.upstream, seconds_to_pass(part, folders) / workers) for part in wave]
        stages += [
            Stage("extracting features", [share for share in shares if share.amount for _ in range(workers)]),
            Stage("counting operations", [costs.counting(part.upstream) for part in wave]),
        ]
        for cells in quick_first([cell for part in wave for cell in part.cells]):
            stages += [
                Stage("training heads", [training_work(runs, folders, costs) for runs in sweeps_of(cells, workers)]),
                Stage("evaluating on test", [costs.evaluating(cell) for cell in cells]),
            ]
    return [*stages, Stage(LEAVING, [costs.leaving()])]


def seconds_to_pass(part: Part, folders: Folders) -> float:
    """Seconds of audio that have to pass an upstream, by the share of the features that is not in the cache."""
    lacking = max((need.coming / need.size for need in needs_of(part, folders.cache) if need.size), default=0.0)
    return lacking * sum(clip.samples for clip in part.wanted.clips if clip.kinds) / SAMPLE_RATE
