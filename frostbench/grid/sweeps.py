"""Heads that are trained side by side in one job."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from core.digest import digest_of
from downstreams._recipe import Candidate
from frostbench.grid.candidates import Folders, candidate_path
from frostbench.grid.cell import Cell
from frostbench.grid.cell_jobs import untrained, updates_of_sweep
from frostbench.grid.costs import Costs
from frostbench.grid.finetuning import updates_of_finetuning
from frostbench.jobs.forecast import Work

Sweep = list[tuple[Cell, Candidate]]


def quick_first(cells: Sequence[Cell]) -> list[list[Cell]]:
    """The cells whose heads read means, then those that read frames: the first take seconds, and are seen at once.

    Last come the heads on means of seeds that no head on frames has: they add to a table that is whole without them.
    """
    frames = [cell for cell in cells if cell.reads_frames]
    seeds = {cell.seed for cell in frames or cells}
    means = [cell for cell in cells if not cell.reads_frames]
    groups = [cell for cell in means if cell.seed in seeds], frames, [cell for cell in means if cell.seed not in seeds]
    return [group for group in groups if group]


def means_alone(groups: Sequence[Sequence[Cell]], number: int) -> bool:
    """Whether only recordings of which means are kept pass before a group of cells: the others pass before a later."""
    return any(cell.reads_frames for group in groups[number + 1 :] for cell in group)


def sweeps_of(cells: Sequence[Cell], workers: int) -> list[Sweep]:
    """What is trained side by side, the longest first, so that the workers end together.

    Heads on means are so small that all learning rates, seeds and single layers go in one loop, which reads a batch for
    all of them; it is shared out among the workers where there are more of these than loops. A head that needs every
    frame fills a worker by itself.
    """
    groups: dict[str, list[tuple[Cell, Candidate]]] = {}
    for cell in (cell for cell in cells if cell.candidates):
        alike = digest_of(
            [
                cell.upstream.digest,
                cell.task.digest(),
                # Candidates of a search are compared with all of their seed in the loop: there each layer is alone.
                cell.recipe if cell.recipe.search_steps else replace(cell.recipe, layer=None),
                cell.audio,
                cell.rows.digest,
                sorted(cell.live),
                cell.frames,
            ]
        )
        groups.setdefault(alike, []).extend((cell, candidate) for candidate in cell.candidates)
    sweeps: list[tuple[bool, list[tuple[Cell, Candidate]]]] = []
    loops = sum(not runs[0][0].reads_frames for runs in groups.values())
    for runs in groups.values():
        cell = runs[0][0]
        frames = cell.reads_frames
        size = 1 if frames else math.ceil(len(runs) / math.ceil(workers / loops))
        if cell.recipe.search_steps:  # candidates of a run are compared on the way, and trained together
            size = len(cell.candidates) * math.ceil(size / len(cell.candidates))
        sweeps.extend((frames, runs[start : start + size]) for start in range(0, len(runs), size))
    sweeps.sort(key=lambda sweep: (not sweep[0], -sum(cell.recipe.steps for cell, _ in sweep[1])))
    return [runs for _, runs in sweeps]


def sweep_name(runs: Sequence[tuple[Cell, Candidate]]) -> str:
    """For progress and messages: what the runs have in common."""
    cell, candidate = runs[0]
    if len(runs) == 1:
        return f"{cell.name} / {candidate}"
    seeds = ", ".join(str(seed) for seed in dict.fromkeys(cell.seed for cell, _ in runs))
    layers = len({cell.recipe.layer for cell, _ in runs})
    each = f" / {layers} choices of layers" if layers > 1 else ""
    return f"{cell.upstream.title} / {cell.task.shown}{each} / seeds {seeds}"


def finetuning_work(cell: Cell, tried: Candidate, folders: Folders, costs: Costs) -> Work:
    """What a candidate of a fine-tuned cell takes; one of a command that was interrupted is there already."""
    updates = updates_of_finetuning(cell)
    return costs.finetuning(cell, updates, updates if candidate_path(cell, tried, folders).is_file() else 0.0)


def training_work(runs: Sequence[tuple[Cell, Candidate]], folders: Folders, costs: Costs) -> Work:
    """What a sweep takes; candidates of a command that was interrupted are there already."""
    updates = updates_of_sweep(runs)
    return costs.training(runs, updates, updates - updates_of_sweep(untrained(runs, folders)))
