"""Where jobs run. One implementation so far: this machine, in this process or in several."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch

from core.digest import STORAGE_ERRNOS
from core.errors import BenchmarkError

logger = logging.getLogger(__name__)
Advance = Callable[[float], None]
POLL_SECONDS = 0.2

_queue: Any = None  # of a worker process: where its progress goes


@dataclass(frozen=True)
class Job:
    """A function call that can go to another process: `function(*arguments, advance=...)`."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of a job: a value, or an error in one line."""

    job: Job
    value: Any = None
    error: str | None = None


def choose_device(name: str | None) -> torch.device:
    """The device of that name; the best there is if None.

    Raises: BenchmarkError: there is none of that name here.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise BenchmarkError(
            f"device '{name}' can't be used here ({str(error).splitlines()[0]}); choose cpu, or leave --device out"
        ) from None
    return device


class LocalExecutor:
    """Runs jobs on this machine.

    Args:
        workers: processes; 1 runs everything in this one.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None
        context = multiprocessing.get_context("spawn")
        self._progress = context.SimpleQueue()
        if workers > 1:
            threads = max(1, (os.cpu_count() or 1) // workers)
            arguments = (self._progress, threads, os.getpid())
            self._pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=arguments)

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is None:
            return
        self._pool.shutdown(wait=kind is None, cancel_futures=True)
        if kind is not None:
            for child in multiprocessing.active_children():
                child.terminate()

    def run(
        self,
        jobs: Sequence[Job],
        advance: Advance,
        done: Callable[[Outcome], None] = lambda outcome: None,
    ) -> list[Outcome]:
        """Runs jobs to the end, the first ones first.

        Args:
            jobs: independent of each other.
            advance: called with how far a job came since the last call.
            done: called as each job ends.

        Returns: an outcome a job, in the order of the jobs; one that fails does not stop the others.
        Raises: OSError: nothing can be written any more.
        """
        if self._pool is None:
            return [_run_here(job, advance, done) for job in jobs]
        futures: dict[Future[Any], Job] = {self._pool.submit(_run_job, job): job for job in jobs}
        outcomes: dict[Future[Any], Outcome] = {}
        waiting = set(futures)
        while waiting:
            finished, waiting = wait(waiting, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
            while not self._progress.empty():
                advance(self._progress.get())
            for future in finished:
                outcomes[future] = _outcome(futures[future], future.result)
                done(outcomes[future])
        return [outcomes[future] for future in futures]


def _run_here(job: Job, advance: Advance, done: Callable[[Outcome], None]) -> Outcome:
    torch.set_flush_denormal(True)  # as in the workers
    try:
        outcome = _outcome(job, lambda: job.function(*job.arguments, advance=advance))
    finally:
        torch.set_flush_denormal(False)
    done(outcome)
    return outcome


def _outcome(job: Job, call: Callable[[], Any]) -> Outcome:
    """The one place that catches everything: a failed cell must not stop the others. A full disk stops them all."""
    try:
        return Outcome(job, value=call())
    except BenchmarkError as error:
        return Outcome(job, error=str(error))
    except OSError as error:
        if error.errno in STORAGE_ERRNOS:
            raise
        return _unexpected(job, error)
    except BrokenProcessPool:
        return Outcome(job, error="its process ended abruptly, mostly for lack of memory; try fewer --workers")
    except Exception as error:
        return _unexpected(job, error)


def _unexpected(job: Job, error: Exception) -> Outcome:
    logger.error("%s failed:\n%s", job.name, "".join(traceback.format_exception(error)))
    return Outcome(job, error=f"{type(error).__name__}: {error}")


def _start_worker(queue: Any, threads: int, parent: int) -> None:
    """Runs first in every worker process."""
    global _queue
    _queue = queue
    torch.set_num_threads(threads)
    # Saturated LSTM gates give subnormal gradients, which make an update on FBANK six times as slow on a CPU.
    torch.set_flush_denormal(True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends the workers
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    """A killed parent can't end its workers: they look after themselves, or they would compute on for nobody."""
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os._exit(1)


def _run_job(job: Job) -> Any:
    return job.function(*job.arguments, advance=_queue.put)
