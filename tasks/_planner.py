"""The grid upstream x task x seed: skips what is finished, passes every clip once, and isolates failures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from core.audio import SAMPLE_RATE
from core.digest import write_json
from core.manifest import Manifest, validate
from core.records import RecordStore
from downstreams._base import HEADS
from downstreams._recipe import Recipe
from tasks._base import Task
from tasks._executors import Executor, Job, Outcome
from tasks._plan import Cell, TaskData, UpstreamFacts, clips_of, kind_of, samples_of, task_data
from tasks._progress import Watcher
from tasks._runner import Folders, extract_features, run_cell
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
    executor: Executor,
    watcher: Watcher | None = None,
) -> Report:
    """Runs every cell that has no record yet, on an executor that is entered if there is something to run.

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
    with executor:
        jobs = _extraction_jobs(pending, clips_of(needs), folders.cache, executor.workers)
        failed: set[str] = set()
        watcher.stage("extracting features", sum(_seconds(job.arguments[2]) for job in jobs), "s")
        for outcome in executor.run(jobs, watcher.advance, watcher.done):
            if outcome.error is None:
                report.passed[outcome.job.name] = report.passed.get(outcome.job.name, 0) + int(outcome.value)
            else:
                report.add_failure(outcome)
                failed.add(outcome.job.arguments[1])
        pending = [cell for cell in pending if cell.upstream.digest not in failed]
        pending.sort(key=lambda cell: -_cost(cell))  # the longest first, so that the workers end together
        jobs = [Job(cell.name, run_cell, (cell, folders)) for cell in pending]
        watcher.stage("training heads", sum(map(_updates, pending)), "updates")
        for outcome in executor.run(jobs, watcher.advance, watcher.done):
            if outcome.error is None:
                report.computed += 1
            else:
                report.add_failure(outcome)
    return report


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


def _extraction_jobs(cells: Sequence[Cell], clips: Sequence[Clip], cache: Path, workers: int) -> list[Job]:
    """For every upstream, its unfinished batches dealt out to the workers."""
    jobs = []
    for upstream in {cell.upstream.digest: cell.upstream for cell in cells}.values():
        caches = caches_of(cache, upstream.digest, (kind for clip in clips for kind in clip.kinds))
        batches = unfinished(lay_out(clips, upstream.window_samples), caches)
        for share in (batches[worker::workers] for worker in range(workers)):
            if share:
                jobs.append(Job(upstream.name, extract_features, (upstream.spec, upstream.digest, share, cache)))
    return jobs


def _seconds(batches: Sequence[Sequence[Clip]]) -> float:
    return sum(clip.samples for batch in batches for clip in batch) / SAMPLE_RATE


def _updates(cell: Cell) -> float:
    return cell.recipe.steps * len(cell.recipe.learning_rates)


def _cost(cell: Cell) -> float:
    """For the order only: heads that need every frame take about a hundred times as long."""
    return _updates(cell) * (100 if HEADS.get(cell.task.head).needs == "frames" else 1)
