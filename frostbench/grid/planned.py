"""The stages that a grid will come to, with what each job of them is expected to take."""

from __future__ import annotations

from collections.abc import Sequence

from core.audio import SAMPLE_RATE
from frostbench.grid.candidates import Folders
from frostbench.grid.costs import Costs
from frostbench.grid.needs import Part, lacking_clips, needs_of
from frostbench.grid.stages import LEAVING
from frostbench.grid.sweeps import finetuning_work, means_alone, quick_first, sweeps_of, training_work
from frostbench.grid.upstream_checks import unchecked
from frostbench.grid.wanted import keeps_means
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
        cells_of_wave = [cell for part in wave for cell in part.cells]
        tuned = [cell for cell in cells_of_wave if cell.finetuned]
        groups = quick_first([cell for cell in cells_of_wave if not cell.finetuned])
        shares = [(part, _seconds_in_turns(part, folders)) for part in wave]
        passed: set[int] = set()
        for number, cells in enumerate(groups):
            now = ({0} if means_alone(groups, number) else {0, 1}) - passed
            passed |= now
            passing = [(part, sum(turns[turn] for turn in now)) for part, turns in shares]
            works = [costs.extracting(part.upstream, seconds / workers) for part, seconds in passing if seconds]
            stages.append(Stage("extracting features", [work for work in works for _ in range(workers)]))
            if number == 0:
                stages.append(Stage("counting operations", [costs.counting(part.upstream) for part in wave]))
            stages += [
                Stage("training heads", [training_work(runs, folders, costs) for runs in sweeps_of(cells, workers)]),
                Stage("evaluating on test", [costs.evaluating(cell) for cell in cells if cell.condition is None]),
            ]
            heard = [costs.evaluating(cell) for cell in cells if cell.condition is not None]
            stages += [Stage("evaluating in conditions", heard)] * bool(heard)
        if tuned:
            tried = [(cell, candidate) for cell in tuned for candidate in cell.candidates]
            works = [finetuning_work(cell, candidate, folders, costs) for cell, candidate in tried]
            stages += [Stage("counting operations", [costs.counting(part.upstream) for part in wave])] * (not groups)
            stages += [
                Stage("fine-tuning", works),
                Stage("evaluating on test", [costs.evaluating(cell) for cell in tuned]),
            ]
    return [*stages, Stage(LEAVING, [costs.leaving()])]


def _seconds_in_turns(part: Part, folders: Folders) -> tuple[float, float]:
    """Seconds of audio that have to pass an upstream: of the clips of which means are kept, and of the others."""
    lacking = lacking_clips(part, needs_of(part, folders.cache))
    means = [clip.samples for clip in lacking if keeps_means(clip)]
    others = [clip.samples for clip in lacking if not keeps_means(clip)]
    return sum(means) / SAMPLE_RATE, sum(others) / SAMPLE_RATE
