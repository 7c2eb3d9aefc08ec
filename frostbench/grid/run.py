"""Runs a grid: skips what is finished, passes every clip once, and isolates failures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from core.audio import SAMPLE_RATE
from core.errors import RecordError
from core.feature_cache import KINDS, caches_of
from core.manifest import Manifest
from core.records import RecordStore
from frostbench.cache_overlay import require_whole
from frostbench.cache_space import Need, folders_in_use, in_use, make_room
from frostbench.grid.announcements import announcements
from frostbench.grid.candidates import Folders, delete_candidates
from frostbench.grid.cell import Cell, count_long
from frostbench.grid.cell_jobs import extract_features, run_cell, train_heads
from frostbench.grid.condition_jobs import run_in_condition
from frostbench.grid.decoding import decoded_once
from frostbench.grid.finetuning import finetune
from frostbench.grid.leaks import find_leaks
from frostbench.grid.measures import gflops_per_second
from frostbench.grid.needs import Part, dtypes_of, needs_of, sizes_of
from frostbench.grid.plan import Grid, Plan, make_cells
from frostbench.grid.preparing import PlannedRun, Prepared, planned_run, prepare
from frostbench.grid.recordings import copies_once, validate_once
from frostbench.grid.stages import Stages
from frostbench.grid.sweeps import finetuning_work, means_alone, quick_first, sweep_name, sweeps_of, training_work
from frostbench.grid.upstream_checks import check_upstreams
from frostbench.grid.wanted import GridClips, keeps_means
from frostbench.jobs.base import Executor, Job, Outcome
from frostbench.jobs.cell_table import CellNews, State
from frostbench.jobs.progress import Watcher
from upstreams._extraction.clips import Clip, share_out
from upstreams._extraction.fill import unfinished


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
    plan = make_cells(grid, manifest, folders.cache / "upstreams")
    remarks = [cell.upstream.remark for cell in plan.cells if cell.upstream.remark]
    for line in dict.fromkeys([*remarks, *(line for rows in plan.rows for line in rows.doubts), *plan.notes]):
        watcher.say(f"note: {line}")
    store = RecordStore(folders.results)
    pending = [cell for cell in plan.cells if cell.run not in store]
    damaged = list(_damaged(plan.cells, store))
    report = Report(plan.cells, len(plan.cells) - len(pending) - len(damaged), failures=damaged)
    if (folders.cache / "heads").is_dir():  # a command that was killed between a record and this
        for cell in plan.cells:
            if cell.run in store:
                delete_candidates(cell, folders)
    for failure in damaged:
        watcher.failed(*failure)
    if not pending:
        return report
    there = {cell.run for cell in plan.cells} - {cell.run for cell in pending}
    unreadable = {name for name, _ in damaged}
    watcher.cells(
        [
            _news(cell, "failed")
            if cell.name in unreadable
            else _finished(cell, store)
            if cell.run in there
            else _news(cell, "waiting")
            for cell in plan.cells
        ]
    )
    _compute(grid, manifest, plan, pending, report, folders, executor, watcher)
    return report


def plan_grid(grid: Grid, manifest: Manifest, folders: Folders, workers: int) -> PlannedRun:
    """What `run_grid` would do, without doing it.

    Raises: BenchmarkError: the grid can't start at all.
    """
    manifest = replace(manifest, memory=folders.cache / "audio")
    plan = make_cells(grid, manifest, folders.cache / "upstreams")
    store = RecordStore(folders.results)
    pending = [cell for cell in plan.cells if cell.run not in store]
    prepared = prepare(plan, _parts(plan.clips, pending), manifest, folders, grid.cache_limit, workers)
    return planned_run(plan.cells, prepared, workers)


def _news(cell: Cell, state: State) -> CellNews:
    layer, budget = cell.recipe.layer, None if cell.rows.drawn is None else cell.rows.drawn.budget
    news = CellNews(cell.row, cell.task.shown, cell.seed, state, fold=cell.fold, layer=layer, budget=budget)
    return news._replace(condition=cell.condition)


def _finished(cell: Cell, store: RecordStore) -> CellNews:
    """What a cell that is recorded came to."""
    record = store.read(store.path(cell.run))
    return _news(cell, "done")._replace(value=record.value, unit=record.metric["unit"])


def _tell_failed(cells: Sequence[Cell], watcher: Watcher) -> None:
    for cell in cells:
        watcher.cell(_news(cell, "failed"))


def _damaged(cells: Sequence[Cell], store: RecordStore) -> Iterator[tuple[str, str]]:
    """Cells whose record is there, but can't be read: it may be anybody's work, so it is not written over."""
    for cell in cells:
        if cell.run in store:
            try:
                store.read(store.path(cell.run))
            except RecordError as error:
                yield cell.name, str(error)


def _compute(
    grid: Grid,
    manifest: Manifest,
    plan: Plan,
    pending: Sequence[Cell],
    report: Report,
    folders: Folders,
    executor: Executor,
    watcher: Watcher,
) -> None:
    """Runs the cells that have no record, wave by wave, and enters into the report what became of them."""
    workers = max(1, executor.workers)
    prepared = prepare(plan, _parts(plan.clips, pending), manifest, folders, grid.cache_limit, workers)
    stages = Stages(executor, watcher, prepared.costs, prepared.stages)
    with stages.entered():  # processes start while this one looks at the recordings
        prints = validate_once(manifest, plan.rows, folders.cache, stages)  # before anything is written for jobs
        waves, lines = find_leaks(prepared.waves, prints, copies_once(prints, plan.rows, folders.cache))
        for line in lines:
            watcher.say(f"note: {line}")
        prepared = replace(prepared, waves=waves)
        with folders_in_use(folders.cache):
            _compute_prepared(grid, prepared, plan, pending, report, folders, stages)


def _compute_prepared(
    grid: Grid,
    prepared: Prepared,
    plan: Plan,
    pending: Sequence[Cell],
    report: Report,
    folders: Folders,
    stages: Stages,
) -> None:
    """What follows once the recordings are known to be good."""
    watcher, workers = stages.watcher, max(1, stages.executor.workers)
    for names, problem in prepared.short.items():
        watcher.failed(names, problem)
    report.failures.extend(prepared.short.items())
    waves = _portable(prepared.waves, folders.cache)
    parts = [part for wave in waves for part in wave]
    able = {part.upstream.digest for part in parts}
    _tell_failed([cell for cell in pending if cell.upstream.digest not in able], watcher)
    if folders.read_only is not None:
        require_whole(folders.read_only, [need for needs in prepared.needs for need in needs])
    watcher.say(planned_run(plan.cells, prepared, workers).line())
    for line in announcements(parts, prepared.needs, len(waves), grid.frames, grid.cache_limit):
        watcher.say(line)
    checked = check_upstreams([part.upstream for part in parts], folders.cache, stages)
    report.add_failures(checked)
    unfit = {outcome.job.arguments[0].digest for outcome in checked if outcome.error is not None}
    _tell_failed([cell for cell in pending if cell.upstream.digest in unfit], watcher)
    waves = [[part for part in wave if part.upstream.digest not in unfit] for wave in waves]
    for wave in waves:
        _run_wave(wave, grid.cache_limit, report, folders, stages)


def _run_wave(wave: Sequence[Part], limit: int | None, report: Report, folders: Folders, stages: Stages) -> None:
    """Everything of a group of upstreams whose features fit into the cache together.

    Heads on means come first: what they need is extracted, they are trained, and only then follow the recordings that
    heads on frames alone want.
    """
    needs = [need for part in wave for need in needs_of(part, folders.cache)]
    make_room(folders.cache, limit, needs)
    cells_of_wave = [cell for part in wave for cell in part.cells]
    tuned = [cell for cell in cells_of_wave if cell.finetuned]
    groups = quick_first([cell for cell in cells_of_wave if not cell.finetuned])
    costs: dict[str, float | None] = {}
    with in_use(needs), decoded_once(wave, folders.cache, limit) as decoded:
        for number, cells in enumerate(groups):
            part_of_it = means_alone(groups, number)
            jobs = extraction_jobs(wave, folders.cache, stages.executor.workers, decoded, means_alone=part_of_it)
            failed = _extract(jobs, needs, report, stages)
            left = [cell for group in (*groups[number:], tuned) for cell in group]
            _tell_failed([cell for cell in left if cell.upstream.digest in failed], stages.watcher)
            wave = [part for part in wave if part.upstream.digest not in failed]
            costs = costs or _costs_of_upstreams(wave, stages)
            able = {part.upstream.digest for part in wave}
            ready = [_with_costs(cell, costs) for cell in cells if cell.upstream.digest in able]
            _train(ready, folders, report, stages)
    if tuned:  # begins at heads that are recorded by now
        costs = costs or _costs_of_upstreams(wave, stages)
        able = {part.upstream.digest for part in wave}
        ready = [_with_costs(cell, costs) for cell in tuned if cell.upstream.digest in able]
        _finetune(ready, folders, report, stages)


def _extract(jobs: Sequence[Job], needs: Sequence[Need], report: Report, stages: Stages) -> set[str]:
    """Fills the cache; returns the digests of the upstreams that failed."""
    works = [stages.costs.extracting(job.arguments[0], seconds_of(job.arguments[1])) for job in jobs]
    outcomes = stages.run("extracting features", "s of audio", jobs, works)
    report.add_extraction(outcomes)
    for need in needs:
        if need.cache.kind != "frames":
            need.cache.merge()
    return {outcome.job.arguments[0].digest for outcome in outcomes if outcome.error is not None}


def _train(cells: Sequence[Cell], folders: Folders, report: Report, stages: Stages) -> None:
    """Trains the heads of cells whose features are there, and evaluates them, then in conditions."""
    watcher = stages.watcher
    heard = [cell for cell in cells if cell.condition is not None]
    cells = [cell for cell in cells if cell.condition is None]
    sweeps = sweeps_of(cells, stages.executor.workers)
    said: dict[str, None] = {}

    def say_once(line: str) -> None:  # each learning rate is a job of its own, and finds the same
        if line not in said:
            said[line] = None
            watcher.say(line)

    jobs = [Job(sweep_name(runs), train_heads, (runs, folders)) for runs in sweeps]
    works = [training_work(runs, folders, stages.costs) for runs in sweeps]

    def begun(job: Job) -> None:
        for cell, _ in job.arguments[0]:
            watcher.cell(_news(cell, "running"))

    outcomes = stages.run(
        "training heads", "updates", jobs, works, say=say_once, made=lambda outcome: outcome.value, begun=begun
    )
    failed = [outcome.job.arguments[0] for outcome in outcomes if outcome.error is not None]
    _evaluate(cells, outcomes, {cell.run for runs in failed for cell, _ in runs}, folders, report, stages)
    if heard:
        store = RecordStore(folders.results)
        _tell_failed([cell for cell in heard if cell.clean_run not in store], watcher)
        ready = [cell for cell in heard if cell.clean_run in store]
        _record("evaluating in conditions", ready, run_in_condition, folders, report, stages)


def _finetune(cells: Sequence[Cell], folders: Folders, report: Report, stages: Stages) -> None:
    """Trains upstreams with the heads that were trained on them, and evaluates both."""
    todo = [(cell, tried) for cell in cells for tried in cell.candidates]
    jobs = [Job(f"{cell.name} / {tried}", finetune, (cell, tried, folders)) for cell, tried in todo]
    works = [finetuning_work(cell, tried, folders, stages.costs) for cell, tried in todo]

    def begun(job: Job) -> None:
        stages.watcher.cell(_news(job.arguments[0], "running"))

    outcomes = stages.run("fine-tuning", "updates", jobs, works, made=lambda outcome: outcome.value, begun=begun)
    failed = {outcome.job.arguments[0].run for outcome in outcomes if outcome.error is not None}
    _evaluate(cells, outcomes, failed, folders, report, stages)


def _evaluate(
    cells: Sequence[Cell],
    trained: Sequence[Outcome],
    lost: set[str],
    folders: Folders,
    report: Report,
    stages: Stages,
) -> None:
    """Evaluates and records what was trained.

    Args:
        cells: that were trained.
        trained: the outcomes of training.
        lost: runs of which a training failed.
        folders: of features, candidates and results.
        report: takes in what becomes of the cells.
        stages: run the jobs.
    """
    watcher = stages.watcher
    report.add_failures(trained)
    _tell_failed([cell for cell in cells if cell.run in lost], watcher)
    ready = [cell for cell in cells if cell.run not in lost]
    _record("evaluating on test", ready, run_cell, folders, report, stages)


def _record(
    title: str, cells: Sequence[Cell], work: Callable[..., str], folders: Folders, report: Report, stages: Stages
) -> None:
    """The stage of cells whose heads are there."""
    jobs = [Job(cell.name, work, (cell, folders)) for cell in cells]
    store = RecordStore(folders.results)

    def done(outcome: Outcome) -> None:
        cell = outcome.job.arguments[0]
        stages.watcher.cell(_news(cell, "failed") if outcome.error is not None else _finished(cell, store))

    works = [stages.costs.evaluating(cell) for cell in cells]
    outcomes = stages.run(title, "cells", jobs, works, done=done)
    report.computed += sum(outcome.error is None for outcome in outcomes)
    report.add_failures(outcomes)


def _parts(clips: GridClips, pending: Sequence[Cell]) -> list[Part]:
    """The cells by upstream, with the clips to extract."""
    parts = []
    for upstream in {cell.upstream.digest: cell.upstream for cell in pending}.values():
        cells = [
            replace(cell, long=count_long(cell.rows, upstream))
            for cell in pending
            if cell.upstream.digest == upstream.digest
        ]
        frames = next((cell.frames for cell in cells if cell.frames is not None), None)
        wanted = clips.kept([cell.task.shown for cell in cells if not cell.finetuned], frames)
        parts.append(Part(upstream, frames, wanted, cells, sizes_of(upstream, clips.all)))
    return parts


def _portable(waves: Sequence[Sequence[Part]], cache: Path) -> list[list[Part]]:
    """The same, with rows that jobs carry as the name of a file."""
    rows = {cell.rows for wave in waves for part in wave for cell in part.cells}
    kept = {each: each.kept_in(cache / "rows") for each in rows}
    return [
        [replace(part, cells=[replace(cell, rows=kept[cell.rows]) for cell in part.cells]) for part in wave]
        for wave in waves
    ]


def extraction_jobs(
    parts: Sequence[Part], cache: Path, workers: int, decoded: Mapping[int, Path], *, means_alone: bool = False
) -> list[Job]:
    """For every upstream, its unfinished batches dealt out to the workers.

    Args:
        parts: the upstreams.
        cache: folder of features.
        workers: jobs at a time.
        decoded: sample rate -> folder of waveforms that several upstreams hear.
        means_alone: leave out the batches of which only frames are kept.
    """
    jobs = []
    for part in parts:
        dtypes = dtypes_of(part.frames)
        caches = caches_of(cache, part.upstream.digest, KINDS, dtypes)
        batches = unfinished(part.wanted.batches(part.upstream.window_samples, part.upstream.batch_seconds), caches)
        if means_alone:
            batches = [batch for batch in batches if any(map(keeps_means, batch))]
        for share in share_out(batches, workers):
            kept = decoded.get(part.upstream.sample_rate)
            jobs.append(Job(part.upstream.title, extract_features, (part.upstream, share, dtypes, cache, kept)))
    return jobs


def seconds_of(batches: Sequence[Sequence[Clip]]) -> float:
    """Of audio, padding not counted."""
    return sum(clip.samples for batch in batches for clip in batch) / SAMPLE_RATE


def _costs_of_upstreams(parts: Sequence[Part], stages: Stages) -> dict[str, float | None]:
    """Digest -> what is measured of each upstream once; an unknown kind of network has None."""
    upstreams = [part.upstream for part in parts]
    jobs = [Job(upstream.title, gflops_per_second, (upstream.spec,)) for upstream in upstreams]
    works = [stages.costs.counting(upstream) for upstream in upstreams]
    outcomes = stages.run("counting operations", "upstreams", jobs, works)
    return {upstream.digest: outcome.value for upstream, outcome in zip(upstreams, outcomes, strict=True)}


def _with_costs(cell: Cell, costs: Mapping[str, float | None]) -> Cell:
    return replace(cell, upstream=replace(cell.upstream, gflops_per_second=costs[cell.upstream.digest]))
