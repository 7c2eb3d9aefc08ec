"""The grid upstream x task x seed: skips what is finished, passes every clip once, and isolates failures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from core.audio import SAMPLE_RATE
from core.digest import digest_of, write_json
from core.manifest import Manifest, validate
from core.records import RecordStore
from downstreams._base import HEADS
from downstreams._recipe import Recipe
from tasks._base import Task
from tasks._executors import Job, LocalExecutor, Outcome
from tasks._measures import gflops_per_second
from tasks._plan import Cell, TaskData, UpstreamFacts, clips_of, kind_of, samples_of, task_data
from tasks._progress import Watcher
from tasks._runner import Folders, extract_features, run_cell, train_heads
from upstreams._extraction import Clip, caches_of, lay_out, unfinished
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
    """

    upstreams: Sequence[str]
    tasks: Sequence[Task]
    seeds: Sequence[int]
    recipe: str | None = None
    limit: int | None = None
    exact: bool = False


@dataclass
class Report:
    """What became of a grid.

    Attributes:
        cells: all that were asked for.
        skipped: how many had a record already.
        computed: how many got one.
        passed: upstream -> how many clips passed it.
        failures: (job, error), each once: an upstream that fails has cells that are not run.
    """

    cells: list[Cell]
    skipped: int = 0
    computed: int = 0
    passed: dict[str, int] = field(default_factory=dict)
    failures: list[tuple[str, str]] = field(default_factory=list)

    def add_failure(self, outcome: Outcome) -> None:
        """Takes in a failed job; the workers that share an upstream mostly fail alike."""
        failure = (outcome.job.name, str(outcome.error))
        if failure not in self.failures:
            self.failures.append(failure)


def make_cells(grid: Grid, manifest: Manifest) -> tuple[list[Cell], list[TaskData]]:
    """All cells of a grid, and the data of each task.

    Raises: BenchmarkError: an upstream can't be built, or a task can't use the corpus.
    """
    data = [task_data(manifest, task, grid.limit) for task in grid.tasks]
    cells: dict[str, Cell] = {}
    for spec in grid.upstreams:
        facts = UpstreamFacts.of(spec, build_upstream(spec))
        for task, rows in zip(grid.tasks, data, strict=True):
            recipe = task.recipe(grid.recipe)
            for seed in grid.seeds:
                live = _live(rows, recipe) if grid.exact else None
                cell = Cell(
                    facts, task, recipe, rows.corpus, rows.examples(task.label, recipe), seed, rows.limited, live
                )
                cells.setdefault(cell.run, cell)  # two names for one upstream are one cell
    return list(cells.values()), data


def run_grid(
    grid: Grid,
    manifest: Manifest,
    folders: Folders,
    device: torch.device,
    workers: int,
    watcher: Watcher | None = None,
) -> Report:
    """Runs every cell that has no record yet.

    Raises: BenchmarkError: the grid can't start at all; a single cell's failure is in the report.
    """
    watcher = watcher or Watcher()
    cells, data = make_cells(grid, manifest)
    store = RecordStore(folders.results)
    pending = [cell for cell in cells if cell.run not in store]
    report = Report(cells, skipped=len(cells) - len(pending))
    if not pending:
        return report
    validate_once(manifest, data, folders.cache, watcher)
    recipes = [task.recipe(grid.recipe) for task in grid.tasks]
    needs = [
        (rows.without_train() if grid.exact and recipe.crop_samples else rows, recipe, kind_of(task, recipe))
        for task, rows, recipe in zip(grid.tasks, data, recipes, strict=True)
    ]
    with LocalExecutor(workers) as executor:
        jobs = _extraction_jobs(pending, clips_of(needs), folders.cache, str(device), workers)
        failed: set[str] = set()
        watcher.stage("extracting features", sum(_seconds(job.arguments[2]) for job in jobs), "s")
        for outcome in executor.run(jobs, watcher.advance, watcher.done):
            if outcome.error is None:
                report.passed[outcome.job.name] = report.passed.get(outcome.job.name, 0) + int(outcome.value)
            else:
                report.add_failure(outcome)
                failed.add(outcome.job.arguments[1])
        pending = [cell for cell in pending if cell.upstream.digest not in failed]
        pending = _with_cost_of_upstreams(pending, executor, watcher)
        jobs = [Job(_name(runs), train_heads, (runs, folders, str(device))) for runs in _sweeps(pending, workers)]
        watcher.stage("training heads", sum(map(_updates, pending)), "updates")
        lost: set[str] = set()
        for outcome in executor.run(jobs, watcher.advance, watcher.done):
            if outcome.error is not None:
                report.add_failure(outcome)
                lost.update(cell.run for cell, _ in outcome.job.arguments[0])
        jobs = [Job(cell.name, run_cell, (cell, folders, str(device))) for cell in pending if cell.run not in lost]
        watcher.stage("evaluating on test", len(jobs), "cells")
        for outcome in executor.run(jobs, watcher.advance, watcher.done):
            if outcome.error is None:
                report.computed += 1
            else:
                report.add_failure(outcome)
    return report


