#!/usr/bin/env python
"""Frostbench's command line. Try: frostbench list, frostbench run --help."""

from __future__ import annotations

import errno
import gc
import io
import json as json_files
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from enum import StrEnum
from itertools import chain, groupby
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

try:
    import torchaudio  # noqa: F401
except (ImportError, OSError) as error:  # the wheel of torchaudio 2.11 wants libraries that a CPU-only torch lacks
    reason = str(error).splitlines()[0]
    sys.exit(f"torchaudio does not fit the installed torch ({reason}): pip install -c constraints.txt torch torchaudio")

from core.digest import require_writable, require_writable_file, written_then_renamed
from core.errors import BenchmarkError, RecordError
from core.manifest import Manifest, summarise
from core.records import RecordStore
from core.registry import load_module
from downstreams._base import HEADS
from frostbench.api import evaluate, features, plan
from frostbench.byte_sizes import format_bytes
from frostbench.cache_space import clear, entries
from frostbench.entries import checked_head, entries_in, subject_of
from frostbench.feature_files import Format as FeatureFormat
from frostbench.grid.measures import speed
from frostbench.grid.needs import DEFAULT_LIMIT, AskedFrames
from frostbench.grid.preparing import PlannedRun
from frostbench.jobs.local import devices_here
from frostbench.jobs.open import open_executor
from frostbench.jobs.progress import TerminalWatcher, Watcher
from frostbench.prediction import as_text, load_predictor, with_waveforms_written
from frostbench.preparation import examine
from frostbench.pretraining.goal_probe import GoalProbe
from frostbench.pretraining.run import (
    open_recordings,
    plans_of,
    pretrain_all,
    pretrain_together,
    require_processes_that_fit,
    summaries,
    unfinished,
)
from frostbench.results import Results
from frostbench.trackers import Tracker
from leaderboard import bundles, exports, verification
from leaderboard.aggregate import leaderboard
from leaderboard.board import Leaderboard
from leaderboard.figure_files import write_figures
from leaderboard.page import page
from leaderboard.tables import (
    READING,
    budget_tables,
    condition_tables,
    layer_tables,
    rich_tables,
    series_tables,
    stability,
    svg,
    to_markdown,
)
from tasks._base import TASKS
from tasks.corpora._base import CORPORA, open_corpus
from upstreams._base import UPSTREAMS, Precision
from upstreams._pretraining.plan import PretrainingSettings
from upstreams._pretraining.processes import Mixed, is_first_process

ADVICE = {
    errno.ENOSPC: "free some space or name another folder",
    errno.EDQUOT: "free some space or name another folder",
    errno.EFBIG: "free some space or name another folder",
    errno.EACCES: "you may not do that there; name another folder",
    errno.EPERM: "you may not do that there; name another folder",
    errno.EIO: "the disk or its connection fails; name another folder",
    errno.ESTALE: "the disk or its connection fails; name another folder",
    errno.EROFS: "nothing can be written there; name another folder",
    errno.EEXIST: "a file is in the way of a folder; name another folder",
    errno.ENOTDIR: "a file is in the way of a folder; name another folder",
    errno.ELOOP: "it is a link that leads to itself; delete it",
    errno.EISDIR: "a folder is in the way of a file; name another file",
}
app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
out = Console()
err = Console(stderr=True)


class Where(StrEnum):
    """What runs the jobs: this machine, or a Ray cluster."""

    local = "local"
    ray = "ray"


class Format(StrEnum):
    """How `report` writes the leaderboard."""

    table = "table"
    markdown = "markdown"
    csv = "csv"
    json = "json"
    latex = "latex"
    model_index = "model-index"
    eval_results = "eval-results"


