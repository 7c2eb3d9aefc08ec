"""The grid upstream x task x seed: skips what is finished, passes every clip once, and isolates failures."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from core.audio import SAMPLE_RATE
from core.digest import digest_of, write_json
from core.feature_cache import KINDS, caches_of
from core.manifest import SPLITS, Manifest, validate
from core.records import RecordStore
from downstreams._base import HEADS
from downstreams._recipe import Recipe
from tasks._base import Task
from tasks._cache_space import in_use, make_room
from tasks._executors import Executor, Job, Outcome
from tasks._measures import gflops_per_second
from tasks._needs import (
    AskedFrames,
    Part,
    announcements,
    choose_frames,
    dtypes_of,
    needs_of,
    plan_waves,
    sizes_of,
)
from tasks._plan import (
    Cell,
    Frames,
    TaskData,
    UpstreamFacts,
    clips_of,
    count_long,
    kind_of,
    samples_of,
    task_data,
)
from tasks._progress import Watcher
from tasks._runner import Folders, extract_features, run_cell, train_heads
from upstreams._base import Precision
from upstreams._clips import Clip, deal, lay_out
from upstreams._extraction import unfinished
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

    def add_extraction(self, outcomes: Sequence[Outcome]) -> None:
        """Takes in what extraction jobs came to."""
        for outcome in outcomes:
            if outcome.error is None:
                self.passed[outcome.job.name] = self.passed.get(outcome.job.name, 0) + int(outcome.value)
        self.add_failures(outcomes)

    def add_failures(self, outcomes: Sequence[Outcome]) -> None:
        """Takes in jobs that failed, each error once: the workers that share an upstream mostly fail alike."""
        failures = [(outcome.job.name, str(outcome.error)) for outcome in outcomes if outcome.error is not None]
        self.failures.extend(failure for failure in dict.fromkeys(failures) if failure not in self.failures)


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
    return choose_frames(sizes_of(upstream, _clips(grid, data)), grid.cache_limit)


def _clips(grid: Grid, data: Sequence[TaskData], tasks: Collection[str] | None = None) -> list[Clip]:
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


def run_grid(
    grid: Grid,
    manifest: Manifest,
    folders: Folders,
    executor: Executor,
    watcher: Watcher | None = None,
) -> Report:
    """Runs every cell that has no record yet, on an executor that is entered if there is something to run.

    Raises: BenchmarkError: the grid can't start at all; a single cell's failure is in the report.
    """
    watcher = watcher or Watcher()
    manifest = replace(manifest, memory=folders.cache / "audio")
    cells, data = make_cells(grid, manifest)
    store = RecordStore(folders.results)
    pending = [cell for cell in cells if cell.run not in store]
    report = Report(cells, skipped=len(cells) - len(pending))
    if not pending:
        return report
    validate_once(manifest, data, folders.cache, watcher)
    parts = _parts(grid, data, pending)
    waves = plan_waves(parts, folders.cache, grid.cache_limit)
    for line in announcements(parts, waves, folders.cache, grid.frames, grid.cache_limit):
        watcher.say(line)
    with executor:
        for wave in waves:
            needs = [need for part in wave for need in needs_of(part, folders.cache)]
            make_room(folders.cache, grid.cache_limit, needs)
            with in_use(needs):
                jobs = _extraction_jobs(wave, folders.cache, executor.workers)
                watcher.stage("extracting features", sum(_seconds(job.arguments[1]) for job in jobs), "s of audio")
                outcomes = executor.run(jobs, watcher.advance, watcher.done)
                failed = {outcome.job.arguments[0].digest for outcome in outcomes if outcome.error is not None}
                report.add_extraction(outcomes)
                for need in needs:
                    if need.cache.kind != "frames":
                        need.cache.merge()
                ready = [cell for part in wave if part.upstream.digest not in failed for cell in part.cells]
                _train(_with_cost_of_upstreams(ready, executor, watcher), executor, folders, report, watcher)
    return report


def _train(cells: Sequence[Cell], executor: Executor, folders: Folders, report: Report, watcher: Watcher) -> None:
    """Trains the heads of cells whose features are there, and evaluates them."""
    jobs = [Job(_name(runs), train_heads, (runs, folders)) for runs in _sweeps(cells, executor.workers)]
    watcher.stage("training heads", sum(map(_updates, cells)), "updates")
    outcomes = executor.run(jobs, watcher.advance, watcher.done)
    report.add_failures(outcomes)
    failed = [outcome.job.arguments[0] for outcome in outcomes if outcome.error is not None]
    lost = {cell.run for runs in failed for cell, _ in runs}
    jobs = [Job(cell.name, run_cell, (cell, folders)) for cell in cells if cell.run not in lost]
    watcher.stage("evaluating on test", len(jobs), "cells")
    outcomes = executor.run(jobs, watcher.advance, watcher.done)
    report.computed += sum(outcome.error is None for outcome in outcomes)
    report.add_failures(outcomes)


def _parts(grid: Grid, data: Sequence[TaskData], pending: Sequence[Cell]) -> list[Part]:
    """The cells by upstream, with the clips to extract.

    All clips of the grid are laid out, also for a task that is finished, so that batches stay what they were; but
    nothing is kept of those that no pending cell needs.
    """
    rows_of = {task.name: rows for task, rows in zip(grid.tasks, data, strict=True)}
    clips = _clips(grid, data)
    parts = []
    for upstream in {cell.upstream.digest: cell.upstream for cell in pending}.values():
        cells = [
            replace(cell, long=count_long(rows_of[cell.task.name], cell.recipe, upstream))
            for cell in pending
            if cell.upstream.digest == upstream.digest
        ]
        frames = next((cell.frames for cell in cells if cell.frames is not None), None)
        wanted = {clip.key: clip.kinds for clip in _clips(grid, data, {cell.task.name for cell in cells})}
        left_out = {"frames"} if frames == "recompute" else set()
        kept = [replace(clip, kinds=wanted.get(clip.key, frozenset()) - left_out) for clip in clips]
        parts.append(Part(upstream, frames, kept, cells, sizes_of(upstream, clips)))
    return parts


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


def _extraction_jobs(parts: Sequence[Part], cache: Path, workers: int) -> list[Job]:
    """For every upstream, its unfinished batches dealt out to the workers."""
    jobs = []
    for part in parts:
        dtypes = dtypes_of(part.frames)
        caches = caches_of(cache, part.upstream.digest, KINDS, dtypes)
        batches = unfinished(lay_out(part.clips, part.upstream.window_samples, part.upstream.batch_seconds), caches)
        for share in deal(batches, workers):
            jobs.append(Job(part.upstream.name, extract_features, (part.upstream, share, dtypes, cache)))
    return jobs


def _seconds(batches: Sequence[Sequence[Clip]]) -> float:
    return sum(clip.samples for batch in batches for clip in batch) / SAMPLE_RATE


def _with_cost_of_upstreams(cells: Sequence[Cell], executor: Executor, watcher: Watcher) -> list[Cell]:
    """Each upstream is measured once; where that fails, as with an unknown kind of network, nothing is recorded."""
    upstreams = {cell.upstream.digest: cell.upstream for cell in cells}
    jobs = [Job(upstream.name, gflops_per_second, (upstream.spec,)) for upstream in upstreams.values()]
    watcher.stage("counting operations", len(jobs), "upstreams")
    outcomes = executor.run(jobs, watcher.advance)
    costs = dict(zip(upstreams, (outcome.value for outcome in outcomes), strict=True))
    return [
        replace(cell, upstream=replace(cell.upstream, gflops_per_second=costs[cell.upstream.digest])) for cell in cells
    ]


def _sweeps(cells: Sequence[Cell], workers: int) -> list[list[tuple[Cell, float]]]:
    """What is trained side by side, the longest first, so that the workers end together.

    Heads on means are so small that all learning rates and seeds go in one loop, shared out among the workers; a head
    that needs every frame fills a worker by itself.
    """
    groups: dict[str, list[tuple[Cell, float]]] = {}
    for cell in cells:
        alike = digest_of(
            [cell.upstream.digest, cell.task.digest(), cell.recipe, cell.corpus_digest, sorted(cell.live), cell.frames]
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
