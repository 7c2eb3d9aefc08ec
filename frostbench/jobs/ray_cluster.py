"""Jobs on a Ray cluster whose machines share a storage: Ray places them, and does those again whose worker is lost."""

from __future__ import annotations

import logging
import os
import socket
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

# Ray reads these as it is imported. What it tells on the driver's standard output would stand between our results.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayError, RayTaskError, WorkerCrashedError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from core.errors import BenchmarkError
from frostbench.jobs.base import (
    POLL_SECONDS,
    Advance,
    Done,
    Follow,
    Job,
    KilledError,
    Message,
    Outcome,
    ProgressCounter,
    Say,
    ignore_line,
    ignore_progress,
    outcome_of,
    run_job,
    set_up_worker,
)
from frostbench.provenance import git_state, versions

RETRIES = 3  # Ray's own default: a machine that goes away is not the job's fault
CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class Surroundings:
    """What a worker must find on its machine, and how it is set up.

    Attributes:
        folder: where the command was started; relative paths start there.
        markers: files that stand in the shared folders as long as this run takes.
        made_with: versions of Python and packages, and the commit.
        device: where jobs compute; of several GPUs Ray shows a job only its own.
        threads: of a job.
    """

    folder: Path
    markers: tuple[Path, ...]
    made_with: Mapping[str, str | None]
    device: str
    threads: int

    def enter(self) -> None:
        """Makes this process the worker that is asked for.

        Raises: BenchmarkError: this machine does not see the folders, or has other versions.
        """
        host = socket.gethostname()
        for folder, seen in ((self.folder, self.folder), *((marker.parent, marker) for marker in self.markers)):
            if not seen.exists():
                raise BenchmarkError(
                    f"{folder}: the worker on {host} does not see this folder, or another one in its place; "
                    f"name folders on a storage that all machines share, and start there"
                )
        for name, version in _made_with().items():
            if version != self.made_with[name]:
                raise BenchmarkError(
                    f"{name} is {version} on {host}, but {self.made_with[name]} where the command was started; "
                    f"install the same versions on every machine"
                )
        os.chdir(self.folder)
        set_up_worker(self.threads)


@dataclass(frozen=True)
class Machine:
    """A machine of the cluster and what jobs can claim there."""

    node: str
    cores: float
    gpus: float

    def room(self, cores: int, gpus: int) -> int:
        """How many jobs of that claim fit at a time."""
        return int(min(self.cores // cores, self.gpus // gpus if gpus else self.cores))


class RayExecutor:
    """Runs jobs on a Ray cluster, each on a GPU of its own or on its share of the cores.

    Args:
        address: HOST:PORT; None is $RAY_ADDRESS, else a cluster on this machine, else one that is started for the run.
        device: cpu or cuda; None is cuda if the cluster has GPUs.
        workers: jobs at a time; None is one a GPU, or one a core.
        shared: folders that every machine must see.
        most: jobs that will come, where that is known.

    Raises: BenchmarkError: a device that Ray does not hand out, or an address of Ray's client.
    """

    def __init__(
        self,
        address: str | None,
        device: str | None,
        workers: int | None,
        shared: Sequence[Path],
        most: int | None = None,
    ) -> None:
        if device not in (None, "cpu", "cuda"):
            raise BenchmarkError(
                f"device '{device}' can't be used with --executor ray, which places jobs itself; "
                f"choose cpu or cuda, or leave --device out"
            )
        if address is not None and "://" in address:
            raise BenchmarkError(
                f"--ray-address {address}: Ray's client does not share folders with the cluster; "
                f"start the command on one of its machines, with HOST:PORT as ray start prints it"
            )
        self._address, self._device, self._asked, self._most = address, device, workers, most
        self._markers = tuple(folder.absolute() / f".shared-{uuid.uuid4().hex}" for folder in shared)
        self.workers = 0
        self._leave = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for marker in self._markers:
                marker.parent.mkdir(parents=True, exist_ok=True)
                stack.callback(marker.unlink, missing_ok=True)
                marker.touch()
            stack.callback(ray.shutdown)  # ends all that still runs
            _connect(self._address)
            self._share_out([_machine(node) for node in ray.nodes() if node["Alive"]])
            self._leave = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave.close()

    def _share_out(self, machines: Sequence[Machine]) -> None:
        """Decides what a job claims, and lets every machine tell whether jobs can run there.

        Raises: BenchmarkError: no machine has what is asked for, or one does not see the shared folders.
        """
        device = self._device or ("cuda" if any(machine.gpus for machine in machines) else "cpu")
        gpus = int(device == "cuda")
        able = [machine for machine in machines if machine.room(1, gpus)]
        if not able:
            raise BenchmarkError(f"no machine of the Ray cluster gives a {'GPU and a ' * gpus}core; see: ray status")
        room = self._asked or sum(machine.room(1, gpus) for machine in able)
        self.workers = min(room, self._most or room)
        cores = cores_of_a_job(able, gpus, self.workers)
        self._surroundings = Surroundings(Path.cwd(), self._markers, _made_with(), device, cores)
        lasting = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Mailbox)
        self._mailbox: Any = lasting.options(scheduling_strategy=_on(ray.get_runtime_context().get_node_id())).remote()
        self._task = ray.remote(num_cpus=cores, num_gpus=gpus, max_retries=RETRIES)(_run_in_worker)
        look = ray.remote(num_cpus=0)(Surroundings.enter)
        looks = [look.options(scheduling_strategy=_on(each.node)).remote(self._surroundings) for each in able]
        for reference in looks:
            try:
                _result(reference)
            except (RayError, ImportError) as error:
                raise BenchmarkError(
                    f"a worker of the Ray cluster can't begin ({str(error).splitlines()[0]}); Frostbench has to lie "
                    f"at the same path on every machine, or to be installed there"
                ) from None

    def run(
        self,
        jobs: Sequence[Job],
        advance: Advance,
        done: Done = lambda outcome: None,
        say: Say = ignore_line,
        follow: Follow = ignore_progress,
    ) -> list[Outcome]:
        """See Executor.run."""
        numbers = {
            self._task.options(name=job.name).remote(number, job, self._surroundings, self._mailbox): number
            for number, job in enumerate(jobs)
        }
        outcomes: dict[int, Outcome] = {}
        counter = ProgressCounter(advance, say, follow)
        waiting = list(numbers)
        while waiting:
            finished, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=POLL_SECONDS)
            for message in ray.get(self._mailbox.take.remote()):
                counter.take(*message)
            for reference in finished:
                number = numbers[reference]
                outcomes[number] = outcome_of(jobs[number], partial(_result, reference))
                done(outcomes[number])
        return [outcomes[number] for number in range(len(jobs))]


