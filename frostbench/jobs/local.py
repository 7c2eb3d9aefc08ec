"""Jobs on this machine: in this process, or in several, each bound to its device."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from types import ModuleType, TracebackType
from typing import Any, Self

import torch

from core.errors import BenchmarkError
from core.processors import usable_cores
from frostbench.jobs.base import (
    POLL_SECONDS,
    Advance,
    Done,
    Follow,
    Job,
    KilledError,
    Outcome,
    ProgressCounter,
    Say,
    ignore_line,
    ignore_progress,
    outcome_of,
    run_job,
    set_up_worker,
)

RETRIES = 1  # of a job whose process was killed: once may be chance, twice is the job
STARTS = 3  # of a job whose process was gone before it began
_messages: Any = None  # of a worker process: where its progress goes


def devices_here(name: str | None) -> list[str]:
    """The devices of that name, several GPUs one by one; those of the best kind there is if None.

    Raises: BenchmarkError: there is none of that name here.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.zeros(1, device=torch.device(name))
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise BenchmarkError(
            f"device '{name}' can't be used here ({str(error).splitlines()[0]}); choose cpu, or leave --device out"
        ) from None
    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] if name == "cuda" else [name]


class LocalExecutor:
    """Runs jobs on this machine, each worker process on its own device as long as there are enough.

    Args:
        device: cpu, cuda for all GPUs, cuda:1, mps; None is the best there is.
        workers: processes; 1 runs everything in this one; None is one a GPU, or one a core.
        most: jobs that will come, where that is known.
        preload: module that processes import as soon as this is entered, so that the first job need not wait for it;
            None is this one.

    Raises: BenchmarkError: no such device.
    """

    def __init__(
        self,
        device: str | None = None,
        workers: int | None = None,
        most: int | None = None,
        preload: str | None = None,
    ) -> None:
        devices = devices_here(device)
        cores = usable_cores()
        self.workers = workers or (cores if devices == ["cpu"] else len(devices))
        self.workers = min(self.workers, most or self.workers)
        self._devices = [devices[number % len(devices)] for number in range(self.workers)]
        self._threads = max(1, cores // self.workers)
        self._lanes: list[_Lane] = []
        self._preload = preload or __name__

    def __enter__(self) -> Self:
        if self.workers > 1:
            self._lanes = [_Lane(device, self._threads, self._preload) for device in self._devices]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for lane in self._lanes:
            lane.pool.shutdown(wait=kind is None, cancel_futures=True)
        if kind is not None:
            for child in multiprocessing.active_children():
                child.terminate()

    def run(
        self,
        jobs: Sequence[Job],
        advance: Advance,
        done: Done = lambda outcome: None,
        say: Say = ignore_line,
        follow: Follow = ignore_progress,
    ) -> list[Outcome]:
        """See Executor.run."""
        if self.workers == 1:
            counter = ProgressCounter(advance, say, follow)
            return [_run_here(number, job, self._devices[0], counter, done) for number, job in enumerate(jobs)]
        outcomes: dict[int, Outcome] = {}
        begun: set[int] = set()

        def noted(number: int, amount: float | None) -> None:
            if amount is None:
                begun.add(number)
            follow(number, amount)

        counter = ProgressCounter(advance, say, noted)
        waiting, free, kills, starts = deque(range(len(jobs))), deque(self._lanes), Counter[int](), Counter[int]()
        running: dict[Future[Any], tuple[int, _Lane]] = {}
        while waiting or running:
            while waiting and free:
                number, lane = waiting.popleft(), free.popleft()
                running[lane.submit(number, jobs[number])] = number, lane
            finished, _ = wait(running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
            for lane in self._lanes:
                lane.tell(counter)
            for future in finished:
                number, lane = running.pop(future)
                free.append(lane)
                if isinstance(future.exception(), BrokenProcessPool):
                    # A process that died while it was idle may be noticed only now: the job is not to blame.
                    tries, most = (kills, RETRIES) if number in begun else (starts, STARTS)
                    begun.discard(number)
                    tries[number] += 1
                    if tries[number] <= most:
                        waiting.append(number)  # behind the others: there may be more memory when fewer run
                        continue
                outcomes[number] = outcome_of(jobs[number], partial(_result, future))
                done(outcomes[number])
        return [outcomes[number] for number in range(len(jobs))]


class _Lane:
    """A worker process with a device: when it is killed, the lane alone goes on with a fresh one.

    A process a pool, because a pool whose process is killed takes its other processes and all their jobs with it. And a
    pipe a process, because one that is killed while it writes leaves the pipe locked for everybody.
    """

    def __init__(self, device: str, threads: int, preload: str) -> None:
        self._device, self._threads, self._preload = device, threads, preload
        self._open()

    def _open(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._messages = context.SimpleQueue()
        arguments = (self._messages, self._threads, os.getpid())
        self.pool = ProcessPoolExecutor(1, context, initializer=_start_worker, initargs=arguments)
        with _out_of_reach_of_ctrl_c(), _without_main():
            self.pool.submit(_import, self._preload)  # starts the process

    def submit(self, number: int, job: Job) -> Future[Any]:
        with _out_of_reach_of_ctrl_c(), _without_main():  # a process may be started here
            try:
                return self.pool.submit(_run_in_worker, number, job, self._device)
            except BrokenProcessPool:
                self.pool.shutdown()
                self._messages.close()
                self._open()
                return self.pool.submit(_run_in_worker, number, job, self._device)

    def tell(self, counter: ProgressCounter) -> None:
        while not self._messages.empty():
            counter.take(*self._messages.get())


@contextmanager
def _out_of_reach_of_ctrl_c() -> Iterator[None]:
    """Ctrl-C reaches all processes of a terminal: those that start here never hear it, the parent ends them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextmanager
def _without_main() -> Iterator[None]:
    """Processes that start here don't run the program's main module anew, as multiprocessing makes them.

    Jobs are functions of ours and need nothing of it, while a script that evaluates without asking for
    `__name__ == "__main__"` would evaluate again in every worker.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _result(future: Future[Any]) -> Any:
    try:
        return future.result()
    except BrokenProcessPool:
        raise KilledError() from None


def _run_here(number: int, job: Job, device: str, counter: ProgressCounter, done: Done) -> Outcome:
    torch.set_flush_denormal(True)  # as in the workers
    try:
        outcome = outcome_of(job, lambda: run_job(number, job, device, lambda message: counter.take(*message)))
    finally:
        torch.set_flush_denormal(False)
    done(outcome)
    return outcome


def _start_worker(messages: Any, threads: int, parent: int) -> None:
    """Runs first in every worker process."""
    global _messages
    _messages = messages
    set_up_worker(threads)
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    """A killed parent can't end its workers: they look after themselves, or they would compute on for nobody."""
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os._exit(1)


def _import(module: str) -> None:
    import_module(module)


def _run_in_worker(number: int, job: Job, device: str) -> Any:
    return run_job(number, job, device, _messages.put)
