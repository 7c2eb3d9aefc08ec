"""The program as functions: what the command line calls, and what a notebook calls."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console

from core.checks import CheckResult
from core.conditions import asked_conditions
from core.digest import require_writable
from core.errors import BenchmarkError, ContractError, EvaluationError, RecordError
from core.finetuning import FineTuning
from core.records import RecordStore
from downstreams._base import Head
from frostbench.byte_sizes import parse_size
from frostbench.cache_overlay import overlay_of
from frostbench.entries import checked_head, checked_task, subject_of
from frostbench.feature_files import Format, Wanted, mix_of, write_features
from frostbench.grid.candidates import Folders
from frostbench.grid.needs import DEFAULT_LIMIT, AskedFrames
from frostbench.grid.plan import AskedLayers, Grid
from frostbench.grid.preparing import PlannedRun
from frostbench.grid.run import plan_grid, run_grid
from frostbench.instances import built, specifications
from frostbench.jobs.base import Executor
from frostbench.jobs.local import LocalExecutor, devices_here
from frostbench.jobs.open import open_executor
from frostbench.jobs.progress import TerminalWatcher, Watcher
from frostbench.patterns import with_checkpoints
from frostbench.plugins import WithPlugins, plugin_modules
from frostbench.prediction import load_predictor
from frostbench.probes import probes_of, with_probes
from frostbench.results import Results
from frostbench.served import Served, served_by, tasks_of_all
from frostbench.trackers import asked_trackers, log_results
from tasks._base import TASKS, Task
from tasks._budgets import asked_budgets
from tasks.corpora._base import open_corpus
from upstreams._base import Precision, Upstream
from upstreams._known_facts import facts_of
from upstreams._resolve import build_upstream

logger = logging.getLogger(__name__)
UpstreamLike = str | Upstream | type[Upstream]
TaskLike = str | Task


def evaluate(  # noqa: PLR0913
    upstreams: UpstreamLike | Sequence[UpstreamLike],
    tasks: TaskLike | Sequence[TaskLike],
    *,
    corpus: str | Path = "mini",
    root: str | Path | None = None,
    columns: str | None = None,
    seeds: int | Sequence[int] = (0,),
    quick_seeds: int | Sequence[int] = (),
    recipe: str | None = None,
    head: str | type[Head] | None = None,
    probes: str | type[Head] | Sequence[str | type[Head]] = (),
    limit: int | None = None,
    exact: bool = False,
    precision: Precision = "float32",
    frames: AskedFrames = "auto",
    cache_limit: str = DEFAULT_LIMIT,
    layers: Literal["each"] | int | Sequence[int] | None = None,
    finetune: str | None = None,
    budgets: str | Sequence[str] = "all",
    conditions: str | Sequence[str] = (),
    output: str | Path = "results",
    cache: str | Path = "cache",
    device: str | None = None,
    workers: int | None = None,
    executor: Literal["local", "ray"] = "local",
    ray_address: str | None = None,
    log: str | Sequence[str] = (),
    progress: bool | Watcher | None = None,
    raise_error: bool = True,
) -> Results:
    """Evaluates frozen upstreams on tasks. Finished runs are skipped, so the same call goes on where it was.

    Args:
        upstreams: specifications as on the command line (`fbank`, `hf:ORG/NAME`, `FILE.py:CLASS`), or objects and
            classes that inherit `Upstream`. With an object everything runs in this process, and nothing is pickled.
            A pattern (`hf:runs/step-*`, `apc@runs/*.safetensors`) is every checkpoint here of such a name, for
            `Results.series` and curves over steps.
        tasks: names, `FILE.py:NAME`, or `Task` objects; "all" are the built-in ones that the corpus has rows for.
        corpus: name of a corpus, folder with a metadata.jsonl, that file, `hf:ORG/NAME[:CONFIG]` or `hf:FOLDER`.
        root: folder where a corpus known by name lies.
        columns: labels of an `hf:` dataset, such as "text=sentence,speaker=id".
        seeds: of head training.
        quick_seeds: more seeds, of heads on means alone, which train in seconds; they are trained last.
        recipe: name of the tasks' recipe; each task's default if left out.
        head: another head for the tasks: a name, `FILE.py:CLASS` or a registered class.
        probes: one or several heads that are not trained, which the tasks are asked of, too, for a second opinion on
            the order of the upstreams: "nearest_neighbours", "retrieval", "clusters", or "all". They have boards of
            their own, which are compared with the task's own head.
        limit: rows a split at most, for a quick try; such runs are custom.
        exact: new random crops at every update where the recipe wants them; much slower.
        precision: in which the upstreams compute.
        frames: how frames are kept, or not at all; "auto" is the best that fits.
        cache_limit: of all cached features, such as "500GB"; "none" is no limit.
        layers: one or several that heads are trained on alone, instead of on a learned sum of all; "each" is the sum
            and, for heads on means, every layer. These runs are for `Results.layers`, not for the leaderboard.
        finetune: "full", "top:N" (the last N blocks) or "lora[:RANK]": upstreams are trained with their heads, too, for
            a board of its own beside the frozen rows, which this begins at. None leaves all frozen.
        budgets: one or several parts of train that heads are given, such as "1min", "10min", "10%", "all". Runs on less
            than all are for `Results.budgets` and the curves of the leaderboard's page, not for its rows.
        conditions: one or several that test is heard in by the heads that were trained without them, such as
            "noise@10dB", "reverb@0.6s", "telephone"; for `Results.conditions` and curves, as budgets are.
        output: folder of results.
        cache: folder of cached features; may be deleted at any time.
        device: cpu, cuda, cuda:1, mps; the best there is if left out.
        workers: processes; one a GPU, or one a core, if left out; 1 runs everything in this one.
        executor: this machine, or a Ray cluster.
        ray_address: of the cluster, HOST:PORT; Ray looks for one if left out.
        log: one or several of "tensorboard", "wandb", "mlflow" and "trackio" that values and learning curves go to
            when all is done, a run an upstream. What keeps them from it is a warning.
        progress: True writes to standard error, False is silent, None writes where standard error is a terminal.
        raise_error: whether failed runs raise at the end, when all others are recorded; else `Results.failures` has
            them.

    Returns: the runs that were asked for, custom ones included.
    Raises: EvaluationError: a run failed. BenchmarkError: the evaluation can't start at all. OSError: nothing can be
        written to `output`.
    """
    RecordStore(Path(output)).require_writable()
    trackers = asked_trackers(log)
    (given, series), asked = with_checkpoints(_several(upstreams, "upstream")), _asked(tasks, head)
    probing = _asked_probes(probes)
    tuning = None if finetune is None else FineTuning.from_text(finetune)
    options: tuple[Any, ...] = (recipe, limit, exact, precision, frames, parse_size(cache_limit))
    options += (_asked_layers(layers), tuning, asked_budgets(budgets), asked_conditions(conditions))
    options += (_numbers(quick_seeds),)
    with _folders(Path(cache), Path(output), executor) as folders:
        runner = _runner(executor, ray_address, device, workers, folders, given)
        manifest = open_corpus(str(corpus), None if root is None else Path(root), columns, Path(cache))
        served = served_by(manifest, asked) if tasks_of_all(tasks) else Served(asked, {})
        probed = with_probes(served.tasks, probing)
        with _grid(given, probed.tasks, seeds, (*options, series)) as grid, _watching(progress) as watcher:
            left_out = (f"{name} is left out: {why}" for name, why in served.left_out.items())
            for note in (*manifest.notes, *left_out, *probed.notes):
                watcher.say(f"note: {note}")
            report = run_grid(grid, manifest, folders, runner, watcher)
            results = Results(
                folders.results,
                tuple(cell.run for cell in report.cells),
                custom=True,
                computed=report.computed,
                skipped=report.skipped,
                failures=tuple(report.failures),
                passed=dict(report.passed),
            )
            log_results(results, trackers, watcher.say)
    if raise_error and results.failures:
        raise _failed(results)
    return results


def plan(  # noqa: PLR0913
    upstreams: UpstreamLike | Sequence[UpstreamLike],
    tasks: TaskLike | Sequence[TaskLike],
    *,
    corpus: str | Path = "mini",
    root: str | Path | None = None,
    columns: str | None = None,
    seeds: int | Sequence[int] = (0,),
    quick_seeds: int | Sequence[int] = (),
    recipe: str | None = None,
    head: str | type[Head] | None = None,
    probes: str | type[Head] | Sequence[str | type[Head]] = (),
    limit: int | None = None,
    exact: bool = False,
    precision: Precision = "float32",
    frames: AskedFrames = "auto",
    cache_limit: str = DEFAULT_LIMIT,
    layers: Literal["each"] | int | Sequence[int] | None = None,
    finetune: str | None = None,
    budgets: str | Sequence[str] = "all",
    conditions: str | Sequence[str] = (),
    output: str | Path = "results",
    cache: str | Path = "cache",
    device: str | None = None,
    workers: int | None = None,
) -> PlannedRun:
    """What `evaluate` with the same arguments would have to do on this machine: passes, minutes, disk and memory.

    Nothing passes an upstream. The minutes are by what an earlier run measured in this cache, else by what is built in,
    which can be wrong by a factor of a few; a run corrects them as it goes.

    Raises: BenchmarkError: the evaluation can't start at all.
    """
    (given, series), asked = with_checkpoints(_several(upstreams, "upstream")), _asked(tasks, head)
    probing = _asked_probes(probes)
    tuning = None if finetune is None else FineTuning.from_text(finetune)
    options: tuple[Any, ...] = (recipe, limit, exact, precision, frames, parse_size(cache_limit))
    options += (_asked_layers(layers), tuning, asked_budgets(budgets), asked_conditions(conditions))
    options += (_numbers(quick_seeds),)
    with _folders(Path(cache), Path(output), "local") as folders:
        runner = _runner("local", None, device, workers, folders, given)
        manifest = open_corpus(str(corpus), None if root is None else Path(root), columns, Path(cache))
        served = served_by(manifest, asked) if tasks_of_all(tasks) else Served(asked, {})
        with _grid(given, with_probes(served.tasks, probing).tasks, seeds, (*options, series)) as grid:
            return plan_grid(grid, manifest, folders, runner.workers)


def load(output: str | Path = "results", *, custom: bool = False, published: bool = False) -> Results:
    """The results in a folder, as `report` shows them.

    Args:
        output: folder of results.
        custom: whether runs with limited data or changed recipes are shown, too.
        published: whether SUPERB's published rows are laid beside what was measured on SUPERB's corpora.

    Raises: RecordError: no records are there. Those that can't be used are in `Results.left_out`, and logged.
    """
    results = Results(Path(output), custom=custom, published=published)
    if not results.store.paths():
        raise RecordError(f"{results.folder / 'records'}: no records there; name the folder that evaluate() wrote to")
    for line in results.left_out:
        logger.warning("left out: %s", line)
    return results


def check(entry: Any, *, corpus: str | Path | None = None, raise_error: bool = True) -> list[CheckResult]:
    """Tests an entry of any kind against the contract that makes its results trustworthy, as `check` does.

    Args:
        entry: an upstream (object, class or specification), a head (class or name), a task (object or name), a metric
            (object or name), or any of them as `FILE.py:NAME`.
        corpus: a task is checked on it, too.
        raise_error: whether a broken promise raises; else it is among what is returned.

    Returns: how each check ended.
    Raises: ContractError: a promise is broken; names all of them. UnknownNameError: no such entry.
    """
    subject = subject_of(entry, None if corpus is None else open_corpus(str(corpus)))
    findings = [each.run() for each in subject.checks]
    broken = [finding for finding in findings if not finding.passed]
    if raise_error and broken:
        lines = [f"{finding.check}: {finding.error or 'a known failure passes: take it off the list'}"
                 for finding in broken]  # fmt: skip
        raise ContractError("\n  ".join([f"{subject.title}: {len(broken)} of {len(findings)} checks fail:", *lines]))
    return findings


def upstream(spec: UpstreamLike, device: str = "cpu") -> Upstream:
    """A frozen upstream, for its hidden states alone: `upstream("fbank").extract(wavs, wav_lengths)`.

    Args:
        spec: as on the command line, or an object or class, which is frozen.
        device: where it computes.

    Raises: BenchmarkError: unknown name, missing or unfit checkpoint.
    """
    found = build_upstream(spec) if isinstance(spec, str) else built(spec).freeze()
    return found.to(device)


def features(  # noqa: PLR0913
    upstream: UpstreamLike,
    output: str | Path,
    *,
    corpus: str | Path = "mini",
    root: str | Path | None = None,
    columns: str | None = None,
    file_format: Format = "npz",
    kind: Literal["pooled", "frames"] = "pooled",
    layers: int | Sequence[int] | None = None,
    run: str | None = None,
    results: str | Path = "results",
    precision: Precision = "float32",
    cache: str | Path = "cache",
    cache_limit: str = DEFAULT_LIMIT,
    device: str | None = None,
    workers: int | None = None,
    progress: bool | Watcher | None = None,
) -> list[Path]:
    """Writes an upstream's features of a corpus to files for other programs: an array an utterance, named by its id.

    Each recording passes once and is kept in the cache, as for a run; memory does not grow with the corpus. For a few
    waveforms in memory there is `upstream(spec).extract(...)`.

    Args:
        upstream: specification, or an object or class.
        output: folder to write to.
        corpus: see `evaluate`; labels are not needed.
        root: see `evaluate`.
        columns: see `evaluate`.
        file_format: "npz", "safetensors" (several files of a quarter of a gigabyte) or "parquet".
        kind: "pooled", means over time, float32 (layers, hidden_size), or "frames", float16 (frames, layers,
            hidden_size).
        layers: one or several; all if left out.
        run: beginning of a run's digest: the sum of all layers that its head learned, without the layers' axis.
        results: folder of results, where the run is.
        precision: in which the upstream computes.
        cache: folder of cached features; may be deleted at any time.
        cache_limit: of all cached features, such as "500GB"; "none" is no limit.
        device: cpu, cuda, cuda:1, mps; the best there is if left out.
        workers: processes; one a GPU, or one a core, if left out; 1 runs everything in this one.
        progress: see `evaluate`.

    Returns: the files, and last `index.json` with ids in order, splits, shapes, and what decided the numbers.
    Raises: BenchmarkError: unknown upstream, corpus, layer or run, or recordings that can't be read.
    """
    folder, given = Path(cache), _several(upstream, "upstream")
    chosen = None if layers is None else [layers] if isinstance(layers, int) else list(layers)
    if run is not None and chosen is not None:
        raise ContractError("the sum of a run's head takes all layers: leave layers out, or the run")
    limit = parse_size(cache_limit)
    require_writable(Path(output))
    with specifications(given) as (spec,), _watching(progress) as watcher:
        facts = facts_of(spec, precision, folder / "upstreams")
        mix = None if run is None else mix_of(RecordStore(Path(results)), run, facts)
        manifest = open_corpus(str(corpus), None if root is None else Path(root), columns, folder)
        runner = _runner("local", None, device, workers, Folders(folder, Path(results)), given)
        wanted = Wanted(kind, chosen, mix)
        return write_features(facts, manifest, wanted, file_format, Path(output), folder, limit, runner, watcher)


def predict(
    files: str | Path | Sequence[str | Path],
    run: str,
    *,
    output: str | Path = "results",
    upstream: UpstreamLike | None = None,
    head: str | type[Head] | None = None,
    device: str | None = None,
) -> list[Any]:
    """What the head of a run says about recordings: keyword, speaker, transcript, or slot -> value of an intent.

    Of enhancement and separation it is an array, float32 (sources, samples) at 16 kHz.
    Of a task that compares recordings it is one prediction for each two that follow each other: an object with `score`,
    and with `answer` (accept or reject) and `threshold`, where the run's test gives one.

    Args:
        files: recordings.
        run: the beginning of the run's digest, or the file of its record.
        output: folder of results.
        upstream: the run's upstream, where it lies elsewhere than then, or was an object.
        head: the run's head, where it came from a file of one's own: `FILE.py:CLASS`, or the class.
        device: where to compute; the best there is if left out.

    Raises: RecordError: no such run. CheckpointError: the head was changed, or the upstream is another one.
        ContractError: an odd number of recordings, where they are compared.
    """
    if head is not None:
        checked_head(head)
    predictor = load_predictor(RecordStore(Path(output)), run, upstream, torch.device(devices_here(device)[0]))
    named = [files] if isinstance(files, str | Path) else list(files)  # one may stand in several pairs
    if not named:
        raise BenchmarkError("no recording is given: name at least one")
    return [each.prediction for each in predictor.answers([Path(file) for file in named])]


def _asked(tasks: TaskLike | Sequence[TaskLike], head: str | type[Head] | None) -> list[Task]:
    """The tasks; made before the executor, whose workers import the modules behind what is registered by then."""
    named = TASKS.names() if tasks_of_all(tasks) else _several(tasks, "task")
    return [checked_task(task, head) for task in named]


def _asked_probes(probes: str | type[Head] | Sequence[str | type[Head]]) -> list[str]:
    """Their names; none may be asked for. Made before the executor, as tasks are."""
    return probes_of([probes] if isinstance(probes, str | type) else probes)


@contextmanager
def _grid(
    given: Sequence[UpstreamLike], tasks: Sequence[Task], seeds: int | Sequence[int], options: tuple[Any, ...]
) -> Iterator[Grid]:
    """What is asked for; objects among the upstreams have a specification as long as this is open."""
    drawn = _several(seeds, "seed")
    with specifications(given) as specs:
        yield Grid(tuple(dict.fromkeys(specs)), tuple(tasks), tuple(drawn), *options)


def _asked_layers(layers: Literal["each"] | int | Sequence[int] | None) -> AskedLayers | None:
    if layers is None or layers == "each":
        return layers
    chosen = [layers] if isinstance(layers, int) else list(layers)
    if isinstance(layers, str) or not all(isinstance(layer, int) for layer in chosen):
        raise BenchmarkError(f"layers are {layers!r}: name numbers, such as 9 or 3, 6, 9, or 'each'")
    return tuple(dict.fromkeys(chosen))


def _numbers(given: int | Sequence[int]) -> tuple[int, ...]:
    return (given,) if isinstance(given, int) else tuple(given)


def _several(given: Any, kind: str) -> list[Any]:
    """One or several, each once."""
    values = [given] if isinstance(given, str | int | Path | Upstream | Task | type) else list(given)
    if not values:
        raise BenchmarkError(f"no {kind} is given: name at least one")
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found


@contextmanager
def _folders(cache: Path, results: Path, executor: str) -> Iterator[Folders]:
    """Where things are kept. On this machine a cache that is read-only serves as well, if it has all features."""
    with overlay_of(cache) if executor == "local" else nullcontext() as shown:
        yield Folders(cache, results) if shown is None else Folders(shown, results, read_only=cache)


def _runner(
    executor: str, address: str | None, device: str | None, workers: int | None, folders: Folders, given: Sequence[Any]
) -> Executor:
    """Where jobs run. What only this process has keeps them in this process."""
    plugins = plugin_modules()
    held = [f"{type(each).__name__} is an object" for each in given if not isinstance(each, str)]
    held += [f"{name} is defined in the program that was started" for name in plugins.here]
    if held and (executor != "local" or (workers or 1) > 1):
        raise BenchmarkError(
            f"{held[0]}, which other processes don't have: leave workers and executor out, or put it into a file and "
            f"name it as FILE.py:NAME"
        )
    if held:
        return LocalExecutor(device, workers=1)
    shared = [folders.cache, folders.results]
    runner = open_executor(executor, address, device, workers, shared, preload=run_grid.__module__)
    return WithPlugins(runner, plugins.elsewhere) if plugins.elsewhere else runner


@contextmanager
def _watching(progress: bool | Watcher | None) -> Iterator[Watcher]:
    if isinstance(progress, Watcher):
        yield progress
    elif progress or (progress is None and sys.stderr.isatty()):
        with TerminalWatcher(Console(stderr=True)) as watcher:
            yield watcher
    else:
        yield Watcher()


def _failed(results: Results) -> EvaluationError:
    lines = [f"{name}: {error}" for name, error in results.failures]
    done = f"{results.computed} runs were computed, {results.skipped} were there; raise_error=False returns them"
    return EvaluationError("\n  ".join([f"{len(lines)} jobs failed ({done}):", *lines]), results.failures)