def cores_of_a_job(machines: Sequence[Machine], gpus: int, workers: int) -> int:
    """As many cores as each of so many jobs can have at a time; one if there are more jobs than room."""
    most = int(max(machine.cores for machine in machines))
    fitting = (cores for cores in range(most, 1, -1) if sum(each.room(cores, gpus) for each in machines) >= workers)
    return next(fitting, 1)


class _Mailbox:
    """An actor: workers on every machine leave here how far they came."""

    def __init__(self) -> None:
        self._messages: list[Message] = []

    def put(self, message: Message) -> None:
        self._messages.append(message)

    def take(self) -> list[Message]:
        taken, self._messages = self._messages, []
        return taken


def _run_in_worker(number: int, job: Job, surroundings: Surroundings, mailbox: Any) -> Any:
    surroundings.enter()
    value = run_job(number, job, surroundings.device, mailbox.put.remote)
    ray.get(mailbox.put.remote((number, 0.0, "")))  # calls arrive in order: the last one in, all are
    return value


def _made_with() -> dict[str, str | None]:
    return {**versions(), "commit of Frostbench": git_state()["commit"]}


def _machine(node: Mapping[str, Any]) -> Machine:
    return Machine(node["NodeID"], node["Resources"].get("CPU", 0), node["Resources"].get("GPU", 0))


def _on(node: str) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node, soft=False)


def _result(reference: Any) -> Any:
    """What a task returned; what it raised is raised as it was."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise error.cause from error
    except (WorkerCrashedError, NodeDiedError, OutOfMemoryError):
        raise KilledError() from None


def _connect(address: str | None) -> None:
    """Raises: BenchmarkError: no cluster there, or one that does not fit."""
    try:
        if address is not None and address.count(":") == 1:
            host, port = address.split(":")
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()  # Ray itself would try for minutes
        with _silenced():
            ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError, RayError) as error:
        where = "the address that Ray knows" if address is None else f"--ray-address {address}"
        lines = str(error.__cause__ or error).splitlines()
        reason = lines[-1] if "Traceback" in lines[0] else " ".join(map(str.strip, lines))
        raise BenchmarkError(f"no Ray cluster at {where} ({reason}); start one with: ray start --head") from None


@contextmanager
def _silenced() -> Iterator[None]:
    """Ray's C++ part tells every attempt on file descriptor 2, past Python's logging; the error says it once."""
    sys.stderr.flush()
    before = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
