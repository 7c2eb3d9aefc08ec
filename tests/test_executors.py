"""Both executors keep the same promises: outcomes, progress, workers that are killed, the same results everywhere."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import jobs
import pytest
import torch
from conftest import call
from test_end_to_end import OWN_UPSTREAM, options

from core.errors import BenchmarkError
from core.processors import usable_cores
from core.records import RecordStore
from frostbench.jobs import local
from frostbench.jobs.base import Executor, Job, Outcome, ProgressCounter
from frostbench.jobs.local import LocalExecutor, devices_here
from frostbench.jobs.open import open_executor

ROOT = Path(__file__).parent.parent
KINDS = ("local", "ray")


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A real Ray cluster of two machines, as far as Ray can tell, with a core and a pretended GPU each: its address."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", uuid.uuid4().hex)  # else Ray would write one into the home folder
        patch.setenv("RAY_worker_niceness", "0")  # its own default lets workers starve beside other tests
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # the jobs of these tests
        pytest.importorskip("ray", reason="Ray is not installed: pip install 'frostbench[ray]'")
        from ray.cluster_utils import Cluster

        machine = {"num_cpus": 1, "num_gpus": 1, "include_dashboard": False, "object_store_memory": 100 << 20}
        started = Cluster(initialize_head=True, head_node_args=machine)
        started.add_node(**machine)
        yield started.address
        started.shutdown()


@pytest.fixture(scope="class", params=KINDS)
def executor(request, tmp_path_factory) -> Iterator[Executor]:
    """Entered once for all tests of a kind, with two workers on the CPU; killed jobs get a second try."""
    address = request.getfixturevalue("cluster") if request.param == "ray" else None
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "ray":
            patch.setattr("frostbench.jobs.ray_cluster.RETRIES", 1)
        with open_executor(request.param, address, "cpu", 2, [tmp_path_factory.mktemp("shared")]) as entered:
            yield entered


def run(executor: Executor, *asked: tuple[object, ...]) -> tuple[list[Outcome], list[float], list[Outcome]]:
    told: list[float] = []
    done: list[Outcome] = []
    named = [Job(f"job {number}", function, tuple(arguments)) for number, (function, *arguments) in enumerate(asked)]
    return executor.run(named, told.append, done.append), told, done


def soon(condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + 60
    while not condition() and time.monotonic() < until:
        time.sleep(0.05)
    return condition()


def gone(processes: Iterable[int]) -> bool:
    return not any(Path(f"/proc/{process}").exists() for process in processes)


class TestBoth:
    """What an executor promises, whichever it is."""

    def test_every_worker_is_set_up_alike(self, executor, tmp_path):
        outcomes, _, _ = run(executor, (jobs.look_around, str(tmp_path)), (jobs.look_around, str(tmp_path)))
        first, second = (outcome.value for outcome in outcomes)
        assert executor.workers == 2
        assert first["process"] != second["process"]
        for seen in (first, second):
            assert (seen["device"], seen["flushes"], seen["folder"]) == ("cpu", True, str(Path.cwd()))
            assert seen["threads"] == (max(1, usable_cores() // 2) if isinstance(executor, LocalExecutor) else 1)

    def test_outcomes_stand_in_the_order_of_the_jobs(self, executor, caplog):
        caplog.set_level(logging.DEBUG, "frostbench")
        asked = ((jobs.tell, 1, 2), (jobs.refuse,), (jobs.stumble,), (jobs.tell, 4))
        outcomes, told, done = run(executor, *asked)
        assert [outcome.value for outcome in outcomes] == [3, None, None, 4]
        line = next(
            n for n, text in enumerate(Path(jobs.__file__).read_text().splitlines(), 1) if "out of order" in text
        )
        assert [outcome.error for outcome in outcomes] == [
            None, "x is 3, must be 4; make it 4", f"RuntimeError: out of order (jobs.py, line {line})", None
        ]  # fmt: skip
        assert "in stumble" in caplog.text  # where it happened is in the log
        assert sorted(told) == [1, 2, 4]
        assert sorted(outcome.job.name for outcome in done) == [outcome.job.name for outcome in outcomes]

    def test_a_killed_job_is_done_again_and_the_others_go_on(self, executor, tmp_path):
        asked = [(jobs.tell, 1)] * 3
        outcomes, told, done = run(executor, (jobs.die_once, tmp_path / "marker"), *asked, (jobs.die,), *asked)
        assert [outcome.value for outcome in outcomes] == ["lived", 1, 1, 1, None, 1, 1, 1]
        assert (
            outcomes[4].error == "its process was killed at every try, mostly for lack of memory; try fewer --workers"
        )
        assert sum(told) == 15 + 6  # what the killed attempt told is taken back
        assert -10 in told
        assert len(done) == 8

    def test_a_full_disk_stops_everything(self, executor):
        with pytest.raises(OSError, match="No space left on device") as caught:
            run(executor, (jobs.fill_the_disk,), (jobs.tell, 1))
        assert (caught.value.errno, caught.value.filename) == (28, "/full/disk")


def test_each_process_has_a_gpu_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(local.torch, "zeros", lambda *size, device: None)
    assert devices_here("cuda") == ["cuda:0", "cuda:1"]
    assert devices_here("cuda:1") == ["cuda:1"]
    assert LocalExecutor("cuda:1").workers == LocalExecutor("cuda", most=1).workers == 1
    with LocalExecutor("cuda") as executor:
        for folder in (tmp_path / "first", tmp_path / "second"):
            folder.mkdir()
            outcomes, _, _ = run(executor, *[(jobs.look_around, str(folder))] * 2)
            assert {outcome.value["device"] for outcome in outcomes} == {"cuda:0", "cuda:1"}
            processes = [outcome.value["process"] for outcome in outcomes]
            for process in processes:  # one that is killed while it is idle is replaced by the next job
                os.kill(process, signal.SIGKILL)
            assert soon(partial(gone, processes))


def test_ray_gives_each_job_a_gpu(cluster, tmp_path):
    with open_executor("ray", cluster, None, None, [tmp_path]) as executor:
        assert executor.workers == 2
        (tmp_path / "seen").mkdir()
        outcomes, _, _ = run(executor, *[(jobs.look_around, str(tmp_path / "seen"))] * 2)
    assert [(outcome.value["device"], outcome.value["gpus"]) for outcome in outcomes] == [("cuda", "0")] * 2


@pytest.mark.parametrize(
    ("cores", "gpus", "workers", "expected"),
    [
        ((1, 1), 0, 2, 1),
        ((8,), 0, 8, 1),
        ((8,), 0, 2, 4),
        ((8,), 0, 3, 2),  # 3 cores each would let two run
        ((8, 2), 0, 3, 2),
        ((2,), 0, 5, 1),  # more jobs than room: Ray lets them wait
        ((64, 16, 16), 1, 8, 4),  # the machine without GPUs does not count
    ],
)
def test_jobs_claim_all_cores(cores, gpus, workers, expected):
    ray_executor = pytest.importorskip("frostbench.jobs.ray_cluster", exc_type=ImportError)
    machines = [ray_executor.Machine("", count, 4 * gpus * (count == 16)) for count in cores]
    machines = [machine for machine in machines if machine.room(1, gpus)]
    assert ray_executor.cores_of_a_job(machines, gpus, workers) == expected


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    """An upstream that kills its process wherever a file named armed lies beside it, which is then gone."""
    file = tmp_path_factory.mktemp("own") / "own.py"
    die = """
        armed = Path(__file__).with_name("armed")
        if armed.exists():
            import os, signal
            armed.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        frames = """
    file.write_text(OWN_UPSTREAM.replace('name="loudness"', 'name="mortal"').replace("\n        frames = ", die, 1))
    return file


@pytest.fixture(scope="module")
def straight(own, corpus_folder, tasks_file, tmp_path_factory) -> Path:
    """The outcome of a run in this process that nothing disturbed."""
    folder = tmp_path_factory.mktemp("straight")
    assert call(*grid(folder, corpus_folder, f"{own}:Loudness", two_tasks(tasks_file))).code == 0
    return folder


def two_tasks(file: Path) -> tuple[str, str]:
    return f"{file}:KS", f"{file}:ASR"


def grid(folder: Path, corpus: Path, upstream: object, tasks: tuple[object, ...], **others: object) -> list[object]:
    folders = {"output": folder / "results", "cache": folder / "cache"}
    return options(upstreams=(upstream,), tasks=tasks, corpus=corpus, **folders, **others)


def where(kind: str, request: pytest.FixtureRequest) -> dict[str, object]:
    """The options of a run with a worker a core; two at least, since a single one would be this very process."""
    if kind == "local":
        return {"executor": kind, "workers": max(2, usable_cores())}
    return {"executor": kind, "ray-address": request.getfixturevalue("cluster"), "workers": 2}


def workers(kind: str, parent: int | None = None) -> set[int]:
    """Worker processes: those of this process or of another one, or those that Ray named after our jobs."""
    if kind == "local" and parent is None:
        return {int(child.pid or 0) for child in multiprocessing.active_children()}
    if kind == "local":
        return set(map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split()))
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if path.read_bytes().startswith(b"ray::mortal"):
                found.add(int(path.parent.name))
    return found


@contextmanager
def killing(kind: str, moment: Callable[[], bool]) -> Iterator[set[int]]:
    """Kills every process that has a job as soon as the moment is there, once."""
    killed: set[int] = set()
    left = threading.Event()

    def watch() -> None:
        while not left.wait(0.01) and not killed:
            if moment():
                killed.update(workers(kind))
        for process in killed:
            os.kill(process, signal.SIGKILL)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        left.set()
        thread.join()


@pytest.mark.parametrize("kind", KINDS)
def test_killed_workers_cost_nothing(kind, request, corpus_folder, tasks_file, own, straight, tmp_path):
    """Once while features are extracted, and once while heads are trained, as soon as a first one is there."""
    own.with_name("armed").touch()
    command = grid(tmp_path, corpus_folder, f"{own}:Loudness", two_tasks(tasks_file), **where(kind, request))
    with killing(kind, lambda: any(tmp_path.glob("cache/heads/[!.]*"))) as killed:
        called = call(*command)
    assert called.code == 0
    assert "failed" not in called.err
    assert killed
    assert not own.with_name("armed").exists()
    assert "2 cells computed, 0 were there, 0 failed" in called.out
    expected, found = (RecordStore(folder / "results") for folder in (straight, tmp_path))
    assert [record.result() for record in found.all()] == [record.result() for record in expected.all()]
    assert kept(tmp_path) == kept(straight)
    assert not list(tmp_path.rglob(".shared-*"))


def kept(folder: Path) -> dict[str, list[str]]:
    """Kind of features -> audio, as often as it was kept."""
    content: dict[str, list[str]] = {}
    for index in folder.glob("cache/*/*/[!.]*.json"):
        content.setdefault(index.parent.name, []).extend(key for key, _ in json.loads(index.read_text()))
    return {kind: sorted(keys) for kind, keys in content.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_ctrl_c_ends_the_workers(kind, request, corpus_folder, own, tmp_path):
    command = grid(tmp_path, corpus_folder, f"{own}:Loudness", ("ks", "ic"), **where(kind, request))
    program = [sys.executable, ROOT / "run_benchmark.py", *command]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and so would ours
    with subprocess.Popen(list(map(str, program)), stderr=subprocess.PIPE, start_new_session=True) as process:
        assert soon(lambda: any(tmp_path.glob("cache/*/pooled/[!.]*.json")))
        assert soon(lambda: len(workers(kind, process.pid)) >= 2)
        started = workers(kind, process.pid)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert b"Traceback" not in errors
    assert soon(partial(gone, started))
    assert RecordStore(tmp_path / "results").all() == []
    assert not list(tmp_path.rglob(".shared-*"))


def test_a_machine_that_does_not_see_the_folders_says_so(cluster, monkeypatch, tmp_path):
    monkeypatch.setattr(Path, "touch", lambda path, **others: None)  # as if each machine had a folder of its own there
    with pytest.raises(BenchmarkError) as caught, open_executor("ray", cluster, "cpu", None, [tmp_path / "cache"]):
        pass
    assert str(caught.value).startswith(f"{tmp_path / 'cache'}: the worker on ")
    assert "does not see this folder" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "address", "device", "message"),
    [
        ("local", "a:1", None, "--ray-address a:1 is for --executor ray: add that, or leave the address out"),
        ("local", None, "cuda:77", "device 'cuda:77' can't be used here"),
        ("ray", None, "cuda:1", "device 'cuda:1' can't be used with --executor ray, which places jobs itself"),
        ("ray", "ray://localhost:1", None, "--ray-address ray://localhost:1: Ray's client does not share folders"),
        ("ray", "localhost:1", None, "no Ray cluster at --ray-address localhost:1 ([Errno"),
        ("ray", "nowhere", None, "no Ray cluster at --ray-address nowhere ("),
    ],
)
def test_what_can_not_be_opened(kind, address, device, message, tmp_path):
    if kind == "ray":
        pytest.importorskip("ray")
    with pytest.raises(BenchmarkError) as caught, open_executor(kind, address, device, 1, [tmp_path]):
        pass
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_without_ray_it_says_how_to_get_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "frostbench.jobs.ray_cluster", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BenchmarkError, match=r"ray is not installed here; run: pip install 'frostbench\[ray\]'"):
        open_executor("ray", None, None, None, [])


def test_what_a_killed_attempt_told_is_taken_back():
    told: list[float] = []
    lines: list[str] = []
    counter = ProgressCounter(told.append, lines.append)
    for message in ((0, None), (0, 3), (1, None), (1, 1), (0, 4), (0, None), (0, 2)):
        counter.take(*message, "")
    assert told == [3, 1, 4, -7, 2]
    counter.take(1, 1, "halfway")
    assert lines == ["halfway"]


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_job_says_arrives(workers):
    told, lines = [], []
    with LocalExecutor("cpu", workers) as executor:
        outcomes = executor.run([Job("a", jobs.say, ()), Job("b", jobs.say, ())], told.append, say=lines.append)
    assert [outcome.value for outcome in outcomes] == ["told", "told"]
    assert (sum(told), lines) == (4.0, ["on cpu", "on cpu"])


def test_processes_have_imported_what_jobs_need_before_one_comes():
    with LocalExecutor("cpu", 2, preload="colorsys") as executor:  # a module that nothing else asks for
        (outcome,) = executor.run([Job("job", jobs.has_imported, ("colorsys",))], lambda amount, line="": None)
    assert outcome.value is True
    with LocalExecutor("cpu", 2) as executor:
        (outcome,) = executor.run([Job("job", jobs.has_imported, ("colorsys",))], lambda amount, line="": None)
    assert outcome.value is False


@pytest.mark.parametrize(("broken", "value"), [(3, 6), (4, None)])
def test_a_job_is_not_to_blame_for_processes_that_died_before_it(broken, value, monkeypatch):
    """One that was killed while idle is noticed when the next job goes to it, more often than jobs are retried."""
    whole = local._Lane.submit
    sent = []

    def submit(lane, number, job):
        sent.append(number)
        if len(sent) <= broken:
            future = Future()
            future.set_exception(BrokenProcessPool("gone"))
            return future
        return whole(lane, number, job)

    monkeypatch.setattr(local._Lane, "submit", submit)
    with LocalExecutor("cpu", 2) as executor:
        (outcome,) = executor.run([Job("job", jobs.tell, (1, 2, 3))], lambda amount, line="": None)
    assert (outcome.value, len(sent)) == (value, 4)
    assert (outcome.error is None) == (value is not None), "no process ever lives: it is given up"