def _with_cost_of_upstreams(cells: Sequence[Cell], executor: LocalExecutor, watcher: Watcher) -> list[Cell]:
    """Each upstream is measured once; where that fails, as with an unknown kind of network, nothing is recorded."""
    upstreams = {cell.upstream.digest: cell.upstream for cell in cells}
    jobs = [Job(upstream.name, gflops_per_second, (upstream.spec,)) for upstream in upstreams.values()]
    watcher.stage("counting operations", len(jobs), "upstreams")
    outcomes = executor.run(jobs, watcher.advance)
    costs = dict(zip(upstreams, (outcome.value for outcome in outcomes), strict=True))
    return [
        replace(cell, upstream=replace(cell.upstream, gflops_per_second=costs[cell.upstream.digest])) for cell in cells
    ]


def _live(rows: TaskData, recipe: Recipe) -> tuple[Clip, ...] | None:
    """The whole train recordings, where the recipe takes new random pieces of them at every update."""
    if not recipe.crop_samples:
        return None
    whole = rows.clips(replace(recipe, crop_samples=0))["train"]
    return tuple(replace(clip, samples=samples_of(clip)) for (clip,) in whole)


def validate_once(manifest: Manifest, data: Sequence[TaskData], cache: Path, watcher: Watcher) -> None:
    """Decodes the recordings that the tasks use, unless rows and audio of this digest were found good before.

    Raises: ManifestError: names every recording that is not usable.
    """
    used = {row.id for rows in data for utterances in rows.utterances.values() for row in utterances}
    part = replace(manifest, utterances=tuple(row for row in manifest.utterances if row.id in used))
    marker = cache / "validated" / f"{part.digest[:32]}.json"
    if marker.is_file():
        return
    watcher.stage("checking recordings", len(part.utterances), "recordings")
    validate(part, advance=lambda: watcher.advance(1))
    write_json(marker, {"corpus": manifest.name, "digest": part.digest, "recordings": len(part.utterances)})


def _extraction_jobs(cells: Sequence[Cell], clips: Sequence[Clip], cache: Path, device: str, workers: int) -> list[Job]:
    """For every upstream, its unfinished batches dealt out to the workers."""
    jobs = []
    for upstream in {cell.upstream.digest: cell.upstream for cell in cells}.values():
        caches = caches_of(cache, upstream.digest, (kind for clip in clips for kind in clip.kinds))
        batches = unfinished(lay_out(clips, upstream.window_samples), caches)
        for share in (batches[worker::workers] for worker in range(workers)):
            if share:
                jobs.append(
                    Job(upstream.name, extract_features, (upstream.spec, upstream.digest, share, cache, device))
                )
    return jobs


def _seconds(batches: Sequence[Sequence[Clip]]) -> float:
    return sum(clip.samples for batch in batches for clip in batch) / SAMPLE_RATE


def _sweeps(cells: Sequence[Cell], workers: int) -> list[list[tuple[Cell, float]]]:
    """What is trained side by side, the longest first, so that the workers end together.

    Heads on means are so small that all learning rates and seeds go in one loop, shared out among the workers; a head
    that needs every frame fills a worker by itself.
    """
    groups: dict[str, list[tuple[Cell, float]]] = {}
    for cell in cells:
        alike = digest_of(
            [cell.upstream.digest, cell.task.digest(), cell.recipe, cell.corpus_digest, cell.live is None]
        )
        groups.setdefault(alike, []).extend((cell, rate) for rate in cell.recipe.learning_rates)
    sweeps: list[tuple[bool, list[tuple[Cell, float]]]] = []
    for runs in groups.values():
        frames = HEADS.get(runs[0][0].task.head).needs == "frames"
        size = 1 if frames else math.ceil(len(runs) / workers)
        sweeps.extend((frames, runs[start : start + size]) for start in range(0, len(runs), size))
    sweeps.sort(key=lambda sweep: (not sweep[0], -sum(cell.recipe.steps for cell, _ in sweep[1])))
    return [runs for _, runs in sweeps]


def _name(runs: Sequence[tuple[Cell, float]]) -> str:
    """For progress and messages: what the runs have in common."""
    cell, rate = runs[0]
    if len(runs) == 1:
        return f"{cell.name} / learning rate {rate:g}"
    seeds = ", ".join(str(seed) for seed in dict.fromkeys(cell.seed for cell, _ in runs))
    return f"{cell.upstream.name} / {cell.task.name} / seeds {seeds}"


def _updates(cell: Cell) -> float:
    return cell.recipe.steps * len(cell.recipe.learning_rates)
