"""Planning: rows and clips are worked out once, whatever the number of upstreams and seeds, and jobs stay small."""

import pickle
import subprocess
import sys
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tasks._rows as rows_module
from core.errors import CacheError
from core.mixtures import Mixture, Source
from core.records import RecordStore
from frostbench.grid import run as run_module
from frostbench.grid.cell import Cell
from frostbench.grid.cell_jobs import Folders
from frostbench.grid.plan import Grid, make_cells
from frostbench.grid.preparing import prepare
from frostbench.grid.run import run_grid
from frostbench.grid.stages import LEAVING
from frostbench.grid.sweeps import means_alone, quick_first, sweeps_of
from frostbench.grid.wanted import GridClips
from frostbench.jobs.base import Job
from frostbench.jobs.local import LocalExecutor
from frostbench.jobs.progress import Watcher
from tasks._audio import AudioRecipe, Trim
from tasks._base import Task, resolve_task
from tasks._rows import Example, TaskRows, read_rows, task_rows
from tasks._trials import Trial
from upstreams._extraction.clips import Clip, lay_out

ROOT = Path(__file__).parent.parent


@pytest.fixture
def quick(tasks_file) -> tuple[Task, ...]:
    """KS, and SID with crops."""
    changes = {"KS": AudioRecipe(), "SID": AudioRecipe(crop_samples=4_000, crops=2)}
    tiny = {name: resolve_task(f"{tasks_file}:{name}") for name in changes}
    return tuple(
        replace(
            tiny[name],
            recipes={"tiny": replace(tiny[name].recipe(None), steps=4, eval_every=2)},
            audio={"tiny": audio},
        )
        for name, audio in changes.items()
    )


def sent(value):
    """The value as another process gets it."""
    return pickle.loads(pickle.dumps(value))  # noqa: S301


class NoJobs:
    """An executor that keeps the jobs and fails them all."""

    workers = 2

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def __enter__(self) -> "NoJobs":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def run(self, jobs, advance, done=None, say=None, follow=None):
        self.jobs += jobs
        return [run_module.Outcome(job, value=0) for job in jobs]


