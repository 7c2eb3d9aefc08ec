"""What an executor is: something that runs jobs on this machine or on several, and survives a worker that is killed.

Jobs can be done twice: what they write is whole or absent, and what is there already is not computed again.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import torch

from core.checks import described, place_of
from core.digest import IN_THE_WAY, STORAGE_ERRNOS
from core.errors import BenchmarkError
from core.memory import keep_freed_memory

logger = logging.getLogger(__name__)


Advance = Callable[..., None]  # amount, and a line on how it goes, or none


Say = Callable[[str], None]


Follow = Callable[[int, float | None], None]  # number of a job and how far it came; None as an attempt begins


# Number of a job, how far it came since the last, None as an attempt begins, and a line on how it goes, or none.
Message = tuple[int, float | None, str]


POLL_SECONDS = 0.2  # between two looks at what workers tell


class KilledError(BenchmarkError):
    """The process of a job was killed so often that the job is given up."""

    def __init__(self) -> None:
        super().__init__("its process was killed at every try, mostly for lack of memory; try fewer --workers")


@dataclass(frozen=True)
class Job:
    """A function call that can go to another process: `function(*arguments, device=..., advance=...)`.

    Where it runs decides the device, and says it with `device`, as torch spells it. `advance` takes how far the job
    came since the last call, and may take a line on how it goes.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of a job: a value, or an error in one line."""

    job: Job
    value: Any = None
    error: str | None = None


Done = Callable[[Outcome], None]


class Executor(Protocol):
    """Runs jobs somewhere. Workers start where it is entered, and are gone where it is left.

    Attributes:
        workers: how many jobs run at a time; known once it is entered.
    """

    workers: int

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def run(
        self, jobs: Sequence[Job], advance: Advance, done: Done = ..., say: Say = ..., follow: Follow = ...
    ) -> list[Outcome]:
        """Runs jobs to the end, the first ones first.

        Args:
            jobs: independent of each other.
            advance: called with how far a job came since the last call; less than zero where a killed one starts again.
            done: called as each job ends.
            say: called with the lines that jobs tell.
            follow: called with the number of a job and how far it came since the last call; with None as it begins.

        Returns: an outcome a job, in the order of the jobs; one that fails does not stop the others.
        Raises: OSError: nothing can be written any more.
        """
        ...


class ProgressCounter:
    """Tells how far jobs come, and takes back what a killed attempt told when the next one begins."""

    def __init__(self, advance: Advance, say: Say, follow: Follow | None = None) -> None:
        self._advance, self._say, self._follow = advance, say, follow or ignore_progress
        self._told: dict[int, float] = {}

    def take(self, number: int, amount: float | None, line: str) -> None:
        """Takes in a message of a worker."""
        self._follow(number, amount)
        told = self._told.get(number, 0.0)
        amount = -told if amount is None else amount
        self._told[number] = told + amount
        if amount:
            self._advance(amount)
        if line:
            self._say(line)


def run_job(number: int, job: Job, device: str, tell: Callable[[Message], object]) -> Any:
    """What a worker process does with a job, whoever runs it."""
    tell((number, None, ""))
    return job.function(*job.arguments, device=device, advance=lambda amount, line="": tell((number, amount, line)))


def ignore_line(line: str) -> None:
    """For those who want no lines."""


def ignore_progress(number: int, amount: float | None) -> None:
    """For those who do not follow each job."""


def outcome_of(job: Job, result: Callable[[], Any]) -> Outcome:
    """The one place that catches everything: a failed cell must not stop the others. A full disk stops them all,
    and so does what lies in the way of our own files.
    """
    try:
        return Outcome(job, value=result())
    except BenchmarkError as error:
        return Outcome(job, error=str(error))
    except OSError as error:
        if error.errno in STORAGE_ERRNOS or (error.errno in IN_THE_WAY and not place_of(error)):
            raise
        return _unexpected(job, error)
    except (Exception, SystemExit) as error:  # sys.exit() in a plug-in would end everything without a word
        return _unexpected(job, error)


def set_up_worker(threads: int) -> None:
    """What holds for every process of ours that runs jobs, so that results do not depend on where they were made.

    It changes the whole process, and so is for a process that was started to run jobs, never for the caller's own.
    """
    torch.set_num_threads(threads)
    # Saturated LSTM gates give subnormal gradients, which make an update on FBANK six times as slow on a CPU.
    torch.set_flush_denormal(True)
    keep_freed_memory()


def _unexpected(job: Job, error: BaseException) -> Outcome:
    # Of the user's code the line is in the message; where there is none, the fault may be ours.
    level = logging.DEBUG if place_of(error) else logging.ERROR
    logger.log(level, "%s failed:\n%s", job.name, "".join(traceback.format_exception(error)))
    return Outcome(job, error=described(error))