WRITERS = {
    Format.markdown: to_markdown,
    Format.csv: exports.to_csv,
    Format.json: exports.to_json,
    Format.latex: exports.to_latex,
}
CORPUS_HELP = "Name of a corpus, folder with a metadata.jsonl, that file, hf:ORG/NAME[:CONFIG] or hf:FOLDER."
Corpus = Annotated[str, typer.Option(help=CORPUS_HELP)]
Root = Annotated[Path | None, typer.Option(help="Folder where a corpus known by name lies.")]
Columns = Annotated[
    str | None, typer.Option(help="Labels of an hf: dataset: text=sentence,speaker=id,intent=action+object.")
]
Output = Annotated[Path, typer.Option(help="Folder of results.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; the best there is if left out.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Jobs at a time; one a GPU, or one a core, if left out.")]
Runner = Annotated[Where, typer.Option("--executor", help="Run on this machine, or on a Ray cluster.")]
RayAddress = Annotated[str | None, typer.Option(help="Of a Ray cluster, HOST:PORT; Ray looks for one if left out.")]
Cache = Annotated[Path, typer.Option(help="Folder of cached features; may be deleted at any time.")]
cache_app = typer.Typer(no_args_is_help=True, help="Look at the cached features, and delete them.")
app.add_typer(cache_app, name="cache")


def _upstreams_by_family() -> list[tuple[str, list[tuple[str, ...]]]]:
    cards = sorted((entry.card for entry in UPSTREAMS), key=lambda card: (card.family, card.name))
    families = groupby(cards, key=lambda card: card.family)
    return [(f"upstreams, {name}", [(card.name, card.title, card.paper) for card in group]) for name, group in families]


@app.command("list")
def list_entries() -> None:
    """Show the upstreams, tasks, heads and corpora there are."""
    tables: list[tuple[str, list[tuple[str, ...]]]] = [
        *_upstreams_by_family(),
        ("tasks", [(task.name, task.title, f"label '{task.label}', head {task.head}") for task in TASKS]),
        ("heads", [(name, (HEADS.get(name).__doc__ or "").splitlines()[0], "") for name in HEADS.names()]),
        ("corpora", [(corpus.name, corpus.title, "") for corpus in CORPORA]),
    ]
    for kind, rows in tables:
        table = Table(*(Column(overflow="fold") for _ in range(3)), title=kind, title_justify="left", show_header=False)
        for row in rows:
            table.add_row(*map(escape, row))
        out.print(table)


@app.command()
def check(
    entry: Annotated[
        str, typer.Argument(help="An upstream as `run` takes it, a head, a task, or FILE.py:NAME of any of them.")
    ],
    corpus: Annotated[str | None, typer.Option(help=f"Check a task on it, too. {CORPUS_HELP}")] = None,
    root: Root = None,
) -> None:
    """Test an upstream, head or task against the contract that makes its results trustworthy.

    FILE.py alone lists what is in it.
    """
    if entry.endswith(".py"):
        for kind, name in entries_in(load_module(Path(entry))):
            out.print(f"{kind:8}  {entry}:{name}", markup=False, highlight=False, soft_wrap=True)
        return
    subject = subject_of(entry, None if corpus is None else open_corpus(corpus, root))
    out.print(subject.title, markup=False, highlight=False, soft_wrap=True)
    if subject.upstream is not None and subject.upstream.remark:
        out.print(f"note: {subject.upstream.remark}", markup=False, highlight=False, soft_wrap=True)
    failed = False
    with TerminalWatcher(err) as watcher:
        watcher.stage("checking", len(subject.checks), "checks")
        for each in subject.checks:
            started = time.monotonic()
            result = each.run()
            note = f"known failure: {subject.known_failures[result.check]}" if result.expected else result.error
            verdict = "[green]passed[/]" if result.passed else "[red]FAILED[/]"
            said = escape(": ".join(filter(None, (result.check, note))))
            out.print(f"{verdict}  {time.monotonic() - started:5.1f} s  {said}", highlight=False, soft_wrap=True)
            failed |= not result.passed
            watcher.advance(1)
    if failed:
        raise typer.Exit(1)
    if subject.upstream is not None:
        line = f"speed: {speed(subject.upstream):,.0f} s of audio a second on this CPU"
        out.print(line, highlight=False, soft_wrap=True)


