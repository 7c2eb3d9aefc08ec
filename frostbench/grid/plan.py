"""What is asked for, and the cells that it comes to."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from core.manifest import SPLITS, Manifest
from downstreams._recipe import Recipe
from frostbench.grid.cell import Cell, Frames, kind_of
from frostbench.grid.needs import (
    AskedFrames,
    choose_frames,
    sizes_of,
)
from tasks._base import Task
from tasks._rows import TaskData, clips_of, samples_of, task_data
from upstreams._base import Precision
from upstreams._extraction.clips import Clip
from upstreams._facts import UpstreamFacts
from upstreams._resolve import build_upstream


@dataclass(frozen=True)
class Grid:
    """What is asked for.

    Attributes:
        upstreams: specifications.
        tasks: declarations.
        seeds: of head training.
        recipe: name of the recipe; None is each task's default.
        limit: rows a split at most, for a quick try.
        exact: where a recipe crops at random, let every crop pass the upstream anew instead of keeping a few.
        precision: in which the upstreams compute.
        frames: how they are kept, or not; "auto" takes what fits within the limit.
        cache_limit: bytes of all features; None is no limit.
    """

    upstreams: Sequence[str]
    tasks: Sequence[Task]
    seeds: Sequence[int]
    recipe: str | None = None
    limit: int | None = None
    exact: bool = False
    precision: Precision = "float32"
    frames: AskedFrames = "auto"
    cache_limit: int | None = None


def make_cells(grid: Grid, manifest: Manifest) -> tuple[list[Cell], list[TaskData]]:
    """All cells of a grid, and the data of each task.

    Raises: BenchmarkError: an upstream can't be built, or a task can't use the corpus.
    """
    data = [task_data(manifest, task, grid.limit) for task in grid.tasks]
    cells: dict[str, Cell] = {}
    for spec in grid.upstreams:
        facts = UpstreamFacts.of(spec, build_upstream(spec), grid.precision)
        frames = _choice(grid, facts, data)
        for task, rows in zip(grid.tasks, data, strict=True):
            recipe = task.recipe(grid.recipe)
            kept = frames if kind_of(task, recipe) == "frames" else None
            live = _live(rows, recipe, grid.exact, kept)
            examples = rows.examples(task.label, recipe)
            for seed in grid.seeds:
                cell = Cell(facts, task, recipe, rows.corpus, examples, seed, rows.limited, kept, live)
                cells.setdefault(cell.run, cell)  # two names for one upstream are one cell
    return list(cells.values()), data


def _choice(grid: Grid, upstream: UpstreamFacts, data: Sequence[TaskData]) -> Frames | None:
    """What becomes of frames; the same for all tasks of an upstream, for they are kept once."""
    if all(kind_of(task, task.recipe(grid.recipe)) != "frames" for task in grid.tasks):
        return None
    if grid.frames != "auto":
        return grid.frames
    if grid.cache_limit is None:
        return "float16"
    return choose_frames(sizes_of(upstream, clips_needed(grid, data)), grid.cache_limit)


def clips_needed(grid: Grid, data: Sequence[TaskData], tasks: Collection[str] | None = None) -> list[Clip]:
    """What has to pass an upstream once, if its frames are kept; of all tasks, or of those of these names."""
    return clips_of(
        (rows.without_train() if grid.exact and recipe.crop_samples else rows, recipe, kind_of(task, recipe))
        for task, rows in zip(grid.tasks, data, strict=True)
        if tasks is None or task.name in tasks
        for recipe in [task.recipe(grid.recipe)]
    )


def _live(rows: TaskData, recipe: Recipe, exact: bool, frames: Frames | None) -> dict[str, tuple[Clip, ...]]:
    """The whole recordings of the splits that pass the upstream whenever they are drawn."""
    splits = SPLITS if frames == "recompute" else ("train",) if exact and recipe.crop_samples else ()
    whole = rows.clips(replace(recipe, crop_samples=0)) if splits else {}
    return {split: tuple(replace(clip, samples=samples_of(clip)) for (clip,) in whole[split]) for split in splits}