class Told(Watcher):
    """Keeps the stages, each with its amount of work."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, float]] = []

    def stage(self, title: str, total: float, unit: str) -> None:
        self.stages.append((title, total))


def test_a_row_is_planned_once_for_each_task_not_for_each_upstream_and_seed(corpus, quick, tmp_path, monkeypatch):
    counts = Counter()

    def counted(name, function):
        def call(*given):
            counts[name] += 1
            return function(*given)

        return call

    monkeypatch.setattr(rows_module, "crops_of", counted("crops_of", rows_module.crops_of))
    monkeypatch.setattr(rows_module, "digest_of", counted("digest_of", rows_module.digest_of))
    monkeypatch.setattr("frostbench.grid.wanted.lay_out", counted("lay_out", lambda *given: []))
    grid = Grid(("fbank", "mfcc", "fbank_cmvn"), quick, (0, 1, 2))
    report = run_grid(grid, corpus, Folders(tmp_path / "cache", tmp_path / "results"), NoJobs())
    assert len(report.cells) == 18
    train = sum(len(task_rows(corpus, task).examples["train"]) for task in quick)
    # The line above makes them once more.
    assert counts == {"crops_of": 2 * train, "digest_of": 4, "lay_out": 2}
    assert len({id(cell.rows) for cell in report.cells}) == 2


def test_a_job_carries_the_name_of_the_rows_not_the_rows(corpus, quick, tmp_path):
    executor, folders = NoJobs(), Folders(tmp_path / "cache", tmp_path / "results")
    run_grid(Grid(("fbank",), quick, (0,)), corpus, folders, executor)
    of_cells = [job for job in executor.jobs if job.function.__name__ in ("train_heads", "run_cell")]
    assert len(of_cells) >= 4
    for job in of_cells:
        carried = pickle.dumps(job)
        assert b"test_6_0" not in carried and len(carried) < 6_000
    cell = next(job.arguments[0] for job in of_cells if job.function.__name__ == "run_cell")
    found = sent(cell)
    (planned,) = (each for each in make_cells(Grid(("fbank",), quick, (0,)), corpus).cells if each.run == cell.run)
    assert found.run == planned.run
    assert found.examples == planned.examples
    assert found.rows.recordings == planned.rows.recordings
    assert found.rows.clips == planned.rows.clips
    assert found.custom is planned.custom is True, "another recipe under the name of a registered task"


def test_clips_that_are_worked_out_once_are_those_of_each_question_by_itself(corpus, tasks_file):
    """Upstreams of one grid may differ in what becomes of frames, in pending tasks, and in their batches."""
    tasks = [resolve_task(f"{tasks_file}:{name}") for name in ("KS", "ASR")]
    taken = [(task, task_rows(corpus, task)) for task in tasks]
    names = [task.name for task in tasks]
    together = GridClips(taken, None, False)
    means = {clip.key for clip in together.all.clips if clip.kinds != {"frames"}}
    shared = set()
    for asked in (names, names[:1], names[1:], []):
        for frames in ("recompute", "float16", None, "int8", "recompute"):
            alone, found = (each.kept(asked, frames) for each in (GridClips(taken, None, False), together))
            assert found.clips == alone.clips
            assert found.keys == alone.keys
            assert (asked != names or frames == "recompute") == (found is not together.all)
            for sizes in ((1, 8.0), (1, 0.5), (8_000, 8.0), (8_000, 0.5)):
                first = [clip for clip in found.clips if clip.key in means]
                others = [clip for clip in found.clips if clip.key not in means]
                assert found.batches(*sizes) == lay_out(first, *sizes) + lay_out(others, *sizes)
            shared.add(id(found))
    assert len(shared) < 20, "some are the same"


# Field of a cell -> how another one differs in it; what a head learns depends on these.
OTHERS = {
    "upstream": [lambda cell: replace(cell.upstream, digest="another")],
    "task": [
        lambda cell: replace(cell.task, label="text"),
        lambda cell: replace(cell.task, head="utterance_attention"),
        lambda cell: replace(cell.task, metrics=("wer",)),
    ],
    "recipe": [lambda cell: replace(cell.recipe, steps=5), lambda cell: replace(cell.recipe, learning_rates=(1.0,))],
    "rows": [
        lambda cell: replace(cell.rows, digest="another"),  # of another corpus, --limit or fold
        lambda cell: replace(cell.rows, audio=AudioRecipe(gain_db=1.0)),
    ],
    "frames": [lambda cell: "int8"],
    "live": [lambda cell: ("train",)],
}
SHARED = {"seed"}  # heads of several seeds are trained side by side
AFTERWARDS = {"custom", "long", "leaks"}  # told of a run, of no influence on what is learned


def test_heads_are_trained_side_by_side_that_differ_in_their_seed_alone(corpus, quick):
    cell, again = make_cells(Grid(("fbank",), quick[:1], (0, 1)), corpus).cells
    assert len(sweeps_of([cell, again], 1)) == 1
    assert set(OTHERS) | SHARED | AFTERWARDS == {field.name for field in fields(Cell)}, "is it of influence?"
    for name, changes in OTHERS.items():
        for number, change in enumerate(changes):
            other = replace(again, **{name: change(again)})
            sweeps = sweeps_of([cell, other], 1)
            together = [{id(each) for each, _ in runs} for runs in sweeps]
            assert set.union(*together) == {id(cell), id(other)}
            assert max(map(len, together)) == 1, (name, number)


def test_a_loop_is_shared_out_where_there_are_more_workers_than_loops(corpus, quick):
    cells = make_cells(Grid(("fbank", "mfcc"), quick, (0,)), corpus).cells
    assert len({(cell.upstream.name, cell.task.name) for cell in cells}) == 4
    assert [len(sweeps_of(cells, workers)) for workers in (1, 2, 4, 8)] == [4, 4, 4, 8]
    assert len(sweeps_of(cells[:1], 2)) == 2


def test_more_seeds_are_of_heads_on_means_alone_and_come_last(corpus, tasks_file):
    asr, sid = (resolve_task(f"{tasks_file}:{name}") for name in ("ASR", "SID"))
    cells = make_cells(Grid(("fbank",), (asr, sid), (0,), quick_seeds=(1, 0)), corpus).cells
    groups = quick_first(cells)
    assert [[(cell.task.name, cell.seed) for cell in group] for group in groups] == [
        [(sid.name, 0)],
        [(asr.name, 0)],
        [(sid.name, 1)],
    ]
    assert [means_alone(groups, number) for number in range(3)] == [True, False, False]
    assert [means_alone(groups[1:], number) for number in range(2)] == [False, False], "it goes on where it was"
    of_all = make_cells(Grid(("fbank",), (asr, sid), (0, 1)), corpus).cells
    assert [[cell.seed for cell in group] for group in quick_first(of_all)] == [[0, 1], [0, 1]], "as they are asked for"


@pytest.mark.parametrize("there", [False, True])
def test_what_is_planned_comes_to_pass_with_more_seeds(corpus, tasks_file, tmp_path, there):
    tasks = tuple(resolve_task(f"{tasks_file}:{name}") for name in ("ASR", "SID"))
    grid, folders = Grid(("fbank",), tasks, (0,), quick_seeds=(1,)), Folders(tmp_path / "cache", tmp_path / "results")
    if there:
        run_grid(replace(grid, quick_seeds=()), corpus, folders, LocalExecutor("cpu", 1))
    plan = make_cells(grid, corpus)
    pending = [cell for cell in plan.cells if cell.run not in RecordStore(folders.results)]
    planned = prepare(plan, run_module._parts(plan.clips, pending), corpus, folders, None, 1).stages
    told = Told()
    report = run_grid(grid, corpus, folders, LocalExecutor("cpu", 1), told)
    assert (report.failures, report.computed) == ([], 1 if there else 3)
    wanted = [(stage.title, sum(work.amount for work in stage.works)) for stage in planned]
    assert told.stages == [(title, pytest.approx(amount)) for title, amount in wanted if title != LEAVING]


whole, levels = st.integers(0, 1 << 40), st.floats(-60, 60)
stops = st.none() | whole
paths = st.sampled_from(["a.wav", "folder/a.wav", "ü.flac"]).map(Path)
mixtures = st.builds(
    Mixture,
    st.lists(st.builds(Source, paths, whole, stops, whole, levels), min_size=1, max_size=3).map(tuple),
    st.sampled_from(["max", "min"]),
)
clips = st.builds(
    Clip,
    st.text("0123456789abcdef", min_size=4, max_size=4),
    paths,
    whole,
    st.just(frozenset()),
    whole,
    stops,
    st.just(0.0),
    st.none() | mixtures,
)
examples = st.builds(
    Example,
    st.text(max_size=5),
    st.lists(st.text(max_size=5), min_size=1, max_size=3).map(tuple),
    st.text() | st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
    st.none() | st.text(max_size=5),
)
audio_recipes = st.builds(
    AudioRecipe, levels, st.none() | st.builds(Trim, st.floats(1e-6, 1), st.floats(1e-3, 9)), whole, whole, whole
)
made_rows = st.builds(
    lambda audio, recordings, **facts: TaskRows(
        audio=audio,
        recordings={
            split: [replace(clip, gain_db=audio.gain_db) for clip in part] for split, part in recordings.items()
        },
        **facts,
    ),
    corpus=st.text(max_size=5),
    audio=audio_recipes,
    recordings=st.dictionaries(st.sampled_from(["train", "valid", "test"]), st.lists(clips, max_size=3)),
    examples=st.dictionaries(st.sampled_from(["train", "valid", "test"]), st.lists(examples, max_size=3)),
    digest=st.text(max_size=5),
    limited=st.booleans(),
    fold=st.none() | st.text(max_size=3),
    trials=st.dictionaries(
        st.sampled_from(["valid", "test"]), st.lists(st.builds(Trial, whole, whole, st.booleans()), max_size=3)
    ),
    divided=st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
)
SAID_BEFORE = {"doubts"}  # told to a person while rows are planned; jobs do without


@given(made_rows)
def test_what_is_kept_for_jobs_is_read_back_in_every_field(tmp_path_factory, rows):
    again = read_rows(rows.kept_in(tmp_path_factory.mktemp("rows")).path)
    for name in {field.name for field in fields(TaskRows)} - SAID_BEFORE - {"path"}:
        assert getattr(again, name) == getattr(rows, name), name


def test_rows_that_are_kept_nowhere_are_sent_whole(corpus, quick):
    rows = task_rows(corpus, quick[1])
    found = sent(rows)
    assert (found.examples, found.clips, found.digest) == (rows.examples, rows.clips, rows.digest)


@pytest.mark.parametrize("loss", ["gone", "damaged"])
def test_kept_rows_that_are_lost_or_damaged_are_told(corpus, quick, tmp_path, loss):
    rows = task_rows(corpus, quick[0]).kept_in(tmp_path)
    rows.path.write_bytes(rows.path.read_bytes().replace(b"ba", b"di", 1)) if loss == "damaged" else rows.path.unlink()
    read_rows.cache_clear()
    with pytest.raises(CacheError, match=loss):
        sent(rows)


def test_a_grid_runs_in_other_processes_from_kept_rows(corpus, quick, tmp_path):
    results = {}
    for workers in (1, 2):
        folders = Folders(tmp_path / f"cache{workers}", tmp_path / f"results{workers}")
        report = run_grid(Grid(("fbank",), quick, (0,)), corpus, folders, LocalExecutor("cpu", workers))
        assert report.failures == []
        results[workers] = {record.run: record.result_digest() for record in RecordStore(folders.results).all()}
    assert results[1] == results[2] and len(results[1]) == 2


def test_the_command_line_starts_without_what_few_commands_need():
    """Every worker process imports it, too: seconds and 100 MB each."""
    few = ("accelerate", "datasets", "scipy.stats", "sklearn", "statsmodels", "tensorboard", "transformers", "ray")
    asked = f"import sys, run_benchmark; print([name for name in {few} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