@app.command()
def prepare(
    corpus: Annotated[str, typer.Argument(help=CORPUS_HELP)],
    root: Root = None,
    columns: Columns = None,
    cache: Cache = Path("cache"),
) -> None:
    """Check a corpus: decode every recording, compare labels across splits, and count."""
    manifest = open_corpus(corpus, root, columns, cache)
    with TerminalWatcher(err) as watcher:
        examine(manifest, watcher)
    heading = f"{manifest.name}: {len(manifest.utterances)} recordings, all good"
    out.print(heading, markup=False, highlight=False, soft_wrap=True)
    table = Table("label", "train", "valid", "test")
    for label, counts in sorted(summarise(manifest).items()):
        table.add_row(escape(label), *(str(counts[split]) for split in ("train", "valid", "test")))
    out.print(table)
    _warn(manifest)
    for label, how in manifest.lacking.items():
        err.print(f"note: no label '{label}': {how}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def _warn(manifest: Manifest) -> None:
    for line in (*(f"note: {note}" for note in manifest.notes), *(f"incomplete: {part}" for part in manifest.missing)):
        err.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)


@app.command("pretrain")
def pretrain_upstreams(  # noqa: PLR0913
    upstreams: Annotated[list[str], typer.Argument(help="Names of upstreams that can be trained here.")],
    corpus: Annotated[str, typer.Option(help=f"{CORPUS_HELP} Or any folder of recordings.")] = "mini",
    root: Root = None,
    columns: Columns = None,
    size: Annotated[str, typer.Option(help="tiny for two cores, base for the published size.")] = "tiny",
    steps: Annotated[int | None, typer.Option(min=1, help="Updates; the size's own number if left out.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="End by the clock instead, of each upstream.")] = None,
    option: Annotated[
        list[str], typer.Option("--set", help="Another value for a size or setting, such as num_layers=6; several.")
    ] = [],  # noqa: B006
    seed: Annotated[int, typer.Option(help="Of weights, order and masks.")] = 0,
    mixed_precision: Annotated[Mixed, typer.Option(help="bf16 or fp16 halve memory and time on a GPU.")] = "no",
    looks: Annotated[
        int, typer.Option(min=0, help="How often small heads look at it, on keywords and speakers of mini.")
    ] = 4,
    save_minutes: Annotated[
        float, typer.Option(min=0, help="Between two states that an interrupted training goes on from.")
    ] = 2.0,
    output: Annotated[Path, typer.Option(help="Folder of checkpoints.")] = Path("checkpoints"),
    device: Device = None,
    workers: Workers = None,
    executor: Runner = Where.local,
    ray_address: RayAddress = None,
) -> None:
    """Train upstreams from scratch on a corpus' train split, several side by side.

    An interrupted training goes on where it was. Several GPUs or machines train one upstream at a time under
    `accelerate launch run_benchmark.py pretrain ...`.
    """
    together = require_processes_that_fit(workers, executor is Where.ray)
    manifest = open_recordings(corpus, root, columns)
    plans = plans_of(upstreams, size, seed, steps, minutes, option, mixed_precision)
    todo = unfinished(plans, manifest, output)
    for each in plans:
        if each not in todo:
            out.print(f"{each.checkpoint(output)} is there already", markup=False, highlight=False, soft_wrap=True)
    if not todo:
        return
    require_writable(output)
    what = (todo, manifest, output, PretrainingSettings(60 * save_minutes, looks, GoalProbe()))
    with TerminalWatcher(err) if is_first_process() else nullcontext(Watcher()) as watcher:
        if together:
            outcomes = pretrain_together(*what, device, watcher)
        else:
            _warn(manifest)
            runner = open_executor(executor, ray_address, device, workers, [output], most=len(todo))
            outcomes = pretrain_all(*what, runner, watcher)
    for line in summaries(outcomes, output) if is_first_process() else ():
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    if any(outcome.error for outcome in outcomes):
        raise typer.Exit(1)


@app.command()
def run(  # noqa: PLR0913
    upstream: Annotated[
        list[str],
        typer.Option(
            help="NAME[@CHECKPOINT], hf:ID_OR_FOLDER or FILE.py:CLASS[@CHECKPOINT]; several. Or 'hf:runs/step-*'."
        ),
    ],
    task: Annotated[
        list[str], typer.Option(help="Name of a task, or FILE.py:NAME; several. Or all: what the corpus serves.")
    ],
    corpus: Corpus = "mini",
    root: Root = None,
    columns: Columns = None,
    seed: Annotated[list[int], typer.Option(help="Of head training; several.")] = [0],  # noqa: B006
    quick_seed: Annotated[
        list[int] | None, typer.Option(help="More seeds, of heads on means alone, which train in seconds; several.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="Recipe of the tasks; each task's default if left out.")] = None,
    head: Annotated[
        str | None,
        typer.Option(help="Another head for the tasks, or FILE.py:CLASS, to see what the ranking owes to theirs."),
    ] = None,
    probe: Annotated[
        list[str],
        typer.Option(
            help="A head that is not trained, beside theirs: clusters, nearest_neighbours, retrieval, or all; several."
        ),
    ] = [],  # noqa: B006
    limit: Annotated[
        int | None, typer.Option(min=1, help="Rows a split, for a quick try; stays off the leaderboard.")
    ] = None,
    exact: Annotated[
        bool, typer.Option(help="New random crops at every update where the recipe wants them; much slower.")
    ] = False,
    precision: Annotated[
        Precision, typer.Option(help="In which the upstreams compute; bfloat16 is faster, and recorded.")
    ] = "float32",
    frames: Annotated[
        AskedFrames, typer.Option(help="How frames are kept, or not at all; auto is the best that fits.")
    ] = "auto",
    cache_limit: Annotated[
        str, typer.Option(help="Of all cached features, such as 500GB; none is no limit.")
    ] = DEFAULT_LIMIT,
    layers: Annotated[
        str | None,
        typer.Option(
            help="Train heads on single layers: each (beside the sum; heads on means), or such as 9 or 3,6,9."
        ),
    ] = None,
    finetune: Annotated[
        str | None,
        typer.Option(help="Train upstreams with their heads, beside the frozen runs: full, top:N or lora[:RANK]."),
    ] = None,
    budget: Annotated[
        str, typer.Option(help="Parts of train that heads learn from, for a curve: such as 1min,10min,all or 10%,all.")
    ] = "all",
    condition: Annotated[
        str,
        typer.Option(
            help="Conditions that heads trained without hear test in: such as noise@10dB,reverb@0.6s,telephone."
        ),
    ] = "",
    log: Annotated[
        list[Tracker], typer.Option(help="Log values and learning curves to this tracker when all is done; several.")
    ] = [],  # noqa: B006
    output: Output = Path("results"),
    cache: Cache = Path("cache"),
    device: Device = None,
    workers: Workers = None,
    executor: Runner = Where.local,
    ray_address: RayAddress = None,
    plan_only: Annotated[
        bool, typer.Option("--plan", help="Say what would be done, the minutes, disk and memory, and end.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="With --plan: as JSON.")] = False,
) -> None:
    """Evaluate frozen upstreams on tasks. Finished cells are skipped, so the same command goes on where it was."""
    asked: dict[str, Any] = {
        "corpus": corpus,
        "root": root,
        "columns": columns,
        "seeds": seed,
        "quick_seeds": quick_seed or (),
        "recipe": recipe,
        "head": head,
        "probes": probe,
        "limit": limit,
        "exact": exact,
        "precision": precision,
        "frames": frames,
        "cache_limit": cache_limit,
        "layers": layers if layers == "each" else _numbers(layers),
        "finetune": finetune,
        "budgets": budget,
        "conditions": condition,
        "output": output,
        "cache": cache,
        "device": device,
        "workers": workers,
    }
    if plan_only:
        _show_plan(plan(upstream, task, **asked), as_json=json)
        return
    if json:
        raise BenchmarkError("--json goes with --plan; results as JSON come from: frostbench report --format json")
    with TerminalWatcher(err) as watcher:
        results = evaluate(
            upstream,
            task,
            **asked,
            executor=executor.value,
            ray_address=ray_address,
            log=[each.value for each in log],
            progress=watcher,
            raise_error=False,
        )
    _show(results)
    if results.failures:
        raise typer.Exit(1)


def _show_plan(planned: PlannedRun, *, as_json: bool) -> None:
    text = (
        json_files.dumps(planned.recorded(), indent=2) if as_json else "\n".join([planned.line(), *planned.details()])
    )
    out.print(text, markup=False, highlight=False, soft_wrap=True)


def _warn_of_left_out(board: Leaderboard, failures: Sequence[tuple[str, str]] = ()) -> None:
    said = {error for _, error in failures}
    for each in (each for each in board.left_out if each not in said):
        err.print(f"left out: {each}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def _show(results: Results) -> None:
    for table in rich_tables(results.board):
        out.print(table)
    curves = (
        series_tables(results.series()),
        layer_tables(results.layers()),
        budget_tables(results.budgets()),
        condition_tables(results.conditions()),
    )
    for curve in chain(*curves):
        out.print(curve)
    for line in chain(*map(stability, results.board.boards)):
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    _warn_of_left_out(results.board, results.failures)
    for name, clips in results.passed.items():
        err.print(f"{name}: {clips} clips passed it, each once", markup=False, highlight=False, soft_wrap=True)
    out.print(
        f"{results.computed} cells computed, {results.skipped} were there, "
        f"{results.failed} failed; records in {results.folder / 'records'}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


@app.command("report")
def report_results(
    output: Output = Path("results"),
    format: Annotated[Format, typer.Option(help="How to write it.")] = Format.table,
    custom: Annotated[bool, typer.Option(help="Show runs with --limit or changed recipes, too.")] = False,
    picture: Annotated[Path | None, typer.Option(help="Draw the tables into this SVG file as well.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write everything into this one page as well.")] = None,
    figures: Annotated[Path | None, typer.Option(help="Draw every figure into this folder, SVG and PNG.")] = None,
    with_published: Annotated[
        bool, typer.Option(help="Lay the published SUPERB numbers beside what was measured on SUPERB's corpora.")
    ] = False,
    upstream: Annotated[str | None, typer.Option(help="Whose results a model-index or eval-results list.")] = None,
) -> None:
    """Print the leaderboard of a folder of results. Files that can't be used are left out, and named."""
    for file in (file for file in (picture, html) if file is not None):
        require_writable_file(file)
    if figures is not None:
        require_writable(figures)
    board = leaderboard(RecordStore(output), custom=custom, published=with_published)
    if picture is not None:
        with written_then_renamed(picture) as temporary:
            temporary.write_text(svg(board), encoding="utf-8")
    if html is not None:
        with written_then_renamed(html) as temporary:
            temporary.write_text(page(board), encoding="utf-8")
    drawings = [] if figures is None else write_figures(board, figures)
    _warn_of_left_out(board)
    if format is Format.table:
        for drawn in rich_tables(board, explained=True):
            out.print(drawn)
        out.print(READING, markup=False, highlight=False)
    elif format is Format.model_index:
        sys.stdout.write(exports.model_index(board, upstream))
    elif format is Format.eval_results:
        sys.stdout.write(exports.eval_results(board, upstream))
    else:
        sys.stdout.write(WRITERS[format](board))
    console = out if format is Format.table else err  # what a program reads holds nothing else
    if html is not None:
        console.print(f"page: {html}", markup=False, highlight=False, soft_wrap=True)
    if figures is not None:
        console.print(f"figures: {len(drawings)} files in {figures}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def verify(output: Output = Path("results")) -> None:
    """Recompute every score and check every digest of a folder of results; name each file that does not fit."""
    store = RecordStore(output)
    paths = store.paths()
    if not paths:
        raise RecordError(f"{output / 'records'}: no records there; name the folder of results with --output")
    with TerminalWatcher(err) as watcher:
        watcher.stage("verifying", len(paths), "records")
        findings = verification.verify(store, watcher.advance)
    for finding in findings:
        err.print(f"{finding.path}: {finding.problem}", style="red", markup=False, highlight=False, soft_wrap=True)
    for stray in verification.strays(store):
        note = f"note: {stray} has no record: an interrupted run, or one whose record was taken away"
        err.print(note, style="yellow", markup=False, highlight=False, soft_wrap=True)
    files = len({finding.path for finding in findings})
    verdict = f"{files} files do not fit" if files else "every digest fits and every score follows from its predictions"
    out.print(f"{len(paths)} records: {verdict}", markup=False, highlight=False, soft_wrap=True)
    if findings:
        raise typer.Exit(1)


@app.command()
def submit(
    bundle: Annotated[Path, typer.Argument(help="The zip file to write.")],
    output: Output = Path("results"),
) -> None:
    """Pack a folder of results, once verified, into one file that `merge` takes elsewhere."""
    count = bundles.submit(RecordStore(output), bundle)
    size = bundle.stat().st_size / 1e6
    out.print(f"{bundle}: {count} records, {size:.1f} MB", markup=False, highlight=False, soft_wrap=True)


@app.command()
def merge(
    sources: Annotated[list[Path], typer.Argument(help="Folders of results and files of submit.")],
    output: Output = Path("results"),
    strict: Annotated[bool, typer.Option(help="Refuse results of one run that differ in what was measured.")] = False,
) -> None:
    """Take over results of other machines, once verified; contradictions are refused, and nothing is taken then."""
    merged = bundles.merge(sources, RecordStore(output), strict=strict)
    for difference in merged.differences:
        err.print(f"note: {difference}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    line = f"{merged.added} records added, {merged.known} were there; records in {output / 'records'}"
    out.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command()
def predict(
    files: Annotated[list[Path], typer.Argument(help="Recordings; where the task compares them, two by two.")],
    run: Annotated[str, typer.Option(help="The beginning of a run's digest: the name of its record.")],
    upstream: Annotated[str | None, typer.Option(help="Where its upstream lies, if not where it did.")] = None,
    head: Annotated[str | None, typer.Option(help="FILE.py:CLASS of a head of one's own.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    waveforms: Annotated[
        Path, typer.Option(help="Folder for what enhancement and separation make of the recordings.")
    ] = Path(),
    output: Output = Path("results"),
    device: Device = None,
) -> None:
    """Let a trained head tell what its task asks of recordings of your own: transcript, keyword, speaker, one voice."""
    if head is not None:
        checked_head(head)
    predictor = load_predictor(RecordStore(output), run, upstream, torch.device(devices_here(device)[0]))
    record = predictor.record
    answers = with_waveforms_written(predictor.answers(files), waveforms, record.task["name"])
    if json:
        told = [answer.to_json() for answer in answers]
        about = {"run": record.run, "task": record.task["name"], "upstream": record.upstream["name"]}
        sys.stdout.write(json_files.dumps({**about, "predictions": told}, ensure_ascii=False, indent=1) + "\n")
        return
    table = Table("file", escape(record.task["label"]))
    for answer in answers:
        table.add_row(escape("\n".join(map(str, answer.files))), escape(as_text(answer.prediction)))
    out.print(table)


@app.command("features")
def write_features(  # noqa: PLR0913
    upstream: Annotated[str, typer.Argument(help="NAME[@CHECKPOINT], hf:ID_OR_FOLDER or FILE.py:CLASS[@CHECKPOINT].")],
    output: Annotated[Path, typer.Option(help="Folder to write to.")],
    corpus: Corpus = "mini",
    root: Root = None,
    columns: Columns = None,
    file_format: Annotated[FeatureFormat, typer.Option("--format", help="Of the files.")] = "npz",
    frames: Annotated[bool, typer.Option("--frames", help="Every frame, instead of the mean over time.")] = False,
    layers: Annotated[str | None, typer.Option(help="Such as 9 or 3,6,9; all if left out.")] = None,
    run: Annotated[
        str | None, typer.Option(help="The beginning of a run's digest: the sum of layers that its head learned.")
    ] = None,
    results: Annotated[Path, typer.Option(help="Folder of results, where the run is.")] = Path("results"),
    precision: Annotated[Precision, typer.Option(help="In which the upstream computes.")] = "float32",
    cache_limit: Annotated[str, typer.Option(help="Of all cached features; none is no limit.")] = DEFAULT_LIMIT,
    cache: Cache = Path("cache"),
    device: Device = None,
    workers: Workers = None,
) -> None:
    """Write the features of a corpus to files for other programs, an array an utterance, named by its id."""
    with TerminalWatcher(err) as watcher:
        files = features(
            upstream,
            output,
            corpus=corpus,
            root=root,
            columns=columns,
            file_format=file_format,
            kind="frames" if frames else "pooled",
            layers=_numbers(layers),
            run=run,
            results=results,
            precision=precision,
            cache=cache,
            cache_limit=cache_limit,
            device=device,
            workers=workers,
            progress=watcher,
        )
    for file in files:
        size = format_bytes(file.stat().st_size)
        out.print(f"{file}: {size}", markup=False, highlight=False, soft_wrap=True)


def _numbers(text: str | None) -> list[int] | None:
    """Of `3,6,9`.

    Raises: BenchmarkError: it is no such list.
    """
    try:
        return None if text is None else [int(part) for part in text.split(",")]
    except ValueError:
        raise BenchmarkError(f"--layers '{text}': write numbers, such as 9 or 3,6,9") from None


@cache_app.command("list")
def list_cache(cache: Cache = Path("cache")) -> None:
    """Show what the cache holds, the longest unused first."""
    found = entries(cache)
    table = Table(
        "upstream", "kind", "size", "utterances or files", "last used", title=str(cache), title_justify="left"
    )
    for entry in found:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
        table.add_row(escape(entry.title), entry.name, format_bytes(entry.size), str(entry.count()), used)
    out.print(table)
    out.print(f"{len(found)} entries, {format_bytes(sum(entry.size for entry in found))}", highlight=False)


@cache_app.command("clear")
def clear_cache(
    names: Annotated[
        list[str] | None, typer.Argument(help="Of upstreams, as the list has them; all if left out.")
    ] = None,
    unused_days: Annotated[float | None, typer.Option(min=0, help="Only what no run has used for so long.")] = None,
    cache: Cache = Path("cache"),
) -> None:
    """Delete features and all else the cache holds; what a running command uses stays."""
    deleted, busy = clear(cache, names or (), unused_days)
    out.print(f"{len(deleted)} entries deleted, {format_bytes(sum(entry.size for entry in deleted))}", highlight=False)
    for entry in busy:
        line = f"{entry.title} {entry.name}: a running command uses it; it stays"
        err.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except BenchmarkError as error:
        err.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except OSError as error:
        if error.errno is None:  # of a library, not of the operating system
            raise
        where = error.filename2 or error.filename or "output"  # of a renaming, the name that was wanted
        advice = ADVICE.get(error.errno, "correct the path, or name another one")
        line = f"error: {where}: {error.strerror}; {advice}"
        err.print(line, style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)


def main() -> None:
    """Entry point: what a user can cause is told in one line, exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal may lack the arrows of a heading
    gc.freeze()  # what was imported stays: statsmodels collects garbage at every call, and this makes that quick
    with _one_line_errors():
        app()


if __name__ == "__main__":
    main()
